"""What a guard guards ends with its owner."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from stnbench.engines.guard import LONGEST_PARENT, VARIABLE, Guard

pytestmark = pytest.mark.slow

SLEEPER = "import time; time.sleep(60)"
SCRATCH = "import tempfile, time; file = tempfile.NamedTemporaryFile(); print(file.name, flush=True); time.sleep(60)"


def test_a_closed_guard_ends_what_was_marked_and_nothing_else() -> None:
    """A process started outside the block goes on; scratch of what was inside is gone, and no mark stays behind."""
    guard = Guard()
    before = dict(os.environ)
    with guard.marking():
        marked = subprocess.Popen([sys.executable, "-c", SCRATCH], stdout=subprocess.PIPE, text=True)
    free = subprocess.Popen([sys.executable, "-c", SLEEPER])
    assert marked.stdout is not None
    scratch = Path(marked.stdout.readline().strip())
    assert scratch.parent == guard.folder
    guard.close()

    assert marked.wait(timeout=10) == -signal.SIGKILL
    assert free.poll() is None
    assert not guard.folder.exists()
    assert dict(os.environ) == before
    marked.stdout.close()
    free.kill()
    free.wait()


def test_what_is_guarded_ends_when_its_owner_is_killed() -> None:
    """Also a process that has left the owner's session, whose parent is gone, and which has forgotten the mark."""
    script = textwrap.dedent(f"""
        import os, subprocess, sys, time
        from stnbench.engines.guard import Guard
        guard = Guard()
        middle = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', sys.argv[1]]).pid, flush=True)"
        orphan = "file = open({{!r}}, 'w'); import time; time.sleep(60)".format(str(guard.folder / "log"))
        subprocess.run([sys.executable, "-c", middle, orphan], start_new_session=True, check=True)
        while not (guard.folder / "log").exists():
            time.sleep(0.01)
        with guard.marking():
            assert os.environ[{VARIABLE!r}] == str(guard.folder)
        print("ready", flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        orphan = psutil.Process(int(owner.stdout.readline()))
        assert owner.stdout.readline() == "ready\n"
        owner.send_signal(signal.SIGKILL)
        orphan.wait(timeout=10)

    assert not psutil.pid_exists(orphan.pid)


def test_a_guard_never_ends_its_owner() -> None:
    """An owner that closes the guard lives on, also with files of the folder open."""
    script = textwrap.dedent(f"""
        import os, subprocess, sys
        from stnbench.engines.guard import Guard
        guard = Guard()
        kept = open(guard.folder / "driver.log", "w")
        with guard.marking():
            child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
        guard.close()
        print(child.wait(), guard.folder.exists(), flush=True)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{-signal.SIGKILL} False\n"


def test_the_folder_is_short_enough_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where temporary files lie deep, the folder lies elsewhere."""
    monkeypatch.setattr("tempfile.tempdir", "/" + "x" * LONGEST_PARENT)
    guard = Guard()
    guard.close()

    assert len(str(guard.folder.parent)) <= LONGEST_PARENT
