"""Pictures of the effects of transformers: on images, during training, and along an approach to a sign."""

import dataclasses
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stnbench.tracking import Picture
from stnbench.trials.watch import liveliest_images, watch_training

# Panels and sheets, drawn with Pillow: an image with the region that a transformer reads, and the output for it.
#
# Every function takes pixels and returns a picture, independent of networks and files.


Colour = tuple[int, int, int]
Place = tuple[float, float]
"""Pixels from the left and from the top."""

BACKGROUND: Final[Colour] = (36, 38, 43)
INK: Final[Colour] = (232, 232, 235)
FAINT: Final[Colour] = (158, 161, 170)
WRONG: Final[Colour] = (255, 138, 122)
REGION_COLOURS: Final[tuple[Colour, ...]] = ((255, 255, 255), (255, 205, 80), (100, 210, 255), (255, 140, 220))
"""Colours of the transformers in order, repeated cyclically."""

TEXT_PX: Final = 12
LINE_PX: Final = 17

_FINER: Final = 4
"""Factor of the resolution at which lines are drawn before they are downsampled, for antialiasing."""

_SHADE: Final = (0, 0, 0, 150)
_FARTHEST: Final = 8.0
"""Limit to which coordinates are clipped; it is outside every panel."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Region:
    """A region of an image.

    Attributes:
        border: (points, 2), the outline, (x, y) with -1 and 1 at the image's outer edges.
        corners: indices of the points that are corners.
        colour: colour of the line.
    """

    border: NDArray[np.float32]
    corners: Sequence[int]
    colour: Colour


def picture_of(image: NDArray[np.uint8]) -> Image.Image:
    """Convert an image (channels, height, width) to RGB: grey for one channel, red and green for two."""
    channels = len(image)
    if channels == 1:
        image = np.repeat(image, 3, axis=0)
    elif channels == 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


def panel(image: NDArray[np.uint8], *, side: int, margin: int, regions: Sequence[Region] = ()) -> Image.Image:
    """Draw an image with ``side`` pixels per side, a margin around it, and the outlines of regions over both."""
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
    """Arrange rows of panels of one size, with a gap between them."""
    width, height = panels[0][0].size
    rows, columns = len(panels), len(panels[0])
    size = (columns * width + (columns - 1) * gap, rows * height + (rows - 1) * gap)
    sheet = Image.new("RGB", size, BACKGROUND)
    for row, line in enumerate(panels):
        for column, one in enumerate(line):
            sheet.paste(one, (column * (width + gap), row * (height + gap)))
    return sheet


def framed(picture: Image.Image, *, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> Image.Image:
    """Add room for text around a picture."""
    width, height = picture.size
    frame = Image.new("RGB", (left + width + right, top + height + bottom), BACKGROUND)
    frame.paste(picture, (left, top))
    return frame


def write(picture: Image.Image, at: Place, text: str, *, colour: Colour = INK, anchor: str = "la") -> None:
    """Write one line on a picture; ``anchor`` is a text anchor of Pillow."""
    ImageDraw.Draw(picture).text(at, text, fill=colour, font=_font(), anchor=anchor)


def text_width(text: str) -> float:
    """Return the width of a line of text in pixels."""
    return _font().getlength(text)


def shortened(text: str, width_px: float) -> str:
    """Return as much of a text as fits, with an ellipsis if it was cut."""
    if _font().getlength(text) <= width_px:
        return text
    while text and _font().getlength(f"{text}...") > width_px:
        text = text[:-1]
    return f"{text.rstrip()}..."


def wrapped(text: str, width_px: float) -> list[str]:
    """Break a text between words into lines that fit; shorten longer words."""
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
    """Draw a line with a shade on either side, visible on light and dark images, and dots at the corners."""
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


# The three pictures: effects of transformers on images, during training, and along an approach to a sign.


if TYPE_CHECKING:  # numpy arrays at run time; the module that makes them needs torch
    from stnbench.trials.watch import Moment, View, Watched

_PADDING: Final = 12
_CAPTION_PX: Final = 190

_LANDSCAPE: Final = 1.2
"""Minimum width over height of a sheet, if there are enough images."""

_STILL_PX: Final = 1.0
"""A region that moves by less than this between two frames counts as unchanged."""

_DOT_PX: Final = 5
"""Radius of the dot at a corner, in pixels."""

MOST_EPOCHS: Final = 40
"""Maximum number of frames of whole epochs in one animation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One frame of an animation, and its duration."""

    picture: Image.Image
    duration_ms: int


def transform_sheet(watched: "Watched", class_names: Sequence[str], *, side: int, title: str) -> Image.Image:
    """Return a landscape sheet of images with the regions that are read, each transformer's output and the prediction.

    Images are arranged in as many columns as make the sheet wider than high.

    Args:
        watched: the images.
        class_names: names of the classes, in label order.
        side: side of an image in the picture, in pixels.
        title: text below the images.
    """
    margin = _margin([watched], side)
    count, whole = _count(watched), side + 2 * margin
    captions = [_caption(watched, row, class_names) for row in range(count)]
    height = max(whole, max(map(len, captions)) * LINE_PX + _PADDING)
    width = (1 + len(watched.views)) * whole + _CAPTION_PX
    columns = next(
        n for n in range(1, count + 1) if n * width >= _LANDSCAPE * math.ceil(count / n) * height or n == count
    )
    per_column = math.ceil(count / columns)
    top = LINE_PX + _PADDING
    titled = wrapped(title, columns * width - _PADDING - margin)
    size = (_PADDING + columns * width, top + per_column * height + len(titled) * LINE_PX + _PADDING)
    sheet = Image.new("RGB", size, BACKGROUND)
    for number, lines in enumerate(captions):
        column, row = divmod(number, per_column)
        left, middle = _PADDING + column * width, top + (row + 0.5) * height
        for index, one in enumerate(_panels(watched, number, side, margin)):
            sheet.paste(one, (left + index * whole, round(middle - whole / 2)))
        for index, (text, colour) in enumerate(lines):
            at = (left + width - _CAPTION_PX, middle + (index - len(lines) / 2) * LINE_PX)
            write(sheet, at, text, colour=colour)
        for index, (name, colour) in enumerate([("input", INK), *_headings(watched.views)] if row == 0 else ()):
            write(sheet, (left + (index + 0.5) * whole, _PADDING), name, colour=colour, anchor="ma")
    for index, line in enumerate(titled):
        write(sheet, (_PADDING + margin, top + per_column * height + 2 + index * LINE_PX), line, colour=FAINT)
    return sheet


def training_frames(
    moments: Sequence["Moment"], *, side: int, title: str, most: int | None = MOST_EPOCHS, images: int | None = None
) -> list[Frame]:
    """Return frames of the probe images during training: inputs, outputs below, a counter of steps, and the loss.

    A moment at which no region has moved by a pixel since the previous frame is left out, except the first and the
    last. If there are more than ``most`` moments after the first epoch, they are thinned evenly. With None, all are
    shown. Of more than ``images`` images, those are drawn that move most and can be seen.
    """
    shown = moments if most is None else _moving(_thinned(moments, most), side)
    rows = range(_count(moments[0].watched)) if images is None else liveliest_images(moments, images)
    last = shown[-1]
    margin = _margin([moment.watched for moment in shown], side)
    frames = []
    for moment in shown:
        when = f"before training, 0 of {last.step:,} steps"
        if moment.step:
            when = f"step {moment.step:,} of {last.step:,}, epoch {moment.epoch} of {last.epoch}"
        if math.isfinite(moment.loss):
            when = f"{when}, training loss {moment.loss:.2f}"
        picture = _strip([(moment.watched, row) for row in rows], side, margin)
        share = moment.step / last.step if last.step else 1.0
        frames.append(Frame(picture=_with_counter(picture, when, share, title), duration_ms=450))
    return _holding_last(frames, 2500)


def track_frames(tracks: Sequence["Watched"], class_names: Sequence[str], *, side: int, title: str) -> list[Frame]:
    """Return frames of several approaches side by side, inputs above outputs; a short track holds its last frame."""
    longest = max(map(_count, tracks))
    margin = _margin(tracks, side)
    frames = []
    for number in range(longest):
        picture = _strip([(track, min(number, _count(track) - 1)) for track in tracks], side, margin, class_names)
        said = f"frame {number + 1} of {longest}"
        frames.append(Frame(picture=_with_counter(picture, said, (number + 1) / longest, title), duration_ms=140))
    return _holding_last(frames, 1500)


def _strip(
    shown: Sequence[tuple["Watched", int]], side: int, margin: int, class_names: Sequence[str] = ()
) -> Image.Image:
    """Draw one column per image: the image, and below it the output of each transformer."""
    columns = [_panels(watched, row, side, margin) for watched, row in shown]
    sheet = grid([list(line) for line in zip(*columns, strict=True)])
    headings = [("input", INK), *_headings(shown[0][0].views)]
    top = LINE_PX if class_names else 0
    sheet = framed(sheet, left=_PADDING + 52, top=top + _PADDING // 2, right=_PADDING // 2)
    whole = side + 2 * margin
    for row, (name, colour) in enumerate(headings):
        for number, word in enumerate(name.split(" ", 1)):
            at = (_PADDING, top + _PADDING // 2 + (row + 0.5) * whole + (number - 0.5) * LINE_PX)
            write(sheet, at, word, colour=colour, anchor="lm")
    for column, (watched, row) in enumerate(shown if class_names else ()):
        name = shortened(class_names[int(watched.labels[row])], whole - 6)
        write(sheet, (_PADDING + 52 + (column + 0.5) * whole, _PADDING // 2), name, colour=FAINT, anchor="ma")
    return sheet


def _with_counter(picture: Image.Image, text: str, share: float, title: str) -> Image.Image:
    """Add a progress bar, a line of text and the title below a picture."""
    framed_picture = framed(picture, bottom=2 * LINE_PX)
    left, right, top = _PADDING, picture.width - _PADDING, picture.height + 4
    for end, colour in ((right, (70, 73, 81)), (left + share * (right - left), INK)):
        framed_picture.paste(colour, (left, top, max(round(end), left + 1), top + 3))
    write(framed_picture, (left, top + 9), text)
    room = right - left - text_width(text) - 2 * _PADDING
    if room > 80:
        write(framed_picture, (right, top + 9), shortened(title, room), colour=FAINT, anchor="ra")
    return framed_picture


def _panels(watched: "Watched", row: int, side: int, margin: int) -> list[Image.Image]:
    """Return the panels of an image with the regions that are read, and of each transformer's output."""
    regions = [
        Region(border=view.border[row], corners=view.corners, colour=_colour(number))
        for number, view in enumerate(watched.views)
    ]
    outputs = [panel(view.outputs[row], side=side, margin=margin) for view in watched.views]
    return [panel(watched.images[row], side=side, margin=margin, regions=regions), *outputs]


