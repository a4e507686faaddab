"""A real Ray cluster on this machine: every node has processes of its own, and dies as a machine does."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

OBJECT_STORE_BYTES = 80 << 20

SETTINGS = {
    # A token for this cluster alone, which Ray would otherwise leave in the home folder.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    # A lost node is noticed in a second and a half, not in half a minute.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}


class RayCluster:
    """A cluster whose head, where drivers connect, has no room for trials unless it is given some."""

    def __init__(self, head_cpus: int, head_gpus: int) -> None:
        from ray._raylet import Config  # type: ignore[attr-defined] # of a compiled module
        from ray.cluster_utils import Cluster

        Config.initialize("")  # Ray may have been imported before the settings were made
        options = {"num_cpus": head_cpus, "num_gpus": head_gpus, "object_store_memory": OBJECT_STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})

    @property
    def address(self) -> str:
        """What RAY_ADDRESS is to be."""
        return str(self._cluster.address)

    def add_node(self, name: str, *, cpus: int) -> Any:
        """Start a node and wait until it has joined."""
        return self._cluster.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES, node_name=name)

    def kill_node(self, node: Any) -> None:
        """Kill -9 every process of a node."""
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End every node."""
        self._cluster.shutdown()  # type: ignore[no-untyped-call] # Ray leaves it untyped


@contextmanager
def ray_cluster(*, head_cpus: int = 0, head_gpus: int = 0) -> Iterator[RayCluster]:
    """A cluster for the block, after which no process of it is left.

    Raises: AssertionError where one is.
    """
    scratch = tempfile.mkdtemp(prefix="ray-")  # what killed nodes leave behind, which is no test's
    settings = {**SETTINGS, "RAY_TMPDIR": scratch, "TMPDIR": scratch}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        cluster = RayCluster(head_cpus, head_gpus)
        try:
            yield cluster
        finally:
            cluster.close()
        assert left_of(psutil.Process().children(recursive=True)) == []
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(scratch, ignore_errors=True)


def left_of(processes: Sequence[psutil.Process], timeout_s: float = 10.0) -> list[psutil.Process]:
    """Those of the processes that are Ray's or a worker's, and still alive after so long."""
    deadline = time.monotonic() + timeout_s
    while (left := [process for process in processes if _is_ours(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _is_ours(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and any(sign in command for sign in ("ray", "worker"))
    except psutil.NoSuchProcess:
        return False
