"""Which checkpoints are kept: those of the best cells, where disk space is short."""

import contextlib
import statistics
from collections.abc import Mapping

from stnbench.core.paths import AttemptLayout, RunsLayout
from stnbench.spec.states import TrialState
from stnbench.store.queries import StoreReader


def best_cells(accuracies: Mapping[str, Mapping[str, float]], keep: int) -> set[str]:
    """The cells with the highest mean validation accuracy, by cell and trial; equal means are ordered by cell."""
    ranked = sorted(accuracies, key=lambda cell: (-statistics.fmean(accuracies[cell].values()), cell))
    return set(ranked[:keep])


def drop_checkpoints(store: StoreReader, sweep: str, layout: RunsLayout, *, keep: int) -> int:
    """Remove the checkpoints of complete trials outside the ``keep`` best cells of a sweep; how many were removed.

    Results, predictions and epochs stay in the store, and probabilities in the trials' folders. A trial that is not
    complete keeps its checkpoint, which it goes on from, and so does one whose validation images are no score.
    """
    outcomes = store.outcomes(sweep)
    complete = [
        trial
        for trial in store.sweep_trials(sweep)
        if trial.state is TrialState.COMPLETE and trial.spec.has_held_out_images
    ]
    accuracies: dict[str, dict[str, float]] = {}
    for trial in complete:
        if trial.trial_id in outcomes:
            cell = accuracies.setdefault(trial.cell_id, {})
            cell[trial.trial_id] = outcomes[trial.trial_id].validation.accuracy
    kept = best_cells(accuracies, keep)
    removed = 0
    for trial in complete:
        if trial.cell_id in kept:
            continue
        for number in range(1, trial.attempts + 1):
            path = AttemptLayout(layout.attempt(trial.trial_id, number)).checkpoint
            with contextlib.suppress(OSError):  # one that cannot be removed now is tried again after the next trial
                path.unlink()
                removed += 1
    return removed
