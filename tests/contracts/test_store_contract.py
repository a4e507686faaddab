"""The store keeps what it is told, refuses what cannot be, and gives records back as they went in."""

import dataclasses
import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import database, needs_postgres

from stnbench.core.errors import SpecError, StoreError, TransitionError, UnknownNameError
from stnbench.spec.control import Action, ControlRecord, ControlRequest, Effect, Pause, Resume, Retry, Stop
from stnbench.spec.network import LecunSpec
from stnbench.spec.planner import MedianPrunerSpec
from stnbench.spec.result import (
    AttemptState,
    Cost,
    Environment,
    EpochRecord,
    Failure,
    FailureKind,
    ScoredImages,
    SplitScore,
    TransformerHealth,
    TrialResult,
    TrialState,
)
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec
from stnbench.spec.transformer import PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptEpoch, AttemptStart, PlannedTrial

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = START + timedelta(seconds=90)
SWEEP = SweepSpec(
    name="locnet_sizes",
    question="How large must a localisation network be?",
    axes=(Axis(name="size", choices=(Choice(label="20", overrides=(Override(key="locnet.sizes", value=(20, 20)),)),)),),
)
OTHER = SweepSpec(name="networks", question="Which network?")
PRUNING = SweepSpec(name="pruning", question="Which network, soon?", pruner=MedianPrunerSpec())
CRASH = Failure(
    kind=FailureKind.BUG, message="it broke — 'quoted'", traceback="Traceback ...", last_output="last\nlines"
)


def planned(size: int, *, seed: int = 1, is_baseline: bool = False) -> PlannedTrial:
    """A trial of its own configuration for every size."""
    transformers = () if is_baseline else (PlacedTransformerSpec(place=1),)
    spec = TrialSpec(network=LecunSpec(sizes=(size, 20, 30)), transformers=transformers, seed=seed)
    return PlannedTrial(
        spec=spec, point=Point(labels=(("size", str(size)),)), label=f"size {size}", is_baseline=is_baseline
    )


def start(trial: PlannedTrial, named: str = "first", *, at: datetime = START) -> AttemptStart:
    """An attempt that is about to run."""
    trial_id = trial.spec.trial_id
    return AttemptStart(
        trial_id=trial_id, token=named, slot="gpu0", host="box", pid=4711, boot_id="boot", started_at=at
    )


def epoch(number: int, *, places: int = 1, loss: float = 0.5) -> EpochRecord:
    """One epoch, with the health of some transformers."""
    health = TransformerHealth(
        place=1,
        theta_mean=(1.0, 0.1, -0.2, 0.0, 1.0, 1 / 3),
        theta_std=(0.1, 0.0, 0.0, 0.0, 0.1, 0.0),
        outside_share=0.125,
        identity_distance=0.3,
        determinant_mean=0.97,
    )
    return EpochRecord(
        epoch=number,
        step=number * 400,
        train_loss=loss,
        validation_loss=0.4,
        validation_accuracy=0.9,
        learning_rate=0.01,
        train_duration_s=3.25,
        evaluate_duration_s=0.5,
        metrics={"ece": 0.1 + number / 3, "brier@12345678": 1 / 7},
        health=tuple(dataclasses.replace(health, place=place + 1) for place in range(places)),
    )


def result(trial: PlannedTrial, named: str = "first", *, epochs: int = 2, host: str = "box") -> TrialResult:
    """What a finished attempt reports; one label needs two bytes."""
    return TrialResult(
        trial_id=trial.spec.trial_id,
        token=named,
        epochs=tuple(epoch(number) for number in range(1, epochs + 1)),
        validation=SplitScore(split="validation", images=4, correct=3, loss=0.25, predictions=(0, 42, 7, 255)),
        test=SplitScore(split="test", images=3, correct=1, loss=1.5, predictions=(1, 300, 65535)),
        cost=Cost(parameters=12_345, flops=5_000_000_000, activation_bytes=98_304),
        environment=Environment(
            commit="0" * 40,
            dirty=True,
            python="3.11",
            platform="Linux",
            host=host,
            device="cpu",
            threads=2,
            versions=(("numpy", "2"), ("torch", "2.7")),
            dataset_digest="d1",
        ),
        train_duration_s=6.5,
        peak_memory_mib=123.5,
    )


