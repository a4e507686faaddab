"""What is trained in ``training.py``: networks of 2015 and a small modern one, on GTSRB-like images of 48x48 pixels."""

import os
from dataclasses import dataclass
from pathlib import Path

from stnbench.data.build import open_dataset
from stnbench.spec.data import SignsSpec, TrackSplitSpec
from stnbench.spec.network import LecunSpec, ModernSpec
from stnbench.spec.optimizer import AugmentSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.training.device import DeviceSpec, prepare_device
from stnbench.training.step import TrainingRun
from stnbench.trials.run import _prepare
from stnbench.trials.score import DataSource, TrainingData, open_training_data

BATCH = 50
SIGNS = SignsSpec(tracks_per_class=2, test_tracks_per_class=1)
SPLIT = TrackSplitSpec(tracks_per_class=1)
AUGMENT = AugmentSpec(rotation_deg=10, translation=0.1, scale=0.1, brightness=0.2, contrast=0.2, saturation=0.2)


@dataclass(frozen=True, slots=True)
class Case:
    """One network with one spatial transformer; ``steps`` are those of one repeat."""

    title: str
    network: LecunSpec | ModernSpec
    locnet: tuple[int, int, int]
    steps: int
    output_size: int | None = None
    augment: AugmentSpec | None = None

    @property
    def spec(self) -> TrialSpec:
        """One epoch of ``steps`` steps, repeated."""
        placed = PlacedTransformerSpec(
            place=1,
            locnet=ConvLocnetSpec(sizes=self.locnet),
            transformer=TransformerSpec(output_size=self.output_size),
        )
        return TrialSpec(
            dataset=SIGNS,
            split=SPLIT,
            network=self.network,
            transformers=(placed,),
            augment=self.augment,
            training=TrainingSpec(epochs=1, batch_size=BATCH, train_images=BATCH * self.steps),
        )


CASES = {
    "small": Case("lecun 38,64,100, locnet 50,50,50", LecunSpec(sizes=(38, 64, 100)), (50, 50, 50), 12),
    "large": Case("lecun 108,200,100, locnet 200,300,200", LecunSpec(sizes=(108, 200, 100)), (200, 300, 200), 3),
    "modern": Case("modern at 32x32, locnet 20,40,80", ModernSpec(), (20, 40, 80), 25, output_size=32),
    "augmented": Case("the same, augmented", ModernSpec(), (20, 40, 80), 25, output_size=32, augment=AUGMENT),
}


def data_root() -> Path:
    """Where the drawn images are kept."""
    return Path(os.environ.get("STNBENCH_DATA") or "data").resolve()


def draw_images(workers: int) -> None:
    """Draw them once, before anything is measured."""
    open_dataset(SIGNS, root=data_root(), workers=workers).train()


def open_data(threads: int) -> TrainingData:
    """Prepare this process as a trial does, and open the images."""
    device = prepare_device(DeviceSpec.parse("cpu", threads=threads))
    return open_training_data(DataSource(dataset=SIGNS, root=data_root(), workers=threads, device=device), SPLIT)


def open_run(case: Case, data: TrainingData) -> TrainingRun:
    """The run of a trial, as ``run_trial`` makes it."""
    return _prepare(case.spec, data, data.images.images.device, 1)
