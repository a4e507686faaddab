"""All tracks of one half, in order, drawn by this process or by several."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import DataError
from stnbench.data.signs.track import draw_track, frame_dtype
from stnbench.spec.data import CLASSES, FRAMES_PER_TRACK, Framing

Half = Literal["train", "test"]

WORKER_MODULE = "stnbench.data.signs.worker"


@dataclass(frozen=True, kw_only=True, slots=True)
class HalfPlan:
    """What to draw: ``tracks_per_class`` tracks of every class for one half, images of ``image_size`` pixels."""

    drawing_seed: int
    half: Half
    tracks_per_class: int
    image_size: int
    framing: Framing = "tight"

    @property
    def keys(self) -> list[tuple[int, int]]:
        """Label and track of every track, by label and then by track."""
        return [(label, track) for label in range(CLASSES) for track in range(self.tracks_per_class)]

    def draw(self, key: tuple[int, int]) -> NDArray[np.void]:
        """The frames of one track, (30,) of ``frame_dtype``."""
        return draw_track(self.drawing_seed, self.half, *key, self.image_size, self.framing)


def draw_half(plan: HalfPlan, workers: int) -> Iterator[NDArray[np.void]]:
    """The frames of every track in the order of ``plan.keys``; the same for any number of workers.

    With more than one worker the tracks are drawn by processes of their own, which need nothing of the caller: it may
    be a script without a main guard, or a daemon. Raises: DataError if one of them ends early.
    """
    if workers <= 1:
        yield from map(plan.draw, plan.keys)
        return
    with contextlib.ExitStack() as stack:
        helpers = [stack.enter_context(_worker(plan, share, workers)) for share in range(workers)]
        for index in range(len(plan.keys)):
            yield _receive(plan, *helpers[index % workers])


def share_of(plan: HalfPlan, share: int, workers: int) -> Iterator[NDArray[np.void]]:
    """What one of several workers draws: every ``workers``-th track from the ``share``-th on."""
    return map(plan.draw, plan.keys[share::workers])


@contextlib.contextmanager
def _worker(plan: HalfPlan, share: int, workers: int) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """A process that writes its share of tracks to a pipe, and the file of its complaints; it ends with the block."""
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
