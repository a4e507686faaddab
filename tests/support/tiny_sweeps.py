"""Tiny sweeps of fake trials in this process, from lock to store: what a command does, without its torch and YAML."""

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fake_trials import Task, fake_spec, run_fake_trial
from typing_extensions import override

from stnbench.core.files import RunsLayout
from stnbench.core.identity import Json
from stnbench.engines import Slot
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration.asking import RunOptions, RunSummary
from stnbench.orchestration.claims import ProcessIdentity
from stnbench.orchestration.runner import Runner
from stnbench.orchestration.session import SessionOptions, open_session
from stnbench.planning import Known, Observation, Planner, Progress
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.portable import KEYS
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial

SLOT = Slot(name="cpu0", device="cpu", threads=1)
SWEEP = SweepSpec(name="tiny", question="Does it run?", baselines=False)
TRIALS = tuple(fake_spec(Task.FINISH, seed=seed, epochs=1, config=config) for config in (0, 1) for seed in (1, 2))


class ListPlanner(Planner):
    """Asks for a list, once."""

    def __init__(self, specs: tuple[TrialSpec, ...]) -> None:
        self._left = specs

    @property
    @override
    def is_exhausted(self) -> bool:
        return not self._left

    @override
    def ask(self) -> list[PlannedTrial]:
        asked, self._left = self._left, ()
        labels = [(spec, f"cell {spec.training.train_images}") for spec in asked]
        return [PlannedTrial(spec=spec, point=Point(labels=(("cell", label),)), label=label) for spec, label in labels]

    @override
    def tell(self, observation: Observation) -> None:
        pass

    @override
    def should_prune(self, progress: Progress) -> bool:
        return False

    @override
    def resume(self, known: "list[Known] | tuple[Known, ...]") -> None:  # type: ignore[override] # any sequence
        pass


@dataclass(slots=True)
class QuickClock:
    """A clock that goes on by ten seconds whenever it is asked, so that waits are over at once."""

    now_s: float = field(default=0.0)

    def __call__(self) -> float:
        """The time now."""
        self.now_s += 10.0
        return self.now_s


def without_training(monkeypatch: pytest.MonkeyPatch, run: Callable[..., object] = run_fake_trial) -> None:
    """Let attempts run in this process and train nothing."""
    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stnbench.trials.run", stand_in)


def run_tiny(
    layout: RunsLayout, specs: tuple[TrialSpec, ...] = TRIALS, *, sweep: SweepSpec = SWEEP, retry_failed: bool = False
) -> RunSummary:
    """Run a sweep of these trials to its end, as ``stnbench sweep`` does it."""
    with open_session(layout, SessionOptions(engine="inline")) as session:
        runner = Runner(
            sweep=sweep,
            planner=ListPlanner(specs),
            store=session.store,
            engine=InlineEngine(SLOT),
            layout=layout,
            identity=ProcessIdentity.current(),
            options=RunOptions(data_root=layout.root, retry_failed=retry_failed),
            clock_s=QuickClock(),
            keep_alone=session.keep_lock,
        )
        summary = runner.run()
        session.store.check_whole()
        return summary


@contextmanager
def opened(layout: RunsLayout) -> Iterator[Store]:
    """The store of a runs folder, to read."""
    assert isinstance(layout.store, Path)
    with Store.open(layout.store, writable=False) as store:
        yield store


def all_rows(layout: RunsLayout) -> dict[str, list[dict[str, Json]]]:
    """Every row of a store, in the order of their keys."""
    with opened(layout) as store:
        return {table: list(own.values()) for table, own in store.rows(KEYS).items()}


def scores_of(layout: RunsLayout) -> dict[str, list[tuple[Json, ...]]]:
    """What a store says of every trial, however it came to it: state, scores and epochs of the complete attempt."""
    rows = all_rows(layout)
    complete = {(row["trial_id"], row["number"]) for row in rows["outcomes"]}
    return {
        "trials": [(row["id"], row["state"]) for row in rows["trials"]],
        "links": [(row["sweep"], row["trial_id"], row["position"], row["label"]) for row in rows["sweep_trials"]],
        "scores": [(row["trial_id"], row["split"], row["correct"], row["loss"]) for row in rows["scores"]],
        "predictions": [(row["trial_id"], row["split"], row["labels"]) for row in rows["predictions"]],
        "epochs": [
            (row["trial_id"], row["epoch"], row["train_loss"], row["validation_accuracy"])
            for row in rows["epochs"]
            if (row["trial_id"], row["number"]) in complete
        ],
    }
