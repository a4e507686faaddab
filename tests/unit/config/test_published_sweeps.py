"""The shipped sweeps against the 242 results that were published in 2015."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from stnbench.config.axes import PointComposer
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder, find_sweep
from stnbench.config.published import match_published, published_trial, read_published
from stnbench.config.resolve import parse_overrides, resolve_trial
from stnbench.config.sweeps import read_sweep
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.planning.build import GridPlanner
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.data import CLASSES
from stnbench.spec.optimizer import AdamSpec, PlateauScheduleSpec, RmspropSpec
from stnbench.spec.sweep import SWEEPS_OF_2015, PublishedResult, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.tables import PlannedTrial

pytestmark = pytest.mark.slow

TABLE = "moodstocks_2015"

CONFIGURATIONS_AND_BASELINES = {
    "baseline": (36, 0),
    "locnet_sizes": (8, 1),
    "locnet_large": (20, 1),
    "multiple_st": (15, 0),
    "idsia_st": (12, 3),
    "idsia_multiple_st": (54, 0),
    "normalisation": (64, 4),
    "training_images": (2, 2),
    "headline": (2, 2),
    "committee": (5, 0),
}
"""How many configurations each has, and how many baselines that are not configurations themselves."""


def parameters_of(spec: TrialSpec) -> int:
    """Return the number of parameters of a trial's network; torch is imported here, and not to collect the tests."""
    from stnbench.models.scored_network import measure_cost

    return measure_cost(spec, classes=CLASSES).parameters


@pytest.fixture(scope="module")
def composer() -> Composer:
    """The shipped groups."""
    return Composer(conf_folder())


@pytest.fixture(scope="module")
def results() -> list[PublishedResult]:
    """The published results."""
    return read_published(TABLE)


def plan(composer: Composer, name: str, *overrides: str) -> Sequence[PlannedTrial]:
    """What a shipped sweep asks for with its first seed."""
    sweep = read_sweep(find_sweep(name, Path("/nowhere")), composer, parse_overrides([*overrides, "seeds=[1]"]))
    return GridPlanner(sweep, PointComposer(sweep, composer)).ask()


def test_the_table_has_the_242_results_of_2015(results: list[PublishedResult]) -> None:
    """35 networks without a transformer, 151 with, 56 of them again on held-out images; 185 configurations."""
    assert Counter(item.table for item in results) == {"baseline": 35, "baseline_st": 151, "baseline_st_val": 56}
    assert {item.split for item in results if item.table != "baseline_st_val"} == {"test"}
    assert len({published_trial(item).config_id for item in results}) == 185


def test_the_sweeps_run_what_2015_ran_and_nothing_else(composer: Composer, results: list[PublishedResult]) -> None:
    """Every published row has its config at the scale of 2015, and each config and baseline of these sweeps its row."""
    published = {published_trial(item).config_id: item for item in results}
    asked = {
        trial.spec.config_id: f"{name}: {trial.label}"
        for name in SWEEPS_OF_2015
        for trial in plan(composer, name, "scale=paper", "dataset=gtsrb")
    }

    assert [item for config, item in published.items() if config not in asked] == []
    assert [label for config, label in asked.items() if config not in published] == []


@pytest.mark.parametrize("name", ["baseline", "multiple_st", "training_images"])
def test_every_configuration_knows_its_published_result_at_any_size(composer: Composer, name: str) -> None:
    """At the shipped scale, another width and other images as well: size and data make no other configuration."""
    full = {trial.label: trial.spec.config_id for trial in plan(composer, name, "scale=paper", "dataset=gtsrb")}
    overrides = ["width=0.3", "training.batch_size=10", "dataset=gtsrb", "dataset.image_size=32", "split=folds"]
    asked = {trial.spec.config_id: trial.label for trial in plan(composer, name, *overrides)}
    sweep = read_sweep(find_sweep(name, Path("/nowhere")), composer, parse_overrides(overrides))

    assert sweep.published is not None
    matched = {config.config_id: config.result for config in sweep.published.configs}
    assert matched.keys() == asked.keys()
    for config_id, result in matched.items():
        assert published_trial(result).config_id == full[asked[config_id]]
    assert {result.split for result in matched.values()} == {"test"}
    assert from_plain(SweepSpec, to_plain(sweep), where="the store") == sweep


def test_what_changes_the_configuration_has_no_published_result(composer: Composer) -> None:
    """Another optimiser than 2015's, or augmentation, is another question; an axis counts whatever it says."""
    for override in ("optimizer.learning_rate=0.02", "augment=idsia"):
        sweep = read_sweep(find_sweep("locnet_sizes", Path("/nowhere")), composer, parse_overrides([override]))
        assert sweep.published is not None
        assert sweep.published.configs == ()
    headline = read_sweep(find_sweep("headline", Path("/nowhere")), composer)
    assert headline.published is None
    assert match_published(headline, composer, TABLE).configs == ()  # for 14 and 26 epochs, and 2015's tables have 10


