"""Sweeps as pandas frames, for the report and for notebooks.

    from stnbench.analysis.frames import read_sweep

    sweep = read_sweep("locnet_sizes")
    sweep.trials.groupby("label")["validation_accuracy"].agg(["mean", "std", "count"])

The constants ``*_COLUMNS`` list the columns with their types; names say units. Accuracies are shares in [0, 1]. Values
that a row does not have are missing (None, NaN or NA).
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stnbench.core.files import RunsLayout
from stnbench.spec.data import Split
from stnbench.spec.metrics import current
from stnbench.spec.result import SplitScore, judge_attempt
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.queries import StoreReader
from stnbench.store.store import Store
from stnbench.store.tables import AttemptEpoch, AttemptRecord, ImageSets, Outcome, TrialRecord

# Conversion of records of the store to frames, by pure functions.


# The columns of a sweep's frames and their types. Units are in their names; absent values are missing.


TRIAL_COLUMNS: Final = {
    "trial_id": "object",
    "cell_id": "object",
    "baseline_cell_id": "object",
    "bare_id": "object",
    "label": "object",
    "is_baseline": "bool",
    "seed": "int64",
    "state": "object",
    "attempts": "int64",
    "health": "object",
    "validation_accuracy": "float64",
    "validation_images": "Int64",
    "validation_correct": "Int64",
    "validation_loss": "float64",
    "validation_image_set": "object",
    "test_accuracy": "float64",
    "test_images": "Int64",
    "test_correct": "Int64",
    "test_loss": "float64",
    "test_image_set": "object",
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
"""One row for each trial, in the order of the sweep, and one column ``axis:<name>`` for each axis.

