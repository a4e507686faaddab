"""Probabilities survive the disk, and what are none is refused with the name of the file."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import FolderError
from stnbench.trials.files import Probabilities, read_probabilities, write_probabilities


def drawn(images: int, classes: int, *, seed: int = 0, sharpness: float = 5.0) -> Probabilities:
    """The probabilities of a network that is more or less sure."""
    logits = np.random.default_rng(seed).normal(scale=sharpness, size=(images, classes))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float16)


def test_probabilities_come_back_from_the_disk(tmp_path: Path) -> None:
    """Bit for bit, each split from a file of its own, and nothing else is in the folder."""
    validation, test = drawn(7, 43), drawn(5, 43, seed=1)
    write_probabilities(tmp_path, "validation", validation)
    write_probabilities(tmp_path, "test", test)
    np.testing.assert_array_equal(read_probabilities(tmp_path, "validation", images=7), validation)
    np.testing.assert_array_equal(read_probabilities(tmp_path, "test", images=5), test)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "probabilities_test.npy",
        "probabilities_validation.npy",
    ]


@given(classes=st.integers(2, 200), seed=st.integers(0, 100), sharpness=st.floats(0, 20))
def test_rounding_is_never_taken_for_damage(
    classes: int, seed: int, sharpness: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However many classes and however sure, what a network gives is accepted."""
    folder = tmp_path_factory.mktemp("attempt")
    write_probabilities(folder, "test", drawn(20, classes, seed=seed, sharpness=sharpness))
    assert read_probabilities(folder, "test", images=20).shape == (20, classes)


def test_missing_probabilities_are_told_with_a_remedy(tmp_path: Path) -> None:
    """As those of trials of older versions are."""
    with pytest.raises(FolderError, match=r"probabilities_test\.npy cannot be read \(it is missing\).*checkpoint"):
        read_probabilities(tmp_path, "test", images=7)


def saved(array: object) -> bytes:
    """An array, or what numpy pickles, as a file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def zipped() -> bytes:
    """An archive of numpy's."""
    buffer = io.BytesIO()
    np.savez(buffer, drawn(7, 4))
    return buffer.getvalue()


RIGHT = drawn(7, 4)
WRONG = {
    "cut off": saved(RIGHT)[:-3],
    "empty": b"",
    "pickled": saved(np.array([{"a": 1}] * 7, dtype=object)),
    "an archive": zipped(),
    "of another type": saved(RIGHT.astype(np.float32)),
    "without classes": saved(RIGHT[:, 0]),
    "of fewer images": saved(RIGHT[:6]),
    "not a number": saved(np.full((7, 4), np.nan, np.float16)),
    "infinite": saved(np.full((7, 4), np.inf, np.float16)),
    "below zero": saved(np.tile(np.array([1.5, -0.5], np.float16), (7, 1))),
    "not summing to 1": saved(RIGHT * np.float16(0.9)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_are_no_probabilities_is_refused(name: str, tmp_path: Path) -> None:
    """The message names the file; nothing in it is executed."""
    (tmp_path / "probabilities_test.npy").write_bytes(WRONG[name])
    with pytest.raises(FolderError, match=r"probabilities_test\.npy"):
        read_probabilities(tmp_path, "test", images=7)


@pytest.mark.parametrize("place", ["low bit", "exchanged rows", "digest", "end of the digest", "marker"])
def test_damage_that_leaves_valid_numbers_is_noticed(place: str, tmp_path: Path) -> None:
    """A flipped bit moves a sum by less than rounding may: the digest at the end of the file tells."""
    write_probabilities(tmp_path, "test", RIGHT)
    path = tmp_path / "probabilities_test.npy"
    data = bytearray(path.read_bytes())
    at = data.index(RIGHT.tobytes())
    match place:
        case "low bit":
            data[at] ^= 1
        case "exchanged rows":
            data[at : at + 16] = data[at + 8 : at + 16] + data[at : at + 8]
        case "digest":
            data[-5] ^= 1
        case "end of the digest":
            del data[-3:]
        case _:
            data[at + RIGHT.nbytes + 1] ^= 1
    path.write_bytes(data)

    with pytest.raises(FolderError, match=r"probabilities_test\.npy.*(digest|bytes)"):
        read_probabilities(tmp_path, "test", images=7)


def test_the_probabilities_of_another_split_are_noticed(tmp_path: Path) -> None:
    """Also where both have as many images."""
    write_probabilities(tmp_path, "validation", RIGHT)
    (tmp_path / "probabilities_validation.npy").rename(tmp_path / "probabilities_test.npy")

    with pytest.raises(FolderError, match="digest"):
        read_probabilities(tmp_path, "test", images=7)


def test_files_of_older_versions_and_readers_of_others_see_the_numbers(tmp_path: Path) -> None:
    """A file without a digest is read as before, and numpy alone reads one with it."""
    (tmp_path / "probabilities_test.npy").write_bytes(saved(RIGHT))
    np.testing.assert_array_equal(read_probabilities(tmp_path, "test", images=7), RIGHT)
    write_probabilities(tmp_path, "validation", RIGHT)
    np.testing.assert_array_equal(np.load(tmp_path / "probabilities_validation.npy", allow_pickle=False), RIGHT)


@pytest.mark.slow
def test_a_report_reads_probabilities_without_torch() -> None:
    """Importing torch takes seconds, which no report shall pay."""
    program = "import sys, stnbench.trials.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
