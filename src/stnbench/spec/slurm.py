"""Options of the Slurm engine: the keys of ``conf/engine/slurm.yaml``."""

import re
from dataclasses import dataclass
from typing import Final

from stnbench.core.errors import SpecError
from stnbench.core.text import parse_duration_s
from stnbench.spec.codec import Strict

_OURS: Final = (
    *("array", "job-name", "output", "error", "signal", "requeue", "no-requeue", "parsable", "wrap", "export"),
    *("chdir", "open-mode", "partition", "account", "qos", "gres", "constraint", "cpus-per-task", "mem", "time"),
    *("a", "J", "o", "e", "p", "A", "q", "C", "c", "t", "D"),
)
"""Options of sbatch that the engine sets or that have a key here."""

_GRES_GPUS: Final = re.compile(r"gpu(?::[^:()]*[^:()\d][^:()]*)?(?::(\d+))?(?:\([^)]*\))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmOptions(Strict):
    """Options for submitting jobs, and for how the sweep and its jobs monitor each other.

    Durations are text such as ``90s``, ``30m`` or ``4h``.

    Attributes:
        jobs: largest number of concurrent jobs; each is one task of an array, and fewer are submitted if fewer trials
            are left.
        partitions: partitions in which jobs may run; Slurm takes the one that can start first.
        account: account that is charged; empty for the user's default.
        qos: quality of service; empty for the user's default.
        gres: generic resources of each job in the syntax of sbatch's ``--gres``, for example ``gpu:1`` or
            ``gpu:a100:2``.
        constraint: required features of a node in the syntax of sbatch's ``--constraint``.
        cpus: number of CPUs of each job.
        memory: main memory of each job in the syntax of sbatch's ``--mem``; empty for the partition's default.
        time_limit: duration after which Slurm ends a job.
        warning: duration before the time limit at which a job saves its trials and queues itself again.
        trials_per_job: number of concurrent trials of a job without a GPU.
        sbatch: further options of sbatch, one text each, for example ``--exclude=node07``.
        setup: shell lines that a job runs first, for example ``module load cuda``.
        python: path of Python on the nodes; empty for the path of the Python that runs the sweep.
        idle: duration without work after which a job ends.
        heartbeat: interval of the heartbeats of a job.
        lost_after: duration without a heartbeat after which a job counts as lost and its trials are retried.
        orphaned_after: duration without a heartbeat of the sweep after which a job takes no further trial and ends.
        ask_every: interval at which Slurm is queried for the state of the jobs.
        answer_within: time allowed for an answer of Slurm.
    """

    jobs: int = 4
    partitions: tuple[str, ...] = ()
    account: str = ""
    qos: str = ""
    gres: str = ""
    constraint: str = ""
    cpus: int = 4
    memory: str = ""
    time_limit: str = "4h"
    warning: str = "2m"
    trials_per_job: int = 1
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: str = ""
    idle: str = "5m"
    heartbeat: str = "5s"
    lost_after: str = "90s"
    orphaned_after: str = "10m"
    ask_every: str = "15s"
    answer_within: str = "30s"

    def __post_init__(self) -> None:
        self.settle()
        for name in ("jobs", "cpus", "trials_per_job"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}", remedy="use a whole number of at least 1")
        for name in ("time_limit", "warning", *_WATCH):
            self._seconds(name)
        if self.warning_s * 2 > self.time_limit_s:
            problem = f"warning is {self.warning} and time_limit {self.time_limit}"
            raise SpecError(problem, remedy="a job must work for longer than it takes to save")
        if self.lost_after_s < 3 * self.heartbeat_s:
            problem = f"lost_after is {self.lost_after} and heartbeat {self.heartbeat}"
            raise SpecError(problem, remedy="give a job the time of three heartbeats at least")
        for option in self.sbatch:
            self._check_option(option)

    @property
    def gpus(self) -> int:
        """Return the number of GPUs of each job, as requested by ``gres``."""
        parts = (_GRES_GPUS.fullmatch(part.strip()) for part in self.gres.split(","))
        return sum(int(part[1] or 1) for part in parts if part)

    @property
    def time_limit_s(self) -> float:
        """Return the time limit of a job in seconds."""
        return self._seconds("time_limit")

    @property
    def warning_s(self) -> float:
        """Return how many seconds before its time limit a job saves its trials."""
        return self._seconds("warning")

    @property
    def idle_s(self) -> float:
        """Return the number of seconds without work after which a job ends."""
        return self._seconds("idle")

    @property
    def heartbeat_s(self) -> float:
        """Return the interval between heartbeats in seconds."""
        return self._seconds("heartbeat")

    @property
    def lost_after_s(self) -> float:
        """Return the number of seconds without a heartbeat after which a job is lost."""
        return self._seconds("lost_after")

    @property
    def orphaned_after_s(self) -> float:
        """Return the number of seconds without a heartbeat of the sweep after which a job takes no further trial."""
        return self._seconds("orphaned_after")

    @property
    def ask_every_s(self) -> float:
        """Return the interval between queries to Slurm in seconds."""
        return self._seconds("ask_every")

    @property
    def answer_within_s(self) -> float:
        """Return the number of seconds allowed for an answer of Slurm."""
        return self._seconds("answer_within")

    def trials_at_once(self, slots_per_gpu: int) -> int:
        """Return the number of concurrent trials of one job."""
        return self.gpus * slots_per_gpu if self.gpus else self.trials_per_job

    def _seconds(self, name: str) -> float:
        try:
            return parse_duration_s(getattr(self, name))
        except SpecError as error:
            raise SpecError(f"{name}: {error.problem}", remedy=error.remedy) from error

    def _check_option(self, option: str) -> None:
        name = option.lstrip("-").partition("=")[0].partition(" ")[0]
        if not option.startswith("-") or not name:
            raise SpecError(f"sbatch has '{option}', which is no option", remedy="write --name=value")
        if name in _OURS:
            raise SpecError(f"sbatch sets '{name}'", remedy="use the key that conf/engine/slurm.yaml has for it")


_WATCH: Final = ("idle", "heartbeat", "lost_after", "orphaned_after", "ask_every", "answer_within")
