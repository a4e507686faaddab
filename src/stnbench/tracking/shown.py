"""Names, tags, parameters and metrics of the MLflow runs of attempts and configurations, without I/O and MLflow.

The limits are MLflow's: 250 characters per key, 6,000 per parameter, 8,000 per tag.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stnbench.core.identity import Json
from stnbench.core.text import plain_markdown, printable
from stnbench.spec.codec import to_identity, to_json, to_plain
from stnbench.spec.data import Split
from stnbench.spec.metrics import ENERGY, current, of_the_trial
from stnbench.spec.result import (
    AttemptState,
    Cost,
    Environment,
    EpochRecord,
    Failure,
    SplitScore,
    TransformerHealth,
    judge_attempt,
)
from stnbench.spec.sweep import SweepSpec, show_value
from stnbench.spec.trial import TrialSpec
from stnbench.tracking import AttemptView, ConfigurationView

# The halves of the data set of an attempt, as MLflow data sets.


DIGEST_LIMIT = 36
_CONTEXTS = {"train": "training", "test": "testing"}


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInput:
    """One half of a data set: its name, the digest of its images, its specification (JSON), and its use."""

    name: str
    digest: str
    source: str
    context: str


def dataset_inputs(view: AttemptView) -> list[DatasetInput]:
    """Return the halves on which an attempt was trained and scored, if known; the test half only after its end."""
    if view.environment is None:
        return []
    source = to_json(view.spec.dataset)
    kind = view.spec.dataset.kind + (" distorted" if view.spec.dataset.distortion else "")
    halves = view.environment.digests
    ended = view.state is not AttemptState.RUNNING
    return [
        DatasetInput(name=f"{kind} {half}", digest=digest[:DIGEST_LIMIT], source=source, context=_CONTEXTS[half])
        for half, digest in halves.items()
        if half == "train" or ended
    ]


# Markdown descriptions of sweeps, attempts and configurations for MLflow's pages, with links to further information.


NOTE_LIMIT = 6000
QUESTION_LIMIT = 1000


def sweep_note(sweep: SweepSpec, views: dict[str, str]) -> str:
    """Return a sweep's question with links to saved views of MLflow, by name, and the path of the report."""
    links = " · ".join(f"[{name}]({address})" for name, address in views.items())
    report = (
        f"Report: {_code(f'reports/{sweep.name}/index.html')} where the sweep was run, written by `stnbench report`."
    )
    base = ", ".join(_code(str(override)) for override in (*sweep.base, *sweep.overrides))
    same = f"The same in all runs: {base}." if base else ""
    question = plain_markdown(sweep.question[:QUESTION_LIMIT])
    return "\n\n".join(filter(None, (question, links, report, same)))[:NOTE_LIMIT]


def attempt_note(view: AttemptView) -> str:
    """Return the failure of an attempt, if any, its trial, and commands for further information."""
    failure = "" if view.failure is None else _failure(view.failure) + "\n\n"
    commands = [f"python -m stnbench.status {view.sweep}"]
    if view.spec.transformers:
        commands.append(f"python -m stnbench.show transform {view.trial_id}")
    lines = [
        f"Trial `{view.trial_id}` of the sweep {_code(view.sweep)}, attempt {view.number}.",
        f"- report: {_code(f'reports/{view.sweep}/index.html')}, configuration {_code(view.label[:300])}",
        f"- files: `runs/trials/{view.trial_id}/{view.number:03d}`, whole specification: artifact `specification.json`",
        *(f"- {_code(command)}" for command in commands),
    ]
    return failure + "\n".join(lines)


