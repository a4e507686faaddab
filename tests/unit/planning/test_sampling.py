"""Planners that propose one point after the other."""

import dataclasses
import logging
import statistics

import pytest
from made_up_spaces import (
    DECAY,
    MOMENTUM,
    RATE,
    WIDTH,
    MadeUpCompose,
    Run,
    bowl,
    choices,
    conditional,
    floats,
    flops_of,
    integers,
    labels_of,
)
from narrowed import sgd_of

from stnbench.core.errors import SpecError, TransitionError
from stnbench.planning import Observation, build, survey
from stnbench.planning.build import build_planner
from stnbench.spec.data import AllSplitSpec
from stnbench.spec.planner import (
    AshaPrunerSpec,
    Nsga2PlannerSpec,
    OptunaPlannerSpec,
    RandomPlannerSpec,
    SamplerSpec,
    TpePlannerSpec,
)
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import SweepSpec

SWEEP = SweepSpec(
    name="search",
    question="?",
    axes=(floats(RATE, 0.001, 0.3, log=True), choices(MOMENTUM, 0.0, 0.5, 0.9)),
    seeds=(1, 2),
    baselines=False,
    planner=RandomPlannerSpec(trials=20),
)


def run(sweep: SweepSpec, *, slots: int = 1, has_transformer: bool = False) -> Run:
    """The whole search."""
    compose = MadeUpCompose(sweep, has_transformer=has_transformer)
    return Run(bowl).go_on(build_planner(sweep, compose, slots=slots), slots=slots)


def test_a_search_needs_images_that_were_held_out() -> None:
    """Where every image was trained on, validation decides nothing: refused when the first trial is asked for."""
    made_up = MadeUpCompose(SWEEP)
    planner = build_planner(SWEEP, lambda point: dataclasses.replace(made_up(point), split=AllSplitSpec()))

    with pytest.raises(SpecError, match="split=all trains on its validation images"):
        planner.ask()


