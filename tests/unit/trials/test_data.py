"""The data of a trial: rows, statistics, and what is kept."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stnbench.core.errors import DataMissingError, SpecError
from stnbench.data.preprocessing import Preprocess, measure_statistics
from stnbench.spec.data import OneTrackSplitSpec, PreprocessSpec, SignsSpec, TrackSplitSpec
from stnbench.trials.score import DataSource, open_test_images, open_training_data


@pytest.fixture
def source(toy_dataset: Any) -> DataSource:
    """The toy data on the CPU."""
    return DataSource(dataset=SignsSpec(), root=Path("data"), workers=1, device=torch.device("cpu"))


def test_statistics_are_of_the_images_to_train_on(source: DataSource, toy_dataset: Any) -> None:
    """Held-out images do not leak into the normalisation."""
    data = open_training_data(source, TrackSplitSpec(tracks_per_class=1))
    images = toy_dataset.train().images
    rows = data.training_rows(None, seed=1).numpy()
    assert data.statistics == measure_statistics(images[rows])
    assert data.statistics != measure_statistics(images)
    assert data.classes == 4


def test_the_two_halves_of_a_split_are_everything(source: DataSource) -> None:
    """60 rows to train on and 20 held out, none twice."""
    data = open_training_data(source, TrackSplitSpec(tracks_per_class=1))
    rows = torch.cat([data.training_rows(None, seed=1), data.validation_rows()])
    assert sorted(rows.tolist()) == list(range(80))
    assert len(data.validation_rows()) == 20


def test_the_choice_of_images_depends_on_the_seed_alone(source: DataSource) -> None:
    """Configurations of one seed train on the same images; another seed draws others."""
    data = open_training_data(source, TrackSplitSpec(tracks_per_class=1))
    chosen = data.training_rows(30, seed=1)
    assert torch.equal(chosen, data.training_rows(30, seed=1))
    assert not torch.equal(chosen, data.training_rows(30, seed=2))
    assert np.isin(chosen.numpy(), data.training_rows(None, seed=1).numpy()).all()
    assert len(set(chosen.tolist())) == 30


def test_too_many_images_are_refused(source: DataSource) -> None:
    """60 are there."""
    data = open_training_data(source, TrackSplitSpec(tracks_per_class=1))
    with pytest.raises(SpecError, match="61"):
        data.training_rows(61, seed=1)


def test_the_same_data_are_opened_once(source: DataSource, toy_dataset: Any) -> None:
    """The same source and split give the same object, another split another one."""
    first = open_training_data(source, TrackSplitSpec(tracks_per_class=1))
    assert open_training_data(dataclasses.replace(source), TrackSplitSpec(tracks_per_class=1)) is first
    assert open_training_data(source, OneTrackSplitSpec()) is not first
    assert open_test_images(source) is open_test_images(source)
    assert toy_dataset.opened == ["train", "train", "test"]


def test_few_data_sets_are_kept(source: DataSource, toy_dataset: Any) -> None:
    """The one used longest ago is dropped, so that a worker never fills its memory with data."""
    for size in (8, 16, 24):
        open_training_data(dataclasses.replace(source, dataset=SignsSpec(image_size=size)), OneTrackSplitSpec())
    assert open_training_data.cache_info().currsize == 2


def test_a_missing_half_is_asked_for_again(source: DataSource, toy_dataset: Any) -> None:
    """An error is not kept: the half may have been fetched since."""
    toy_dataset.has_test = False
    with pytest.raises(DataMissingError):
        open_test_images(source)
    toy_dataset.has_test = True
    assert len(open_test_images(source)) == 20


def test_preprocessed_images_are_shared_by_trials_that_prepare_alike(source: DataSource) -> None:
    """The memory is made once for a preprocessing, beside the same images, and there is one of them at a time."""
    data = open_training_data(source, TrackSplitSpec(tracks_per_class=1))
    first = data.images_for(PreprocessSpec())
    assert first.prepared is not None
    assert first.images is data.images.images
    assert data.images_for(PreprocessSpec()).prepared is first.prepared
    rows = data.validation_rows()
    module = Preprocess(PreprocessSpec(), data.statistics, image_size=16)
    assert torch.equal(first.prepared.rows(rows), module(first.images[rows]))
    other = data.images_for(PreprocessSpec(kernel_size=5))
    assert other.prepared is not first.prepared
    assert data.images_for(PreprocessSpec()).prepared is not first.prepared


def test_a_scale_and_a_shift_are_not_worth_a_memory(source: DataSource) -> None:
    """Without contrastive normalisation and contrast, images are prepared as they are read."""
    data = open_training_data(source, TrackSplitSpec(tracks_per_class=1))
    assert data.images_for(PreprocessSpec(contrastive_norm=False)) is data.images
