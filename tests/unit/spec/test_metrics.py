"""Metrics: declared once, computed from probabilities, and stored so that edited code is never mistaken for its own."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stnbench
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec import metrics, parts
from stnbench.spec.metrics import current, describe, measure, measure_network, metric, missing

LABELS = np.array([0, 1, 1])
PROBABILITIES = np.array([[0.75, 0.25], [0.25, 0.75], [0.75, 0.25]], np.float16)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone afterwards."""
    monkeypatch.setattr(metrics, "_METRICS", dict(metrics._METRICS))
    monkeypatch.setattr(parts, "_loaded", set(parts._loaded))
    known = {*sys.modules}
    yield
    for name in {*sys.modules} - known:
        if name.startswith("stnbench_part_"):
            del sys.modules[name]


def fails(line: str) -> None:
    """Be told of nothing."""
    raise AssertionError(line)


def test_every_metric_says_what_it_is() -> None:
    """Name, heading, unit, direction and a sentence, each once; the shipped ones are these."""
    shipped = metrics.metrics()
    assert [*shipped] == ["ece", "energy_kwh", "mean_corruption_error", "nll", "worst_class_accuracy"]
    assert all(item.text and item.heading and item.better in {"lower", "higher"} for item in shipped.values())


def test_shipped_metrics_are_computed_from_kept_probabilities() -> None:
    """Of three images, the last is wrong with the same confidence."""
    values = measure(PROBABILITIES, LABELS, warn=fails)
    assert values == {
        "ece": pytest.approx(0.75 - 2 / 3),
        "nll": pytest.approx(-(2 * np.log(0.75) + np.log(0.25)) / 3),
        "worst_class_accuracy": 0.5,
    }


def test_a_metric_from_outside_is_one_function() -> None:
    """It gets rows that add up to 1 and cannot change what others get."""

    @stnbench.register("metric", "brier", unit="", better="lower")
    def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
        """Brier score.

        More of it.
        """
        assert probabilities.sum(axis=1) == pytest.approx(1)
        probabilities[np.arange(len(labels)), labels] -= 1
        return float((probabilities**2).sum(axis=1).mean())

    values = measure(PROBABILITIES, LABELS, warn=fails)

    assert metric("brier").text == "Brier score."
    assert current(values)["brier"] == pytest.approx((2 * 2 * 0.25**2 + 2 * 0.75**2) / 3)
    assert {key.partition("@")[0] for key in values} == {"brier", "ece", "nll", "worst_class_accuracy"}
    assert missing(values) == {}


def test_a_metric_that_needs_the_network_is_one_function_as_well() -> None:
    """It gets a classifier, images and labels, is not asked for with a result, and is missing until it is computed."""

    @stnbench.register("metric", "dark_error", needs="network")
    def dark_error(classify: Any, images: np.ndarray, labels: np.ndarray) -> float:
        """Error on images at half of their light."""
        return float((classify(images // 2).argmax(axis=1) != labels).mean())

    images = np.array([40, 160, 220], np.uint8).reshape(3, 1, 1, 1)
    known = metric("dark_error")

    def classify(shown: np.ndarray) -> np.ndarray:
        bright = shown[:, 0, 0, 0] > 100
        return np.stack([~bright, bright], axis=1).astype(float)

    found = measure_network(classify, images, LABELS, warn=fails, only={"dark_error": known, "ece": metric("ece")})

    assert found == {known.key: pytest.approx(1 / 3)}
    assert "dark_error" not in current(measure(PROBABILITIES, LABELS, warn=fails))
    assert "dark_error" in missing({}, "network")
    assert "dark_error" not in missing({})
    with pytest.raises(SpecError, match="needs='weights'"):
        stnbench.register("metric", "other", needs="weights")(dark_error)  # type: ignore[arg-type]


def test_values_of_edited_code_are_not_taken_for_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are missing then; those of a metric that is not here are kept as they are."""
    file = tmp_path / "mine.py"
    code = "import stnbench\n\n\n@stnbench.register('metric', 'mine')\ndef mine(p, y):\n    return {}\n"
    file.write_text(code.format("1.0"))
    monkeypatch.setenv(parts.VARIABLE, str(tmp_path))
    before = measure(PROBABILITIES, LABELS, warn=fails)
    assert current(before)["mine"] == 1.0

    file.write_text(code.format("2.0"))
    sys.modules.pop(metrics._METRICS["mine"].function().__module__)
    parts._loaded.discard(str(tmp_path))
    assert [*missing(before)] == ["mine"]
    assert "mine" not in current(before)
    assert current({"gone@01234567": 3.0}) == {"gone": 3.0}
    assert describe("gone").heading == "gone"


@pytest.mark.parametrize("body", ["raise ZeroDivisionError('by me')", "return float('nan')", "return 'much'"])
def test_a_metric_that_fails_costs_no_result(body: str) -> None:
    """It is left out, and told of; the others are there."""
    made: dict[str, object] = {}
    exec(f"def bad(p, y):\n    {body}\n", made)  # noqa: S102 - three bodies of one function
    stnbench.register("metric", "bad")(made["bad"])  # type: ignore[type-var]
    told: list[str] = []

    values = measure(PROBABILITIES, LABELS, warn=told.append)

    assert {"ece", "nll", "worst_class_accuracy"} == {*values}
    assert len(told) == 1
    assert "the metric bad is left out" in told[0]


def test_a_metric_of_ours_cannot_be_replaced() -> None:
    """Columns of one name mean one thing."""
    with pytest.raises(SpecError, match="the metric ece is registered twice"):
        stnbench.register("metric", "ece")(lambda p, y: 0.0)
    with pytest.raises(SpecError, match="better='more'"):
        stnbench.register("metric", "other", better="more")(lambda p, y: 0.0)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean ece"):
        metric("ecee")
