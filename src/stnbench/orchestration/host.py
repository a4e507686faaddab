"""Which process this is, so that another can later tell whether it still lives.

No wall clock decides that: it may be set while a sweep runs. A process is known by its number and by when it began,
counted from the boot of the machine.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from stnbench.spec.codec import Strict

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19
"""Of ``/proc/PID/stat`` after the name of the program: when the process began, in clock ticks since boot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity(Strict):
    """A process on a host since a boot; ``session`` is drawn anew for every orchestrator.

    ``start_ticks`` is when it began, since boot; 0 where the system does not tell.
    """

    host: str
    pid: int
    boot_id: str
    session: str
    start_ticks: int = 0

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """This process."""
        boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(int(psutil.boot_time()))
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            pid=pid,
            boot_id=boot_id,
            session=secrets.token_hex(6),
            start_ticks=start_ticks(pid),
        )

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"process {self.pid} on {self.host}"

    def is_alive(self) -> bool:
        """Whether it lives, asked on its host since its boot; another process may have its number by now."""
        return psutil.pid_exists(self.pid) and self.start_ticks in {0, start_ticks(self.pid)}


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[_START_FIELD])
    except (OSError, ValueError, IndexError):
        return 0
