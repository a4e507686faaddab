"""Slots of a cluster are planned from what its nodes have, before anything starts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import EngineError, SpecError
from stnbench.engines.remote import Host, Node, living_nodes, plan_shares

RESOURCES = st.tuples(st.integers(0, 16), st.integers(0, 8))


def node(name: str, cpus: float = 0, gpus: float = 0, *, node_id: str = "") -> Node:
    """A node whose identity is its name, unless told otherwise."""
    return Node(node_id=node_id or name, name=name, cpus=cpus, gpus=gpus)


def test_without_gpus_every_cpu_of_every_node_is_a_slot() -> None:
    """Three CPUs on two nodes are three slots of one thread, the first two on different nodes."""
    shares = plan_shares([node("a", 2), node("b", 1)])

    assert [(share.name, share.node, share.threads, share.cpus) for share in shares] == [
        ("a-cpu0", "a", 1, 1.0),
        ("b-cpu0", "b", 1, 1.0),
        ("a-cpu1", "a", 1, 1.0),
    ]


def test_a_gpu_is_shared_by_as_many_slots_as_are_asked_for() -> None:
    """Nodes without a GPU run nothing where there is one; the CPUs beside the GPUs are divided among their slots."""
    shares = plan_shares([node("cpus", 64), node("gpus", 8, 2)], per_gpu=2)

    assert [(share.name, share.gpus, share.cpus, share.threads) for share in shares] == [
        (f"gpus-gpu{index}", 0.5, 2.0, 2) for index in range(4)
    ]


def test_fewer_slots_have_more_threads() -> None:
    """Two slots on two nodes of four CPUs take one node each, whole."""
    shares = plan_shares([node("a", 4), node("b", 4)], slots=2)

    assert [(share.node, share.threads, share.cpus) for share in shares] == [("a", 4, 4.0), ("b", 4, 4.0)]


@given(st.lists(RESOURCES, min_size=1, max_size=6), st.none() | st.integers(1, 40), st.integers(1, 7))
def test_the_shares_of_a_node_fit_into_it(has: list[tuple[int, int]], slots: int | None, per_gpu: int) -> None:
    """Every share can be placed beside the others, however many are asked for, and names are unique."""
    nodes = [node(f"n{index}", cpus, gpus) for index, (cpus, gpus) in enumerate(has)]
    if not any(cpus or gpus for cpus, gpus in has):
        with pytest.raises(EngineError, match="no node"):
            plan_shares(nodes)
        return
    shares = plan_shares(nodes, slots=slots, per_gpu=per_gpu)

    room = sum(gpus for _, gpus in has) * per_gpu or slots or sum(cpus for cpus, _ in has)
    assert len(shares) == min(slots or room, room)
    assert len({share.name for share in shares}) == len(shares)
    assert all(share.threads >= 1 for share in shares)
    for each in nodes:
        own = [share for share in shares if share.node_id == each.node_id]
        assert sum(share.cpus for share in own) <= each.cpus + 1e-9
        assert sum(share.gpus for share in own) <= each.gpus + 1e-9


@pytest.mark.parametrize("numbers", [{"slots": 0}, {"per_gpu": 0}])
def test_a_number_below_one_is_refused(numbers: dict[str, int]) -> None:
    """No slot, no sweep."""
    with pytest.raises(SpecError, match="is 0"):
        plan_shares([node("a", 2)], **numbers)


def test_nodes_of_one_name_are_told_apart() -> None:
    """Names become those of files and slots, so that they are plain and distinct."""
    shares = plan_shares([node("my host", 1, node_id="abcdefgh"), node("my host", 1, node_id="12345678")])

    assert [share.name for share in shares] == ["my_host-abcdef-cpu0", "my_host-123456-cpu0"]


def test_only_living_nodes_count_under_the_name_that_a_person_gave_them() -> None:
    """Ray names a node by its address where nobody named it; its host says more."""

    def row(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
        address = {"NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "host"}
        return {"NodeID": f"id of {name}", "NodeName": name, "Alive": alive, "Resources": resources, **address}

    rows = [row("10.0.0.1", CPU=4.0), row("gone", alive=False, CPU=8.0), row("given", GPU=1.0, memory=3.0 * 2**20)]
    nodes = living_nodes(rows)

    assert nodes == [
        Node(node_id="id of given", name="given", cpus=0.0, gpus=1.0, memory_mib=3.0),
        Node(node_id="id of 10.0.0.1", name="host", cpus=4.0, gpus=0.0),
    ]


def test_the_slots_of_a_node_share_its_memory_and_no_other_node_s() -> None:
    """An attempt that needs its device alone takes its node, not the cluster; a GPU's memory its host knows."""
    nodes = [
        Node(node_id=name, name=name, cpus=2, gpus=0, memory_mib=memory) for name, memory in (("a", 10.0), ("b", 20.0))
    ]
    slots = []
    for share in plan_shares(nodes):
        host = Host(share=share, actor=None, reply=None, device="cpu", memory_mib=99.0)
        slots.append(host.slot())
    [gpu] = plan_shares([Node(node_id="c", name="c", cpus=2, gpus=1, memory_mib=10.0)])

    assert [(slot.device, slot.memory_mib) for slot in slots] == [("a:cpu", 10.0), ("b:cpu", 20.0)] * 2
    assert not any(slot.is_cuda for slot in slots)
    slot = Host(share=gpu, actor=None, reply=None, device="GPU-1", memory_mib=99.0).slot()
    assert (slot.device, slot.memory_mib, slot.is_cuda) == ("c:GPU-1", 99.0, True)
