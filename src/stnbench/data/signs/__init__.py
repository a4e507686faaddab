"""The data set ``signs``: drawn on first use, then kept in a cache."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import DataError
from stnbench.core.identity import Json, digest
from stnbench.core.process import advancing
from stnbench.data import Dataset, ImageSet
from stnbench.data.cache import CacheArrays, Layout, Recipe, open_or_build
from stnbench.data.gtsrb.archive import GTSRB_CLASSES
from stnbench.data.signs.scene import draw_track, frame_dtype
from stnbench.spec.data import CLASSES, FRAMES_PER_TRACK, Framing, SignsSpec

# All tracks of one half, in order, drawn by this process or by several.


Half = Literal["train", "test"]

WORKER_MODULE = "stnbench.data.signs"


@dataclass(frozen=True, kw_only=True, slots=True)
class HalfPlan:
    """The plan of one half: ``tracks_per_class`` tracks of every class, images of ``image_size`` pixels on a side."""

    drawing_seed: int
    half: Half
    tracks_per_class: int
    image_size: int
    framing: Framing = "tight"

    @property
    def keys(self) -> list[tuple[int, int]]:
        """Return the label and the number of every track, sorted by label and then by number."""
        return [(label, track) for label in range(CLASSES) for track in range(self.tracks_per_class)]

    def draw(self, key: tuple[int, int]) -> NDArray[np.void]:
        """Draw the frames of one track, (30,) of ``frame_dtype``."""
        return draw_track(self.drawing_seed, self.half, *key, self.image_size, self.framing)


def draw_half(plan: HalfPlan, workers: int) -> Iterator[NDArray[np.void]]:
    """Yield the frames of every track in the order of ``plan.keys``; they are the same for any number of workers.

    With more than one worker the tracks are drawn by separate processes, which require nothing of the caller: it may be
    a script without a main guard, or a daemon.

    Raises:
        DataError: if one of the processes ends early.
    """
    if workers <= 1:
        yield from map(plan.draw, plan.keys)
        return
    with contextlib.ExitStack() as stack:
        helpers = [stack.enter_context(_worker(plan, share, workers)) for share in range(workers)]
        for index in range(len(plan.keys)):
            yield _receive(plan, *helpers[index % workers])


def share_of(plan: HalfPlan, share: int, workers: int) -> Iterator[NDArray[np.void]]:
    """Return an iterator that draws the tracks of one worker: every ``workers``-th one, beginning with ``share``."""
    return map(plan.draw, plan.keys[share::workers])


@contextlib.contextmanager
def _worker(plan: HalfPlan, share: int, workers: int) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """Start a process that writes its share of tracks to a pipe, and yield it with the file of its standard error.

    The process is terminated at the end of the block.
    """
    command = [sys.executable, "-m", WORKER_MODULE, json.dumps(asdict(plan)), str(share), str(workers)]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as process,  # noqa: S603 - our own module
    ):
        try:
            yield process, complaints
        finally:
            process.terminate()


def _receive(plan: HalfPlan, process: "subprocess.Popen[bytes]", complaints: IO[bytes]) -> NDArray[np.void]:
    dtype = frame_dtype(plan.image_size)
    size = FRAMES_PER_TRACK * dtype.itemsize
    data = process.stdout.read(size) if process.stdout else b""
    if len(data) < size:
        code = process.wait()
        complaints.seek(0)
        words = complaints.read().decode(errors="replace").strip() or "without a word"
        problem = f"a process that draws signs ended early with code {code} ({words.splitlines()[-1]})"
        raise DataError(problem, remedy="try again with one worker to see the whole error")
    return np.frombuffer(data, dtype)


DRAWING_VERSION: Final = 1
"""Increased when the drawing code changes the images: caches are then made again, and digests differ."""


class Signs(Dataset):
    """Synthetic signs of GTSRB's 43 classes in tracks of 30 frames, determined by the specification alone.

    Images are the same for any number of workers; another version of Pillow or of its JPEG library may change single
    pixels, which changes the digest. Track numbers do not depend on the number of tracks.

    Args:
        spec: the specification of the set.
        folder: the folder of caches.
        workers: the number of processes that draw missing images.
        builds: whether a missing cache is made.
    """

    def __init__(self, spec: SignsSpec, folder: Path, workers: int, *, builds: bool = True) -> None:
        """Store the settings; nothing is drawn yet."""
        self._spec = spec
        self._folder = folder
        self._workers = workers
        self._builds = builds

    @property
    def class_names(self) -> Sequence[str]:
        """Return GTSRB's class names, in label order."""
        return GTSRB_CLASSES

    def train(self) -> ImageSet:
        """Return the training half, validation included; it is drawn on first use.

        Raises:
            DataError: if drawing fails.
            DataMissingError: if the cache is missing and may not be made.
            DataCorruptError: if the cache is wrong.
            FolderError: if the cache cannot be written.
        """
        return self._half("train", self._spec.tracks_per_class)

    def test(self) -> ImageSet:
        """Return the test half: other tracks from the same distributions; it raises the same errors as ``train``."""
        return self._half("test", self._spec.test_tracks_per_class)

    def _half(self, half: Half, tracks_per_class: int) -> ImageSet:
        plan = HalfPlan(
            drawing_seed=self._spec.drawing_seed,
            half=half,
            tracks_per_class=tracks_per_class,
            image_size=self._spec.image_size,
            framing=self._spec.framing,
        )
        identity: dict[str, Json] = {
            "dataset": "signs",
            "drawing_version": DRAWING_VERSION,
            **dataclasses.asdict(plan),
        }
        return open_or_build(
            self._folder / f"signs-{half}-{digest(identity)}",
            identity=identity,
            recipe=lambda: Recipe(
                layout=Layout(count=len(plan.keys) * FRAMES_PER_TRACK, image_size=plan.image_size, has_pose=True),
                fill=lambda arrays: fill(arrays, plan, self._workers),
            ),
            builds=self._builds,
        )


def fill(arrays: CacheArrays, plan: HalfPlan, workers: int) -> None:
    """Draw every track of the plan into the arrays, in the order of ``plan.keys``."""
    drawn = advancing(
        zip(plan.keys, draw_half(plan, workers), strict=True), f"drawing {plan.half} signs", len(plan.keys)
    )
    for index, ((label, track), records) in enumerate(drawn):
        rows = slice(index * FRAMES_PER_TRACK, (index + 1) * FRAMES_PER_TRACK)
        arrays.images[rows] = records["image"]
        arrays.labels[rows] = label
        arrays.tracks[rows] = track * CLASSES + label
        arrays.frames[rows] = np.arange(FRAMES_PER_TRACK)
        arrays.roi[rows] = records["roi"]
        arrays.original_size[rows] = records["original_size"]
        if arrays.pose is not None:
            arrays.pose[rows] = records["pose"]
