"""Panels and sheets, drawn with Pillow: an image with the region that a transformer reads, and what it shows of it.

Every function takes pixels and gives a picture; nothing here knows of networks or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Place = tuple[float, float]
"""Pixels from the left and from the top."""

BACKGROUND: Final[Colour] = (36, 38, 43)
INK: Final[Colour] = (232, 232, 235)
FAINT: Final[Colour] = (158, 161, 170)
WRONG: Final[Colour] = (255, 138, 122)
REGION_COLOURS: Final[tuple[Colour, ...]] = ((255, 255, 255), (255, 205, 80), (100, 210, 255), (255, 140, 220))
"""Of the first transformer, the second and so on, and round again."""

TEXT_PX: Final = 12
LINE_PX: Final = 17

_FINER: Final = 4
"""Times the resolution at which lines are drawn before they are made smaller, which smooths them."""

_SHADE: Final = (0, 0, 0, 150)
_FARTHEST: Final = 8.0
"""Coordinates beyond this are outside every panel, and are drawn as this."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Region:
    """A region of an image.

    Attributes:
        border: (points, 2), round it, (x, y) with -1 and 1 at the image's outer edges.
        corners: which of the points are corners.
        colour: of the line.
    """

    border: NDArray[np.float32]
    corners: Sequence[int]
    colour: Colour


def picture_of(image: NDArray[np.uint8]) -> Image.Image:
    """An image (channels, height, width) in colour: grey for one channel, red and green for two."""
    channels = len(image)
    if channels == 1:
        image = np.repeat(image, 3, axis=0)
    elif channels == 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


def panel(image: NDArray[np.uint8], *, side: int, margin: int, regions: Sequence[Region] = ()) -> Image.Image:
    """An image ``side`` pixels large with a margin all round, and the outlines of regions over both."""
    whole = side + 2 * margin
    canvas = Image.new("RGB", (whole, whole), BACKGROUND)
    canvas.paste(picture_of(image).resize((side, side), Image.Resampling.BICUBIC), (margin, margin))
    drawn = [region for region in regions if np.isfinite(region.border).all()]
    if drawn:
        layer = Image.new("RGBA", (whole * _FINER, whole * _FINER))
        for region in drawn:
            _outline(ImageDraw.Draw(layer), region, side=side, margin=margin)
        over = layer.resize((whole, whole), Image.Resampling.BOX)
        canvas.paste(over, mask=over)
    return canvas


def grid(panels: Sequence[Sequence[Image.Image]], *, gap: int = 0) -> Image.Image:
    """Rows of panels of one size, with a gap between them."""
    width, height = panels[0][0].size
    rows, columns = len(panels), len(panels[0])
    size = (columns * width + (columns - 1) * gap, rows * height + (rows - 1) * gap)
    sheet = Image.new("RGB", size, BACKGROUND)
    for row, line in enumerate(panels):
        for column, one in enumerate(line):
            sheet.paste(one, (column * (width + gap), row * (height + gap)))
    return sheet


def framed(picture: Image.Image, *, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> Image.Image:
    """A picture with room for text round it."""
    width, height = picture.size
    frame = Image.new("RGB", (left + width + right, top + height + bottom), BACKGROUND)
    frame.paste(picture, (left, top))
    return frame


def write(picture: Image.Image, at: Place, text: str, *, colour: Colour = INK, anchor: str = "la") -> None:
    """Write one line on a picture; ``anchor`` as Pillow has it."""
    ImageDraw.Draw(picture).text(at, text, fill=colour, font=_font(), anchor=anchor)


def text_width(text: str) -> float:
    """Return the width of a line of text in pixels."""
    return _font().getlength(text)


def shortened(text: str, width_px: float) -> str:
    """As much of a text as fits, with an ellipsis where it was cut."""
    if _font().getlength(text) <= width_px:
        return text
    while text and _font().getlength(f"{text}...") > width_px:
        text = text[:-1]
    return f"{text.rstrip()}..."


def wrapped(text: str, width_px: float) -> list[str]:
    """A text cut between words into lines that fit; a longer word is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font().getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(shortened(word, width_px))
    return lines


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT_PX)


def _outline(draw: ImageDraw.ImageDraw, region: Region, *, side: int, margin: int) -> None:
    """A line with a shade on either side, so that it is seen on light and dark alike, and dots at the corners."""
    points = (region.border.clip(-_FARTHEST, _FARTHEST) + 1) / 2 * side + margin
    line = [(float(x) * _FINER, float(y) * _FINER) for x, y in points]
    closed = [*line, *line[:2]]
    for colour, width_px in ((_SHADE, 3.5), (region.colour, 1.5)):
        draw.line(closed, fill=colour, width=round(width_px * _FINER), joint="curve")
    for colour, radius_px in ((_SHADE, 4.5), (region.colour, 3.5)):
        for x, y in (line[corner] for corner in region.corners):
            draw.ellipse(_square(x, y, radius_px * _FINER), fill=colour)


def _square(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return (x - radius, y - radius, x + radius, y + radius)
