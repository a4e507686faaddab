"""The Slurm engine, whose jobs take attempts from a spool on a shared disk.

The orchestrator offers attempts and reads the reports; jobs are tasks of arrays, each a :mod:`slurm_job
<stnbench.engines.slurm_job>` that claims attempts and runs them in its allocation. They are submitted by plain
``sbatch``: submitit would send pickled functions, which nothing here executes, and watches single calls, whereas these
jobs outlive an orchestrator and wait for the next one.
"""

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from typing_extensions import override

from stnbench.core.errors import EngineError, ProtocolError
from stnbench.core.files import RUNS_VARIABLE, AttemptLayout, tail, writable_folder, write_atomic
from stnbench.core.text import printable
from stnbench.engines import Ending, Engine, EngineEvent, Failed, Finished, Launch, Lost, Slot, Stopped, decode
from stnbench.engines.local import worker_command
from stnbench.engines.pool import AskForJobs, Decision, FailWaiting, ForgetHost, Job, Lose, Pool, Sight, Tell
from stnbench.engines.slurm_submission import (
    Accepted,
    Answer,
    Listed,
    Refused,
    Scheduler,
    Silent,
    job_script,
    plan_slurm_slots,
    sbatch_options,
)
from stnbench.engines.spool import Lead, Queued, Spool, begun_by, code_digest, touch
from stnbench.spec.result import Failure, FailureKind
from stnbench.spec.slurm import SlurmOptions

CLOSE_S: Final = 8.0
"""Seconds that jobs may take to end after the spool is closed; then Slurm cancels them."""

SETTLE_S: Final = 30.0
"""Seconds that attempts of an orchestrator that died may take to save their state."""

FIRST_ANSWER_S: Final = 60.0
"""Seconds to wait for the first answers of Slurm; after that the sweep continues without them."""

LOOK_S: Final = 0.5
"""Minimum seconds between two scans of the spool."""


@dataclass(slots=True)
class _Attempt:
    """An offered attempt, with the byte ``offset`` up to which the reports of its host were read.

    A ``finished`` event is held back until the result of the attempt is visible.
    """

    slot: Slot
    queued: Queued
    launch: Launch
    offset: int = 0
    finished: Finished | None = None
    finished_s: float | None = None


