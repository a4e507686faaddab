"""Twins of equal size: what a transformer's parameters would do as a wider classifier."""

import dataclasses
import functools

import torch

from stnbench.core.errors import SpecError
from stnbench.data.build import dataset_info
from stnbench.models.build import build_network
from stnbench.spec.trial import TrialSpec

_FACTOR_MAX = 64.0
_HALVINGS = 24
"""Of the range of factors: what is left of it is too little to change a size of a thousand channels."""


def equal_size_twin(spec: TrialSpec) -> TrialSpec:
    """The trial without its transformers, its network wider by so much that it has about as many parameters.

    All sizes of the network are multiplied by one factor and rounded, as ``width`` does; of all factors it is the one
    whose network is nearest in number of parameters. The trial itself where it has no transformers.

    Raises:
        InfeasibleError: where the trial's network cannot be built.
        SpecError: where the network has no sizes.
    """
    if not spec.transformers:
        return spec
    if not spec.network.sizes:
        problem = f"twins: equal_parameters widens networks, and {spec.network.kind} has no sizes to multiply"
        raise SpecError(problem, remedy="say twins: true, or choose a network with sizes")
    classes = len(dataset_info(spec.dataset).class_names)
    wanted, twin = _parameters(spec, classes), spec.twin()
    low, high = 1.0, _FACTOR_MAX
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _parameters(_wider(twin, middle), classes) <= wanted:
            low = middle
        else:
            high = middle
    candidates = (_wider(twin, low), _wider(twin, high))
    return min(candidates, key=lambda candidate: abs(_parameters(candidate, classes) - wanted))


def _wider(spec: TrialSpec, factor: float) -> TrialSpec:
    sizes = tuple(int(size * factor + 0.5) for size in spec.network.sizes)
    return dataclasses.replace(spec, network=dataclasses.replace(spec.network, sizes=sizes))  # type: ignore[call-arg] # a network with sizes


@functools.lru_cache(maxsize=4096)
def _parameters(spec: TrialSpec, classes: int) -> int:
    """How many parameters the trial's network has; nothing of it is allocated."""
    with torch.device("meta"), torch.no_grad():
        network = build_network(spec, classes=classes, seed=None)
    return sum(parameter.numel() for parameter in network.parameters())
