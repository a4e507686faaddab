"""Decisions about the jobs and attempts of a spool, without I/O, as in ``orchestration.machine``.

The pool is given the contents of the spool and the answers of the scheduler, and returns decisions. It reads no clock
and no file: time is that of the spool's disk, and is part of the input.

The answers of the scheduler decide how many jobs are requested. An attempt is lost only when the heartbeat of its host
has stopped, so a scheduler that is silent, or whose answers are unusable, costs no trial.
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
"""States of jobs that begin no more attempts. A job that is COMPLETING may be on its way back into the queue."""

FAILED_STARTS_MAX: Final = 3
"""Number of consecutive jobs that end before they take a trial after which waiting attempts fail."""

FIRST_BACKOFF_S: Final = 5.0
LAST_BACKOFF_S: Final = 300.0
"""Seconds for which no job is requested after one that could not start: maximum; it doubles from the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job as the scheduler lists it; ``name`` is, for example, ``4711_2`` for a task of an array."""

    name: str
    state: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """Snapshot of the spool and the scheduler.

    Attributes:
        now_s: time in seconds by the clock of the spool's disk.
        queued: tokens of attempts that no host has claimed.
        claims: the host that has claimed or begun each attempt.
        hosts: every host that has introduced itself.
        jobs: a new answer of the scheduler; None if there is none since the last snapshot.
    """

    now_s: float
    queued: frozenset[str]
    claims: Mapping[str, str]
    hosts: Mapping[str, HostSeen]
    jobs: Sequence[Job] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lose:
    """Decision to give up an attempt: its host is gone, or no host has it."""

    token: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FailWaiting:
    """Decision to fail the waiting attempts because no job can take them; ``job`` is the last that could not start."""

    tokens: tuple[str, ...]
    job: str
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AskForJobs:
    """Decision to submit an array of ``count`` tasks."""

    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetHost:
    """Decision to remove the folder of a host that has ended or is lost."""

    host: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tell:
    """Decision to report a message to the user."""

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
    """State of the offered attempts, the hosts that take them and the requested jobs.

    Attributes:
        heartbeat_s: seconds between two heartbeats of a host.
        lost_after_s: seconds of silence after which a host is lost.
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
        """Return the attempts that no host has claimed, in the order of submission."""
        return tuple(token for token, attempt in self._attempts.items() if not attempt.host)

    def host_of(self, token: str) -> str:
        """Return the host that runs an attempt; empty if the attempt waits or is not known."""
        attempt = self._attempts.get(token)
        return attempt.host if attempt is not None else ""

    def resize(self, *, jobs_max: int, trials_per_job: int) -> None:
        """Set the maximum number of jobs at a time and the number of attempts that each runs, from now on."""
        self._jobs_max, self._trials_per_job = jobs_max, trials_per_job

    def add(self, token: str) -> None:
        """Record an attempt that was offered."""
        self._attempts[token] = _Attempt()

    def end(self, token: str) -> None:
        """Remove an attempt that has ended."""
        self._attempts.pop(token, None)

    def submitted(self, names: Sequence[str]) -> None:
        """Record jobs that the scheduler has accepted; its earlier listing is out of date."""
        self._jobs.update({name: _Job() for name in names})
        self._is_current = False

    def unsure(self) -> None:
        """Record a submission without an answer: a later listing shows whether it created jobs."""
        self._is_current = False

    def refused(self, now_s: float) -> None:
        """Record a submission that was refused, and delay the next one."""
        self._failed_starts += 1
        self._back_off(now_s)

    def look(self, sight: Sight) -> list[Decision]:
        """Update the state from a snapshot and return the decisions, in order."""
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
        """Return the seconds for which each host has been silent."""
        for host in self._silences.keys() - sight.hosts.keys():
            del self._silences[host]
        for host in sight.hosts.keys() - self._silences.keys():
            self._silences[host] = Silence(self.heartbeat_s)
        return {host: self._silences[host].look(seen.beat_s, sight.now_s) for host, seen in sight.hosts.items()}

    def _hear(self, sight: Sight, silent_s: Mapping[str, float]) -> None:
        """Mark jobs all of whose hosts are silent: Slurm may list them for minutes after their node died."""
        heard: dict[str, bool] = {}
        for host, seen in sight.hosts.items():
            is_heard = silent_s[host] <= self.lost_after_s
            heard[seen.hello.job] = heard.get(seen.hello.job, False) or is_heard
        for name, is_heard in heard.items():
            self._jobs.setdefault(name, _Job(is_listed=False)).is_silent = not is_heard

    def _compare(self, listed: Sequence[Job], now_s: float) -> list[Decision]:
        """Compare the jobs with a new listing: one that is not listed any more and never worked could not start."""
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
        """Report why the jobs wait if all of them do, each reason once."""
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
        """Return the reason to give up an attempt; empty if it is kept."""
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
        # Its host has not registered yet, or the listings of a network disk are late.
        attempt.missing = attempt.missing or Silence(self.heartbeat_s)
        missing_s = attempt.missing.look(0.0, sight.now_s)
        if missing_s <= self.lost_after_s:
            return ""
        who = f"the job that took it ({attempt.host})" if attempt.host else "whoever took it from the spool"
        return f"{who} has shown no sign of life for {missing_s:.0f} s"

    def _is_gone(self, job: str) -> bool:
        """Check whether the scheduler's listing since the last submission lacks a job."""
        known = self._jobs.get(job)
        return self._is_current and known is not None and not known.is_listed

    def _forget(self, sight: Sight, silent_s: Mapping[str, float]) -> list[Decision]:
        """Forget hosts that have ended or are lost; a host that runs an attempt is kept until that has ended."""
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
        self._last_failure = "", ""  # reported once per job: the next one that cannot start is reported again
        return [FailWaiting(tokens=self.waiting, job=job, problem=problem)]

    def _ask(self, sight: Sight, silent_s: Mapping[str, float]) -> list[Decision]:
        """Request as many jobs as the open attempts fill, if the listing of the existing jobs is current."""
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