class SlurmEngine(Engine):
    """Engine that offers attempts in a spool and requests Slurm jobs that take them.

    Jobs of an earlier orchestrator continue here if their code is the same; attempts that it left running save their
    state and are ended first.

    Args:
        folder: the folder of the spool, on a disk that all nodes share.
        options: the options of the jobs.
        slots: number of attempts that run at once; None for as many as the jobs have room for.
        slots_per_gpu: number of attempts that share a GPU.
        session: identifier of the leading orchestrator.
        warn: receives messages for the user.
        command: command of a worker, without its device and threads.
        clock: returns seconds from any origin; all other times are those of the spool's disk.

    Raises:
        EngineError: if there is no Slurm, or it refuses the jobs.
        FolderError: if the spool cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        options: SlurmOptions,
        *,
        session: str,
        slots: int | None = None,
        slots_per_gpu: int = 1,
        warn: Callable[[str], None] = lambda _: None,
        command: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._slots_per_gpu = slots_per_gpu
        self._slots: tuple[Slot, ...] = ()
        self._groups: dict[str, int] = {}
        self._released: set[str] = set()
        self._warn = warn
        self._clock = clock
        worker = tuple(command or worker_command())
        self._lead = Lead(session=session, code=code_digest())
        self._spool = Spool(writable_folder(folder, "a spool", remedy=f"set {RUNS_VARIABLE} to a shared folder"))
        self._look_s = min(LOOK_S, options.heartbeat_s / 2)
        self._events: deque[EngineEvent] = deque()
        self._attempts: dict[str, _Attempt] = {}
        self._numbers, self._now_s = 0, 0.0
        self._beaten_s = self._looked_s = self._asked_s = float("-inf")
        self._jobs: tuple[Job, ...] | None = None
        self._silent_since_s: float | None = None
        self._is_closed = self._has_trouble = False
        self._pool = Pool(heartbeat_s=options.heartbeat_s, lost_after_s=options.lost_after_s)
        self._plan(slots)
        script = job_script(options, self._spool, slots_per_gpu=slots_per_gpu, command=worker, environ=os.environ)
        self._script = self._spool.root / "job.sh"
        try:
            self._spool.make()
            write_atomic(self._script, script.encode())
            self._scheduler = self._open_scheduler()
            self._spool.lead(self._lead)
            self._beat()
            self._take_over()
        except OSError as error:
            raise EngineError(f"the spool {folder} cannot be used ({error})", remedy="see the disk it is on") from error

    def _take_over(self) -> None:
        """End the attempts of an earlier orchestrator and submit a first job; on an error, cancel all jobs."""
        try:
            self._settle()
            self._begin()
        except BaseException:
            self._scheduler.cancel_all()
            raise

    def _open_scheduler(self) -> Scheduler:
        name = f"stnbench-{self._spool.identity()}"
        return Scheduler(name, answer_within_s=self._options.answer_within_s, clock=self._clock)

    @property
    @override
    def slots(self) -> Sequence[Slot]:
        return self._slots

    @property
    @override
    def waiting(self) -> Collection[str]:
        return self._pool.waiting

    @override
    def resize(self, count: int) -> Sequence[Slot]:
        self._plan(count)
        return self._slots

    def _plan(self, slots: int | None) -> None:
        per_job = self._options.trials_at_once(self._slots_per_gpu)
        self._slots = plan_slurm_slots(self._options, slots=slots, slots_per_gpu=self._slots_per_gpu)
        for slot in self._slots:
            self._groups.setdefault(slot.device, len(self._groups))
        self._pool.resize(jobs_max=math.ceil(len(self._slots) / per_job), trials_per_job=per_job)

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        for attempt in self._attempts.values():
            if attempt.slot.name == slot.name:
                problem = f"slot {slot.name} already runs attempt {attempt.launch.token}"
                raise ProtocolError(problem, remedy="wait for its end")
        self._numbers += 1
        is_alone = slot.device in self._released
        self._released.discard(slot.device)
        queued = Queued(self._numbers, self._groups[slot.device], launch.token, alone=is_alone)
        try:
            self._spool.submit(queued, launch)
        except OSError as error:  # the disk is full, or the file server is away
            self._spool.revoke(launch.token)
            message = f"the attempt cannot be offered in {self._spool.root} ({error})"
            failure = Failure(kind=FailureKind.INFRASTRUCTURE, message=message)
            self._events.append(Failed(token=launch.token, failure=failure))
            return
        self._attempts[launch.token] = _Attempt(slot=slot, queued=queued, launch=launch)
        self._pool.add(launch.token)

    @override
    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        deadline_s = self._clock() + timeout_s
        self._work()
        while not self._events and (left_s := deadline_s - self._clock()) > 0:
            time.sleep(min(left_s, self._look_s))
            self._work()
        events = tuple(self._events)
        self._events.clear()
        return events

    @override
    def stop(self, token: str) -> None:
        self._order(token, is_kill=False)

    @override
    def kill(self, token: str) -> None:
        self._order(token, is_kill=True)

    @override
    def release(self, slot: Slot) -> None:
        """Let the next attempt on the slot's device have its GPU alone, including the memory of idle workers."""
        if all(attempt.slot.name != slot.name for attempt in self._attempts.values()):
            self._released.add(slot.device)

    @override
    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._spool.lead(Lead(session=self._lead.session, code=self._lead.code, is_closed=True))
        for attempt in self._attempts.values():
            with contextlib.suppress(OSError):
                self._spool.withdraw(attempt.queued)
        self._await_hosts(CLOSE_S)
        problem = self._scheduler.cancel_all()
        if problem:
            self._warn(f"Slurm did not end the jobs ({problem}); each ends by itself as soon as it sees the spool")
        self._await_hosts(CLOSE_S)
        self._sweep_up()

    def _order(self, token: str, *, is_kill: bool) -> None:
        attempt = self._attempts.get(token)
        if attempt is None:
            return
        try:
            if not self._pool.host_of(token) and self._spool.withdraw(attempt.queued):
                self._end(Stopped(token=token))  # it has not begun, so it is neither killed nor lost
            else:
                self._spool.order(token, "kill" if is_kill else "stop")
        except OSError as error:
            self._warn(f"attempt {token} cannot be told to end ({error})")

    def _work(self) -> None:
        """Touch the heartbeat, read the spool and query Slurm, each when it is due."""
        now_s = self._clock()
        if now_s - self._looked_s < self._look_s:
            return
        self._looked_s = now_s
        try:
            if now_s - self._beaten_s >= self._options.heartbeat_s / 2:
                self._beat()
            begun = self._read_events()
            self._talk()
            for decision in self._pool.look(self._see(begun)):
                self._do(decision)
        except OSError as error:
            self._tell_trouble(f"the spool {self._spool.root} cannot be read or written ({error})")
        else:
            self._has_trouble = False

    def _tell_trouble(self, message: str) -> None:
        if not self._has_trouble:
            self._has_trouble = True
            self._warn(f"{message}; trials go on, and it is tried again")

    def _beat(self) -> None:
        self._now_s = touch(self._spool.orchestrator_beat)
        self._beaten_s = self._clock()

    def _see(self, begun: dict[str, str]) -> Sight:
        """Read the spool: the queue first, so that an attempt that is claimed meanwhile is seen at least once."""
        queued = frozenset(self._spool.queued())
        claims = self._spool.claims()
        jobs, self._jobs = self._jobs, None
        return Sight(now_s=self._now_s, queued=queued, claims={**claims, **begun}, hosts=self._spool.hosts(), jobs=jobs)

    def _read_events(self) -> dict[str, str]:
        """Process the reports of the hosts; return the host of each attempt that has newly begun."""
        begun: dict[str, str] = {}
        for token, attempt in list(self._attempts.items()):
            for line in () if attempt.finished else self._new_lines(attempt):
                host = begun_by(line)
                if host is not None:
                    begun[token] = host
                elif not self._receive(attempt, line):
                    break
            if attempt.finished is not None and self._is_visible(attempt):
                self._end(attempt.finished)
        return begun

    def _new_lines(self, attempt: _Attempt) -> list[bytes]:
        try:
            lines, attempt.offset = self._spool.events(attempt.launch.token, attempt.offset)
        except FileNotFoundError:
            return []  # the spool was cleared: the attempt is missing, and lost if it remains so
        return lines

    def _receive(self, attempt: _Attempt, line: bytes) -> bool:
        """Process one line; return whether more may follow."""
        token = attempt.launch.token
        try:
            event = decode(line)
        except EngineError as error:
            self._give_up(token, str(error))
            return False
        if not isinstance(event, EngineEvent) or event.token != token:
            self._give_up(token, "its host has reported an event of another attempt")
            return False
        if isinstance(event, Finished):
            attempt.finished = event
        elif isinstance(event, Ending):
            self._end(event)
        else:
            self._events.append(event)
        return not isinstance(event, Ending)

    def _is_visible(self, attempt: _Attempt) -> bool:
        """Check whether the result of a finished attempt is visible, which a network disk may delay.

        After ``lost_after_s`` seconds the answer is True in any case.
        """
        now_s = self._clock()
        attempt.finished_s = now_s if attempt.finished_s is None else attempt.finished_s
        result = AttemptLayout(Path(attempt.launch.folder)).result
        with contextlib.suppress(OSError):
            if any(path.name == result.name for path in result.parent.iterdir()):
                return True
        return now_s - attempt.finished_s > self._options.lost_after_s

    def _end(self, event: Ending) -> None:
        self._attempts.pop(event.token, None)
        self._pool.end(event.token)
        self._spool.revoke(event.token)
        self._events.append(event)

    def _give_up(self, token: str, reason: str) -> None:
        """Withdraw an attempt, then report it as lost: no more events of it can arrive."""
        attempt = self._attempts[token]
        output = tail(AttemptLayout(Path(attempt.launch.folder)).log)
        self._spool.withdraw(attempt.queued)
        self._end(Lost(token=token, reason=reason, last_output=output))

    def _do(self, decision: Decision) -> None:
        match decision:
            case Lose(token=token, reason=reason):
                if token in self._attempts:
                    self._give_up(token, reason)
            case FailWaiting(tokens=tokens, job=job, problem=problem):
                self._fail_waiting(tokens, job, problem)
            case AskForJobs(count=count):
                if not self._scheduler.is_busy:
                    self._submit(count)
            case ForgetHost(host=host):
                self._spool.forget_host(host)
            case Tell(message=message):
                self._warn(message)
            case _:
                assert_never(decision)

    def _fail_waiting(self, tokens: Sequence[str], job: str, problem: str) -> None:
        log = self._spool.logs / f"{job}.log"
        output = tail(log)
        last = printable(output.strip().splitlines()[-1]) if output.strip() else "it printed nothing"
        message = (
            f"job {job} could not work: {problem}; its log {log} ends: {last}; "
            "see `setup`, `python` and `gres` of conf/engine/slurm.yaml"
        )
        for token in tokens:
            attempt = self._attempts.get(token)
            if attempt is not None and self._spool.withdraw(attempt.queued):
                failure = Failure(kind=FailureKind.INFRASTRUCTURE, message=message, last_output=output)
                self._end(Failed(token=token, failure=failure))

    def _talk(self) -> None:
        """Process Slurm's answer if there is one, and ask for the jobs again when that is due."""
        now_s = self._clock()
        answer = self._scheduler.take()
        if answer is not None:
            self._hear(answer, now_s)
        if not self._scheduler.is_busy and self._jobs is None and now_s - self._asked_s >= self._options.ask_every_s:
            self._asked_s = now_s
            self._scheduler.list_jobs()

    def _hear(self, answer: Answer, now_s: float) -> None:
        match answer:
            case Listed(jobs=jobs):
                self._jobs = jobs
            case Accepted(names=names):
                self._pool.submitted(names)
                self._asked_s = now_s - self._options.ask_every_s + 1.0
            case Refused(message=message):
                self._pool.refused(self._now_s)
                self._warn(f"sbatch refuses more jobs for now: {message}")
            case Silent(command=command, message=message):
                self._pool.unsure()
                if self._silent_since_s is None:
                    self._silent_since_s = now_s
                    self._warn(f"Slurm's {command} gives no answer ({message}); trials go on, and it is asked again")
                return
            case _:
                assert_never(answer)
        if self._silent_since_s is not None:
            self._warn(f"Slurm answers again, after {now_s - self._silent_since_s:.0f} s")
            self._silent_since_s = None

    def _settle(self) -> None:
        """End the work of an orchestrator that died: withdraw its offers, and let its attempts save and stop."""
        for queued in self._spool.queued().values():
            self._spool.withdraw(queued)
        hosts, claims = self._spool.hosts(), self._spool.claims()
        alive = {name for name, seen in hosts.items() if self._now_s - seen.beat_s <= self._options.lost_after_s}
        running = [token for token in self._spool.tokens() if claims.get(token) in alive]
        for token in running:
            self._spool.order(token, "stop")
        deadline_s = self._clock() + SETTLE_S
        while running and self._clock() < deadline_s:
            self._beat()
            time.sleep(self._look_s)
            claims = self._spool.claims()
            running = [token for token in running if token in claims]
        for token in {*self._spool.tokens(), *claims}:
            self._spool.revoke(token)
        for name in hosts.keys() - alive:
            self._spool.forget_host(name)

    def _begin(self) -> None:
        """Submit a first job if there is none, so that a refusal by Slurm ends the sweep before it begins."""
        deadline_s = self._clock() + min(FIRST_ANSWER_S, 2 * self._options.answer_within_s)
        self._scheduler.list_jobs()
        while self._clock() < deadline_s:
            answer = self._scheduler.take()
            match answer:
                case None:
                    time.sleep(0.02)
                case Listed(jobs=jobs):
                    self._jobs = jobs
                    if jobs:
                        return
                    self._submit(1)
                case Accepted(names=names):
                    self._jobs = None
                    self._pool.submitted(names)
                    return
                case Refused(message=message):
                    remedy = "see the keys of conf/engine/slurm.yaml (partitions, gres, time_limit, account)"
                    raise EngineError(f"sbatch refuses the job: {message}", remedy=remedy)
                case Silent(command=command, message=message):
                    self._warn(f"Slurm's {command} gives no answer ({message}); it is asked again")
                    self._silent_since_s = self._clock()
                    return
                case _:
                    assert_never(answer)
        self._scheduler.drop()
        self._pool.unsure()

    def _submit(self, count: int) -> None:
        self._scheduler.submit(count, sbatch_options(self._options, self._spool), str(self._script))

    def _await_hosts(self, timeout_s: float) -> None:
        """Wait until every living host has ended, up to ``timeout_s`` seconds."""
        deadline_s = self._clock() + timeout_s
        with contextlib.suppress(OSError):
            while self._clock() < deadline_s:
                self._beat()
                hosts = self._spool.hosts().values()
                patience_s = 3 * self._options.heartbeat_s
                if not any(not seen.hello.has_left and self._now_s - seen.beat_s < patience_s for seen in hosts):
                    return
                time.sleep(self._look_s / 2)

    def _sweep_up(self) -> None:
        """Remove the attempts and ended hosts from the spool; keep the logs."""
        with contextlib.suppress(OSError):
            for token in self._spool.tokens():
                self._spool.revoke(token)
            for name, seen in self._spool.hosts().items():
                if seen.hello.has_left:
                    self._spool.forget_host(name)
