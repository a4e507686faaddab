"""The cache of one half is whole or absent, whatever happens while it is made."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from stnbench.core import files
from stnbench.core.errors import DataCorruptError, DataMissingError, FolderError
from stnbench.core.identity import Json, canonical_json
from stnbench.data import ImageSet, cache, images_digest
from stnbench.data.cache import (
    CacheArrays,
    Layout,
    Recipe,
    open_cache,
    open_or_build,
    read_manifest,
    verify,
)

COUNT, SIZE = 6, 8


def fill(arrays: CacheArrays) -> None:
    """Distinct values everywhere."""
    rows = np.arange(COUNT)
    arrays.images[:] = rows[:, None, None, None]
    arrays.labels[:] = rows * 2
    arrays.tracks[:] = rows // 2
    arrays.frames[:] = rows % 2
    arrays.roi[:] = [-0.5, -0.25, 0.5, 0.75]
    arrays.original_size[:] = rows[:, None] + [10, 20]
    if arrays.pose is not None:
        arrays.pose[:] = np.eye(3)


def build(
    folder: Path, fill: Callable[[CacheArrays], None] = fill, *, version: int = 1, has_pose: bool = True
) -> ImageSet:
    """Open the cache of the tests, made by ``fill`` if needed."""
    identity: dict[str, Json] = {"version": version, "name": "tests"}
    layout = Layout(count=COUNT, image_size=SIZE, has_pose=has_pose)
    return open_or_build(folder, identity=identity, recipe=lambda: Recipe(layout=layout, fill=fill))


def refuse(arrays: CacheArrays) -> None:
    """Stands in for a fill that must not be called."""
    pytest.fail("filled again")


def assert_nothing_left(folder: Path) -> None:
    """Neither a cache nor a temporary folder is there."""
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == []


def test_what_is_filled_is_what_is_opened(tmp_path: Path) -> None:
    """Every array comes back with its type, and the digest is that of images and labels."""
    images = build(tmp_path / "cache" / "a")
    assert images.images.dtype == np.uint8
    assert images.images.shape == (COUNT, 3, SIZE, SIZE)
    assert images.images[:, 1, 2, 3].tolist() == list(range(COUNT))
    assert images.labels.tolist() == [0, 2, 4, 6, 8, 10]
    assert images.tracks.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.frames.tolist() == [0, 1] * 3
    assert images.original_size[3].tolist() == [13, 23]
    assert images.roi.dtype == np.float32
    assert images.roi[0].tolist() == [-0.5, -0.25, 0.5, 0.75]
    assert images.pose is not None
    assert images.pose[5].tolist() == np.eye(3).tolist()
    assert images.digest == images_digest(images.images, images.labels)
    assert len(images.digest) == 16


def test_channels_and_control_points_come_back(tmp_path: Path) -> None:
    """A cache may have any number of channels, and control points."""
    layout = Layout(count=COUNT, image_size=SIZE, channels=2, has_pose=True, has_control_points=True)

    def fill_all(arrays: CacheArrays) -> None:
        fill(arrays)
        assert arrays.control_points is not None
        arrays.control_points[:] = np.arange(COUNT)[:, None, None]

    images = open_or_build(tmp_path / "a", identity={}, recipe=lambda: Recipe(layout=layout, fill=fill_all))
    assert images.images.shape == (COUNT, 2, SIZE, SIZE)
    assert images.control_points is not None
    assert images.control_points.dtype == np.float32
    assert images.control_points.shape == (COUNT, 16, 2)
    assert images.control_points[:, 3, 1].tolist() == list(range(COUNT))
    assert verify(tmp_path / "a").layout == layout


def test_a_cache_from_before_channels_is_still_open(tmp_path: Path) -> None:
    """A manifest that says nothing of channels and control points has three and none."""
    first = build(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    older = {key: value for key, value in plain.items() if key not in {"channels", "has_control_points", "checksum"}}
    assert len(plain) == len(older) + 3
    older["checksum"] = hashlib.sha256(canonical_json(older).encode()).hexdigest()
    path.write_text(json.dumps(older), encoding="utf-8")
    assert build(tmp_path / "a", refuse).digest == first.digest


def test_a_cache_that_is_there_asks_for_no_recipe(tmp_path: Path) -> None:
    """The source is not read again."""
    first = build(tmp_path / "a")
    again = open_or_build(tmp_path / "a", identity={"version": 1, "name": "tests"}, recipe=lambda: pytest.fail("asked"))
    assert again.digest == first.digest


def test_second_opening_fills_nothing(tmp_path: Path) -> None:
    """A cache of the same identity is opened, without a pose if there is none."""
    first = build(tmp_path / "a", has_pose=False)
    second = build(tmp_path / "a", refuse, has_pose=False)
    assert second.pose is None
    assert second.digest == first.digest


def test_arrays_cannot_be_written(tmp_path: Path) -> None:
    """Processes share the pages, so nobody may change them."""
    images = build(tmp_path / "a")
    assert isinstance(images.images, np.memmap)
    for array in (images.images, images.labels, images.roi):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_another_identity_is_made_again(tmp_path: Path) -> None:
    """A cache made from something else is replaced, and nothing of it is left beside."""
    build(tmp_path / "a")
    build(tmp_path / "a", version=2)
    assert verify(tmp_path / "a").identity == {"version": 2, "name": "tests"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["a"]


def test_another_format_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of another version of stnbench is no error where it can be made, and one where it cannot."""
    build(tmp_path / "a")
    monkeypatch.setattr("stnbench.data.cache.FORMAT_VERSION", 2)
    assert read_manifest(tmp_path / "a") is None
    with pytest.raises(DataCorruptError, match="another version"):
        open_cache(tmp_path / "a")
    build(tmp_path / "a")
    assert verify(tmp_path / "a").layout.count == COUNT