def test_an_unknown_table_is_named(tmp_path: Path, composer: Composer) -> None:
    """With the nearest name; a sampled sweep knows no configurations before it runs."""
    path = tmp_path / "mine.yaml"
    path.write_text("question: Is it there?\npublished: moodstock_2015\naxes: {optimizer: [sgd, momentum]}\n")
    with pytest.raises(UnknownNameError, match="did you mean moodstocks_2015"):
        read_sweep(path, composer)
    path.write_text(path.read_text().replace("moodstock_", "moodstocks_"))
    assert read_sweep(path, composer).published is not None
    with pytest.raises(SpecError, match="draws its configurations"):
        read_sweep(path, composer, parse_overrides(["planner=random"]))


def test_the_ranking_sweep_has_a_published_result_for_each_of_its_configurations(composer: Composer) -> None:
    """23 configurations with and without a transformer, of real images."""
    sweep = read_sweep(find_sweep("ranking_2015", Path("/nowhere")), composer)
    asked = plan(composer, "ranking_2015")

    assert sweep.published is not None
    assert {config.config_id for config in sweep.published.configs} == {trial.spec.config_id for trial in asked}
    assert len(asked) == 23
    assert not any(trial.is_baseline for trial in asked)
    assert {trial.spec.baseline().config_id for trial in asked} <= {trial.spec.config_id for trial in asked}


@pytest.mark.parametrize("name", CONFIGURATIONS_AND_BASELINES)
def test_a_sweep_has_so_many_configurations(composer: Composer, name: str) -> None:
    """Each of them with a label of its own."""
    asked = plan(composer, name, "scale=paper", "dataset=gtsrb")
    baselines = sum(trial.is_baseline for trial in asked)

    assert (len(asked) - baselines, baselines) == CONFIGURATIONS_AND_BASELINES[name]
    assert len({trial.spec.config_id for trial in asked}) == len(asked)
    assert len({trial.label for trial in asked}) == len(asked)


def test_the_headline_has_the_parameters_that_its_code_gives(composer: Composer) -> None:
    """10,271,405, of which its two transformers have 3,676,906 and 1,336,356; 14 epochs on all images not held out."""
    baseline, config = plan(composer, "headline", "scale=paper", "dataset=gtsrb", "training.epochs=14")

    assert parameters_of(config.spec) == 10_271_405
    assert parameters_of(baseline.spec) == 10_271_405 - 3_676_906 - 1_336_356
    assert (config.spec.training.epochs, config.spec.training.train_images) == (14, None)


def test_the_experiment_is_the_headline_of_2015(composer: Composer) -> None:
    """``experiment=headline_2015`` is the headline sweep's config with 14 epochs, whatever default is said aloud."""
    config = plan(composer, "headline", "scale=paper", "dataset=gtsrb", "training.epochs=14")[1].spec
    for aloud in ([], ["scale=paper"], ["dataset=gtsrb", "preprocess=contrastive", "optimizer=sgd"]):
        spec = resolve_trial(composer, parse_overrides(["experiment=headline_2015", *aloud])).spec
        assert spec.trial_id == config.trial_id

    assert (spec.dataset.image_size, spec.training.batch_size, spec.training.epochs) == (48, 50, 14)
    assert parameters_of(spec) == 10_271_405
    small = resolve_trial(composer, parse_overrides(["experiment=headline_2015", "scale=smoke"])).spec
    assert (small.training.epochs, small.dataset.image_size) == (2, 32)


def test_the_committee_is_25_networks(composer: Composer) -> None:
    """Five preprocessings with five seeds each, as Ciresan et al. 2012 had them; 3,568,443 parameters each."""
    sweep = read_sweep(
        find_sweep("committee", Path("/nowhere")), composer, parse_overrides(["scale=paper", "dataset=gtsrb"])
    )
    asked = GridPlanner(sweep, PointComposer(sweep, composer)).ask()

    assert len({trial.spec.trial_id for trial in asked}) == 25
    assert {trial.spec.augment for trial in asked} - {None} == {asked[0].spec.augment}
    assert parameters_of(asked[0].spec) == 3_568_443


def test_arcos_garcia_is_as_published(composer: Composer) -> None:
    """Its optimiser, and the number of parameters of the network of 2018."""
    spec = resolve_trial(composer, parse_overrides(["experiment=arcos_garcia"])).spec
    assert spec.optimizer == RmspropSpec(learning_rate=1e-5)
    assert (spec.training.epochs, spec.training.batch_size, spec.dataset.image_size) == (15, 50, 48)
    assert parameters_of(spec) == 14_613_761


def test_poojahira_is_as_published(composer: Composer) -> None:
    """Its optimiser and schedule, and the parameters of its network: 855,487 with a first kernel of 7 in theirs."""
    spec = resolve_trial(composer, parse_overrides(["experiment=poojahira"])).spec
    kernels = 3 * 8 * (7 * 7 - 5 * 5)
    assert spec.optimizer == AdamSpec(learning_rate=1e-4)
    assert spec.schedule == PlateauScheduleSpec(factor=0.5, patience_epochs=5)
    assert (spec.training.epochs, spec.training.batch_size, spec.dataset.image_size) == (40, 64, 32)
    assert parameters_of(spec) + kernels == 855_487
