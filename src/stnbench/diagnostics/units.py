"""Hidden units of localisation networks that are off for every image."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from stnbench.models.learners import Key, localization_networks
from stnbench.models.scored_network import Model
from stnbench.spec.result import TransformerHealth


class UnitWatch:
    """Watches the last hidden layer of every localisation network over the images of one pass.

    A unit behind a ReLU that is 0 for an image gets no gradient from it. Where all are for all images, the
    transformation is the last layer's bias, the same for every image. Images of all views count.

    Args:
        model: whose localisation networks; those that are compiled cannot be looked into, and are left out, as are
            those without hidden layers.
    """

    def __init__(self, model: Model) -> None:
        found = {} if model.compute.compile else localization_networks(model.network)
        self._networks = {key: network for key, network in found.items() if len(network.hidden)}
        self._on: dict[Key, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at all images that go through the network meanwhile."""
        handles = [network.hidden.register_forward_hook(self._look(key)) for key, network in self._networks.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def completed(self, healths: tuple[TransformerHealth, ...]) -> tuple[TransformerHealth, ...]:
        """The health of transformers, with the ``dead_share`` of those that were watched."""
        shares = {key: 1 - float(on.double().mean()) for key, on in self._on.items()}
        return tuple(replace(health, dead_share=shares.get((health.place, health.branch))) for health in healths)

    def _look(self, key: Key) -> Callable[[nn.Module, object, Tensor], None]:
        def look(_module: nn.Module, _inputs: object, hidden: Tensor) -> None:
            on = (hidden.detach() > 0).any(dim=0)
            self._on[key] = on if key not in self._on else torch.logical_or(self._on[key], on)

        return look
