"""The Ray engine, which runs attempts on the nodes of a Ray cluster, with one warm host per slot.

A host is an actor that holds its share of a node's CPUs and GPUs and runs a worker process there. An attempt's files
are returned with its events and written here, so the runs folder needs no shared file system and has a single writer.

The slots are fixed when the engine starts. When a node is lost, its attempts are lost, and its hosts are opened again
wherever the cluster has room; until then an attempt submitted to a slot without a host takes the next host that is
free. A sweep therefore ends on whatever nodes are left.
"""

import contextlib
import logging
import os
import re
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from stnbench.core.errors import EngineError, ProtocolError
from stnbench.core.process import available_cores
from stnbench.core.text import printable
from stnbench.engines import Ending, Engine, EngineEvent, Failed, Launch, Lost, Note, Slot, Stopped, decode, encode
from stnbench.engines.guard import Guard
from stnbench.engines.remote import Host, Parcel, Share, SlotHost, earlier_files, living_nodes, plan_shares, write_files
from stnbench.engines.slots import visible_gpus
from stnbench.trials.failures import classify, shorten

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise EngineError(f"the ray engine needs Ray ({error})", remedy="pip install 'stnbench[ray]'") from error

LOCAL = ("local", "", None)
"""Addresses that stand for a new cluster on this machine."""

REACH_S = 10.0
"""Seconds that the head of a cluster may take to answer."""

START_S = 60.0
"""Seconds that the hosts may take to start; slots whose host has not started by then are dropped."""

OWN_START_S = 600.0
"""The same in a cluster that was started here, which has room for each: a busy machine starts processes slowly."""

REOPEN_S = 5.0
"""Seconds after the loss of a host until another is requested."""

ANSWER_S = 15.0
"""Seconds that a host may take to kill an attempt, or to end itself, before Ray ends the host."""

OBJECT_STORE_BYTES = 256 << 20
"""Shared memory of a local cluster in bytes, for objects in transfer: at most the checkpoints of a few attempts."""


