"""Metrics: numbers of a result beside accuracy and loss, each declared once; ours and those of users alike.

A metric is a function of class probabilities and true labels. Its values are recorded with a result and follow into
frames, CSV, JSON, MLflow and, where ``columns:`` of a sweep names it, the leaderboard. It is in no identity: a metric
that is added or edited makes no trial new, and ``stnbench store metrics`` computes it for trials that kept their
probabilities. Values of a metric from outside are stored with a digest of its code, so those of edited code are not
mistaken for its own.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from stnbench.core.errors import SpecError, UnknownNameError

KIND: Final = "metric"
"""What ``stnbench.register`` calls it."""

PERCENT: Final = "%"
"""The unit of shares in [0, 1], which people see in percent."""

Better = Literal["lower", "higher"]
Measure = Callable[[Any, Any], float]
"""From float64 (images, classes), whose rows add up to 1, and int64 (images,) to a number."""

_MARK: Final = "@"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A number of a result, on one split.

    Attributes:
        name: in files and columns.
        heading: for people; ``%`` as a unit is not part of it.
        unit: ``%`` for a share in [0, 1], which people see in percent; ``nats`` or the like; empty for a plain number.
        better: which values are better.
        text: what it is, in a sentence.
        compute: its function, or ``"module:name"`` of one of ours.
        digest: of the source, for one from outside.
    """

    name: str
    heading: str
    unit: str
    better: Better
    text: str
    compute: Measure | str
    digest: str = ""

    @property
    def key(self) -> str:
        """Its name where values are stored: with the digest of its code where it is from outside."""
        return f"{self.name}{_MARK}{self.digest[:8]}" if self.digest else self.name

    def function(self) -> Measure:
        """Return its function, imported."""
        if isinstance(self.compute, str):
            module, _, name = self.compute.partition(":")
            found: Measure = getattr(importlib.import_module(module), name)
            return found
        return self.compute


_METRICS: Final[dict[str, Metric]] = {}


def add_metric(metric: Metric) -> None:
    """Register a metric; the same one again takes the place of the first.

    Raises:
        SpecError: where the name is one of ours.
    """
    known = _METRICS.get(metric.name)
    if known is not None and not known.digest:
        raise SpecError(f"the metric {metric.name} is registered twice", remedy="stnbench has it: choose another name")
    if metric.better not in ("lower", "higher"):
        raise SpecError(f"the metric {metric.name} has better={metric.better!r}", remedy="say lower or higher")
    _METRICS[metric.name] = metric


def metrics() -> Mapping[str, Metric]:
    """Return every metric by name, those from outside loaded."""
    from stnbench.spec.parts import load_parts

    load_parts()
    return dict(sorted(_METRICS.items()))


def metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        UnknownNameError: where there is none.
    """
    known = _METRICS if name in _METRICS else metrics()
    if name not in known:
        raise UnknownNameError(KIND, name, known)
    return known[name]


def describe(name: str) -> Metric:
    """Return the metric of a name; of one that is not here any more, what its stored values tell: its name."""
    known = _METRICS if name in _METRICS else metrics()
    return known.get(name) or Metric(
        name=name, heading=name, unit="", better="lower", text="a metric that is not here", compute=_absent
    )


def measure(
    probabilities: Any,  # noqa: ANN401 - numpy arrays, which this layer does not import
    labels: Any,  # noqa: ANN401
    *,
    warn: Callable[[str], None],
    only: Mapping[str, Metric] | None = None,
) -> dict[str, float]:
    """Compute metrics of one split, by the keys of their stored values.

    A metric that fails, or gives no finite number, is left out and told of: no result is lost by it.

    Args:
        probabilities: (images, classes).
        labels: (images,).
        warn: told of what was left out.
        only: which metrics; all where it is None.
    """
    values: dict[str, float] = {}
    exact = probabilities.astype("float64")
    exact /= exact.sum(axis=1, keepdims=True)
    for item in (metrics() if only is None else only).values():
        try:
            value = float(item.function()(exact.copy(), labels.copy()))
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises, a trained network is not lost
            warn(f"the metric {item.name} is left out ({type(error).__name__}: {error})")
            continue
        if math.isfinite(value):
            values[item.key] = value
        else:
            warn(f"the metric {item.name} is left out: it is {value}")
    return values


def current(stored: Mapping[str, float]) -> dict[str, float]:
    """Return stored values by name: without those that another version of a metric's code has computed.

    Of a metric that is not here, the value is kept as it is.
    """
    values: dict[str, float] = {}
    for key, value in stored.items():
        name, mark, _ = key.partition(_MARK)
        known = _METRICS.get(name)
        if known is None and mark:
            known = metrics().get(name)
        if known is None or known.key == key:
            values[name] = value
    return values


def name_of(key: str) -> str:
    """Return the name of a metric from the key of its stored values."""
    return key.partition(_MARK)[0]


def missing(stored: Mapping[str, float]) -> dict[str, Metric]:
    """Return the metrics that stored values lack."""
    return {name: item for name, item in metrics().items() if item.key not in stored}


def _absent(probabilities: object, labels: object) -> float:
    del probabilities, labels
    return math.nan


for _item in (
    Metric(
        name="ece",
        heading="ECE",
        unit="%",
        better="lower",
        text="Expected calibration error: how far confidence and accuracy are apart, in the mean over 15 bins",
        compute="stnbench.analysis.calibration:expected_calibration_error",
    ),
    Metric(
        name="nll",
        heading="NLL",
        unit="nats",
        better="lower",
        text="Negative log-likelihood of the true class, from the probabilities as they are kept (16 bits)",
        compute="stnbench.analysis.calibration:negative_log_likelihood",
    ),
    Metric(
        name="worst_class_accuracy",
        heading="worst class",
        unit="%",
        better="higher",
        text="The lowest accuracy of any class that has images",
        compute="stnbench.analysis.calibration:worst_class_accuracy",
    ),
):
    add_metric(_item)
