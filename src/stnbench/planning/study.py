"""A sweep as a study in an Optuna storage, for optuna-dashboard and other programs that read studies.

The study is a view of the store that can be written again at any time: planners never read it.
"""

import contextlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, assert_never

from stnbench.core.errors import SpecError
from stnbench.core.files import sqlite_uri, user_path
from stnbench.core.identity import Json
from stnbench.core.text import hide_passwords
from stnbench.planning.samplers import quiet
from stnbench.spec.planner import FloatSpan, IntSpan, Span
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import Axis, SweepSpec
from stnbench.store.queries import StoreReader
from stnbench.store.tables import AttemptEpoch, AttemptRecord, Outcome, TrialRecord

if TYPE_CHECKING:
    import optuna

OWN: Final = "stnbench"
"""The attribute of studies that this module wrote; others are left alone."""

_CONFIGURATION: Final = "configuration"


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyTrial:
    """A configuration whose trials have all ended, as a trial of a study.

    Attributes:
        configuration: its identity.
        labels: its labels by the names of axes.
        state: ``complete`` where all its trials are, else ``failed`` or ``pruned``.
        values: the mean validation accuracy over seeds, and FLOPs for a search of two objectives; empty for a failed
            one.
        epochs: the mean validation accuracy of every epoch that all its trials have.
        started_at: the start of its first attempt.
        finished_at: the end of its last attempt.
        attributes: its label and the ids, seeds and accuracies of its trials.
    """

    configuration: str
    labels: Mapping[str, str]
    state: TrialState
    values: tuple[float, ...]
    epochs: Mapping[int, float]
    started_at: datetime | None
    finished_at: datetime | None
    attributes: Mapping[str, Json] = field(default_factory=dict)


def storage_url(given: str, default: Path) -> str:
    """Return the address of a storage: a URL as it is, a path as a SQLite file, or the default if nothing is given.

    Raises:
        SpecError: if the value looks like an override that the option has consumed.
    """
    if "://" in given:
        return given
    if "=" in given:
        problem = f"--optuna-storage took '{given}' for its address"
        raise SpecError(problem, remedy="write the option behind the overrides, or give it a file or a URL")
    return sqlite_uri((user_path(given, "the Optuna storage") if given else default).absolute())


def require_storage(url: str, name: str) -> None:
    """Check that a storage can be opened, and has no study of another program with this name.

    Raises:
        SpecError: if not.
    """
    with _opened(url) as storage:
        _require_own(storage, name)


@contextlib.contextmanager
def _opened(url: str) -> "Iterator[optuna.storages.BaseStorage]":
    """Open a storage for the block, in which errors of its database are a SpecError."""
    import optuna

    with quiet():
        try:
            yield optuna.storages.get_storage(url)
        except SpecError:
            raise
        except Exception as error:
            is_of_storage = type(error).__module__.startswith(("sqlalchemy", "optuna"))
            if not is_of_storage and not isinstance(error, ValueError | ImportError | OSError):
                raise
            said = hide_passwords((str(error).splitlines() or [""])[0][:300])
            problem = f"the Optuna storage {hide_passwords(url)} cannot be used ({type(error).__name__}: {said})"
            raise SpecError(problem, remedy="give a file, or a URL that Optuna's RDBStorage takes") from error


def _require_own(storage: "optuna.storages.BaseStorage", name: str) -> "optuna.Study | None":
    import optuna

    if name not in optuna.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    if not study.user_attrs.get(OWN):
        problem = f"the Optuna storage has a study '{name}' that stnbench did not write"
        raise SpecError(problem, remedy="give another file with --optuna-storage")
    return study


