"""The blanks of signs: their outlines in the sign's square, and what is painted on them before the pictogram."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.data.signs.canvas import Canvas, Point, arc, rounded_polygon
from stnbench.data.signs.palette import BLACK, BLUE, RED, WHITE, YELLOW

_TRIANGLE: Final[tuple[Point, ...]] = ((-1.0, 0.87), (0.0, -0.87), (1.0, 0.87))
_OCTAGON: Final[tuple[Point, ...]] = tuple(
    (float(np.cos(a) / np.cos(np.pi / 8)), float(np.sin(a) / np.cos(np.pi / 8)))
    for a in np.radians(np.arange(22.5, 360, 45))
)
_DIAMOND: Final[tuple[Point, ...]] = ((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Blank:
    """An outline, a float64 (n, 2) polygon in the sign's square, and the paint on it."""

    outline: NDArray[np.float64]
    paint: Callable[[Canvas], None]


def _circle() -> NDArray[np.float64]:
    return np.array(arc((0, 0), (1, 1), 0, 360))


def _polygon(corners: tuple[Point, ...], radius: float) -> NDArray[np.float64]:
    """The rounded polygon, stretched so that its box keeps the width of the square."""
    outline = np.array(rounded_polygon(corners, radius))
    stretched: NDArray[np.float64] = outline / np.abs(outline[:, 0]).max()
    return stretched


def _inner(corners: tuple[Point, ...], share: float, radius: float, centre: Point = (0.0, 0.0)) -> list[Point]:
    """The polygon shrunk towards a centre, with rounded corners."""
    x0, y0 = centre
    return rounded_polygon([(x0 + (x - x0) * share, y0 + (y - y0) * share) for x, y in corners], radius)


_TRIANGLE_CENTRE: Final[Point] = (0.0, 0.87 / 3)


def _ringed(canvas: Canvas) -> None:
    canvas.disc((0, 0), 1.0, WHITE)
    canvas.disc((0, 0), 0.96, RED)
    canvas.disc((0, 0), 0.72, WHITE)


def _warning(canvas: Canvas) -> None:
    canvas.polygon(_polygon(_TRIANGLE, 0.12), WHITE)
    canvas.polygon(_inner(_TRIANGLE, 0.96, 0.1, _TRIANGLE_CENTRE), RED)
    canvas.polygon(_inner(_TRIANGLE, 0.71, 0.05, _TRIANGLE_CENTRE), WHITE)


def _giving_way(canvas: Canvas) -> None:
    _warning(canvas.inset((0, 0), 1.0, degrees=180))


def _stopping(canvas: Canvas) -> None:
    canvas.polygon(_polygon(_OCTAGON, 0.04), WHITE)
    canvas.polygon(_inner(_OCTAGON, 0.95, 0.03), RED)


def _priority(canvas: Canvas) -> None:
    canvas.polygon(_polygon(_DIAMOND, 0.1), BLACK)
    canvas.polygon(_inner(_DIAMOND, 0.97, 0.09), WHITE)
    canvas.polygon(_inner(_DIAMOND, 0.66, 0.05), YELLOW)


def _ended(canvas: Canvas) -> None:
    canvas.disc((0, 0), 1.0, BLACK)
    canvas.disc((0, 0), 0.97, WHITE)


def _red(canvas: Canvas) -> None:
    canvas.disc((0, 0), 1.0, WHITE)
    canvas.disc((0, 0), 0.96, RED)


def _blue(canvas: Canvas) -> None:
    canvas.disc((0, 0), 1.0, WHITE)
    canvas.disc((0, 0), 0.95, BLUE)


PROHIBITING: Final = Blank(_circle(), _ringed)
WARNING: Final = Blank(_polygon(_TRIANGLE, 0.12), _warning)
GIVING_WAY: Final = Blank(-_polygon(_TRIANGLE, 0.12), _giving_way)
STOPPING: Final = Blank(_polygon(_OCTAGON, 0.04), _stopping)
PRIORITY: Final = Blank(_polygon(_DIAMOND, 0.1), _priority)
NO_ENTRY: Final = Blank(_circle(), _red)
ENDED: Final = Blank(_circle(), _ended)
MANDATORY: Final = Blank(_circle(), _blue)
