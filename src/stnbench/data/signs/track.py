"""One track: 30 frames of one sign as a car approaches it."""

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stnbench.core.seeds import derive_seed
from stnbench.data.signs.backdrop import draw_backdrop
from stnbench.data.signs.camera import Scene, expose, photograph
from stnbench.data.signs.conditions import Frame, draw_frames
from stnbench.data.signs.difficulty import MIN_BORDER_PX, PLACES
from stnbench.data.signs.geometry import Placement, place
from stnbench.data.signs.panel import Panel, draw_panel
from stnbench.spec.data import FRAMES_PER_TRACK, Framing

OVERSAMPLING: Final = 2
"""Frames larger than this many times the image wanted are rendered no larger: what is finer is averaged away anyway."""


def frame_dtype(image_size: int) -> np.dtype[np.void]:
    """One frame as a record; fields as in ``ImageSet``."""
    return np.dtype(
        [
            ("image", np.uint8, (3, image_size, image_size)),
            ("roi", np.float32, (4,)),
            ("original_size", np.int64, (2,)),
            ("pose", np.float32, (3, 3)),
        ]
    )


def draw_track(
    drawing_seed: int, half: str, label: int, track: int, image_size: int, framing: Framing = "tight"
) -> NDArray[np.void]:
    """The frames of one track, (30,) of ``frame_dtype``; a function of its arguments alone.

    Poses, light and backdrop are the same at every image size.
    """
    conditions, wear, noise = (
        np.random.default_rng(derive_seed(drawing_seed, "signs", half, label, track, purpose))
        for purpose in ("conditions", "wear", "noise")
    )
    panel = draw_panel(label, wear)
    records = np.zeros(FRAMES_PER_TRACK, frame_dtype(image_size))
    for index, frame in enumerate(draw_frames(conditions, framing)):
        placement = place(frame.view, panel.outline, MIN_BORDER_PX)
        behind = [place_backdrop(drawing_seed, half, number) for number in frame.places]
        image = draw_frame(panel, behind, frame, placement, image_size, noise)
        record = records[index]
        record["image"] = np.asarray(image).transpose(2, 0, 1)
        record["roi"] = placement.roi
        record["original_size"] = placement.width, placement.height
        record["pose"] = placement.pose
    return records


def draw_frame(
    panel: Panel,
    behind: Sequence[Image.Image],
    frame: Frame,
    placement: Placement,
    image_size: int,
    rng: np.random.Generator,
) -> Image.Image:
    """One photograph, resized to the square image: averaged when it shrinks, bilinear when it grows."""
    shrunk = min(1.0, OVERSAMPLING * image_size / max(placement.width, placement.height))
    width, height = round(placement.width * shrunk), round(placement.height * shrunk)
    sign = panel.seen(placement.pose, width, height)
    ground = np.asarray(_seen_backdrop(behind, frame, width, height), dtype=np.float32)
    scene: Scene = sign[..., :3] + ground * (1 - sign[..., 3:] / np.float32(255))
    photo = photograph(expose(scene, frame.light), frame.camera, shrunk, rng)
    return photo.resize((image_size, image_size), Image.Resampling.BILINEAR)


@functools.lru_cache(maxsize=2 * PLACES)
def place_backdrop(drawing_seed: int, half: str, number: int) -> Image.Image:
    """One of the places of a half, drawn once a process."""
    return draw_backdrop(np.random.default_rng(derive_seed(drawing_seed, "signs", half, "place", number)))


def _seen_backdrop(behind: Sequence[Image.Image], frame: Frame, width: int, height: int) -> Image.Image:
    """The part of the two backdrops that the frame shows, one fading into the other."""
    side = behind[0].width
    half = frame.backdrop_share / 2 * side
    x, y = (float(np.clip(at * side, half, side - half)) for at in frame.backdrop_at)
    box = (x - half, y - half, x + half, y + half)
    first, second = (image.resize((width, height), Image.Resampling.BICUBIC, box=box) for image in behind)
    return Image.blend(first, second, frame.passed)