def configuration_note(view: ConfigurationView) -> str:
    """Return the mean of a configuration with its number of seeds, interval, method, split and rank."""
    seeds = f"{view.seeds} seed{'' if view.seeds == 1 else 's'}"
    interval = "no interval"
    if view.low is not None and view.high is not None:
        interval = f"95 % interval {_percent(view.low)} to {_percent(view.high)} ({view.method})"
    rank = f", rank {view.rank_text}" if view.rank_text else ""
    standing = f", {view.standing}" if view.standing else ""
    number = f"**{_percent(view.mean)} %** on validation, mean of {seeds}; {interval}{rank}{standing}.{_gain(view)}"
    runs = (
        f"Its runs: search for `tags.cell = '{view.config_id}'`; report: {_code(f'reports/{view.sweep}/index.html')}."
    )
    return f"{number}\n\n{runs}"


def _gain(view: ConfigurationView) -> str:
    gain = view.st_gain
    if gain is None:
        return ""
    ends = (
        "no interval" if gain.low is None or gain.high is None else f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
    )
    return f" ST gain {100 * gain.mean:+.2f} points ({ends}, n = {gain.n}, {gain.method})."


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _failure(failure: Failure) -> str:
    """Return a failure as Markdown, with the end of its traceback."""
    details = (failure.traceback or failure.last_output)[-NOTE_LIMIT:].strip()
    ticks = max((len(found) for found in re.findall(r"`{3,}", details)), default=2) + 1
    fence = "`" * min(ticks, 100)
    fenced = f"\n\n{fence}\n{details}\n{fence}" if details else ""
    return f"**{failure.kind.value}**: {plain_markdown(failure.message[:1000])}{fenced}"


def _code(text: str) -> str:
    """Return external text as inline code on one line, with a fence longer than any backticks in it."""
    shown = printable(text)
    ticks = "`" * (max((len(found) for found in re.findall(r"`+", shown)), default=0) + 1)
    space = " " if ticks != "`" else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


PARAMETER_LIMIT = 6000
KEY_LIMIT = 250
MESSAGE_LIMIT = 500
# MLflow's pages draw a section of charts for each prefix, in alphabetical order, and metrics without a prefix last.
CONFIGURATION_MEAN = "accuracy/validation_mean"
ATTEMPT_ACCURACY = "accuracy/validation_final"
OLD_KEYS = frozenset({"validation_accuracy", "validation_accuracy_final", "validation_accuracy_mean"})
"""Former keys of metrics; a run that has one is shown again under the keys of now."""

SPECIFICATION = "specification.json"
NOTE = "mlflow.note.content"
"""The tag that MLflow's pages show as the description."""

_SOURCE = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "stnbench"}
"""Tags of the source, without which MLflow's pages do not show the commit."""
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
"""Fields of ``TransformerHealth`` that may be None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One value of one metric; ``step`` is the epoch, the time is in Unix milliseconds."""

    key: str
    value: float
    step: int
    timestamp_ms: int


def run_name(view: AttemptView) -> str:
    """Return the name of an attempt's run."""
    again = f" · attempt {view.number}" if view.number > 1 else ""
    return f"{view.label} · seed {view.spec.seed}{again}"


def configuration_name(view: ConfigurationView) -> str:
    """Return the name of a summary run; it begins with the mean, since MLflow's lists show no metrics by default."""
    return f"{100 * view.mean:.2f} % · {view.label} · mean of {view.seeds} seed{'' if view.seeds == 1 else 's'}"


def configuration_token(config_id: str) -> str:
    """Return the unique token of a configuration's summary run; no attempt has such a token."""
    return f"cell:{config_id}"


