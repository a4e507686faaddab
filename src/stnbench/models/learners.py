"""The spatial transformers of a network that learn: all but the controls."""

from stnbench.models.classifiers import StnClassifier
from stnbench.nn.localization import Localization
from stnbench.nn.parallel import ParallelTransformers
from stnbench.nn.spatial_transformer import SpatialTransformer

Key = tuple[int, int]
"""Which transformer: its place and its branch there, both from 1."""


def learning_transformers(network: StnClassifier) -> dict[Key, SpatialTransformer]:
    """The transformers with a localisation network, by ascending place and branch."""
    return {
        (parallel.place, branch): transformer
        for parallel in network.transformers.values()
        if isinstance(parallel, ParallelTransformers)
        for branch, transformer in enumerate(parallel.transformers(), start=1)
        if transformer.localization is not None
    }


def localization_networks(network: StnClassifier) -> dict[Key, Localization]:
    """Their localisation networks."""
    found = {key: transformer.localization for key, transformer in learning_transformers(network).items()}
    return {key: localization for key, localization in found.items() if localization is not None}
