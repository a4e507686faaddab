"""Which slots a cluster offers: a pure decision from what its nodes have, made once before anything starts."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stnbench.core.errors import EngineError, SpecError

_RESOURCE_STEP = 10_000
"""Ray counts resources in parts of ten thousand; a share is rounded down to them, so that all shares of a node fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine of the cluster and the CPUs, GPUs and main memory that it gives to trials."""

    node_id: str
    name: str
    cpus: float
    gpus: float
    memory_mib: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The part of a node that one slot takes: CPUs and GPUs as the cluster counts them, and its thread budget.

    ``node`` is a name that no other node has; ``memory_mib`` the main memory of the whole node, where it is known.
    """

    name: str
    node: str
    node_id: str
    cpus: float
    gpus: float
    threads: int
    memory_mib: float | None = None


def living_nodes(table: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The nodes of Ray's table that are alive, sorted by name: that of ``ray start --node-name``, or of the host."""
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
    """Shares of the nodes: ``per_gpu`` on every GPU of the cluster, else one a CPU with one thread each.

    ``slots`` sets how many CPU shares there are, each with an equal part of its node's CPUs as threads; with GPUs it
    limits how many are used. The first shares lie on different nodes.
    Raises: SpecError for a number below 1; EngineError where no node has a GPU or a whole CPU.
    """
    for name, value in (("slots", slots), ("slots per GPU", per_gpu)):
        if value is not None and value < 1:
            raise SpecError(f"{name} is {value}", remedy="use a whole number of at least 1")
    gpus = [int(node.gpus) for node in nodes]
    rooms = [count * per_gpu for count in gpus] if any(gpus) else [int(node.cpus) for node in nodes]
    if not any(rooms):
        raise EngineError("no node of the cluster has a GPU or a CPU for trials", remedy="see `ray status`")
    count = slots or sum(rooms)
    # More slots than CPUs are what was asked for; a GPU holds no more slots than were asked for each.
    counts = _divide(rooms, min(count, sum(rooms)) if any(gpus) else count)
    shares = [
        _shares_of(node, name, count, gpus=1 / per_gpu if gpu else 0.0)
        for node, name, count, gpu in zip(nodes, _distinct_names(nodes), counts, gpus, strict=True)
    ]
    by_turn = itertools.zip_longest(*shares)
    return tuple(share for turn in by_turn for share in turn if share is not None)


def _divide(rooms: Sequence[int], count: int) -> list[int]:
    """How many slots each node gets: one after the other goes where the most room a slot is left."""
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
    """Names that can be part of a file's name; nodes of one name are told apart by the start of their identity."""
    plain = [re.sub(r"[^\w.-]+", "_", node.name) for node in nodes]
    times = Counter(plain)
    return [name if times[name] == 1 else f"{name}-{node.node_id[:6]}" for name, node in zip(plain, nodes, strict=True)]