``baseline_config_id`` is the configuration without transformers (the trial's if it has none); ``bare_id`` is shared by
all configurations that differ only in transformers and the sizes of the network. ``epochs`` is the number requested,
``epoch_duration_s`` the mean of their training times without evaluation. The failure is that of the last attempt.
``health`` is the verdict (``spec.verdict.Verdict``) on the worst transformer after the last known epoch. Trials with
equal ``validation_image_set`` were scored on the same images, which the frame of images lists; older scores have none.
Trials of ``split=all`` have no validation score, because they were trained on those images.
"""

AXIS_PREFIX: Final = "axis:"

METRIC_PREFIXES: Final = {"validation": "validation_metric:", "test": "test_metric:"}
"""Prefixes of metric columns (``spec/metrics.py``) by split; a frame has a column for each metric of any trial."""

EPOCH_COLUMNS: Final = {
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
"""One row for each epoch of an attempt; metrics of the validation images follow, as in a frame of trials."""

HEALTH_COLUMNS: Final = {
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
    "theta_error_far_share": "float64",
    "theta_error_identity": "float64",
    "theta_error_identity_far_share": "float64",
    "movement": "float64",
    "movement_spread": "float64",
    "singular_max_mean": "float64",
    "singular_min_mean": "float64",
    "lost_share": "float64",
    "finite_share": "float64",
    "dead_share": "float64",
    "gradient_ratio": "float64",
    "accuracy_identity": "float64",
    "accuracy_mean": "float64",
    "accuracy_all_identity": "float64",
    "accuracy_all_mean": "float64",
}
"""One row for each transformer and epoch: see ``spec.result.TransformerHealth``."""

ATTEMPT_COLUMNS: Final = {
    "trial_id": "object",
    "attempt": "int64",
    "token": "object",
    "state": "object",
    "slot": "object",
    "host": "object",
    "started_at": "datetime64[ns, UTC]",
    "finished_at": "datetime64[ns, UTC]",
    "duration_s": "float64",
    "failure_kind": "object",
    "failure_message": "object",
    "failure_traceback": "object",
    "failure_last_output": "object",
}
"""One row for each attempt; its run in MLflow has its ``token`` as a tag."""

IMAGE_COLUMNS: Final = {
    "split": "category",
    "image_set": "category",
    "image": "int32",
    "row": "Int64",
    "track": "Int64",
    "label": "uint16",
}
"""One row for each image of a set that trials were scored on.

``image`` is its place in the order of the predictions, from 0, ``row`` its place in its half of the data set (``image``
where the set is the whole half), ``label`` its true class. Images of a ``track`` are near copies of each other.
"""

PREDICTION_COLUMNS: Final = {
    "trial_id": "category",
    "image": "int32",
    "prediction": "uint16",
    "label": "UInt16",
    "correct": "boolean",
}
"""One row for each trial and image of one split: the class predicted after the last epoch, and the true one.

Label and ``correct`` are missing if the trial was scored by an older version, which kept no true labels.
"""


Fields = dict[str, Any]


def trials_frame(
    trials: Sequence[TrialRecord],
    outcomes: Mapping[str, Outcome],
    epochs: Mapping[str, Sequence[AttemptEpoch]] | None = None,
    images: Mapping[Split, ImageSets] | None = None,
) -> pd.DataFrame:
    """Build a frame of trials (``TRIAL_COLUMNS``) with their outcomes.

    Args:
        trials: in the order of the sweep.
        outcomes: of the complete ones, by trial id.
        epochs: by trial id.
        images: that trials were scored on, by split.
    """
    baselines = {trial.config_id: trial for trial in trials}
    baseline_ids = {config_id: _baseline_config_id(trial) for config_id, trial in baselines.items()}
    bare_ids = {config_id: trial.spec.bare_id for config_id, trial in baselines.items()}
    rows = []
    for trial in trials:
        row = _trial_row(trial, outcomes.get(trial.trial_id))
        row |= {"baseline_cell_id": baseline_ids[trial.config_id], "bare_id": bare_ids[trial.config_id]}
        row |= {"health": _verdict(trial, (epochs or {}).get(trial.trial_id, ()))}
        for split, sets in (images or {}).items():
            if split != "validation" or trial.spec.has_held_out_images:
                row[f"{split}_image_set"] = sets.of_trial.get(trial.trial_id)
        rows.append(row)
    axes = dict.fromkeys(AXIS_PREFIX + name for trial in trials for name, _ in trial.point.labels)
    prefixes = tuple(METRIC_PREFIXES.values())
    metrics = dict.fromkeys(sorted({name for row in rows for name in row if name.startswith(prefixes)}), "float64")
    return make_frame(rows, {**TRIAL_COLUMNS, **dict.fromkeys(axes, "object"), **metrics})


def epochs_frame(epochs: Mapping[str, Sequence[AttemptEpoch]]) -> pd.DataFrame:
    """Build a frame of epochs (``EPOCH_COLUMNS``) from epochs by trial id."""
    own = [name for name in EPOCH_COLUMNS if name not in {"trial_id", "attempt"}]
    prefix = METRIC_PREFIXES["validation"]
    rows = [
        {"trial_id": trial_id, "attempt": item.attempt}
        | {name: getattr(item.record, name) for name in own}
        | {prefix + name: value for name, value in current(item.record.metrics).items()}
        for trial_id, item in _each_epoch(epochs)
    ]
    metrics = dict.fromkeys(sorted({name for row in rows for name in row if name.startswith(prefix)}), "float64")
    return make_frame(rows, {**EPOCH_COLUMNS, **metrics})


def health_frame(epochs: Mapping[str, Sequence[AttemptEpoch]]) -> pd.DataFrame:
    """Build a frame of the health of every transformer (``HEALTH_COLUMNS``) from epochs by trial id."""
    own = [name for name in HEALTH_COLUMNS if name not in {"trial_id", "attempt", "epoch"}]
    rows = [
        {"trial_id": trial_id, "attempt": item.attempt, "epoch": item.record.epoch}
        | {name: getattr(health, name) for name in own}
        | {"verdict": None if health.verdict is None else health.verdict.value}
        for trial_id, item in _each_epoch(epochs)
        for health in item.record.health
    ]
    return make_frame(rows, HEALTH_COLUMNS)


def attempts_frame(attempts: Iterable[AttemptRecord]) -> pd.DataFrame:
    """Build a frame of attempts (``ATTEMPT_COLUMNS``)."""
    rows = [
        {
            "trial_id": attempt.trial_id,
            "attempt": attempt.number,
            "token": attempt.token,
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
    return make_frame(rows, ATTEMPT_COLUMNS)


def images_frame(images: Mapping[Split, ImageSets]) -> pd.DataFrame:
    """Build a frame of the images of every set that trials were scored on (``IMAGE_COLUMNS``)."""
    rows: list[Fields] = []
    for split, sets in images.items():
        for digest, scored in sorted(sets.sets.items()):
            count = len(scored.labels)
            places = scored.rows or range(count)
            tracks: Sequence[int | None] = scored.tracks or (None,) * count
            columns = zip(range(count), places, tracks, scored.labels, strict=True)
            same = {"split": split, "image_set": digest}
            rows += [same | dict(zip(("image", "row", "track", "label"), one, strict=True)) for one in columns]
    return make_frame(rows, IMAGE_COLUMNS)


def make_frame(rows: Sequence[Fields], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Build a frame with exactly these columns and types; absent values are missing."""
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in dtypes.items()}
    return pd.DataFrame(columns)


