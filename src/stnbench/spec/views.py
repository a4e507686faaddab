"""Views: at rest, a network may look at every image several times, each time moved a little."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stnbench.spec.check import require
from stnbench.spec.codec import Strict


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsSpec(Strict):
    """The movements of an image of which a network's probabilities are averaged when it is scored; never in training.

    Every combination of a shift, a zoom and a rotation is a view. As the content of the image moves: the shifts are
    -``shift``, 0 and ``shift``, as shares of the side, along x and along y (0: no shift, one view); ``zooms`` say how
    many times as large it becomes, ``rotations_deg`` by how much it turns about the centre, clockwise. The
    order of views changes nothing, so that zooms and rotations are kept sorted.
    """

    kind: Literal["grid"] = "grid"
    shift: float = 0.0
    zooms: tuple[float, ...] = (1.0,)
    rotations_deg: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require(0 <= self.shift <= 0.5, "shift", self.shift, "from 0 to 0.5, a share of the side")
        fits = all(0.25 <= zoom <= 4 for zoom in self.zooms)
        require(bool(self.zooms) and fits, "zooms", list(self.zooms), "at least one, from 0.25 to 4")
        fits = all(abs(angle) <= 180 for angle in self.rotations_deg)
        require(bool(self.rotations_deg) and fits, "rotations_deg", list(self.rotations_deg), "at least one, to 180")
        require(self.count <= 200, "views", self.count, "at most 200 of them")
        object.__setattr__(self, "zooms", _once_if_alike(sorted(self.zooms)))
        half_turns = (180.0 if angle == -180 else angle for angle in self.rotations_deg)
        object.__setattr__(self, "rotations_deg", _once_if_alike(sorted(half_turns)))

    @property
    def count(self) -> int:
        """How many views there are."""
        return (9 if self.shift > 0 else 1) * len(self.zooms) * len(self.rotations_deg)

    @property
    def moves_anything(self) -> bool:
        """Whether any view differs from the image as it is."""
        return self.shift > 0 or self.zooms != (1.0,) or self.rotations_deg != (0.0,)


def _once_if_alike(values: Sequence[float]) -> tuple[float, ...]:
    """The values; a single one where all are the same, whose mean is that of one."""
    return tuple(values[:1] if len(set(values)) == 1 else values)
