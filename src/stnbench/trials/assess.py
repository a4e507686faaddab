"""Cost and feasibility of a trial's network, computed before anything runs and without a device."""

import dataclasses
import functools

import torch

from stnbench.core.errors import InfeasibleError, SpecError
from stnbench.data.build import dataset_info
from stnbench.models.classifiers import build_network
from stnbench.models.cost import measure_cost
from stnbench.spec.result import Cost
from stnbench.spec.trial import TrialSpec

# Equal-parameter baselines: the parameters of the transformers spent on a wider classifier instead.


_FACTOR_MAX = 64.0
_HALVINGS = 24
"""Number of bisections of the range of factors; the rest is too small to change a size of a thousand channels."""


def equal_size_baseline(spec: TrialSpec) -> TrialSpec:
    """Return the trial without its transformers, with a network widened to about the same number of parameters.

    All sizes of the network are multiplied by one factor and rounded, as ``width`` does; the factor is the one whose
    network is nearest in number of parameters. A trial without transformers is returned unchanged.

    Raises:
        InfeasibleError: if the trial's network cannot be built.
        SpecError: if the network has no sizes.
    """
    if not spec.transformers:
        return spec
    if not spec.network.sizes:
        problem = f"baselines: equal_parameters widens networks, and {spec.network.kind} has no sizes to multiply"
        raise SpecError(problem, remedy="say baselines: true, or choose a network with sizes")
    classes = len(dataset_info(spec.dataset).class_names)
    wanted, baseline = _parameters(spec, classes), spec.baseline()
    low, high = 1.0, _FACTOR_MAX
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _parameters(_wider(baseline, middle), classes) <= wanted:
            low = middle
        else:
            high = middle
    candidates = (_wider(baseline, low), _wider(baseline, high))
    return min(candidates, key=lambda candidate: abs(_parameters(candidate, classes) - wanted))


def _wider(spec: TrialSpec, factor: float) -> TrialSpec:
    sizes = tuple(int(size * factor + 0.5) for size in spec.network.sizes)
    return dataclasses.replace(spec, network=dataclasses.replace(spec.network, sizes=sizes))  # type: ignore[call-arg] # a network with sizes


@functools.lru_cache(maxsize=4096)
def _parameters(spec: TrialSpec, classes: int) -> int:
    """Return the number of parameters of the trial's network, without allocating them."""
    with torch.device("meta"), torch.no_grad():
        network = build_network(spec, classes=classes, seed=None)
    return sum(parameter.numel() for parameter in network.parameters())


_FLOAT32_BYTES = 4
_LIVE_SHARE = 1.6
_IMAGES, _TRAINING_IMAGES = 52_000, 40_000
"""Numbers of images of GTSRB, and of its synthetic replacement."""


def assess_cost(spec: TrialSpec) -> Cost:
    """Return the cost of the trial's network.

    Raises:
        InfeasibleError: if no network can be built from the specification.
    """
    return measure_cost(spec, classes=len(dataset_info(spec.dataset).class_names))


def estimate_gpu_mib(spec: TrialSpec) -> float:
    """Estimate the GPU memory of a trial in MiB before it has run; 0 if its network cannot be built.

    The estimate is the sum of the activations of a batch with their gradients (1.6 times the activations, as not all
    are live at once), the weights, gradients and the optimiser's buffers, and the images of both halves with the
    prepared training half.
    """
    try:
        cost = assess_cost(spec)
    except InfeasibleError:
        return 0.0
    numbers = spec.dataset.channels * spec.dataset.image_size**2
    images = _IMAGES * numbers + _TRAINING_IMAGES * numbers * _FLOAT32_BYTES
    activations = _LIVE_SHARE * spec.training.batch_size * cost.activation_bytes
    return (activations + 3 * _FLOAT32_BYTES * cost.parameters + images) / (1 << 20)
