"""BaselineChoice of equal size, and the sweeps that ask for them."""

import dataclasses

import pytest

from stnbench.core.errors import InfeasibleError, SpecError
from stnbench.models.scored_network import assess_cost, equal_size_baseline
from stnbench.planning import grid_configurations
from stnbench.spec.data import SignsSpec
from stnbench.spec.network import CnnSpec, FcnSpec, IdsiaSpec, LecunSpec, ModernSpec, NetworkSpec
from stnbench.spec.planner import RacingPlannerSpec
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec

LABELS = ("10", "30", "none")


def spec_of(label: str, network: NetworkSpec | None = None) -> TrialSpec:
    """A trial with a localisation network of a size, or without a transformer."""
    placed = (
        () if label == "none" else (PlacedTransformerSpec(place=1, locnet=ConvLocnetSpec(sizes=(int(label),) * 3)),)
    )
    return TrialSpec(network=network or LecunSpec(sizes=(8, 9, 10)), transformers=placed)


SWEEP = SweepSpec(
    name="sizes",
    question="?",
    axes=(
        Axis(
            name="size",
            choices=tuple(Choice(label=label, overrides=(Override(key="size", value=label),)) for label in LABELS),
        ),
    ),
    baselines="equal_parameters",
)


def compose(point: Point) -> TrialSpec:
    """The trial of a point."""
    return spec_of(dict(point.labels)["size"])


@pytest.mark.parametrize(
    "network",
    [LecunSpec(sizes=(8, 9, 10)), IdsiaSpec(sizes=(8, 9, 10, 11)), FcnSpec(), CnnSpec(), ModernSpec()],
    ids=lambda network: network.kind,
)
def test_it_is_as_large_as_the_configuration(network: NetworkSpec) -> None:
    """Within 5 % in parameters, without transformers, in all else but the sizes as the config, and none is smaller."""
    config = spec_of("30", network)
    baseline = equal_size_baseline(config)
    assert assess_cost(baseline).parameters == pytest.approx(assess_cost(config).parameters, rel=0.05)
    assert baseline.transformers == ()
    assert dataclasses.replace(baseline, network=network) == config.baseline()
    assert all(wide >= own for wide, own in zip(baseline.network.sizes, network.sizes, strict=True))
    assert baseline.bare_id == config.bare_id == config.baseline().bare_id
    assert baseline.bare_id != dataclasses.replace(config, seed=5, dataset=SignsSpec(image_size=40)).bare_id


def test_without_a_transformer_it_is_the_trial() -> None:
    """There is nothing to make up for."""
    assert equal_size_baseline(spec_of("none")) == spec_of("none")


def test_a_network_that_cannot_be_built_has_none() -> None:
    """It is said of the configuration, and its sweep has the other baselines."""
    impossible = dataclasses.replace(spec_of("10", CnnSpec()), dataset=SignsSpec(image_size=16))
    with pytest.raises(InfeasibleError):
        equal_size_baseline(impossible)
    small = dataclasses.replace(SWEEP, axes=(dataclasses.replace(SWEEP.axes[0], choices=SWEEP.axes[0].choices[:1]),))
    planned = grid_configurations(small, lambda _: impossible)
    assert [trial.label for trial in planned] == ["no ST", "10"]


def test_a_sweep_that_asks_has_one_for_each_size() -> None:
    """After the plain baseline, called after their sizes, with the labels of the configuration they are as large as."""
    planned = grid_configurations(SWEEP, compose)
    assert [trial.is_baseline for trial in planned] == [True, True, False, False, False]
    first, second = planned[:2]
    assert [trial.point.labels for trial in (first, second)] == [(("size", "10"),), (("size", "30"),)]
    for trial, label in zip((first, second), LABELS, strict=False):
        assert trial.label.startswith(f"{label} \u00b7 no ST, wider: ")
        assert trial.spec == equal_size_baseline(spec_of(label))
    plain = grid_configurations(dataclasses.replace(SWEEP, baselines=True), compose)
    assert plain == planned[2:]


def test_only_grids_have_them() -> None:
    """Other planners would drop them from the race, or propose configurations one by one."""
    with pytest.raises(SpecError, match="baselines is 'equal_parameters'"):
        dataclasses.replace(SWEEP, planner=RacingPlannerSpec())
