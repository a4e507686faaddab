"""Metrics of a result in addition to accuracy and loss, those of stnbench and those of users.

A metric is a function of class probabilities and true labels. Its values are recorded with a result and appear in
frames, CSV, JSON, MLflow and, if ``columns:`` of a sweep names it, the leaderboard. One that needs the network, such as
an error on corrupted images, is a function of a classifier, images and labels; it is computed after the training, for
the sweeps whose ``columns:`` name it. Metrics are part of no identity:
adding or editing one makes no trial new, and ``stnbench store metrics`` computes it for trials that kept their
probabilities. Values of an external metric are stored with a digest of its code, so that values of edited code are
not mistaken for its values.
"""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from stnbench.core.errors import SpecError, UnknownNameError

KIND: Final = "metric"
"""Kind of metrics in ``stnbench.register``."""

PERCENT: Final = "%"
"""Unit of shares in [0, 1], which are shown in percent."""

Better = Literal["lower", "higher"]
Needs = Literal["probabilities", "network", "meter"]
Measure = Callable[..., float]
"""Function to a number: from probabilities, float64 (images, classes) with rows that sum to 1, and labels, int64
(images,); or, if it needs the network, from a classifier, images, uint8 (images, channels, height, width), and labels.
The classifier is a function from such images, the same number of them, to probabilities."""

ENERGY: Final = "energy_kwh"
"""Name of the energy of a trial, and of an epoch, among the metrics of validation (``training/energy.py``)."""

_MARK: Final = "@"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric of one split of a result.

    Attributes:
        name: name in files and columns.
        heading: heading for readers, without the unit ``%``.
        unit: ``%`` for a share in [0, 1], which is shown in percent; ``nats`` or the like; empty for a plain number.
        better: which values are better.
        text: description in a sentence.
        compute: the function, or ``"module:name"`` for a metric of stnbench.
        needs: the input of the metric; a ``meter`` measures it while the trial runs.
        digest: digest of the source of an external metric; empty otherwise.
    """

    name: str
    heading: str
    unit: str
    better: Better
    text: str
    compute: Measure | str
    needs: Needs = "probabilities"
    digest: str = ""

    @property
    def key(self) -> str:
        """Return the key of stored values: the name, with the digest of the code for an external metric."""
        return f"{self.name}{_MARK}{self.digest[:8]}" if self.digest else self.name

    def function(self) -> Measure:
        """Import and return the function."""
        if isinstance(self.compute, str):
            module, _, name = self.compute.partition(":")
            found: Measure = getattr(importlib.import_module(module), name)
            return found
        return self.compute


_FROM_OUTSIDE: Final = ("probabilities", "network")
"""Inputs of a metric that a user registers; stnbench alone reads meters."""

_METRICS: Final[dict[str, Metric]] = {}


def add_metric(metric: Metric) -> None:
    """Register a metric; an external metric of the same name is replaced.

    Raises:
        SpecError: if the name is that of a metric of stnbench, or ``better`` is invalid.
    """
    known = _METRICS.get(metric.name)
    if known is not None and not known.digest:
        raise SpecError(f"the metric {metric.name} is registered twice", remedy="stnbench has it: choose another name")
    if metric.better not in ("lower", "higher"):
        raise SpecError(f"the metric {metric.name} has better={metric.better!r}", remedy="say lower or higher")
    if metric.needs not in (_FROM_OUTSIDE if metric.digest else get_args(Needs)):
        problem = f"the metric {metric.name} has needs={metric.needs!r}"
        raise SpecError(problem, remedy="say probabilities or network")
    _METRICS[metric.name] = metric


def metrics() -> Mapping[str, Metric]:
    """Return all metrics by name, after loading external ones."""
    from stnbench.spec.parts import load_parts

    load_parts()
    return dict(sorted(_METRICS.items()))


def metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        UnknownNameError: if there is none.
    """
    known = _METRICS if name in _METRICS else metrics()
    if name not in known:
        raise UnknownNameError(KIND, name, known)
    return known[name]