def run_tags(view: AttemptView) -> dict[str, str]:
    """Return the tags of an attempt's run; ``health`` is the verdict on its worst transformer, for filtering runs."""
    tags = {
        "sweep": view.sweep,
        "cell": view.config_id,
        "seed": str(view.spec.seed),
        "trial": view.trial_id,
        "attempt": str(view.number),
        "status": view.state.value,
        "token": view.token,
        "baseline": show_value(view.is_baseline),
        "specification": SPECIFICATION,
        NOTE: attempt_note(view),
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


def configuration_tags(view: ConfigurationView) -> dict[str, str]:
    """Return the tags of a configuration's summary run."""
    tags = {
        "sweep": view.sweep,
        "cell": view.config_id,
        "baseline": show_value(view.is_baseline),
        "token": configuration_token(view.config_id),
        "summary": "true",
        "method": view.method,
        NOTE: configuration_note(view),
    }
    known = {"rank": view.rank_text, "vs_best": view.standing, "health": view.health}
    return tags | {key: value for key, value in known.items() if value}


def run_parameters(view: AttemptView) -> dict[str, str]:
    """Return the parameters of a run: its labels on the axes, and the seed; without axes, all non-default values.

    The whole specification is an artifact: a table of fifty parameters of which three differ is unreadable, and
    MLflow's galleries put all of them above each picture.
    """
    own = axis_parameters(view.axes) if view.axes or view.is_baseline else specification_parameters(view.spec)
    return own | {"seed": str(view.spec.seed)}


def axis_parameters(axes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the labels by axis, which attempts and configurations share, so that they can be compared.

    The key is removed from a label, so that numbers are drawn to scale.
    """
    values = {name: label.removeprefix(f"{name.rpartition('.')[2]}=") for name, label in axes}
    return {axis_key(name): value[:PARAMETER_LIMIT] for name, value in values.items()}


def axis_key(name: str) -> str:
    """Return the parameter name of an axis; characters that MLflow does not accept become underscores."""
    return f"axis.{re.sub(_NOT_IN_KEYS, '_', name)}"[:KEY_LIMIT]


def specification_parameters(spec: TrialSpec) -> dict[str, str]:
    """Return the values not at their default by dotted path, with transformers by their place."""
    return {key: show_value(value)[:PARAMETER_LIMIT] for key, value in _flatten("", to_identity(spec))}


def specification_text(spec: TrialSpec) -> str:
    """Return the whole specification as JSON, for the artifact ``SPECIFICATION``."""
    return json.dumps(to_plain(spec), indent=1) + "\n"


def run_measures(view: AttemptView) -> list[Measure]:
    """Return every metric of an attempt's run; those of the test split only after the attempt has ended."""
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


def configuration_values(view: ConfigurationView) -> dict[str, float]:
    """Return the metrics of a summary run; accuracies are shares in [0, 1] on the validation split."""
    values = {CONFIGURATION_MEAN: view.mean, "seeds": float(view.seeds)}
    if view.low is not None:
        values["accuracy/validation_low"] = view.low
    if view.high is not None:
        values["accuracy/validation_high"] = view.high
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
        "accuracy/validation": record.validation_accuracy,
        "loss/train": record.train_loss,
        "loss/validation": record.validation_loss,
        "learning_rate": record.learning_rate,
        "train_duration_s": record.train_duration_s,
        "evaluate_duration_s": record.evaluate_duration_s,
    }
    values |= _metric_values("validation", record.metrics)
    if ENERGY in record.metrics:
        values["energy_kwh_epoch"] = record.metrics[ENERGY]
    for health in record.health:
        name = f"transformer_{health.place}" + (f".{health.branch}" if health.branch > 1 else "")
        values |= {f"{name}/{key}": value for key, value in _health_values(health).items()}
    return values


def _health_values(health: TransformerHealth) -> dict[str, float]:
    """Return the metrics of a transformer's health.

    ``theta_spread`` is the root mean square, over the six numbers of theta, of their standard deviations over images.

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
    values = {f"accuracy/{score.split}{suffix}": score.accuracy, f"loss/{score.split}{suffix}": score.loss}
    energy = {ENERGY: score.metrics[ENERGY]} if ENERGY in score.metrics else {}
    return values | energy | _metric_values(score.split, score.metrics)


def _metric_values(split: Split, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"metric/{split}_{name}": value for name, value in current(of_the_trial(metrics)).items()}


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
