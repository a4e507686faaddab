"""Which process this is, so that another can later tell whether it still lives."""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity:
    """A process on a host since a boot; ``session`` is drawn anew for every orchestrator."""

    host: str
    pid: int
    boot_id: str
    session: str

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """This process."""
        boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(int(psutil.boot_time()))
        return cls(host=socket.gethostname(), pid=os.getpid(), boot_id=boot_id, session=secrets.token_hex(6))

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"process {self.pid} on {self.host}"
