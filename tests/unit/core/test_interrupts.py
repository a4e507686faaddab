"""Signals end a command with a line, never with a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest
from commands import patient

pytestmark = pytest.mark.slow

RUN = """
import sys, time
from stnbench.core.command import run_command
def main(arguments):
    print("ready", flush=True)
    time.sleep(30)
    return 0
run_command(main, [])
"""

SLOW_IMPORT = """
import importlib, sys, time
import stnbench.cli.main as program
def slow(name):
    print("ready", flush=True)
    try:
        time.sleep(30)
    except BaseException as error:
        raise ImportError("half imported") from error
importlib.import_module = slow
sys.argv = ["stnbench", "status"]
program.script()
"""


DURING_ITS_IMPORTS = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "stnbench.core.command":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["x", "--help"]
runpy.run_module(os.environ["MODULE"], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "module", ["sweep", "train", "status", "evaluate", "mirror", "report", "data", "show", "store", "__main__"]
)
def test_ctrl_c_while_a_command_is_imported_is_a_line(module: str) -> None:
    """However early: before the module that handles signals is there."""
    ended = subprocess.run(
        [sys.executable, "-c", DURING_ITS_IMPORTS],
        env=os.environ | {"MODULE": f"stnbench.{module}"},
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted by SIGINT, at once\n")


def interrupt(program: str, *signals: signal.Signals, ignored: bool = False) -> tuple[int, str]:
    """Run a program, and send it signals once it is ready; its exit code and what it said."""
    command = [sys.executable, "-c", program]
    if ignored:
        command = ["nohup", *command]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"STNBENCH_LOG": "off"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        for number in signals:
            process.send_signal(number)
        said = process.communicate(timeout=patient(60))[1]
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("program", [RUN, SLOW_IMPORT], ids=["at work", "importing"])
def test_a_signal_ends_a_command_with_a_line(program: str, number: signal.Signals) -> None:
    """Also while modules are imported, where an exception could become any other; shells are told which it was."""
    code, said = interrupt(program, number)
    assert code == 128 + number
    assert f"interrupted by {number.name}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("program", [RUN, SLOW_IMPORT], ids=["at work", "importing"])
def test_two_quick_ones_are_no_other_than_one(program: str) -> None:
    """The second finds the command on its way out."""
    code, said = interrupt(program, signal.SIGINT, signal.SIGINT)
    assert code == 128 + signal.SIGINT
    assert "interrupted" in said
    assert "Traceback" not in said


def test_a_hangup_changes_nothing_under_nohup() -> None:
    """What ignores it already goes on; SIGTERM ends it."""
    code, said = interrupt(RUN, signal.SIGHUP, signal.SIGTERM, ignored=True)
    assert code == 128 + signal.SIGTERM
    assert "SIGHUP" not in said
