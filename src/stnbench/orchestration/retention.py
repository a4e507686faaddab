"""Which checkpoints are kept: those of the best cells, where disk space is short."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stnbench.core.paths import AttemptLayout, RunsLayout
from stnbench.spec.states import TrialState
from stnbench.store.queries import StoreReader

if TYPE_CHECKING:
    from stnbench.analysis.fitted import ScoredRun


def best_cells(runs: "Sequence[ScoredRun]", keep: int) -> set[str]:
    """The cells with the highest mean validation accuracy, adjusted for the seeds that each has."""
    from stnbench.analysis.comparison import compare_configurations  # SciPy, which only who keeps few pays

    ranked = [item.configuration for item in compare_configurations(runs).decisions if item.mean is not None]
    return set(ranked[:keep])


def drop_checkpoints(store: StoreReader, sweep: str, layout: RunsLayout, *, keep: int) -> int:
    """Remove the checkpoints of complete trials outside the ``keep`` best cells of a sweep; how many were removed.

    Results, predictions and epochs stay in the store, and probabilities in the trials' folders. A trial that is not
    complete keeps its checkpoint, which it goes on from, and so does one whose validation images are no score.
    """
    from stnbench.analysis.fitted import ScoredRun  # as above

    outcomes = store.outcomes(sweep)
    complete = [
        trial
        for trial in store.sweep_trials(sweep)
        if trial.state is TrialState.COMPLETE and trial.spec.has_held_out_images
    ]
    runs = [
        ScoredRun(
            configuration=trial.cell_id,
            seed=trial.seed,
            correct=outcomes[trial.trial_id].validation.correct,
            images=outcomes[trial.trial_id].validation.images,
        )
        for trial in complete
        if trial.trial_id in outcomes
    ]
    kept = best_cells(runs, keep)
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
