"""Running stnbench's commands as a user does: in a process of their own, in a folder of their own."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

TINY = """\
question: Does it run?
base:
  scale: smoke
  dataset.tracks_per_class: 2
  dataset.test_tracks_per_class: 1
  split.tracks_per_class: 1
  locnet@locnet1: conv
  locnet1.sizes: [100, 100, 50]
axes:
  transformer: [affine, scale_translation]
seeds: [1, 2]
"""
"""A sweep of three configurations (two and their baseline) and six trials, each a second long."""


PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
"""How many times longer than usual tests of whole commands may wait: TEST_PATIENCE=6 on a machine at work."""


def patient(seconds: float) -> float:
    """The time for which a test waits at most, in seconds, if it takes at most ``seconds`` on an idle machine."""
    return PATIENCE * seconds


SERVERS = frozenset({"MLFLOW_TRACKING_URI", "STNBENCH_STORE"})
"""Variables that would take a test to a server of somebody's."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """A user's folder: ``sweeps/`` of its own, ``runs/``, and data shared with other tests."""

    folder: Path
    data: Path

    @property
    def runs(self) -> Path:
        """Where the store is."""
        return self.folder / "runs"

    def environment(self) -> dict[str, str]:
        """The environment of every command."""
        own = {"STNBENCH_RUNS": str(self.runs), "STNBENCH_DATA": str(self.data), "COLUMNS": "200"}
        return {key: value for key, value in os.environ.items() if key not in SERVERS} | own

    def run(self, module: str, *arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run ``python -m stnbench.<module>`` to its end."""
        return subprocess.run(
            [sys.executable, "-m", f"stnbench.{module}", *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=patient(timeout_s),
            check=False,
        )

    def start(self, module: str, *arguments: str) -> "subprocess.Popen[str]":
        """Begin a command; its output goes to ``command.log``."""
        with (self.folder / "command.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"stnbench.{module}", *arguments],
                cwd=self.folder,
                env=self.environment(),
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def log(self) -> str:
        """What the command begun last has printed so far."""
        return (self.folder / "command.log").read_text()

    def wait_for(self, text: str, count: int = 1, timeout_s: float = 60) -> None:
        """Wait until the command begun last has printed a text so often."""
        deadline = time.monotonic() + patient(timeout_s)
        while self.log().count(text) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"'{text}' was not printed:\n{self.log()}")
            time.sleep(0.02)


def kill_orchestrator(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Kill -9 a command alone; the processes it had started and that are still alive five seconds later."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 5
    while (left := [member for member in started if is_alive(member)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def kill_tree(process: "subprocess.Popen[str]") -> None:
    """Kill -9 a process and everything it started, as a machine that goes down does."""
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in tree:
        member.send_signal(signal.SIGKILL)
    process.wait()


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie, which only waits to be counted, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
