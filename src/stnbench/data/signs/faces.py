"""The faces of the 43 signs: a blank and what is drawn on it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stnbench.data.signs import blanks, pictograms
from stnbench.data.signs.blanks import Blank
from stnbench.data.signs.canvas import SUPERSAMPLING, Canvas, Path, arc
from stnbench.data.signs.glyphs import write
from stnbench.data.signs.palette import BLACK, GREY, RED, WHITE

Drawing = Callable[[Canvas], None]

FACE_SIZE: Final = 256
"""Pixels on a side of a face: about the largest sign of a track."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A sign seen head on.

    ``pixels`` uint8 (FACE_SIZE, FACE_SIZE, 4), RGBA with straight alpha, covers the sign's square; ``outline`` float64
    (n, 2) is the edge of the sign in that square.
    """

    pixels: NDArray[np.uint8]
    outline: NDArray[np.float64]


@functools.cache
def face(label: int) -> Face:
    """The face of a class, 0 to 42, drawn once a process."""
    blank, drawing = _FACES[label]
    return draw_face(blank, drawing)


def draw_face(blank: Blank, drawing: Drawing) -> Face:
    """Paint the blank, draw on it, and cut it out along its outline; edges are smoothed by supersampling."""
    size = FACE_SIZE * SUPERSAMPLING
    colours = Image.new("RGB", (size, size), WHITE)
    canvas = Canvas.on(colours)
    blank.paint(canvas)
    drawing(canvas)
    mask = Image.new("RGB", (size, size))
    Canvas.on(mask).polygon(blank.outline, (255, 255, 255))
    rgb = np.asarray(colours.reduce(SUPERSAMPLING))
    alpha = np.asarray(mask.getchannel(0).reduce(SUPERSAMPLING))
    pixels = np.dstack([rgb, alpha])
    pixels.flags.writeable = False
    return Face(pixels, blank.outline)


def _limit(text: str) -> Drawing:
    narrow = len(text) > 2
    return lambda canvas: write(canvas, text, height=0.72, weight=0.17, colour=BLACK, squeeze=0.62 if narrow else 1.0)


def _stripes(canvas: Canvas) -> None:
    """The five lines across a sign that ends something, from the lower left to the upper right."""
    for offset in np.linspace(-0.2, 0.2, 5):
        along, across = np.array([0.68, -0.68]), np.array([offset, offset])
        canvas.stroke(np.stack([across - along, across + along]), 0.062, BLACK)


def _end_of_limit(canvas: Canvas) -> None:
    write(canvas, "80", height=0.76, weight=0.16, colour=GREY)
    _stripes(canvas)


def _two_cars(canvas: Canvas) -> None:
    pictograms.car_behind(canvas.inset((-0.31, 0.02), 0.3), RED)
    pictograms.car_behind(canvas.inset((0.31, 0.02), 0.3), BLACK)


def _truck_and_car(canvas: Canvas) -> None:
    pictograms.truck_behind(canvas.inset((-0.3, 0.0), 0.34), RED)
    pictograms.car_behind(canvas.inset((0.32, 0.08), 0.28), BLACK)


def _end_of_two_cars(canvas: Canvas) -> None:
    for side in (-1, 1):
        pictograms.car_behind(canvas.inset((0.42 * side, 0.02), 0.38), GREY)
    _stripes(canvas)


def _end_of_truck_and_car(canvas: Canvas) -> None:
    pictograms.truck_behind(canvas.inset((-0.38, -0.04), 0.44), GREY)
    pictograms.car_behind(canvas.inset((0.44, 0.08), 0.36), GREY)
    _stripes(canvas)


def _bar(canvas: Canvas) -> None:
    canvas.polygon([(-0.74, -0.19), (0.74, -0.19), (0.74, 0.19), (-0.74, 0.19)], WHITE)


def _stop(canvas: Canvas) -> None:
    write(canvas, "STOP", height=0.6, weight=0.17, colour=WHITE, squeeze=0.72)


def _nothing(canvas: Canvas) -> None:
    """Leave the blank as it is."""


def _on_warning(pictogram: Drawing, scale: float, y: float, *, mirror: bool = False) -> Drawing:
    return lambda canvas: pictogram(canvas.inset((0, y), scale, mirror=mirror))


def _arrows(*paths: Path, mirror: bool = False, degrees: float = 0.0) -> Drawing:
    def drawing(canvas: Canvas) -> None:
        inner = canvas.inset((0, 0), 0.82, mirror=mirror, degrees=degrees)
        for path in paths:
            inner.arrow(path, 0.28, WHITE, head=(0.8, 0.48))

    return drawing


def _roundabout(canvas: Canvas) -> None:
    for degrees in (0, 120, 240):
        third = canvas.inset((0, 0), 0.8, mirror=True, degrees=degrees)
        third.arrow(arc((0, 0), (0.66, 0.66), 100, 202), 0.24, WHITE, head=(0.62, 0.4))


_AHEAD: Final = [(0.0, 0.85), (0.0, -0.9)]
_TURN: Final = [(-0.3, 0.75), (-0.3, 0.1), *arc((-0.02, -0.02), (0.28, 0.28), 190, 265), (0.82, -0.3)]
_BRANCH: Final = [(-0.24, 0.85), (-0.24, 0.4), *arc((0.04, 0.36), (0.28, 0.28), 190, 265), (0.84, 0.08)]
_AHEAD_AND_BRANCH: Final = ([(-0.24, 0.85), (-0.24, -0.92)], _BRANCH)

_FACES: Final[tuple[tuple[Blank, Drawing], ...]] = (
    *((blanks.PROHIBITING, _limit(text)) for text in ("20", "30", "50", "60", "70", "80")),
    (blanks.ENDED, _end_of_limit),
    *((blanks.PROHIBITING, _limit(text)) for text in ("100", "120")),
    (blanks.PROHIBITING, _two_cars),
    (blanks.PROHIBITING, _truck_and_car),
    (blanks.WARNING, _on_warning(pictograms.crossing, 0.48, 0.27)),
    (blanks.PRIORITY, _nothing),
    (blanks.GIVING_WAY, _nothing),
    (blanks.STOPPING, _stop),
    (blanks.PROHIBITING, _nothing),
    (blanks.PROHIBITING, lambda canvas: pictograms.truck_aside(canvas.inset((0, 0.04), 0.58), BLACK)),
    (blanks.NO_ENTRY, _bar),
    (blanks.WARNING, _on_warning(pictograms.exclamation, 0.53, 0.23)),
    (blanks.WARNING, _on_warning(pictograms.curve, 0.46, 0.27)),
    (blanks.WARNING, _on_warning(pictograms.curve, 0.46, 0.27, mirror=True)),
    (blanks.WARNING, _on_warning(pictograms.double_curve, 0.46, 0.23)),
    (blanks.WARNING, _on_warning(pictograms.bumps, 0.51, 0.29)),
    (blanks.WARNING, _on_warning(pictograms.skid, 0.49, 0.23)),
    (blanks.WARNING, _on_warning(pictograms.narrowing, 0.44, 0.23)),
    (blanks.WARNING, _on_warning(pictograms.roadworks, 0.47, 0.25)),
    (blanks.WARNING, _on_warning(pictograms.traffic_lights, 0.46, 0.21)),
    (blanks.WARNING, _on_warning(pictograms.pedestrian, 0.49, 0.23)),
    (blanks.WARNING, _on_warning(pictograms.children, 0.51, 0.29)),
    (blanks.WARNING, _on_warning(pictograms.bicycle, 0.53, 0.31)),
    (blanks.WARNING, _on_warning(pictograms.snowflake, 0.48, 0.25)),
    (blanks.WARNING, _on_warning(pictograms.deer, 0.48, 0.27, mirror=True)),
    (blanks.ENDED, _stripes),
    (blanks.MANDATORY, _arrows(_TURN)),
    (blanks.MANDATORY, _arrows(_TURN, mirror=True)),
    (blanks.MANDATORY, _arrows(_AHEAD)),
    (blanks.MANDATORY, _arrows(*_AHEAD_AND_BRANCH)),
    (blanks.MANDATORY, _arrows(*_AHEAD_AND_BRANCH, mirror=True)),
    (blanks.MANDATORY, _arrows(_AHEAD, degrees=135)),
    (blanks.MANDATORY, _arrows(_AHEAD, degrees=225)),
    (blanks.MANDATORY, _roundabout),
    (blanks.ENDED, _end_of_two_cars),
    (blanks.ENDED, _end_of_truck_and_car),
)
"""Blank and drawing, in the order of ``GTSRB_CLASSES``."""