def _margin(shown: Iterable["Watched"], side: int) -> int:
    """Return the margin around an image in pixels, large enough for regions beyond its edge, up to half a side."""
    reach = max(float(np.abs(view.border).max()) for watched in shown for view in watched.views)
    beyond = (reach - 1) * side / 2 + _DOT_PX if np.isfinite(reach) else side
    return round(min(max(beyond, side / 10), side / 2))


def _headings(views: Sequence["View"]) -> list[tuple[str, tuple[int, int, int]]]:
    """Return a name and a colour for each transformer; a single one is named ``output``."""
    if len(views) == 1:
        return [("output", INK)]
    has_branches = any(view.branch > 1 for view in views)
    names = [f"ST {view.place}" + (f".{view.branch}" if has_branches else "") for view in views]
    return [(name, _colour(number)) for number, name in enumerate(names)]


def _caption(watched: "Watched", row: int, class_names: Sequence[str]) -> list[tuple[str, tuple[int, int, int]]]:
    label, said = int(watched.labels[row]), int(watched.predictions[row])
    lines = [(line, INK) for line in wrapped(class_names[label], _CAPTION_PX - _PADDING)]
    if said == label:
        return [*lines, ("recognised", FAINT)]
    return [*lines, *((line, WRONG) for line in wrapped(f"taken for {class_names[said]}", _CAPTION_PX - _PADDING))]


