"""Pictures as files: PNG, and GIFs small enough for a page."""

import io
from collections.abc import Sequence
from typing import Final

from PIL import Image

from stnbench.show.pictures import Frame

_SAMPLED_FRAMES: Final = 4
"""From which the colours of an animation are chosen, evenly spread."""

_KMEANS_ROUNDS: Final = 2
"""To improve the palette: without them, the yellow of a priority road turns orange."""


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def gif_bytes(frames: Sequence[Frame], *, colours: int) -> bytes:
    """The frames as an animated GIF that repeats for ever.

    All frames share one palette, without dithering, so that what stands still costs nothing and does not flicker.

    Args:
        frames: at least one, of one size.
        colours: of the palette, at most 256; fewer make a smaller file.
    """
    palette = _palette([frame.picture for frame in frames], colours)
    indexed = [frame.picture.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    indexed[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=[frame.duration_ms for frame in frames],
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()


def _palette(pictures: Sequence[Image.Image], colours: int) -> Image.Image:
    """The colours that serve the pictures best, as an image with this palette."""
    step = max(1, len(pictures) // _SAMPLED_FRAMES)
    sampled = pictures[::step][:_SAMPLED_FRAMES]
    width, height = pictures[0].size
    together = Image.new("RGB", (width, height * len(sampled)))
    for number, picture in enumerate(sampled):
        together.paste(picture, (0, number * height))
    return together.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=_KMEANS_ROUNDS)
