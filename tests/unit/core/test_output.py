"""Standard streams outlast their readers."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typing_extensions import override

from stnbench.core.command import LastingStream

WORK = """
import os, sys
from stnbench.core.command import run_command
def main(arguments):
    for number in range(3000):
        print("line", number, flush=True)
        print("progress", number, file=sys.stderr, flush=True)
    with open(os.environ["DONE"], "w") as file:
        file.write("all of it")
    print("the end", end="")
    return 1
run_command(main, [])
"""


def work_with(redirection: str, done: Path) -> tuple[int, str]:
    """The exit code of a command with its output redirected by a shell, and what it has done."""
    script = f'"$PYTHON" -c "$WORK" {redirection}'
    environment = os.environ | {"WORK": WORK, "PYTHON": sys.executable, "DONE": os.fspath(done), "STNBENCH_LOG": "off"}
    code = subprocess.run(["bash", "-c", script], env=environment, timeout=120, check=False, stdout=subprocess.PIPE)
    return code.returncode, done.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection",
    [
        "2>&1 | head -2 >/dev/null; exit ${PIPESTATUS[0]}",
        "| head -2 2>/dev/null >/dev/null; exit ${PIPESTATUS[0]}",
        "2>&1 | (read line; kill $BASHPID); exit ${PIPESTATUS[0]}",
        ">&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
        ">/dev/full 2>&1",
        "2>/dev/full >/dev/null",
    ],
)
def test_a_command_does_its_work_whoever_reads(redirection: str, tmp_path: Path) -> None:
    """The exit code is the command's own, and its work is done to the end."""
    assert work_with(redirection, tmp_path / "done") == (1, "all of it")


LOSS = """
import os, sqlite3, sys
import numpy as np
from stnbench.core.command import run_command
images = np.lib.format.open_memmap(sys.argv[1] + "images.npy", mode="w+", dtype="u1", shape=(1 << 16,))
store = sqlite3.connect(sys.argv[1] + "x.db", isolation_level=None)
store.execute("PRAGMA journal_mode = WAL").fetchone()
store.execute("CREATE TABLE t (a)")
def main(arguments):
    os.truncate(sys.argv[1] + sys.argv[2], 0)
    images.sum()
    store.execute("SELECT count(*) FROM t").fetchone()
    return 0
run_command(main, [])
"""


@pytest.mark.slow
@pytest.mark.parametrize("file", ["images.npy", "x.db-shm"])
def test_a_mapped_file_that_is_cut_ends_a_command_with_a_line(file: str, tmp_path: Path) -> None:
    """The system would end it with SIGBUS, without a word."""
    command = [sys.executable, "-c", LOSS, f"{tmp_path}{os.sep}", file]
    ended = subprocess.run(command, timeout=120, check=False, capture_output=True, text=True)
    assert ended.returncode == 2, ended
    assert ended.stderr == (
        f"error: {tmp_path / file} was cut short while it was used: see to its disk and run the same command again\n"
    )


class Refusing(io.StringIO):
    """Refuses what is written, so often."""

    def __init__(self, number: int, times: int) -> None:
        super().__init__()
        self.number, self.left = number, times

    @override
    def write(self, text: str, /) -> int:
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EAGAIN])
def test_what_cannot_be_written_is_dropped(number: int) -> None:
    """A full disk costs the text of that moment; nothing is raised for any reason."""
    stream = Refusing(number, times=1)
    lasting = LastingStream(stream)
    assert [lasting.write("lost"), lasting.write("kept")] == [4, 4]
    lasting.flush()
    assert stream.getvalue() == "kept"


def test_a_stream_is_otherwise_what_it_was() -> None:
    """Whether it is a terminal, its encoding and its buffer are the stream's."""
    with Path(os.devnull).open("w", encoding="latin-1") as stream:
        lasting = LastingStream(stream)
        assert (lasting.encoding, lasting.isatty(), lasting.fileno()) == ("latin-1", False, stream.fileno())
        assert lasting.buffer is stream.buffer
