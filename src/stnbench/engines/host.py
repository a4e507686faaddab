"""A host as its engine sees it: what runs the attempts of one slot somewhere on a cluster."""

import json
from dataclasses import dataclass
from typing import Any

from stnbench.core.errors import EngineError
from stnbench.core.identity import RESULTS_VERSION
from stnbench.engines.base import Slot
from stnbench.engines.cluster import Share


@dataclass(slots=True)
class Host:
    """A handle on a ``SlotHost``: ``reply`` is the answer that it owes, ``token`` the attempt that it runs.

    One that was lost says why, and when another is to be opened in its place; one that is to kill its attempt must have
    done so by ``give_up_at_s``.
    """

    share: Share
    actor: Any
    reply: Any
    token: str = ""
    device: str = ""
    memory_mib: float | None = None
    pid: int = 0
    lost_because: str = ""
    reopen_at_s: float | None = None
    give_up_at_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has said where it is, and is not lost."""
        return bool(self.device)

    @property
    def is_free(self) -> bool:
        """Whether it can begin an attempt."""
        return self.is_open and not self.token

    def welcome(self, described: str) -> None:
        """Take note of where it is, as ``SlotHost.describe`` says.

        Raises: EngineError where its code gives results another meaning.
        """
        told = json.loads(described)
        version = told["results_version"]
        if version != RESULTS_VERSION:
            problem = f"{told['host']} has results version {version}, not {RESULTS_VERSION}"
            raise EngineError(problem, remedy="install one version of stnbench on every node")
        self.device, self.memory_mib, self.pid = told["device"], told["memory_mib"], told["pid"]

    def forget(self, reason: str, *, reopen_at_s: float) -> None:
        """It was lost."""
        self.token, self.device, self.reply, self.give_up_at_s = "", "", None, None
        self.lost_because, self.reopen_at_s = reason, reopen_at_s

    def slot(self) -> Slot:
        """The slot it was opened for; its device is its node's.

        How much main memory a node gives the cluster knows, how much a GPU has its host.
        """
        memory_mib = self.memory_mib if self.share.gpus else self.share.memory_mib
        device = f"{self.share.node}:{self.device}"
        return Slot(name=self.share.name, device=device, threads=self.share.threads, memory_mib=memory_mib)
