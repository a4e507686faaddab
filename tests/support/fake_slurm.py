"""A Slurm of one machine: sbatch, squeue, scancel and scontrol as programs that run jobs as processes.

``FakeSlurm`` is the tests' side: it puts the programs on PATH, and breaks them. As a program this file is each of the
four; its state is a file, and jobs that wait begin whenever any of the four is called. Nothing but the standard library
is imported, so that a call is quick.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol")
VARIABLE = "FAKE_SLURM"


class FakeSlurm:
    """A scheduler in a folder.

    ``say`` makes it behave: ``well``, ``silent`` (programs hang), ``garbage`` (they print what makes no sense),
    ``down`` (no controller), ``refuse`` (sbatch refuses), ``accept and hang`` (sbatch submits, and never says so).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for program in PROGRAMS:
            path = folder / "bin" / program
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__)} {program} {folder} "$@"\n')
            path.chmod(0o755)
        self.say("well")

    @property
    def path(self) -> str:
        """PATH with the programs first."""
        return f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def say(self, mode: str) -> None:
        """Behave so from now on."""
        (self.folder / "mode").write_text(mode)

    def room(self, jobs: int) -> None:
        """Let so many jobs run at once from now on."""
        (self.folder / "room").write_text(str(jobs))

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Every job that ever was, by its name (``4711_2``)."""
        with _state(self.folder) as state:
            _take_note(state)
            jobs: dict[str, dict[str, Any]] = json.loads(json.dumps(state["jobs"]))
            return jobs

    def running(self) -> list[str]:
        """Jobs whose process lives."""
        return [name for name, job in self.jobs().items() if job["state"] == "RUNNING"]

    def calls(self, program: str) -> list[list[str]]:
        """The arguments of every call of a program."""
        lines = (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []
        return [words[1:] for words in map(json.loads, lines) if words[0] == program]

    def preempt(self, name: str) -> None:
        """Send USR1 to the process of a job's script, as ``--signal=B:USR1`` lets Slurm do."""
        os.kill(self.jobs()[name]["pid"], signal.SIGUSR1)

    def kill_node(self, name: str, *, is_noticed: bool) -> None:
        """Kill -9 all processes of a job at once; the scheduler goes on listing it where that is not noticed."""
        with _state(self.folder) as state:
            job = state["jobs"][name]
            job["is_ghost"] = not is_noticed
            _kill_tree(job["pid"])
            _take_note(state)

    def close(self) -> None:
        """End every job."""
        self.say("well")
        with _state(self.folder) as state:
            for job in state["jobs"].values():
                if job["pid"]:
                    _kill_tree(job["pid"])
                job["state"], job["is_ghost"] = "CANCELLED", False


@contextmanager
def _state(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / "state.json"
        state = json.loads(path.read_text()) if path.exists() else {"next": 4711, "jobs": {}}
        yield state
        whole = path.with_suffix(".new")  # a command may be killed at any time
        whole.write_text(json.dumps(state))
        whole.replace(path)


def _take_note(state: dict[str, Any]) -> None:
    """Take note of jobs that have ended."""
    for job in state["jobs"].values():
        if job["state"] == "RUNNING" and not job["is_ghost"] and not _is_alive(job["pid"]):
            job["state"] = "PENDING" if job["again"] else "COMPLETED"
            job["restarts"] += 1 if job["again"] else 0
            job["again"] = False


def _advance(state: dict[str, Any], folder: Path) -> None:
    """Take note of jobs that have ended, and begin those that there is room for."""
    _take_note(state)
    room = int((folder / "room").read_text()) if (folder / "room").exists() else 10**6
    for name, job in state["jobs"].items():
        if job["state"] == "PENDING" and sum(other["state"] == "RUNNING" for other in state["jobs"].values()) < room:
            _start(name, job)


def _start(name: str, job: dict[str, Any]) -> None:
    array, _, task = name.partition("_")
    environment = {**job["environment"], "SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task}
    environment |= {"SLURM_JOB_ID": array, "SLURM_RESTART_COUNT": str(job["restarts"])}
    environment |= {"SLURM_CPUS_PER_TASK": job["options"].get("cpus-per-task", "1")}
    log = job["options"]["output"].replace("%A", array).replace("%a", task).replace("%%", "%")
    with Path(log).open("ab") as output:
        job["pid"] = subprocess.Popen(
            ["/bin/bash", job["script"]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ).pid
    job["state"] = "RUNNING"


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_alive(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def _tree(pid: int) -> list[int]:
    parents = {
        int(path.name): int(fields[1]) for path in Path("/proc").glob("[0-9]*") if (fields := _stat(int(path.name)))
    }
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def _kill_tree(pid: int) -> None:
    for member in _tree(pid):
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _sbatch(state: dict[str, Any], arguments: list[str]) -> str:
    options = dict(word[2:].partition("=")[::2] for word in arguments[:-1])
    first, _, last = options["array"].partition("-")
    number, state["next"] = state["next"], state["next"] + 1
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    for task in range(int(first), int(last) + 1):
        job = {"options": options, "script": arguments[-1], "environment": environment, "pid": 0, "restarts": 0}
        state["jobs"][f"{number}_{task}"] = {**job, "state": "PENDING", "again": False, "is_ghost": False}
    return str(number)


def _squeue(state: dict[str, Any], arguments: list[str]) -> str:
    asked = dict(word[2:].partition("=")[::2] for word in arguments)
    listed = [
        f"{name}|{job['state']}|{'Resources' if job['state'] == 'PENDING' else 'None'}"
        for name, job in state["jobs"].items()
        if job["options"]["job-name"] == asked["name"] and job["state"] in {"PENDING", "RUNNING"}
    ]
    return "\n".join(listed)


def _scancel(state: dict[str, Any], arguments: list[str]) -> str:
    asked = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))
    for job in state["jobs"].values():
        if job["options"]["job-name"] == asked["name"] and job["state"] in {"PENDING", "RUNNING"}:
            if job["state"] == "RUNNING" and _is_alive(job["pid"]):
                os.killpg(job["pid"], signal.SIGTERM)
                deadline = time.monotonic() + 3
                while _is_alive(job["pid"]) and time.monotonic() < deadline:
                    time.sleep(0.02)
                _kill_tree(job["pid"])
            job["state"], job["is_ghost"] = "CANCELLED", False
    return ""


def _scontrol(state: dict[str, Any], arguments: list[str]) -> str:
    verb, name = arguments
    assert verb == "requeue"
    state["jobs"][name]["again"] = True
    return ""


def main(program: str, folder: Path, arguments: list[str]) -> int:
    """Be one of the programs; its exit code."""
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps([program, *arguments]) + "\n")
    mode = (folder / "mode").read_text()
    if mode == "silent":
        time.sleep(3600)
    if mode == "down":
        print(f"{program}: error: Unable to contact slurm controller (connect failure)", file=sys.stderr)
        return 1
    if mode == "garbage":
        print("\x1b[31mslurm_load_jobs \x00 17 ??|")
        return 0
    if mode == "refuse" and program == "sbatch":
        print("sbatch: error: Batch job submission failed: Invalid partition name specified", file=sys.stderr)
        return 1
    does = {"sbatch": _sbatch, "squeue": _squeue, "scancel": _scancel, "scontrol": _scontrol}[program]
    with _state(folder) as state:
        _advance(state, folder)
        answer = does(state, arguments)
        _advance(state, folder)
    if mode == "accept and hang" and program == "sbatch":
        time.sleep(3600)
    if answer:
        print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
