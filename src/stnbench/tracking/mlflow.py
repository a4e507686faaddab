"""Attempts and configurations as runs in MLflow, which is imported only when a tracker is made.

A sweep is an experiment, an attempt a run, and a configuration another run (tag ``summary``) with its mean over seeds,
under which its attempts are nested. MLflow lists runs by start time, the latest first, unless the user changes that; so
the start times of summaries differ by a millisecond each, in the order of the leaderboard. Runs are found again by
their tag ``token``.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from typing_extensions import override

from stnbench.spec.result import AttemptState
from stnbench.spec.sweep import SweepSpec
from stnbench.tracking import AttemptView, ConfigurationView, Picture, Tracker, shown
from stnbench.tracking.mlflow_server import initialise, keep_artifacts_in, open_client
from stnbench.tracking.shown import DatasetInput, dataset_inputs

# Saved views of an experiment in MLflow's pages: a selection of runs, their order and columns.
#
# By default these pages show only names and times. A view is a tag of the experiment (MLflow 3.17; older versions do
# not list it), and its link opens it. Without I/O and without MLflow.


TAG_PREFIX = "mlflow.sharedViewState."
_NAME = "attributes.`Run Name`"
_NAME_WIDTH_PX, _WIDTH_PX = 300, 190
_CONFIGURATIONS = "cells"
_MOST_AXES = 12
"""Maximum number of columns of a view; more do not fit on a screen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedView:
    """A saved view with its ``key``; ``order_by`` is a column, ``columns`` are those shown beside the name."""

    key: str
    name: str
    search: str
    order_by: str
    is_ascending: bool
    columns: tuple[str, ...]

    @property
    def tag(self) -> str:
        """Return the key of the tag."""
        return TAG_PREFIX + self.key

    def value(self, place: int) -> str:
        """Return the value of the tag as JSON; views with a higher ``place`` are listed first."""
        widths = dict.fromkeys(self.columns, _WIDTH_PX) | {_NAME: _NAME_WIDTH_PX}
        state = {
            "searchFilter": self.search,
            "orderByKey": self.order_by,
            "orderByAsc": self.is_ascending,
            "selectedColumns": list(self.columns),
            "columnOrder": [_NAME, *self.columns],
            "columnWidths": widths,
        }
        text = json.dumps(state, sort_keys=True)
        return json.dumps({"name": self.name, "createdAt": place, "updatedAt": place, "state": text})

    def address(self, experiment_id: str) -> str:
        """Return the address of the view within MLflow's pages."""
        return _address(experiment_id, self.key)


def saved_views(sweep: SweepSpec) -> list[SavedView]:
    """Return two views of a sweep: its configurations by their means, and its runs with the parameters that differ."""
    names = dict.fromkeys(axis.name for grid in sweep.grids for axis in grid)
    axes = [_column("params", shown.axis_key(name)) for name in list(names)[:_MOST_AXES]]
    mean = _column("metrics", shown.CONFIGURATION_MEAN)
    intervals = ("accuracy/validation_low", "accuracy/validation_high", "seeds", "rank", "st_gain", "parameters")
    configs = SavedView(
        key=_CONFIGURATIONS,
        name="Configurations, the best first",
        search="tags.summary = 'true'",
        order_by=mean,
        is_ascending=False,
        columns=(mean, *_columns("metrics", intervals), *axes, *_columns("tags", ("rank", "vs_best", "health"))),
    )
    final = _column("metrics", shown.ATTEMPT_ACCURACY)
    runs = SavedView(
        key="runs",
        name="Runs, with what differs",
        search="tags.attempt != ''",
        order_by=final,
        is_ascending=False,
        columns=(
            *_columns("attributes", ("Dataset",)),
            *_columns("metrics", (shown.ATTEMPT_ACCURACY, "loss/validation", "loss/train")),
            *axes,
            *_columns("params", ("seed",)),
            *_columns("tags", ("status", "health", "failure", "failure_message")),
        ),
    )
    return [configs, runs]


def view_addresses(tracking_uri: str) -> dict[str, str]:
    """Return the address, within MLflow's pages, of each sweep's view of its configurations, the latest sweep first."""
    experiments = open_client(tracking_uri).search_experiments(order_by=["last_update_time DESC"])
    return {
        one.name: _address(one.experiment_id, _CONFIGURATIONS)
        for one in experiments
        if TAG_PREFIX + _CONFIGURATIONS in one.tags
    }


def _address(experiment_id: str, key: str) -> str:
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={key}"


def _columns(kind: str, names: Sequence[str] | Iterable[str]) -> tuple[str, ...]:
    return tuple(_column(kind, name) for name in names)


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run

_GALLERIES = "images"
"""The folder of artifacts in which MLflow keeps galleries.

A name there is ``key+step+number+timestamp+...``, with ``~`` for each slash of the key.
"""

