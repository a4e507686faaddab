"""What a trial's network costs, and whether it can be built at all: before anything runs, on no device."""

from stnbench.core.errors import InfeasibleError
from stnbench.data.build import dataset_info
from stnbench.models.cost import measure_cost
from stnbench.spec.result import Cost
from stnbench.spec.trial import TrialSpec

_FLOAT32_BYTES = 4
_LIVE_SHARE = 1.6
_IMAGES, _TRAINING_IMAGES = 52_000, 40_000
"""Of GTSRB, and of what is drawn in its stead."""


def assess_cost(spec: TrialSpec) -> Cost:
    """The cost of the trial's network.

    Raises: InfeasibleError where no network can be built from the specification.
    """
    return measure_cost(spec, classes=len(dataset_info(spec.dataset).class_names))


def estimate_gpu_mib(spec: TrialSpec) -> float:
    """How much memory of a GPU a trial should take, before one of its configuration has run; 0 for one that cannot.

    The activations of a batch with their gradients (1.6 times the former: not all live at once), weights, gradients and
    the optimiser's buffers, and the images of both halves with the prepared training half.
    """
    try:
        cost = assess_cost(spec)
    except InfeasibleError:
        return 0.0
    numbers = spec.dataset.channels * spec.dataset.image_size**2
    images = _IMAGES * numbers + _TRAINING_IMAGES * numbers * _FLOAT32_BYTES
    activations = _LIVE_SHARE * spec.training.batch_size * cost.activation_bytes
    return (activations + 3 * _FLOAT32_BYTES * cost.parameters + images) / (1 << 20)
