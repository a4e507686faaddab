"""What test modules share: a small made-up GTSRB in the official layout."""

import gc
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from quick_stores import quick_stores

# A busy machine fails no property. Each run draws other examples; before a release there are more of them.
settings.register_profile("untimed", deadline=None, max_examples=30)
settings.register_profile("before a release", deadline=None, max_examples=200)
settings.load_profile("before a release" if os.environ.get("CI_EXHAUSTIVE") else "untimed")


def pytest_sessionstart() -> None:
    """Import and collect without looking for garbage: a quarter of the time that it takes."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was collected out of every search for garbage from now on.

    An inline engine searches after each trial, which took seconds among the objects of all test modules.
    """
    _freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Leave modules that tests have loaded since out of every search as well: torch and pandas are many objects."""
    if len(sys.modules) > FROZEN[-1] + 50:
        _freeze()


def _freeze() -> None:
    """Remove the garbage, and keep what is left out of every later search."""
    gc.collect()
    gc.freeze()
    FROZEN.append(len(sys.modules))


FROZEN = [0]
"""How many modules there were when garbage was searched for."""


HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


class FakeGtsrb:
    """Writes trees and archives as the official ones are, with random pixels."""

    def write_train(self, root: Path, *, tracks: dict[int, int] | None = None, frames: int = 3) -> Path:
        """``GTSRB/Final_Training/Images`` with so many tracks of each class; returns that folder."""
        rng = np.random.default_rng(0)
        images = root / "GTSRB" / "Final_Training" / "Images"
        for label, count in (tracks or {0: 3, 7: 2, 42: 2}).items():
            folder = images / f"{label:05d}"
            folder.mkdir(parents=True)
            names = [f"{track:05d}_{frame:05d}.ppm" for track in range(count) for frame in range(frames)]
            rows = [self._write_image(rng, folder, name, label) for name in names]
            self._write_table(folder / f"GT-{label:05d}.csv", rows)
        return images

    def write_test(self, root: Path, *, count: int = 5, truth: Path | None = None) -> Path:
        """``GTSRB/Final_Test/Images`` and the table with classes in ``truth``; returns the former."""
        rng = np.random.default_rng(1)
        images = root / "GTSRB" / "Final_Test" / "Images"
        images.mkdir(parents=True)
        rows = [self._write_image(rng, images, f"{index:05d}.ppm", index % 43) for index in range(count)]
        self._write_table(images / "GT-final_test.test.csv", [row.rpartition(";")[0] for row in rows], classes=False)
        self._write_table((truth or root / "GTSRB") / "GT-final_test.csv", rows)
        return images

    def write_archives(self, tree: Path, root: Path) -> None:
        """The three official archives of a tree with both halves."""
        root.mkdir(exist_ok=True)
        for name, part in (("Training", "Final_Training"), ("Test", "Final_Test")):
            with zipfile.ZipFile(root / f"GTSRB_Final_{name}_Images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted((tree / "GTSRB" / part).rglob("*")):
                    archive.write(path, path.relative_to(tree).as_posix())
        with zipfile.ZipFile(root / "GTSRB_Final_Test_GT.zip", "w") as archive:
            archive.write(tree / "GTSRB" / "GT-final_test.csv", "GT-final_test.csv")

    def _write_image(self, rng: np.random.Generator, folder: Path, name: str, label: int) -> str:
        """Write one image of its own size; its row."""
        width, height = (int(side) for side in rng.integers(25, 70, 2))
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        (folder / name).write_bytes(f"P6\n{width} {height}\n255\n".encode() + pixels.tobytes())
        return f"{name};{width};{height};5;6;{width - 5};{height - 6};{label}"

    def _write_table(self, path: Path, rows: list[str], *, classes: bool = True) -> None:
        header = HEADER if classes else HEADER.rpartition(";")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(f"{line}\r\n" for line in (header, *rows)).encode())


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the store that its caller happens to use."""
    monkeypatch.delenv("STNBENCH_STORE", raising=False)


@pytest.fixture(scope="session", autouse=True)
def stores_made_quickly() -> Iterator[None]:
    """Compile each statement, and run the migrations, once for all stores of this process."""
    with quick_stores():
        yield


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """Give the next test torch's defaults: a trial in this process flushes denormals and wants determinism.

    A test that did not load torch costs nothing here.
    """
    threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if (torch := sys.modules.get("torch")) is not None:
        if threads is not None:
            torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture(scope="session")
def fake_gtsrb() -> FakeGtsrb:
    """The writer of made-up GTSRB files."""
    return FakeGtsrb()
