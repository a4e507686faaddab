"""A plan counts, prices and expects, and runs nothing."""

import dataclasses
import json

import pytest
from fake_trials import Task, fake_spec

from stnbench.core.errors import InfeasibleError
from stnbench.core.text import Price
from stnbench.orchestration.plan import Experience, ImageDigests, plan_json, plan_lines, plan_sweep, training_images
from stnbench.spec.data import (
    DigitsSpec,
    FoldSplitSpec,
    GtsrbSpec,
    MnistSpec,
    OneTrackSplitSpec,
    SignsSpec,
    TrackSplitSpec,
)
from stnbench.spec.planner import GridPlannerSpec, PlannerSpec, RacingPlannerSpec, TpePlannerSpec
from stnbench.spec.result import Cost, TrialState
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.store.tables import PlannedTrial

COST = Cost(parameters=1_234, flops=1_000_000, activation_bytes=10)
SWEEP = SweepSpec(name="test", question="How long?")


def assess(spec: TrialSpec) -> Cost:
    """Every network costs the same, but those of configuration 2 cannot be built."""
    if spec.training.train_images == 10_002:
        raise InfeasibleError("too deep", remedy="use larger images")
    return COST


def planned() -> list[PlannedTrial]:
    """Three configurations with two seeds each."""
    specs = [fake_spec(Task.FINISH, config=config, seed=seed) for seed in (1, 2) for config in range(3)]
    return [
        PlannedTrial(spec=spec, point=Point(labels=()), label=f"cell {index % 3}") for index, spec in enumerate(specs)
    ]


def test_a_plan_counts_what_is_open_and_what_cannot_be_built() -> None:
    """The expected time is that of the open, feasible trials at the median pace, shared by the slots."""
    trials = planned()
    states = {trials[0].spec.trial_id: TrialState.COMPLETE, trials[1].spec.trial_id: TrialState.FAILED}
    work = 3 * 1_000_000 * 10_000 * 2
    paces = [Experience(work_flops=work, duration_s=seconds) for seconds in (10.0, 20.0, 1000.0)]
    plan = plan_sweep(
        SWEEP, trials, states=states, assess=assess, experience=paces, slots=2, points=5, notes={"no effect": 2}
    )

    assert (plan.trials, plan.complete, len(plan.configs), plan.overlapping_points) == (6, 1, 3, 2)
    assert plan.expected_s == pytest.approx(3 * 20.0 / 2, rel=1e-3)
    text = "\n".join(plan_lines(plan))
    assert "INVALID: too deep: use larger images" in text
    assert "3 configurations, 1 infeasible, 6 trials, 1 complete" in text
    assert "expected time: 30 s on 2 slots" in text
    assert "expected price" not in text
    price = Price(amount=6.0, unit="EUR")
    assert "expected price: 0.1 EUR (0.02 device hours at 6.00 EUR)" in plan_lines(plan, price)
    assert plan_json(plan, price)["price"] == {
        "amount": pytest.approx(0.1, rel=1e-3),
        "unit": "EUR",
        "device_hour": 6.0,
    }
    assert "expected energy" not in text
    measured = [*paces, *(dataclasses.replace(paces[0], energy_kwh=kwh) for kwh in (0.001, 0.002, 0.9))]
    known = plan_sweep(SWEEP, trials, states=states, assess=assess, experience=measured, slots=2, points=5, notes={})
    assert known.expected_kwh == pytest.approx(3 * 0.002, rel=1e-3)
    assert "expected energy: 6 Wh" in plan_lines(known)
    assert plan_json(known)["expected_kwh"] == known.expected_kwh
    plain = json.loads(json.dumps(plan_json(plan)))
    assert (plain["sweep"], plain["cells"], plain["trials"], plain["complete"]) == ("test", 3, 6, 1)
    assert plain["infeasible"] == [{"cell": "cell 2", "reason": "too deep: use larger images"}]