def describe(name: str) -> Metric:
    """Return the metric of a name; for one that no longer exists, a placeholder with its name."""
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
    """Compute metrics of one split and return them by the keys of their stored values.

    A metric that fails or is not finite is left out with a warning, so that no result is lost.

    Args:
        probabilities: class probabilities, (images, classes); rows are normalised to a sum of 1.
        labels: true labels, (images,).
        warn: called with a message for each metric that is left out.
        only: the metrics; None for all.
    """
    exact = probabilities.astype("float64")
    exact /= exact.sum(axis=1, keepdims=True)
    chosen = [item for item in (metrics() if only is None else only).values() if item.needs == "probabilities"]
    return _measured(chosen, lambda: (exact.copy(), labels.copy()), warn)


def measure_network(
    classify: Callable[[Any], Any],
    images: Any,  # noqa: ANN401
    labels: Any,  # noqa: ANN401
    *,
    warn: Callable[[str], None],
    only: Mapping[str, Metric],
) -> dict[str, float]:
    """Compute the metrics of one split that need the network, and return them as ``measure`` does.

    Args:
        classify: function from images, as many and in the same order, to class probabilities (images, classes).
        images: the images of the split, uint8 (images, channels, height, width).
        labels: true labels, (images,).
        warn: called with a message for each metric that is left out.
        only: the metrics, of which those that need probabilities alone are passed over.
    """
    chosen = [item for item in only.values() if item.needs == "network"]
    return _measured(chosen, lambda: (classify, images.copy(), labels.copy()), warn)


def _measured(
    chosen: Iterable[Metric], arguments: Callable[[], tuple[Any, ...]], warn: Callable[[str], None]
) -> dict[str, float]:
    values: dict[str, float] = {}
    for item in chosen:
        try:
            value = float(item.function()(*arguments()))
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises, a trained network is not lost
            warn(f"the metric {item.name} is left out ({type(error).__name__}: {error})")
            continue
        if math.isfinite(value):
            values[item.key] = value
        else:
            warn(f"the metric {item.name} is left out: it is {value}")
    return values


def current(stored: Mapping[str, float]) -> dict[str, float]:
    """Return stored values by name, without those that another version of a metric's code has computed.

    The values of a metric that does not exist here are kept.
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


def of_the_trial(stored: Mapping[str, float]) -> dict[str, float]:
    """Return stored values without those of meters, which describe a run: the same trial has others each time."""
    return {key: value for key, value in stored.items() if describe(name_of(key)).needs != "meter"}


def name_of(key: str) -> str:
    """Return the name of a metric from the key of its stored values."""
    return key.partition(_MARK)[0]


def missing(stored: Mapping[str, float], needs: Needs = "probabilities") -> dict[str, Metric]:
    """Return the metrics that stored values lack, of those that need the same."""
    return {name: item for name, item in metrics().items() if item.needs == needs and item.key not in stored}


def _absent(*_arguments: object) -> float:
    return math.nan


for _item in (
    Metric(
        name="ece",
        heading="ECE",
        unit="%",
        better="lower",
        text="Expected calibration error: how far confidence and accuracy are apart, in the mean over 15 bins",
        compute="stnbench.analysis.ensembles:expected_calibration_error",
    ),
    Metric(
        name="nll",
        heading="NLL",
        unit="nats",
        better="lower",
        text="Negative log-likelihood of the true class, from the probabilities as they are kept (16 bits)",
        compute="stnbench.analysis.ensembles:negative_log_likelihood",
    ),
    Metric(
        name="worst_class_accuracy",
        heading="worst class",
        unit="%",
        better="higher",
        text="The lowest accuracy of any class that has images",
        compute="stnbench.analysis.ensembles:worst_class_accuracy",
    ),
    Metric(
        name="mean_corruption_error",
        heading="mCE, unnormalised",
        unit="%",
        better="lower",
        text="Error on images corrupted in 12 ways at 5 severities, in the mean, not divided by that of a reference",
        compute="stnbench.data.corruptions:unnormalised_error",
        needs="network",
    ),
    Metric(
        name=ENERGY,
        heading="energy",
        unit="kWh",
        better="lower",
        text="Energy of the training and its evaluations: the trial's share of its GPU and of the machine's processors",
        compute=_absent,
        needs="meter",
    ),
):
    add_metric(_item)
