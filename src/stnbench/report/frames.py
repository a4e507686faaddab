"""A sweep as pandas frames: what the report is made of, and what a notebook of yours can start from.

    from stnbench.core.paths import RunsLayout
    from stnbench.report.frames import read_trials
    from stnbench.store.store import Store

    with Store.open(RunsLayout.from_environment().store, writable=False) as store:
        trials = read_trials(store, "locnet_sizes")

Columns and their types are listed below, units in their names. Accuracies are shares in [0, 1]. What a trial does not
have is missing (None, NaN or NA).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from stnbench.spec.health import judge_attempt
from stnbench.spec.result import SplitScore
from stnbench.store.queries import StoreReader
from stnbench.store.records import AttemptEpoch, AttemptRecord, Outcome, TrialRecord

TRIAL_COLUMNS = {
    "trial_id": "object",
    "cell_id": "object",
    "twin_cell_id": "object",
    "label": "object",
    "is_twin": "bool",
    "seed": "int64",
    "state": "object",
    "attempts": "int64",
    "health": "object",
    "validation_accuracy": "float64",
    "validation_images": "Int64",
    "validation_correct": "Int64",
    "validation_loss": "float64",
    "test_accuracy": "float64",
    "test_images": "Int64",
    "test_correct": "Int64",
    "test_loss": "float64",
    "parameters": "Int64",
    "flops": "Int64",
    "activation_bytes": "Int64",
    "epochs": "int64",
    "epoch_duration_s": "float64",
    "train_duration_s": "float64",
    "peak_memory_mib": "float64",
    "failure_kind": "object",
    "failure_message": "object",
    "commit": "object",
    "dirty": "boolean",
    "python": "object",
    "platform": "object",
    "host": "object",
    "device": "object",
    "threads": "Int64",
    "versions": "object",
    "dataset_digest": "object",
}
"""One row a trial, in the order of the sweep, and one column ``axis:<name>`` for each axis.

``twin_cell_id`` is the cell without transformers (its own where there are none). ``epochs`` is how many were asked for,
``epoch_duration_s`` the mean of their training times, evaluation left out. The failure is that of the last attempt.
``health`` is the verdict (``spec.verdict.Verdict``) on the worst transformer after the last epoch there is.
"""

EPOCH_COLUMNS = {
    "trial_id": "object",
    "attempt": "int64",
    "epoch": "int64",
    "step": "int64",
    "train_loss": "float64",
    "validation_loss": "float64",
    "validation_accuracy": "float64",
    "learning_rate": "float64",
    "train_duration_s": "float64",
    "evaluate_duration_s": "float64",
}
"""One row an epoch of an attempt."""

HEALTH_COLUMNS = {
    "trial_id": "object",
    "attempt": "int64",
    "epoch": "int64",
    "place": "int64",
    "branch": "int64",
    "verdict": "object",
    "outside_share": "float64",
    "identity_distance": "float64",
    "determinant_mean": "float64",
    "theta_error": "float64",
    "theta_error_identity": "float64",
    "movement": "float64",
    "movement_spread": "float64",
    "singular_max_mean": "float64",
    "singular_min_mean": "float64",
    "lost_share": "float64",
    "finite_share": "float64",
    "gradient_ratio": "float64",
    "accuracy_identity": "float64",
    "accuracy_mean": "float64",
    "accuracy_all_identity": "float64",
    "accuracy_all_mean": "float64",
}
"""One row a transformer and epoch: see ``spec.result.TransformerHealth``."""

ATTEMPT_COLUMNS = {
    "trial_id": "object",
    "attempt": "int64",
    "state": "object",
    "slot": "object",
    "host": "object",
    "started_at": "datetime64[ns, UTC]",
    "finished_at": "datetime64[ns, UTC]",
    "duration_s": "float64",
    "failure_kind": "object",
    "failure_message": "object",
}
"""One row an attempt."""

AXIS_PREFIX = "axis:"

Fields = dict[str, Any]


def read_trials(store: StoreReader, sweep: str) -> pd.DataFrame:
    """The trials of a sweep, one row each (``TRIAL_COLUMNS``).

    Raises: UnknownNameError when the store has no such sweep; StoreError.
    """
    return trials_frame(store.sweep_trials(sweep), store.outcomes(sweep), store.epochs_of_sweep(sweep))


def read_epochs(store: StoreReader, sweep: str) -> pd.DataFrame:
    """Every epoch of every attempt of a sweep (``EPOCH_COLUMNS``). Raises: as ``read_trials``."""
    return epochs_frame(store.epochs_of_sweep(sweep))


def read_health(store: StoreReader, sweep: str) -> pd.DataFrame:
    """What each transformer did, by epoch (``HEALTH_COLUMNS``). Raises: as ``read_trials``."""
    return health_frame(store.epochs_of_sweep(sweep))


def read_attempts(store: StoreReader, sweep: str) -> pd.DataFrame:
    """Every attempt of a sweep (``ATTEMPT_COLUMNS``). Raises: as ``read_trials``."""
    return attempts_frame(store.attempts_of_sweep(sweep))


def trials_frame(
    trials: Sequence[TrialRecord],
    outcomes: Mapping[str, Outcome],
    epochs: Mapping[str, Sequence[AttemptEpoch]] | None = None,
) -> pd.DataFrame:
    """Trials with what the complete ones scored and the epochs there are, both by trial id, as one frame."""
    verdicts = {trial.trial_id: _verdict(trial, (epochs or {}).get(trial.trial_id, ())) for trial in trials}
    twins = {trial.cell_id: trial for trial in trials}
    twin_ids = {cell_id: _twin_cell_id(trial) for cell_id, trial in twins.items()}
    rows = [
        _trial_row(trial, outcomes.get(trial.trial_id), twin_ids[trial.cell_id]) | {"health": verdicts[trial.trial_id]}
        for trial in trials
    ]
    axes = dict.fromkeys(AXIS_PREFIX + name for trial in trials for name, _ in trial.point.labels)
    return _frame(rows, {**TRIAL_COLUMNS, **dict.fromkeys(axes, "object")})


def epochs_frame(epochs: Mapping[str, Sequence[AttemptEpoch]]) -> pd.DataFrame:
    """Epochs by trial id as one frame."""
    own = [name for name in EPOCH_COLUMNS if name not in {"trial_id", "attempt"}]
    rows = [
        {"trial_id": trial_id, "attempt": item.attempt} | {name: getattr(item.record, name) for name in own}
        for trial_id, item in _each_epoch(epochs)
    ]
    return _frame(rows, EPOCH_COLUMNS)


def health_frame(epochs: Mapping[str, Sequence[AttemptEpoch]]) -> pd.DataFrame:
    """The health of every transformer, by trial id, as one frame."""
    own = [name for name in HEALTH_COLUMNS if name not in {"trial_id", "attempt", "epoch"}]
    rows = [
        {"trial_id": trial_id, "attempt": item.attempt, "epoch": item.record.epoch}
        | {name: getattr(health, name) for name in own}
        | {"verdict": None if health.verdict is None else health.verdict.value}
        for trial_id, item in _each_epoch(epochs)
        for health in item.record.health
    ]
    return _frame(rows, HEALTH_COLUMNS)


def attempts_frame(attempts: Iterable[AttemptRecord]) -> pd.DataFrame:
    """Attempts as one frame."""
    rows = [
        {
            "trial_id": attempt.trial_id,
            "attempt": attempt.number,
            "state": attempt.state.value,
            "slot": attempt.slot,
            "host": attempt.host,
            "started_at": attempt.started_at,
            "finished_at": attempt.finished_at,
            "duration_s": attempt.duration_s,
        }
        | _failure_fields(attempt)
        for attempt in attempts
    ]
    return _frame(rows, ATTEMPT_COLUMNS)


def _each_epoch(epochs: Mapping[str, Sequence[AttemptEpoch]]) -> Iterator[tuple[str, AttemptEpoch]]:
    return ((trial_id, item) for trial_id, items in epochs.items() for item in items)


def _verdict(trial: TrialRecord, epochs: Sequence[AttemptEpoch]) -> str | None:
    """The last attempt's; one that has no epoch yet goes on from the one before."""
    failure = trial.last_attempt.failure if trial.last_attempt else None
    verdict = judge_attempt(trial.spec, [item.record for item in epochs[-1:]], failure)
    return None if verdict is None else verdict.value


