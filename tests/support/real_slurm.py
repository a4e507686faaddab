"""A real Slurm of this machine alone: munged, slurmctld and slurmd with folders, ports and a key of their own.

Debian's packages are ``munge``, ``slurmctld``, ``slurmd`` and ``slurm-client``. The daemons run as whoever runs the
tests; slurmd needs root.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from commands import patient

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/slurmd
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=5
MinJobAge=10
NodeName={host} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here; empty where one can."""
    missing = [program for program in PROGRAMS if _found(program) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@contextlib.contextmanager
def real_slurm(folder: Path) -> Iterator[Path]:
    """A cluster of one node with two CPUs for the block; its configuration, which SLURM_CONF is to name.

    Raises: TimeoutError where the node does not come up, with what the daemons have logged.
    """
    folder.mkdir(parents=True)
    for name in ("slurmd", "state"):
        (folder / name).mkdir()
    key = folder / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    host, user = socket.gethostname(), "root"
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, user=user, **ports))
    munge = {name: f"--{name}={folder}/{file}" for name, file in _MUNGE_FILES.items()}
    try:
        _run("munged", "--force", f"--key-file={key}", *munge.values())
        for daemon in ("slurmctld", "slurmd"):
            _run(daemon, "-f", str(configuration))
        _await_node(folder, configuration)
        yield configuration
    finally:
        _cancel_jobs(configuration)
        for pid_file in ("slurmd.pid", "slurmctld.pid", "munged.pid"):
            _end(folder / pid_file)


_MUNGE_FILES = {"socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "seed"}


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _run(program: str, *arguments: str) -> None:
    subprocess.run([str(_found(program)), *arguments], check=True, timeout=patient(30), stdin=subprocess.DEVNULL)


def _await_node(folder: Path, configuration: Path, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + patient(timeout_s)
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    command = [str(_found("sinfo")), "--noheader", "--format=%T"]
    while "idle" not in subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout:
        if time.monotonic() > deadline:
            logs = [path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log")]
            raise TimeoutError("\n".join(logs))
        time.sleep(0.2)


def _cancel_jobs(configuration: Path, timeout_s: float = 20.0) -> None:
    """End what a test that failed has left running: jobs outlive their daemons."""
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    deadline = time.monotonic() + patient(timeout_s)
    with contextlib.suppress(subprocess.TimeoutExpired):
        while time.monotonic() < deadline:
            subprocess.run(
                [str(_found("scancel")), "--user=root"], env=environment, capture_output=True, check=False, timeout=20
            )
            listed = [str(_found("squeue")), "--noheader", "--format=%i"]
            left = subprocess.run(listed, env=environment, capture_output=True, text=True, check=False, timeout=20)
            if not left.stdout.strip():
                return
            time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(pid_file: Path, timeout_s: float = 15.0) -> None:
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + patient(timeout_s)
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
