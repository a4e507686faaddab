"""Nothing of MLflow's server is left when the command that started it ends, however it ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PROGRAM = """
import sys
from stnbench.tracking import mlflow_server
child = "import subprocess, sys, time; sleep = [sys.executable, '-c', 'import time; time.sleep(60)'];"
child += " print(subprocess.Popen(sleep).pid, flush=True); time.sleep(60)"
stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if sys.argv[1] == "stubborn" else ""
mlflow_server.GRACE_S = 0.5
with mlflow_server._signals() as received:
    sys.exit(mlflow_server._run([sys.executable, "-c", stubborn + child], {}, received))
"""


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("manner", ["obedient", "stubborn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_the_servers_children_end_with_the_command(number: signal.Signals, manner: str, tmp_path: Path) -> None:
    """SIGTERM, SIGHUP, Ctrl-C and even kill -9 take the server's own processes along."""
    command = [sys.executable, "-c", PROGRAM, manner]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        grandchild = psutil.Process(int(process.stdout.readline()))
        process.send_signal(number)
        code = process.wait(timeout=30)
    expected = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    assert code == expected.get(number, code)
    deadline = time.monotonic() + 10
    while grandchild.is_running() and grandchild.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
