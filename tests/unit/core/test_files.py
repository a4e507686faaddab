"""Files are whole or absent."""

import mmap
import os
from pathlib import Path

import pytest

from stnbench.core.errors import FolderError
from stnbench.core.files import tail, writable_folder, write_all, write_atomic
from stnbench.core.process import lost_maps


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    """After a write there is the new content and no temporary file."""
    path = tmp_path / "result.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")

    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["result.json"]  # noqa: PTH208 - names are what is asserted


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    """Reports can be read by others where the user's umask allows it."""
    write_atomic(tmp_path / "atomic", b"")
    (tmp_path / "plain").write_bytes(b"")

    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails at the sync costs the new content, not the old."""
    path = tmp_path / "result.json"
    write_atomic(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_that_is_a_file_is_named_with_its_purpose(tmp_path: Path) -> None:
    """The message names the folder, what it is for, and the remedy."""
    blocker = tmp_path / "runs"
    blocker.write_text("in the way")

    with pytest.raises(FolderError) as caught:
        writable_folder(blocker / "below", "runs", remedy="set STNBENCH_RUNS")
    assert str(blocker) in str(caught.value)
    assert caught.value.remedy == "set STNBENCH_RUNS"


def test_write_all_writes_more_than_a_pipe_holds() -> None:
    """A message longer than the pipe's buffer arrives whole."""
    reader, writer = os.pipe()
    data = bytes(range(256)) * 200
    write_all(writer, data)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == data


def test_tail_begins_with_a_whole_line(tmp_path: Path) -> None:
    """The tail of a long log starts at a line, and a missing log has none."""
    log = tmp_path / "log"
    log.write_text("first line\nsecond line\nthird\n")

    assert tail(log, limit=15) == "third\n"
    assert tail(log) == log.read_text()
    assert tail(tmp_path / "none") == ""


def test_a_mapped_file_that_was_cut_is_found(tmp_path: Path) -> None:
    """Of files that a process shares with others: programs, whole files and removed ones are no loss."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    cut.write_bytes(b"x")
    whole.write_bytes(b"x" * (2 * mmap.PAGESIZE + 1))
    extent = f"7f0000000000-7f{3 * mmap.PAGESIZE:010x}"
    maps = tmp_path / "maps"
    maps.write_text(
        "".join(
            f"{extent} {rights} 00000000 08:01 1 {path}\n"
            for rights, path in (
                ("rw-s", cut),
                ("r-xp", cut),
                ("rw-s", whole),
                ("rw-s", tmp_path / "gone"),
                ("rw-s", cut),
            )
        )
        + f"{extent} rw-p 00000000 00:00 0\n"
    )
    assert lost_maps(maps) == [cut]
    assert lost_maps(tmp_path / "no such file") == []
