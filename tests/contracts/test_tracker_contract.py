"""Trackers show what they are told, as often as they are told, and MLflow then holds exactly that."""

import contextlib
import dataclasses
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stnbench.spec.codec import from_json
from stnbench.spec.result import (
    AttemptState,
    Cost,
    Environment,
    EpochRecord,
    Failure,
    FailureKind,
    SplitScore,
    TransformerHealth,
)
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.transformer import PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.tracking import AttemptView, ConfigurationView, Picture, Tracker
from stnbench.tracking.mlflow import MlflowTracker, saved_views
from stnbench.tracking.mlflow_server import initialise

# MLflow 3.17 uses what SQLAlchemy 2.1 calls deprecated, once, when its store is imported.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

SWEEP = SweepSpec(name="locnet_sizes", question="How large must a localisation network be?")
OTHER = dataclasses.replace(SWEEP, name="networks")
COST = Cost(parameters=1000, flops=2000, activation_bytes=3000)
COMMIT = "c0ffee" * 6 + "c0de"
ENVIRONMENT = Environment(
    commit=COMMIT,
    dirty=False,
    python="3.11",
    platform="Linux",
    host="box",
    device="cpu",
    threads=2,
    versions=(("torch", "2.7"),),
    dataset_digest="train d1, test d2",
)


def epoch(number: int) -> EpochRecord:
    """One epoch of two seconds; its accuracy is a tenth of its number."""
    health = TransformerHealth(
        place=1,
        theta_mean=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        theta_std=(0.5,) * 6,
        outside_share=0.125,
        identity_distance=0.25,
        determinant_mean=0.75,
    )
    return EpochRecord(
        epoch=number,
        step=number * 400,
        train_loss=1 / number,
        validation_loss=0.5,
        validation_accuracy=number / 10,
        learning_rate=0.01,
        train_duration_s=1.5,
        evaluate_duration_s=0.5,
        health=(health,),
    )


def running(named: str = "first", *, epochs: int = 0, seed: int = 1, number: int = 1) -> AttemptView:
    """An attempt at work."""
    spec = TrialSpec(transformers=(PlacedTransformerSpec(place=1),), seed=seed)
    return AttemptView(
        sweep=SWEEP.name,
        trial_id=spec.trial_id,
        config_id=spec.config_id,
        label="size 20",
        axes=(("size", "20"),),
        is_baseline=False,
        spec=spec,
        number=number,
        token=named,
        state=AttemptState.RUNNING,
        started_at_ms=1_000_000,
        finished_at_ms=None,
        epochs=tuple(epoch(done) for done in range(1, epochs + 1)),
    )


def complete(named: str = "first", *, epochs: int = 3, seed: int = 1, number: int = 1) -> AttemptView:
    """An attempt with its result."""
    return dataclasses.replace(
        running(named, epochs=epochs, seed=seed, number=number),
        state=AttemptState.COMPLETE,
        finished_at_ms=1_010_000,
        validation=SplitScore(split="validation", images=10, correct=9, loss=0.25, predictions=(1,) * 10),
        test=SplitScore(split="test", images=5, correct=4, loss=0.5, predictions=(1,) * 5),
        cost=COST,
        environment=ENVIRONMENT,
    )


def ended(state: AttemptState, failure: Failure | None = None) -> AttemptView:
    """An attempt that ended without a result."""
    return dataclasses.replace(running(epochs=2), state=state, finished_at_ms=1_010_000, failure=failure)


def config(
    *, seeds: int = 2, mean: float = 0.5, low: float | None = 0.25, high: float | None = 0.75
) -> ConfigurationView:
    """The summary of the configuration of the attempts above."""
    return ConfigurationView(
        sweep=SWEEP.name,
        config_id=running().config_id,
        label="size 20",
        axes=(("size", "20"),),
        is_baseline=False,
        seeds=seeds,
        mean=mean,
        low=low,
        high=high,
        method="student t",
        cost=COST,
    )


