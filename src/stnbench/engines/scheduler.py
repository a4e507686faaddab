"""Slurm's commands: started in the background, given up when they do not answer, and read strictly."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from stnbench.core.errors import EngineError
from stnbench.core.text import printable
from stnbench.engines.pool import Job

COMMANDS: Final = ("sbatch", "squeue", "scancel")

_LISTED: Final = re.compile(r"(\d+(?:_\d+)?)\|([A-Z_]+)\|(.*)")
_ACCEPTED: Final = re.compile(r"(\d+)(?:;[\w.-]+)?")

_OUT_OF_REACH: Final = re.compile(
    r"contact slurm controller|socket timed out|timed out|connection (?:refused|reset|timed)|communication connection|"
    r"zero bytes|temporarily unable|unable to connect|no route to host|name or service not known|try again",
    re.IGNORECASE,
)
"""What Slurm's commands say where its controller does not answer: nothing is known of what they asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """The jobs that the scheduler has."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """An array was submitted; the names of its tasks."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A submission is not possible, and Slurm says why."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Silent:
    """No answer, or none that can be read: whether anything was done is not known."""

    command: str
    message: str


Answer = Listed | Accepted | Refused | Silent


class Scheduler:
    """One question at a time; its answer is taken when it is there.

    Args:
        name: of all jobs of this spool, by which they are found.
        answer_within_s: how long a command may take.
        clock: seconds from any origin.
    """

    def __init__(self, name: str, *, answer_within_s: float, clock: Callable[[], float]) -> None:
        missing = [command for command in COMMANDS if shutil.which(command) is None]
        if missing:
            problem = f"the slurm engine needs {', '.join(missing)}, which this machine does not have"
            raise EngineError(problem, remedy="start the sweep on a login node of the cluster, or use --engine local")
        self._name = name
        self._answer_within_s = answer_within_s
        self._clock = clock
        self._asked: _Question | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a question is open."""
        return self._asked is not None

    def list_jobs(self) -> None:
        """Ask for the jobs of this spool."""
        words = ["squeue", "--noheader", "--array", f"--name={self._name}", "--format=%i|%T|%r"]
        self._asked = _Question(words, self._deadline_s(), _read_listing)

    def submit(self, count: int, options: Sequence[str], script: str) -> None:
        """Ask for an array of so many tasks that run a script."""
        words = ["sbatch", "--parsable", f"--job-name={self._name}", f"--array=0-{count - 1}", *options, script]
        self._asked = _Question(words, self._deadline_s(), lambda text: _read_submission(text, count))

    def take(self) -> Answer | None:
        """Return the answer to the open question; None while there is none."""
        if self._asked is None:
            return None
        answer = self._asked.take(self._clock())
        if answer is not None:
            self._asked = None
        return answer

    def cancel_all(self) -> str:
        """End every job of this spool; what went wrong, empty where nothing did."""
        self.drop()
        try:
            done = subprocess.run(  # noqa: S603 - Slurm's own command, no input of others
                [shutil.which("scancel") or "scancel", "--quiet", f"--name={self._name}"],
                env=_environment(os.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=min(self._answer_within_s, 10.0),
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return "" if done.returncode == 0 else printable(done.stderr.strip()[-300:])

    def drop(self) -> None:
        """Give the open question up."""
        if self._asked is not None:
            self._asked.end()
            self._asked = None

    def _deadline_s(self) -> float:
        return self._clock() + self._answer_within_s


class _Question:
    """A command of Slurm that runs; its output goes to files, so that no pipe is ever full."""

    def __init__(self, words: Sequence[str], deadline_s: float, read: Callable[[str], Answer]) -> None:
        self._command = words[0]
        self._deadline_s = deadline_s
        self._read = read
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the answer is taken
        self._err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - likewise
        self._problem = ""
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(  # noqa: S603 - Slurm's own command
                [shutil.which(words[0]) or words[0], *words[1:]],
                env=_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                start_new_session=True,
            )
        except OSError as error:
            self._process, self._problem = None, str(error)

    def take(self, now_s: float) -> Answer | None:
        if self._process is None:
            return Silent(command=self._command, message=self._problem)
        code = self._process.poll()
        if code is None:
            if now_s < self._deadline_s:
                return None
            self.end()
            return Silent(command=self._command, message="it does not answer")
        said, complaints = (_text_of(file) for file in (self._out, self._err))
        self.end()
        if code == 0:
            return self._read(said)
        said = f"{said} {complaints}"
        shown = printable(" ".join(said.split()))[-300:] or f"exit code {code}"
        if self._command == "sbatch" and code > 0 and not _OUT_OF_REACH.search(said):
            return Refused(message=shown)
        return Silent(command=self._command, message=shown)

    def end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)  # some sites wrap Slurm's programs in scripts
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        self._out.close()
        self._err.close()


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _read_listing(text: str) -> Answer:
    jobs = []
    for line in text.splitlines():
        found = _LISTED.fullmatch(line.strip())
        if found is None:
            return Silent(command="squeue", message=f"its answer cannot be read: {printable(line[:100])}")
        jobs.append(Job(name=found[1], state=found[2], reason=printable(found[3])))
    return Listed(jobs=tuple(jobs))


def _read_submission(text: str, count: int) -> Answer:
    found = _ACCEPTED.fullmatch(text.splitlines()[-1].strip()) if text else None
    if found is None:
        return Silent(command="sbatch", message=f"its answer cannot be read: {printable(text[:100])}")
    return Accepted(names=tuple(f"{found[1]}_{task}" for task in range(count)))


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what the job of the orchestrator itself was given, which would hold for new jobs."""
    keep = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
    return {name: value for name, value in environment.items() if not name.startswith("SLURM_") or name in keep}
