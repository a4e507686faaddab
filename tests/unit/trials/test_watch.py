"""A trained network is watched: the right images in the right order, and what its transformers make of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stnbench.core.errors import FolderError, SpecError
from stnbench.data import ImageSet
from stnbench.spec.transformer import PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.trials.run import run_trial
from stnbench.trials.stability import measure_stability
from stnbench.trials.watch import (
    TrainedNetwork,
    WatchSetup,
    open_network,
    watch_images,
    watch_tracks,
    watch_training,
)

pytestmark = pytest.mark.slow

ZOOM = 0.5


@pytest.fixture
def spec(toy_spec: TrialSpec) -> TrialSpec:
    """One epoch, a fixed zoom before the first stage, and nothing learnt about it."""
    zoom = PlacedTransformerSpec(place=1, transformer=TransformerSpec(family="fixed_zoom", zoom=ZOOM), locnet=None)
    training = TrainingSpec(epochs=1, batch_size=10)
    return dataclasses.replace(toy_spec, transformers=(zoom,), training=training)


@pytest.fixture
def boxed(toy_dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image's box is a square of 0.5 to 0.8 half sides; frames of a track lie in the reverse order."""
    plain = toy_dataset.train

    def train() -> ImageSet:
        half: ImageSet = plain()
        sides = np.linspace(0.5, 0.8, len(half), dtype=np.float32)[:, None]
        return dataclasses.replace(half, roi=sides * np.array([-1, -1, 1, 1], np.float32), frames=4 - half.frames)

    monkeypatch.setattr(toy_dataset, "train", train)


def finish(spec: TrialSpec, folder: Path) -> None:
    """Train a trial in a folder."""
    run_trial(
        spec,
        token="t",
        folder=folder,
        data_root=folder,
        device="cpu",
        threads=1,
        report=lambda record: None,
        should_stop=lambda: False,
    )


@pytest.fixture
def network(spec: TrialSpec, boxed: None, tmp_path: Path) -> TrainedNetwork:
    """The trained network of the trial."""
    finish(spec, tmp_path)
    return open_network(tmp_path, WatchSetup(data_root=tmp_path, device="cpu", threads=1))


def test_images_are_held_out_and_of_every_class(network: TrainedNetwork) -> None:
    """Four of the twenty, one a class; the region read is the zoom's, and the middle of the image fills the output."""
    watched = watch_images(network, count=4, seed=1)
    assert sorted(watched.labels) == [0, 1, 2, 3]
    held_out = network.data.images.images[network.data.validation_rows()].numpy()
    assert all(any((image == other).all() for other in held_out) for image in watched.images)
    [view] = watched.views
    corners = view.border[:, view.corners]
    assert corners[0] == pytest.approx(ZOOM * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]), abs=1e-6)
    assert view.outputs.shape == watched.images.shape
    middle = watched.images[:, :, 4:12, 4:12].astype(float).mean(axis=(1, 2, 3))
    assert view.outputs.astype(float).mean(axis=(1, 2, 3)) == pytest.approx(middle, abs=8)


def test_tracks_are_in_frame_order(network: TrainedNetwork) -> None:
    """Two tracks of different classes, the farthest frame first."""
    data = network.data
    for watched in watch_tracks(network, count=2, seed=1):
        rows = [
            int((data.images.images == image).all(dim=3).all(dim=2).all(dim=1).nonzero())
            for image in _tensors(watched.images)
        ]
        assert data.frames[rows].tolist() == [0, 1, 2, 3, 4]
        assert len(set(data.tracks[rows].tolist())) == 1
    first, second = watch_tracks(network, count=2, seed=1)
    assert first.labels[0] != second.labels[0]


def test_more_than_is_held_out_is_refused(network: TrainedNetwork) -> None:
    """Twenty images in four tracks are all there are."""
    with pytest.raises(SpecError, match="21 images are asked for, and 20 are held out: ask for 1 to 20"):
        watch_images(network, count=21, seed=1)
    with pytest.raises(SpecError, match="0 tracks are asked for, and 4 are held out"):
        watch_tracks(network, count=0, seed=1)
    with pytest.raises(SpecError, match="5 tracks are asked for, and 4 are held out"):
        measure_stability(network, count=5, seed=1)