def gallery(*steps: int) -> list[Picture]:
    """A picture of one grey pixel a step."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1), 128).save(buffer, "PNG")
    return [Picture(key="pictures/transformers", step=step, png=buffer.getvalue()) for step in steps or (0, 10)]


class TrackerContract:
    """What every tracker promises, whatever it shows."""

    @pytest.fixture
    def tracker(self) -> Iterator[Tracker]:
        """The tracker under test."""
        raise AssertionError("an implementation makes its tracker")

    def test_every_view_may_be_shown_any_number_of_times(self, tracker: Tracker) -> None:
        """A sweep, an attempt at every moment of its life, and a configuration: shown again, nothing is refused."""
        for _ in range(2):
            tracker.open_sweep(SWEEP)
            for view in (running(), running(epochs=1), running(epochs=3), complete(), complete()):
                tracker.show_attempt(view)
            tracker.show_configuration(config())
            tracker.show_configuration(config(seeds=3, mean=0.6))

    def test_pictures_are_shown_once(self, tracker: Tracker) -> None:
        """However often a gallery is given, a second time nothing is new."""
        tracker.open_sweep(SWEEP)
        tracker.show_attempt(complete())
        tracker.show_pictures(complete(), gallery())
        assert tracker.show_pictures(complete(), gallery()) == 0

    def test_a_configuration_has_pictures_as_well(self, tracker: Tracker) -> None:
        """The gallery of a summary is that of an attempt: a second time nothing is new; without the summary none is."""
        tracker.open_sweep(SWEEP)
        assert tracker.show_pictures(config(), gallery()) == 0
        tracker.show_configuration(config())
        tracker.show_pictures(config(), gallery())
        assert tracker.show_pictures(config(), gallery()) == 0

    def test_an_attempt_never_shown_has_no_pictures(self, tracker: Tracker) -> None:
        """There is nothing to put them beside, which is no error."""
        tracker.open_sweep(SWEEP)
        assert tracker.show_pictures(complete("unknown"), gallery()) == 0


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow, made once: it takes seconds."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    initialise(f"sqlite:///{file}")
    return file


@pytest.fixture
def uri(template: Path, tmp_path: Path) -> str:
    """A database of its own for each test."""
    file = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(template)) as source, contextlib.closing(sqlite3.connect(file)) as copy:
        source.backup(copy)
    return f"sqlite:///{file}"


@pytest.mark.slow
class TestMlflow(TrackerContract):
    """MLflow on a SQLite database."""

    @pytest.fixture
    def tracker(self, uri: str, tmp_path: Path) -> Iterator[Tracker]:
        """A tracker with an open sweep."""
        tracker = MlflowTracker(uri, tmp_path / "artifacts")
        tracker.open_sweep(SWEEP)
        yield tracker
        tracker.close()

    @pytest.fixture
    def client(self, uri: str) -> Any:
        """MLflow's own client, to see what people see."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)

    def runs(self, client: Any, sweep: str = SWEEP.name) -> list[Any]:
        """What MLflow lists of a sweep, by name."""
        experiment = client.get_experiment_by_name(sweep)
        return sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.run_name)

    def test_a_complete_attempt_is_one_finished_run(self, tracker: Tracker, client: Any, tmp_path: Path) -> None:
        """Name, tags, parameters, data, times and last values are those of the view."""
        tracker.show_attempt(complete(number=2))
        [run] = self.runs(client)
        assert run.info.run_name == "size 20 · seed 1 · attempt 2"
        assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1_000_000, 1_010_000)
        view = complete(number=2)
        expected = {
            "sweep": SWEEP.name,
            "cell": view.config_id,
            "seed": "1",
            "trial": view.trial_id,
            "attempt": "2",
            "status": "complete",
            "token": "first",
            "baseline": "false",
            "mlflow.source.git.commit": COMMIT,
        }
        assert expected.items() <= run.data.tags.items()
        assert run.data.params == {"axis.size": "20", "seed": "1"}
        text = client.download_artifacts(run.info.run_id, "specification.json", str(tmp_path))
        assert from_json(TrialSpec, Path(text).read_text(), where="the artifact") == view.spec
        datasets = {(one.dataset.name, one.dataset.digest, one.tags[0].value) for one in run.inputs.dataset_inputs}
        assert datasets == {("signs train", "d1", "training"), ("signs test", "d2", "testing")}
        assert run.data.metrics["accuracy/validation_final"] == 0.9
        assert run.data.metrics["accuracy/test"] == 0.8
        assert run.data.metrics["loss/train"] == 1 / 3
        assert run.data.metrics["parameters"] == 1000.0
        assert run.data.metrics["transformer_1/theta_spread"] == 0.5

    def test_epochs_are_steps(self, tracker: Tracker, client: Any) -> None:
        """However the epochs arrive, and by however many processes, each is one point at its step and time."""
        tracker.show_attempt(running())
        tracker.show_attempt(running(epochs=2))
        tracker.show_attempt(running(epochs=2))
        [run] = self.runs(client)
        assert run.info.status == "RUNNING"
        again = MlflowTracker(f"{client.tracking_uri}", None)
        again.show_attempt(complete(epochs=4))
        again.show_attempt(complete(epochs=4))
        history = client.get_metric_history(run.info.run_id, "accuracy/validation")
        points = [(point.step, point.value, point.timestamp) for point in history]
        assert points == [(step, step / 10, 1_000_000 + 2000 * step) for step in (1, 2, 3, 4)]
        assert [one.info.run_id for one in self.runs(client)] == [run.info.run_id]
        assert len(client.get_metric_history(run.info.run_id, "accuracy/test")) == 1

    def test_the_test_split_is_sealed_while_an_attempt_runs(self, tracker: Tracker, client: Any) -> None:
        """No number of the test split is shown before the attempt has ended."""
        tracker.show_attempt(dataclasses.replace(running(epochs=1), test=complete().test))
        [run] = self.runs(client)
        assert not [key for key in run.data.metrics if "test" in key]

    @pytest.mark.parametrize(
        ("state", "status"),
        [
            (AttemptState.FAILED, "FAILED"),
            (AttemptState.PRUNED, "KILLED"),
            (AttemptState.LOST, "KILLED"),
            (AttemptState.STOPPED, "KILLED"),
        ],
    )
    def test_an_attempt_without_result_is_shown_as_ended(
        self, tracker: Tracker, client: Any, state: AttemptState, status: str
    ) -> None:
        """No ended attempt is left running, and a failure says why on the run's page."""
        failure = Failure(kind=FailureKind.BUG, message="it broke", traceback="x" * 20_000 + "last line")
        tracker.show_attempt(running())
        tracker.show_attempt(ended(state, failure))
        [run] = self.runs(client)
        assert (run.info.status, run.info.end_time, run.data.tags["status"]) == (status, 1_010_000, state.value)
        assert run.data.tags["failure"] == "bug"
        assert "it broke" in run.data.tags["mlflow.note.content"]
        assert "last line" in run.data.tags["mlflow.note.content"]

    def test_a_lost_attempt_that_delivers_is_shown_as_complete(self, tracker: Tracker, client: Any) -> None:
        """A later view replaces an earlier one, also one that had ended."""
        tracker.show_attempt(ended(AttemptState.LOST))
        tracker.show_attempt(complete())
        [run] = self.runs(client)
        assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "complete")

    def test_a_configuration_is_one_summary_run(self, tracker: Tracker, client: Any) -> None:
        """Its numbers are the last ones shown, whether they rise or fall, and its name counts the seeds."""
        tracker.show_configuration(config(seeds=1, mean=0.9, low=None, high=None))
        tracker.show_configuration(config(seeds=2, mean=0.8, low=0.7, high=0.85))
        tracker.show_configuration(config(seeds=3, mean=0.6, low=0.5, high=0.65))
        tracker.show_configuration(config(seeds=3, mean=0.6, low=0.5, high=0.65))
        [run] = self.runs(client)
        assert (run.info.run_name, run.info.status) == ("60.00 % · size 20 · mean of 3 seeds", "FINISHED")
        assert run.data.tags["summary"] == "true"
        assert run.data.tags["method"] == "student t"
        accuracies = {key: value for key, value in run.data.metrics.items() if key.startswith("accuracy/")}
        assert accuracies == {
            "accuracy/validation_mean": 0.6,
            "accuracy/validation_low": 0.5,
            "accuracy/validation_high": 0.65,
        }
        history = client.get_metric_history(run.info.run_id, "accuracy/validation_mean")
        assert [point.value for point in history] == [0.9, 0.8, 0.6]

    def test_the_list_begins_with_the_best_configuration(self, tracker: Tracker, client: Any) -> None:
        """As MLflow lists runs by itself: summaries in the order of the leaderboard, also when that has changed."""
        tracker.show_attempt(complete())
        two = [config(mean=0.9), dataclasses.replace(config(mean=0.8), config_id="other", label="size 30")]
        for first, second in (two, two[::-1]):
            tracker.show_configuration(dataclasses.replace(first, place=0))
            tracker.show_configuration(dataclasses.replace(second, place=1))
            listed = client.search_runs([client.get_experiment_by_name(SWEEP.name).experiment_id])
            names = [run.data.tags["cell"] for run in listed if "summary" in run.data.tags]
            assert names == [first.config_id, second.config_id]
            [attempt] = [run for run in listed if "summary" not in run.data.tags]
            parent = next(run for run in listed if run.data.tags.get("token") == f"cell:{config().config_id}")
            assert attempt.data.tags["mlflow.parentRunId"] == parent.info.run_id

    def test_a_configuration_that_loses_its_interval_shows_none(self, tracker: Tracker, client: Any) -> None:
        """A sweep cut down to one seed has no interval, and an old one is not left standing."""
        tracker.show_configuration(config())
        tracker.show_configuration(config(seeds=1, low=None, high=None))
        [run] = self.runs(client)
        assert run.data.metrics["seeds"] == 1.0
        assert "accuracy/validation_low" not in run.data.metrics

    def test_a_run_that_says_something_else_is_replaced(self, tracker: Tracker, client: Any) -> None:
        """MLflow writes parameters once; a run whose parameters are not the trial's gives way to a new one."""
        experiment = client.get_experiment_by_name(SWEEP.name)
        old = client.create_run(experiment.experiment_id, tags={"token": "first"}, run_name="old")
        client.log_param(old.info.run_id, "axis.size", "30")
        tracker.show_attempt(complete())
        [run] = self.runs(client)
        assert run.info.run_id != old.info.run_id
        assert run.data.params["axis.size"] == "20"

    def test_a_run_under_former_keys_is_replaced(self, tracker: Tracker, client: Any) -> None:
        """Metrics cannot be removed, so an earlier version's run gives way to one that shows each metric once."""
        experiment = client.get_experiment_by_name(SWEEP.name)
        old = client.create_run(experiment.experiment_id, tags={"token": "first"}, run_name="old")
        client.log_metric(old.info.run_id, "validation_accuracy", 0.1)
        tracker.show_attempt(complete())
        [run] = self.runs(client)
        assert run.info.run_id != old.info.run_id
        sections = sorted({key.partition("/")[0] for key in run.data.metrics if "/" in key})
        assert sections[:2] == ["accuracy", "loss"]

    def test_a_new_label_renames_the_run(self, tracker: Tracker, client: Any) -> None:
        """An edited sweep may call a configuration by another name."""
        tracker.show_attempt(complete())
        tracker.show_attempt(dataclasses.replace(complete(), label="tiny"))
        assert [run.info.run_name for run in self.runs(client)] == ["tiny · seed 1"]

    def test_a_run_deleted_by_a_person_is_shown_again(self, tracker: Tracker, client: Any) -> None:
        """The first view after the deletion fails, as a tracker may; the next one makes a new run."""
        from mlflow.exceptions import MlflowException

        tracker.show_attempt(running())
        client.delete_run(self.runs(client)[0].info.run_id)
        with pytest.raises(MlflowException):
            tracker.show_attempt(running(epochs=1))
        tracker.show_attempt(running(epochs=1))
        assert [run.data.metrics["accuracy/validation"] for run in self.runs(client)] == [0.1]

    def test_a_deleted_experiment_comes_back(self, tracker: Tracker, client: Any) -> None:
        """MLflow keeps the name of a deleted experiment; a sweep of that name brings it back with its runs."""
        tracker.show_attempt(complete())
        client.delete_experiment(client.get_experiment_by_name(SWEEP.name).experiment_id)
        tracker.open_sweep(dataclasses.replace(SWEEP, question="Another?"))
        tracker.show_attempt(complete("second", seed=2))
        experiment = client.get_experiment_by_name(SWEEP.name)
        assert experiment.lifecycle_stage == "active"
        assert experiment.tags["mlflow.note.content"].startswith("Another?\n\n")
        assert [run.info.run_name for run in self.runs(client)] == ["size 20 · seed 1", "size 20 · seed 2"]

    def test_a_gallery_has_a_picture_a_step(self, tracker: Tracker, client: Any) -> None:
        """MLflow's slider goes over the steps; a gallery that has grown shows what is new."""
        tracker.show_attempt(complete())
        assert tracker.show_pictures(complete(), gallery(0, 10)) == 2
        assert tracker.show_pictures(complete(), gallery(0, 10, 200)) == 1
        [run] = self.runs(client)
        names = [Path(found.path).name for found in client.list_artifacts(run.info.run_id, "images")]
        steps = sorted(int(name.split("+")[2]) for name in names if name.endswith(".png"))
        assert steps == [0, 10, 200]
        assert {name.split("+")[0] for name in names} == {"pictures~transformers"}
        assert run.data.tags["mlflow.loggedImages"] == "True"

    def test_a_sweep_offers_views_of_its_own(self, tracker: Tracker, client: Any) -> None:
        """Its description links to each, and what they search for is what there is."""
        experiment = client.get_experiment_by_name(SWEEP.name)
        tracker.show_attempt(complete())
        tracker.show_configuration(config())
        found = {}
        for view in saved_views(SWEEP):
            assert json.loads(experiment.tags[view.tag])["name"] == view.name
            assert f"[{view.name}]({view.address(experiment.experiment_id)})" in experiment.tags["mlflow.note.content"]
            runs = client.search_runs([experiment.experiment_id], view.search, order_by=[f"{view.order_by} DESC"])
            found[view.key] = [run.info.run_name for run in runs]
        assert found == {"cells": ["50.00 % · size 20 · mean of 2 seeds"], "runs": ["size 20 · seed 1"]}

    def test_no_experiment_stands_there_empty(self, client: Any) -> None:
        """MLflow's own, which it makes with its database, is put away."""
        assert [one.name for one in client.search_experiments()] == []

    def test_a_replay_finds_all_runs_at_once_and_writes_nothing(
        self, tracker: Tracker, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond a few, runs of an earlier process are read together; those shown already are left as they are."""
        monkeypatch.setattr("stnbench.tracking.mlflow.SEARCHES_BEFORE_INDEX", 2)
        views = [complete(f"token {seed}", seed=seed) for seed in range(1, 8)]
        for view in views:
            tracker.show_attempt(view)
        tracker.show_configuration(config())
        before = {run.info.run_id for run in self.runs(client)}
        again = MlflowTracker(f"{client.tracking_uri}", None)
        again.open_sweep(SWEEP)
        searches: list[object] = []
        writes: list[object] = []
        search = again._client.search_runs

        def note_and_search(*words: Any, **named: Any) -> Any:
            searches.append(words)
            return search(*words, **named)

        monkeypatch.setattr(again._client, "search_runs", note_and_search)
        for name in ("create_run", "log_batch", "log_text", "log_inputs", "set_terminated", "delete_run"):
            monkeypatch.setattr(again._client, name, lambda *a, **_: writes.append(a))
        for view in views:
            again.show_attempt(view)
        again.show_configuration(config())
        assert {run.info.run_id for run in self.runs(client)} == before
        assert len(before) == 8
        assert (len(searches), writes) == (4, [])  # two attempts, all runs, and the attempts of the configuration

    def test_artifacts_lie_where_they_were_asked_for(self, tracker: Tracker, client: Any, tmp_path: Path) -> None:
        """An experiment's artifacts are below the folder given, not in the working directory."""
        experiment = client.get_experiment_by_name(SWEEP.name)
        assert experiment.artifact_location == f"mlflow-artifacts:/{SWEEP.name}"
        tracker.show_attempt(complete())
        [run] = self.runs(client)
        folder = tmp_path / "artifacts" / SWEEP.name / run.info.run_id / "artifacts"
        assert [path.name for path in folder.iterdir()] == ["specification.json"]


NO_NETWORK = """
import socket, sys

def refuse(*arguments, **named):
    raise AssertionError(f"the network was asked for {arguments}")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
from stnbench.tracking.mlflow import MlflowTracker
assert "mlflow" not in sys.modules
from stnbench.spec.sweep import SweepSpec
tracker = MlflowTracker(sys.argv[1], None)
tracker.open_sweep(SweepSpec(name="s", question="?"))
tracker.close()
"""


@pytest.mark.slow
def test_mlflow_is_quiet_and_stays_off_the_network(tmp_path: Path) -> None:
    """The first tracker of all prints nothing, asks no server anything and leaves no folder where it was started.

    MLflow is imported only when a tracker is made.
    """
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-c", NO_NETWORK, f"sqlite:///{tmp_path / 'fresh.db'}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(work.iterdir()) == []


@pytest.mark.slow
def test_the_database_is_read_while_it_is_written(uri: str) -> None:
    """MLflow's pages and a sweep do not wait for each other: the database writes ahead."""
    initialise(uri)
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
