"""CUDA streams and graphs in tests without a GPU."""

import contextlib
import weakref
from collections.abc import Iterator

import pytest
import torch
from logged_operators import HIDDEN_WAITS, OperatorLog


class StandIn:
    """CUDA's streams and graphs, as far as a captured call uses them; what happens is noted."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails_at_the_end = False
        self._graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        self.device = torch.device("cpu")

    def wait_stream(self, stream: object) -> None:
        """As a stream's."""

    @property
    def graphs(self) -> int:
        """How many graphs there are, each with memory of its own."""
        return len(self._graphs)

    def make_graph(self) -> "Graph":
        """As ``torch.cuda.CUDAGraph``."""
        graph = Graph(self)
        self._graphs.add(graph)
        return graph

    @contextlib.contextmanager
    def capturing(self, graph: object, stream: object) -> Iterator[None]:
        """As ``torch.cuda.graph``: an operator for which the host would wait fails."""
        assert graph in self._graphs
        assert stream is self
        self.done.append("capture")
        try:
            with OperatorLog(device="cpu") as log:
                yield
        finally:
            if self.fails_at_the_end:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        waits = log.names & HIDDEN_WAITS
        if waits:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({sorted(waits)})")


class Graph:
    """A graph, which holds memory until nothing refers to it."""

    def __init__(self, cuda: StandIn) -> None:
        self._done = cuda.done

    def replay(self) -> None:
        """As a graph's."""
        self._done.append("replay")


def stand_in_for_cuda(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put a stand-in in the place of torch's streams and graphs, and return it."""
    cuda = StandIn()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: cuda)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: cuda)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", cuda.make_graph)
    monkeypatch.setattr(torch.cuda, "graph", cuda.capturing)
    return cuda
