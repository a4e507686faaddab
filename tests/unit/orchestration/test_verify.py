"""Complete trials are trained again and compared bit for bit, and the store is only read."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_trials import Task, fake_result, fake_spec, run_fake_trial
from hypothesis import given
from hypothesis import strategies as st
from tiny_sweeps import SLOT, SWEEP, TRIALS, all_rows, opened, run_tiny, without_training

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.engines import Slot
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration.verify import (
    Check,
    Recorded,
    accuracy_gap_pp,
    check,
    choose,
    differences,
    read_recorded,
    repeats,
    report_json,
    report_lines,
    require_some,
    scratch_folder,
    train_again,
)
from stnbench.spec.codec import to_plain
from stnbench.spec.result import TrialResult
from stnbench.spec.transformer import PlacedTransformerSpec
from stnbench.trials.files import write_probabilities, write_result

pytestmark = pytest.mark.slow

Change = Callable[[TrialResult], TrialResult]


def same(result: TrialResult) -> TrialResult:
    """As it was."""
    return result


def trial_that(change: Change, shift: float = 0.0) -> Callable[..., TrialResult | None]:
    """A fake trial with probabilities, whose result is changed before it is written."""

    def run(spec: Any, *, folder: Path, token: str, **named: Any) -> TrialResult | None:
        run_fake_trial(spec, folder=folder, token=token, **named)
        result = change(fake_result(spec, token))
        shares = np.tile(np.array([0.75, 0.25], np.float16), (result.validation.images, 1))
        shares[0] += np.array([shift, -shift], np.float16)
        write_probabilities(folder, "validation", shares)
        write_result(folder, result)
        return result

    return run


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> RunsLayout:
    """A runs folder with the tiny sweep, complete; verifying only reads it."""
    runs = RunsLayout(tmp_path_factory.mktemp("verified") / "runs")
    with pytest.MonkeyPatch.context() as patch:
        without_training(patch, trial_that(same))
        run_tiny(runs)
    return runs


def verified(layout: RunsLayout, scratch: Path, count: int = 4, *, tolerance_pp: float | None = None) -> list[Check]:
    """Verify the tiny sweep in this process."""
    with opened(layout) as store:
        recorded, _ = read_recorded(store, SWEEP.name, layout)
    scratch.mkdir()
    chosen = choose(recorded, count, seed=0)
    slots: list[Slot] = []

    def open_engine(wanted: Sequence[Slot]) -> InlineEngine:
        slots.extend(wanted)
        return InlineEngine(SLOT)

    trained = train_again(
        chosen, open_engine=open_engine, gpus=(), cores=1, scratch=scratch, data_root=scratch, source=None
    )
    checks = [
        check(item, again, scratch_folder(scratch, item.record.trial_id), tolerance_pp=tolerance_pp)
        for item, again in trained
    ]
    assert {(slot.device, slot.threads) for slot in slots} == {("cpu", 1)}
    return checks


def faster(result: TrialResult) -> TrialResult:
    """The same numbers, sooner and on another machine of the kind."""
    epochs = tuple(dataclasses.replace(epoch, train_duration_s=9.0) for epoch in result.epochs)
    environment = dataclasses.replace(result.environment, host="elsewhere")
    return dataclasses.replace(result, epochs=epochs, environment=environment, peak_memory_mib=1.0)


@pytest.mark.parametrize("change", [same, faster])
def test_what_repeats_is_equal_and_the_store_stays(
    change: Change, layout: RunsLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times, memory and the host are of a run; every row of the store and every file of the trials stays."""
    before = all_rows(layout)
    files = {path: path.read_bytes() for path in layout.trials.rglob("*") if path.is_file()}
    without_training(monkeypatch, trial_that(change))
    checks = verified(layout, tmp_path / "scratch")

    assert [item.status for item in checks] == ["equal"] * 4
    assert "probabilities" in checks[0].compared
    assert all_rows(layout) == before
    assert {path: path.read_bytes() for path in layout.trials.rglob("*") if path.is_file()} == files
    facts: dict[str, Any] = {"of": 4, "seed": 0, "foreign": 0}
    assert "all reproduced" in "\n".join(report_lines("tiny", checks, **facts))
    assert report_json("tiny", checks, **facts)["reproduced"] is True


