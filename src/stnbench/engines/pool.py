"""What to do about the jobs and attempts of a spool: decisions without I/O, as ``orchestration.machine`` makes them.

The pool is shown what lies in the spool and what the scheduler says, and answers with what to do. It reads no clock and
no file: time is that of the spool's disk, and comes with what is shown.

What the scheduler says decides how many jobs are asked for. An attempt is lost only when the heartbeat of its host has
stopped, so a scheduler that is silent, or whose answers make no sense, costs no trial.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stnbench.engines.spool import HostSeen, Silence

ENDED_STATES: Final = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
        *("REVOKED", "TIMEOUT"),
    )
)
"""States of jobs that begin nothing any more. One that is COMPLETING may be on its way back into the queue."""

FAILED_STARTS_MAX: Final = 3
"""After so many jobs in a row that ended before they took a trial, waiting attempts are told why."""

FIRST_BACKOFF_S: Final = 5.0
LAST_BACKOFF_S: Final = 300.0
"""How long no job is asked for after one that could not start, at first and at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job as the scheduler lists it; ``name`` is ``4711_2`` for a task of an array."""

    name: str
    state: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """What was seen at one moment.

    Attributes:
        now_s: by the clock of the spool's disk.
        queued: tokens of attempts that nobody has claimed.
        claims: the host that has claimed or begun each attempt.
        hosts: every host that has introduced itself.
        jobs: a new answer of the scheduler; None where there is none since the last look.
    """

    now_s: float
    queued: frozenset[str]
    claims: Mapping[str, str]
    hosts: Mapping[str, HostSeen]
    jobs: Sequence[Job] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lose:
    """Give an attempt up: its host is gone, or nobody knows of it any more."""

    token: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FailWaiting:
    """Tell the attempts that wait why no job can take them; ``job`` is the last one that could not start."""

    tokens: tuple[str, ...]
    job: str
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AskForJobs:
    """Submit an array of so many tasks."""

    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetHost:
    """A host has ended or is lost: remove its folder."""

    host: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tell:
    """Something that a person should know."""

    message: str


Decision = Lose | FailWaiting | AskForJobs | ForgetHost | Tell


@dataclass(slots=True)
class _Attempt:
    host: str = ""
    missing: Silence | None = None


@dataclass(slots=True)
class _Job:
    has_worked: bool = False
    is_listed: bool = True
    is_silent: bool = False
    refusal: str = ""


@dataclass(kw_only=True, slots=True)
class Pool:
    """The attempts that are offered, the hosts that take them and the jobs that were asked for.

    Attributes:
        heartbeat_s: how often hosts touch their beat.
        lost_after_s: how long a host may be silent.
    """

    heartbeat_s: float
    lost_after_s: float
    _jobs_max: int = 1
    _trials_per_job: int = 1
    _attempts: dict[str, _Attempt] = field(default_factory=dict)
    _silences: dict[str, Silence] = field(default_factory=dict)
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _is_current: bool = False
    _failed_starts: int = 0
    _last_failure: tuple[str, str] = ("", "")
    _not_before_s: float = float("-inf")
    _told: set[str] = field(default_factory=set)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Attempts that no host has claimed, the first first."""
        return tuple(token for token, attempt in self._attempts.items() if not attempt.host)

    def host_of(self, token: str) -> str:
        """Return the host that runs an attempt; empty for one that waits or is not known."""
        attempt = self._attempts.get(token)
        return attempt.host if attempt is not None else ""

    def resize(self, *, jobs_max: int, trials_per_job: int) -> None:
        """Let so many jobs work at once at most from now on, and each run so many attempts."""
        self._jobs_max, self._trials_per_job = jobs_max, trials_per_job

    def add(self, token: str) -> None:
        """Take note of an attempt that was offered."""
        self._attempts[token] = _Attempt()

    def end(self, token: str) -> None:
        """Take note of an attempt that has ended."""
        self._attempts.pop(token, None)

    def submitted(self, names: Sequence[str]) -> None:
        """Take note of jobs that the scheduler has accepted; what it listed before does not count any more."""
        self._jobs.update({name: _Job() for name in names})
        self._is_current = False

    def unsure(self) -> None:
        """Take note of a submission that was not answered: whether there are jobs of it, a later listing shows."""
        self._is_current = False

    def refused(self, now_s: float) -> None:
        """Take note of a submission that was refused: the next one waits."""
        self._failed_starts += 1
        self._back_off(now_s)

    def look(self, sight: Sight) -> list[Decision]:
        """Take note of what was seen, and say what to do about it, in order."""
        silent_s = self._listen(sight)
        self._hear(sight, silent_s)
        decisions = self._greet(sight)
        if sight.jobs is not None:
            decisions += self._compare(sight.jobs, sight.now_s)
        decisions += self._lose(sight, silent_s)
        decisions += self._forget(sight, silent_s)
        decisions += self._fail_waiting()
        decisions += self._ask(sight, silent_s)
        return decisions

    def _listen(self, sight: Sight) -> dict[str, float]:
        """How long each host has been silent."""
        for host in self._silences.keys() - sight.hosts.keys():
            del self._silences[host]
        for host in sight.hosts.keys() - self._silences.keys():
            self._silences[host] = Silence(self.heartbeat_s)
        return {host: self._silences[host].look(seen.beat_s, sight.now_s) for host, seen in sight.hosts.items()}

    def _hear(self, sight: Sight, silent_s: Mapping[str, float]) -> None:
        """Leave out jobs whose last host is silent: Slurm may list them for minutes after their node died."""
        heard: dict[str, bool] = {}
        for host, seen in sight.hosts.items():
            is_heard = silent_s[host] <= self.lost_after_s
            heard[seen.hello.job] = heard.get(seen.hello.job, False) or is_heard
        for name, is_heard in heard.items():
            self._jobs.setdefault(name, _Job(is_listed=False)).is_silent = not is_heard

    def _compare(self, listed: Sequence[Job], now_s: float) -> list[Decision]:
        """A job that is not listed any more, and has never worked, could not start."""
        now_listed = {job.name for job in listed if job.state not in ENDED_STATES}
        for name in now_listed - self._jobs.keys():
            self._jobs[name] = _Job()
        for name, job in self._jobs.items():
            if job.is_listed and name not in now_listed and not job.has_worked:
                self._fail_start(name, job.refusal or "it ended before it could take a trial", now_s)
            job.is_listed = name in now_listed
        self._is_current = True
        return self._tell_of_waiting(listed)

    def _fail_start(self, name: str, problem: str, now_s: float) -> None:
        self._failed_starts += 1
        self._last_failure = name, problem
        self._back_off(now_s)

    def _back_off(self, now_s: float) -> None:
        wait_s = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (self._failed_starts - 1))
        self._not_before_s = now_s + wait_s

    def _tell_of_waiting(self, listed: Sequence[Job]) -> list[Decision]:
        """Where every job waits, say why, each reason once."""
        waiting = [job for job in listed if job.state == "PENDING"]
        if not waiting or len(waiting) < len([job for job in listed if job.state not in ENDED_STATES]):
            return []
        fresh = [job for job in waiting if job.reason not in {*self._told, "", "None", "Priority"}]
        self._told.update(job.reason for job in fresh)
        by_reason = {job.reason: job for job in fresh}
        return [Tell(message=f"job {job.name} waits: Slurm says {reason}") for reason, job in by_reason.items()]

    def _greet(self, sight: Sight) -> list[Decision]:
        told: list[Decision] = []
        for host, seen in sight.hosts.items():
            job = self._jobs.setdefault(seen.hello.job, _Job(is_listed=False))
            if seen.hello.refusal:
                job.refusal = seen.hello.refusal
                if host not in self._told:
                    self._told.add(host)
                    message = f"job {seen.hello.job} on {seen.hello.node} cannot work: {seen.hello.refusal}"
                    told.append(Tell(message=message))
            elif not job.has_worked:
                job.has_worked = True
                self._failed_starts, self._not_before_s = 0, float("-inf")
        return told

    def _lose(self, sight: Sight, silent_s: Mapping[str, float]) -> list[Decision]:
        decisions: list[Decision] = []
        for token, attempt in self._attempts.items():
            attempt.host = sight.claims.get(token, attempt.host)
            reason = self._reason_to_lose(token, attempt, sight, silent_s)
            if reason:
                decisions.append(Lose(token=token, reason=reason))
        return decisions

    def _reason_to_lose(self, token: str, attempt: _Attempt, sight: Sight, silent_s: Mapping[str, float]) -> str:
        """Why an attempt is given up; empty where it is not."""
        if attempt.host in sight.hosts:
            attempt.missing = None
            seen, silence_s = sight.hosts[attempt.host].hello, silent_s[attempt.host]
            where = f"job {seen.job} on {seen.node}"
            if silence_s > self.lost_after_s:
                return f"{where} has shown no sign of life for {silence_s:.0f} s"
            if silence_s > min(self.lost_after_s, 3 * self.heartbeat_s) and self._is_gone(seen.job):
                return f"{where} is gone: Slurm does not list it, and it shows no sign of life"
            return ""
        if not attempt.host and token in sight.queued:
            attempt.missing = None
            return ""
        # Its host has not introduced itself, or the listings of a network disk are late.
        attempt.missing = attempt.missing or Silence(self.heartbeat_s)
        missing_s = attempt.missing.look(0.0, sight.now_s)
        if missing_s <= self.lost_after_s:
            return ""
        who = f"the job that took it ({attempt.host})" if attempt.host else "whoever took it from the spool"
        return f"{who} has shown no sign of life for {missing_s:.0f} s"

    def _is_gone(self, job: str) -> bool:
        """Whether the scheduler has said, since the last submission, that a job is not there."""
        known = self._jobs.get(job)
        return self._is_current and known is not None and not known.is_listed

    def _forget(self, sight: Sight, silent_s: Mapping[str, float]) -> list[Decision]:
        """Hosts that have ended, or are lost; one that runs an attempt is kept until that has ended."""
        at_work = {attempt.host for attempt in self._attempts.values()}
        over = [
            host
            for host, seen in sight.hosts.items()
            if host not in at_work and (seen.hello.has_left or silent_s[host] > self.lost_after_s)
        ]
        return [ForgetHost(host=host) for host in over]

    def _fail_waiting(self) -> list[Decision]:
        if self._failed_starts < FAILED_STARTS_MAX or not self.waiting or not self._last_failure[0]:
            return []
        job, problem = self._last_failure
        self._last_failure = "", ""  # told once a job: the next one that cannot start tells again
        return [FailWaiting(tokens=self.waiting, job=job, problem=problem)]

    def _ask(self, sight: Sight, silent_s: Mapping[str, float]) -> list[Decision]:
        """As many jobs as the open attempts fill, where the scheduler has listed those that there are."""
        if not self._is_current or sight.now_s < self._not_before_s:
            return []
        wanted = min(self._jobs_max, math.ceil(len(self._attempts) / self._trials_per_job))
        beating = {
            seen.hello.job
            for host, seen in sight.hosts.items()
            if not seen.hello.has_left and not seen.hello.refusal and silent_s[host] <= self.lost_after_s
        }
        there = {name for name, job in self._jobs.items() if job.is_listed and not job.is_silent} | beating
        missing = wanted - len(there)
        return [AskForJobs(count=missing)] if missing > 0 else []
