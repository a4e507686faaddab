"""Files that are read are cut, flipped, emptied and removed: each is read as before, or refused by name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_trials import Task, fake_result, fake_spec
from torch import nn

from stnbench.core.errors import StnbenchError
from stnbench.core.files import RunsLayout
from stnbench.data.cache import CacheArrays, Layout, Recipe, open_cache, open_or_build, verify
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.orchestration.claims import ProcessIdentity, orchestrator_lock, read_holder
from stnbench.training.loop import Checkpoint, Progress, read_checkpoint, write_checkpoint
from stnbench.trials.files import (
    load_result,
    load_spec,
    read_probabilities,
    read_snapshots,
    write_probabilities,
    write_result,
    write_snapshots,
    write_spec,
)

pytestmark = pytest.mark.slow

IMAGES, SIDE = 4, 3
SPEC = fake_spec(Task.FINISH)
RECORD = np.dtype([("step", "<i8"), ("epoch", "<i8"), ("fill", "<f4"), ("places", "<i8", (1, 2)), ("points", "<f4", 2)])
FLIPS = 160
"""Places in a file at which a bit is turned over: all of the first ones, where headers are, and some of the rest."""

Read = Callable[[], object]


def damages(content: bytes) -> Iterator[tuple[str, bytes | None]]:
    """Every kind of damage, by name; None is a file that is not there."""
    yield "removed", None
    yield "filled with zeros", bytes(len(content))
    yield "of something else", b"\xff\xfe[[[{{{"
    for cut in sorted({0, 1, 5, 9, 64, 127, 128, len(content) // 2, len(content) - 1}):
        yield f"cut after {cut}", content[:cut]
    yield "with more behind", content + b"\0"
    for place in sorted({*range(min(len(content), FLIPS)), *range(FLIPS, len(content), max(1, len(content) // FLIPS))}):
        for bit in (0, 3, 6):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            yield f"bit {bit} of byte {place}", bytes(flipped)


def put_cache(folder: Path) -> tuple[list[Path], Read]:
    """A data cache; its readers open and verify it."""

    def fill(arrays: CacheArrays) -> None:
        arrays.images[:] = 1

    layout = Layout(count=IMAGES, image_size=SIDE, has_pose=False)
    open_or_build(folder / "cache", identity={"a": 1}, recipe=lambda: Recipe(layout=layout, fill=fill))

    def read() -> object:
        opened = open_cache(folder / "cache")
        verify(folder / "cache")
        return opened.digest, opened.images.tobytes(), opened.labels.tobytes(), opened.roi.tobytes()

    names = ("manifest.json", "images.npy", "labels.npy", "roi.npy")
    return [folder / "cache" / name for name in names], read


def put_probabilities(folder: Path) -> tuple[list[Path], Read]:
    """Probabilities of a split, with their digest behind them."""
    write_probabilities(folder, "test", np.full((IMAGES, 2), 0.5, np.float16))
    return [folder / "probabilities_test.npy"], lambda: read_probabilities(folder, "test", images=IMAGES).tobytes()


def put_snapshots(folder: Path) -> tuple[list[Path], Read]:
    """Two arrays in one file, with their digest behind them."""
    write_snapshots(folder, np.zeros((2, 3, SIDE, SIDE), np.uint8), np.zeros(2, RECORD))

    def read() -> object:
        found = read_snapshots(folder)
        return found.images.tobytes(), found.points.tobytes(), found.steps.tolist(), found.fill, found.places.tolist()

    return [folder / "snapshots.npy"], read


def put_checkpoint(folder: Path) -> tuple[list[Path], Read]:
    """A checkpoint without records."""
    path = folder / "checkpoint.pt"
    network = {name: weight.detach() for name, weight in nn.Linear(2, 2).named_parameters()}
    statistics = GlobalStatistics(mean=0.1, std=0.5)
    made = Checkpoint(
        trial_id="t", classes=2, statistics=statistics, progress=Progress(), network=network, optimizer={}
    )
    write_checkpoint(path, made)

    def read() -> object:
        found = read_checkpoint(path, trial_id="t")
        weights = {name: weight.tolist() for name, weight in found.network.items()}
        return weights, found.statistics, found.progress, found.classes, found.images

    return [path], read


def put_attempt(folder: Path) -> tuple[list[Path], Read]:
    """The specification and the result of an attempt."""
    write_spec(folder, SPEC)
    write_result(folder, fake_result(SPEC, token="s-1"))
    paths = [folder / "spec.json", folder / "result.json"]
    return paths, lambda: (load_spec(folder), load_result(paths[1]))


def put_lock(folder: Path) -> tuple[list[Path], Read]:
    """The lock of a runs folder, and who held it last: whatever stands in them, the lock can be had again."""
    layout, identity = RunsLayout(folder), ProcessIdentity.current()
    paths = [layout.orchestrator_lock, layout.orchestrator_lock.with_suffix(".holder")]
    with orchestrator_lock(layout, identity):
        contents = [path.read_bytes() for path in paths]  # as kill -9 leaves them
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)

    def read() -> object:
        read_holder(layout)
        with orchestrator_lock(layout, identity):
            return read_holder(layout) == identity or pytest.fail("the holder is another")

    return paths, read


PUTS = (put_cache, put_probabilities, put_snapshots, put_checkpoint, put_attempt, put_lock)


@pytest.mark.parametrize("put", PUTS, ids=lambda put: put.__name__.removeprefix("put_"))
@pytest.mark.filterwarnings("ignore")
def test_damage_is_refused_in_one_line_or_does_not_matter(
    put: Callable[..., tuple[list[Path], Read]], tmp_path: Path
) -> None:
    """No damage gives a traceback or other values: what is read is an error of stnbench, of one line, or the same."""
    torch.manual_seed(0)
    paths, read = put(tmp_path)
    contents = {path: path.read_bytes() for path in paths}
    whole = read()
    refused, wrong = 0, []
    for path, content in contents.items():
        for name, damaged in damages(content):
            path.unlink(missing_ok=True)
            if damaged is not None:
                path.write_bytes(damaged)
            try:
                if read() != whole:
                    wrong.append(f"{path.name} {name}: read as something else")
            except StnbenchError as error:
                refused += 1
                if "\n" in str(error):
                    wrong.append(f"{path.name} {name}: more than a line: {error}")
            except Exception as error:  # noqa: BLE001 - all of them are listed below
                wrong.append(f"{path.name} {name}: {type(error).__name__}: {error}")
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    read()
    assert not wrong, "\n".join(wrong[:20])
    assert put is put_lock or refused > 10 * len(paths)
