"""NVIDIA's Multi-Process Service: kernels of several processes run on a GPU at the same time, and not in turns.

Without it processes that share a GPU get time slices. Its daemon needs no rights but those of the user, and is started
for a sweep that asks for it, with folders of its own; nothing about the GPU is changed. A kernel that goes wrong ends
all processes of the service, so a fault costs the attempts of all slots, which are tried again.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Final

from stnbench.core.errors import EngineError
from stnbench.engines.slots import BY_PCI_BUS, ORDER_VARIABLE

PIPE_VARIABLE: Final = "CUDA_MPS_PIPE_DIRECTORY"
LOG_VARIABLE: Final = "CUDA_MPS_LOG_DIRECTORY"

_CONTROL: Final = "nvidia-cuda-mps-control"
_TIMEOUT_S: Final = 20.0


def require_mps() -> str:
    """The path of the daemon's program. Raises: EngineError where it is not installed."""
    control = shutil.which(_CONTROL)
    if control is None:
        remedy = "it comes with the NVIDIA driver; without --mps trials share a GPU by turns"
        raise EngineError(f"--mps needs {_CONTROL}, which is not found", remedy=remedy)
    return control


@contextlib.contextmanager
def mps_daemon() -> Iterator[None]:
    """A block in which processes that are started share GPUs by a daemon of its own, which ends with it.

    Raises: EngineError where the daemon is not installed, or cannot start.
    """
    control = require_mps()
    folder = tempfile.mkdtemp(prefix="stn-mps-")
    own = {PIPE_VARIABLE: folder, LOG_VARIABLE: folder}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        _run([control, "-d"], "")
        try:
            yield
        finally:
            with contextlib.suppress(EngineError):  # one that is gone already ends nothing
                _run([control], "quit\n")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], said: str) -> None:
    environment = {**os.environ, ORDER_VARIABLE: os.environ.get(ORDER_VARIABLE, BY_PCI_BUS)}
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own tool, no input of ours
            command, input=said, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{_CONTROL} does not work ({error})", remedy="leave --mps out") from error
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise EngineError(f"{_CONTROL} failed ({told[-1] if told else done.returncode})", remedy="leave --mps out")
