"""The remote side of a slot: the shares of a cluster's nodes, the host that runs there and the files it is sent."""

import dataclasses
import io
import itertools
import json
import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from zipfile import ZipFile

from stnbench.core.errors import EngineError, ProtocolError, SpecError
from stnbench.core.files import DATA_VARIABLE, AttemptLayout, write_atomic
from stnbench.core.identity import RESULTS_VERSION, Json
from stnbench.engines import Ending, Epoch, Launch, Slot, decode, encode
from stnbench.engines.local import LocalEngine
from stnbench.engines.slots import device_memory_mib, visible_gpus
from stnbench.spec.data import Split

# The slots that a cluster offers: a pure decision from the resources of its nodes, made once before anything starts.


_RESOURCE_STEP = 10_000
"""Ray counts resources in ten-thousandths; a share is rounded down to them, so that all shares of a node fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine of the cluster with the CPUs, GPUs and main memory (MiB) that it gives to trials."""

    node_id: str
    name: str
    cpus: float
    gpus: float
    memory_mib: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The part of a node that one slot takes: CPUs and GPUs as the cluster counts them, and the thread budget.

    ``node`` is a unique name; ``memory_mib`` is the main memory of the whole node, where it is known.
    """

    name: str
    node: str
    node_id: str
    cpus: float
    gpus: float
    threads: int
    memory_mib: float | None = None


def living_nodes(table: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Return the living nodes of Ray's table, sorted by name: that of ``ray start --node-name``, or of the host."""
    found = []
    for row in table:
        name = row["NodeManagerHostname"] if row["NodeName"] == row["NodeManagerAddress"] else row["NodeName"]
        has = row["Resources"]
        memory_mib = has["memory"] / (1 << 20) if "memory" in has else None
        cpus, gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
        node = Node(node_id=row["NodeID"], name=name, cpus=cpus, gpus=gpus, memory_mib=memory_mib)
        found += [node] if row["Alive"] else []
    return sorted(found, key=lambda node: (node.name, node.node_id))


def plan_shares(nodes: Sequence[Node], *, slots: int | None = None, per_gpu: int = 1) -> tuple[Share, ...]:
    """Divide the nodes into shares: ``per_gpu`` on every GPU of the cluster, or else one per CPU with one thread each.

    ``slots`` sets the number of CPU shares, each with an equal part of its node's CPUs as threads; with GPUs it limits
    the number of shares. The first shares are on different nodes.

    Raises:
        SpecError: for a number below 1.
        EngineError: if no node has a GPU or a whole CPU.
    """
    for name, value in (("slots", slots), ("slots per GPU", per_gpu)):
        if value is not None and value < 1:
            raise SpecError(f"{name} is {value}", remedy="use a whole number of at least 1")
    gpus = [int(node.gpus) for node in nodes]
    rooms = [count * per_gpu for count in gpus] if any(gpus) else [int(node.cpus) for node in nodes]
    if not any(rooms):
        raise EngineError("no node of the cluster has a GPU or a CPU for trials", remedy="see `ray status`")
    count = slots or sum(rooms)
    # More slots than CPUs are possible on request; a GPU holds no more than ``per_gpu`` slots.
    counts = _divide(rooms, min(count, sum(rooms)) if any(gpus) else count)
    shares = [
        _shares_of(node, name, count, gpus=1 / per_gpu if gpu else 0.0)
        for node, name, count, gpu in zip(nodes, _distinct_names(nodes), counts, gpus, strict=True)
    ]
    by_turn = itertools.zip_longest(*shares)
    return tuple(share for turn in by_turn for share in turn if share is not None)


def _divide(rooms: Sequence[int], count: int) -> list[int]:
    """Return the number of slots of each node: each slot in turn goes to the node with the most room per slot."""
    counts = [0] * len(rooms)
    for _ in range(count):
        best = max(range(len(rooms)), key=lambda index: rooms[index] / (counts[index] + 1))
        counts[best] += 1
    return counts


