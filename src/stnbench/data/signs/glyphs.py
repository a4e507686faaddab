"""The figures and letters of signs as strokes, in the manner of DIN 1451; no font file is needed."""

from typing import Final

from stnbench.data.signs.canvas import Canvas, Colour, Point, arc

_GAP: Final = 0.14
"""Between neighbouring glyphs, beside the stroke itself; the height of a glyph is 1."""

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
"""Each glyph's width, and the centre lines of its strokes."""


def write(canvas: Canvas, text: str, *, height: float, weight: float, colour: Colour, squeeze: float = 1.0) -> None:
    """Write the text centred on the canvas.

    ``height`` is that of the centre lines in canvas units, ``weight`` the width of the strokes over the height, and
    ``squeeze`` multiplies widths.
    """
    gap = (_GAP + weight) * height
    widths = [_STROKES[glyph][0] * height * squeeze for glyph in text]
    left = -(sum(widths) + gap * (len(text) - 1)) / 2
    for glyph, width in zip(text, widths, strict=True):
        for stroke in _STROKES[glyph][1]:
            points = [(left + x * height * squeeze, (y - 0.5) * height) for x, y in stroke]
            canvas.stroke(points, weight * height, colour, round_ends=True)
        left += width + gap
