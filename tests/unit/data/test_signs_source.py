"""The data set obeys the contract, whoever draws it, and is drawn once."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from stnbench.core.errors import DataError
from stnbench.data import ImageSet
from stnbench.data import signs as source
from stnbench.data.gtsrb.archive import GTSRB_CLASSES
from stnbench.data.signs import HalfPlan, Signs, draw_half
from stnbench.spec.data import CLASSES, FRAMES_PER_TRACK, SignsSpec

SPEC = SignsSpec(image_size=12, tracks_per_class=2, test_tracks_per_class=1)
PLAN = HalfPlan(drawing_seed=1, half="test", tracks_per_class=1, image_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's caches are kept."""
    return tmp_path_factory.mktemp("signs")


@pytest.fixture(scope="module")
def test_half(folder: Path) -> ImageSet:
    """The test half of a small set."""
    return Signs(SPEC, folder, workers=1).test()


@pytest.mark.slow
def test_the_half_obeys_the_contract(test_half: ImageSet) -> None:
    """Types, shapes, ranges and order are those of ``ImageSet``."""
    count = CLASSES * FRAMES_PER_TRACK
    assert test_half.images.dtype == np.uint8
    assert test_half.images.shape == (count, 3, 12, 12)
    assert test_half.pose is not None
    assert test_half.pose.dtype == test_half.roi.dtype == np.float32
    assert test_half.pose.shape == (count, 3, 3)
    assert test_half.roi.shape == (count, 4)
    assert np.abs(test_half.roi).max() <= 1
    assert (test_half.roi[:, 2:] > test_half.roi[:, :2]).all()
    np.testing.assert_array_equal(test_half.labels, np.repeat(np.arange(CLASSES), FRAMES_PER_TRACK))
    np.testing.assert_array_equal(test_half.frames, np.tile(np.arange(FRAMES_PER_TRACK), CLASSES))
    assert test_half.original_size.min() >= 20
    assert test_half.images.std() > 20


@pytest.mark.slow
def test_more_tracks_leave_those_that_were_there(test_half: ImageSet, folder: Path) -> None:
    """Frames and track numbers of a track are the same in a larger half."""
    larger = Signs(SignsSpec(image_size=12, test_tracks_per_class=2), folder, workers=1).test()
    shared = np.isin(larger.tracks, test_half.tracks)
    np.testing.assert_array_equal(larger.images[shared], test_half.images)
    np.testing.assert_array_equal(larger.tracks[shared], test_half.tracks)
    assert len(np.unique(larger.tracks)) == 2 * CLASSES


@pytest.mark.slow
def test_a_second_opening_draws_nothing(test_half: ImageSet, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is used, even where only the other half's size has changed."""
    monkeypatch.setattr(source, "draw_half", lambda *_: pytest.fail("drawn again"))
    again = Signs(SignsSpec(image_size=12, tracks_per_class=9, test_tracks_per_class=1), folder, workers=1).test()
    assert again.digest == test_half.digest


def test_class_names_are_those_of_gtsrb(tmp_path: Path) -> None:
    """Names come in label order, and describing a set writes nothing."""
    assert Signs(SPEC, tmp_path, workers=1).class_names == GTSRB_CLASSES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.slow
def test_workers_draw_what_one_process_draws_without_a_main_guard(tmp_path: Path) -> None:
    """An unguarded script with two workers gets the bytes that this process draws alone."""
    script = tmp_path / "unguarded.py"
    code = f"""
    import hashlib
    from stnbench.data.signs import HalfPlan, draw_half
    plan = {PLAN!r}
    print(hashlib.sha256(b"".join(records.tobytes() for records in draw_half(plan, 2))).hexdigest())
    """
    script.write_text(textwrap.dedent(code))
    by_two = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=120)
    code_alone = script.read_text().replace("draw_half(plan, 2)", "draw_half(plan, 1)")
    alone = subprocess.run([sys.executable, "-c", code_alone], capture_output=True, text=True, check=True, timeout=120)
    assert by_two.stdout == alone.stdout
    assert by_two.stdout.strip()


@pytest.mark.thorough
@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that cannot start is reported, and no half drawn set comes out."""
    monkeypatch.setattr(source, "WORKER_MODULE", "stnbench.no_such_module")
    with pytest.raises(DataError, match="no_such_module"):
        list(draw_half(PLAN, 2))
