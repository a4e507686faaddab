"""Faults injected into a running sweep, reproducible by seed."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from commands import Workplace

SITE = Path(__file__).parent / "chaos_site"
FULL_DISK_BYTES = 2000
"""No file may grow beyond it while the disk is full: large enough for a specification, too small for all else."""


@dataclass(slots=True)
class Chaos:
    """Runs a sweep again and again, and breaks something every now and then.

    ``pause_s`` is the range of the time between two faults. ``faults`` counts what was done, by kind; ``starts`` how
    often the command was begun.
    """

    workplace: Workplace
    sweep: str
    seed: int
    pause_s: tuple[float, float]
    faults: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    seen: set[psutil.Process] = field(default_factory=set)

    def run(self, at_least: int, *, timeout_s: float) -> None:
        """Run the sweep to its end under at least so many faults.

        Raises: TimeoutError; AssertionError where the sweep ends otherwise than complete or broken.
        """
        dice = random.Random(self.seed)
        deadline = time.monotonic() + timeout_s
        while True:
            before = self.faults.total()
            code = self._run_once(dice, deadline)
            if code == 0:
                break
            assert self.faults.total() > before, f"ended with {code} though nothing was broken:\n{self.workplace.log()}"
        assert self.faults.total() >= at_least, f"only {self.faults.total()} faults before the sweep was complete"

    def _run_once(self, dice: random.Random, deadline: float) -> int:
        """One run of the command under fault after fault; its exit code."""
        self.starts += 1
        path = os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (self.workplace.folder / "command.log").open("a") as log:
            command = subprocess.Popen(
                [sys.executable, "-m", "stnbench.sweep", self.sweep],
                cwd=self.workplace.folder,
                env=self.workplace.environment() | {"PYTHONPATH": path},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while command.poll() is None:
            if time.monotonic() > deadline:
                command.kill()
                raise TimeoutError(f"{self.faults} in {self.starts} runs:\n{self.workplace.log()[-4000:]}")
            self._wait(command, dice.uniform(*self.pause_s))
            if command.poll() is None:
                self._break(command, dice)
        return command.returncode

    def _wait(self, command: "subprocess.Popen[bytes]", duration_s: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(duration_s)

    def _break(self, command: "subprocess.Popen[bytes]", dice: random.Random) -> None:
        kinds = ["worker killed", "orchestrator killed", "pipe dropped", "disk full", "MLflow locked"]
        kind = dice.choices(kinds, weights=[5, 2, 2, 1, 1])[0]
        workers = self._workers(command.pid)
        dice.shuffle(workers)
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if kind == "orchestrator killed":
                command.send_signal(signal.SIGKILL)
            elif kind == "MLflow locked":
                self._lock_mlflow(dice.uniform(0.2, 2.0))
            elif not workers:
                return
            elif kind == "worker killed":
                workers[0].send_signal(signal.SIGKILL)
            elif kind == "pipe dropped":
                workers[0].send_signal(signal.SIGUSR1)
            else:
                self._fill_disk([psutil.Process(command.pid), *workers], dice.uniform(0.2, 2.0))
            self.faults[kind] += 1

    def _workers(self, pid: int) -> list[psutil.Process]:
        """The workers that are up: before their first import is done SIGUSR1 would end them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(pid).children(recursive=True)
            self.seen.update(children)
            return sorted((child for child in children if _is_up(child)), key=lambda child: child.pid)
        return []

    def _fill_disk(self, processes: list[psutil.Process], duration_s: float) -> None:
        """A quota stand-in: for a while none of the processes can make a file grow."""
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, (FULL_DISK_BYTES, psutil.RLIM_INFINITY))
        time.sleep(duration_s)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))

    def _lock_mlflow(self, duration_s: float) -> None:
        """Nobody can write MLflow's database for a while."""
        path = self.workplace.runs / "mlflow.db"
        if not path.exists():
            time.sleep(duration_s)
            return
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as connection:
            connection.execute("begin exclusive")
            time.sleep(duration_s)

    def survivors(self, within_s: float = 10) -> list[psutil.Process]:
        """Processes of the sweep that are still alive after a while."""
        deadline = time.monotonic() + within_s
        while (left := list(_alive(self.seen))) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


def _is_up(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "stnbench.engines.worker" in process.cmdline() and process.num_threads() > 1
    return False


def _alive(processes: set[psutil.Process]) -> Iterator[psutil.Process]:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                yield process