def _shares_of(node: Node, name: str, count: int, *, gpus: float) -> list[Share]:
    if not count:
        return []
    threads = max(1, int(node.cpus // count))
    cpus = _round_down(min(threads, node.cpus / count))
    kind = "gpu" if gpus else "cpu"
    return [
        Share(
            name=f"{name}-{kind}{index}",
            node=name,
            node_id=node.node_id,
            cpus=cpus,
            gpus=_round_down(gpus),
            threads=threads,
            memory_mib=node.memory_mib,
        )
        for index in range(count)
    ]


def _round_down(amount: float) -> float:
    return math.floor(amount * _RESOURCE_STEP) / _RESOURCE_STEP


def _distinct_names(nodes: Sequence[Node]) -> list[str]:
    """Return names that can be part of a file name; nodes of the same name get the start of their id as a suffix."""
    plain = [re.sub(r"[^\w.-]+", "_", node.name) for node in nodes]
    times = Counter(plain)
    return [name if times[name] == 1 else f"{name}-{node.node_id[:6]}" for name, node in zip(plain, nodes, strict=True)]


# The engine's view of a host, which runs the attempts of one slot on a node of a cluster.


@dataclass(slots=True)
class Host:
    """A handle on a ``SlotHost``: ``reply`` is its pending answer, ``token`` the attempt that it runs.

    For a lost host, ``lost_because`` is the reason and ``reopen_at_s`` the time at which another is opened in its
    place; a host that is to kill its attempt must have done so by ``give_up_at_s``.
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
        """Return whether the host has described itself and is not lost."""
        return bool(self.device)

    @property
    def is_free(self) -> bool:
        """Return whether the host can begin an attempt."""
        return self.is_open and not self.token

    def welcome(self, described: str) -> None:
        """Record the description of the host, as ``SlotHost.describe`` returns it.

        Raises:
            EngineError: if its code has another results version.
        """
        told = json.loads(described)
        version = told["results_version"]
        if version != RESULTS_VERSION:
            problem = f"{told['host']} has results version {version}, not {RESULTS_VERSION}"
            raise EngineError(problem, remedy="install one version of stnbench on every node")
        self.device, self.memory_mib, self.pid = told["device"], told["memory_mib"], told["pid"]

    def forget(self, reason: str, *, reopen_at_s: float) -> None:
        """Mark the host as lost for a reason, to be opened again at ``reopen_at_s``."""
        self.token, self.device, self.reply, self.give_up_at_s = "", "", None, None
        self.lost_because, self.reopen_at_s = reason, reopen_at_s

    def slot(self) -> Slot:
        """Return the slot that the host was opened for; its device carries the name of the node.

        The memory of a GPU is reported by the host, the main memory of a node by the cluster.
        """
        memory_mib = self.memory_mib if self.share.gpus else self.share.memory_mib
        device = f"{self.share.node}:{self.device}"
        return Slot(name=self.share.name, device=device, threads=self.share.threads, memory_mib=memory_mib)


# The remote side of a slot: the object on a node of a cluster that executes the attempts of one slot.
#
# It does not depend on the cluster. Requests and answers are bytes and text, so that the transport needs none of the
# classes of this package.


REPLY_S = 0.5
"""Seconds that an answer may wait for events; a request to stop or to kill waits at most as long."""

CHECKPOINT_PERIOD_S = 30.0
"""Seconds between two transfers of a running attempt's checkpoint, so that a lost node costs no more than this."""

Parcel = tuple[list[bytes], dict[str, bytes]]
"""Events in order, one encoded message each, and files of the attempt by name; all files are sent with its end."""


class SlotHost:
    """A slot on this node: a local engine with one slot that works in a scratch folder.

    The attempt's folder and the earlier one to resume from are on the orchestrator's machine; here they are scratch
    copies, and their files are transferred. The data folder is this node's ``STNBENCH_DATA``, or else has the same path
    as the orchestrator's.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        is_cuda: bool,
        command: Sequence[str] | None = None,
        reply_s: float = REPLY_S,
        checkpoint_period_s: float = CHECKPOINT_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        gpus = visible_gpus() if is_cuda else ()
        if is_cuda and not gpus:
            raise EngineError(f"slot {name} was given a GPU that it cannot see", remedy="see `nvidia-smi` on its node")
        self._slot = Slot(name=name, device=gpus[0] if gpus else "cpu", threads=threads)
        self._scratch = Path(tempfile.mkdtemp(prefix="stnbench-slot-"))
        self._engine = LocalEngine([self._slot], self._scratch / "logs", command=command)
        self._engine.warm_up()
        self._reply_s = reply_s
        self._checkpoint_period_s = checkpoint_period_s
        self._clock = clock
        self._sent_s = 0.0
        self._token = ""
        self._has_news = False

    def describe(self) -> str:
        """Return a JSON object with ``host``, ``pid``, ``device``, ``memory_mib`` and ``results_version``.

        The memory is that of the device in MiB, null where it is not known.
        """
        device = self._slot.device
        described: dict[str, Json] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
            "memory_mib": device_memory_mib([device]).get(device),
            "results_version": RESULTS_VERSION,
        }
        return json.dumps(described)

    def begin(self, launch: bytes, earlier: dict[str, bytes]) -> Parcel:
        """Begin an attempt, from the files of an earlier one if there are any, and return the first events.

        Raises:
            ProtocolError: if an attempt already runs, or ``launch`` is not a launch.
            OSError: if the scratch folder cannot be written.
        """
        message = decode(launch)
        if not isinstance(message, Launch):
            raise ProtocolError(
                "a slot was asked to begin something that is not an attempt", remedy="this is a bug of the engine"
            )
        if self._token:
            raise ProtocolError(f"slot {self._slot.name} already runs attempt {self._token}", remedy="wait for its end")
        self._engine.poll(0.0)  # a worker that died in the meantime must not cost this attempt
        self._clear()
        self._folder.mkdir()
        if earlier:
            self._earlier.mkdir()
            write_files(self._earlier, earlier)
        here = dataclasses.replace(
            message,
            folder=str(self._folder),
            data_root=os.environ.get(DATA_VARIABLE) or message.data_root,
            resume_from=(str(self._earlier),) if earlier else (),
            source=message.source if Path(message.source).is_dir() else "",
        )
        self._token, self._sent_s, self._has_news = message.token, self._clock(), False
        self._engine.submit(self._slot, here)
        return self.poll()

    def poll(self) -> Parcel:
        """Return the events since the last answer, after waiting up to ``reply_s`` for the first."""
        events = self._engine.poll(self._reply_s)
        files: dict[str, bytes] = {}
        self._has_news |= any(isinstance(event, Epoch) for event in events)
        if any(isinstance(event, Ending) for event in events):
            files = _read_files(AttemptLayout(self._folder), only_checkpoint=False)
            self._clear()
            self._token = ""
        elif self._has_news and self._clock() - self._sent_s >= self._checkpoint_period_s:
            files = _read_files(AttemptLayout(self._folder), only_checkpoint=True)
            self._sent_s, self._has_news = self._clock(), False
        return [encode(event) for event in events], files

    def stop(self, token: str) -> None:
        """Ask the attempt to stop at its next step."""
        self._engine.stop(token)

    def kill(self, token: str) -> None:
        """End the attempt's process now."""
        self._engine.kill(token)

    def release(self) -> None:
        """End the worker if it is idle, so that its memory is freed."""
        self._engine.release(self._slot)

    def close(self) -> None:
        """End the worker and remove the scratch folder."""
        self._engine.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return self._scratch / "attempt"

    @property
    def _earlier(self) -> Path:
        return self._scratch / "earlier"

    def _clear(self) -> None:
        for folder in (self._folder, self._earlier):
            shutil.rmtree(folder, ignore_errors=True)


def earlier_files(launch: Launch) -> tuple[dict[str, bytes], list[Path]]:
    """Return the files to resume from on the orchestrator's machine: the latest whole checkpoint and its snapshots.

    No files are returned, to start from the beginning, if no attempt left a checkpoint.

    Returns:
        The files by name, and the paths of the checkpoints that are damaged.
    """
    damaged: list[Path] = []
    for layout in map(AttemptLayout, map(Path, launch.resume_from)):
        try:
            files = _read_files(layout, only_checkpoint=True)
        except OSError:
            continue
        if layout.checkpoint.name in files:
            if _is_whole(files[layout.checkpoint.name]):
                return files, damaged
            damaged.append(layout.checkpoint)
    return {}, damaged


def _is_whole(checkpoint: bytes) -> bool:
    """Check the CRC of every part of an archive; the remote side finds any other damage, with torch."""
    try:
        with ZipFile(io.BytesIO(checkpoint)) as parts:
            return parts.testzip() is None
    except Exception:  # noqa: BLE001 - a damaged archive makes zipfile fail in any way
        return False


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files of a parcel into an attempt's folder, its result last: if that exists, all files do.

    Raises:
        OSError: for example if the disk is full.
        EngineError: if there is a file that no attempt has.
    """
    layout = AttemptLayout(folder)
    known = {path.name: path for path in _paths(layout)}
    strange = sorted(files.keys() - known.keys())
    if strange:
        raise EngineError(f"a slot sent files that no attempt has: {strange}", remedy="run one version on all nodes")
    for name, path in known.items():
        if name in files:
            write_atomic(path, files[name])


def _read_files(layout: AttemptLayout, *, only_checkpoint: bool) -> dict[str, bytes]:
    paths = _going_on(layout) if only_checkpoint else _paths(layout)
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _going_on(layout: AttemptLayout) -> tuple[Path, ...]:
    return (layout.checkpoint, layout.snapshots)


def _paths(layout: AttemptLayout) -> tuple[Path, ...]:
    """Return the path of every file that an attempt may have, the result last."""
    return (layout.spec, layout.log, *_going_on(layout), *map(layout.probabilities, get_args(Split)), layout.result)