def write_study(store: StoreReader, sweep: SweepSpec, url: str) -> int:
    """Write the configurations of a sweep that have ended as a study with the sweep's name; return their number.

    Entries that the study has already stay unchanged. If the study has other entries, such as a configuration that
    failed and was run again, the whole study is written again. Baselines are not points of the axes, and are left out.

    Raises:
        SpecError: if the storage cannot be opened or written, or has another study with this name.
        StoreError: if the store cannot be read.
    """
    wanted = list(study_trials(store, sweep))
    with _opened(url) as storage:
        study = _open_study(storage, sweep, wanted)
        present = {trial.user_attrs.get(_CONFIGURATION) for trial in study.get_trials(deepcopy=False)}
        parameters = _parameters(sweep)
        study.add_trials([_frozen(one, parameters) for one in wanted if one.configuration not in present])
    return len(wanted)


def study_trials(store: StoreReader, sweep: SweepSpec) -> Iterator[StudyTrial]:
    """Yield the configurations of a sweep that have ended, in the order in which they were proposed."""
    outcomes, epochs = store.outcomes(sweep.name), store.epochs_of_sweep(sweep.name)
    attempts: dict[str, list[AttemptRecord]] = {}
    for attempt in store.attempts_of_sweep(sweep.name):
        attempts.setdefault(attempt.trial_id, []).append(attempt)
    groups: dict[str, list[TrialRecord]] = {}
    for trial in store.sweep_trials(sweep.name):
        if not trial.is_baseline:
            groups.setdefault(trial.config_id, []).append(trial)
    has_costs = sweep.planner.objectives > 1
    for trials in groups.values():
        if all(trial.state.is_final for trial in trials):
            ran = [attempt for trial in trials for attempt in attempts.get(trial.trial_id, ())]
            yield _study_trial(trials, outcomes, epochs, ran, has_costs=has_costs)


def _study_trial(
    trials: Sequence[TrialRecord],
    outcomes: Mapping[str, Outcome],
    epochs: Mapping[str, Sequence[AttemptEpoch]],
    attempts: Sequence[AttemptRecord],
    *,
    has_costs: bool,
) -> StudyTrial:
    curves = [_curve(epochs.get(trial.trial_id, ())) for trial in trials]
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    states = {trial.state for trial in trials}
    state = next((bad for bad in (TrialState.FAILED, TrialState.PRUNED) if bad in states), TrialState.COMPLETE)
    ended = [outcomes[trial.trial_id] for trial in trials if trial.trial_id in outcomes]
    accuracies: dict[str, Json] = {
        str(trial.seed): outcomes[trial.trial_id].validation.accuracy for trial in trials if trial.trial_id in outcomes
    }
    values: tuple[float, ...] = ()
    if state is TrialState.COMPLETE and len(ended) == len(trials):
        mean = statistics.fmean(outcome.validation.accuracy for outcome in ended)
        values = (mean, float(ended[0].cost.flops)) if has_costs else (mean,)
    elif state is TrialState.COMPLETE:
        state = TrialState.FAILED
    return StudyTrial(
        configuration=trials[0].config_id,
        labels=dict(trials[0].point.labels),
        state=state,
        values=values,
        epochs={epoch: statistics.fmean(curve[epoch] for curve in curves) for epoch in common},
        started_at=min((attempt.started_at for attempt in attempts), default=None),
        finished_at=max((attempt.finished_at for attempt in attempts if attempt.finished_at), default=None),
        attributes={
            "label": trials[0].label,
            "trials": [trial.trial_id for trial in trials],
            "seeds": [trial.seed for trial in trials],
            "validation_accuracy_by_seed": accuracies,
        },
    )


def _curve(epochs: Iterable[AttemptEpoch]) -> dict[int, float]:
    """Return the validation accuracies by epoch; of an epoch that two attempts have, that of the later one."""
    ordered = sorted(epochs, key=lambda item: item.attempt)
    return {item.record.epoch: item.record.validation_accuracy for item in ordered}


