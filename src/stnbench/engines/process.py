"""One worker process as its engine sees it: started, spoken to, watched and ended."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from stnbench.core.cores import available_cores
from stnbench.core.files import size_of, tail, write_all
from stnbench.core.paths import AttemptLayout
from stnbench.engines.base import EngineEvent, Launch, Slot
from stnbench.engines.protocol import Message, decode, encode
from stnbench.engines.slots import BY_PCI_BUS, ORDER_VARIABLE, VISIBLE_VARIABLE

_READ_SIZE = 1 << 16

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TORCHINDUCTOR_COMPILE_THREADS",  # else each worker starts as many compilers as the machine has cores
)


class WorkerProcess:
    """A worker in a process group of its own, with a pipe each way and a log file.

    ``command`` is the worker's command line without the device and the threads. ``kill_at_s`` is when its engine loses
    patience with it, None while it may live.
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
        """The worker's process id, also the id of its group."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when the worker has sent something or has died."""
        if self._process.stdout is None:
            raise ValueError("a worker is always started with a pipe")
        return self._process.stdout.fileno()

    def is_suspended(self) -> bool:
        """Whether the system has halted the process until somebody lets it go on, as SIGSTOP does."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def begin(self, launch: Launch) -> bool:
        """Send an attempt to execute; False where the worker is gone.

        From here on, what the worker writes is the attempt's.
        """
        self.launch = launch
        if self._has_begun:
            self._log_start = size_of(self.log)
        self._has_begun = True
        with contextlib.suppress(OSError):
            AttemptLayout(Path(launch.folder)).log.unlink(missing_ok=True)
        return self.send(launch)

    def send(self, message: Message) -> bool:
        """Send a message; False where the worker is gone, which ``receive`` then reports."""
        if self._process.stdin is None:
            return False
        try:
            write_all(self._process.stdin.fileno(), encode(message))
        except (OSError, ValueError):
            return False
        return True

    def receive(self) -> tuple[list[EngineEvent], bool]:
        """Events that have arrived, without waiting for a whole line, and whether the worker has closed its pipe.

        Raises: EngineError for a line that is no message.
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
        """Wait for the end of the process, kill its group in any case, and say how it ended.

        One that the system cannot end, because it waits in the kernel for a device or a mount, is left to itself.
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
        """The end of what the attempt wrote; else of what the worker wrote since it was begun, or since its start."""
        own = "" if self.launch is None else tail(AttemptLayout(Path(self.launch.folder)).log)
        return own or tail(self.log, start=self._log_start)


def worker_command() -> tuple[str, ...]:
    """The command line of a worker."""
    return (sys.executable, "-m", "stnbench.engines.worker")


def worker_environment(slot: Slot, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a worker: it sees one device, and every library keeps to its thread budget."""
    environment[VISIBLE_VARIABLE] = slot.device if slot.is_cuda else "-1"
    environment.setdefault(ORDER_VARIABLE, BY_PCI_BUS)  # slots are numbered as nvidia-smi does it
    for variable in _THREAD_VARIABLES:
        environment[variable] = str(slot.threads)
    # Threads that wait by spinning starve their neighbours where trials share cores: 5 times slower, measured. A trial
    # that has all cores to itself is a fifth quicker when it does.
    if slot.threads < available_cores():
        environment["OMP_WAIT_POLICY"] = "passive"
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
