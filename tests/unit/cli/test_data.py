"""``python -m stnbench.data`` makes caches and says what is in them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up_mnist import write_mnist

from stnbench.cli import data
from stnbench.core.errors import DataCorruptError, DataMissingError, SpecError
from stnbench.data import gtsrb as source


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder is ``data`` in here, and the source ``source``."""
    monkeypatch.setenv("STNBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "source").mkdir()
    return tmp_path


def run(*arguments: str) -> int:
    """The command in this process."""
    return data.main(arguments)


def test_prepare_says_what_it_made(folders: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a half, with counts; the caches lie in the data folder and the source stays as it was."""
    fake_gtsrb.write_train(folders / "source")
    fake_gtsrb.write_test(folders / "source")
    assert run("prepare", "gtsrb", "--root", str(folders / "source"), "--image-size", "16") == 0
    train, test = capsys.readouterr().out.splitlines()
    assert train.startswith("train: 21 images of 16x16 pixels, 3 classes, 7 tracks, digest ")
    assert test.startswith("test: 5 images of 16x16 pixels, 5 classes, tracks unknown, digest ")
    caches = [path.name[:14] for path in sorted((folders / "data" / "cache").iterdir()) if path.name[0] != "."]
    assert caches == ["gtsrb-test-16-", "gtsrb-train-16"]
    assert [path.name for path in (folders / "source").iterdir()] == ["GTSRB"]


def test_prepare_reads_the_data_folder_by_itself(folders: Path, fake_gtsrb: Any) -> None:
    """Without ``--root`` the source is sought where the data lie."""
    fake_gtsrb.write_train(folders / "data")
    assert run("prepare", "gtsrb", "--image-size", "16") == 0


def test_a_missing_test_half_is_said(folders: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Training can go on without it, so it is a line and no failure."""
    fake_gtsrb.write_train(folders / "source")
    assert run("prepare", "gtsrb", "--root", str(folders / "source"), "--image-size", "16") == 0
    assert "test: missing, the GTSRB test images" in capsys.readouterr().out


def test_a_missing_training_half_cannot_start(folders: Path) -> None:
    """The remedy names the command."""
    with pytest.raises(DataMissingError, match="prepare gtsrb --root DIR"):
        run("prepare", "gtsrb")


def test_check_tells_the_set_from_the_official_one(
    folders: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain lines: counts, boxes, digests, repeats of pixels and of files, and that it is another set."""
    images = fake_gtsrb.write_train(folders / "source")
    fake_gtsrb.write_test(folders / "source")
    baseline, table = images / "00000" / "00001_00000.ppm", images / "00000" / "GT-00000.csv"
    rows = table.read_text(encoding="utf-8").splitlines()
    original = next(row for row in rows if row.startswith("00000_00000"))
    rows = [original.replace("00000_", "00001_", 1) if row.startswith("00001_00000") else row for row in rows]
    shutil.copy(images / "00000" / "00000_00000.ppm", baseline)
    table.write_text("\n".join(rows), encoding="utf-8")
    assert run("check", "gtsrb", "--root", str(folders / "source"), "--image-size", "16") == 0
    out = capsys.readouterr().out
    assert "train: 21 images" in out
    assert "train: 0 wrong boxes" in out
    assert "train: pixels and labels match the digest" in out
    assert "train, equal resized pixels: 1 groups of 2 images; 1 groups across tracks, 0 across classes" in out
    assert "train, equal files: 1 groups of 2 images" in out
    assert "train and test, equal files: 0 test images" in out
    assert "train: NOT the official set, which has 39,209 images, 1,307 tracks" in out
    assert "test: NOT the official set, which has 12,630 images" in out
    assert "train: files and tables are NOT those of the known copy" in out


def test_check_counts_and_lists_test_images_that_are_trained_on(
    folders: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two copies of files and one with other levels: equal and nearly equal, with tracks, as lines and as JSON."""
    train = fake_gtsrb.write_train(folders / "source")
    test = fake_gtsrb.write_test(folders / "source")
    copied = {"00000": "00000/00000_00001", "00003": "00042/00001_00002", "00004": "00007/00001_00000"}
    truth = folders / "source" / "GTSRB" / "GT-final_test.csv"
    rows = truth.read_text(encoding="utf-8").splitlines()
    for name, original in copied.items():
        data = (train / f"{original}.ppm").read_bytes()
        start = len(data) - len(data.partition(b"255\n")[2])
        if name == "00004":
            data = data[:start] + bytes(level * 7 // 8 for level in data[start:])
        (test / f"{name}.ppm").write_bytes(data)
        table = next((train / original).parent.glob("GT-*.csv")).read_text(encoding="utf-8").splitlines()
        row = next(row for row in table if row.startswith(f"{Path(original).name}.ppm;"))
        rows[1 + int(name)] = row.replace(f"{Path(original).name}.ppm", f"{name}.ppm")
    truth.write_text("\n".join(rows), encoding="utf-8")
    words = ("check", "gtsrb", "--root", str(folders / "source"), "--image-size", "32")

    assert run(*words) == 0
    out = capsys.readouterr().out
    assert "train and test, equal files: 2 test images are training images (of 2 tracks) too" in out
    assert "train and test, equal resized pixels: 2 test images are training images (of 2 tracks) too" in out
    assert "train and test, nearly equal: 3 test images are training images (of 3 tracks) too, or nearly" in out

    assert run(*words, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["wrong"] == 0
    assert facts["train"]["tracks"] == 7
    assert facts["test"]["tracks"] is None
    equal = facts["equal_files"]["train_test"]
    assert [(pair["test_row"], pair["track"], pair["frame"]) for pair in equal["list"]] == [
        (0, 0, 1),
        (3, 4_200_001, 2),
    ]
    near = facts["nearly_equal"]["train_test"]
    assert near["test_images"] == 3
    assert near["train_tracks"] == [0, 700_001, 4_200_001]
    assert {pair["test_row"] for pair in near["list"]} == {0, 3, 4}
    assert facts["nearly_equal"]["train"]["list"] == []


def test_check_lists_nearly_equal_images_of_different_tracks(
    folders: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within a track they are no fault; across tracks each pair is listed with its frames and distances."""
    images = fake_gtsrb.write_train(folders / "source", tracks={3: 2, 5: 2})
    for one, other in (("00003/00000_00000", "00003/00000_00001"), ("00003/00000_00002", "00005/00001_00001")):
        shutil.copy(images / f"{one}.ppm", images / f"{other}.ppm")
        tables = [next((images / name).parent.glob("GT-*.csv")) for name in (one, other)]
        row, label = (
            next(row for row in table.read_text(encoding="utf-8").splitlines() if row.startswith(Path(name).name))
            for table, name in zip(tables, (one, other), strict=True)
        )
        new = row.replace(Path(one).name, Path(other).name).rpartition(";")[0] + ";" + label.rpartition(";")[2]
        tables[1].write_text(tables[1].read_text(encoding="utf-8").replace(label, new), encoding="utf-8")
    assert run("check", "gtsrb", "--root", str(folders / "source"), "--image-size", "32", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["test"] is None
    near = facts["nearly_equal"]
    assert near["train_test"] is None
    (pair,) = near["train"]["list"]
    assert pair == {
        "rows": [2, 10],
        "tracks": [300_000, 500_001],
        "frames": [2, 1],
        "labels": [3, 5],
        "bits": [0, 0],
    }
    assert {name: near["train"][name] for name in ("pairs", "images", "track_pairs", "across_classes")} == {
        "pairs": 1,
        "images": 2,
        "track_pairs": 1,
        "across_classes": 1,
    }


def test_check_goes_on_without_the_classes_of_the_test_half(
    folders: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test images without their table are as good as missing."""
    fake_gtsrb.write_train(folders / "data")
    fake_gtsrb.write_test(folders / "data")
    (folders / "data" / "GTSRB" / "GT-final_test.csv").unlink()
    assert run("check", "gtsrb", "--image-size", "16") == 0
    assert "test: missing, the classes of the GTSRB test images" in capsys.readouterr().out


def test_check_without_the_source_checks_the_cache(
    folders: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files may be gone; it is said that only the cache was looked at."""
    fake_gtsrb.write_train(folders / "source")
    run("prepare", "gtsrb", "--root", str(folders / "source"), "--image-size", "16")
    assert run("check", "gtsrb", "--image-size", "16") == 0
    assert "only the cache was checked" in capsys.readouterr().out


def test_check_finds_a_changed_pixel(folders: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One changed byte among the images is refused by the name of its file, with what to do."""
    fake_gtsrb.write_train(folders / "source")
    run("prepare", "gtsrb", "--root", str(folders / "source"), "--image-size", "16")
    path = next((folders / "data" / "cache").glob("gtsrb-train-*/images.npy"))
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DataCorruptError, match=r"images\.npy has changed since it was made"):
        run("check", "gtsrb", "--image-size", "16")


def test_download_fetches_to_the_root_first(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archives go where the source is then sought."""
    asked: list[Path] = []
    monkeypatch.setattr(source, "download_archives", lambda folder, say: asked.append(folder))
    with pytest.raises(DataMissingError):
        run("prepare", "gtsrb", "--download", "--root", str(folders / "source"))
    with pytest.raises(DataMissingError):
        run("prepare", "gtsrb", "--download")
    assert asked == [folders / "source", folders / "data"]


@pytest.mark.parametrize("option", [["--download"], ["--root", "x"]])
@pytest.mark.parametrize("name", ["signs", "digits"])
def test_embedded_sets_have_no_source(folders: Path, option: list[str], name: str) -> None:
    """Nothing is read for them; an option that would be ignored is refused."""
    with pytest.raises(SpecError, match=f"{name} comes with stnbench"):
        run("prepare", name, *option)


def test_a_set_without_a_download_refuses_to_fetch_one(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other set's archives are fetched in its place."""
    monkeypatch.setattr(source, "download_archives", pytest.fail)
    with pytest.raises(SpecError, match="folder has no download"):
        run("prepare", "folder", "--download", "--root", str(folders / "source"))


def test_mnist_is_prepared_from_its_files(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts and size are said, and ``check`` tells it from the official set."""
    write_mnist(folders / "source")
    assert run("prepare", "mnist", "--root", str(folders / "source"), "--image-size", "16") == 0
    assert capsys.readouterr().out.startswith("train: 40 images of 16x16 pixels, 10 classes, 40 tracks, digest ")
    assert run("check", "mnist", "--image-size", "16") == 0
    assert "train: NOT the official set, which has 60,000 images" in capsys.readouterr().out


def test_mnist_is_fetched_only_when_asked(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--download`` fetches to where the set is then sought; without it its absence names the option."""
    monkeypatch.setattr("stnbench.data.digits.download_mnist", write_mnist)
    with pytest.raises(DataMissingError, match="--download"):
        run("prepare", "mnist")
    assert run("prepare", "mnist", "--download", "--image-size", "16") == 0


@pytest.mark.slow
def test_digits_are_prepared_once_each(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Undistorted, one copy of each digit is made, at their own size."""
    assert run("prepare", "digits") == 0
    train, test = capsys.readouterr().out.splitlines()
    assert train.startswith("train: 1,438 images of 42x42 pixels, 10 classes, 1,438 tracks")
    assert test.startswith("test: 359 images")


def test_a_wrong_size_is_named(folders: Path) -> None:
    """The specification's own check speaks."""
    with pytest.raises(SpecError, match="image_size is 4"):
        run("prepare", "gtsrb", "--image-size", "4")


@pytest.mark.slow
def test_the_process_ends_as_every_command_does(folders: Path) -> None:
    """Exit code 2, one line on standard error, no traceback."""
    command = [sys.executable, "-m", "stnbench.data", "check", "gtsrb"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: the GTSRB training images")
    assert len(ended.stderr.splitlines()) == 1
