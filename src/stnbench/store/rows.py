"""Conversion of rows to records and back; ``Fields`` are the columns of one row to write."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Row

from stnbench.core.errors import StoreError
from stnbench.core.identity import canonical_json, digest
from stnbench.spec.codec import from_stored as decode_stored
from stnbench.spec.codec import to_json, to_plain
from stnbench.spec.control import ControlRecord, ControlRequest, Effect
from stnbench.spec.metrics import ENERGY
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
from stnbench.spec.sweep import Point
from stnbench.spec.trial import TrialSpec
from stnbench.store.tables import AttemptEpoch, AttemptRecord, AttemptStart, Outcome, PlannedTrial, Timing, TrialRecord

# Labels and places of images as bytes: consecutive little-endian unsigned integers.
#
# Labels take one byte each if that is enough, otherwise two; places take four.


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedLabels:
    """Labels as bytes of the type ``dtype``, ``uint8`` or ``uint16``."""

    dtype: str
    data: bytes


def pack_labels(labels: Sequence[int]) -> PackedLabels:
    """Pack labels to bytes.

    Raises:
        StoreError: if a label is outside 0 to 65535.
    """
    largest = max(labels, default=0)
    if largest > 0xFFFF or min(labels, default=0) < 0:
        wrong = next(label for label in labels if not 0 <= label <= 0xFFFF)
        raise StoreError(f"the label {wrong} cannot be stored", remedy="labels are from 0 to 65535")
    if largest <= 0xFF:
        return PackedLabels(dtype="uint8", data=bytes(labels))
    return PackedLabels(dtype="uint16", data=struct.pack(f"<{len(labels)}H", *labels))


def pack_places(places: Sequence[int]) -> bytes:
    """Pack places of images, or numbers of tracks, to bytes.

    Raises:
        StoreError: if a number is outside 0 to 2**32 - 1.
    """
    try:
        return struct.pack(f"<{len(places)}I", *places)
    except struct.error as error:
        raise StoreError(
            f"a place or track cannot be stored: {error}", remedy="they are from 0 to 2**32 - 1"
        ) from error


def unpack_places(data: bytes) -> tuple[int, ...]:
    """Unpack places from bytes."""
    return struct.unpack(f"<{len(data) // 4}I", data)


def unpack_labels(packed: PackedLabels) -> tuple[int, ...]:
    """Unpack labels from bytes."""
    if packed.dtype == "uint8":
        return tuple(packed.data)
    return struct.unpack(f"<{len(packed.data) // 2}H", packed.data)


Fields = dict[str, Any]
T = TypeVar("T")
FAILURE_COLUMNS = ("failure_kind", "failure_message", "failure_traceback", "failure_last_output")
EPOCH_NUMBERS = (
    "train_loss",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "train_duration_s",
    "evaluate_duration_s",
)


def trial_fields(trial_id: str, spec: TrialSpec, at: datetime) -> Fields:
    """Return the row of a planned trial in ``trials``."""
    return {
        "id": trial_id,
        "cell_id": spec.config_id,
        "seed": spec.seed,
        "spec": to_json(spec),
        "state": TrialState.PLANNED.value,
        "created_at": at,
    }


def link_fields(sweep: str, trial_id: str, position: int, planned: PlannedTrial) -> Fields:
    """Return the row of a wanted trial in ``sweep_trials``."""
    return {
        "sweep": sweep,
        "trial_id": trial_id,
        "position": position,
        "label": storable(planned.label),
        "point": to_json(planned.point),
        "is_twin": planned.is_baseline,
        "wanted": True,
    }


def attempt_fields(start: AttemptStart, number: int) -> Fields:
    """Return the row of a running attempt in ``attempts``."""
    return {
        "trial_id": start.trial_id,
        "number": number,
        "token": start.token,
        "state": AttemptState.RUNNING.value,
        "slot": start.slot,
        "host": start.host,
        "pid": start.pid,
        "boot_id": start.boot_id,
        "started_at": start.started_at,
    }


def control_fields(record: ControlRecord) -> Fields:
    """Return the row of a request in ``controls``."""
    return {
        "id": record.request.request_id,
        "sweep": record.request.sweep,
        "request": to_json(record.request),
        "applied_at": record.applied_at,
        "is_refused": record.is_refused,
        "outcome": storable(record.outcome),
        "effect": to_json(record.effect),
    }


def control_record(row: Row[Any]) -> ControlRecord:
    """Return the record of a row of ``controls``."""
    return ControlRecord(
        request=from_stored(ControlRequest, row.request),
        applied_at=row.applied_at,
        is_refused=row.is_refused,
        outcome=row.outcome,
        effect=from_stored(Effect, row.effect),
    )


def failure_fields(failure: Failure | None) -> Fields:
    """Return the columns of ``attempts`` that describe a failure, all None without one."""
    if failure is None:
        return dict.fromkeys(FAILURE_COLUMNS)
    texts = (failure.message, failure.traceback, failure.last_output)
    said = (failure.kind.value, *map(storable, texts))
    return dict(zip(FAILURE_COLUMNS, said, strict=True))


def epoch_fields(attempt_id: int, record: EpochRecord) -> Fields:
    """Return the row of an epoch in ``epochs``.

    Raises:
        StoreError: if a number is not finite; a diverged attempt must fail instead.
    """
    numbers = {name: float(getattr(record, name)) for name in EPOCH_NUMBERS}
    for name, number in numbers.items():
        _require_finite(f"{name} of epoch {record.epoch}", number)
    texts = {
        "health": canonical_json([to_plain(health) for health in record.health]),
        "metrics": canonical_json(dict(record.metrics)),
    }
    return {"attempt_id": attempt_id, "epoch": record.epoch, "step": record.step, **texts, **numbers}


def outcome_fields(attempt_id: int, result: TrialResult) -> Fields:
    """Return the row of a result in ``outcomes``."""
    return {
        "trial_id": result.trial_id,
        "attempt_id": attempt_id,
        "parameters": result.cost.parameters,
        "flops": result.cost.flops,
        "activation_bytes": result.cost.activation_bytes,
        "train_duration_s": result.train_duration_s,
        "peak_memory_mib": result.peak_memory_mib,
        "environment": environment_digest(result.environment),
    }


def score_fields(trial_id: str, score: SplitScore) -> Fields:
    """Return the row of a score in ``scores``.

    Raises:
        StoreError: if the loss is not finite.
    """
    _require_finite(f"the {score.split} loss", score.loss)
    counts = {"images": score.images, "correct": score.correct}
    metrics = canonical_json(dict(score.metrics))
    return {"trial_id": trial_id, "split": score.split, "loss": score.loss, "metrics": metrics, **counts}


def prediction_fields(trial_id: str, score: SplitScore) -> Fields:
    """Return the row of a score in ``predictions``.

    Raises:
        StoreError: if there is not one label per image, or a label cannot be stored.
    """
    if len(score.predictions) != score.images:
        problem = f"the {score.split} score of trial {trial_id} has {len(score.predictions)} predictions"
        raise StoreError(problem, remedy=f"give one for each of its {score.images} images")
    packed = pack_labels(score.predictions)
    return {
        "trial_id": trial_id,
        "split": score.split,
        "dtype": packed.dtype,
        "images": score.images,
        "labels": packed.data,
    }


def image_set_fields(scored: ScoredImages) -> Fields:
    """Return the row of scored images in ``image_sets``.

    Raises:
        StoreError: if there are tracks or rows but not one per image, or a number cannot be stored.
    """
    packed = pack_labels(scored.labels)
    for name, places in (("tracks", scored.tracks), ("rows", scored.rows)):
        if len(places) not in {0, len(scored.labels)}:
            problem = f"{len(scored.labels)} scored images have {len(places)} {name}"
            raise StoreError(problem, remedy="give one an image, or none")
    return {
        "digest": digest(to_plain(scored)),
        "images": len(scored.labels),
        "dtype": packed.dtype,
        "labels": packed.data,
        "tracks": pack_places(scored.tracks),
        "rows": pack_places(scored.rows),
    }


def environment_digest(environment: Environment) -> str:
    """Return the identity of an environment."""
    return digest(to_plain(environment))


def trial_record(row: Row[Any]) -> TrialRecord:
    """Convert a row of ``sweep_trials``, joined with its trial and the trial's last attempt, into a record."""
    last = attempt_record(row) if row.number else None
    return TrialRecord(
        sweep=row.sweep,
        position=row.position,
        trial_id=row.id,
        config_id=row.cell_id,
        point=from_stored(Point, row.point),
        label=row.label,
        is_baseline=row.is_twin,
        seed=row.seed,
        state=TrialState(row.trial_state),
        attempts=last.number if last else 0,  # numbers count from 1 without gaps
        last_attempt=last,
        spec=from_stored(TrialSpec, row.spec),
    )


