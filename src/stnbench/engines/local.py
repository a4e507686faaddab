"""The local engine, with one warm worker process per slot, so that torch is imported once per slot, not per trial."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import psutil
from typing_extensions import override

from stnbench.core.errors import EngineError, ProtocolError
from stnbench.core.files import AttemptLayout, size_of, tail, writable_folder, write_all
from stnbench.core.process import available_cores
from stnbench.engines import Ending, Engine, EngineEvent, Failed, Launch, Lost, Message, Slot, Stop, decode, encode
from stnbench.engines.slots import BY_PCI_BUS, ORDER_VARIABLE, VISIBLE_VARIABLE
from stnbench.spec.result import Failure, FailureKind

# One worker process from the view of its engine: start, communication, supervision and end.


_READ_SIZE = 1 << 16

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TORCHINDUCTOR_COMPILE_THREADS",  # else each worker starts as many compilers as the machine has cores
)


class WorkerProcess:
    """A worker in a separate process group, with a pipe in each direction and a log file.

    ``command`` is the worker's command line without the device and the threads. ``kill_at_s`` is the time at which the
    engine kills the worker, None while it may run.
    """

    def __init__(self, slot: Slot, log: Path, command: Sequence[str]) -> None:
        self.slot = slot
        self.log = log
        self.launch: Launch | None = None
        self.kill_at_s: float | None = None
        self._buffer = b""
        self._log_start = size_of(log)
        self._has_begun = False
        device = "cuda:0" if slot.is_cuda else "cpu"
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no input of others
                [*command, "--device", device, "--threads", str(slot.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=worker_environment(slot, os.environ.copy()),
                start_new_session=True,
                bufsize=0,
            )

    @property
    def pid(self) -> int:
        """Return the worker's process id, which is also the id of its group."""
        return self._process.pid

    def fileno(self) -> int:
        """Return a file descriptor that is readable when the worker has sent something or has died."""
        if self._process.stdout is None:
            raise ValueError("a worker is always started with a pipe")
        return self._process.stdout.fileno()

    def is_suspended(self) -> bool:
        """Check whether the process is halted until it is continued, as by SIGSTOP."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def begin(self, launch: Launch) -> bool:
        """Send an attempt to execute; return False if the worker is gone.

        From here on, the output of the worker belongs to the attempt.
        """
        self.launch = launch
        if self._has_begun:
            self._log_start = size_of(self.log)
        self._has_begun = True
        with contextlib.suppress(OSError):
            AttemptLayout(Path(launch.folder)).log.unlink(missing_ok=True)
        return self.send(launch)

    def send(self, message: Message) -> bool:
        """Send a message; return False if the worker is gone, which ``receive`` then reports."""
        if self._process.stdin is None:
            return False
        try:
            write_all(self._process.stdin.fileno(), encode(message))
        except (OSError, ValueError):
            return False
        return True

    def receive(self) -> tuple[list[EngineEvent], bool]:
        """Return the events that have arrived, without waiting for a whole line, and whether the pipe is closed.

        Raises:
            ProtocolError: if a line is not a message.
        """
        chunk = os.read(self.fileno(), _READ_SIZE)
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        events: list[EngineEvent] = []
        for line in lines:
            message = decode(line)
            if isinstance(message, EngineEvent):
                events.append(message)
        return events, not chunk

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the worker and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def reap(self, timeout_s: float) -> str:
        """Wait for the end of the process, kill its group in any case, and describe how it ended.

        A process that the system cannot end, because it waits in the kernel for a device or a mount, is abandoned.
        """
        code: int | None = None
        for _ in range(2):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout_s)
                break
            self.signal_group(signal.SIGKILL)
        self.signal_group(signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if code is None:
            return "nothing: it does not die"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def last_output(self) -> str:
        """Return the end of the attempt's log, which may be empty.

        If the attempt never opened its log, return the part of the slot's log written since the attempt or the worker
        began, under a line that says so.
        """
        own = None if self.launch is None else AttemptLayout(Path(self.launch.folder)).log
        if own is not None and own.exists():
            return tail(own)
        said = tail(self.log, start=self._log_start)
        return said and f"(the log of slot {self.slot.name}, before the attempt opened its own)\n{said}"


def worker_command() -> tuple[str, ...]:
    """Return the command line of a worker."""
    return (sys.executable, "-m", "stnbench.engines.worker")


def worker_environment(slot: Slot, environment: dict[str, str]) -> dict[str, str]:
    """Set the variables of a worker: it sees one device, and every library keeps to its thread budget.

    Args:
        slot: the slot of the worker.
        environment: the environment, which is changed in place and returned.
    """
    environment[VISIBLE_VARIABLE] = slot.device if slot.is_cuda else "-1"
    environment.setdefault(ORDER_VARIABLE, BY_PCI_BUS)  # slots are numbered as nvidia-smi does it
    for variable in _THREAD_VARIABLES:
        environment[variable] = str(slot.threads)
    # Spinning threads starve the other trials where cores are shared: 5 times slower, measured. A trial that has all
    # cores is a fifth faster with spinning.
    if slot.threads < available_cores():
        environment["OMP_WAIT_POLICY"] = "passive"
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


GRACE_S = 5.0
"""Seconds that a worker may take to end after SIGTERM before it is killed."""


class LocalEngine(Engine):
    """Engine of worker processes on this machine, started when a slot is first used and after a worker has died."""

    def __init__(
        self,
        slots: Sequence[Slot],
        logs: Path,
        *,
        command: Sequence[str] | None = None,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
        more: Callable[[int], Sequence[Slot]] | None = None,
    ) -> None:
        """Offer slots on this machine.

        Args:
            slots: the slots at the beginning.
            logs: a folder for the output of idle workers.
            command: the command that starts a worker.
            grace_s: seconds that a worker may take to end after SIGTERM.
            clock: returns seconds from any origin.
            more: makes a given number of slots, for ``resize``; without it the initial number is the maximum.
        """
        self._slots = tuple(slots)
        self._more = more
        self._logs = writable_folder(logs, "worker logs", remedy="set STNBENCH_RUNS to a folder you can write")
        self._command = tuple(command or worker_command())
        self._grace_s = grace_s
        self._clock = clock
        self._workers: dict[str, WorkerProcess] = {}
        self._events: deque[EngineEvent] = deque()
        self._selector = selectors.DefaultSelector()

    @property
    @override
    def slots(self) -> Sequence[Slot]:
        return self._slots

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        worker = self._workers.get(slot.name)
        if worker is not None and worker.launch is not None:
            raise ProtocolError(
                f"slot {slot.name} already runs attempt {worker.launch.token}", remedy="wait for its end"
            )
        try:
            worker = worker or self._start(slot)
        except OSError as error:  # the machine has no process, open file or byte on the disk left
            message = f"no worker can be started for slot {slot.name} ({error})"
            failure = Failure(kind=FailureKind.INFRASTRUCTURE, message=message)
            self._events.append(Failed(token=launch.token, failure=failure))
            return
        if not worker.begin(launch):
            self._bury(worker)

    @override
    def resize(self, count: int) -> Sequence[Slot]:
        known = {slot.name: slot for slot in self._slots}
        offered = [] if self._more is None or count <= len(self._slots) else self._more(count)
        self._slots = (*self._slots, *(slot for slot in offered if slot.name not in known))
        for slot in self._slots[count:]:
            self.release(slot)
        return self._slots[:count]

    @property
    @override
    def suspended(self) -> Collection[str]:
        busy = [worker for worker in self._workers.values() if worker.launch is not None]
        return tuple(worker.launch.token for worker in busy if worker.launch is not None and worker.is_suspended())

    def warm_up(self) -> None:
        """Start every worker now, so that they import torch while the orchestrator still plans.

        Raises:
            OSError: if a worker cannot be started.
        """
        for slot in self._slots:
            if slot.name not in self._workers:
                self._start(slot)

    @override
    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        wait_s = 0.0 if self._events else timeout_s
        self._lose_patience()
        if self._workers:
            for key, _ in self._selector.select(wait_s):
                self._receive(key.data)
        elif wait_s:
            time.sleep(wait_s)
        events = tuple(self._events)
        self._events.clear()
        return events

    @override
    def stop(self, token: str) -> None:
        worker = self._running(token)
        if worker is not None:
            worker.send(Stop(token=token))

    @override
    def kill(self, token: str) -> None:
        worker = self._running(token)
        if worker is not None:
            worker.signal_group(signal.SIGTERM)
            worker.kill_at_s = worker.kill_at_s or self._clock() + self._grace_s

    @override
    def release(self, slot: Slot) -> None:
        worker = self._workers.get(slot.name)
        if worker is not None and worker.launch is None:
            self._bury(worker)

    @override
    def close(self) -> None:
        workers = list(self._workers.values())
        for worker in workers:
            worker.signal_group(signal.SIGTERM)
        deadline = self._clock() + self._grace_s
        for worker in workers:
            self._forget(worker)
            worker.reap(max(0.0, deadline - self._clock()))
        self._selector.close()

    def _start(self, slot: Slot) -> WorkerProcess:
        worker = WorkerProcess(slot, self._logs / f"{slot.name}.log", self._command)
        self._workers[slot.name] = worker
        self._selector.register(worker.fileno(), selectors.EVENT_READ, worker)
        return worker

    def _lose_patience(self) -> None:
        """Kill workers that have not ended when asked; abandon those that survive it, for example in a dead mount."""
        now_s = self._clock()
        for worker in list(self._workers.values()):
            if worker.kill_at_s is not None and now_s >= worker.kill_at_s:
                worker.signal_group(signal.SIGKILL)
                if now_s >= worker.kill_at_s + self._grace_s:
                    self._bury(worker, f"the worker of slot {worker.slot.name} was killed and does not end")

    def _running(self, token: str) -> WorkerProcess | None:
        workers = self._workers.values()
        return next((worker for worker in workers if worker.launch and worker.launch.token == token), None)

    def _receive(self, worker: WorkerProcess) -> None:
        try:
            events, is_closed = worker.receive()
        except EngineError as error:
            self._bury(worker, str(error))
            return
        for event in events:
            self._events.append(event)
            if isinstance(event, Ending):
                worker.launch = None
            if isinstance(event, Failed) and _is_spoilt_by(event.failure.kind, worker.slot):
                is_closed = True
        if is_closed:
            self._bury(worker)

    def _bury(self, worker: WorkerProcess, reason: str = "") -> None:
        """End a worker that has died or breaks the protocol and report its attempt as lost; a submit starts another."""
        self._forget(worker)
        # A worker that has closed its pipe ends by itself only when it next writes, and the engine waits: signal it.
        worker.signal_group(signal.SIGKILL if reason else signal.SIGTERM)
        ended = worker.reap(self._grace_s)
        if worker.launch is not None:
            why = reason or f"the worker of slot {worker.slot.name} ended with {ended}"
            self._events.append(Lost(token=worker.launch.token, reason=why, last_output=worker.last_output()))
            worker.launch = None

    def _forget(self, worker: WorkerProcess) -> None:
        self._workers.pop(worker.slot.name, None)
        self._selector.unregister(worker.fileno())


def _is_spoilt_by(kind: FailureKind, slot: Slot) -> bool:
    """Check whether a worker is ended after a failure of its attempt, so that the next attempt gets a fresh process.

    After a CUDA error every further call of the process fails with it; after an out-of-memory error the memory stays
    fragmented; changed images stay mapped. A bug on a GPU may be either of the first two: a failed assertion of a
    kernel makes the context unusable as well.
    """
    spoilt = (FailureKind.DEVICE, FailureKind.NO_DEVICE, FailureKind.DATA, FailureKind.OUT_OF_MEMORY)
    return kind in spoilt or (kind is FailureKind.BUG and slot.is_cuda)
