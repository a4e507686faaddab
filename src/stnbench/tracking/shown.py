"""What a run in MLflow says of an attempt or a cell: names, tags, parameters and metrics. Pure; no MLflow here.

The limits are MLflow's: 250 characters a key, 6,000 a parameter, 8,000 a tag.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stnbench.core.identity import Json
from stnbench.spec.codec import to_identity, to_plain
from stnbench.spec.health import judge_attempt
from stnbench.spec.metrics import current
from stnbench.spec.result import Cost, Environment, EpochRecord, SplitScore, TransformerHealth
from stnbench.spec.states import AttemptState
from stnbench.spec.sweep import show_value
from stnbench.spec.trial import TrialSpec
from stnbench.tracking import described
from stnbench.tracking.base import AttemptView, CellView

PARAMETER_LIMIT = 6000
KEY_LIMIT = 250
MESSAGE_LIMIT = 500
CELL_MEAN = "validation_accuracy_mean"
SPECIFICATION = "specification.json"
NOTE = "mlflow.note.content"
"""The tag that MLflow's pages show as a description."""

_SOURCE = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "stnbench"}
"""Without a source, MLflow's pages do not show the commit either."""
_NOT_IN_KEYS = r"[^\w./ -]"

_WHERE_KNOWN = (
    "theta_error",
    "theta_error_far_share",
    "theta_error_identity",
    "theta_error_identity_far_share",
    "movement",
    "movement_spread",
    "singular_max_mean",
    "singular_min_mean",
    "lost_share",
    "dead_share",
    "gradient_ratio",
    "accuracy_identity",
    "accuracy_mean",
    "accuracy_all_identity",
    "accuracy_all_mean",
)
"""The numbers of ``TransformerHealth`` that a record may lack."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One value of one metric; ``step`` is the epoch, the time is in unix milliseconds."""

    key: str
    value: float
    step: int
    timestamp_ms: int


def run_name(view: AttemptView) -> str:
    """The name of an attempt's run."""
    again = f" · attempt {view.number}" if view.number > 1 else ""
    return f"{view.label} · seed {view.spec.seed}{again}"


def cell_name(view: CellView) -> str:
    """Return the name of a cell's summary run; lists of MLflow show no metric by themselves, so it begins with it."""
    return f"{100 * view.mean:.2f} % · {view.label} · mean of {view.seeds} seed{'' if view.seeds == 1 else 's'}"


def cell_token(cell_id: str) -> str:
    """What tells a cell's summary run from all others; no attempt has such a token."""
    return f"cell:{cell_id}"


def run_tags(view: AttemptView) -> dict[str, str]:
    """The tags of an attempt's run; ``health`` is the verdict on its worst transformer so far, to filter runs by."""
    tags = {
        "sweep": view.sweep,
        "cell": view.cell_id,
        "seed": str(view.spec.seed),
        "trial": view.trial_id,
        "attempt": str(view.number),
        "status": view.state.value,
        "token": view.token,
        "twin": show_value(view.is_twin),
        "specification": SPECIFICATION,
        NOTE: described.attempt_note(view),
        **_SOURCE,
    }
    verdict = judge_attempt(view.spec, view.epochs, view.failure)
    if verdict is not None:
        tags["health"] = verdict.value
    if view.environment is not None:
        tags |= _environment_tags(view.environment)
    if view.failure is not None:
        tags |= {"failure": view.failure.kind.value, "failure_message": view.failure.message[:MESSAGE_LIMIT]}
    return tags


def cell_tags(view: CellView) -> dict[str, str]:
    """The tags of a cell's summary run."""
    tags = {
        "sweep": view.sweep,
        "cell": view.cell_id,
        "twin": show_value(view.is_twin),
        "token": cell_token(view.cell_id),
        "summary": "true",
        "method": view.method,
        NOTE: described.cell_note(view),
    }
    known = {"rank": view.rank_text, "vs_best": view.standing, "health": view.health}
    return tags | {key: value for key, value in known.items() if value}


def run_parameters(view: AttemptView) -> dict[str, str]:
    """What differs within a sweep: the labels on its axes, and the seed. Without axes, all that is not at its default.

    The whole specification is an artifact: fifty parameters of which three differ are no table, and MLflow's galleries
    put all of them above each picture.
    """
    own = axis_parameters(view.axes) if view.axes or view.is_twin else specification_parameters(view.spec)
    return own | {"seed": str(view.spec.seed)}


