"""Slurm's commands: submission with sbatch, and strict parsing of the answers of squeue and sbatch."""

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from stnbench.core.errors import EngineError
from stnbench.core.text import printable
from stnbench.engines import Slot
from stnbench.engines.pool import Job
from stnbench.engines.spool import Spool
from stnbench.spec.slurm import SlurmOptions
from stnbench.spec.trial import COMPUTE_VARIABLE

# Slurm's commands: started in the background, abandoned when they do not answer, and parsed strictly.


COMMANDS: Final = ("sbatch", "squeue", "scancel")

_LISTED: Final = re.compile(r"(\d+(?:_\d+)?)\|([A-Z_]+)\|(.*)")
_ACCEPTED: Final = re.compile(r"(\d+)(?:;[\w.-]+)?")

_OUT_OF_REACH: Final = re.compile(
    r"contact slurm controller|socket timed out|timed out|connection (?:refused|reset|timed)|communication connection|"
    r"zero bytes|temporarily unable|unable to connect|no route to host|name or service not known|try again",
    re.IGNORECASE,
)
"""Messages of Slurm's commands when its controller does not answer: the state of the request is then unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """Answer with the jobs of the scheduler."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """Answer that an array was submitted, with the names of its tasks."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Answer that a submission is not possible, with Slurm's reason."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Silent:
    """Absence of a readable answer: whether the command had any effect is not known."""

    command: str
    message: str


Answer = Listed | Accepted | Refused | Silent


class Scheduler:
    """Client of Slurm's commands with at most one open question, whose answer is polled.

    Args:
        name: name of all jobs of this spool, by which they are found.
        answer_within_s: seconds that a command may take.
        clock: returns seconds from any origin.
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
        """Return whether a question is open."""
        return self._asked is not None

    def list_jobs(self) -> None:
        """Ask for the jobs of this spool."""
        words = ["squeue", "--noheader", "--array", f"--name={self._name}", "--format=%i|%T|%r"]
        self._asked = _Question(words, self._deadline_s(), _read_listing)

    def submit(self, count: int, options: Sequence[str], script: str) -> None:
        """Submit an array of ``count`` tasks that run a script."""
        words = ["sbatch", "--parsable", f"--job-name={self._name}", f"--array=0-{count - 1}", *options, script]
        self._asked = _Question(words, self._deadline_s(), lambda text: _read_submission(text, count))

    def take(self) -> Answer | None:
        """Return the answer to the open question; None while there is no answer."""
        if self._asked is None:
            return None
        answer = self._asked.take(self._clock())
        if answer is not None:
            self._asked = None
        return answer

    def cancel_all(self) -> str:
        """Cancel every job of this spool; return the error message, empty on success."""
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
        """Abandon the open question."""
        if self._asked is not None:
            self._asked.end()
            self._asked = None

    def _deadline_s(self) -> float:
        return self._clock() + self._answer_within_s


class _Question:
    """A running command of Slurm, whose output goes to files, so that no pipe is ever full."""

    def __init__(self, words: Sequence[str], deadline_s: float, read: Callable[[str], Answer]) -> None:
        self._command = words[0]
        self._deadline_s = deadline_s
        self._read = read
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the answer is taken
        self._err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the answer is taken
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
    """Return the environment without the variables of the orchestrator's job, which would apply to new jobs."""
    keep = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
    return {name: value for name, value in environment.items() if not name.startswith("SLURM_") or name in keep}


# The submission to Slurm: the slots of its jobs, the options of sbatch, and the script. Decisions without I/O.


PASSED_ON: Final = ("PYTHONPATH", COMPUTE_VARIABLE, "STNBENCH_PARTS")
"""Environment variables that a job needs even where the site exports none (``SBATCH_EXPORT=NONE``)."""

SAVE_SHARE: Final = 0.75
"""Fraction of the warning time before the end in which trials may save; in the rest the job ends itself."""


def plan_slurm_slots(options: SlurmOptions, *, slots: int | None = None, slots_per_gpu: int = 1) -> tuple[Slot, ...]:
    """Return a slot for each trial that can run at the same time; ``slots`` sets their number.

    The name of a device consists of a job and one of its GPUs, so that trials whose slots share a device share a GPU
    when they run. The slots of one job are consecutive, so that few trials fill few jobs.
    """
    per_job = options.trials_at_once(slots_per_gpu)
    count = slots or options.jobs * per_job
    jobs = math.ceil(count / per_job)
    threads = max(1, options.cpus // per_job)
    places = [
        (f"job{job}", str(index // slots_per_gpu) if options.gpus else "cpu", index)
        for job in range(jobs)
        for index in range(per_job)
    ]
    return tuple(
        Slot(name=f"{job}-{index}", device=f"{job}:{device}", threads=threads) for job, device, index in places[:count]
    )


def sbatch_options(options: SlurmOptions, spool: Spool) -> list[str]:
    """Return the options of sbatch for one job, except its name and the array."""
    log = str(spool.logs).replace("%", "%%")
    said = {
        "partition": ",".join(options.partitions),
        "account": options.account,
        "qos": options.qos,
        "gres": options.gres,
        "constraint": options.constraint,
        "mem": options.memory,
    }
    return [
        *(f"--{name}={value}" for name, value in said.items() if value),
        "--ntasks=1",
        f"--cpus-per-task={options.cpus}",
        f"--time={math.ceil(options.time_limit_s / 60)}",
        f"--signal=B:USR1@{math.ceil(options.warning_s)}",
        "--requeue",
        "--open-mode=append",
        f"--output={log}/%A_%a.log",
        *options.sbatch,
    ]


def job_script(
    options: SlurmOptions, spool: Spool, *, slots_per_gpu: int, command: Sequence[str], environ: Mapping[str, str]
) -> str:
    """Return the script of a job: the user's setup, then a module of this package in place of the shell.

    Args:
        options: the options of the jobs.
        spool: the spool that the job works for.
        slots_per_gpu: number of attempts that share a GPU.
        command: command of a worker.
        environ: environment, of which the variables in ``PASSED_ON`` are set.
    """
    arguments = {
        "spool": str(spool.root),
        "gpus": options.gpus,
        "trials": options.trials_per_job,
        "slots-per-gpu": slots_per_gpu,
        "cpus": options.cpus,
        "heartbeat-s": options.heartbeat_s,
        "idle-s": options.idle_s,
        "orphaned-after-s": options.orphaned_after_s,
        "save-s": options.warning_s * SAVE_SHARE,
        "worker": json.dumps(list(command)),
    }
    words = [options.python or sys.executable, "-m", "stnbench.engines.slurm_job"]
    words += [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    lines = [
        "#!/bin/bash",
        *(f"export {name}={shlex.quote(environ[name])}" for name in PASSED_ON if name in environ),
        *options.setup,
        f"exec {shlex.join(words)}",
    ]
    return "\n".join(lines) + "\n"