def test_a_measured_plan_expects_the_time_of_each_open_configuration() -> None:
    """Only configurations with open trials that can be built are timed, and the store's pace plays no part."""
    trials = planned()
    states = {trial.spec.trial_id: TrialState.COMPLETE for trial in (trials[0], trials[3], trials[1])}
    timed: list[str] = []

    def measure(spec: TrialSpec) -> float:
        timed.append(spec.config_id)
        return 90.0

    facts = {"assess": assess, "experience": [], "slots": 2, "points": 3, "notes": {}}
    plan = plan_sweep(SWEEP, trials, states=states, measure=measure, **facts)  # type: ignore[arg-type]
    assert timed == [trials[1].spec.config_id]
    assert plan.expected_s == 45.0
    lines = list(plan_lines(plan))
    assert [line.endswith(("90 s", "2 min")) for line in lines[2:5]] == [False, True, False]
    assert "timed here" in lines[-1]
    assert [config["trial_s"] for config in plan_json(plan)["cell_list"]] == [None, 90.0, None]  # type: ignore[index,union-attr,call-overload]
    assert "--measure" in list(plan_lines(plan_sweep(SWEEP, trials, states={}, **facts)))[-1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("planner", "budget"),
    [
        (GridPlannerSpec(), None),
        (TpePlannerSpec(trials=40), {"trials": 40, "seeds": None}),
        (RacingPlannerSpec(max_seeds=8), {"trials": None, "seeds": 8}),
        (RacingPlannerSpec(max_seeds=8, trials=99), {"trials": 99, "seeds": 8}),
    ],
)
def test_a_program_is_told_where_answers_decide_what_else_is_asked(
    planner: PlannerSpec, budget: dict[str, int | None] | None
) -> None:
    """Only a grid is all there; of a search the first proposals are, and how far it may go stands beside them."""
    sweep = dataclasses.replace(SWEEP, planner=planner)
    plan = plan_sweep(sweep, planned(), states={}, assess=assess, experience=[], slots=2, points=3, notes={})
    plain = json.loads(json.dumps(plan_json(plan)))

    assert (plain["planner"], plain["open_ended"], plain["budget"]) == (planner.kind, budget is not None, budget)


def test_trials_complete_with_other_images_do_not_count() -> None:
    """The plan says how they differ, and of which complete trials nothing is known for want of a cache."""
    trials = planned()
    ids = [trial.spec.trial_id for trial in trials]
    states = dict.fromkeys(ids[:4], TrialState.COMPLETE)
    here = {"train": "aa", "test": "bb"}
    recorded = {ids[0]: here, ids[1]: {"train": "aa", "test": "cc"}, ids[2]: {"train": "aa"}, ids[3]: {}}
    images = ImageDigests(found={trials[0].spec.dataset: here}, recorded=recorded)
    plan = plan_sweep(
        SWEEP, trials, states=states, assess=assess, experience=[], slots=1, points=3, notes={}, images=images
    )

    assert (plan.complete, plan.unchecked, len(plan.differences)) == (3, 1, 1)
    text = "\n".join(plan_lines(plan))
    assert "1 trial complete with other images" in text
    assert "signs: test digest cc, now bb" in text
    assert "not checked: whether 1 complete trial read the images found here" in text
    assert plan_json(plan)["images"] == {"same": 2, "other": 1, "not_checked": 1}


def test_without_experience_there_is_no_expectation() -> None:
    """A guess would be worse than none."""
    plan = plan_sweep(SWEEP, planned(), states={}, assess=assess, experience=[], slots=2, points=3, notes={})

    assert plan.expected_s is None
    assert "unknown until a trial is complete" in "\n".join(plan_lines(plan))


def test_the_images_of_an_epoch_are_known_without_the_data() -> None:
    """From the number asked for, or from the sizes of the set and of what is held out."""
    everything = TrainingSpec(train_images=None)
    gtsrb = TrialSpec(dataset=GtsrbSpec(), training=everything)
    signs = TrialSpec(dataset=SignsSpec(tracks_per_class=5), training=everything)

    assert training_images(TrialSpec(training=TrainingSpec(train_images=123))) == 123
    assert training_images(gtsrb) == 39_209 - 3_870
    assert training_images(TrialSpec(dataset=GtsrbSpec(), split=OneTrackSplitSpec(), training=everything)) == 37_919
    assert training_images(TrialSpec(dataset=GtsrbSpec(), split=FoldSplitSpec(folds=10), training=everything)) == 35_289
    assert training_images(signs) == 43 * 30 * 2
    digits = TrialSpec(dataset=DigitsSpec(copies=8), split=TrackSplitSpec(tracks_per_class=28), training=everything)
    assert training_images(digits) == (1438 - 280) * 8
    sums = TrialSpec(
        dataset=MnistSpec(task="addition"), split=TrackSplitSpec(tracks_per_class=150), training=everything
    )
    assert training_images(sums) == 30_000 - 150 * 19