def _twin_cell_id(trial: TrialRecord) -> str:
    return trial.spec.twin().cell_id if trial.spec.transformers else trial.cell_id


def _frame(rows: list[Fields], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Rows with exactly these columns and types; a value that a row does not have is missing."""
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in dtypes.items()}
    return pd.DataFrame(columns)


def _trial_row(trial: TrialRecord, outcome: Outcome | None, twin_cell_id: str) -> Fields:
    row: Fields = {
        "trial_id": trial.trial_id,
        "cell_id": trial.cell_id,
        "twin_cell_id": twin_cell_id,
        "label": trial.label,
        "is_twin": trial.is_twin,
        "seed": trial.seed,
        "state": trial.state.value,
        "attempts": trial.attempts,
        "epochs": trial.spec.training.epochs,
    }
    row |= {AXIS_PREFIX + name: label for name, label in trial.point.labels}
    if trial.last_attempt is not None:
        row |= _failure_fields(trial.last_attempt)
    if outcome is not None:
        row |= _outcome_fields(outcome, trial.spec.training.epochs)
    return row


def _outcome_fields(outcome: Outcome, epochs: int) -> Fields:
    environment = outcome.environment
    own = ("commit", "dirty", "python", "platform", "host", "device", "threads", "dataset_digest")
    return {
        **_score_fields(outcome.validation),
        **(_score_fields(outcome.test) if outcome.test else {}),
        "parameters": outcome.cost.parameters,
        "flops": outcome.cost.flops,
        "activation_bytes": outcome.cost.activation_bytes,
        "train_duration_s": outcome.train_duration_s,
        "epoch_duration_s": outcome.train_duration_s / epochs,
        "peak_memory_mib": outcome.peak_memory_mib,
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(environment.versions)),
        **{name: getattr(environment, name) for name in own},
    }


def _score_fields(score: SplitScore) -> Fields:
    return {
        f"{score.split}_accuracy": score.accuracy,
        f"{score.split}_images": score.images,
        f"{score.split}_correct": score.correct,
        f"{score.split}_loss": score.loss,
    }


def _failure_fields(attempt: AttemptRecord) -> Fields:
    if attempt.failure is None:
        return {}
    return {"failure_kind": attempt.failure.kind.value, "failure_message": attempt.failure.message}
