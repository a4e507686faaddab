"""A sweep as pandas frames: what the report is made of, and what a notebook of yours can start from.

    from stnbench.analysis.frames import read_sweep

    sweep = read_sweep("locnet_sizes")
    sweep.trials.groupby("label")["validation_accuracy"].agg(["mean", "std", "count"])

Columns and their types are in ``frames_columns``, units in their names. Accuracies are shares in [0, 1]. What a row
does not have is missing (None, NaN or NA).
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stnbench.analysis.frames_rows import (
    PREDICTION_COLUMNS,
    attempts_frame,
    epochs_frame,
    health_frame,
    images_frame,
    make_frame,
    trials_frame,
)
from stnbench.core.paths import RunsLayout
from stnbench.spec.data import Split
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.queries import StoreReader
from stnbench.store.records import ImageSets
from stnbench.store.store import Store

_SCORED: tuple[Split, ...] = ("validation", "test")
_TRIALS_AT_ONCE = 256
"""Of which predicted labels are unpacked at one time: 10,000 trials would need more memory than their frame."""

_Labels = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepFrames:
    """Everything that the store has of one sweep.

    Attributes:
        spec: the sweep as it was last run.
        trials: one row a trial (``frames_columns.TRIAL_COLUMNS``), complete or not.
        epochs: one row an epoch of an attempt (``EPOCH_COLUMNS``).
        health: one row a transformer and epoch (``HEALTH_COLUMNS``).
        attempts: one row an attempt, failed ones with their tracebacks (``ATTEMPT_COLUMNS``).
        images: one row an image of each set that trials were scored on (``IMAGE_COLUMNS``).
        specs: the whole specification of each trial, by its id.
    """

    spec: SweepSpec
    trials: pd.DataFrame
    epochs: pd.DataFrame
    health: pd.DataFrame
    attempts: pd.DataFrame
    images: pd.DataFrame
    specs: Mapping[str, TrialSpec]
    _store: StoreReader | None = field(default=None, repr=False, compare=False)

    def predictions(self, split: Split = "validation", trial_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """What every trial said of every image: as ``read_predictions``, which reads the store now."""
        return read_predictions(self.spec.name, split, trial_ids, store=self._store)


def read_sweep(sweep: str, *, store: StoreReader | None = None) -> SweepFrames:
    """A sweep as frames, from the store in ``STNBENCH_RUNS`` or ``STNBENCH_STORE``, or from one that is open.

    The store is opened for reading alone and closed again; a sweep that runs meanwhile is not disturbed.
    Raises: UnknownNameError when the store has no such sweep; FolderError when there is no store; StoreError.
    """
    with _reading(store) as reader:
        trials = reader.sweep_trials(sweep)
        epochs = reader.epochs_of_sweep(sweep)
        images = _image_sets(reader, sweep)
        return SweepFrames(
            spec=read_specs(reader)[sweep],
            trials=trials_frame(trials, reader.outcomes(sweep), epochs, images),
            epochs=epochs_frame(epochs),
            health=health_frame(epochs),
            attempts=attempts_frame(reader.attempts_of_sweep(sweep)),
            images=images_frame(images),
            specs={trial.trial_id: trial.spec for trial in trials},
            _store=store,
        )


def read_predictions(
    sweep: str,
    split: Split = "validation",
    trial_ids: Iterable[str] | None = None,
    *,
    store: StoreReader | None = None,
) -> pd.DataFrame:
    """What every trial of a sweep said of every image of a split (``frames_columns.PREDICTION_COLUMNS``).

    One row takes about 15 bytes: 10,000 trials on 3,870 images are some 600 MB, so ask for those that you need with
    ``trial_ids``. ``SweepFrames.images`` says which image of the data set an ``image`` is.
    Raises: as ``read_sweep``.
    """
    parts = []
    with _reading(store) as reader:
        sets = reader.image_sets(sweep, split)
        known = {digest: np.array(scored.labels, np.uint16) for digest, scored in sets.sets.items()}
        asked = None if trial_ids is None else set(trial_ids)
        wanted = [trial_id for trial_id in reader.trial_ids(sweep) if asked is None or trial_id in asked]
        for start in range(0, len(wanted), _TRIALS_AT_ONCE):
            found = reader.predictions_of_sweep(sweep, split, wanted[start : start + _TRIALS_AT_ONCE])
            for trial_id in wanted[start : start + _TRIALS_AT_ONCE]:
                if trial_id in found:
                    labels = known.get(sets.of_trial.get(trial_id, ""))
                    parts.append((trial_id, np.array(found[trial_id], np.uint16), labels))
    if not parts:
        return make_frame([], PREDICTION_COLUMNS)
    return _predictions_frame(parts)


def read_trials(sweep: str, *, store: StoreReader | None = None) -> pd.DataFrame:
    """The trials of a sweep alone: what a leaderboard needs. Raises: as ``read_sweep``."""
    with _reading(store) as reader:
        trials, epochs = reader.sweep_trials(sweep), reader.epochs_of_sweep(sweep)
        return trials_frame(trials, reader.outcomes(sweep), epochs, _image_sets(reader, sweep))


def read_images(sweep: str, *, store: StoreReader | None = None) -> pd.DataFrame:
    """The images that trials of a sweep were scored on (``IMAGE_COLUMNS``). Raises: as ``read_sweep``."""
    with _reading(store) as reader:
        return images_frame(_image_sets(reader, sweep))


def read_specs(store: StoreReader | None = None) -> dict[str, SweepSpec]:
    """Every sweep of the store as it was last run, by name, the one last run first. Raises: as ``read_sweep``."""
    with _reading(store) as reader:
        return {record.spec.name: record.spec for record in reader.sweeps()}


@contextlib.contextmanager
def _reading(store: StoreReader | None) -> Iterator[StoreReader]:
    """The store given, or the one of the environment, which is closed at the end."""
    if store is not None:
        yield store
        return
    with Store.open(RunsLayout.from_environment().store, writable=False) as opened:
        yield opened


def _image_sets(reader: StoreReader, sweep: str) -> dict[Split, ImageSets]:
    return {split: reader.image_sets(sweep, split) for split in _SCORED}


def _predictions_frame(parts: Sequence[tuple[str, _Labels, _Labels | None]]) -> pd.DataFrame:
    """From (trial id, predicted labels, true labels where known), one after the other."""
    counts = [len(predicted) for _, predicted, _ in parts]
    unknown = np.concatenate([np.full(len(predicted), labels is None) for _, predicted, labels in parts])
    predicted = np.concatenate([predicted for _, predicted, _ in parts])
    labels = np.concatenate([said if labels is None else labels for _, said, labels in parts])
    codes = np.repeat(np.arange(len(parts), dtype=np.int32), counts)
    columns = {
        "trial_id": pd.Categorical.from_codes(codes, categories=pd.Index([trial_id for trial_id, _, _ in parts])),
        "image": np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        "prediction": predicted,
        "label": pd.arrays.IntegerArray(labels, unknown),
        "correct": pd.arrays.BooleanArray(labels == predicted, unknown.copy()),
    }
    return pd.DataFrame(columns)