RUNNING, FINISHED = "RUNNING", "FINISHED"
STATUSES = {
    AttemptState.RUNNING: RUNNING,
    AttemptState.COMPLETE: FINISHED,
    AttemptState.FAILED: "FAILED",
    AttemptState.PRUNED: "KILLED",
    AttemptState.LOST: "KILLED",
    AttemptState.STOPPED: "KILLED",
}
PARENT = "mlflow.parentRunId"
"""The tag by which MLflow's lists nest a run below another one."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The tag of an experiment by which MLflow's pages offer features for training, not for prompts."""

SEARCHES_BEFORE_INDEX = 16
"""Number of runs of an earlier process that are searched one by one; after that all of a sweep are read at once."""


@dataclass(kw_only=True, slots=True)
class _ShownRun:
    """State of one run in MLflow, as far as this process knows."""

    run_id: str
    name: str
    status: str
    tags: dict[str, str]
    parameters: dict[str, str]
    measures: set[shown.Measure] = field(default_factory=set)
    datasets: set[tuple[str, str]] = field(default_factory=set)


@dataclass(kw_only=True, slots=True)
class _Experiment:
    """One experiment, the tokens that were searched, and the other runs that are known.

    ``others`` is None until all runs were read; a token that is looked up again is searched in MLflow.
    """

    experiment_id: str
    created_at_ms: int
    looked_for: set[str] = field(default_factory=set)
    others: "dict[str, Run] | None" = None