def _moving(moments: Sequence["Moment"], side: int) -> list["Moment"]:
    """Keep the first and the last moment, and those at which a region has moved by a pixel since the previous one."""
    kept = list(moments[:1])
    for moment in moments[1:-1]:
        if _moved_px(kept[-1].watched, moment.watched, side) >= _STILL_PX:
            kept.append(moment)
    return [*kept, *moments[1:][-1:]]


def _moved_px(before: "Watched", after: "Watched", side: int) -> float:
    """Return the largest mean movement of a border in pixels; infinite if it is not finite."""
    pairs = zip(before.views, after.views, strict=True)
    moved = max(float(np.abs(one.border - other.border).mean(axis=(1, 2)).max()) for one, other in pairs) * side / 2
    return moved if math.isfinite(moved) else math.inf


def _thinned(moments: Sequence["Moment"], most: int | None) -> list["Moment"]:
    """Keep all moments of the first epoch, and at most ``most`` of the later ones, including the last."""
    first = [moment for moment in moments if moment.epoch <= 1]
    later = list(moments[len(first) :])
    if most is not None and len(later) > most:
        kept: NDArray[np.int64] = np.linspace(0, len(later) - 1, most).round().astype(np.int64)
        later = [later[index] for index in kept]
    return [*first, *later]


