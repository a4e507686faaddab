"""A toy task that a tiny network learns in a few steps, computed in one thread.

Torch is imported when a fixture is used: a process that only collects these tests does not load it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from stnbench.data import ImageSet
from stnbench.spec.data import SignsSpec
from stnbench.spec.network import LecunSpec
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec

if TYPE_CHECKING:
    from stnbench.training.step import TrainingRun

CLASSES, SIZE, IMAGES = 4, 16, 120


@pytest.fixture(autouse=True)
def one_thread(torch_settings: None) -> None:
    """Operators run in one thread while the test runs."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def toy_set() -> ImageSet:
    """Noise with one bright quadrant; the quadrant is the class."""
    generator = np.random.default_rng(5)
    images = generator.integers(0, 60, size=(IMAGES, 3, SIZE, SIZE), dtype=np.uint8)
    labels = np.arange(IMAGES, dtype=np.int64) % CLASSES
    for image, label in zip(images, labels, strict=True):
        top, left = divmod(int(label), 2)
        image[:, top * 8 : top * 8 + 8, left * 8 : left * 8 + 8] += 150
    rows = np.arange(IMAGES, dtype=np.int64)
    return ImageSet(
        images=images,
        labels=labels,
        tracks=rows // 5,
        frames=rows % 5,
        roi=np.zeros((IMAGES, 4), np.float32),
        original_size=np.full((IMAGES, 2), SIZE, np.int64),
        pose=None,
        digest="toy",
    )


@pytest.fixture
def toy_spec() -> TrialSpec:
    """A tiny network with a spatial transformer, three epochs of ten batches."""
    return TrialSpec(
        dataset=SignsSpec(image_size=SIZE),
        network=LecunSpec(sizes=(4, 5, 8)),
        transformers=(PlacedTransformerSpec(place=1, locnet=ConvLocnetSpec(sizes=(3, 4, 5))),),
        optimizer=SgdSpec(learning_rate=0.05, momentum=0.9),
        training=TrainingSpec(epochs=3, batch_size=10),
        seed=7,
    )


@pytest.fixture
def make_run(toy_set: ImageSet) -> Callable[[TrialSpec], "TrainingRun"]:
    """From a specification to a run on the toy task: 100 images to train on, 20 to validate on."""
    import torch

    from stnbench.data.preprocessing import GlobalStatistics
    from stnbench.data.resident import DeviceImages
    from stnbench.models.scored_network import build_model
    from stnbench.training.optim import build_optimizer
    from stnbench.training.step import TrainingRun

    def make(spec: TrialSpec) -> TrainingRun:
        statistics = GlobalStatistics(mean=0.25, std=0.25)
        model = build_model(spec, statistics, classes=CLASSES, device=torch.device("cpu"))
        network = model.network
        groups = {
            "classifier": network.classifier_parameters(),
            "localization": network.localization_parameters(),
            "outputs": network.output_parameters(),
        }
        return TrainingRun(
            spec=spec,
            model=model,
            optimizer=build_optimizer(spec.optimizer, **groups),
            images=DeviceImages.from_image_set(toy_set, torch.device("cpu")),
            train=torch.arange(100),
            validation=torch.arange(100, 120),
        )

    return make