def attempt_record(row: Row[Any]) -> AttemptRecord:
    """Convert a row of ``attempts`` into a record."""
    failure = row.failure_kind and Failure(
        kind=FailureKind(row.failure_kind),
        message=row.failure_message,
        traceback=row.failure_traceback,
        last_output=row.failure_last_output,
    )
    return AttemptRecord(
        trial_id=row.trial_id,
        number=row.number,
        token=row.token,
        state=AttemptState(row.state),
        slot=row.slot,
        host=row.host,
        pid=row.pid,
        boot_id=row.boot_id,
        started_at=row.started_at,
        finished_at=row.finished_at,
        failure=failure,
    )


def attempt_epoch(row: Row[Any]) -> AttemptEpoch:
    """Return the record of a row of ``epochs`` joined with the number of its attempt."""
    numbers = {name: getattr(row, name) for name in EPOCH_NUMBERS}
    health = from_stored(tuple[TransformerHealth, ...], row.health)
    metrics = from_stored(dict[str, float], row.metrics)
    record = EpochRecord(epoch=row.epoch, step=row.step, health=health, metrics=metrics, **numbers)
    return AttemptEpoch(attempt=row.number, record=record)


def split_score(row: Row[Any], labels: tuple[int, ...]) -> SplitScore:
    """Return the score of a row of ``scores``, with the given predictions."""
    return SplitScore(
        split=row.split,
        images=row.images,
        correct=row.correct,
        loss=row.loss,
        predictions=labels,
        metrics=from_stored(dict[str, float], row.metrics),
    )


