"""An exponential moving average of a network's weights, which is scored in their place."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of all floating-point weights and running statistics of a network over its steps.

    Polyak & Juditsky 1992, in the exponential form. Counters of batch normalisation are those of the network itself.

    Args:
        network: on its device, as it is before the first step.
        decay: the share of the average that a step leaves; after k steps it is at most (1 + k) / (10 + k).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self._weights = [tensor.detach() for tensor in _averaged(network).values()]
        self._averages = {name: tensor.detach().clone() for name, tensor in _averaged(network).items()}

    def share(self, step: int) -> float:
        """How much of the average the weights become after a step, counted from 1."""
        return 1 - min(self._decay, (1 + step) / (10 + step))

    def update(self, share: float | Tensor) -> None:
        """Take in the weights, in a share that is a number or lies on their device, of one element."""
        averages = list(self._averages.values())
        if not isinstance(share, Tensor):
            torch._foreach_lerp_(averages, self._weights, share)
            return
        differences = torch._foreach_sub(self._weights, averages)  # noqa: SLF001 - as those with an underscore behind
        torch._foreach_mul_(differences, share.reshape(()))
        torch._foreach_add_(averages, differences)

    def state(self) -> dict[str, Tensor]:
        """The averages by name, for a checkpoint."""
        return self._averages

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over the averages of a checkpoint. Raises: KeyError or RuntimeError where they do not fit."""
        with torch.no_grad():
            for name, average in self._averages.items():
                average.copy_(state[name])

    def install(self) -> None:
        """Put the averages into the network, for good."""
        self._copy(self._averages)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averages while it lasts, and its own weights again afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in _averaged(self._network).items()}
        self._copy(self._averages)
        try:
            yield
        finally:
            self._copy(own)

    def _copy(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in _averaged(self._network).items():
                tensor.copy_(values[name])


def _averaged(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