class MlflowTracker(Tracker):
    """Tracker that shows attempts and configurations in MLflow, through the database or server at ``tracking_uri``.

    Artifacts of new experiments are stored below ``artifact_location``; if that is None, at MLflow's default location.
    """

    def __init__(self, tracking_uri: str, artifact_location: Path | None) -> None:
        initialise(tracking_uri)
        self._client = open_client(tracking_uri)
        self._artifacts = None if artifact_location is None else keep_artifacts_in(artifact_location, tracking_uri)
        self._runs: dict[str, _ShownRun] = {}
        self._experiments: dict[str, _Experiment] = {}

    @override
    def open_sweep(self, sweep: SweepSpec) -> None:
        experiment = self._open_experiment(sweep.name)
        own = experiment.experiment_id
        self._experiments[sweep.name] = _Experiment(experiment_id=own, created_at_ms=experiment.creation_time or 1)
        views = saved_views(sweep)
        note = shown.sweep_note(sweep, {view.name: view.address(own) for view in views})
        tags = {"sweep": sweep.name, shown.NOTE: note, **KIND}
        tags |= {view.tag: view.value(len(views) - index) for index, view in enumerate(views)}
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                self._client.set_experiment_tag(own, key, value)

    @override
    def show_attempt(self, view: AttemptView) -> None:
        parameters = shown.run_parameters(view)
        # Removed until all calls succeed: after an error, the state is read from MLflow again.
        run = self._runs.pop(view.token, None) or self._find_attempt(view, parameters)
        if run is None:
            tags = {key: value for key, value in shown.run_tags(view).items() if key != "specification"}
            run = self._create(view.sweep, shown.run_name(view), tags, view.started_at_ms)
        if "specification" not in run.tags:
            self._client.log_text(run.run_id, shown.specification_text(view.spec), shown.SPECIFICATION)
        self._log(run, shown.run_tags(view), parameters, shown.run_measures(view))
        self._log_datasets(run, dataset_inputs(view))
        self._rename(run, shown.run_name(view))
        self._set_status(run, STATUSES[view.state], view.finished_at_ms)
        self._runs[view.token] = run

    @override
    def show_configuration(self, view: ConfigurationView) -> None:
        values, parameters = shown.configuration_values(view), shown.axis_parameters(view.axes)
        found = self._find(view.sweep, shown.configuration_token(view.config_id))
        begins_ms = self._begin_ms(view)
        is_elsewhere = found is not None and found.info.start_time != begins_ms
        if found is not None and (is_elsewhere or not _can_become(found, parameters, values)):
            self._client.delete_run(found.info.run_id)
            found = None
        run = (
            self._create(view.sweep, shown.configuration_name(view), shown.configuration_tags(view), begins_ms)
            if found is None
            else _known(found)
        )
        changed = found is None or found.data.metrics != values
        step = self._next_step(run) if found is not None and changed else 0
        self._log(run, shown.configuration_tags(view), parameters, _at_step(values, step) if changed else [])
        self._rename(run, shown.configuration_name(view))
        self._set_status(run, FINISHED, begins_ms)
        self._fold(view, run.run_id)

    def _begin_ms(self, view: ConfigurationView) -> int:
        """Return the start time of a summary in milliseconds: before every attempt, that of the best one last."""
        return max(1, self._known_experiment(view.sweep).created_at_ms - view.place)

    def _fold(self, view: ConfigurationView, run_id: str) -> None:
        """Nest the attempts of a configuration below its summary."""
        own = self._known_experiment(view.sweep).experiment_id
        for run in list(self._search(own, f"tags.cell = '{view.config_id}' AND tags.attempt != ''")):
            if run.data.tags.get(PARENT) != run_id:
                self._client.set_tag(run.info.run_id, PARENT, run_id)

    @override
    def show_pictures(self, view: AttemptView | ConfigurationView, pictures: Iterable[Picture]) -> int:
        from PIL import Image

        if isinstance(view, AttemptView):
            token, at_ms = view.token, view.started_at_ms
        else:
            token, at_ms = shown.configuration_token(view.config_id), self._begin_ms(view)
        found = self._find(view.sweep, token)
        if found is None:
            return 0
        run_id = found.info.run_id
        names = {Path(artifact.path).name for artifact in self._client.list_artifacts(run_id, _GALLERIES)}
        shown_already = {tuple(name.split("+")[:3]) for name in names}
        new = 0
        for picture in pictures:
            if (picture.key.replace("/", "~"), "step", str(picture.step)) not in shown_already:
                with Image.open(io.BytesIO(picture.png)) as image:
                    self._client.log_image(
                        run_id,
                        image,
                        key=picture.key,
                        step=picture.step,
                        timestamp=at_ms,
                        synchronous=True,
                    )
                new += 1
        return new

    @override
    def close(self) -> None:
        self._runs.clear()  # MLflow keeps one pool of connections per database until the process ends

    def _open_experiment(self, sweep: str) -> "Experiment":
        """Return the experiment of a sweep, which is created or restored if needed."""
        experiment = self._client.get_experiment_by_name(sweep)
        if experiment is None:
            location = None if self._artifacts is None else self._artifacts + quote(sweep, safe="")
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
        known = self._known_experiment(sweep)
        is_first = token not in known.looked_for
        known.looked_for.add(token)
        if is_first and known.others is None and len(known.looked_for) > SEARCHES_BEFORE_INDEX:
            known.others = {run.data.tags.get("token", ""): run for run in self._search(known.experiment_id, "")}
        if is_first and known.others is not None:
            return known.others.pop(token, None)
        return next(self._search(known.experiment_id, f"tags.token = '{token}'"), None)

    def _known_experiment(self, sweep: str) -> _Experiment:
        if sweep not in self._experiments:
            found = self._open_experiment(sweep)
            created_ms = found.creation_time or 1
            self._experiments[sweep] = _Experiment(experiment_id=found.experiment_id, created_at_ms=created_ms)
        return self._experiments[sweep]

    def _find_attempt(self, view: AttemptView, parameters: Mapping[str, str]) -> _ShownRun | None:
        """Find the run of an attempt shown by an earlier process; delete one whose contents contradict the trial."""
        found = self._find(view.sweep, view.token)
        if found is None:
            return None
        if not _can_become(found, parameters):
            self._client.delete_run(found.info.run_id)
            return None
        run = _known(found)
        measures = shown.run_measures(view)
        if found.data.metrics == {one.key: one.value for one in measures}:
            run.measures.update(measures)  # points arrive in order: if the last exist, all do
        return run

    def _create(self, sweep: str, name: str, tags: Mapping[str, str], start_ms: int | None) -> _ShownRun:
        """Create a run, with its token from the beginning, so that a leftover run is found again."""
        known = self._known_experiment(sweep)
        return _known(self._client.create_run(known.experiment_id, start_time=start_ms, tags=dict(tags), run_name=name))

    def _log(
        self,
        run: _ShownRun,
        tags: Mapping[str, str],
        parameters: Mapping[str, str],
        measures: Sequence[shown.Measure],
    ) -> None:
        """Log the values that the run lacks, in as few requests as MLflow allows."""
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

    def _log_datasets(self, run: _ShownRun, datasets: Sequence[DatasetInput]) -> None:
        from mlflow.entities import Dataset, InputTag
        from mlflow.entities import DatasetInput as MlflowInput

        new = [one for one in datasets if (one.name, one.digest) not in run.datasets]
        if new:
            inputs = [
                MlflowInput(
                    Dataset(name=one.name, digest=one.digest, source_type="stnbench", source=one.source),
                    [InputTag("mlflow.data.context", one.context)],
                )
                for one in new
            ]
            self._client.log_inputs(run.run_id, inputs)
            run.datasets |= {(one.name, one.digest) for one in new}

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
        """Return the step after the last: MLflow shows the value of the highest step."""
        history = self._client.get_metric_history(run.run_id, shown.CONFIGURATION_MEAN)
        return max((metric.step for metric in history), default=-1) + 1


def _can_become(run: "Run", parameters: Mapping[str, str], values: Mapping[str, float] | None = None) -> bool:
    """Check whether a run can be updated to these values: parameters are immutable, and metrics cannot be removed.

    A run with the metrics' former names cannot: its page would show each metric twice.
    """
    has_only = values is None or run.data.metrics.keys() <= values.keys()
    if run.data.metrics.keys() & shown.OLD_KEYS:
        return False
    return run.data.params.items() <= parameters.items() and has_only


def _known(run: "Run") -> _ShownRun:
    return _ShownRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        tags=dict(run.data.tags),
        parameters=dict(run.data.params),
        datasets={(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs} if run.inputs else set(),
    )


def _at_step(values: Mapping[str, float], step: int) -> list[shown.Measure]:
    return [shown.Measure(key=key, value=value, step=step, timestamp_ms=0) for key, value in values.items()]