def nudged(result: TrialResult) -> TrialResult:
    """One loss in its last digits."""
    epoch = dataclasses.replace(result.epochs[0], train_loss=result.epochs[0].train_loss + 1e-12)
    return dataclasses.replace(result, epochs=(epoch, *result.epochs[1:]))


def otherwise(result: TrialResult) -> TrialResult:
    """One image is taken for another class, as often correctly."""
    predictions = (1, *result.validation.predictions[1:])
    return dataclasses.replace(result, validation=dataclasses.replace(result.validation, predictions=predictions))


def rechecked(result: TrialResult) -> TrialResult:
    """Other images were read."""
    environment = dataclasses.replace(result.environment, dataset_digest="train fake1, test other")
    return dataclasses.replace(result, environment=environment)


def untested(result: TrialResult) -> TrialResult:
    """No test images are here."""
    return dataclasses.replace(result, test=None)


DIFFERENT = [
    (nudged, 0.0, "epochs[1].train_loss 1 was 1 (+1e-12)"),
    (otherwise, 0.0, "validation.predictions: 1 of 1,000 are others"),
    (rechecked, 0.0, "its test images were others (digest fake2, now other)"),
    (untested, 0.0, "test None was {"),
    (same, 2**-11, "validation probabilities differ by up to 0.00049"),
]


