"""Metrics of scores that were made before a metric was there, from the probabilities that their trials kept."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from stnbench.core.errors import FolderError, UnknownNameError
from stnbench.core.paths import AttemptLayout, RunsLayout
from stnbench.spec.data import Split
from stnbench.spec.metrics import measure, missing, name_of
from stnbench.spec.result import ScoredImages, SplitScore
from stnbench.store.store import Store
from stnbench.trials.probability_file import read_probabilities

_SPLITS: Final[tuple[Split, ...]] = ("validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """How many scores have new metrics, had all of them, or kept no probabilities to compute them from."""

    written: int
    complete: int
    without: int


def fill_metrics(store: Store, layout: RunsLayout, sweep: str | None, *, warn: Callable[[str], None]) -> Filled:
    """Compute the metrics that the scores of a sweep lack, those of another version of a metric's code among them.

    Args:
        store: to read and write.
        layout: where the probabilities are.
        sweep: which; all where it is None.
        warn: told of each score whose metrics cannot be computed.

    Raises:
        UnknownNameError: for an unknown sweep.
    """
    names = [record.spec.name for record in store.sweeps()]
    if sweep is not None and sweep not in names:
        raise UnknownNameError("sweep", sweep, names, where="the store")
    counts = Counter(
        _fill(store, one, warn=warn) for one in _scores(store, layout, names if sweep is None else [sweep])
    )
    return Filled(written=counts["written"], complete=counts["complete"], without=counts["without"])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """A score of a trial, by which attempt, and on which images."""

    trial_id: str
    folder: Path
    score: SplitScore
    images: ScoredImages | None


def _scores(store: Store, layout: RunsLayout, sweeps: Iterable[str]) -> Iterator[_Scored]:
    """Yield every score of the sweeps once."""
    seen: set[str] = set()
    for sweep in sweeps:
        sets = {split: store.image_sets(sweep, split) for split in _SPLITS}
        outcomes = store.outcomes(sweep)
        for trial_id in outcomes.keys() - seen:
            outcome = outcomes[trial_id]
            for score in filter(None, (outcome.validation, outcome.test)):
                own = sets[score.split]
                yield _Scored(
                    trial_id=trial_id,
                    folder=layout.attempt(trial_id, outcome.attempt),
                    score=score,
                    images=own.sets.get(own.of_trial.get(trial_id, "")),
                )
        seen |= outcomes.keys()


def _fill(store: Store, one: _Scored, *, warn: Callable[[str], None]) -> Literal["written", "complete", "without"]:
    """Compute and write what a score lacks; what became of it."""
    lacking = missing(one.score.metrics)
    if not lacking:
        return "complete"
    if one.images is None or not AttemptLayout(one.folder).probabilities(one.score.split).exists():
        return "without"
    try:
        probabilities = read_probabilities(one.folder, one.score.split, images=one.score.images)
    except FolderError as error:
        warn(f"warning: {error}")
        return "without"
    new = measure(probabilities, np.array(one.images.labels, np.int64), warn=warn, only=lacking)
    kept = {key: value for key, value in one.score.metrics.items() if name_of(key) not in map(name_of, new)}
    store.set_metrics(one.trial_id, one.score.split, kept | new)
    return "written"
