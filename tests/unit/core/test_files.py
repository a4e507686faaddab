"""Files are whole or absent."""

import os
from pathlib import Path

import pytest

from stnbench.core.errors import FolderError
from stnbench.core.files import tail, writable_folder, write_all, write_atomic


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
