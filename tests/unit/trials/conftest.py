"""An embedded data set of four classes and a tiny trial on it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from stnbench.core.errors import DataMissingError
from stnbench.data import Dataset, ImageSet
from stnbench.spec.data import DatasetSpec, SignsSpec, TrackSplitSpec
from stnbench.spec.network import LecunSpec
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.trials import score

CLASSES, SIZE = 4, 16


def draw(tracks: int, seed: int) -> ImageSet:
    """Tracks of five images with one bright quadrant each, the class."""
    generator = np.random.default_rng(seed)
    count = tracks * 5
    images = generator.integers(0, 60, size=(count, 3, SIZE, SIZE), dtype=np.uint8)
    numbers = np.arange(count, dtype=np.int64) // 5
    labels = numbers % CLASSES
    for image, label in zip(images, labels, strict=True):
        top, left = divmod(int(label), 2)
        image[:, top * 8 : top * 8 + 8, left * 8 : left * 8 + 8] += 150
    return ImageSet(
        images=images,
        labels=labels,
        tracks=numbers,
        frames=np.arange(count, dtype=np.int64) % 5,
        roi=np.zeros((count, 4), np.float32),
        original_size=np.full((count, 2), SIZE, np.int64),
        pose=None,
        digest=f"toy{seed}",
    )


class ToyDataset(Dataset):
    """Sixteen tracks to train on, four to test on; ``opened`` tells which halves were asked for, in order."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.has_test = True

    @property
    def class_names(self) -> Sequence[str]:
        """Four names."""
        return ("a", "b", "c", "d")

    def train(self) -> ImageSet:
        """80 images."""
        self.opened.append("train")
        return draw(16, seed=1)

    def test(self) -> ImageSet:
        """20 images, unless the half was taken away."""
        self.opened.append("test")
        if not self.has_test:
            raise DataMissingError("the test half is not there")
        return draw(4, seed=2)


@pytest.fixture
def toy_dataset(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyDataset]:
    """Every specification opens this data set; nothing is kept from one test to the next."""
    dataset = ToyDataset()

    def open_toy(spec: DatasetSpec, *, root: Path, workers: int, source: Path | None = None) -> Dataset:
        return dataset

    monkeypatch.setattr(score, "open_dataset", open_toy)
    score.open_training_data.cache_clear()
    score.open_test_images.cache_clear()
    yield dataset
    score.open_training_data.cache_clear()
    score.open_test_images.cache_clear()


@pytest.fixture
def toy_spec() -> TrialSpec:
    """Three epochs of six steps, one track per class held out."""
    return TrialSpec(
        dataset=SignsSpec(image_size=SIZE),
        split=TrackSplitSpec(tracks_per_class=1),
        network=LecunSpec(sizes=(4, 5, 8)),
        transformers=(PlacedTransformerSpec(place=1, locnet=ConvLocnetSpec(sizes=(3, 4, 5))),),
        optimizer=SgdSpec(learning_rate=0.05, momentum=0.9),
        training=TrainingSpec(epochs=3, batch_size=10),
        seed=7,
    )
