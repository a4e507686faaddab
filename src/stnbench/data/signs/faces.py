"""The faces of the 43 signs: blanks, pictograms and letters."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stnbench.data.signs.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    RED,
    SUPERSAMPLING,
    WHITE,
    YELLOW,
    Canvas,
    Colour,
    Path,
    Point,
    arc,
    rounded_polygon,
)

# The figures and letters of signs as strokes, similar to DIN 1451; no font file is needed.


_GAP: Final = 0.14
"""The gap between neighbouring glyphs, in addition to the stroke itself; the height of a glyph is 1."""

_ROUND: Final = [*arc((0.28, 0.27), (0.25, 0.27), 180, 360), *arc((0.28, 0.73), (0.25, 0.27), 0, 180), (0.03, 0.27)]

_STROKES: Final[dict[str, tuple[float, list[list[Point]]]]] = {
    "0": (0.56, [_ROUND]),
    "1": (0.34, [[(0.02, 0.24), (0.27, 0.0), (0.27, 1.0)]]),
    "2": (0.56, [[*arc((0.28, 0.27), (0.24, 0.27), 188, 388), (0.04, 1.0), (0.54, 1.0)]]),
    "3": (0.56, [[(0.04, 0.0), (0.48, 0.0), (0.25, 0.38), *arc((0.26, 0.68), (0.26, 0.32), 275, 515)]]),
    "5": (0.56, [[(0.5, 0.0), (0.1, 0.0), (0.06, 0.46), *arc((0.27, 0.68), (0.26, 0.32), 222, 512)]]),
    "6": (0.56, [arc((0.28, 0.69), (0.25, 0.31), 0, 360), [(0.05, 0.59), (0.38, 0.0)]]),
    "7": (0.54, [[(0.02, 0.0), (0.52, 0.0), (0.2, 1.0)]]),
    "8": (0.56, [arc((0.28, 0.24), (0.21, 0.24), 0, 360), arc((0.28, 0.74), (0.26, 0.26), 0, 360)]),
    "S": (0.54, [[*arc((0.27, 0.25), (0.23, 0.25), -25, -265), *arc((0.27, 0.75), (0.24, 0.25), 275, 515)]]),
    "T": (0.5, [[(0.0, 0.0), (0.5, 0.0)], [(0.25, 0.0), (0.25, 1.0)]]),
    "O": (0.56, [_ROUND]),
    "P": (0.52, [[(0.04, 1.0), (0.04, 0.0), *arc((0.26, 0.27), (0.23, 0.27), 270, 450), (0.04, 0.54)]]),
}
"""The width of each glyph, and the centre lines of its strokes."""


def write(canvas: Canvas, text: str, *, height: float, weight: float, colour: Colour, squeeze: float = 1.0) -> None:
    """Write the text centred on the canvas.

    ``height`` is the height of the centre lines in canvas units, ``weight`` the width of the strokes over the height,
    and ``squeeze`` multiplies widths.
    """
    gap = (_GAP + weight) * height
    widths = [_STROKES[glyph][0] * height * squeeze for glyph in text]
    left = -(sum(widths) + gap * (len(text) - 1)) / 2
    for glyph, width in zip(text, widths, strict=True):
        for stroke in _STROKES[glyph][1]:
            points = [(left + x * height * squeeze, (y - 0.5) * height) for x, y in stroke]
            canvas.stroke(points, weight * height, colour, round_ends=True)
        left += width + gap


# The pictograms, each drawn on a canvas whose square it roughly fills.


def car_behind(canvas: Canvas, colour: Colour, window: Colour = WHITE) -> None:
    """Draw a car seen from behind."""
    canvas.polygon([(-0.58, -0.62), (0.58, -0.62), (0.82, -0.02), (0.95, 0.1), (0.95, 0.5), (-0.95, 0.5)], colour)
    canvas.polygon([(-0.95, 0.5), (-0.95, 0.1), (-0.82, -0.02), (-0.58, -0.62), (0, -0.62), (0, 0.5)], colour)
    canvas.polygon([(-0.44, -0.46), (0.44, -0.46), (0.6, -0.06), (-0.6, -0.06)], window)
    for side in (-1, 1):
        canvas.polygon([(side * 0.9, 0.45), (side * 0.9, 0.78), (side * 0.52, 0.78), (side * 0.52, 0.45)], colour)


def truck_behind(canvas: Canvas, colour: Colour) -> None:
    """Draw a truck seen from behind: a tall box."""
    canvas.polygon([(-0.8, -1.0), (0.8, -1.0), (0.8, 0.5), (-0.8, 0.5)], colour)
    for side in (-1, 1):
        canvas.polygon([(side * 0.78, 0.45), (side * 0.78, 0.82), (side * 0.4, 0.82), (side * 0.4, 0.45)], colour)


def truck_aside(canvas: Canvas, colour: Colour) -> None:
    """Draw a truck seen from the side, driving to the left."""
    canvas.polygon([(-0.28, -0.6), (1.0, -0.6), (1.0, 0.32), (-0.28, 0.32)], colour)
    cab = [(-0.34, -0.3), (-0.72, -0.3), (-0.88, 0.02), (-1.0, 0.08), (-1.0, 0.32), (-0.34, 0.32)]
    canvas.polygon(cab, colour)
    canvas.polygon([(-0.44, -0.2), (-0.66, -0.2), (-0.76, 0.02), (-0.44, 0.02)], WHITE)
    for x in (-0.68, 0.42, 0.78):
        canvas.disc((x, 0.36), 0.2, WHITE)
        canvas.disc((x, 0.36), 0.16, colour)


def crossing(canvas: Canvas) -> None:
    """Draw the right of way at the next crossing: a thick arrow over a thin road."""
    canvas.polygon(
        [(-0.17, 1.0), (-0.17, -0.35), (-0.4, -0.35), (0, -1.05), (0.4, -0.35), (0.17, -0.35), (0.17, 1.0)], BLACK
    )
    canvas.polygon([(-0.62, 0.12), (0.62, 0.12), (0.62, 0.36), (-0.62, 0.36)], BLACK)


def exclamation(canvas: Canvas) -> None:
    """Draw an exclamation mark."""
    canvas.polygon([*arc((0, -0.85), (0.22, 0.2), 180, 360), (0.1, 0.45), (-0.1, 0.45)], BLACK)
    canvas.disc((0, 0.78), 0.2, BLACK)


def curve(canvas: Canvas) -> None:
    """Draw a road that bends to the left."""
    road = [(0.36, 1.0), (0.36, 0.3), *arc((-0.04, 0.1), (0.4, 0.42), 10, -85), (-0.86, -0.34)]
    canvas.arrow(road, 0.3, BLACK, head=(0.8, 0.52))


def double_curve(canvas: Canvas) -> None:
    """Draw a road that bends to the left, then to the right."""
    road = [(0.3, 1.05), (0.3, 0.42), (-0.3, 0.06), (-0.3, -0.2), (0.16, -0.6), (0.16, -1.1)]
    canvas.stroke(road[:5], 0.26, BLACK)
    canvas.arrow([(0.12, -0.42), (0.16, -1.15)], 0.26, BLACK, head=(0.62, 0.5))


def bumps(canvas: Canvas) -> None:
    """Draw two humps on the road."""
    humps = [*arc((-0.48, 0.42), (0.42, 0.5), 180, 345), *arc((0.48, 0.42), (0.42, 0.5), 195, 360)]
    canvas.polygon([(-1.0, 0.72), (-1.0, 0.42), *humps, (1.0, 0.42), (1.0, 0.72)], BLACK)


def skid(canvas: Canvas) -> None:
    """Draw a car that slides, over its winding tracks."""
    car_behind(canvas.inset((0.02, -0.5), 0.56, degrees=14), BLACK)
    for x in (-0.42, 0.3):
        track = [*arc((x, 0.22), (0.2, 0.2), -60, -270), *arc((x, 0.68), (0.24, 0.26), -90, 110)]
        canvas.stroke([(y_x + 0.04, y) for y_x, y in track], 0.15, BLACK, round_ends=True)


def narrowing(canvas: Canvas) -> None:
    """Draw a road whose right edge moves inwards."""
    canvas.polygon([(-0.5, 1.0), (-0.5, -1.0), (-0.24, -1.0), (-0.24, 1.0)], BLACK)
    canvas.polygon(
        [(0.5, 1.0), (0.5, 0.25), (0.2, -0.2), (0.2, -1.0), (-0.02, -1.0), (-0.02, -0.1), (0.26, 0.35), (0.26, 1.0)],
        BLACK,
    )


def roadworks(canvas: Canvas) -> None:
    """Draw a man with a shovel in front of a heap."""
    canvas.disc((-0.12, -0.86), 0.2, BLACK)
    canvas.stroke([(-0.2, -0.6), (-0.46, 0.08)], 0.36, BLACK, round_ends=True)
    canvas.stroke([(-0.46, 0.1), (-0.2, 0.45), (-0.3, 0.98)], 0.2, BLACK, round_ends=True)
    canvas.stroke([(-0.5, 0.1), (-0.66, 0.5), (-0.98, 0.92)], 0.2, BLACK, round_ends=True)
    canvas.stroke([(-0.14, -0.55), (0.22, -0.2), (0.0, 0.06)], 0.15, BLACK, round_ends=True)
    canvas.stroke([(-0.42, -0.1), (0.62, 0.52)], 0.1, BLACK)
    canvas.polygon([*arc((0.62, 1.0), (0.52, 0.52), 180, 360)], BLACK)


def traffic_lights(canvas: Canvas) -> None:
    """Draw traffic lights: red over yellow over green."""
    for y, colour in ((-0.72, RED), (0.0, YELLOW), (0.72, GREEN)):
        canvas.disc((0, y), 0.31, colour)


def walker(canvas: Canvas) -> None:
    """Draw a person who walks to the left."""
    canvas.disc((0.0, -0.84), 0.17, BLACK)
    canvas.stroke([(0.0, -0.52), (0.04, 0.1)], 0.32, BLACK, round_ends=True)
    canvas.stroke([(0.02, 0.1), (-0.2, 0.48), (-0.36, 0.98)], 0.17, BLACK, round_ends=True)
    canvas.stroke([(0.06, 0.1), (0.2, 0.5), (0.42, 0.96)], 0.17, BLACK, round_ends=True)
    canvas.stroke([(-0.04, -0.52), (-0.3, -0.2), (-0.42, 0.1)], 0.12, BLACK, round_ends=True)
    canvas.stroke([(0.06, -0.52), (0.28, -0.2), (0.3, 0.1)], 0.12, BLACK, round_ends=True)


def pedestrian(canvas: Canvas) -> None:
    """Draw a person on a striped crossing."""
    walker(canvas.inset((0, -0.12), 0.9))
    for x in (-0.92, -0.52, -0.12, 0.28, 0.68):
        canvas.polygon([(x, 0.86), (x + 0.24, 0.86), (x + 0.3, 1.06), (x + 0.06, 1.06)], BLACK)


def children(canvas: Canvas) -> None:
    """Draw two children, the larger one ahead, running hand in hand to the left."""
    for centre, scale in (((-0.42, -0.06), 0.92), ((0.58, 0.26), 0.66)):
        child = canvas.inset(centre, scale, degrees=-14)
        child.disc((0.0, -0.78), 0.21, BLACK)
        child.stroke([(0.0, -0.42), (0.06, 0.1)], 0.34, BLACK, round_ends=True)
        child.stroke([(0.04, 0.12), (-0.34, 0.36), (-0.3, 0.8)], 0.2, BLACK, round_ends=True)
        child.stroke([(0.08, 0.12), (0.3, 0.5), (0.72, 0.62)], 0.2, BLACK, round_ends=True)
        child.stroke([(0.0, -0.42), (-0.46, -0.2)], 0.14, BLACK, round_ends=True)
    canvas.stroke([(-0.36, -0.36), (0.1, 0.12), (0.5, 0.02)], 0.14, BLACK, round_ends=True)


def bicycle(canvas: Canvas) -> None:
    """Draw a bicycle."""
    for x in (-0.56, 0.56):
        canvas.stroke(arc((x, 0.3), (0.4, 0.4), 0, 360), 0.11, BLACK)
    frame = [(-0.56, 0.3), (-0.24, -0.28), (0.34, -0.28), (-0.04, 0.3), (-0.56, 0.3)]
    canvas.stroke(frame, 0.1, BLACK, round_ends=True)
    canvas.stroke([(-0.04, 0.3), (-0.3, -0.46)], 0.1, BLACK)
    canvas.stroke([(-0.46, -0.48), (-0.14, -0.48)], 0.12, BLACK, round_ends=True)
    canvas.stroke([(0.56, 0.3), (0.28, -0.54), (0.5, -0.6)], 0.1, BLACK, round_ends=True)


def snowflake(canvas: Canvas) -> None:
    """Draw a snow crystal with six arms."""
    for degrees in range(0, 360, 60):
        arm = canvas.inset((0, 0), 1.0, degrees=degrees)
        arm.stroke([(0, 0), (0, -0.95)], 0.15, BLACK, round_ends=True)
        arm.stroke([(-0.26, -0.86), (0, -0.55), (0.26, -0.86)], 0.13, BLACK, round_ends=True)


def deer(canvas: Canvas) -> None:
    """Draw a deer that leaps to the left."""
    body = [
        (-0.5, -0.3),
        (-0.1, -0.22),
        (0.46, -0.02),
        (0.72, 0.12),
        (0.6, 0.42),
        (0.2, 0.3),
        (-0.28, 0.22),
        (-0.52, 0.1),
    ]
    canvas.polygon(body, BLACK)
    canvas.polygon([(-0.54, 0.12), (-0.62, -0.56), (-0.42, -0.6), (-0.16, -0.2)], BLACK)
    canvas.polygon([(-0.92, -0.42), (-0.6, -0.74), (-0.38, -0.58), (-0.6, -0.4)], BLACK)
    canvas.stroke([(-0.46, -0.66), (-0.3, -1.0), (-0.42, -1.16)], 0.09, BLACK, round_ends=True)
    canvas.stroke([(-0.36, -0.88), (-0.1, -1.08)], 0.09, BLACK, round_ends=True)
    canvas.stroke([(-0.46, 0.16), (-0.78, 0.34), (-0.6, 0.56)], 0.13, BLACK, round_ends=True)
    canvas.stroke([(-0.3, 0.2), (-0.5, 0.56), (-0.3, 0.76)], 0.13, BLACK, round_ends=True)
    canvas.stroke([(0.5, 0.3), (0.7, 0.62), (0.98, 0.9)], 0.14, BLACK, round_ends=True)
    canvas.stroke([(0.62, 0.3), (0.86, 0.5), (1.06, 0.56)], 0.14, BLACK, round_ends=True)
    canvas.stroke([(0.7, 0.12), (0.86, 0.0)], 0.1, BLACK, round_ends=True)


# The blanks of signs: their outlines in the sign's square, and the paint below the pictogram.


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
    """Return the outline (n, 2) of the rounded polygon, scaled so that its box keeps the width of the square."""
    outline = np.array(rounded_polygon(corners, radius))
    stretched: NDArray[np.float64] = outline / np.abs(outline[:, 0]).max()
    return stretched


def _inner(corners: tuple[Point, ...], share: float, radius: float, centre: Point = (0.0, 0.0)) -> list[Point]:
    """Return the outline of the polygon, shrunk by the factor ``share`` towards a centre, with rounded corners."""
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


# The faces of the 43 signs: a blank and the drawing on it.


Drawing = Callable[[Canvas], None]

FACE_SIZE: Final = 256
"""Side of a face in pixels: about the largest sign of a track."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A sign seen from the front.

    ``pixels`` uint8 (FACE_SIZE, FACE_SIZE, 4), RGBA with straight alpha, covers the sign's square; ``outline`` float64
    (n, 2) is the edge of the sign in that square.
    """

    pixels: NDArray[np.uint8]
    outline: NDArray[np.float64]


@functools.cache
def face(label: int) -> Face:
    """Return the face of a class, 0 to 42, drawn once per process."""
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
    """Draw the five lines across an end-of-restriction sign, from the lower left to the upper right."""
    for offset in np.linspace(-0.2, 0.2, 5):
        along, across = np.array([0.68, -0.68]), np.array([offset, offset])
        canvas.stroke(np.stack([across - along, across + along]), 0.062, BLACK)


def _end_of_limit(canvas: Canvas) -> None:
    write(canvas, "80", height=0.76, weight=0.16, colour=GREY)
    _stripes(canvas)


def _two_cars(canvas: Canvas) -> None:
    car_behind(canvas.inset((-0.31, 0.02), 0.3), RED)
    car_behind(canvas.inset((0.31, 0.02), 0.3), BLACK)


def _truck_and_car(canvas: Canvas) -> None:
    truck_behind(canvas.inset((-0.3, 0.0), 0.34), RED)
    car_behind(canvas.inset((0.32, 0.08), 0.28), BLACK)


def _end_of_two_cars(canvas: Canvas) -> None:
    for side in (-1, 1):
        car_behind(canvas.inset((0.42 * side, 0.02), 0.38), GREY)
    _stripes(canvas)


def _end_of_truck_and_car(canvas: Canvas) -> None:
    truck_behind(canvas.inset((-0.38, -0.04), 0.44), GREY)
    car_behind(canvas.inset((0.44, 0.08), 0.36), GREY)
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
    *((PROHIBITING, _limit(text)) for text in ("20", "30", "50", "60", "70", "80")),
    (ENDED, _end_of_limit),
    *((PROHIBITING, _limit(text)) for text in ("100", "120")),
    (PROHIBITING, _two_cars),
    (PROHIBITING, _truck_and_car),
    (WARNING, _on_warning(crossing, 0.48, 0.27)),
    (PRIORITY, _nothing),
    (GIVING_WAY, _nothing),
    (STOPPING, _stop),
    (PROHIBITING, _nothing),
    (PROHIBITING, lambda canvas: truck_aside(canvas.inset((0, 0.04), 0.58), BLACK)),
    (NO_ENTRY, _bar),
    (WARNING, _on_warning(exclamation, 0.53, 0.23)),
    (WARNING, _on_warning(curve, 0.46, 0.27)),
    (WARNING, _on_warning(curve, 0.46, 0.27, mirror=True)),
    (WARNING, _on_warning(double_curve, 0.46, 0.23)),
    (WARNING, _on_warning(bumps, 0.51, 0.29)),
    (WARNING, _on_warning(skid, 0.49, 0.23)),
    (WARNING, _on_warning(narrowing, 0.44, 0.23)),
    (WARNING, _on_warning(roadworks, 0.47, 0.25)),
    (WARNING, _on_warning(traffic_lights, 0.46, 0.21)),
    (WARNING, _on_warning(pedestrian, 0.49, 0.23)),
    (WARNING, _on_warning(children, 0.51, 0.29)),
    (WARNING, _on_warning(bicycle, 0.53, 0.31)),
    (WARNING, _on_warning(snowflake, 0.48, 0.25)),
    (WARNING, _on_warning(deer, 0.48, 0.27, mirror=True)),
    (ENDED, _stripes),
    (MANDATORY, _arrows(_TURN)),
    (MANDATORY, _arrows(_TURN, mirror=True)),
    (MANDATORY, _arrows(_AHEAD)),
    (MANDATORY, _arrows(*_AHEAD_AND_BRANCH)),
    (MANDATORY, _arrows(*_AHEAD_AND_BRANCH, mirror=True)),
    (MANDATORY, _arrows(_AHEAD, degrees=135)),
    (MANDATORY, _arrows(_AHEAD, degrees=225)),
    (MANDATORY, _roundabout),
    (ENDED, _end_of_two_cars),
    (ENDED, _end_of_truck_and_car),
)
"""Blank and drawing, in the order of ``GTSRB_CLASSES``."""
