"""Attempts and cells as runs in MLflow. The only module that imports it, and only once a tracker is made.

A sweep is an experiment, an attempt a run, a cell one more run (tag ``summary``) with its mean over seeds: all flat, so
that MLflow's table can be sorted and filtered. Runs are found again by their tag ``token``.
"""

import io
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from stnbench.spec.states import AttemptState
from stnbench.spec.sweep import SweepSpec
from stnbench.tracking import shown
from stnbench.tracking.base import AttemptView, CellView, Picture, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

SQLITE_PREFIX = "sqlite:///"
_GALLERIES = "images"
"""The folder of artifacts in which MLflow keeps galleries; a name there is ``key+step+number+timestamp+...``."""

RUNNING, FINISHED = "RUNNING", "FINISHED"
STATUSES = {
    AttemptState.RUNNING: RUNNING,
    AttemptState.COMPLETE: FINISHED,
    AttemptState.FAILED: "FAILED",
    AttemptState.PRUNED: "KILLED",
    AttemptState.LOST: "KILLED",
    AttemptState.STOPPED: "KILLED",
}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Read by MLflow from the environment when it is imported; what a person has set there stays."""


def initialise(tracking_uri: str) -> None:
    """Make MLflow's database, or check that this MLflow can use it.

    Called once by one process before any other: processes that make it together break it. A SQLite database is put into
    write-ahead logging, so that MLflow's pages and a sweep do not wait for each other.
    Raises: mlflow.exceptions.MlflowException when the database is another MLflow version's; it names the command that
        upgrades it.
    """
    if not tracking_uri.startswith(SQLITE_PREFIX):
        _client(tracking_uri)
        return
    database = Path(tracking_uri.removeprefix(SQLITE_PREFIX))
    if not database.exists():
        _make_database(database)
    _client(tracking_uri)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _make_database(database: Path) -> None:
    """Make the database beside its place and move it there whole: MLflow cannot use one that was half made.

    It takes seconds, in which a sweep may well be killed.
    """
    with tempfile.TemporaryDirectory(prefix=f".{database.name}.", dir=database.parent) as folder:
        half_made = Path(folder) / database.name
        _client(f"{SQLITE_PREFIX}{half_made}")
        half_made.replace(database)


@dataclass(kw_only=True, slots=True)
class _ShownRun:
    """What MLflow holds of one run, as far as this process knows."""

    run_id: str
    name: str
    status: str
    tags: dict[str, str]
    parameters: dict[str, str]
    measures: set[shown.Measure] = field(default_factory=set)


class MlflowTracker(Tracker):
    """Shows attempts and cells in MLflow, by the database or server at ``tracking_uri``.

    Artifacts of new experiments lie below ``artifact_location``; where that is None, where MLflow puts them.
    """

    def __init__(self, tracking_uri: str, artifact_location: Path | None) -> None:
        initialise(tracking_uri)
        self._client = _client(tracking_uri)
        self._artifact_location = artifact_location
        self._runs: dict[str, _ShownRun] = {}

    @override
    def open_sweep(self, sweep: SweepSpec) -> None:
        experiment = self._open_experiment(sweep.name)
        for key, value in {"sweep": sweep.name, shown.NOTE: sweep.question}.items():
            if experiment.tags.get(key) != value:
                self._client.set_experiment_tag(experiment.experiment_id, key, value)

    @override
    def show_attempt(self, view: AttemptView) -> None:
        parameters = shown.run_parameters(view.spec)
        # Taken out until all went well: after an error, MLflow is asked again what it holds.
        run = self._runs.pop(view.token, None) or self._find_attempt(view, parameters)
        if run is None:
            run = self._create(view.sweep, shown.run_name(view), shown.run_tags(view), view.started_at_ms)
        self._log(run, shown.run_tags(view), parameters, shown.run_measures(view))
        self._rename(run, shown.run_name(view))
        self._set_status(run, STATUSES[view.state], view.finished_at_ms)
        self._runs[view.token] = run

    @override
    def show_cell(self, view: CellView) -> None:
        values = shown.cell_values(view)
        found = self._find(view.sweep, shown.cell_token(view.cell_id))
        if found is not None and not found.data.metrics.keys() <= values.keys():
            self._client.delete_run(found.info.run_id)  # MLflow cannot take one metric back
            found = None
        run = (
            self._create(view.sweep, shown.cell_name(view), shown.cell_tags(view), None)
            if found is None
            else _known(found)
        )
        changed = found is None or found.data.metrics != values
        step = self._next_step(run) if changed else 0
        self._log(run, shown.cell_tags(view), {}, _at_step(values, step) if changed else [])
        self._rename(run, shown.cell_name(view))
        self._set_status(run, FINISHED, None)

    @override
    def show_pictures(self, view: AttemptView, pictures: Iterable[Picture]) -> int:
        from PIL import Image

        found = self._find(view.sweep, view.token)
        if found is None:
            return 0
        run_id = found.info.run_id
        names = {Path(artifact.path).name for artifact in self._client.list_artifacts(run_id, _GALLERIES)}
        shown_already = {tuple(name.split("+")[:3]) for name in names}
        new = 0
        for picture in pictures:
            if (picture.key, "step", str(picture.step)) not in shown_already:
                with Image.open(io.BytesIO(picture.png)) as image:
                    self._client.log_image(
                        run_id,
                        image,
                        key=picture.key,
                        step=picture.step,
                        timestamp=view.started_at_ms,
                        synchronous=True,
                    )
                new += 1
        return new

    @override
    def close_orphans(self, sweep: str, running_tokens: Sequence[str]) -> int:
        experiment = self._client.get_experiment_by_name(sweep)
        if experiment is None:
            return 0
        closed = 0
        for run in list(self._search(experiment.experiment_id, f"attributes.status = '{RUNNING}'")):
            token = run.data.tags.get("token", "")
            if token in running_tokens:
                continue
            self._runs.pop(token, None)
            is_attempt = "summary" not in run.data.tags
            if is_attempt:
                self._client.set_tag(run.info.run_id, "status", AttemptState.LOST.value)
            self._client.set_terminated(run.info.run_id, STATUSES[AttemptState.LOST] if is_attempt else FINISHED)
            closed += is_attempt
        return closed

    @override
    def close(self) -> None:
        self._runs.clear()  # connections are MLflow's: it keeps one pool a database until the process ends

    def _open_experiment(self, sweep: str) -> "Experiment":
        """The experiment of a sweep, made or brought back where needed."""
        experiment = self._client.get_experiment_by_name(sweep)
        if experiment is None:
            root = self._artifact_location
            location = None if root is None else (root / sweep).absolute().as_uri()
            experiment = self._client.get_experiment(self._client.create_experiment(sweep, location))
        elif experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return experiment

    def _search(self, experiment_id: str, condition: str) -> "Iterator[Run]":
        page = None
        while True:
            found = self._client.search_runs([experiment_id], condition, page_token=page)
            yield from found
            page = found.token
            if not page:
                return

    def _find(self, sweep: str, token: str) -> "Run | None":
        experiment = self._open_experiment(sweep)
        return next(self._search(experiment.experiment_id, f"tags.token = '{token}'"), None)

    def _find_attempt(self, view: AttemptView, parameters: Mapping[str, str]) -> _ShownRun | None:
        """The run of an attempt shown by an earlier process; one that says something else of the trial is replaced."""
        found = self._find(view.sweep, view.token)
        if found is None:
            return None
        if not found.data.params.items() <= parameters.items():
            self._client.delete_run(found.info.run_id)  # parameters are write-once
            return None
        return _known(found)

    def _create(self, sweep: str, name: str, tags: Mapping[str, str], start_ms: int | None) -> _ShownRun:
        """A new run. It has its token from the first moment, so that one left behind is found again."""
        experiment = self._open_experiment(sweep)
        return _known(
            self._client.create_run(experiment.experiment_id, start_time=start_ms, tags=dict(tags), run_name=name)
        )

    def _log(
        self,
        run: _ShownRun,
        tags: Mapping[str, str],
        parameters: Mapping[str, str],
        measures: Sequence[shown.Measure],
    ) -> None:
        """Log what the run does not show yet, in as few requests as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        new_measures = [measure for measure in measures if measure not in run.measures]
        new_parameters = {key: value for key, value in parameters.items() if key not in run.parameters}
        new_tags = {key: value for key, value in tags.items() if run.tags.get(key) != value}
        if not (new_measures or new_parameters or new_tags):
            return
        self._client.log_batch(
            run.run_id,
            metrics=[Metric(one.key, one.value, one.timestamp_ms, one.step) for one in new_measures],
            params=[Param(key, value) for key, value in new_parameters.items()],
            tags=[RunTag(key, value) for key, value in new_tags.items()],
        )
        run.measures.update(new_measures)
        run.parameters |= new_parameters
        run.tags |= new_tags

    def _rename(self, run: _ShownRun, name: str) -> None:
        if run.name != name:
            self._client.update_run(run.run_id, name=name)
            run.name = name

    def _set_status(self, run: _ShownRun, status: str, end_ms: int | None) -> None:
        if run.status == status:
            return
        if status == RUNNING:
            self._client.update_run(run.run_id, status=RUNNING)
        else:
            self._client.set_terminated(run.run_id, status, end_time=end_ms)
        run.status = status

    def _next_step(self, run: _ShownRun) -> int:
        """The step after the last: MLflow shows the value of the highest step."""
        history = self._client.get_metric_history(run.run_id, shown.CELL_MEAN)
        return max((metric.step for metric in history), default=-1) + 1


def _client(tracking_uri: str) -> "MlflowClient":
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)


def _known(run: "Run") -> _ShownRun:
    return _ShownRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        tags=dict(run.data.tags),
        parameters=dict(run.data.params),
    )


def _at_step(values: Mapping[str, float], step: int) -> list[shown.Measure]:
    return [shown.Measure(key=key, value=value, step=step, timestamp_ms=0) for key, value in values.items()]