def _each_epoch(epochs: Mapping[str, Sequence[AttemptEpoch]]) -> Iterator[tuple[str, AttemptEpoch]]:
    return ((trial_id, item) for trial_id, items in epochs.items() for item in items)


def _baseline_config_id(trial: TrialRecord) -> str:
    return trial.spec.baseline().config_id if trial.spec.transformers else trial.config_id


def _trial_row(trial: TrialRecord, outcome: Outcome | None) -> Fields:
    row: Fields = {
        "trial_id": trial.trial_id,
        "cell_id": trial.config_id,
        "label": trial.label,
        "is_baseline": trial.is_baseline,
        "seed": trial.seed,
        "state": trial.state.value,
        "attempts": trial.attempts,
        "epochs": trial.spec.training.epochs,
    }
    row |= {AXIS_PREFIX + name: label for name, label in trial.point.labels}
    if trial.last_attempt is not None:
        row |= _failure_fields(trial.last_attempt)
    if outcome is not None:
        row |= _outcome_fields(outcome, trial.spec)
    return row


def _verdict(trial: TrialRecord, epochs: Sequence[AttemptEpoch]) -> str | None:
    """Return the verdict of the last attempt; one without an epoch yet continues from the attempt before."""
    failure = trial.last_attempt.failure if trial.last_attempt else None
    verdict = judge_attempt(trial.spec, [item.record for item in epochs[-1:]], failure)
    return None if verdict is None else verdict.value


def _outcome_fields(outcome: Outcome, spec: TrialSpec) -> Fields:
    environment = outcome.environment
    own = ("commit", "dirty", "python", "platform", "host", "device", "threads", "dataset_digest")
    return {
        **(_score_fields(outcome.validation) if spec.has_held_out_images else {}),
        **(_score_fields(outcome.test) if outcome.test else {}),
        "parameters": outcome.cost.parameters,
        "flops": outcome.cost.flops,
        "activation_bytes": outcome.cost.activation_bytes,
        "train_duration_s": outcome.train_duration_s,
        "epoch_duration_s": outcome.train_duration_s / spec.training.epochs,
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
        **{METRIC_PREFIXES[score.split] + name: value for name, value in current(score.metrics).items()},
    }


def _failure_fields(attempt: AttemptRecord) -> Fields:
    if attempt.failure is None:
        return {}
    failure = attempt.failure
    return {
        "failure_kind": failure.kind.value,
        "failure_message": failure.message,
        "failure_traceback": failure.traceback or None,
        "failure_last_output": failure.last_output or None,
    }


_SCORED: tuple[Split, ...] = ("validation", "test")
_TRIALS_AT_ONCE = 256
"""The number of trials whose predictions are unpacked at once: those of 10,000 need more memory than their frame."""

_Labels = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepFrames:
    """The frames of one sweep, with everything that the store holds of it.

    Attributes:
        spec: the sweep as it was last run.
        trials: one row for each trial (``analysis.frames.TRIAL_COLUMNS``), complete or not.
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
    """Read the prediction of every trial of a sweep for every image of a split, with the columns PREDICTION_COLUMNS.

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