@pytest.mark.parametrize(("change", "shift", "told"), DIFFERENT, ids=lambda item: str(item)[:20])
def test_every_difference_is_told_with_both_environments(
    change: Change, shift: float, told: str, layout: RunsLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small: the last bits of a loss, one prediction, one probability, other images."""
    without_training(monkeypatch, trial_that(change, shift))
    (found,) = verified(layout, tmp_path / "scratch", 1)
    text = "\n".join(report_lines("tiny", [found], of=4, seed=0, foreign=0))

    assert found.status == "different"
    assert told in text
    assert "1 trial NOT REPRODUCED" in text
    assert "then: commit 000000000000" in text
    assert "now:  commit 000000000000" in text


def test_a_trial_that_fails_now_is_not_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is the difference."""
    layout = RunsLayout(tmp_path / "runs")
    without_training(monkeypatch)
    run_tiny(layout)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("not any more")

    without_training(monkeypatch, fail)
    (found,) = verified(layout, tmp_path / "scratch", 1)
    assert (found.status, found.differences) == ("failed", ("bug: ZeroDivisionError: not any more",))


def on_device(name: str, change: Change = same) -> Change:
    """A result computed on another device."""

    def move(result: TrialResult) -> TrialResult:
        changed = change(result)
        return dataclasses.replace(changed, environment=dataclasses.replace(changed.environment, device=name))

    return move


def worse_by(images: int) -> Change:
    """So many of 1,000 images more are wrong."""

    def change(result: TrialResult) -> TrialResult:
        score = dataclasses.replace(result.validation, correct=result.validation.correct - images)
        return dataclasses.replace(result, validation=score)

    return change


@pytest.mark.parametrize(
    ("change", "tolerance_pp", "status"),
    [
        (on_device("other"), None, "equal"),
        (on_device("other", nudged), None, "close"),
        (on_device("other", worse_by(20)), None, "close"),
        (on_device("other", worse_by(21)), None, "different"),
        (on_device("other", worse_by(21)), 2.5, "close"),
        (on_device("other", untested), None, "different"),
        (on_device("other", rechecked), 50.0, "different"),
        (worse_by(1), None, "different"),
        (worse_by(1), 0.2, "close"),
    ],
)
def test_another_device_has_a_tolerance(
    change: Change,
    tolerance_pp: float | None,
    status: str,
    layout: RunsLayout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two percentage points of accuracy, or what a person says; the same device has none."""
    without_training(monkeypatch, trial_that(change))
    (found,) = verified(layout, tmp_path / "scratch", 1, tolerance_pp=tolerance_pp)
    assert found.status == status


def test_bits_are_asked_for_where_nothing_adds_in_any_order() -> None:
    """On a CPU always; on a GPU only where no transformer reads feature maps."""
    spec = fake_spec(Task.FINISH)
    on_image = dataclasses.replace(spec, transformers=(PlacedTransformerSpec(place=1),))
    on_features = dataclasses.replace(spec, transformers=(PlacedTransformerSpec(place=2),))
    cpu = fake_result(spec, "t").environment
    gpu = dataclasses.replace(cpu, device="NVIDIA H200", driver="580.1")

    assert all(repeats(item, cpu, cpu) for item in (spec, on_image, on_features))
    assert [repeats(item, gpu, gpu) for item in (spec, on_image, on_features)] == [True, True, False]
    assert not repeats(spec, cpu, gpu)


def recorded_trials(layout: RunsLayout) -> list[Recorded]:
    """What there is to choose from in the tiny sweep."""
    with opened(layout) as store:
        return read_recorded(store, SWEEP.name, layout)[0]


def test_trials_are_chosen_by_the_seed_from_as_many_configurations_as_there_are(layout: RunsLayout) -> None:
    """The same seed chooses the same, others choose others in time, and two trials are of two configurations."""
    trials = recorded_trials(layout)

    def ids(count: int, seed: int) -> list[str]:
        return [item.record.trial_id for item in choose(trials, count, seed=seed)]

    assert ids(2, 1) == [item.record.trial_id for item in choose(trials[::-1], 2, seed=1)]
    assert len({tuple(ids(2, seed)) for seed in range(20)}) > 1
    for seed in range(10):
        assert len({item.record.config_id for item in choose(trials, 2, seed=seed)}) == 2
    assert ids(9, 3) == [item.record.trial_id for item in trials]


def test_what_cannot_be_verified_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that was never run, and one without a complete trial of this version."""
    layout = RunsLayout(tmp_path / "runs")
    without_training(monkeypatch)
    run_tiny(layout, (fake_spec(Task.FAIL),))
    with opened(layout) as store:
        with pytest.raises(UnknownNameError):
            read_recorded(store, "nothing", layout)
        recorded, foreign = read_recorded(store, SWEEP.name, layout)
    with pytest.raises(SpecError, match="no complete trial to verify: run the sweep first"):
        require_some(recorded, foreign, SWEEP.name)


def test_trials_of_another_results_version_are_left_out_and_counted(
    layout: RunsLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their words mean another trial now."""
    monkeypatch.setattr("stnbench.spec.trial.RESULTS_VERSION", 99)
    with opened(layout) as store:
        recorded, foreign = read_recorded(store, SWEEP.name, layout)
    assert (recorded, foreign) == ([], len(TRIALS))


@given(st.recursive(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_equal_values_have_no_difference(value: Any) -> None:
    """Whatever they are; keys that one side alone has are no change, as are those of a run."""
    assert list(differences({"a": value, "token": 1}, {"a": value, "token": 2, "new": 3})) == []


def test_files_that_differ_in_their_durations_alone_have_no_difference(tmp_path: Path) -> None:
    """As read without the code here: the digest at the end of a ``result.json`` covers facts of the run."""
    texts = []
    for name, duration_s in (("before", 1.0), ("after", 2.0)):
        (tmp_path / name).mkdir()
        result = dataclasses.replace(fake_result(TRIALS[0], name), peak_memory_mib=duration_s)
        write_result(tmp_path / name, result)
        texts.append(json.loads((tmp_path / name / "result.json").read_text()))
    assert texts[0]["sha256"] != texts[1]["sha256"]
    assert list(differences(*texts)) == []


def test_a_difference_names_its_place() -> None:
    """The path of the key, the epoch counted from 1, and how large it is."""
    before = to_plain(fake_result(TRIALS[0], "a"))
    after = to_plain(fake_result(TRIALS[0], "b"))
    after["epochs"][0]["validation_accuracy"] += 0.25  # type: ignore[index,call-overload,operator]
    after["cost"]["parameters"] = 7  # type: ignore[index,call-overload]
    found = [str(item) for item in differences(before, after)]
    assert len(found) == 2
    assert found[0].startswith("epochs[1].validation_accuracy")
    assert found[0].endswith("(+0.25)")
    assert found[1] == "cost.parameters 7 was 1000"
    shorter = after | {"epochs": []}
    assert "number of epochs 0 was 1" in [str(item) for item in differences(before, shorter)]


def test_the_gap_is_that_of_the_split_that_differs_most() -> None:
    """In percentage points."""
    one = fake_result(TRIALS[0], "a")
    assert accuracy_gap_pp(one, one) == 0
    assert accuracy_gap_pp(one, worse_by(30)(one)) == pytest.approx(3.0)
    assert accuracy_gap_pp(one, untested(one)) == float("inf")
