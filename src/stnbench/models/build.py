"""From the specification of a trial to its network."""

import contextlib
from collections.abc import Iterator

from stnbench.core.errors import InfeasibleError
from stnbench.data.augmentation.augment import require_augmentable
from stnbench.models.classifiers import StnClassifier
from stnbench.models.designs import design_network
from stnbench.nn.maps import MapSize
from stnbench.spec.parts import require_same_parts
from stnbench.spec.trial import TrialSpec


def build_network(spec: TrialSpec, *, classes: int, seed: int | None) -> StnClassifier:
    """The network of a trial, on the default device.

    Args:
        spec: the trial; its network, transformers and image size matter.
        classes: how many logits.
        seed: for the weights; with None they are zero, for a checkpoint to be loaded or a cost to be measured.
    Raises: InfeasibleError where the images are too small for the network or for a localisation network, or have no
        colours that could be augmented.
    """
    with feasible(spec):
        network = StnClassifier(design_network(spec.network), spec.transformers, input_map(spec), classes=classes)
    if seed is None:
        network.clear()
    else:
        network.initialize(seed)
    return network


@contextlib.contextmanager
def feasible(spec: TrialSpec) -> Iterator[None]:
    """A block that builds a trial's network, or parts of it.

    Raises: InfeasibleError naming the network where a part cannot be built, or its images cannot be augmented;
        SpecError where a part from outside is absent, or not the one that the trial was planned with.
    """
    require_same_parts(spec.parts)
    size = input_map(spec)
    if spec.augment is not None:
        require_augmentable(spec.augment, size.channels)
    try:
        yield
    except InfeasibleError as error:
        problem = f"the network {spec.network.kind} on {size} images is not possible: {error.problem}"
        raise InfeasibleError(problem, remedy=error.remedy) from error


def input_map(spec: TrialSpec) -> MapSize:
    """The size of the images that a trial's network sees."""
    return MapSize(spec.dataset.channels, spec.dataset.image_size, spec.dataset.image_size)
