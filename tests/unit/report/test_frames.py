"""A sweep as pandas frames."""

from made_up_results import IMAGES, NOW, Filler, planned, transformed

from stnbench.report.frames import (
    ATTEMPT_COLUMNS,
    EPOCH_COLUMNS,
    HEALTH_COLUMNS,
    TRIAL_COLUMNS,
    read_attempts,
    read_epochs,
    read_health,
    read_trials,
    trials_frame,
)
from stnbench.spec.result import Failure, FailureKind
from stnbench.spec.states import TrialState
from stnbench.spec.trial import TrialSpec
from stnbench.spec.verdict import Verdict
from stnbench.store.store import Store


def test_one_row_a_trial_in_the_order_of_the_sweep(store: Store, sizes: list[TrialSpec]) -> None:
    """Every trial is a row, complete or not, with the documented columns and its axes."""
    frame = read_trials(store, "sizes")
    assert list(frame["trial_id"]) == [spec.trial_id for spec in sizes]
    assert list(frame.columns) == [*TRIAL_COLUMNS, "axis:locnet1.sizes"]
    assert {name: str(kind) for name, kind in frame.dtypes.items() if name in TRIAL_COLUMNS} == TRIAL_COLUMNS


def test_complete_trial_has_its_scores_and_cost(store: Store, sizes: list[TrialSpec]) -> None:
    """Scores are shares with their counts, epochs are averaged, environments are told."""
    row = read_trials(store, "sizes").set_index("trial_id").loc[sizes[2].trial_id]
    assert (row["state"], row["attempts"], row["seed"]) == ("complete", 1, 1)
    assert (row["validation_correct"], row["validation_images"]) == (1850, IMAGES)
    assert row["validation_accuracy"] == 1850 / IMAGES
    assert row["test_accuracy"] == 1795 / IMAGES
    assert (row["epochs"], row["epoch_duration_s"], row["train_duration_s"]) == (10, 2.0, 20.0)
    assert (row["parameters"], row["flops"], row["peak_memory_mib"]) == (1_240_000, 38_200_000, 512.0)
    assert row["versions"] == "numpy 2.1.0, torch 2.7.0"
    assert row["axis:locnet1.sizes"] == "10,10,10"


def test_failed_trial_says_why_and_has_no_score(store: Store, sizes: list[TrialSpec]) -> None:
    """A failure is a row; its numbers are missing, never 0."""
    row = read_trials(store, "sizes").set_index("trial_id").loc[sizes[-1].trial_id]
    assert (row["state"], row["failure_kind"]) == ("failed", "diverged")
    assert row["failure_message"] == "the loss is nan\nat step 7"
    numbers = ["validation_accuracy", "validation_correct", "test_accuracy", "parameters", "epoch_duration_s"]
    assert row[numbers].isna().all()


def test_twins_are_found_by_cell(store: Store, sizes: list[TrialSpec]) -> None:
    """The cell of the twin is that of a trial without transformers, for which it is its own."""
    frame = read_trials(store, "sizes")
    assert set(frame["twin_cell_id"]) == {sizes[0].cell_id}
    assert list(frame["is_twin"]) == [True, True, *[False] * 6]


def test_no_trials_make_an_empty_frame_with_all_columns() -> None:
    """A sweep without trials has the same columns."""
    frame = trials_frame([], {})
    assert (len(frame), list(frame.columns)) == (0, list(TRIAL_COLUMNS))


def test_every_epoch_is_a_row(store: Store, sizes: list[TrialSpec]) -> None:
    """Seven complete trials of ten epochs each."""
    frame = read_epochs(store, "sizes")
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == EPOCH_COLUMNS
    assert len(frame) == 70
    assert list(frame[frame["trial_id"] == sizes[0].trial_id]["epoch"]) == list(range(1, 11))


def test_health_has_a_row_for_every_transformer(store: Store, sizes: list[TrialSpec]) -> None:
    """Twins have no transformer, so five complete trials of one transformer and ten epochs are left."""
    frame = read_health(store, "sizes")
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == HEALTH_COLUMNS
    assert len(frame) == 50
    assert set(frame["outside_share"]) == {0.25}
    assert not set(frame["trial_id"]) & {sizes[0].trial_id, sizes[1].trial_id}


def test_every_attempt_is_a_row(store: Store) -> None:
    """A trial that failed, was tried again and runs has two attempts; the running one has no end."""
    spec = transformed(1)
    filler = Filler(store).save([planned(spec)])
    filler.fail(spec, Failure(kind=FailureKind.KILLED, message="gone"), state=TrialState.PLANNED)
    filler.start(spec)
    frame = read_attempts(store, "sizes")
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == ATTEMPT_COLUMNS
    assert list(frame["state"]) == ["failed", "running"]
    assert list(frame["duration_s"].fillna(-1)) == [5.0, -1]
    assert frame["started_at"].iloc[0].to_pydatetime() == NOW
    assert list(frame["failure_kind"]) == ["killed", None]


def test_a_trial_is_as_healthy_as_its_last_epoch(store: Store) -> None:
    """Complete, pruned or diverged, it has a verdict; without a transformer, or before the first epoch, it has none."""
    fine, bad, ended, diverged, planned_only = (transformed(size) for size in (1, 2, 3, 4, 5))
    twin = fine.twin()
    filler = Filler(store).save([planned(spec) for spec in (twin, fine, bad, ended, diverged, planned_only)])
    filler.complete(twin, 1000)
    filler.complete(fine, 1000, verdict=Verdict.HEALTHY)
    filler.complete(bad, 1000, verdict=Verdict.CONSTANT)
    filler.prune(ended, Verdict.COLLAPSED)
    filler.fail(diverged, Failure(kind=FailureKind.DIVERGED, message="nan"))
    found = read_trials(store, "sizes").set_index("trial_id")["health"]
    expected = {fine: "healthy", bad: "constant", ended: "collapsed", diverged: "diverged"}
    assert {spec: found[spec.trial_id] for spec in expected} == expected
    assert {found[spec.trial_id] for spec in (twin, planned_only)} == {None}


def test_verdicts_are_plain_words_by_epoch(store: Store) -> None:
    """A column that pandas can count and filter; numbers of older records are missing."""
    spec = transformed(1)
    Filler(store).save([planned(spec)]).complete(spec, 1000, verdict=Verdict.COLLAPSED)
    frame = read_health(store, "sizes")
    assert list(frame["verdict"]) == ["healthy"] * 9 + ["collapsed"]
    assert {type(verdict) for verdict in frame["verdict"]} == {str}
    assert frame["movement"].isna().all()