class RayEngine(Engine):
    """Engine with slots on every node of a Ray cluster.

    ``address`` is that of the cluster; with None or ``local`` a cluster is started on this machine. ``slots`` and
    ``slots_per_gpu`` are as for ``plan_shares``; ``warn`` receives a message for each lost slot.

    Raises:
        EngineError: if there is no cluster, or no room in it.
        SpecError: if a number is below 1.
    """

    def __init__(
        self,
        address: str | None,
        *,
        slots: int | None = None,
        slots_per_gpu: int = 1,
        command: Sequence[str] | None = None,
        start_s: float | None = None,
        warn: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._warn = warn
        self._clock = clock
        self._events: deque[EngineEvent] = deque()
        self._attempts: dict[str, tuple[Slot, Launch]] = {}
        self._waiting: deque[str] = deque()
        self._hosts: list[Host] = []
        self._is_closed = False
        if ray.is_initialized():
            raise EngineError("this process uses a Ray cluster already", remedy="close the engine that uses it")
        self._guard = Guard() if address in LOCAL else None
        try:
            _connect(address, self._guard)
            nodes = living_nodes(ray.nodes())  # type: ignore[no-untyped-call]
            shares = plan_shares(nodes, slots=slots, per_gpu=slots_per_gpu)
            self._hosts = [self._open(share, is_pinned=True) for share in shares]
            usual_s = OWN_START_S if address in LOCAL else START_S
            self._await_hosts(usual_s if start_s is None else start_s)
        except BaseException:
            self.close()
            raise
        self._slots = tuple(host.slot() for host in self._hosts)

    @property
    @override
    def slots(self) -> Sequence[Slot]:
        return self._slots

    @property
    @override
    def waiting(self) -> Collection[str]:
        return tuple(self._waiting)

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        for other, running in self._attempts.values():
            if other.name == slot.name:
                raise ProtocolError(f"slot {slot.name} already runs attempt {running.token}", remedy="wait for its end")
        self._attempts[launch.token] = (slot, launch)
        self._waiting.append(launch.token)
        self._serve()

    @override
    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        self._receive(0.0 if self._events else timeout_s)
        self._tend()
        self._serve()
        events = tuple(self._events)
        self._events.clear()
        return events

    @override
    def stop(self, token: str) -> None:
        host = self._host_of(token)
        if host is not None:
            host.actor.stop.remote(token)
        else:
            self._withdraw(token)

    @override
    def kill(self, token: str) -> None:
        host = self._host_of(token)
        if host is not None:
            host.actor.kill.remote(token)
            host.give_up_at_s = host.give_up_at_s or self._clock() + ANSWER_S
        else:
            self._withdraw(token)

    @override
    def release(self, slot: Slot) -> None:
        host = next((host for host in self._hosts if host.is_free and host.share.name == slot.name), None)
        if host is not None:
            with contextlib.suppress(RayError):
                ray.wait([host.actor.release.remote()], timeout=ANSWER_S)

    @override
    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        hosts, self._hosts = self._hosts, []
        with contextlib.suppress(RayError):
            closing = [host.actor.close.remote() for host in hosts if host.is_open]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=ANSWER_S)
        for host in hosts:
            _end(host)
        ray.shutdown()
        if self._guard is not None:
            self._guard.close()

    def _open(self, share: Share, *, is_pinned: bool) -> Host:
        """Request a host: on the node that it was planned for if ``is_pinned``, otherwise wherever there is room."""
        strategy: Any = NodeAffinitySchedulingStrategy(share.node_id, soft=False) if is_pinned else "DEFAULT"
        kind: Any = ray.remote(SlotHost)
        actor = kind.options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, max_task_retries=0, scheduling_strategy=strategy
        ).remote(share.name, threads=share.threads, is_cuda=share.gpus > 0, command=self._command)
        return Host(share=share, actor=actor, reply=actor.describe.remote())

    def _await_hosts(self, start_s: float) -> None:
        deadline_s = self._clock() + start_s
        while (left_s := deadline_s - self._clock()) > 0 and not all(host.is_open for host in self._hosts):
            self._receive(left_s)
            lost = next((host for host in self._hosts if host.lost_because), None)
            if lost is not None:
                remedy = "install this version of stnbench on every node, and see Ray's logs there"
                raise EngineError(
                    f"slot {lost.share.name} cannot be opened: {printable(lost.lost_because)}", remedy=remedy
                )
        absent = [host for host in self._hosts if not host.is_open]
        if len(absent) == len(self._hosts):
            raise EngineError(f"the cluster had no room for a slot in {start_s:g} s", remedy="see `ray status`")
        for host in absent:
            _end(host)
            self._warn(f"slot {host.share.name} is done without: its node had no room in {start_s:g} s")
        self._hosts = [host for host in self._hosts if host.is_open]

    def _host_of(self, token: str) -> Host | None:
        return next((host for host in self._hosts if host.token and host.token == token), None)

    def _withdraw(self, token: str) -> None:
        """Report an attempt that waits for a host as stopped: it has not begun, is not lost and costs no retry."""
        if token in self._waiting:
            self._waiting.remove(token)
            del self._attempts[token]
            self._events.append(Stopped(token=token))

    def _serve(self) -> None:
        """Give waiting attempts a host: that of their slot if it is free, otherwise another."""
        free = [host for host in self._hosts if host.is_free]
        while free and self._waiting:
            token = self._waiting.popleft()
            slot, launch = self._attempts[token]
            host = next((host for host in free if host.share.name == slot.name), free[0])
            free.remove(host)
            host.token = token
            files, left_out = earlier_files(launch)
            self._events.extend(Note(token=token, message=f"{path} is damaged; it is left out") for path in left_out)
            host.reply = host.actor.begin.remote(encode(launch), files)

    def _receive(self, wait_s: float) -> None:
        """Process every available answer, after waiting up to ``wait_s`` for the first."""
        owed = {host.reply: host for host in self._hosts if host.reply is not None}
        if not owed:
            time.sleep(wait_s)
            return
        ready, _ = ray.wait(list(owed), num_returns=1, timeout=wait_s)
        if ready and len(owed) > 1:
            ready, _ = ray.wait(list(owed), num_returns=len(owed), timeout=0)
        for reply in ready:
            self._take(owed[reply])

    def _take(self, host: Host) -> None:
        reply, host.reply = host.reply, None
        try:
            answer = ray.get(reply)
            if host.is_open:
                self._unpack(host, answer)
            else:
                host.welcome(answer)
        except (RayError, EngineError) as error:
            self._lose(host, _reason(error))

    def _unpack(self, host: Host, parcel: Parcel) -> None:
        """Write the files of a parcel, then queue its events: a result exists before its attempt has finished."""
        lines, files = parcel
        events = [message for message in map(decode, lines) if isinstance(message, EngineEvent)]
        is_over = any(isinstance(event, Ending) for event in events)
        try:
            write_files(Path(self._attempts[host.token][1].folder), files)
        except OSError as error:
            if is_over:  # without its files an attempt has failed; an intermediate checkpoint is dispensable
                events[-1] = Failed(token=host.token, failure=classify(error))
        self._events.extend(events)
        if is_over:
            del self._attempts[host.token]
            host.token, host.give_up_at_s = "", None
        else:
            host.reply = host.actor.poll.remote()

    def _tend(self) -> None:
        """End hosts that do not answer, and reopen those that were lost."""
        now_s = self._clock()
        for index, host in enumerate(self._hosts):
            if host.give_up_at_s is not None and now_s >= host.give_up_at_s:
                self._lose(host, f"it was to be killed and did not answer for {ANSWER_S:g} s")
            if host.reopen_at_s is not None and now_s >= host.reopen_at_s:
                self._hosts[index] = self._open(host.share, is_pinned=False)

    def _lose(self, host: Host, reason: str) -> None:
        """End a host that is gone or sends invalid answers, and report its attempt as lost."""
        _end(host)
        if host.token:
            del self._attempts[host.token]
            self._events.append(Lost(token=host.token, reason=f"slot {host.share.name} was lost: {reason}"))
        if host.is_open:
            self._warn(f"slot {host.share.name} was lost and is opened again where there is room: {reason}")
        host.forget(reason, reopen_at_s=self._clock() + REOPEN_S)


