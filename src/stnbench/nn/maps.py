"""The size of a feature map, and what convolution and pooling make of it."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class MapSize:
    """Channels, height and width of one image or feature map; a height or width below 1 is a map that is gone."""

    channels: int
    height: int
    width: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of the map."""
        return self.height < 1 or self.width < 1

    @property
    def numbers(self) -> int:
        """How many numbers the map holds."""
        return self.channels * self.height * self.width

    def convolved(self, channels: int, *, kernel: int, padding: int) -> "MapSize":
        """After a square convolution of stride 1."""
        change = 2 * padding - kernel + 1
        return MapSize(channels, self.height + change, self.width + change)

    def pooled(self) -> "MapSize":
        """After pooling 2 x 2 with stride 2; an odd last row or column is dropped, as in 2015."""
        return replace(self, height=self.height // 2, width=self.width // 2)

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"