def test_no_cache_is_missing(tmp_path: Path) -> None:
    """Opening what was never made says so."""
    with pytest.raises(DataMissingError, match="no cache at"):
        open_cache(tmp_path / "a")


@pytest.mark.parametrize("keep", [0, 5, 100, 500])
def test_truncated_images_are_refused(tmp_path: Path, keep: int) -> None:
    """A cut file names itself and the remedy, and never gives garbage."""
    build(tmp_path / "a")
    path = tmp_path / "a" / "images.npy"
    os.truncate(path, keep)
    with pytest.raises(DataCorruptError, match=r"images\.npy .*: delete its folder") as caught:
        build(tmp_path / "a", refuse)
    assert str(path) in caught.value.problem


def test_longer_images_are_refused(tmp_path: Path) -> None:
    """A file with more bytes than it should have is no longer the one that was made."""
    build(tmp_path / "a")
    path = tmp_path / "a" / "images.npy"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataCorruptError, match="bytes instead of"):
        open_cache(tmp_path / "a")


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    """A whole file of another shape is not opened."""
    build(tmp_path / "a")
    np.save(tmp_path / "a" / "images.npy", np.zeros((COUNT, 3, SIZE, SIZE + 1), np.uint8))
    with pytest.raises(DataCorruptError, match="instead of"):
        open_cache(tmp_path / "a")


@pytest.mark.parametrize("name", ["labels.npy", "tracks.npy", "frames.npy", "roi.npy", "original_size.npy", "pose.npy"])
def test_changed_small_array_is_refused(tmp_path: Path, name: str) -> None:
    """One changed bit in a small array is found on opening, as is a missing file."""
    build(tmp_path / "a")
    path = tmp_path / "a" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataCorruptError, match=name):
        open_cache(tmp_path / "a")
    path.unlink()
    with pytest.raises(DataCorruptError, match=name):
        open_cache(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "count": 6}'])
def test_garbled_manifest_is_refused(tmp_path: Path, text: str) -> None:
    """A manifest that is no JSON, or not the one that was written, is named; so is one that is gone."""
    build(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataCorruptError, match=r"manifest\.json"):
        build(tmp_path / "a", refuse)
    path.unlink()
    with pytest.raises(DataCorruptError, match=r"no manifest\.json"):
        build(tmp_path / "a", refuse)


def test_edited_manifest_is_refused(tmp_path: Path) -> None:
    """A manifest with one value changed does not match its own checksum."""
    build(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(plain | {"digest": "0" * 16}), encoding="utf-8")
    with pytest.raises(DataCorruptError, match="checksum"):
        open_cache(tmp_path / "a")


