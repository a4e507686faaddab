"""The three pictures and their files: how many frames, how large, and that they can be read."""

import dataclasses
import io
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from stnbench.show import BACKGROUND, gif_bytes, png_bytes, track_frames, training_frames, transform_sheet
from stnbench.trials.watch import Moment, View, Watched, liveliest_images

NAMES = ("stop", "a class with a very long name indeed, longer than any line")
BORDER = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)


def watched(images: int, *, transformers: int = 1) -> Watched:
    """Images that become brighter, each of the first class and said to be of the second where its row is odd."""
    pixels = np.stack([np.full((3, 8, 8), 40 + 5 * row, np.uint8) for row in range(images)])
    view = {
        "outputs": pixels,
        "border": np.stack([BORDER * (1 - row / 100) for row in range(images)]).astype(np.float32),
        "corners": (0, 1, 2, 3),
    }
    return Watched(
        images=pixels,
        labels=np.zeros(images, np.int64),
        predictions=np.arange(images) % 2,
        views=tuple(View(place=place, branch=1, **view) for place in range(1, transformers + 1)),  # type: ignore[arg-type]
    )


def moments(epochs: int, steps: int = 20) -> list[Moment]:
    """Ten moments of the first epoch, and one after each, at each of which the regions have moved."""
    taken = [*range(0, steps, steps // 10), *range(steps, steps * epochs + 1, steps)]
    return [
        Moment(step=step, epoch=-(-step // steps), watched=reading(0.2 + 0.6 * (0.37 * number % 1)), loss=1.0)
        for number, step in enumerate(taken)
    ]


def reading(share: float) -> Watched:
    """Two images of which a middle part is read."""
    plain = watched(2)
    view = dataclasses.replace(plain.views[0], border=np.stack([BORDER * np.float32(share)] * 2))
    return dataclasses.replace(plain, views=(view,))


@pytest.mark.parametrize("transformers", [1, 3])
@pytest.mark.parametrize("images", [2, 5, 8, 16])
def test_a_sheet_is_landscape_and_has_all_images(images: int, transformers: int) -> None:
    """Every image stands in it with what each transformer shows; its file is a PNG of the same size."""
    sheet = transform_sheet(watched(images, transformers=transformers), NAMES, side=40, title="a trial")
    pixels = np.asarray(sheet)
    places = [int((pixels == 40 + 5 * row).all(axis=2).sum()) for row in range(images)]
    assert all(count >= 0.8 * 40 * 40 for count in places)
    assert sheet.width >= sheet.height
    with Image.open(io.BytesIO(png_bytes(sheet))) as read:
        assert (read.format, read.size) == ("PNG", sheet.size)


def test_captions_are_whole() -> None:
    """A long title is wrapped within the sheet, and rows are as high as their captions."""
    short, long = (transform_sheet(reading(1.5), NAMES, side=60, title=title) for title in ("a", "i " * 400))
    assert long.width == short.width
    assert long.height > short.height
    assert (np.asarray(long)[:, -6:] == np.asarray(BACKGROUND)).all()
    small = transform_sheet(watched(2), ("a", "many words " * 20), side=20, title="")
    assert small.height > transform_sheet(watched(2), ("a", "b"), side=20, title="").height


def test_what_is_read_beyond_the_image_is_seen() -> None:
    """The margin grows until the region is inside, and never beyond half the image."""
    heights = []
    for reach in (1.0, 1.3, 50.0, float("nan")):
        plain = watched(1)
        far = dataclasses.replace(plain.views[0], border=plain.views[0].border * np.float32(reach))
        sheet = transform_sheet(dataclasses.replace(plain, views=(far,)), NAMES, side=60, title="a trial")
        heights.append(sheet.height)
    nearest = heights[0] - 2 * 6
    assert [height - nearest for height in heights] == [12, 2 * 14, 2 * 30, 2 * 30]


def test_training_begins_with_ten_frames_of_the_first_epoch() -> None:
    """Then one an epoch, of equal size; of very many epochs some are left out, the last never."""
    frames = training_frames(moments(3), side=40, title="a trial")
    assert len(frames) == 10 + 3
    assert len({frame.picture.size for frame in frames}) == 1
    assert frames[-1].duration_ms > frames[0].duration_ms
    many = moments(60)
    thinned = training_frames(many, side=40, title="a trial")
    assert len(thinned) == 11 + 40
    assert thinned[-1].picture == training_frames(many[-1:], side=40, title="a trial")[0].picture
    assert len(training_frames(many, side=40, title="a trial", most=None)) == 70


def test_frames_are_spent_where_something_moves() -> None:
    """What has stood still since the frame before is left out, slow movement is not, and the last is always there."""
    shares = [1.0, 1.0, 0.9, 0.9, 0.89, 0.88, 0.87, 0.86, 0.5, 0.5, 0.5]
    slow = [Moment(step=step, epoch=1, watched=reading(share)) for step, share in enumerate(shares)]
    frames = training_frames(slow, side=40, title="a trial")
    kept = [training_frames(slow, side=40, title="a trial", most=None)[step].picture for step in (0, 2, 8, 10)]
    assert [frame.picture for frame in frames if frame.picture in kept] == kept
    assert len(frames) < 8
    assert len(training_frames(slow, side=40, title="a trial", most=None)) == len(shares)


def test_the_loss_is_told_where_it_is_known() -> None:
    """Beside the counter; pictures of trainings that kept none are as they were."""
    known, unknown = (
        training_frames([Moment(step=5, epoch=1, watched=reading(0.5), loss=loss)], side=100, title="")[0].picture
        for loss in (1.25, float("nan"))
    )
    assert known.size == unknown.size
    assert known.tobytes() != unknown.tobytes()


def test_tracks_run_side_by_side() -> None:
    """There are as many frames as the longest track has, and a short one waits at its end."""
    frames = track_frames([watched(3), watched(5)], NAMES, side=40, title="a trial")
    assert len(frames) == 5
    last, before = (np.asarray(frames[index].picture) for index in (4, 3))
    half = 64 + 50
    height = last.shape[0] - 40
    assert (last[:height, :half] == before[:height, :half]).all()
    assert (last[:height, half:] != before[:height, half:]).any()


def test_an_animation_holds_its_frames() -> None:
    """The GIF has all frames with their durations, repeats for ever, and what stands still keeps its colour."""
    frames = training_frames(moments(3), side=40, title="a trial")
    with Image.open(io.BytesIO(gif_bytes(frames, colours=64))) as read:
        assert (read.format, read.size, read.info["loop"]) == ("GIF", frames[0].picture.size, 0)
        assert getattr(read, "n_frames", 1) == len(frames)
        shown = []
        for number in range(len(frames)):
            read.seek(number)
            shown.append((read.info["duration"], read.convert("RGB").getpixel((2, 2))))
    assert [duration for duration, _ in shown] == [frame.duration_ms for frame in frames]
    assert all(one == two for (_, one), (_, two) in itertools.pairwise(shown))


def test_the_images_drawn_are_those_that_move_and_can_be_seen() -> None:
    """One that stays is left out, and so is one of a single grey, however far its region moves."""
    pixels = np.zeros((3, 3, 8, 8), np.uint8)
    pixels[:2, :, :4] = 200

    def moment(step: int, shares: Sequence[float]) -> Moment:
        border = np.stack([BORDER * np.float32(share) for share in shares])
        plain = watched(3)
        view = dataclasses.replace(plain.views[0], border=border, outputs=pixels)
        return Moment(step=step, epoch=step, watched=dataclasses.replace(plain, images=pixels, views=(view,)))

    ways = [moment(0, (1.0, 1.0, 1.0)), moment(1, (1.0, 0.5, 0.1))]
    assert liveliest_images(ways, 1) == [1]
    widths = [training_frames(ways, side=40, title="", images=count)[0].picture.width for count in (1, 3)]
    assert widths[0] < widths[1]
