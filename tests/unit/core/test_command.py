"""How commands end, and what they leave in the log."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stnbench.core.command import BYTES_MAX, LOGGER, close_log, open_log, run_command
from stnbench.core.errors import DataMissingError, TransitionError


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder that is not there yet."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("STNBENCH_RUNS", str(folder))
    monkeypatch.delenv("STNBENCH_LOG", raising=False)
    return folder


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    """Later tests do not write into this one's log."""
    yield
    close_log()
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.propagate = True


def end(error: BaseException, *arguments: str) -> int:
    """The exit code of a command that raises an error."""

    def main(given: Sequence[str]) -> int:
        assert "--debug" not in given
        raise error

    with pytest.raises(SystemExit) as left:
        run_command(main, arguments)
    assert isinstance(left.value.code, int)
    return left.value.code


BUGS = [
    ZeroDivisionError("1 / 0"),
    AssertionError("unreachable"),
    KeyError("x"),
    TransitionError("it ended twice"),
    RecursionError(),
]


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_bug_of_ours_keeps_its_traceback_and_asks_for_a_report(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3: nothing that the user typed is to blame, also where the error is one of the tree."""
    assert end(error) == 3

    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last)")
    assert type(error).__name__ in shown.splitlines()[-2]
    assert "this is a bug of stnbench" in shown.splitlines()[-1]


FORESEEN = [
    DataMissingError("GTSRB is\nnot there", remedy="download it"),
    OSError(28, "No space left on device", "/x"),
    PermissionError(13, "Permission denied", "/x"),
    MemoryError(),
]


@pytest.mark.parametrize("error", FORESEEN, ids=lambda error: type(error).__name__)
def test_what_was_foreseen_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, also for what the machine refuses; ``--debug`` shows the traceback before the line."""
    assert end(error) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")

    assert end(error, "--debug") == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "Traceback (most recent call last):"
    assert shown[-1] == lines[0]


def test_a_missing_file_that_nobody_expected_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever opens a file says what it is for; where nobody did, the traceback is all there is."""
    assert end(FileNotFoundError(2, "No such file", "/x")) == 3
    assert "Traceback" in capsys.readouterr().err


def test_the_log_has_what_was_asked_how_it_ended_and_why(runs: Path) -> None:
    """Also the traceback of an error that was one line, and no password."""
    runs.mkdir()
    end(DataMissingError("no postgresql://me:secret@host/db"), "sweep", "--x=postgresql://me:secret@host/db")

    text = (runs / "logs" / "stnbench.log").read_text()
    assert "begin: " in text
    assert "'sweep'" in text
    assert "Traceback" in text
    assert "end: exit code 2" in text
    assert "secret" not in text
    assert f" {os.getpid()} stnbench: " in text


def test_the_log_waits_for_the_runs_folder_and_never_makes_it(runs: Path) -> None:
    """A command that only looks leaves nothing; what was logged before the folder is written then."""
    open_log()
    LOGGER.info("before")
    assert not runs.exists()

    runs.mkdir()
    LOGGER.info("after")
    lines = (runs / "logs" / "stnbench.log").read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["before", "after"]


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 2), ("info", 1), ("warning", 0), ("off", 0), ("", 1), ("INFO", 1)]
)
def test_the_level_is_a_variable(runs: Path, monkeypatch: pytest.MonkeyPatch, level: str, count: int) -> None:
    """``STNBENCH_LOG`` says how much is kept."""
    monkeypatch.setenv("STNBENCH_LOG", level)
    runs.mkdir()
    open_log()
    LOGGER.debug("fine")
    LOGGER.info("coarse")

    log = runs / "logs" / "stnbench.log"
    assert (len(log.read_text().splitlines()) if log.exists() else 0) == count


def test_an_unknown_level_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The levels are named."""
    monkeypatch.setenv("STNBENCH_LOG", "loud")
    assert end(KeyError()) == 2
    assert (
        capsys.readouterr().err == "error: STNBENCH_LOG is 'loud': set it to one of debug, info, warning, error, off\n"
    )


def test_a_log_that_cannot_be_written_ends_no_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file stands where the folder of logs should be."""
    runs.mkdir()
    (runs / "logs").write_text("")
    assert end(DataMissingError("x")) == 2
    assert capsys.readouterr().err == "error: x\n"


def test_a_large_log_is_set_aside(runs: Path) -> None:
    """It becomes the one before, so that logs stay bounded."""
    log = runs / "logs" / "stnbench.log"
    log.parent.mkdir(parents=True)
    with log.open("wb") as file:
        file.truncate(BYTES_MAX + 1)
    open_log()
    LOGGER.info("new")

    assert log.stat().st_size < 200
    assert log.with_name("stnbench.log.1").stat().st_size == BYTES_MAX + 1


def test_a_lone_surrogate_in_a_record_is_written_as_an_escape(runs: Path) -> None:
    """Whatever an argument or a label holds."""
    runs.mkdir()
    open_log()
    LOGGER.info("label \udcff")

    assert "\\udcff" in (runs / "logs" / "stnbench.log").read_text()
