"""2015's way: a fresh interpreter for every trial, which imports torch; its last line is the accuracy."""

import subprocess
import sys
from pathlib import Path

ONE = """
import sys
sys.path.insert(0, sys.argv[2])
import torch
from ways.trial import run
print(run(float(sys.argv[1])))
"""


def main(trials: int, duration_s: float, slots: int) -> None:
    """Keep so many processes busy."""
    command = [sys.executable, "-c", ONE, str(duration_s), str(Path(__file__).parents[1])]
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(trials):
        while len(running) == slots:
            running[0].wait()
            running = [process for process in running if process.poll() is None]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE))
    for process in running:
        process.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
