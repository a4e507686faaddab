"""The program of a Slurm job: ``python -m stnbench.engines.slurm_job``.

It takes attempts from a spool as long as there are any, runs them in this allocation, and reports through files. When
Slurm announces the end of the job (USR1 before its time limit or at a preemption, TERM), attempts save and stop, and
another job resumes them. At USR1 the job requeues itself.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Final

from stnbench.core.errors import EngineError, StnbenchError
from stnbench.core.process import available_cores
from stnbench.engines import Ending, Engine, EngineEvent, Failed, Lost, Note, Pulse, Slot, Stopped, encode
from stnbench.engines.local import LocalEngine
from stnbench.engines.slots import VISIBLE_VARIABLE, plan_slots, require_computable, visible_gpus
from stnbench.engines.spool import (
    Hello,
    Silence,
    Spool,
    begun_line,
    choose_claims,
    code_digest,
    time_of,
    touch,
)
from stnbench.spec.result import FailureKind

POLL_S: Final = 0.2
REQUEUE_S: Final = 20.0
"""Seconds that Slurm may take to requeue a job."""

CANNOT_WORK: Final = 4
"""Exit code of a job whose allocation differs from the request."""


@dataclass(slots=True)
class _Running:
    """An attempt that runs here; ``unsent`` holds the events that are still to be written at ``offset``."""

    slot: Slot
    group: int
    alone: bool = False
    offset: int = 0
    unsent: bytes = b""
    parts: int = 0
    pulse_s: float = float("-inf")
    ordered: str = ""
    has_begun: bool = False
    ending: Ending | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """Time limits of a host, in seconds.

    Attributes:
        heartbeat_s: time between two heartbeats.
        idle_s: time without work after which the host ends.
        orphaned_after_s: time without an orchestrator after which the host claims no more attempts.
        save_s: time that attempts may take to save when the job is to end.
    """

    heartbeat_s: float
    idle_s: float
    orphaned_after_s: float
    save_s: float


class JobHost:
    """Host of one job, which claims attempts, runs them with an engine on this node, and reports on them.

    Args:
        spool: the spool on the shared disk.
        engine: the engine that runs the attempts.
        name: name of this host, unique for all time.
        hello: description of the host.
        habits: time limits.
        told: returns the reason for the job to end; empty while there is none.
        clock: returns seconds from any origin.

    Attributes:
        refusal: the reason why the node cannot work, as reported by a trial; empty if there is none.
    """

    def __init__(
        self,
        spool: Spool,
        engine: Engine,
        *,
        name: str,
        hello: Hello,
        habits: Habits,
        told: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._engine = engine
        self._name = name
        self._hello = hello
        self._habits = habits
        self._told = told
        self._clock = clock
        self._code = code_digest()
        self._running: dict[str, _Running] = {}
        self._silence = Silence(2 * habits.heartbeat_s)
        self._beaten_s = float("-inf")
        self._worked_s = clock()
        self._save_by_s: float | None = None
        self._ending_because = ""
        self.refusal = ""

    def end(self, reason: str) -> None:
        """Claim no more attempts, and let the running ones save and stop."""
        if not self._ending_because:
            self._ending_because = reason
            self._save_by_s = self._clock() + self._habits.save_s
            print(f"this job ends: {reason}", file=sys.stderr, flush=True)

    def step(self) -> bool:
        """Do the work that is due and return whether there is more to do.

        If the disk is not available, wait for it and raise no error.
        """
        self._listen()
        with contextlib.suppress(OSError):
            self._beat()
        with contextlib.suppress(OSError):
            self._follow()
        for event in self._engine.poll(POLL_S):
            if isinstance(event, Lost) and not self._ending_because:
                time.sleep(POLL_S)  # Slurm signals every process of a job: the signal may still reach this one
                self._listen()
            self._take(event)
        if not self._ending_because:
            with contextlib.suppress(OSError):
                self._claim()
        for token in list(self._running):
            self._report(token)
            with contextlib.suppress(OSError):
                if token in self._running and not self._running[token].has_begun:
                    self._open(token)
        return bool(self._running) or not self._ending_because

    def _listen(self) -> None:
        reason = self._told()
        if reason:
            self.end(reason)

    def _beat(self) -> None:
        now_s = self._clock()
        if now_s - self._beaten_s < self._habits.heartbeat_s / 2:
            return
        disk_s = touch(self._spool.host(self._name) / "beat")
        self._beaten_s = now_s
        silent_s = self._silence.look(time_of(self._spool.orchestrator_beat), disk_s)
        if self._running:
            self._worked_s = now_s
        elif silent_s > self._habits.orphaned_after_s:
            self.end(f"no orchestrator has shown a sign of life for {silent_s:.0f} s")
        elif now_s - self._worked_s > self._habits.idle_s:
            self.end(f"there was nothing to do for {self._habits.idle_s:.0f} s")

    def _follow(self) -> None:
        """Follow the orders of the orchestrator for this job and for each attempt."""
        lead = self._spool.leader()
        if lead is not None and lead.is_closed:
            self.end("the sweep is over")
        elif lead is not None and lead.code != self._code:
            self.end("the sweep goes on with other code")
        is_late = self._save_by_s is not None and self._clock() > self._save_by_s
        for token, running in self._running.items():
            ordered: str = self._spool.ordered(token)
            if self._ending_because and ordered != "revoked":
                ordered = "kill" if is_late or ordered == "kill" else "stop"
            if ordered != running.ordered:
                running.ordered = ordered
                if ordered == "stop":
                    self._engine.stop(token)
                elif ordered:
                    self._engine.kill(token)

    def _claim(self) -> None:
        if self._silence.lasts_s > self._habits.orphaned_after_s:
            return
        busy = {running.slot.name: running for running in self._running.values()}
        free = {slot.name: slot for slot in self._engine.slots if slot.name not in busy}
        if not free:
            return
        groups = {running.slot.device: running.group for running in busy.values()}
        devices = {name: slot.device for name, slot in free.items()}
        for queued, slot_name in choose_claims(self._spool.queued(), devices, groups):
            if self._spool.claim(queued, self._name):
                slot = free[slot_name]
                self._running[queued.token] = _Running(
                    slot=slot, group=queued.group, alone=queued.alone, unsent=begun_line(self._name)
                )

    def _open(self, token: str) -> None:
        """Begin an attempt that was claimed; release one that was revoked meanwhile."""
        running = self._running[token]
        try:
            launch = self._spool.launch_of(token, self._name)
        except EngineError as error:
            print(f"attempt {token} cannot be begun: {error}", file=sys.stderr, flush=True)
            launch = None
        if launch is None or running.ordered == "revoked":
            self._spool.give_up(token, self._name)
            del self._running[token]
        elif self._ending_because:
            self._take(Stopped(token=token))
        else:
            running.has_begun = True
            if running.alone:
                for other in self._engine.slots:
                    if other.device == running.slot.device and other.name != running.slot.name:
                        self._engine.release(other)
            self._engine.submit(running.slot, launch)

    def _take(self, event: EngineEvent) -> None:
        running = self._running.get(event.token)
        if running is None:
            return
        if isinstance(event, Pulse):
            running.parts += event.parts
            return
        if isinstance(event, Ending):
            if self._ending_because and isinstance(event, Lost | Stopped) and running.ordered != "revoked":
                # An end of the job is no fault of the trial, whether or not it reached its next step in time.
                message = f"job {self._hello.job} on {self._hello.node} ends ({self._ending_because})"
                running.unsent += encode(Note(token=event.token, message=f"{message}; the trial goes on elsewhere"))
                event = Stopped(token=event.token)
            running.ending = event
            if isinstance(event, Failed) and event.failure.kind is FailureKind.NO_DEVICE:
                self.refusal = event.failure.message  # else this node would claim, and fail, one trial after another
                self.end(event.failure.message)
        running.unsent += encode(event)

    def _report(self, token: str) -> None:
        """Write the events of an attempt; retry later those that a full disk does not take."""
        running, now_s = self._running[token], self._clock()
        if running.parts and running.ending is None and now_s - running.pulse_s >= self._habits.heartbeat_s / 2:
            running.unsent += encode(Pulse(token=token, parts=running.parts))
            running.parts, running.pulse_s = 0, now_s
        if running.unsent:
            try:
                self._spool.append(token, running.unsent, running.offset)
            except FileNotFoundError:
                running.ordered = "revoked"
                self._engine.kill(token)
            except OSError as error:
                print(f"what attempt {token} has to say cannot be written ({error})", file=sys.stderr, flush=True)
                return
            running.offset += len(running.unsent)
            running.unsent = b""
        if running.ending is not None:
            self._spool.give_up(token, self._name)
            del self._running[token]
            self._worked_s = now_s


def main(arguments: Sequence[str]) -> int:
    """Run attempts until there are no more, or Slurm ends the job; return the exit code."""
    options = _parser().parse_args(arguments)
    spool, job = Spool(Path(options.spool)), job_name(os.environ)
    name = f"{job}-{secrets.token_hex(4)}"
    hello = Hello(job=job, node=socket.gethostname(), pid=os.getpid())
    told: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        slots = allocated_slots(
            os.environ, gpus=options.gpus, cpus=options.cpus, trials=options.trials, slots_per_gpu=options.slots_per_gpu
        )
    except StnbenchError as error:
        print(f"job {job}: {error}", file=sys.stderr, flush=True)
        spool.introduce(name, replace(hello, refusal=str(error), has_left=True))
        return CANNOT_WORK
    hello = replace(hello, slots=tuple(slot.name for slot in slots))
    spool.introduce(name, hello)
    engine = LocalEngine(slots, spool.logs / name, command=json.loads(options.worker))
    habits = Habits(**{field.name: getattr(options, field.name) for field in fields(Habits)})
    refusal = ""
    try:
        with contextlib.suppress(OSError):  # the first attempt reports the problem
            engine.warm_up()
        reason = lambda: f"Slurm has sent {signal.Signals(told[0]).name}" if told else ""  # noqa: E731
        host = JobHost(spool, engine, name=name, hello=hello, habits=habits, told=reason)
        while host.step():
            pass
        refusal = host.refusal
    finally:
        engine.close()
        with contextlib.suppress(OSError):
            spool.introduce(name, replace(hello, refusal=refusal, has_left=True))
        shutil.rmtree(spool.logs / name, ignore_errors=True)
    if signal.SIGUSR1 in told:
        _queue_again(job)
    return 0


def job_name(environment: Mapping[str, str]) -> str:
    """Return the name of this job as Slurm lists it: ``4711_2`` for a task of an array.

    Raises:
        EngineError: if this process is not in a job.
    """
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")
    if not job:
        raise EngineError(
            "this is no job of Slurm: SLURM_JOB_ID is not set", remedy="the slurm engine starts it itself"
        )
    return job


def allocated_slots(
    environment: Mapping[str, str], *, gpus: int, cpus: int, trials: int, slots_per_gpu: int
) -> tuple[Slot, ...]:
    """Return the slots for which this allocation has room.

    Raises:
        EngineError: if it lacks the requested GPUs, or cannot use them.
    """
    visible = visible_gpus(environment) if gpus else ()
    if gpus < len(visible) and VISIBLE_VARIABLE not in environment:
        problem = f"the node shows {len(visible)} GPUs and does not say which {gpus} are this job's"
        raise EngineError(
            problem, remedy=f"Slurm sets {VISIBLE_VARIABLE} where gres.conf names the GPUs; ask its keepers"
        )
    if len(visible) < gpus:
        said = environment.get(VISIBLE_VARIABLE)
        problem = f"{gpus} GPUs were asked for, and {len(visible)} can be seen ({VISIBLE_VARIABLE} is {said!r})"
        raise EngineError(problem, remedy="ask for them with engine.gres, and see `nvidia-smi` on the node")
    require_computable(visible[:gpus], environment)
    cores = max(1, min(available_cores(), int(environment.get("SLURM_CPUS_PER_TASK") or cpus)))
    return plan_slots(visible[:gpus], cores, slots=None if gpus else trials, per_gpu=slots_per_gpu)


def _queue_again(job: str) -> None:
    """Ask Slurm to run this job again later; if it does not, the orchestrator requests another one."""
    try:
        done = subprocess.run(  # noqa: S603 - Slurm's own command, no input of others
            [shutil.which("scontrol") or "scontrol", "requeue", job],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=REQUEUE_S,
            check=False,
        )
        problem = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        print(f"this job is not queued again: {problem}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stnbench.engines.slurm_job", description="Runs attempts from a spool.")
    parser.add_argument("--spool", required=True, help="the folder on the shared disk")
    parser.add_argument("--gpus", type=int, required=True, help="GPUs of this job")
    parser.add_argument("--cpus", type=int, required=True, help="CPUs of this job")
    parser.add_argument("--trials", type=int, required=True, help="attempts at once where there is no GPU")
    parser.add_argument("--slots-per-gpu", type=int, required=True, help="attempts on one GPU")
    for name in ("heartbeat-s", "idle-s", "orphaned-after-s", "save-s"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--worker", required=True, help="the command of a worker, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
