"""The three pictures: what transformers do to images, while a network learns, and along an approach to a sign."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stnbench.show.draw import (
    BACKGROUND,
    FAINT,
    INK,
    LINE_PX,
    REGION_COLOURS,
    WRONG,
    Region,
    framed,
    grid,
    panel,
    shortened,
    text_width,
    wrapped,
    write,
)

if TYPE_CHECKING:  # numpy arrays at run time; what makes them needs torch
    from stnbench.trials.watch import Moment, View, Watched

_PADDING: Final = 12
_CAPTION_PX: Final = 190

_LANDSCAPE: Final = 1.2
"""Width over height of a sheet, at least, where there are images enough."""

_STILL_PX: Final = 1.0
"""A region that moves by less between two frames stands still."""

_DOT_PX: Final = 5
"""Half of the dot at a corner."""

MOST_EPOCHS: Final = 40
"""Frames of whole epochs in one animation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One frame of an animation, shown for so long."""

    picture: Image.Image
    duration_ms: int


def transform_sheet(watched: "Watched", class_names: Sequence[str], *, side: int, title: str) -> Image.Image:
    """Return a landscape sheet: an image with the regions that are read, what each transformer shows, what was said.

    Images stand in as many columns as make it wider than high.

    Args:
        watched: the images.
        class_names: in label order.
        side: of an image in the picture, pixels.
        title: stands below.
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
    titled = wrapped(title, columns * width - _PADDING)
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
    moments: Sequence["Moment"], *, side: int, title: str, most: int | None = MOST_EPOCHS
) -> list[Frame]:
    """Return the probes from before training on: inputs above, outputs below, a counter of steps, and the loss.

    Frames are spent where something moves: a moment at which no region has moved by a pixel since the frame before it
    is left out, but for the first and the last. Of more than ``most`` moments after the first epoch, some are left out
    evenly. All are shown where it is None.
    """
    shown = moments if most is None else _moving(_thinned(moments, most), side)
    last = shown[-1]
    margin = _margin([moment.watched for moment in shown], side)
    frames = []
    for moment in shown:
        when = f"before training, 0 of {last.step:,} steps"
        if moment.step:
            when = f"step {moment.step:,} of {last.step:,}, epoch {moment.epoch} of {last.epoch}"
        if math.isfinite(moment.loss):
            when = f"{when}, training loss {moment.loss:.2f}"
        picture = _strip([(moment.watched, row) for row in range(_count(moment.watched))], side, margin)
        share = moment.step / last.step if last.step else 1.0
        frames.append(Frame(picture=_with_counter(picture, when, share, title), duration_ms=450))
    return _holding_last(frames, 2500)


def track_frames(tracks: Sequence["Watched"], class_names: Sequence[str], *, side: int, title: str) -> list[Frame]:
    """The frames of several approaches side by side, inputs above and outputs below; a short track waits at its end."""
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
    """Columns of one image each: the image, and below it what each transformer shows."""
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
    """A picture with a bar and a line of text below: how far things are, and what this is."""
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
    """An image with the regions that are read, and what each transformer shows of it."""
    regions = [
        Region(border=view.border[row], corners=view.corners, colour=_colour(number))
        for number, view in enumerate(watched.views)
    ]
    outputs = [panel(view.outputs[row], side=side, margin=margin) for view in watched.views]
    return [panel(watched.images[row], side=side, margin=margin, regions=regions), *outputs]


def _margin(shown: Iterable["Watched"], side: int) -> int:
    """Pixels round an image, so many that regions beyond its edge are seen, within reason."""
    reach = max(float(np.abs(view.border).max()) for watched in shown for view in watched.views)
    beyond = (reach - 1) * side / 2 + _DOT_PX if np.isfinite(reach) else side
    return round(min(max(beyond, side / 10), side / 2))


def _headings(views: Sequence["View"]) -> list[tuple[str, tuple[int, int, int]]]:
    """A name and a colour a transformer; the only one of a network is its output."""
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
    """The first and the last moment, and those between at which a region has moved by a pixel since the one before."""
    kept = list(moments[:1])
    for moment in moments[1:-1]:
        if _moved_px(kept[-1].watched, moment.watched, side) >= _STILL_PX:
            kept.append(moment)
    return [*kept, *moments[1:][-1:]]


def _moved_px(before: "Watched", after: "Watched", side: int) -> float:
    """Return how far the border that moved most has moved; infinite where it is no number."""
    pairs = zip(before.views, after.views, strict=True)
    moved = max(float(np.abs(one.border - other.border).mean(axis=(1, 2)).max()) for one, other in pairs) * side / 2
    return moved if math.isfinite(moved) else math.inf


def _thinned(moments: Sequence["Moment"], most: int | None) -> list["Moment"]:
    """All of the first epoch, and at most so many of the later ones, the last among them."""
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