def labels_of(row: Row[Any]) -> tuple[int, ...]:
    """Return the labels of a row of ``predictions`` or ``image_sets``."""
    return unpack_labels(PackedLabels(dtype=row.dtype, data=row.labels))


def scored_images(row: Row[Any]) -> ScoredImages:
    """Return the scored images of a row of ``image_sets``."""
    return ScoredImages(labels=labels_of(row), tracks=unpack_places(row.tracks), rows=unpack_places(row.rows))


def outcome(row: Row[Any], scores: Mapping[str, SplitScore], environment: Environment) -> Outcome:
    """Return the record of a row of ``outcomes`` joined with its attempt's number, with its scores by split."""
    return Outcome(
        attempt=row.number,
        validation=scores["validation"],
        test=scores.get("test"),
        cost=_cost(row),
        environment=environment,
        train_duration_s=row.train_duration_s,
        peak_memory_mib=row.peak_memory_mib,
    )


def timing(row: Any) -> Timing:  # noqa: ANN401 - a row of several columns
    """Return the training time of a row of ``outcomes`` joined with its trial's specification."""
    spec = from_stored(TrialSpec, row.spec)
    energy = from_stored(dict[str, float], row.metrics).get(ENERGY)
    return Timing(spec=spec, cost=_cost(row), train_duration_s=row.train_duration_s, energy_kwh=energy)


def from_stored(kind: type[T], text: str) -> T:
    """Return the dataclass stored in a JSON column."""
    return decode_stored(kind, text, where="the store")


def storable(text: str) -> str:
    """Return the text with NUL replaced by its symbol, and halves of surrogate pairs by escapes.

    No database accepts these characters, which occur in the output of processes that died.
    """
    return text.replace("\0", "\u2400").encode(errors="backslashreplace").decode()


def _cost(row: Row[Any]) -> Cost:
    return Cost(parameters=row.parameters, flops=row.flops, activation_bytes=row.activation_bytes)


def _require_finite(thing: str, number: float) -> None:
    if not math.isfinite(number):
        raise StoreError(
            f"{thing} is {number}, and only finite numbers are stored", remedy="end the attempt as diverged"
        )