def without_predictions(score: SplitScore | None) -> SplitScore | None:
    """The score as a light reader sees it."""
    return score and dataclasses.replace(score, predictions=())


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, made once: migrations take longer than most tests."""
    file = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(file, writable=True).close()
    return file


class StoreContract:
    """What every store promises; an implementation says where it is."""

    @pytest.fixture
    def where(self) -> Path | str:
        """Where the store under test is."""
        raise AssertionError("an implementation says where its store is")

    @pytest.fixture
    def store(self, where: Path | str) -> Iterator[Store]:
        """An empty store, open to write."""
        with Store.open(where, writable=True) as store:
            yield store

    def test_an_empty_store_answers(self, store: Store) -> None:
        """Nothing is there, and no question about everything is an error."""
        assert store.sweeps() == []
        assert store.running_attempts() == []
        assert store.mirrored("mlflow") == {}

    def test_a_sweep_comes_back_as_it_was_saved(self, store: Store) -> None:
        """The specification, the times and the counts of states are those that were written."""
        assert store.save_sweep(SWEEP, [planned(1), planned(2)], START) == 2
        [record] = store.sweeps()
        assert record.spec == SWEEP
        assert (record.created_at, record.updated_at) == (START, START)
        assert record.counts == {TrialState.PLANNED: 2}

    def test_trials_come_back_in_the_order_of_the_plan(self, store: Store) -> None:
        """Every field of a planned trial is given back, in the order in which it was planned."""
        plan = [planned(3), planned(1), planned(2, is_baseline=True)]
        store.save_sweep(SWEEP, plan, START)
        records = store.sweep_trials(SWEEP.name)
        assert [(r.spec, r.point, r.label, r.is_baseline) for r in records] == [
            (p.spec, p.point, p.label, p.is_baseline) for p in plan
        ]
        assert [r.trial_id for r in records] == [p.spec.trial_id for p in plan]
        assert [r.config_id for r in records] == [p.spec.config_id for p in plan]
        assert [(r.position, r.seed, r.attempts, r.last_attempt) for r in records] == [
            (i, 1, 0, None) for i in range(3)
        ]

    def test_saving_a_sweep_again_changes_only_its_time(self, store: Store) -> None:
        """Resuming is free: no trial is new, none is planned again, and the first time stays."""
        plan = [planned(1), planned(2)]
        store.save_sweep(SWEEP, plan, START)
        store.start_attempt(start(plan[0]))
        store.complete_attempt("first", result(plan[0]), LATER)
        before = store.sweep_trials(SWEEP.name)
        assert store.save_sweep(SWEEP, plan, LATER) == 0
        assert store.sweep_trials(SWEEP.name) == before
        [record] = store.sweeps()
        assert (record.created_at, record.updated_at) == (START, LATER)

    def test_an_edited_sweep_shows_what_it_asks_for_now(self, store: Store) -> None:
        """A trial no longer asked for is kept and not shown, and shown again with all it has when asked for again."""
        store.save_sweep(SWEEP, [planned(1), planned(2), planned(3)], START)
        store.start_attempt(start(planned(1)))
        store.complete_attempt("first", result(planned(1)), LATER)
        edited = dataclasses.replace(SWEEP, question="Another?")
        assert store.save_sweep(edited, [planned(4), planned(3)], LATER) == 1
        assert [r.spec for r in store.sweep_trials(SWEEP.name)] == [planned(4).spec, planned(3).spec]
        assert store.sweeps()[0].spec == edited
        assert store.sweeps()[0].counts == {TrialState.PLANNED: 2}
        assert store.outcomes(SWEEP.name) == {}
        assert store.attempts_of_sweep(SWEEP.name) == []
        assert store.epochs_of_sweep(SWEEP.name) == {}
        assert store.save_sweep(SWEEP, [planned(3), planned(1)], LATER) == 0
        records = store.sweep_trials(SWEEP.name)
        assert [(r.position, r.state) for r in records] == [(0, TrialState.PLANNED), (1, TrialState.COMPLETE)]
        assert set(store.outcomes(SWEEP.name)) == {planned(1).spec.trial_id}

    @given(first=st.permutations(range(6)), second=st.permutations(range(8)), kept=st.integers(0, 8))
    @settings(
        max_examples=20,
        deadline=None,
        # The store is not emptied between examples, which is the point; and each implementation runs this once.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    def test_a_sweep_shows_its_last_plan(self, store: Store, first: list[int], second: list[int], kept: int) -> None:
        """Whatever was planned before, in whatever order, the last plan is what is shown."""
        store.save_sweep(SWEEP, [planned(size + 1) for size in first], START)
        store.save_sweep(SWEEP, [planned(size + 1) for size in second[:kept]], LATER)
        shown = store.sweep_trials(SWEEP.name)
        assert [r.spec.network.sizes[0] - 1 for r in shown] == second[:kept]

    def test_labels_belong_to_the_sweep(self, store: Store) -> None:
        """A trial in two sweeps runs once, and each sweep shows it by its own label and position."""
        shared = planned(1)
        store.save_sweep(SWEEP, [shared], START)
        own = dataclasses.replace(shared, label="mine", point=Point(labels=(("network", "lecun"),)), is_baseline=True)
        assert store.save_sweep(OTHER, [planned(2), own], LATER) == 1
        store.start_attempt(start(shared))
        [in_first], [_, in_second] = store.sweep_trials(SWEEP.name), store.sweep_trials(OTHER.name)
        assert (in_first.label, in_first.position, in_first.is_baseline) == ("size 1", 0, False)
        assert (in_second.label, in_second.position, in_second.is_baseline) == ("mine", 1, True)
        assert in_first.last_attempt == in_second.last_attempt
        assert [record.spec.name for record in store.sweeps()] == [OTHER.name, SWEEP.name]

    def test_a_trial_planned_twice_is_refused(self, store: Store) -> None:
        """A plan with the same trial twice has no order; nothing of it is written."""
        with pytest.raises(SpecError, match="plans a trial twice"):
            store.save_sweep(SWEEP, [planned(1), planned(1)], START)
        assert store.sweeps() == []

    def test_attempts_count_within_their_trial(self, store: Store) -> None:
        """The first attempt has number 1, the next one number 2, and the record says what was given."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        first = store.start_attempt(start(planned(1)))
        assert (first.number, first.state, first.finished_at, first.failure) == (1, AttemptState.RUNNING, None, None)
        assert (first.slot, first.host, first.pid, first.boot_id) == ("gpu0", "box", 4711, "boot")
        assert (first.trial_id, first.token, first.started_at) == (planned(1).spec.trial_id, "first", START)
        store.end_attempt("first", AttemptState.LOST, None, LATER, trial_state=TrialState.PLANNED)
        assert store.start_attempt(start(planned(1), "second")).number == 2
        assert store.start_attempt(start(planned(2), "third")).number == 1
        assert [a.token for a in store.running_attempts()] == ["second", "third"]
        assert [a.token for a in store.attempts_of_sweep(SWEEP.name)] == ["first", "second", "third"]
        assert [a.token for a in store.attempts_of_trial(planned(1).spec.trial_id)] == ["first", "second"]
        [one, two] = store.sweep_trials(SWEEP.name)
        assert (one.attempts, two.attempts) == (2, 1)
        assert one.last_attempt == store.running_attempts()[0]

    def test_times_are_utc_whatever_zone_they_come_in(self, store: Store) -> None:
        """A time in another zone comes back as the same moment, in UTC, to the microsecond."""
        store.save_sweep(SWEEP, [planned(1)], START)
        local = START.astimezone(timezone(timedelta(hours=5, minutes=30)))
        attempt = store.start_attempt(start(planned(1), at=local))
        assert attempt.started_at == START
        assert attempt.started_at.tzinfo is UTC

    def test_a_time_without_a_zone_is_refused(self, store: Store) -> None:
        """Nobody could say later which moment it was."""
        with pytest.raises(StoreError, match="has no zone"):
            store.save_sweep(SWEEP, [planned(1)], START.replace(tzinfo=None))

    def test_a_trial_runs_once_at_a_time(self, store: Store) -> None:
        """A second attempt cannot begin while the first one runs, and the refusal tells the history."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        with pytest.raises(TransitionError, match=r"it is running.*attempt 1 running"):
            store.start_attempt(start(planned(1), "second"))
        assert len(store.attempts_of_sweep(SWEEP.name)) == 1

    def test_a_failed_trial_does_not_start(self, store: Store) -> None:
        """No further attempt follows unless a person asks for one."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.FAILED, CRASH, LATER, trial_state=TrialState.FAILED)
        with pytest.raises(TransitionError, match="it is failed"):
            store.start_attempt(start(planned(1), "second"))

    def test_a_trial_is_pruned_in_the_sweep_that_pruned_it(self, store: Store) -> None:
        """To another sweep it is planned; while and until that one completes it, it stays pruned in the first."""
        trial, trial_id = planned(1), planned(1).spec.trial_id
        for sweep in (PRUNING, OTHER):
            store.save_sweep(sweep, [trial], START)
        store.start_attempt(start(trial))
        store.end_attempt("first", AttemptState.PRUNED, None, LATER, trial_state=TrialState.PRUNED, sweep=PRUNING.name)

        def seen() -> list[TrialState]:
            states = []
            for sweep in (PRUNING, OTHER):
                [record] = store.sweep_trials(sweep.name)
                counts = {found.spec.name: found.counts for found in store.sweeps()}
                assert counts[sweep.name] == {record.state: 1}
                assert store.trial_states([trial_id], sweep=sweep.name) == {trial_id: record.state}
                states.append(record.state)
            return states

        assert seen() == [TrialState.PRUNED, TrialState.PLANNED]
        assert store.trial_states([trial_id]) == {trial_id: TrialState.PRUNED}
        store.start_attempt(start(trial, "second"))
        assert seen() == [TrialState.PRUNED, TrialState.RUNNING]
        store.end_attempt("second", AttemptState.STOPPED, None, LATER, trial_state=TrialState.PLANNED)
        assert seen() == [TrialState.PRUNED, TrialState.PLANNED]
        store.start_attempt(start(trial, "third"))
        store.complete_attempt("third", result(trial, "third"), LATER)
        assert seen() == [TrialState.COMPLETE, TrialState.COMPLETE]

    def test_what_is_unsettled_is_told_with_the_counts(self, store: Store) -> None:
        """Trials that run or have failed come in order, as ``sweep_trials`` tells them; others are counted."""
        done, failed, running, _ = trials = [planned(size) for size in range(1, 5)]
        store.save_sweep(SWEEP, trials, START)
        for trial, name in ((done, "done"), (running, "running"), (failed, "failed")):
            store.start_attempt(start(trial, name))
        store.complete_attempt("done", result(done, "done"), LATER)
        store.end_attempt("failed", AttemptState.FAILED, CRASH, LATER, trial_state=TrialState.FAILED)
        counts, told = store.unsettled(SWEEP.name)
        everything = store.sweep_trials(SWEEP.name)
        assert store.trial_ids(SWEEP.name) == [trial.trial_id for trial in everything]
        assert told == everything[1:3]
        assert counts == Counter(trial.state for trial in everything)
        with pytest.raises(UnknownNameError, match="did you mean locnet_sizes"):
            store.unsettled("locnet_size")

    def test_the_latest_trials_tell_how_long_they_took(self, store: Store) -> None:
        """Each once, whatever sweeps it is of, and no more than are asked for."""
        trials = [planned(size) for size in range(1, 4)]
        for sweep in (SWEEP, OTHER):
            store.save_sweep(sweep, trials, START)
        for minutes, trial in enumerate(trials):
            named = str(minutes)
            store.start_attempt(start(trial, named))
            store.complete_attempt(named, result(trial, named), START + timedelta(minutes=minutes))
        told = store.latest_timings(2)
        expected = result(trials[0], "0")
        assert [timing.spec for timing in told] == [trials[2].spec, trials[1].spec]
        assert {timing.cost for timing in told} == {expected.cost}
        assert {timing.train_duration_s for timing in told} == {expected.train_duration_s}

    def test_a_sweep_without_its_pruner_has_no_pruned_trials(self, store: Store) -> None:
        """Saved again without a pruner it plans them; saved again with one it does not."""
        store.save_sweep(PRUNING, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.PRUNED, None, LATER, trial_state=TrialState.PRUNED, sweep=PRUNING.name)
        store.save_sweep(PRUNING, [planned(1)], LATER)
        assert store.sweep_trials(PRUNING.name)[0].state is TrialState.PRUNED
        store.save_sweep(dataclasses.replace(PRUNING, pruner=None), [planned(1)], LATER)
        assert store.sweep_trials(PRUNING.name)[0].state is TrialState.PLANNED

    def test_a_token_names_one_attempt(self, store: Store) -> None:
        """A token is never used again, not even by another trial."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        store.start_attempt(start(planned(1)))
        with pytest.raises(TransitionError, match="token first was used before"):
            store.start_attempt(start(planned(2)))

    def test_epochs_come_back_as_they_were_reported(self, store: Store) -> None:
        """Every number of every epoch is given back exactly, in order, under its attempt."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        records = [epoch(2, places=3, loss=1 / 3), epoch(1, places=0, loss=1e-300)]
        for record in records:
            store.add_epoch("first", record)
        expected = [AttemptEpoch(attempt=1, record=records[1]), AttemptEpoch(attempt=1, record=records[0])]
        assert store.epochs_of_trial(planned(1).spec.trial_id) == expected
        assert store.epochs_of_sweep(SWEEP.name) == {planned(1).spec.trial_id: expected}

    def test_an_epoch_is_written_once(self, store: Store) -> None:
        """Reporting an epoch again changes nothing, even with other numbers."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.add_epoch("first", epoch(1))
        store.add_epoch("first", epoch(1, loss=9.0))
        assert [e.record for e in store.epochs_of_trial(planned(1).spec.trial_id)] == [epoch(1)]

    @pytest.mark.parametrize("loss", [float("nan"), float("inf")])
    def test_only_finite_numbers_are_stored(self, store: Store, loss: float) -> None:
        """A diverged attempt fails; it does not leave a number that is none."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        with pytest.raises(StoreError, match="train_loss of epoch 1"):
            store.add_epoch("first", epoch(1, loss=loss))

    def test_an_ended_attempt_reports_nothing_more(self, store: Store) -> None:
        """A late epoch of an attempt that was given up is refused; one that is there already is no news."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.add_epoch("first", epoch(1))
        store.end_attempt("first", AttemptState.LOST, None, LATER, trial_state=TrialState.PLANNED)
        store.add_epoch("first", epoch(1))
        with pytest.raises(TransitionError, match="attempt 1 has ended"):
            store.add_epoch("first", epoch(2))

    def test_a_result_completes_attempt_and_trial(self, store: Store) -> None:
        """Scores, cost, environment and epochs are there at once, and the states say so."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.add_epoch("first", epoch(1))
        finished = result(planned(1))
        store.complete_attempt("first", finished, LATER)
        [trial] = store.sweep_trials(SWEEP.name)
        assert trial.state is TrialState.COMPLETE
        assert trial.last_attempt is not None
        assert (trial.last_attempt.state, trial.last_attempt.finished_at) == (AttemptState.COMPLETE, LATER)
        assert trial.last_attempt.duration_s == 90.0
        assert [e.record for e in store.epochs_of_trial(trial.trial_id)] == list(finished.epochs)
        outcome = store.outcome(trial.trial_id, predictions=True)
        assert outcome is not None
        assert (outcome.attempt, outcome.validation, outcome.test) == (1, finished.validation, finished.test)
        assert (outcome.cost, outcome.environment) == (finished.cost, finished.environment)
        assert (outcome.train_duration_s, outcome.peak_memory_mib) == (6.5, 123.5)
        assert store.running_attempts() == []

    def test_outcomes_are_light_unless_predictions_are_asked_for(self, store: Store) -> None:
        """A leaderboard reads scores; labels come only when asked for, or split by split."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        for size, host in ((1, "box"), (2, "other")):
            store.start_attempt(start(planned(size), f"token {size}"))
            store.complete_attempt(f"token {size}", result(planned(size), f"token {size}", host=host), LATER)
        finished, trial_id = result(planned(1)), planned(1).spec.trial_id
        light, full = store.outcomes(SWEEP.name), store.outcomes(SWEEP.name, predictions=True)
        assert set(light) == set(full) == {planned(1).spec.trial_id, planned(2).spec.trial_id}
        assert light[trial_id].validation == without_predictions(finished.validation)
        assert light[trial_id].test == without_predictions(finished.test)
        assert full[trial_id].validation == finished.validation
        assert full[trial_id].test == finished.test
        assert {outcome.environment.host for outcome in light.values()} == {"box", "other"}
        assert store.predictions(trial_id, "test") == (1, 300, 65535)
        assert store.predictions(trial_id, "train") is None

    def test_what_complete_trials_were_computed_with_is_told_for_many_at_once(self, store: Store) -> None:
        """Those that are not complete, and those not asked for, are left out."""
        first, second, third = planned(20), planned(30), planned(40)
        store.save_sweep(SWEEP, [first, second, third], START)
        for trial, named, host in ((first, "a", "box"), (second, "b", "other")):
            store.start_attempt(start(trial, named))
            store.complete_attempt(named, result(trial, named, host=host), LATER)
        ids = [trial.spec.trial_id for trial in (first, second, third)]

        assert {name: found.host for name, found in store.environments(ids).items()} == {ids[0]: "box", ids[1]: "other"}
        assert store.environments(ids[1:])[ids[1]] == result(second, host="other").environment
        assert store.environments([]) == {}

    def test_what_trials_were_scored_on_is_kept_once(self, store: Store) -> None:
        """Predictions and true labels come back by trial; equal sets are one, a score that names none has none."""
        trials = [planned(size) for size in (1, 2, 3)]
        store.save_sweep(SWEEP, trials, START)
        scored = ScoredImages(labels=(0, 42, 7, 300), tracks=(9, 9, 70_000, 1), rows=(0, 1, 5, 7))
        for index, trial in enumerate(trials):
            store.start_attempt(start(trial, f"number {index}"))
            made = result(trial, f"number {index}")
            if index:
                made = dataclasses.replace(made, validation=dataclasses.replace(made.validation, scored=scored))
            store.complete_attempt(f"number {index}", made, LATER)
        found = store.image_sets("locnet_sizes", "validation")
        (digest,) = found.sets
        assert found.sets[digest] == scored
        assert found.of_trial == {trial.spec.trial_id: digest for trial in trials[1:]}
        assert store.image_sets("locnet_sizes", "test").of_trial == {}
        asked = [trial.spec.trial_id for trial in trials[:2]]
        predicted = (0, 42, 7, 255)
        assert store.predictions_of_sweep("locnet_sizes", "validation", asked) == dict.fromkeys(asked, predicted)
        assert len(store.predictions_of_sweep("locnet_sizes", "validation")) == 3

    @pytest.mark.parametrize(
        "scored",
        [
            ScoredImages(labels=(1, 2, 3)),
            ScoredImages(labels=(1, 2, 3, 4), tracks=(1,)),
            ScoredImages(labels=(1, 2, 3, 4), rows=(0, -1, 2, 3)),
        ],
    )
    def test_images_that_do_not_fit_their_score_are_refused(self, store: Store, scored: ScoredImages) -> None:
        """One label an image; a track and a place for every image or for none; and nothing else is written."""
        trial = planned(1)
        store.save_sweep(SWEEP, [trial], START)
        store.start_attempt(start(trial))
        made = result(trial)
        with pytest.raises(StoreError):
            store.complete_attempt(
                "first",
                dataclasses.replace(made, validation=dataclasses.replace(made.validation, scored=scored)),
                LATER,
            )
        assert store.outcomes("locnet_sizes") == {}

    def test_a_result_without_a_test_split_has_none(self, store: Store) -> None:
        """Where no test images were there, there is no score, not a zero."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.complete_attempt("first", dataclasses.replace(result(planned(1)), test=None), LATER)
        assert store.outcomes(SWEEP.name)[planned(1).spec.trial_id].test is None
        assert store.predictions(planned(1).spec.trial_id, "test") is None

    def test_a_trial_is_complete_exactly_once(self, store: Store) -> None:
        """A second result of the same trial is refused, and the first one stays."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.LOST, None, LATER, trial_state=TrialState.PLANNED)
        store.start_attempt(start(planned(1), "second"))
        store.complete_attempt("second", result(planned(1), "second"), LATER)
        for token in ("second", "first"):
            with pytest.raises(TransitionError, match="attempt 2 is complete"):
                store.complete_attempt(token, result(planned(1), token, host="late"), LATER)
        outcome = store.outcome(planned(1).spec.trial_id)
        assert outcome is not None
        assert (outcome.attempt, outcome.environment.host) == (2, "box")

    @pytest.mark.parametrize("end", [AttemptState.LOST, AttemptState.STOPPED])
    def test_an_attempt_that_was_given_up_may_still_deliver(self, store: Store, end: AttemptState) -> None:
        """No result that was reached is lost: the attempt is complete and its failure is forgotten."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        silent = Failure(kind=FailureKind.KILLED, message="silent")
        store.end_attempt("first", end, silent, LATER, trial_state=TrialState.PLANNED)
        store.complete_attempt("first", result(planned(1)), LATER)
        [attempt] = store.attempts_of_sweep(SWEEP.name)
        assert (attempt.state, attempt.failure) == (AttemptState.COMPLETE, None)
        assert store.sweep_trials(SWEEP.name)[0].state is TrialState.COMPLETE

    def test_a_late_result_waits_for_the_attempt_at_work(self, store: Store) -> None:
        """While another attempt runs, the late one's result is refused: the trial would complete under its feet."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.LOST, None, LATER, trial_state=TrialState.PLANNED)
        store.start_attempt(start(planned(1), "second"))
        with pytest.raises(TransitionError, match="attempt 2 is running"):
            store.complete_attempt("first", result(planned(1)), LATER)
        assert store.outcomes(SWEEP.name) == {}

    def test_a_failed_attempt_delivers_nothing(self, store: Store) -> None:
        """An attempt that said that it failed has no result."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.FAILED, CRASH, LATER, trial_state=TrialState.PLANNED)
        with pytest.raises(TransitionError, match="it is failed"):
            store.complete_attempt("first", result(planned(1)), LATER)

    def test_a_result_is_accepted_for_its_own_attempt_only(self, store: Store) -> None:
        """Results are never mixed up between attempts or trials."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        store.start_attempt(start(planned(1)))
        for wrong in (result(planned(1), "second"), result(planned(2), "first")):
            with pytest.raises(StoreError, match="another attempt's"):
                store.complete_attempt("first", wrong, LATER)
        assert store.outcomes(SWEEP.name) == {}

    @pytest.mark.parametrize(
        "broken",
        [
            {"predictions": (1, 2)},
            {"predictions": (1, 2, 3, 65536)},
            {"predictions": (1, 2, 3, -1)},
            {"loss": float("nan")},
        ],
    )
    def test_a_result_that_cannot_be_stored_leaves_nothing(self, store: Store, broken: dict[str, Any]) -> None:
        """A transaction is whole or absent: no epoch, no environment and no state of a refused result stays."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        whole = result(planned(1))
        with pytest.raises(StoreError):
            store.complete_attempt(
                "first", dataclasses.replace(whole, validation=dataclasses.replace(whole.validation, **broken)), LATER
            )
        assert store.epochs_of_sweep(SWEEP.name) == {}
        assert store.outcomes(SWEEP.name) == {}
        assert store.sweep_trials(SWEEP.name)[0].state is TrialState.RUNNING

    def test_text_of_any_characters_is_kept(self, store: Store) -> None:
        """What no database takes (NUL, half a pair) is written as a symbol or an escape, and the rest as it is."""
        label = "größe 20 · λ=½ 🚦 'q' \\ %s :p"
        store.save_sweep(SWEEP, [dataclasses.replace(planned(1), label=label)], START)
        store.start_attempt(start(planned(1)))
        torn = dataclasses.replace(CRASH, last_output="before\0after \udcff\x1b[0m\r\n")
        store.end_attempt("first", AttemptState.FAILED, torn, LATER, trial_state=TrialState.FAILED)
        [trial] = store.sweep_trials(SWEEP.name)
        assert trial.label == label
        assert trial.last_attempt is not None
        assert trial.last_attempt.failure is not None
        assert trial.last_attempt.failure.last_output == "before\u2400after \\udcff\x1b[0m\r\n"

    def test_numbers_keep_every_bit(self, store: Store) -> None:
        """The largest seed, the smallest numbers and the longest fractions come back as they were."""
        largest = dataclasses.replace(planned(1), spec=dataclasses.replace(planned(1).spec, seed=2**63 - 1))
        store.save_sweep(SWEEP, [largest], START)
        store.start_attempt(start(largest))
        exact = dataclasses.replace(
            epoch(1, loss=5e-324), validation_loss=1.7976931348623157e308, learning_rate=0.1 + 0.2
        )
        store.add_epoch("first", exact)
        assert store.sweep_trials(SWEEP.name)[0].seed == 2**63 - 1
        assert [e.record for e in store.epochs_of_trial(largest.spec.trial_id)] == [exact]

    def test_a_failure_comes_back_as_it_was_told(self, store: Store) -> None:
        """Kind, message, traceback and last output are kept, and the trial goes where it is sent."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.FAILED, CRASH, LATER, trial_state=TrialState.FAILED)
        [trial] = store.sweep_trials(SWEEP.name)
        assert trial.state is TrialState.FAILED
        assert trial.last_attempt is not None
        assert trial.last_attempt.failure == CRASH
        assert store.sweeps()[0].counts == {TrialState.FAILED: 1}

    @pytest.mark.parametrize(
        ("end", "failure", "trial_state", "says"),
        [
            (AttemptState.RUNNING, None, TrialState.PLANNED, "only a result"),
            (AttemptState.COMPLETE, None, TrialState.PLANNED, "only a result"),
            (AttemptState.LOST, None, TrialState.RUNNING, "no attempt at work"),
            (AttemptState.LOST, None, TrialState.COMPLETE, "no result"),
            (AttemptState.FAILED, None, TrialState.FAILED, "no failure says why"),
            (AttemptState.PRUNED, None, TrialState.PRUNED, "no sweep gave it up"),
        ],
    )
    def test_an_end_that_cannot_be_is_refused(
        self, store: Store, end: AttemptState, failure: Failure | None, trial_state: TrialState, says: str
    ) -> None:
        """Ends without a result complete nothing, and failures say why."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        with pytest.raises(TransitionError, match=says):
            store.end_attempt("first", end, failure, LATER, trial_state=trial_state)
        assert [a.token for a in store.running_attempts()] == ["first"]

    def test_an_attempt_ends_once(self, store: Store) -> None:
        """The second end is refused and the first one stays."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.STOPPED, None, LATER, trial_state=TrialState.PLANNED)
        with pytest.raises(TransitionError, match="it is stopped already"):
            store.end_attempt("first", AttemptState.FAILED, CRASH, LATER, trial_state=TrialState.FAILED)
        assert store.sweep_trials(SWEEP.name)[0].state is TrialState.PLANNED

    def test_a_failed_trial_can_be_planned_again(self, store: Store) -> None:
        """Its attempts stay, its next attempt has the next number, and asking twice for it counts once."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        trial_id = planned(1).spec.trial_id
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.FAILED, CRASH, LATER, trial_state=TrialState.FAILED)
        assert store.replan([trial_id, trial_id]) == 1
        assert store.trial_states([trial_id, "unknown"]) == {trial_id: TrialState.PLANNED}
        assert store.start_attempt(start(planned(1), "second")).number == 2

    def test_replanning_is_all_or_nothing(self, store: Store) -> None:
        """One trial that has not failed, or is unknown, leaves the failed one as it was."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.FAILED, CRASH, LATER, trial_state=TrialState.FAILED)
        failed, other = planned(1).spec.trial_id, planned(2).spec.trial_id
        with pytest.raises(TransitionError, match="it is planned"):
            store.replan([failed, other])
        with pytest.raises(UnknownNameError, match="nowhere"):
            store.replan([failed, "nowhere"])
        assert store.trial_states([failed]) == {failed: TrialState.FAILED}

    def test_unknown_names_offer_the_nearest(self, store: Store) -> None:
        """A slip of the finger is answered with the name that was meant."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        for ask in (
            store.sweep_trials,
            store.trial_ids,
            store.outcomes,
            store.attempts_of_sweep,
            store.epochs_of_sweep,
        ):
            with pytest.raises(UnknownNameError, match="did you mean locnet_sizes"):
                ask("locnet_size")
        with pytest.raises(UnknownNameError, match="did you mean first"):
            store.add_epoch("frist", epoch(1))
        with pytest.raises(UnknownNameError, match="unknown trial"):
            store.start_attempt(start(planned(2), "second"))

    def test_a_trial_is_found_by_the_beginning_of_its_identity(self, store: Store) -> None:
        """A unique beginning is enough; the sweep that wants the trial and was last run tells its label."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        trial_id = planned(1).spec.trial_id
        assert store.find_trial(trial_id[:12]) == store.sweep_trials(SWEEP.name)[0]
        assert store.find_trial(trial_id[:12].upper()) == store.sweep_trials(SWEEP.name)[0]
        store.save_sweep(OTHER, [dataclasses.replace(planned(1), label="mine")], LATER)
        assert store.find_trial(trial_id).label == "mine"
        store.save_sweep(OTHER, [], LATER + timedelta(seconds=1))
        assert store.find_trial(trial_id).label == "size 1"

    def test_a_beginning_that_fits_several_or_none_is_refused(self, store: Store) -> None:
        """Nothing is guessed: several are listed, and for none the nearest are offered."""
        store.save_sweep(SWEEP, [planned(size) for size in range(1, 40)], START)
        ids = sorted(record.trial_id for record in store.sweep_trials(SWEEP.name))
        first = next(one[0] for one, other in itertools.pairwise(ids) if one[0] == other[0])
        with pytest.raises(SpecError, match="several trials begin with"):
            store.find_trial(first)
        with pytest.raises(SpecError, match="several trials begin with"):
            store.find_trial("")
        with pytest.raises(UnknownNameError, match=f"did you mean {ids[0]}"):
            store.find_trial(f"{ids[0][:-1]}x")
        with pytest.raises(UnknownNameError):
            store.find_trial("%")

    def test_a_request_is_written_once_with_what_it_changes(self, store: Store) -> None:
        """Written again it changes nothing, whatever has happened since."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        store.start_attempt(start(planned(1)))
        store.end_attempt("first", AttemptState.FAILED, CRASH, LATER, trial_state=TrialState.FAILED)
        failed, waiting = planned(1).spec.trial_id, planned(2).spec.trial_id
        request = ControlRequest(
            request_id="1", sweep=SWEEP.name, action=Stop(target="x\u202ey"), asked_at=START.isoformat(), asked_by="me"
        )
        stopped = ControlRecord(
            request=request, applied_at=LATER, is_refused=False, outcome="done", effect=Effect(trials=(waiting,))
        )
        assert store.controls(SWEEP.name) == []
        assert store.add_control(stopped, give_up=[waiting])
        assert store.controls(SWEEP.name) == [stopped]
        assert store.trial_states([failed, waiting], sweep=SWEEP.name)[waiting] is TrialState.PRUNED
        retry = dataclasses.replace(request, request_id="2", action=Retry(target="all"))
        asked = dataclasses.replace(stopped, request=retry)
        assert store.add_control(asked, take_back=[failed, waiting])
        assert set(store.trial_states([failed, waiting], sweep=SWEEP.name).values()) == {TrialState.PLANNED}
        assert not store.add_control(stopped, give_up=[waiting])
        assert store.controls(SWEEP.name) == [stopped, asked]
        assert set(store.trial_states([failed, waiting], sweep=SWEEP.name).values()) == {TrialState.PLANNED}

    @pytest.mark.parametrize("jump", [timedelta(0), timedelta(days=-3), timedelta(microseconds=-1), timedelta(days=9)])
    def test_requests_come_as_they_were_carried_out(self, jump: timedelta, store: Store) -> None:
        """Whatever the clock says: a sweep that was paused and resumed after it was set back goes on."""
        store.save_sweep(SWEEP, [planned(1)], START)
        asked: list[Action] = [Pause(), Resume(), Pause(), Resume()]
        for number, action in enumerate(asked):
            at = LATER + number * jump
            name = f"{int(at.timestamp() * 1e9):020d}-{number}"
            request = ControlRequest(
                request_id=name, sweep=SWEEP.name, action=action, asked_at=at.isoformat(), asked_by="me"
            )
            store.add_control(
                ControlRecord(request=request, applied_at=at, is_refused=False, outcome="", effect=Effect())
            )
        assert [record.request.action for record in store.controls(SWEEP.name)] == asked

    def test_a_request_for_a_sweep_that_is_not_there_leaves_nothing(self, store: Store) -> None:
        """Every request belongs to a sweep."""
        request = ControlRequest(
            request_id="1", sweep="no such", action=Pause(), asked_at=START.isoformat(), asked_by="me"
        )
        record = ControlRecord(request=request, applied_at=LATER, is_refused=False, outcome="", effect=Effect())
        with pytest.raises(UnknownNameError):
            store.add_control(record)
        assert store.controls("no such") == []

    def test_trials_that_a_person_gave_up_stay_so_when_the_sweep_is_saved_again(self, store: Store) -> None:
        """With a pruner and without one; those that are wanted again are planned."""
        for sweep in (SWEEP, PRUNING):
            ids = [planned(size).spec.trial_id for size in (1, 2)]
            for _ in range(2):
                store.save_sweep(sweep, [planned(1), planned(2)], START, given_up=ids[:1])
                assert [trial.state for trial in store.sweep_trials(sweep.name)] == ["pruned", "planned"]

    def test_what_was_mirrored_is_remembered_by_tracker(self, store: Store) -> None:
        """New digests are added, changed ones replace the old, and other trackers' stay."""
        store.set_mirrored("mlflow", {"a": "1", "b": "1"})
        store.set_mirrored("mlflow", {"b": "2", "c": "2"})
        store.set_mirrored("other", {"a": "9"})
        store.set_mirrored("mlflow", {})
        assert store.mirrored("mlflow") == {"a": "1", "b": "2", "c": "2"}
        store.forget_mirrored("mlflow")
        assert (store.mirrored("mlflow"), store.mirrored("other")) == ({}, {"a": "9"})

    def test_a_reader_sees_what_was_committed_before(self, store: Store, where: Path | str) -> None:
        """Somebody who looks on while a sweep runs sees each write once it has returned, and holds nothing up."""
        with Store.open(where, writable=False) as reader:
            store.save_sweep(SWEEP, [planned(1)], START)
            assert reader.sweeps() == store.sweeps()
            store.start_attempt(start(planned(1)))
            for number in (1, 2):
                store.add_epoch("first", epoch(number))
                assert len(reader.epochs_of_trial(planned(1).spec.trial_id)) == number
            store.complete_attempt("first", result(planned(1)), LATER)
            assert reader.outcomes(SWEEP.name, predictions=True) == store.outcomes(SWEEP.name, predictions=True)

    def test_another_writer_goes_on_from_what_is_there(self, store: Store, where: Path | str) -> None:
        """Two processes that write in turn, as one that was killed and the one after it do, see each other's writes."""
        store.save_sweep(SWEEP, [planned(1), planned(2)], START)
        with Store.open(where, writable=True) as after:
            after.start_attempt(start(planned(1)))
            store.add_epoch("first", epoch(1))
            with pytest.raises(TransitionError, match="it is running"):
                store.start_attempt(start(planned(1), "second"))
            after.complete_attempt("first", result(planned(1)), LATER)
            assert store.start_attempt(start(planned(2), "third")).number == 1
            assert [a.token for a in after.running_attempts()] == ["third"]

    def test_there_is_a_store_once_it_was_written(self, store: Store, where: Path | str) -> None:
        """A plan asks whether there is one to read."""
        assert Store.exists(where)

    def test_everything_survives_closing(self, store: Store, where: Path | str) -> None:
        """What was written is read by a store opened later, to read only."""
        store.save_sweep(SWEEP, [planned(1)], START)
        store.start_attempt(start(planned(1)))
        store.complete_attempt("first", result(planned(1)), LATER)
        before = store.sweep_trials(SWEEP.name), store.outcomes(SWEEP.name, predictions=True)
        store.close()
        with Store.open(where, writable=False) as reader:
            assert (reader.sweep_trials(SWEEP.name), reader.outcomes(SWEEP.name, predictions=True)) == before

    def test_a_store_open_to_read_writes_nothing(self, store: Store, where: Path | str) -> None:
        """Every write is refused before it begins."""
        store.save_sweep(SWEEP, [planned(1)], START)
        with Store.open(where, writable=False) as reader:
            for write in (
                lambda: reader.save_sweep(SWEEP, [], LATER),
                lambda: reader.start_attempt(start(planned(1))),
                lambda: reader.set_mirrored("mlflow", {"a": "1"}),
            ):
                with pytest.raises(StoreError, match="open for reading only"):
                    write()
            assert len(reader.sweep_trials(SWEEP.name)) == 1


class TestSqliteByPath(StoreContract):
    """A SQLite file, by its path."""

    @pytest.fixture
    def where(self, tmp_path: Path, template: Path) -> Path | str:
        """A path with characters that mean something in a URL."""
        folder = tmp_path / "runs 100% ?a=b#c"
        folder.mkdir()
        return Path(shutil.copy(template, folder / "stnbench.db"))


class TestSqliteByUrl(StoreContract):
    """A SQLite file, by a database URL."""

    @pytest.fixture
    def where(self, tmp_path: Path, template: Path) -> Path | str:
        """The URL of a file."""
        return f"sqlite:///{shutil.copy(template, tmp_path / 'stnbench.db')}"


@pytest.fixture(scope="session")
def server_template() -> Iterator[str]:
    """An empty store on a server, made once."""
    with database() as url:
        Store.open(url, writable=True).close()
        yield url


@needs_postgres
class TestPostgres(StoreContract):
    """A database of a PostgreSQL server."""

    @pytest.fixture
    def where(self, server_template: str) -> Iterator[Path | str]:
        """A database of its own for each test."""
        with database(server_template) as url:
            yield url