def _holding_last(frames: Sequence[Frame], duration_ms: int) -> list[Frame]:
    return [*frames[:-1], Frame(picture=frames[-1].picture, duration_ms=duration_ms)]


def _colour(number: int) -> tuple[int, int, int]:
    return REGION_COLOURS[number % len(REGION_COLOURS)]


def _count(watched: "Watched") -> int:
    return len(watched.images)


# Encoding of pictures as PNG, and as GIFs small enough for a web page.


_SAMPLED_FRAMES: Final = 4
"""Number of evenly spread frames from which the colours of an animation are chosen."""

_KMEANS_ROUNDS: Final = 2
"""Number of k-means rounds for the palette: without them, the yellow of a priority road turns orange."""


def png_bytes(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def gif_bytes(frames: Sequence[Frame], *, colours: int) -> bytes:
    """Encode frames as an animated GIF that repeats forever.

    All frames share one palette, without dithering, so that static parts need no space and do not flicker.

    Args:
        frames: at least one frame, all of one size.
        colours: number of colours of the palette, at most 256; fewer make a smaller file.
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
    """Return an image with the best palette for the pictures."""
    step = max(1, len(pictures) // _SAMPLED_FRAMES)
    sampled = pictures[::step][:_SAMPLED_FRAMES]
    width, height = pictures[0].size
    together = Image.new("RGB", (width, height * len(sampled)))
    for number, picture in enumerate(sampled):
        together.paste(picture, (0, number * height))
    return together.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=_KMEANS_ROUNDS)


# The table of stability, as text and as JSON data.


if TYPE_CHECKING:  # plain numbers at run time; the module that measures them needs torch
    from stnbench.diagnostics.stability import TrackMean
    from stnbench.trials.stability import Measure, Stability, TransformerStability


def stability_text(stability: "Stability") -> str:
    """Return a table per transformer: each measure with its interval, beside the identity's and the fixed zoom's."""
    coordinates = {"pose": "its true pose", "box": "its annotated box"}[stability.sign]
    counted = f"{stability.tracks:,} validation tracks, {stability.images:,} images"
    method = "means over tracks with 95 % intervals (bootstrap over tracks)"
    lines = [f"{counted}; the sign's coordinates are from {coordinates}; {method}."]
    for one in stability.transformers:
        lines += ["", *_table(one)]
    return "\n".join(lines)


def stability_data(stability: "Stability") -> dict[str, Any]:
    """Return the same numbers as data for ``json.dumps``."""
    return dataclasses.asdict(stability)


def _table(one: "TransformerStability") -> list[str]:
    branch = f", branch {one.branch}" if one.branch > 1 else ""
    heading = f"ST before stage {one.place}{branch}"
    rows = [[heading, "transformer", "identity", f"zoom {one.zoom:.2f}", "over identity", "over zoom"]]
    rows += [_row(measure) for measure in one.measures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(measure: "Measure") -> list[str]:
    name = f"{measure.name} ({measure.unit})" if measure.unit else measure.name
    values: Sequence[TrackMean | None] = (
        measure.transformer,
        measure.identity,
        measure.zoom,
        measure.to_identity,
        measure.to_zoom,
    )
    return [name, *map(_estimate, values)]


def _estimate(mean: "TrackMean | None") -> str:
    if mean is None:
        return "-"
    interval = "" if mean.low is None or mean.high is None else f" [{mean.low:.3f}, {mean.high:.3f}]"
    return f"{mean.mean:.3f}{interval}"


# The gallery of a trial's training for a tracker, with one picture per snapshot.


KEY: Final = "pictures/transformers"
"""Key of the gallery."""

_SIDE_PX: Final = 80


def training_gallery(folder: Path, *, title: str, most: int | None = None) -> Iterator[Picture]:
    """Yield the pictures of ``show training``, from the snapshots in an attempt's folder.

    Args:
        folder: the folder of the attempt.
        title: text below the images.
        most: the largest number of pictures, evenly spread from the first snapshot to the last; all if it is None.

    Raises:
        SpecError: if it has no spatial transformer.
        FolderError: if there are no snapshots.
    """
    moments = watch_training(folder)
    if most is not None and len(moments) > most:
        kept: NDArray[np.int64] = np.linspace(0, len(moments) - 1, most).round().astype(np.int64)
        moments = tuple(moments[index] for index in kept)
    for moment, frame in zip(moments, training_frames(moments, side=_SIDE_PX, title=title, most=None), strict=True):
        yield Picture(key=KEY, step=moment.step, png=png_bytes(frame.picture))
