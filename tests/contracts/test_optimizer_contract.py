"""What every optimiser and schedule promises: to learn, to repeat, and to go on from a file as if never stopped."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.spec.codec import from_json, from_plain, to_json
from stnbench.spec.optimizer import (
    OPTIMIZERS,
    SCHEDULES,
    AnyOptimizer,
    AnySchedule,
    OptimizerSpec,
    PlateauScheduleSpec,
    ScheduleSpec,
)
from stnbench.spec.trial import TrialSpec
from stnbench.training.loop import (
    Checkpoint,
    Hooks,
    Progress,
    TrainingOutcome,
    read_checkpoint,
    train,
    write_checkpoint,
)
from stnbench.training.optim import optimizer_state
from stnbench.training.step import TrainingRun

pytestmark = pytest.mark.slow

MakeRun = Callable[[TrialSpec], TrainingRun]

PLATEAU = PlateauScheduleSpec(patience_epochs=0, threshold=0.5, warmup_epochs=0.5)
"""One that falls in three epochs."""


def optimizer(kind: str) -> OptimizerSpec:
    """The optimiser of a kind, its other keys left alone."""
    return cast("OptimizerSpec", from_plain(cast("Any", AnyOptimizer), {"kind": kind}, where="a test"))


def schedule(kind: str) -> ScheduleSpec:
    """The schedule of a kind, its other keys left alone, but for one that would not fall so soon."""
    found = cast("ScheduleSpec", from_plain(cast("Any", AnySchedule), {"kind": kind}, where="a test"))
    return PLATEAU if kind == PLATEAU.kind else found


CASES: dict[str, dict[str, Any]] = {
    **{f"optimizer {kind}": {"optimizer": optimizer(kind)} for kind in OPTIMIZERS.names()},
    **{f"schedule {kind}": {"schedule": schedule(kind)} for kind in SCHEDULES.names()},
}

every_case = pytest.mark.parametrize("case", CASES)


def hooks(stop_after_steps: int | None = None) -> Hooks:
    """Keep nothing; stop after so many steps."""
    asked = iter(range(10**6))
    return Hooks(
        save=lambda _: None,
        report=lambda _: None,
        should_stop=lambda: stop_after_steps is not None and next(asked) >= stop_after_steps,
    )


def state(run: TrainingRun) -> bytes:
    """Weights and the optimiser's state, as bytes."""
    buffer = io.BytesIO()
    torch.save((run.model.network.state_dict(), optimizer_state(run.optimizer)), buffer)
    return buffer.getvalue()


def losses(outcome: TrainingOutcome) -> list[tuple[float, float, float]]:
    """Losses and learning rates of every epoch."""
    return [(one.train_loss, one.validation_loss, one.learning_rate) for one in outcome.progress.records]


@every_case
def test_a_break_after_any_epoch_changes_nothing(
    case: str,
    make_run: MakeRun,
    toy_spec: TrialSpec,
    tmp_path: Path,
) -> None:
    """Through the checkpoint's file, bit for bit: losses, rates, weights and all that the optimiser remembers."""
    spec = dataclasses.replace(toy_spec, **CASES[case])
    whole = make_run(spec)
    expected = train(whole, hooks(), Progress())
    progress, run = Progress(), make_run(spec)
    for _ in range(spec.training.epochs):
        progress = train(run, hooks(run.steps), progress).progress
        kept = Checkpoint(
            trial_id=spec.trial_id,
            classes=4,
            statistics=GlobalStatistics(mean=0.25, std=0.25),
            progress=progress,
            network=run.model.network.state_dict(),
            optimizer=optimizer_state(run.optimizer),
        )
        write_checkpoint(tmp_path / "checkpoint", kept)
        again = read_checkpoint(tmp_path / "checkpoint", trial_id=spec.trial_id)
        run, progress = make_run(spec), again.progress
        again.restore(run.model.network, run.optimizer, None)
    found = train(run, hooks(), progress)
    assert losses(found) == losses(expected)
    assert state(run) == state(whole)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("schedule")])
def test_it_learns(case: str, make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """The loss of a toy task falls; every learning rate is at most the optimiser's."""
    spec = dataclasses.replace(toy_spec, **CASES[case])
    outcome = train(make_run(spec), hooks(), Progress())
    first, *_, last = losses(outcome)
    assert last[0] < first[0]
    assert all(0 <= rate <= spec.optimizer.learning_rate for _, _, rate in losses(outcome))


@every_case
def test_it_is_stored_as_it_is(case: str) -> None:
    """A trial comes back from JSON the same, with the same identity; a default said aloud makes no other trial."""
    spec = TrialSpec(**CASES[case])
    again = from_json(TrialSpec, to_json(spec), where="a test")
    assert (again, again.trial_id) == (spec, spec.trial_id)
    assert spec.parts == ()


def test_every_kind_is_another_trial() -> None:
    """No two optimisers or schedules share an identity."""
    trials = [TrialSpec(**case) for case in CASES.values()]
    assert len({trial.trial_id for trial in trials}) == len({to_json(trial) for trial in trials}) == len(trials) - 1


@pytest.mark.parametrize(("section", "kind", "meant"), [("optimizer", "adan", "adam"), ("schedule", "cosin", "cosine")])
def test_an_unknown_kind_is_refused_by_name(section: str, kind: str, meant: str) -> None:
    """An unknown schedule was constant once; the nearest names are said."""
    with pytest.raises(UnknownNameError, match=f"unknown {section}.kind '{kind}'.*did you mean {meant}"):
        from_plain(TrialSpec, {section: {"kind": kind}}, where="a test")


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("optimizer", {"kind": "adam", "beta1": 1.0}, "beta1 is 1.0"),
        ("optimizer", {"kind": "rmsprop", "momentum": -0.1}, "momentum is -0.1"),
        ("optimizer", {"kind": "muon", "newton_schulz_steps": 0}, "newton_schulz_steps is 0"),
        ("optimizer", {"kind": "adamw", "nesterov": True}, "optimizer.nesterov"),
        ("optimizer", {"kind": "adam", "learning_rate": 0.0}, "learning_rate is 0.0"),
        ("schedule", {"kind": "step", "factor": 0.0}, "factor is 0.0"),
        ("schedule", {"kind": "step", "every_epochs": 0}, "every_epochs is 0"),
        ("schedule", {"kind": "plateau", "watch": "test"}, "test"),
        ("schedule", {"kind": "cosine", "final_share": 1.5}, "final_share is 1.5"),
        ("schedule", {"kind": "one_cycle", "warmup_epochs": 2.0}, "set warmup_share"),
        ("schedule", {"kind": "constant", "warmup_epochs": -1.0}, "warmup_epochs is -1.0"),
        ("training", {"gradient_clipping": 0.0}, "gradient_clipping is 0.0"),
    ],
)
def test_values_without_a_meaning_are_refused(section: str, keys: dict[str, Any], message: str) -> None:
    """Each names the key and what it may be."""
    with pytest.raises(SpecError, match=message):
        from_plain(TrialSpec, {section: keys}, where="a test")
