"""NVIDIA's Multi-Process Service is started for a sweep that asks for it, and ends with it."""

import os
import stat
from pathlib import Path

import pytest

from stnbench.core.errors import EngineError
from stnbench.engines import slots
from stnbench.engines.slots import LOG_VARIABLE, PIPE_VARIABLE, mps_daemon


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *, code: int = 0) -> Path:
    """A stand-in for the daemon's program first on the PATH, which notes what it is told."""
    notes, path = folder / "notes", folder / "nvidia-cuda-mps-control"
    path.write_text(f'#!/bin/sh\necho "$1 $(cat) ${PIPE_VARIABLE}" >> {notes}\necho no such luck >&2\nexit {code}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return notes


def test_the_daemon_lives_as_long_as_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started with folders of its own, which processes inside inherit; told to quit, also after an error."""
    notes = install(tmp_path, monkeypatch)
    monkeypatch.setenv(LOG_VARIABLE, "/elsewhere")
    monkeypatch.delenv(PIPE_VARIABLE, raising=False)
    folders: list[str] = []

    def work_and_fail() -> None:
        with mps_daemon():
            folders.append(os.environ[PIPE_VARIABLE])
            assert os.environ[LOG_VARIABLE] == folders[0]
            assert Path(folders[0]).is_dir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work_and_fail()
    (folder,) = folders
    assert [line.split() for line in notes.read_text().splitlines()] == [["-d", folder], ["quit", folder]]
    assert not Path(folder).exists()
    assert PIPE_VARIABLE not in os.environ
    assert os.environ[LOG_VARIABLE] == "/elsewhere"


def test_a_daemon_that_keeps_its_output_open_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program has ended, and nobody waits for what the daemon may still write."""
    install(tmp_path, monkeypatch)
    program = tmp_path / "nvidia-cuda-mps-control"
    program.write_text('#!/bin/sh\n[ "$1" = -d ] && sleep 3 &\nexit 0\n')
    monkeypatch.setattr(slots, "_TIMEOUT_S", 1.0)
    with mps_daemon():
        assert os.environ[PIPE_VARIABLE]


def test_without_the_daemon_the_option_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than time slices that nobody asked for; likewise where it does not start."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"--mps needs nvidia-cuda-mps-control"), mps_daemon():
        pytest.fail("there is no daemon")
    monkeypatch.setenv("PATH", os.defpath)
    install(tmp_path, monkeypatch, code=1)
    with pytest.raises(EngineError, match=r"failed .no such luck.: leave --mps out"), mps_daemon():
        pytest.fail("the daemon did not start")