@pytest.mark.parametrize(("registry", "what"), [("PLANNERS", "planner random"), ("PRUNERS", "pruner asha")])
def test_a_part_that_is_no_planner_or_pruner_is_refused(
    registry: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One from outside may return anything; the message names the class to extend."""
    sweep = dataclasses.replace(SWEEP, pruner=AshaPrunerSpec())
    monkeypatch.setattr(getattr(build, registry), "implementation", lambda kind: lambda *_: object())

    with pytest.raises(SpecError, match=f"the {what} is object: register a class that extends"):
        build_planner(sweep, MadeUpCompose(sweep))


def test_trials_count_seeds() -> None:
    """20 trials with two seeds are 10 configurations, each with both."""
    done = run(SWEEP)

    assert len(done.launched) == 20
    assert len(done.configs()) == 10


def test_another_seed_of_the_planner_gives_other_points() -> None:
    """The same one gives the same; the seeds of trials have no part in it."""
    other = dataclasses.replace(SWEEP, planner=RandomPlannerSpec(trials=20, seed=2))
    reseeded = dataclasses.replace(SWEEP, seeds=(3, 4))

    assert not set(run(SWEEP).configs()) & set(run(other).configs())
    assert run(SWEEP).configs() == run(reseeded).configs()


def test_as_many_configurations_are_open_as_keep_the_slots_busy() -> None:
    """With four slots and two seeds a configuration, or the number that the sweep says."""
    assert len(build_planner(SWEEP, MadeUpCompose(SWEEP), slots=4).ask()) == 2 * 3
    said = dataclasses.replace(SWEEP, planner=RandomPlannerSpec(trials=20, at_once=5))
    planner = build_planner(said, MadeUpCompose(said), slots=1)
    asked = planner.ask()

    assert len(asked) == 2 * 5
    planner.tell(Observation(trial_id=asked[0].spec.trial_id, state=TrialState.COMPLETE, validation_accuracy=0.5))
    assert list(planner.ask()) == []
    second = next(trial for trial in asked if trial.spec == asked[0].spec.with_seed(2))
    planner.tell(Observation(trial_id=second.spec.trial_id, state=TrialState.COMPLETE, validation_accuracy=0.5))
    assert len(planner.ask()) == 2


def test_values_are_read_back_from_their_labels() -> None:
    """What is composed is what the tables show."""
    for trial in run(SWEEP).planned.values():
        labels = dict(trial.point.labels)
        assert labels[RATE] == f"learning_rate={trial.spec.optimizer.learning_rate}"


def test_a_range_is_drawn_evenly_on_its_scale() -> None:
    """Half of the draws of two decades and a half lie below their geometric mean: 50 % plus or minus 4 deviations."""
    sweep = dataclasses.replace(SWEEP, seeds=(1,), planner=RandomPlannerSpec(trials=300))
    rates = [trial.spec.optimizer.learning_rate for trial in run(sweep).planned.values()]
    low = sum(rate < (0.001 * 0.3) ** 0.5 for rate in rates)

    assert abs(low - 150) < 4 * 300**0.5 / 2
    whole = dataclasses.replace(sweep, axes=(integers(WIDTH, 1, 256, log=True), floats(RATE, 0.1, 1.0)))
    widths = [trial.spec.network.sizes[0] for trial in run(whole).planned.values()]
    assert abs(sum(width < 16 for width in widths) - 150) < 4 * 300**0.5 / 2


def test_a_configuration_is_asked_once_until_none_is_left() -> None:
    """Three points are three configurations, however many trials are wanted; the search then ends."""
    sweep = dataclasses.replace(SWEEP, axes=SWEEP.axes[1:], planner=TpePlannerSpec(trials=100))
    done = run(sweep)

    assert len(done.launched) == len(set(done.launched)) == 6
    assert sorted(labels_of(list(done.planned.values()))) == ["momentum=0.0", "momentum=0.5", "momentum=0.9"]


def test_points_that_mean_the_same_trial_are_one_configuration() -> None:
    """The second proposal is answered with what the first is worth."""
    sweep = dataclasses.replace(SWEEP, axes=(choices("idle", "a", "b", "c"), choices(MOMENTUM, 0.0, 0.5)))

    assert len(run(sweep).configs()) == 2


def test_a_point_that_cannot_be_meant_is_passed_over() -> None:
    """Others are proposed in its place; where none can be meant, the message of one is raised."""
    sweep = dataclasses.replace(SWEEP, axes=(choices(MOMENTUM, -1, 0.0, 0.5),))

    assert len(run(sweep).configs()) == 2
    with pytest.raises(SpecError, match="momentum is -1"):
        run(dataclasses.replace(SWEEP, axes=(choices(MOMENTUM, -1),)))


def test_grids_with_axes_of_the_same_name_are_searched_together() -> None:
    """Each point is of one grid, and conditions hold in it."""
    sweep = dataclasses.replace(
        SWEEP,
        axes=(choices(MOMENTUM, 0.0, 0.5), conditional(floats(DECAY, 0.001, 0.1), MOMENTUM, "momentum=0.5")),
        more_axes=((choices(MOMENTUM, 0.9, 0.95), floats(RATE, 0.1, 0.2)),),
        planner=TpePlannerSpec(trials=60),
    )
    found = [dict(trial.point.labels) for trial in run(sweep).planned.values()]

    assert all((RATE in labels) == (labels[MOMENTUM] in {"momentum=0.9", "momentum=0.95"}) for labels in found)
    assert all((DECAY in labels) == (labels[MOMENTUM] == "momentum=0.5") for labels in found)
    assert len({labels[MOMENTUM] for labels in found}) == 4


def test_baselines_come_with_their_configurations_and_are_not_told() -> None:
    """Each learning rate has a baseline of its own, beside the trials that were wanted."""
    done = run(dataclasses.replace(SWEEP, baselines=True), has_transformer=True)
    baselines = [trial for trial in done.planned.values() if trial.is_baseline]

    assert len(done.configs()) == 10
    assert len(baselines) == 20
    assert all(trial.label.endswith(" · no ST") and not trial.spec.transformers for trial in baselines)


def test_an_edited_sweep_keeps_what_is_done() -> None:
    """A further choice and a further seed: known configs get the seed, further configs may have the choice."""
    done = run(SWEEP)
    axes = (SWEEP.axes[0], choices(MOMENTUM, 0.0, 0.5, 0.9, 0.95))
    edited = dataclasses.replace(SWEEP, axes=axes, seeds=(1, 2, 3), planner=RandomPlannerSpec(trials=90))
    planner = build_planner(edited, MadeUpCompose(edited))
    planner.resume(done.known())
    again = Run(bowl, states=dict(done.states), accuracies=dict(done.accuracies)).go_on(planner)

    assert set(done.planned) <= set(again.planned)
    assert again.configs()[:10] == done.configs()
    assert len(again.configs()) == 30
    assert not set(done.planned) & set(again.launched)
    assert any(sgd_of(trial.spec).momentum == 0.95 for trial in again.planned.values())


def test_what_the_sweep_lost_is_not_asked_again() -> None:
    """Known points with a choice that was taken away, or left out since, are no part of it any more."""
    done = run(SWEEP)
    fewer = dataclasses.replace(SWEEP, axes=(SWEEP.axes[0], choices(MOMENTUM, 0.0, 0.5)))
    left_out = dataclasses.replace(SWEEP, exclude=(((MOMENTUM, "momentum=0.9"),),))
    for edited in (fewer, left_out):
        planner = build_planner(edited, MadeUpCompose(edited))
        planner.resume(done.known())
        again = Run(bowl, states=dict(done.states), accuracies=dict(done.accuracies)).go_on(planner)
        assert len(again.configs()) == 10
        assert all(sgd_of(trial.spec).momentum < 0.9 for trial in again.planned.values())


@pytest.mark.slow
def test_nsga2_finds_cheap_configurations_as_well_as_good_ones() -> None:
    """Where only the width costs, late finds are cheaper than early ones: in the median of three searches."""
    ratios = []
    for seed in range(3):
        sweep = dataclasses.replace(
            SWEEP,
            axes=(floats(RATE, 0.001, 0.3, log=True), integers(WIDTH, 1, 64)),
            seeds=(1,),
            planner=Nsga2PlannerSpec(trials=160, population=8, seed=seed),
        )
        costs = [flops_of(trial.spec) for trial in run(sweep).planned.values()]
        ratios.append(statistics.mean(costs[80:]) / statistics.mean(costs[:20]))

    assert statistics.median(ratios) < 0.9
    planner = build_planner(sweep, MadeUpCompose(sweep))
    trial_id = planner.ask()[0].spec.trial_id
    with pytest.raises(TransitionError, match="FLOPs"):
        planner.tell(Observation(trial_id=trial_id, state=TrialState.COMPLETE, validation_accuracy=0.5))


def test_optuna_says_nothing(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither its log nor its warnings reach the terminal, and the verbosity is as it was."""
    import optuna

    before = optuna.logging.get_verbosity()
    with caplog.at_level(logging.DEBUG):
        run(dataclasses.replace(SWEEP, planner=TpePlannerSpec(trials=30)))

    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (OptunaPlannerSpec(sampler="TPESmapler"), "did you mean TPESampler"),
        (OptunaPlannerSpec(sampler="GridSampler"), "planner: grid"),
        (OptunaPlannerSpec(sampler="BaseSampler"), "unknown planner.sampler"),
        (OptunaPlannerSpec(sampler="os"), "unknown planner.sampler"),
        (OptunaPlannerSpec(sampler="TPESampler", options={"n_startup": 3}), "did you mean n_startup_trials"),
        (OptunaPlannerSpec(sampler="TPESampler", options={"gamma": 3}), "unknown key"),
        (OptunaPlannerSpec(sampler="TPESampler", options={"seed": 3}), "set planner.seed"),
        (OptunaPlannerSpec(sampler="TPESampler", options={"n_startup_trials": "3"}), "takes int"),
        (OptunaPlannerSpec(sampler="TPESampler", options={"n_startup_trials": True}), "takes int"),
        (OptunaPlannerSpec(sampler="QMCSampler", options={"qmc_type": "sobel"}), "change the option"),
    ],
)
def test_a_sampler_that_cannot_be_meant_is_refused_at_once(spec: SamplerSpec, message: str) -> None:
    """Only Optuna's own samplers, with options of the types that they declare."""
    sweep = dataclasses.replace(SWEEP, planner=spec)
    with pytest.raises(SpecError, match=message):
        build_planner(sweep, MadeUpCompose(sweep))


def test_a_sampler_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """CMA-ES needs a package of its own."""
    import sys

    monkeypatch.setitem(sys.modules, "cmaes", None)
    sweep = dataclasses.replace(SWEEP, planner=OptunaPlannerSpec(sampler="CmaEsSampler", options={"popsize": 4}))
    with pytest.raises(SpecError, match="pip install cmaes"):
        run(sweep)


def test_a_survey_stands_for_all_that_may_be_asked() -> None:
    """Every choice is composed, of a range one value; a grid is composed as a whole."""
    compose = MadeUpCompose(SWEEP)

    assert len(list(survey(SWEEP, compose))) == 3