def axis_parameters(axes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Labels by axis: what differs within a sweep. Attempts and cells have the same, so that both can be compared.

    A number is one without its key, so that it is drawn to scale.
    """
    values = {name: label.removeprefix(f"{name.rpartition('.')[2]}=") for name, label in axes}
    return {axis_key(name): value[:PARAMETER_LIMIT] for name, value in values.items()}


def axis_key(name: str) -> str:
    """The parameter that an axis's label is; characters that MLflow does not take become underscores."""
    return f"axis.{re.sub(_NOT_IN_KEYS, '_', name)}"[:KEY_LIMIT]


def specification_parameters(spec: TrialSpec) -> dict[str, str]:
    """What is not at its default, a dotted path for each value, transformers by their place."""
    return {key: show_value(value)[:PARAMETER_LIMIT] for key, value in _flatten("", to_identity(spec))}


def specification_text(spec: TrialSpec) -> str:
    """The whole specification, for the artifact ``SPECIFICATION``."""
    return json.dumps(to_plain(spec), indent=1) + "\n"


def run_measures(view: AttemptView) -> list[Measure]:
    """Every metric of an attempt's run; the test split only once the attempt has ended."""
    measures: list[Measure] = []
    clock_ms = float(view.started_at_ms)
    for record in view.epochs:
        clock_ms += 1000 * (record.train_duration_s + record.evaluate_duration_s)
        measures += _measures(_epoch_values(record), step=record.epoch, timestamp_ms=round(clock_ms))
    ended = view.state is not AttemptState.RUNNING
    last_epoch = view.epochs[-1].epoch if view.epochs else 0
    end_ms = round(clock_ms) if view.finished_at_ms is None else view.finished_at_ms
    values = _cost_values(view.cost)
    values |= _score_values(view.validation, suffix="_final")
    values |= _score_values(view.test, suffix="") if ended else {}
    return measures + _measures(values, step=last_epoch, timestamp_ms=end_ms)


def cell_values(view: CellView) -> dict[str, float]:
    """The metrics of a cell's summary run: accuracies on the validation split, as shares in [0, 1]."""
    values = {CELL_MEAN: view.mean, "seeds": float(view.seeds)}
    if view.low is not None:
        values["validation_accuracy_low"] = view.low
    if view.high is not None:
        values["validation_accuracy_high"] = view.high
    if view.rank is not None:
        values["rank"] = float(view.rank)
    if view.st_gain is not None:
        values["st_gain"] = view.st_gain.mean
        ends = {"st_gain_low": view.st_gain.low, "st_gain_high": view.st_gain.high}
        values |= {key: value for key, value in ends.items() if value is not None}
    return values | _cost_values(view.cost)


def _measures(values: dict[str, float], *, step: int, timestamp_ms: int) -> list[Measure]:
    return [Measure(key=key, value=value, step=step, timestamp_ms=timestamp_ms) for key, value in values.items()]


def _epoch_values(record: EpochRecord) -> dict[str, float]:
    values = {
        "train_loss": record.train_loss,
        "validation_loss": record.validation_loss,
        "validation_accuracy": record.validation_accuracy,
        "learning_rate": record.learning_rate,
        "train_duration_s": record.train_duration_s,
        "evaluate_duration_s": record.evaluate_duration_s,
    }
    for health in record.health:
        name = f"transformer_{health.place}" + (f".{health.branch}" if health.branch > 1 else "")
        values |= {f"{name}/{key}": value for key, value in _health_values(health).items()}
    return values


def _health_values(health: TransformerHealth) -> dict[str, float]:
    """``theta_spread`` is the root mean square, over the six numbers of theta, of their deviations over images.

    ``severity`` is the verdict as a number, from 0 for healthy to 5 for diverged.
    """
    values = {
        "theta_spread": math.sqrt(sum(std**2 for std in health.theta_std) / len(health.theta_std)),
        "outside_share": health.outside_share,
        "identity_distance": health.identity_distance,
        "determinant_mean": health.determinant_mean,
    }
    further = {name: getattr(health, name) for name in _WHERE_KNOWN}
    further["severity"] = None if health.verdict is None else float(health.verdict.severity)
    return values | {key: value for key, value in further.items() if value is not None}


def _score_values(score: SplitScore | None, *, suffix: str) -> dict[str, float]:
    if score is None:
        return {}
    values = {f"{score.split}_accuracy{suffix}": score.accuracy, f"{score.split}_loss{suffix}": score.loss}
    return values | {f"{score.split}_{name}": value for name, value in current(score.metrics).items()}


def _cost_values(cost: Cost | None) -> dict[str, float]:
    if cost is None:
        return {}
    return {
        "parameters": float(cost.parameters),
        "flops": float(cost.flops),
        "activation_bytes": float(cost.activation_bytes),
    }


def _environment_tags(environment: Environment) -> dict[str, str]:
    return {
        "mlflow.source.git.commit": environment.commit,
        "dirty": show_value(environment.dirty),
        "device": environment.device,
        "host": environment.host,
        "dataset_digest": environment.dataset_digest,
    }


def _flatten(key: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flatten(f"{key}.{name}" if key else name, item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value, start=1):
            place = item.get("place", number) if isinstance(item, dict) else number
            yield from _flatten(f"{key}.{place}", item)
    else:
        yield key, value