def _connect(address: str | None, guard: Guard | None) -> None:
    """Join the cluster at the address, or start one on this machine, which requires a fresh token of every client."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's messages about lost nodes would appear in standard output, within the leaderboard; the engine reports them.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001 - Ray has no public switch for it
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if guard is None:
            _reach(str(address))
            ray.init(address, **options)
            return
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Ray adds 15 to the niceness of its workers, with which trials stand still beside other work.
        os.environ.setdefault("RAY_worker_niceness", "0")
        options |= {"num_cpus": available_cores(), "num_gpus": len(visible_gpus()), "include_dashboard": False}
        with guard.marking():
            ray.init("local", object_store_memory=OBJECT_STORE_BYTES, _temp_dir=str(guard.folder), **options)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        problem = f"the Ray cluster at '{address or LOCAL[0]}' cannot be used ({error})"
        raise EngineError(problem, remedy="start one with `ray start`, or unset RAY_ADDRESS") from error


def _reach(address: str) -> None:
    """Check that ``host:port`` accepts connections: Ray itself would try for minutes. Other addresses are left to Ray.

    Raises:
        OSError: if nothing answers.
    """
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


def _end(host: Host) -> None:
    with contextlib.suppress(RayError, ValueError):
        ray.kill(host.actor, no_restart=True)


def _reason(error: Exception) -> str:
    """Return an error of Ray in one line, or the error of this package that it carries."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not re.match(r"\s+\w+: ", line)]
    told = lines[-1:] if any("Traceback" in line for line in lines) else lines
    return shorten(re.sub(r" Node Id: \w+", "", " ".join(told)), 500)
