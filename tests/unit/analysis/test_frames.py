"""A sweep as pandas frames."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_results import IMAGES, NOW, Filler, planned, result, transformed

from stnbench.analysis.frames import (
    ATTEMPT_COLUMNS,
    EPOCH_COLUMNS,
    HEALTH_COLUMNS,
    IMAGE_COLUMNS,
    PREDICTION_COLUMNS,
    TRIAL_COLUMNS,
    epochs_frame,
    read_predictions,
    read_specs,
    read_sweep,
    read_trials,
    trials_frame,
)
from stnbench.core.errors import StnbenchError, UnknownNameError
from stnbench.report.leaderboard import build_leaderboard
from stnbench.spec.data import AllSplitSpec
from stnbench.spec.result import EpochRecord, Failure, FailureKind, ScoredImages, TrialState, Verdict
from stnbench.spec.trial import TrialSpec
from stnbench.store.queries import StoreReader
from stnbench.store.store import Store
from stnbench.store.tables import AttemptEpoch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def test_one_row_a_trial_in_the_order_of_the_sweep(store: Store, sizes: list[TrialSpec]) -> None:
    """Every trial is a row, complete or not, with the documented columns and its axes."""
    frame = read_trials("sizes", store=store)
    assert list(frame["trial_id"]) == [spec.trial_id for spec in sizes]
    assert list(frame.columns) == [*TRIAL_COLUMNS, "axis:locnet1.sizes"]
    assert {name: str(kind) for name, kind in frame.dtypes.items() if name in TRIAL_COLUMNS} == TRIAL_COLUMNS


def test_complete_trial_has_its_scores_and_cost(store: Store, sizes: list[TrialSpec]) -> None:
    """Scores are shares with their counts, epochs are averaged, environments are told."""
    row = read_trials("sizes", store=store).set_index("trial_id").loc[sizes[2].trial_id]
    assert (row["state"], row["attempts"], row["seed"]) == ("complete", 1, 1)
    assert (row["validation_correct"], row["validation_images"]) == (1850, IMAGES)
    assert row["validation_accuracy"] == 1850 / IMAGES
    assert row["test_accuracy"] == 1795 / IMAGES
    assert (row["epochs"], row["epoch_duration_s"], row["train_duration_s"]) == (10, 2.0, 20.0)
    assert (row["parameters"], row["flops"], row["peak_memory_mib"]) == (1_240_000, 38_200_000, 512.0)
    assert row["versions"] == "numpy 2.1.0, torch 2.7.0"
    assert row["axis:locnet1.sizes"] == "10,10,10"


def test_failed_trial_says_why_and_has_no_score(store: Store, sizes: list[TrialSpec]) -> None:
    """A failure is a row; its numbers are missing, never 0."""
    row = read_trials("sizes", store=store).set_index("trial_id").loc[sizes[-1].trial_id]
    assert (row["state"], row["failure_kind"]) == ("failed", "diverged")
    assert row["failure_message"] == "the loss is nan\nat step 7"
    numbers = ["validation_accuracy", "validation_correct", "test_accuracy", "parameters", "epoch_duration_s"]
    assert row[numbers].isna().all()


def test_images_that_were_trained_on_are_no_score(store: Store) -> None:
    """A trial that holds nothing out has its cost and its test score, no validation score and no rank."""
    final = replace(transformed(20), split=AllSplitSpec())
    filler = Filler(store).save([planned(spec) for spec in (transformed(10), final)])
    filler.complete(transformed(10), 1700)
    filler.complete(final, IMAGES, test=1800)
    frames = read_sweep("sizes", store=store)
    row = frames.trials.set_index("trial_id").loc[final.trial_id]
    assert row[["validation_accuracy", "validation_correct", "validation_loss", "validation_image_set"]].isna().all()
    assert (row["test_correct"], row["state"]) == (1800, "complete")
    last = build_leaderboard(frames.spec, frames.trials).rows[-1]
    assert (last.config_id, last.rank, last.notes) == (final.config_id, "", ("no score on this split",))


def test_baselines_are_found_by_configuration(store: Store, sizes: list[TrialSpec]) -> None:
    """The configuration of the baseline is that of a trial without transformers, for which it is its own."""
    frame = read_trials("sizes", store=store)
    assert set(frame["baseline_cell_id"]) == {sizes[0].config_id}
    assert list(frame["is_baseline"]) == [True, True, *[False] * 6]


def test_no_trials_make_an_empty_frame_with_all_columns() -> None:
    """A sweep without trials has the same columns."""
    frame = trials_frame([], {})
    assert (len(frame), list(frame.columns)) == (0, list(TRIAL_COLUMNS))


def test_every_epoch_is_a_row(store: Store, sizes: list[TrialSpec]) -> None:
    """Seven complete trials of ten epochs each."""
    frame = read_sweep("sizes", store=store).epochs
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == EPOCH_COLUMNS
    assert len(frame) == 70
    assert list(frame[frame["trial_id"] == sizes[0].trial_id]["epoch"]) == list(range(1, 11))


def test_metrics_of_epochs_are_columns() -> None:
    """Those that an epoch lacks are missing, and those of edited code are left out."""
    record = EpochRecord(
        epoch=1, step=2, train_loss=1.0, validation_loss=1.0, validation_accuracy=0.5, learning_rate=0.1,
        train_duration_s=1.0, evaluate_duration_s=1.0,
    )  # fmt: skip
    later = replace(record, epoch=2, metrics={"ece": 0.25, "ece@00000000": 0.5, "gone@12345678": 3.0})
    frame = epochs_frame({"t": [AttemptEpoch(attempt=1, record=one) for one in (record, later)]})

    assert list(frame.columns) == [*EPOCH_COLUMNS, "validation_metric:ece", "validation_metric:gone"]
    assert frame["validation_metric:ece"].tolist()[1] == 0.25
    assert frame["validation_metric:ece"].isna().tolist() == [True, False]


def test_health_has_a_row_for_every_transformer(store: Store, sizes: list[TrialSpec]) -> None:
    """BaselineChoice have no transformer, so five complete trials of one transformer and ten epochs are left."""
    frame = read_sweep("sizes", store=store).health
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == HEALTH_COLUMNS
    assert len(frame) == 50
    assert set(frame["outside_share"]) == {0.25}
    assert not set(frame["trial_id"]) & {sizes[0].trial_id, sizes[1].trial_id}


def test_every_attempt_is_a_row(store: Store) -> None:
    """A trial that failed, was tried again and runs has two attempts; the running one has no end."""
    spec = transformed(1)
    filler = Filler(store).save([planned(spec)])
    filler.fail(spec, Failure(kind=FailureKind.KILLED, message="gone"), state=TrialState.PLANNED)
    filler.start(spec)
    frame = read_sweep("sizes", store=store).attempts
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == ATTEMPT_COLUMNS
    assert list(frame["state"]) == ["failed", "running"]
    assert list(frame["duration_s"].fillna(-1)) == [5.0, -1]
    assert frame["started_at"].iloc[0].to_pydatetime() == NOW
    assert list(frame["failure_kind"]) == ["killed", None]


def test_a_trial_is_as_healthy_as_its_last_epoch(store: Store) -> None:
    """Complete, pruned or diverged, it has a verdict; without a transformer, or before the first epoch, it has none."""
    fine, bad, ended, diverged, planned_only = (transformed(size) for size in (1, 2, 3, 4, 5))
    baseline = fine.baseline()
    filler = Filler(store).save([planned(spec) for spec in (baseline, fine, bad, ended, diverged, planned_only)])
    filler.complete(baseline, 1000)
    filler.complete(fine, 1000, verdict=Verdict.HEALTHY)
    filler.complete(bad, 1000, verdict=Verdict.CONSTANT)
    filler.prune(ended, Verdict.COLLAPSED)
    filler.fail(diverged, Failure(kind=FailureKind.DIVERGED, message="nan"))
    found = read_trials("sizes", store=store).set_index("trial_id")["health"]
    expected = {fine: "healthy", bad: "constant", ended: "collapsed", diverged: "diverged"}
    assert {spec: found[spec.trial_id] for spec in expected} == expected
    assert {found[spec.trial_id] for spec in (baseline, planned_only)} == {None}


def test_verdicts_are_plain_words_by_epoch(store: Store) -> None:
    """A column that pandas can count and filter; numbers of older records are missing."""
    spec = transformed(1)
    Filler(store).save([planned(spec)]).complete(spec, 1000, verdict=Verdict.COLLAPSED)
    frame = read_sweep("sizes", store=store).health
    assert list(frame["verdict"]) == ["healthy"] * 9 + ["collapsed"]
    assert {type(verdict) for verdict in frame["verdict"]} == {str}
    assert frame["movement"].isna().all()


def scored(filler: Filler, spec: TrialSpec, said: tuple[int, ...], images: ScoredImages | None) -> None:
    """Complete a trial that said this of these validation images."""
    token = filler.start(spec)
    made = result(spec, token, 0)
    right = sum(a == b for a, b in zip(said, images.labels if images else said, strict=True))
    score = replace(made.validation, images=len(said), correct=right, predictions=said, scored=images)
    filler.store.complete_attempt(token, replace(made, validation=score), NOW)


@pytest.fixture
def three(store: Store) -> list[TrialSpec]:
    """Two trials scored on the same three images, and one by an older version, which kept no true labels."""
    specs = [transformed(size) for size in (1, 2, 3)]
    filler = Filler(store).save([planned(spec) for spec in specs])
    images = ScoredImages(labels=(5, 300, 7), tracks=(4, 4, 9), rows=(10, 11, 20))
    scored(filler, specs[0], (5, 300, 8), images)
    scored(filler, specs[1], (5, 299, 7), images)
    scored(filler, specs[2], (1, 2), None)
    return specs


def test_every_answer_is_a_row(store: Store, three: list[TrialSpec]) -> None:
    """By trial and image, with the truth where it is known; missing is neither right nor wrong."""
    frame = read_sweep("sizes", store=store).predictions("validation")
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == PREDICTION_COLUMNS
    assert list(frame["trial_id"]) == [
        spec.trial_id for spec, count in zip(three, (3, 3, 2), strict=True) for _ in range(count)
    ]
    assert list(frame["image"]) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert list(frame["prediction"]) == [5, 300, 8, 5, 299, 7, 1, 2]
    assert list(frame["label"].fillna(0)) == [5, 300, 7, 5, 300, 7, 0, 0]
    assert list(frame["correct"].iloc[:6]) == [True, True, False, True, False, True]
    assert frame["correct"].iloc[6:].isna().all()


def test_answers_can_be_asked_of_some_trials(store: Store, three: list[TrialSpec]) -> None:
    """The frame of all may be large; of none, and of a split that nobody was scored on, it is empty."""
    frame = read_predictions("sizes", "validation", [three[1].trial_id], store=store)
    assert list(frame["prediction"]) == [5, 299, 7]
    for empty in (
        read_predictions("sizes", "validation", [], store=store),
        read_predictions("sizes", "test", store=store),
    ):
        assert (len(empty), {name: str(kind) for name, kind in empty.dtypes.items()}) == (0, PREDICTION_COLUMNS)


def test_images_say_where_they_are_in_their_data_set(store: Store, three: list[TrialSpec]) -> None:
    """One row an image and set; trials scored on it name the set, and older scores name none."""
    sweep = read_sweep("sizes", store=store)
    assert {name: str(kind) for name, kind in sweep.images.dtypes.items()} == IMAGE_COLUMNS
    assert sweep.images[["image", "row", "track", "label"]].to_numpy().tolist() == [
        [0, 10, 4, 5],
        [1, 11, 4, 300],
        [2, 20, 9, 7],
    ]
    sets = sweep.trials.set_index("trial_id")["validation_image_set"]
    assert set(sets[[spec.trial_id for spec in three[:2]]]) == set(sweep.images["image_set"])
    assert sets[three[2].trial_id] is None
    assert sweep.specs == {spec.trial_id: spec for spec in three}


def test_a_sweep_is_read_from_where_the_environment_says(
    store: Store, three: list[TrialSpec], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a store at hand, and predictions later as well; an unknown name offers the nearest."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    monkeypatch.delenv("STNBENCH_STORE", raising=False)
    sweep = read_sweep("sizes")
    assert list(sweep.trials["trial_id"]) == [spec.trial_id for spec in three]
    assert len(sweep.predictions()) == 8
    assert sweep.spec == store.sweeps()[0].spec == read_specs()["sizes"]
    with pytest.raises(UnknownNameError, match="sizes"):
        read_sweep("size")


def test_where_no_store_is_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook in the wrong folder is told so."""
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path / "runs"))
    with pytest.raises(StnbenchError):
        read_sweep("sizes")
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_readme_runs(store: Store, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader gets a layer, accuracies by configuration, and how often each image is recognised."""
    [example] = re.findall(r"```python\n(import stnbench\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    filler = Filler(store, "locnet_sizes").save([planned(transformed(1)), planned(transformed(2))])
    images = ScoredImages(labels=(5, 6))
    scored(filler, transformed(1), (5, 6), images)
    scored(filler, transformed(2), (5, 0), images)
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    names: dict[str, object] = {}
    exec(example, names)  # noqa: S102 - the README's own lines
    assert names["accuracies"].to_dict("index") == {  # type: ignore[attr-defined]
        "1,1,1": {"mean": 1.0, "count": 1},
        "2,2,2": {"mean": 0.5, "count": 1},
    }
    assert list(names["recognised"]) == [1.0, 0.5]  # type: ignore[call-overload]


def test_the_report_reads_the_store_through_frames_alone() -> None:
    """What a report says, a notebook can say: no other module asks the store anything.

    Ensembles do, whose members come from several sweeps and by single trials; and ``runs``, which status needs without
    pandas, of trials and attempts alone. Exports, metrics that are computed afterwards, differences, and comparisons
    with another store are of single trials, too.
    """
    questions = {name for name in vars(StoreReader) if not name.startswith("_")}
    single = {"ensemble.py", "runs.py", "exports.py", "trials.py", "scored.py", "against.py"}
    asked = [
        f"{path.name}: {node.func.attr}"
        for path in sorted((ROOT / "src/stnbench/report").rglob("*.py"))
        if path.name != "frames.py" and path.name not in single
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in questions and isinstance(node.func.value, ast.Name)
        if node.func.value.id in {"store", "reader"}
    ]
    assert asked == []
