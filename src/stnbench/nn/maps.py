"""Size of a feature map, and its change by convolution and pooling."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class MapSize:
    """Channels, height and width of one image or feature map; with a height or width below 1 nothing is left of it."""

    channels: int
    height: int
    width: int

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is left of the map."""
        return self.height < 1 or self.width < 1

    @property
    def numbers(self) -> int:
        """Return the number of values in the map: channels times height times width."""
        return self.channels * self.height * self.width

    def convolved(self, channels: int, *, kernel: int, padding: int) -> "MapSize":
        """Return the size after a square convolution of stride 1 with ``padding`` pixels at each side."""
        change = 2 * padding - kernel + 1
        return MapSize(channels, self.height + change, self.width + change)

    def pooled(self) -> "MapSize":
        """Return the size after pooling 2 x 2 with stride 2; an odd last row or column is dropped, as in 2015."""
        return replace(self, height=self.height // 2, width=self.width // 2)

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"
