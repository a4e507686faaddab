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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from commands import Workplace, is_alive
from disks import Disk

SITE = Path(__file__).parent / "chaos_site"

KINDS = {
    "worker killed": 5,
    "orchestrator killed": 2,
    "pipe dropped": 2,
    "trials' disk full": 2,
    "whole disk full": 1,
    "MLflow locked": 1,
}
"""Every kind of fault, and how often it comes beside the others. Each comes once before any comes twice."""

NO_EFFECT = "nothing was lost"
PATIENCE_S = 10.0
"""How long an effect may take to show."""


@dataclass(slots=True)
class Chaos:
    """Runs a sweep again and again, and breaks something every now and then.

    ``pause_s`` is the range of the time between two faults, longer where no trial has got on by an epoch meanwhile.
    ``disks`` are those of the trials and of all else in the runs folder. ``effects`` counts faults by kind and by what
    came of them; ``exits`` the ends of the command by exit code.
    """

    workplace: Workplace
    sweep: str
    seed: int
    pause_s: tuple[float, float]
    disks: tuple[Disk, Disk]
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    seen: set[psutil.Process] = field(default_factory=set)

    @property
    def faults(self) -> Counter[str]:
        """How often each kind of fault came."""
        counts: Counter[str] = Counter()
        for (kind, _), count in self.effects.items():
            counts[kind] += count
        return counts

    def run(self, at_least: int, *, timeout_s: float) -> None:
        """Run the sweep to its end under so many faults, each kind among them.

        Raises: TimeoutError; AssertionError where the sweep ends otherwise than complete or broken.
        """
        dice = random.Random(self.seed)
        deadline = time.monotonic() + timeout_s
        while True:
            before = self.faults.total()
            code = self._run_once(dice, deadline, at_least)
            self.exits[code] += 1
            if code == 0:
                break
            assert self.faults.total() > before, f"ended with {code} though nothing was broken:\n{self.workplace.log()}"
        assert self.faults.total() >= at_least, f"too few before the sweep was complete:\n{self.table()}"

    def table(self) -> str:
        """Every kind of fault with its number and what came of it, and the ends of the command."""
        lines = [f"{'fault':20} {'times':>5}  effects"]
        for kind, count in sorted(self.faults.items()):
            came = ((number, effect) for (fault, effect), number in self.effects.items() if fault == kind)
            told = ", ".join(f"{number} {effect}" for number, effect in sorted(came, reverse=True))
            lines.append(f"{kind:20} {count:>5}  {told}")
        ends = ", ".join(f"{count} with {code}" for code, count in sorted(self.exits.items()))
        return "\n".join([*lines, f"{self.faults.total()} faults in {self.exits.total()} runs, which ended: {ends}"])

    def _run_once(self, dice: random.Random, deadline: float, at_least: int) -> int:
        """One run of the command under fault after fault; its exit code."""
        path = os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (self.workplace.folder / "command.log").open("a") as log:
            command = subprocess.Popen(
                [sys.executable, "-m", "stnbench.sweep", self.sweep, "--slots", "2"],
                cwd=self.workplace.folder,
                env=self.workplace.environment() | {"PYTHONPATH": path},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            while command.poll() is None:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.table()}\n{self.workplace.log()[-4000:]}")
                self._pause(command, dice.uniform(*self.pause_s) * self._haste(at_least))
                if command.poll() is None and (self.faults.total() < at_least or self.faults.keys() != KINDS.keys()):
                    self._break(command, dice)
        finally:
            command.kill()
            command.wait()
        return command.returncode

    def _pause(self, command: "subprocess.Popen[bytes]", pause_s: float) -> None:
        """Let a pause pass, and a trial finish an epoch, unless the command has ended."""
        epochs = self._epochs()
        _wait_for(lambda: command.poll() is not None, pause_s)
        _wait_for(lambda: command.poll() is not None or self._epochs() != epochs, PATIENCE_S)

    def _haste(self, at_least: int) -> float:
        """Pauses are shorter where the sweep gets on faster than the faults do, on a quick machine, and longer else."""
        [[done]] = self._query("select avg(state = 'complete') from trials") or [(None,)]
        return min(1.5, max(0.7, (self.faults.total() + 1) / (at_least * (done or 0.0) + 1)))

    def _break(self, command: "subprocess.Popen[bytes]", dice: random.Random) -> None:
        new = [kind for kind in KINDS if not self.faults[kind]]
        kind = new[0] if new else dice.choices(list(KINDS), weights=list(KINDS.values()))[0]
        workers = self._workers(command.pid)
        if not workers:
            return
        ended = self._ended()
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            match kind:
                case "orchestrator killed":
                    command.send_signal(signal.SIGKILL)
                case "MLflow locked":
                    self._lock_mlflow(dice.uniform(0.2, 2.0))
                    self.effects[kind, "lasted"] += 1
                    return
                case "worker killed":
                    workers[0].send_signal(signal.SIGKILL)
                case "pipe dropped":
                    workers[0].send_signal(signal.SIGUSR1)
                case _:
                    disks = self.disks if kind == "whole disk full" else self.disks[:1]
                    self._fill(disks, command, workers, ended)
        _wait_for(lambda: command.poll() is not None or self._ended() != ended, PATIENCE_S)
        self.effects[kind, self._effect(command, ended)] += 1

    def _fill(
        self,
        disks: tuple[Disk, ...],
        command: "subprocess.Popen[bytes]",
        workers: list[psutil.Process],
        ended: Counter[str],
    ) -> None:
        """Fill disks until it has cost an attempt; all of them for a while, which the orchestrator waits out."""
        is_whole = len(disks) > 1
        processes = [psutil.Process(command.pid), *workers] if is_whole else workers
        for disk in disks:
            disk.fill(processes)
        try:
            _wait_for(lambda: command.poll() is not None or (not is_whole and self._ended() != ended), PATIENCE_S)
        finally:
            for disk in disks:
                disk.free()

    def _effect(self, command: "subprocess.Popen[bytes]", ended: Counter[str]) -> str:
        """What has happened since so many attempts had ended badly."""
        if command.poll() is not None:
            return f"orchestrator ended with {command.returncode}"
        came = self._ended() - ended
        return next((f"attempt {kind}" for kind in came), NO_EFFECT)

    def _ended(self) -> Counter[str]:
        """How many attempts have ended badly, by kind."""
        found = self._query("select failure_kind, count(*) from attempts where failure_kind is not null group by 1")
        return Counter(dict(found))

    def _epochs(self) -> list[tuple[int]]:
        return self._query("select count(*) from epochs")

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the store; none where it cannot be read just now."""
        where = f"{(self.workplace.runs / 'stnbench.db').as_uri()}?mode=ro"
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(where, uri=True, timeout=5)) as connection,
        ):
            return connection.execute(sql).fetchall()
        return []

    def _workers(self, pid: int) -> list[psutil.Process]:
        """The workers that are up, the oldest first: it is hit, and one that has just begun gets somewhere first.

        Before their first import is done SIGUSR1 would end them.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(pid).children(recursive=True)
            self.seen.update(children)
            return sorted((child for child in children if _is_up(child)), key=lambda child: child.create_time())
        return []

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
        _wait_for(lambda: not any(map(is_alive, self.seen)), within_s)
        return [process for process in self.seen if is_alive(process)]


def _wait_for(is_so: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_up(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "stnbench.engines.worker" in process.cmdline() and process.num_threads() > 1
    return False