def test_training_is_watched_without_data(network: TrainedNetwork, tmp_path: Path, toy_dataset: Any) -> None:
    """Snapshots carry their images; epochs are counted from 1, and 0 is before the first step."""
    toy_dataset.opened.clear()
    moments = watch_training(tmp_path)
    assert [(moment.step, moment.epoch) for moment in moments] == [(0, 0), *((step, 1) for step in range(1, 7))]
    assert all(len(moment.watched.images) == 8 for moment in moments)
    assert toy_dataset.opened == []


def test_a_network_without_transformer_is_refused(toy_spec: TrialSpec, toy_dataset: Any, tmp_path: Path) -> None:
    """Whatever is asked of it, before any data are opened."""
    finish(dataclasses.replace(toy_spec, transformers=()), tmp_path)
    toy_dataset.opened.clear()
    with pytest.raises(SpecError, match="has no spatial transformer"):
        open_network(tmp_path, WatchSetup(data_root=tmp_path, device="cpu", threads=1))
    with pytest.raises(SpecError, match="has no spatial transformer"):
        watch_training(tmp_path)
    assert toy_dataset.opened == []


def test_a_folder_without_snapshots_is_told(network: TrainedNetwork, tmp_path: Path) -> None:
    """As trials have that were trained before there were any."""
    (tmp_path / "snapshots.npy").unlink()
    with pytest.raises(FolderError, match=r"snapshots\.npy cannot be read"):
        watch_training(tmp_path)


def test_a_fixed_zoom_is_as_stable_as_a_fixed_zoom(network: TrainedNetwork) -> None:
    """The zoom it is compared with is its own, so every measure is 1 to 1 with it; the overlap is that of squares."""
    found = measure_stability(network, count=None, seed=1)
    assert (found.tracks, found.images, found.sign) == (4, 20, "box")
    [transformer] = found.transformers
    assert transformer.zoom == pytest.approx(ZOOM)
    measures = {measure.name: measure for measure in transformer.measures}
    for measure in measures.values():
        assert measure.to_zoom is not None
        assert measure.to_zoom.mean == pytest.approx(1)
    spread, movement = measures["corner spread"], measures["sign movement"]
    assert spread.to_identity is not None
    assert spread.to_identity.mean == pytest.approx(ZOOM)
    assert movement.to_identity is not None
    assert movement.to_identity.mean == pytest.approx(1)
    sides = network.data.images.boxes[network.data.validation_rows(), 2].double()
    overlap = measures["IoU with the box"].transformer
    assert overlap is not None
    assert overlap.mean == pytest.approx(float(((ZOOM / sides) ** 2).mean()))


def test_an_annotated_box_follows_every_warp(spec: TrialSpec, boxed: None, tmp_path: Path) -> None:
    """The control that reads the box overlaps it whole, holds the sign still, and follows shift and zoom exactly."""
    roi = PlacedTransformerSpec(place=1, transformer=TransformerSpec(family="roi"), locnet=None)
    finish(dataclasses.replace(spec, transformers=(roi,)), tmp_path)
    network = open_network(tmp_path, WatchSetup(data_root=tmp_path, device="cpu", threads=1))
    [transformer] = measure_stability(network, count=3, seed=1).transformers
    measures = {measure.name: measure.transformer for measure in transformer.measures}
    still = ("corner spread", "sign movement", "equivariance error, shift", "equivariance error, zoom")
    assert {name: measures[name].mean for name in still} == pytest.approx(dict.fromkeys(still, 0), abs=1e-5)  # type: ignore[union-attr]
    assert measures["IoU with the box"].mean == pytest.approx(1, abs=1e-5)  # type: ignore[union-attr]
    turned = measures["equivariance error, rotation"]
    assert turned is not None
    assert turned.mean > 0.01


def _tensors(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(images)
