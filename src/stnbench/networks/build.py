"""From the specification of a trial to its network."""

from stnbench.core.errors import InfeasibleError
from stnbench.networks.augment import require_augmentable
from stnbench.networks.classifiers import StnClassifier
from stnbench.networks.designs import design_network
from stnbench.spec.trial import TrialSpec
from stnbench.stn.maps import MapSize


def build_network(spec: TrialSpec, *, classes: int, seed: int | None) -> StnClassifier:
    """The network of a trial, on the default device.

    Args:
        spec: the trial; its network, transformers and image size matter.
        classes: how many logits.
        seed: for the weights; with None they are zero, for a checkpoint to be loaded or a cost to be measured.
    Raises: InfeasibleError where the images are too small for the network or for a localisation network, or have no
        colours that could be augmented.
    """
    input_size = input_map(spec)
    if spec.augment is not None:
        require_augmentable(spec.augment, input_size.channels)
    try:
        network = StnClassifier(design_network(spec.network), spec.transformers, input_size, classes=classes)
    except InfeasibleError as error:
        problem = f"the network {spec.network.kind} on {input_size} images is not possible: {error.problem}"
        raise InfeasibleError(problem, remedy=error.remedy) from error
    if seed is None:
        network.clear()
    else:
        network.initialize(seed)
    return network


def input_map(spec: TrialSpec) -> MapSize:
    """The size of the images that a trial's network sees."""
    return MapSize(spec.dataset.channels, spec.dataset.image_size, spec.dataset.image_size)
