"""What a trial should take of a GPU, worked out before one has run."""

from stnbench.models.scored_network import assess_cost, estimate_gpu_mib
from stnbench.spec.data import SignsSpec
from stnbench.spec.network import CnnSpec, IdsiaSpec, LecunSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec


def test_a_larger_network_or_batch_needs_more() -> None:
    """2015's networks are expected to take between 1 and 4 GiB, the images in memory included."""
    small = TrialSpec(dataset=SignsSpec(image_size=48), network=LecunSpec(sizes=(38, 64, 100)))
    transformer = PlacedTransformerSpec(place=1, locnet=ConvLocnetSpec(sizes=(200, 300, 200)))
    large = TrialSpec(dataset=SignsSpec(image_size=48), network=IdsiaSpec(), transformers=(transformer,))
    double = TrialSpec(dataset=SignsSpec(image_size=48), network=IdsiaSpec(), training=TrainingSpec(batch_size=100))
    expected = [estimate_gpu_mib(spec) for spec in (small, large, double)]
    assert 1024 < expected[0] < expected[1] < expected[2] < 4096
    assert expected[1] - expected[0] > 50 * assess_cost(large).activation_bytes / (1 << 20)


def test_a_trial_that_cannot_be_built_needs_nothing() -> None:
    """It fails by itself, and holds no other back."""
    assert estimate_gpu_mib(TrialSpec(dataset=SignsSpec(image_size=16), network=CnnSpec())) == 0.0
