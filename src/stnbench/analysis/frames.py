"""Sweeps as pandas frames, for the report and for notebooks.

    from stnbench.analysis.frames import read_sweep

    sweep = read_sweep("locnet_sizes")
    sweep.trials.groupby("label")["validation_accuracy"].agg(["mean", "std", "count"])

The columns and their types are in ``frames_rows``, with units in the names. Accuracies are shares in [0, 1]. Values
that a row does not have are missing (None, NaN or NA).
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
"""The number of trials whose predictions are unpacked at once: those of 10,000 need more memory than their frame."""

_Labels = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepFrames:
    """The frames of one sweep, with everything that the store holds of it.

    Attributes:
        spec: the sweep as it was last run.
        trials: one row for each trial (``frames_rows.TRIAL_COLUMNS``), complete or not.
        epochs: one row for each epoch of an attempt (``EPOCH_COLUMNS``).
        health: one row for each transformer and epoch (``HEALTH_COLUMNS``).
        attempts: one row for each attempt, failed ones with their tracebacks (``ATTEMPT_COLUMNS``).
        images: one row for each image of every set that trials were scored on (``IMAGE_COLUMNS``).
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
        """Read the predictions of every trial for every image from the store; see ``read_predictions``."""
        return read_predictions(self.spec.name, split, trial_ids, store=self._store)


def read_sweep(sweep: str, *, store: StoreReader | None = None) -> SweepFrames:
    """Read a sweep as frames, from an open store or the one in ``STNBENCH_RUNS`` or ``STNBENCH_STORE``.

    The store is opened for reading only and closed again, so that a running sweep is not disturbed.

    Raises:
        UnknownNameError: if the store has no such sweep.
        FolderError: if there is no store.
        StoreError: if the store cannot be used.
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
    """Read the prediction of every trial of a sweep for every image of a split (``frames_rows.PREDICTION_COLUMNS``).

    One row takes about 15 bytes, so 10,000 trials on 3,870 images take some 600 MB: select trials with ``trial_ids``.
    ``SweepFrames.images`` maps each ``image`` to an image of the data set. The errors are those of ``read_sweep``.
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
    """Read the trials of a sweep only, which suffices for a leaderboard. The errors are those of ``read_sweep``."""
    with _reading(store) as reader:
        trials, epochs = reader.sweep_trials(sweep), reader.epochs_of_sweep(sweep)
        return trials_frame(trials, reader.outcomes(sweep), epochs, _image_sets(reader, sweep))


def read_images(sweep: str, *, store: StoreReader | None = None) -> pd.DataFrame:
    """Read the images that trials of a sweep were scored on (``IMAGE_COLUMNS``).

    The errors are those of ``read_sweep``.
    """
    with _reading(store) as reader:
        return images_frame(_image_sets(reader, sweep))


def read_specs(store: StoreReader | None = None) -> dict[str, SweepSpec]:
    """Read every sweep of the store as it was last run, by name, the most recently run first.

    The errors are those of ``read_sweep``.
    """
    with _reading(store) as reader:
        return {record.spec.name: record.spec for record in reader.sweeps()}


@contextlib.contextmanager
def _reading(store: StoreReader | None) -> Iterator[StoreReader]:
    """Yield the given store, or open that of the environment and close it at the end."""
    if store is not None:
        yield store
        return
    with Store.open(RunsLayout.from_environment().store, writable=False) as opened:
        yield opened


def _image_sets(reader: StoreReader, sweep: str) -> dict[Split, ImageSets]:
    return {split: reader.image_sets(sweep, split) for split in _SCORED}


def _predictions_frame(parts: Sequence[tuple[str, _Labels, _Labels | None]]) -> pd.DataFrame:
    """Build a frame from (trial id, predicted labels, true labels if known), one trial after the other."""
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