def turn_over(path: Path, place: int = -1) -> None:
    """Turn one bit of a file over, in place: who has mapped it sees that."""
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(place, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("is_large", [True, False], ids=["remembered", "read each time"])
def test_one_changed_pixel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool) -> None:
    """By opening and by verifying, also where the pixels were read before and their digest is remembered."""
    if is_large:
        monkeypatch.setattr("stnbench.core.files.REMEMBERED_MIN_BYTES", 0)
        monkeypatch.setattr("stnbench.core.files.SETTLED_NS", 0)
    build(tmp_path / "a")
    open_cache(tmp_path / "a")
    path = tmp_path / "a" / "images.npy"
    stamp = path.stat()
    turn_over(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    for read in (open_cache, verify):
        with pytest.raises(DataCorruptError, match=r"images\.npy has changed"):
            read(tmp_path / "a")


def test_pixels_of_a_large_cache_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later openings compare size, times and inode; what they remember may be damaged or missing."""
    monkeypatch.setattr("stnbench.core.files.REMEMBERED_MIN_BYTES", 0)
    monkeypatch.setattr("stnbench.core.files.SETTLED_NS", 0)
    build(tmp_path / "a")
    read: list[str] = []
    real = files.file_sha256

    def noted(path: Path, *, follow_link: bool) -> str:
        read.append(path.name)
        return real(path, follow_link=follow_link)

    monkeypatch.setattr(cache, "file_sha256", noted)
    open_cache(tmp_path / "a")
    assert read == []
    seen = tmp_path / "a" / "seen.json"
    for damaged in (seen.read_bytes().replace(b"0", b"1"), b"{", b"[" * 100_000, None):
        seen.unlink() if damaged is None else seen.write_bytes(damaged)
        open_cache(tmp_path / "a")
    assert read == ["images.npy"] * 4


def test_writing_to_images_that_are_open_is_found(tmp_path: Path) -> None:
    """A process maps them; one that was removed or replaced meanwhile keeps what it mapped."""
    opened = build(tmp_path / "a")
    path = tmp_path / "a" / "images.npy"
    opened.check()
    os.utime(path)
    opened.check()
    whole = path.read_bytes()
    path.rename(path.with_suffix(".old"))
    opened.check()
    path.write_bytes(whole[:-9])
    opened.check()
    path.with_suffix(".old").replace(path)
    opened.check()
    turn_over(path)
    with pytest.raises(DataCorruptError, match=r"images\.npy has changed"):
        opened.check()


def test_a_full_disk_leaves_no_half_cache(tmp_path: Path) -> None:
    """An OSError while filling becomes one line with the remedy, and the next try starts afresh."""

    def run_out(arrays: CacheArrays) -> None:
        arrays.images[:] = 1
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FolderError, match="free some space"):
        build(tmp_path / "cache" / "a", run_out)
    assert_nothing_left(tmp_path / "cache" / "a")
    assert len(build(tmp_path / "cache" / "a")) == COUNT


def test_an_error_of_the_source_leaves_no_half_cache(tmp_path: Path) -> None:
    """Whatever else goes wrong while filling arrives as it is."""

    def fail(arrays: CacheArrays) -> None:
        raise DataCorruptError("x.ppm is wrong")

    with pytest.raises(DataCorruptError, match=r"x\.ppm"):
        build(tmp_path / "cache" / "a", fail)
    assert_nothing_left(tmp_path / "cache" / "a")


def test_no_room_is_an_error_before_filling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room is taken first: writing to a map on a full disk would kill the process instead."""

    def no_room(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room, raising=False)
    with pytest.raises(FolderError, match="free some space"):
        build(tmp_path / "cache" / "a", refuse)
    assert_nothing_left(tmp_path / "cache" / "a")


def test_a_failed_replacement_keeps_the_old_cache(tmp_path: Path) -> None:
    """A cache is retired only when the new one is whole."""

    def fail(arrays: CacheArrays) -> None:
        raise OSError(errno.EIO, "Input/output error")

    build(tmp_path / "a")
    with pytest.raises(FolderError):
        build(tmp_path / "a", fail, version=2)
    assert len(build(tmp_path / "a", refuse)) == COUNT


BUILDER = textwrap.dedent(
    """
    import os, signal, sys, time
    from pathlib import Path
    import stnbench.data.cache as cache
    folder, mode, log = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

    def fill(arrays):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\\n")
        arrays.images[:] = 3
        time.sleep(0.3 if mode == "race" else 0)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if mode == "kill":
        cache._retire = die  # everything is written and synced, nothing is renamed
    if mode == "kill_between":
        cache.sync_folder = lambda folder: die() if folder.suffix != ".tmp" else None
        cache.Path.rename = die
    identity = {"version": 1, "name": "tests"}
    recipe = cache.Recipe(layout=cache.Layout(count=6, image_size=8, has_pose=False), fill=fill)
    images = cache.open_or_build(folder, identity=identity, recipe=lambda: recipe)
    print(images.digest, int(images.images.sum()))
    """
)


def start(folder: Path, mode: str, log: Path) -> "subprocess.Popen[str]":
    """A process that makes the cache and prints its digest."""
    command = [sys.executable, "-c", BUILDER, str(folder), mode, str(log)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["kill", "kill_between"])
def test_a_killed_builder_leaves_nothing_that_counts(tmp_path: Path, mode: str) -> None:
    """Killed with all written and nothing renamed: the next process takes the lock, cleans up and makes it anew."""
    folder, log = tmp_path / "cache" / "a", tmp_path / "log"
    with start(folder, mode, log) as killed:
        killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert len(list(folder.parent.glob(".a.*.tmp"))) == 1
    images = build(folder, has_pose=False)
    assert images.labels.tolist() == [0, 2, 4, 6, 8, 10]
    assert list(folder.parent.glob(".a.*.tmp")) == []


@pytest.mark.slow
def test_two_processes_at_once_make_one_cache(tmp_path: Path) -> None:
    """The second waits for the first and opens what it made."""
    folder, log = tmp_path / "cache" / "a", tmp_path / "log"
    with start(folder, "race", log) as first, start(folder, "race", log) as second:
        outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][0].split()[1] == str(3 * COUNT * 3 * SIZE * SIZE)
    assert len(log.read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, 524, errno.EINVAL])
def test_a_file_system_without_locks_is_named(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says which folder it is and what moves it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with (
        pytest.raises(FolderError, match=r"file system of .* has no locks .*STNBENCH_DATA"),
        cache._lock(tmp_path / "signs"),
    ):
        pass