def _open_study(
    storage: "optuna.storages.BaseStorage", sweep: SweepSpec, wanted: Sequence[StudyTrial]
) -> "optuna.Study":
    """Return the study of a sweep; a new one unless all its entries are among the wanted ones.

    Raises:
        SpecError: if a study of another program has this name.
    """
    import optuna

    aims: list[Literal["maximize", "minimize"]] = ["maximize"]
    if sweep.planner.objectives > 1:
        aims.append("minimize")
    found = _require_own(storage, sweep.name)
    if found is not None:
        if _is_current(found, wanted, aims):
            return found
        optuna.delete_study(study_name=sweep.name, storage=storage)
    study = optuna.create_study(study_name=sweep.name, storage=storage, directions=aims)
    study.set_user_attr(OWN, True)  # noqa: FBT003 - a value
    study.set_user_attr("question", sweep.question)
    study.set_metric_names(["validation accuracy", "FLOPs"][: len(aims)])
    return study


def _is_current(study: "optuna.Study", wanted: Sequence[StudyTrial], aims: Sequence[str]) -> bool:
    """Check whether everything that a study has is still so."""
    known = {one.configuration: one for one in wanted}
    if [direction.name.lower() for direction in study.directions] != aims:
        return False
    for trial in study.get_trials(deepcopy=False):
        one = known.get(str(trial.user_attrs.get(_CONFIGURATION)))
        is_same = one is not None and trial.user_attrs.get("trials") == one.attributes["trials"]
        if one is None or not is_same or trial.state != _states()[one.state]:
            return False
    return True


def _states() -> "Mapping[TrialState, optuna.trial.TrialState]":
    from optuna.trial import TrialState as OptunaState

    return {
        TrialState.COMPLETE: OptunaState.COMPLETE,
        TrialState.PRUNED: OptunaState.PRUNED,
        TrialState.FAILED: OptunaState.FAIL,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parameter:
    """The parameter of an axis: its distribution, and the value of each label."""

    distribution: "optuna.distributions.BaseDistribution"
    values: Mapping[str, str | float]


def _parameters(sweep: SweepSpec) -> dict[str, _Parameter]:
    """Return the parameters of a sweep by the names of axes; axes of one name in several grids are one parameter."""
    from optuna.distributions import CategoricalDistribution

    axes: dict[str, list[Axis]] = {}
    for axis in (axis for grid in sweep.grids for axis in grid):
        axes.setdefault(axis.name, []).append(axis)
    found = {}
    for name, own in axes.items():
        span = own[0].span
        if span is not None and all(axis.span == span for axis in own):
            numbers = {choice.label: number for choice, number in zip(own[0].values, span.numbers(), strict=True)}
            found[name] = _Parameter(distribution=_range(span), values=numbers)
        else:
            labels = {choice.label: choice.label for axis in own for choice in axis.values}
            found[name] = _Parameter(distribution=CategoricalDistribution([*labels]), values=labels)
    return found


def _range(span: Span) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import FloatDistribution, IntDistribution

    match span:
        case IntSpan(low=low, high=high, log=log, step=step):
            return IntDistribution(low, high, log=log, step=step or 1)
        case FloatSpan(low=low, high=high, log=log):
            return FloatDistribution(low, high, log=log)
        case _:
            assert_never(span)


def _frozen(one: StudyTrial, parameters: Mapping[str, _Parameter]) -> "optuna.trial.FrozenTrial":
    import optuna

    own = {
        name: parameters[name]
        for name, label in one.labels.items()
        if name in parameters and label in parameters[name].values  # the file may have been edited since
    }
    trial = optuna.trial.create_trial(
        state=_states()[one.state],
        values=list(one.values) or None,
        params={name: parameter.values[one.labels[name]] for name, parameter in own.items()},
        distributions={name: parameter.distribution for name, parameter in own.items()},
        user_attrs={_CONFIGURATION: one.configuration, **one.attributes},
        intermediate_values=dict(one.epochs),
    )
    trial.datetime_start = _local(one.started_at) or trial.datetime_start
    trial.datetime_complete = _local(one.finished_at) or trial.datetime_complete
    return trial


def _local(moment: datetime | None) -> datetime | None:
    """Return a time as Optuna keeps it: local, without a zone."""
    return None if moment is None else moment.astimezone().replace(tzinfo=None)
