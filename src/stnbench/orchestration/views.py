"""What a tracker is shown: views of attempts, from a running attempt or from the store."""

import dataclasses
from datetime import datetime

from stnbench.orchestration.observer import EndedAttempt, RunningAttempt
from stnbench.spec.states import AttemptState
from stnbench.store.records import AttemptRecord, Outcome, TrialRecord
from stnbench.store.store import Store
from stnbench.tracking.base import AttemptView, CellView


def running_view(sweep: str, attempt: RunningAttempt) -> AttemptView:
    """A running attempt."""
    trial, record = attempt.trial, attempt.record
    return AttemptView(
        sweep=sweep,
        trial_id=trial.spec.trial_id,
        cell_id=trial.spec.cell_id,
        label=trial.label,
        axes=trial.point.labels,
        is_twin=trial.is_twin,
        spec=trial.spec,
        number=record.number,
        token=record.token,
        state=AttemptState.RUNNING,
        started_at_ms=_milliseconds(record.started_at),
        finished_at_ms=None,
        epochs=attempt.epochs,
    )


def ended_view(sweep: str, end: EndedAttempt) -> AttemptView:
    """An attempt that has just ended; the same view that the store gives of it later."""
    result = end.result
    return dataclasses.replace(
        running_view(sweep, end.attempt),
        state=end.state,
        finished_at_ms=_milliseconds(end.finished_at),
        epochs=result.epochs if result else end.attempt.epochs,
        validation=result.validation if result else None,
        test=result.test if result else None,
        cost=result.cost if result else None,
        environment=result.environment if result else None,
        failure=end.failure,
    )


def stored_views(store: Store, sweep: str) -> list[AttemptView]:
    """Every attempt of a sweep as the store knows it, in order."""
    trials = {trial.trial_id: trial for trial in store.sweep_trials(sweep)}
    outcomes = store.outcomes(sweep, predictions=True)
    epochs = store.epochs_of_sweep(sweep)
    views = []
    for record in store.attempts_of_sweep(sweep):
        own = tuple(item.record for item in epochs.get(record.trial_id, ()) if item.attempt == record.number)
        outcome = outcomes.get(record.trial_id)
        made_it = outcome is not None and outcome.attempt == record.number
        view = _stored_view(trials[record.trial_id], record, outcome if made_it else None)
        views.append(dataclasses.replace(view, epochs=own))
    return views


def view_key(view: AttemptView | CellView) -> str:
    """What a view is of: an attempt's token, or a cell within its sweep."""
    return view.token if isinstance(view, AttemptView) else f"{view.sweep}/{view.cell_id}"


def _stored_view(trial: TrialRecord, record: AttemptRecord, outcome: Outcome | None) -> AttemptView:
    return AttemptView(
        sweep=trial.sweep,
        trial_id=trial.trial_id,
        cell_id=trial.cell_id,
        label=trial.label,
        axes=trial.point.labels,
        is_twin=trial.is_twin,
        spec=trial.spec,
        number=record.number,
        token=record.token,
        state=record.state,
        started_at_ms=_milliseconds(record.started_at),
        finished_at_ms=_milliseconds(record.finished_at) if record.finished_at else None,
        validation=outcome.validation if outcome else None,
        test=outcome.test if outcome else None,
        cost=outcome.cost if outcome else None,
        environment=outcome.environment if outcome else None,
        failure=record.failure,
    )


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
