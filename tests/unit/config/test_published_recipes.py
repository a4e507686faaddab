"""Recipes of others, as they published them."""

import pytest

from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.config.resolve import parse_overrides, resolve_trial
from stnbench.models.scored_network import measure_cost
from stnbench.spec.optimizer import AdamSpec, PlateauScheduleSpec, RmspropSpec
from stnbench.spec.trial import TrialSpec


@pytest.fixture(scope="module")
def composer() -> Composer:
    """Of the shipped groups."""
    return Composer(conf_folder())


def resolved(composer: Composer, *arguments: str) -> TrialSpec:
    """The trial of a command line."""
    return resolve_trial(composer, parse_overrides(arguments)).spec


def test_arcos_garcia_is_as_published(composer: Composer) -> None:
    """Its optimiser, and the number of parameters of the network of 2018."""
    spec = resolved(composer, "experiment=arcos_garcia")
    assert spec.optimizer == RmspropSpec(learning_rate=1e-5)
    assert (spec.training.epochs, spec.training.batch_size, spec.dataset.image_size) == (15, 50, 48)
    assert measure_cost(spec, classes=43).parameters == 14_613_761


def test_poojahira_is_as_published(composer: Composer) -> None:
    """Its optimiser and schedule, and the parameters of its network: 855,487 with a first kernel of 7 in theirs."""
    spec = resolved(composer, "experiment=poojahira")
    kernels = 3 * 8 * (7 * 7 - 5 * 5)
    assert spec.optimizer == AdamSpec(learning_rate=1e-4)
    assert spec.schedule == PlateauScheduleSpec(factor=0.5, patience_epochs=5)
    assert (spec.training.epochs, spec.training.batch_size, spec.dataset.image_size) == (40, 64, 32)
    assert measure_cost(spec, classes=43).parameters + kernels == 855_487
