"""The configurations of a sweep's frame as plain values, and the metrics that their scores lack."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from stnbench.analysis.effects import Estimate, accuracy_estimate, share_estimate, t_estimate
from stnbench.analysis.frames import AXIS_PREFIX, METRIC_PREFIXES
from stnbench.core.errors import FolderError, StnbenchError, UnknownNameError
from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.spec.data import Split
from stnbench.spec.metrics import PERCENT, describe, measure, missing, name_of
from stnbench.spec.result import ScoredImages, SplitScore
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store
from stnbench.trials.files import read_probabilities


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A trial of a frame, with None for missing values; ``correct``, ``images`` and ``image_set`` are on the split."""

    trial_id: str
    seed: int
    state: str
    health: str | None
    failure_kind: str | None
    correct: int | None
    images: int | None
    image_set: str | None
    test_correct: int | None
    test_images: int | None
    parameters: int | None
    flops: int | None
    activation_bytes: int | None
    epoch_duration_s: float | None
    peak_memory_mib: float | None
    metrics: tuple[tuple[str, float], ...] = ()
    """The name and value of each metric on the split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredConfiguration:
    """The trials of a configuration, ordered by seed, and their common properties.

    ``scores`` are accuracies by seed, in [0, 1]; ``score`` is their mean, None before a trial is complete.
    """

    config_id: str
    baseline_config_id: str
    bare_id: str
    label: str
    is_baseline: bool
    axes: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]
    scores: Mapping[int, float]
    score: Estimate | None


def read_configurations(trials: pd.DataFrame, split: Split) -> list[ScoredConfiguration]:
    """Read the configurations of a frame, with the scores of their trials on a split."""
    # Columns are taken out once: pandas is slow where thousands of configurations take values one by one.
    ordered = trials.sort_values("seed", kind="stable")
    of_run = {field.name: field.name for field in fields(Run) if field.name != "metrics"}
    of_run |= {"correct": f"{split}_correct", "images": f"{split}_images", "image_set": f"{split}_image_set"}
    columns = [_values(ordered, column) for column in of_run.values()]
    metrics = _metrics(ordered, split)
    runs = [
        Run(**dict(zip(of_run, values, strict=True)), metrics=metrics[place])
        for place, values in enumerate(zip(*columns, strict=True))
    ]
    places: dict[str, list[int]] = {}
    for place, config_id in enumerate(_values(ordered, "cell_id")):
        places.setdefault(config_id, []).append(place)
    axes = {name.removeprefix(AXIS_PREFIX): _values(ordered, name) for name in axis_columns(trials)}
    shared = {name: _values(ordered, name) for name in ("bare_id", "label", "is_baseline")}
    shared["baseline_config_id"] = _values(ordered, "baseline_cell_id")
    configs = []
    for config_id, own in places.items():
        of_config = tuple(runs[place] for place in own)
        config = ScoredConfiguration(
            config_id=config_id,
            axes=tuple((name, labels[own[0]]) for name, labels in axes.items() if labels[own[0]] is not None),
            runs=of_config,
            scores={run.seed: run.correct / run.images for run in of_config if run.correct is not None and run.images},
            score=estimate_of((run.correct, run.images) for run in of_config),
            **{name: values[own[0]] for name, values in shared.items()},
        )
        configs.append(config)
    return configs


def _metrics(trials: pd.DataFrame, split: Split) -> list[tuple[tuple[str, float], ...]]:
    """Return the metrics of each trial on a split, as pairs of name and value."""
    prefix = METRIC_PREFIXES[split]
    names = [str(name) for name in trials if str(name).startswith(prefix)]
    columns = {name.removeprefix(prefix): _values(trials, name) for name in names}
    return [
        tuple((name, values[place]) for name, values in columns.items() if values[place] is not None)
        for place in range(len(trials))
    ]


def metric_estimates(runs: Iterable[Run]) -> dict[str, Estimate]:
    """Return the mean of every metric over runs, with a t interval from two runs on."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.metrics:
            values.setdefault(name, []).append(value)
    return {
        name: share_estimate(own) if describe(name).unit == PERCENT else t_estimate(own)
        for name, own in sorted(values.items())
    }


def axis_columns(trials: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold labels of axes."""
    return [name for name in trials.columns if name.startswith(AXIS_PREFIX)]


def by_group(
    sweep: SweepSpec, configs: Iterable[ScoredConfiguration]
) -> Iterator[tuple[str, list[ScoredConfiguration]]]:
    """Yield each group of configurations that are compared with each other, the best first, those without a score last.

    Groups are in the order in which the axis lists its choices, and then those that it does not list. Where all
    configurations are compared, there is one group without a name. Equal means are ordered by label and identity.
    """
    groups: dict[str, list[tuple[float, str, str, ScoredConfiguration]]] = {}
    for config in configs:
        score = config.score
        place = (-score.mean if score else 1.0, config.label, config.config_id, config)
        groups.setdefault(dict(config.axes).get(sweep.within, ""), []).append(place)
    listed = [
        choice.label for grid in sweep.grids for axis in grid if axis.name == sweep.within for choice in axis.choices
    ]
    for group in dict.fromkeys([*listed, *sorted(groups)]):
        if group in groups:
            yield group, [config for *_, config in sorted(groups[group], key=lambda item: item[:3])]


def estimate_of(scored: Iterable[tuple[int | None, int | None]]) -> Estimate | None:
    """Return the mean accuracy of runs, from (correct, images) of each, or None where none is known."""
    pairs = [(correct, images) for correct, images in scored if correct is not None and images is not None]
    return accuracy_estimate(*zip(*pairs, strict=True)) if pairs else None


def first_known(values: Iterable[int | None]) -> int | None:
    """Return the first known value, or None without one."""
    return next((value for value in values if value is not None), None)


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values, or None without one."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _values(frame: pd.DataFrame, column: str) -> list[Any]:
    """Return a column as Python values, None for missing ones."""
    values = frame[column]
    return [None if missing else value for value, missing in zip(values.tolist(), values.isna(), strict=True)]


# Metrics of scores that are older than the metric, computed from the probabilities that their trials kept; and those
# that need the network, which is read from its checkpoint, for the sweeps whose columns name them.


_SPLITS: Final[tuple[Split, ...]] = ("validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """The number of scores that have new metrics, that had all of them, and that kept nothing to compute them from."""

    written: int
    complete: int
    without: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Networks:
    """Where networks run again: the data folder, a device and a number of CPU threads.

    Attributes:
        data_root: the data folder.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of CPU threads.
        source: the folder with the files of the data set, if it is another.
    """

    data_root: Path
    device: str
    threads: int
    source: Path | None = None


def fill_metrics(
    store: Store,
    layout: RunsLayout,
    sweep: str | None,
    *,
    warn: Callable[[str], None],
    networks: Networks | None = None,
    begins: Callable[[str], None] = lambda _: None,
) -> Filled:
    """Compute the metrics that the scores of a sweep lack, including those of another version of a metric's code.

    Args:
        store: the store to read and write.
        layout: the runs folder with the probabilities and checkpoints.
        sweep: the name of the sweep; None for all sweeps.
        warn: called with a message for each score whose metrics cannot be computed.
        networks: where networks run whose metrics the columns of a sweep name; None to leave these metrics out.
        begins: called with a line before networks run on corrupted or other images, which takes a while.

    Raises:
        UnknownNameError: for an unknown sweep.
    """
    specs = {record.spec.name: record.spec for record in store.sweeps()}
    if sweep is not None and sweep not in specs:
        raise UnknownNameError("sweep", sweep, specs, where="the store")
    chosen = list(specs) if sweep is None else [sweep]
    named = {name for one in chosen for name in specs[one].columns if describe(name).needs == "network"}
    done = [(one, *_fill(store, one, warn=warn)) for one in _scores(store, layout, chosen)]
    words = [word for _, word, _ in done]
    if networks is not None:
        waiting = [place for place, (*_, known) in enumerate(done) if named & missing(known, "network").keys()]
        for number, place in enumerate(waiting, start=1):
            begins(f"{', '.join(sorted(named))}: score {number} of {len(waiting)}")
            one, _, known = done[place]
            word = _fill_by_network(store, one, known, networks, named, warn=warn)
            words[place] = "written" if "written" in {word, words[place]} else "without"
    counts = Counter(words)
    return Filled(written=counts["written"], complete=counts["complete"], without=counts["without"])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """A score of a trial, with the folder of its attempt and the images that it is for."""

    trial_id: str
    folder: Path
    score: SplitScore
    images: ScoredImages | None


def _scores(store: Store, layout: RunsLayout, sweeps: Iterable[str]) -> Iterator[_Scored]:
    """Yield every score of the sweeps once."""
    seen: set[str] = set()
    for sweep in sweeps:
        sets = {split: store.image_sets(sweep, split) for split in _SPLITS}
        outcomes = store.outcomes(sweep)
        for trial_id in outcomes.keys() - seen:
            outcome = outcomes[trial_id]
            for score in filter(None, (outcome.validation, outcome.test)):
                own = sets[score.split]
                yield _Scored(
                    trial_id=trial_id,
                    folder=layout.attempt(trial_id, outcome.attempt),
                    score=score,
                    images=own.sets.get(own.of_trial.get(trial_id, "")),
                )
        seen |= outcomes.keys()


_Word = Literal["written", "complete", "without"]


def _fill(store: Store, one: _Scored, *, warn: Callable[[str], None]) -> tuple[_Word, Mapping[str, float]]:
    """Compute and write the metrics that a score lacks, and return the outcome as a word, and all its metrics."""
    lacking, known = missing(one.score.metrics), one.score.metrics
    if not lacking:
        return "complete", known
    if one.images is None or not AttemptLayout(one.folder).probabilities(one.score.split).exists():
        return "without", known
    try:
        probabilities = read_probabilities(one.folder, one.score.split, images=one.score.images)
    except FolderError as error:
        warn(f"warning: {error}")
        return "without", known
    new = measure(probabilities, np.array(one.images.labels, np.int64), warn=warn, only=lacking)
    return "written", _write(store, one, known, new)


def _write(store: Store, one: _Scored, known: Mapping[str, float], new: Mapping[str, float]) -> Mapping[str, float]:
    """Write new metrics of a score beside those that it has, and return all."""
    written = {key: value for key, value in known.items() if name_of(key) not in map(name_of, new)} | dict(new)
    store.set_metrics(one.trial_id, one.score.split, written)
    return written


def _fill_by_network(
    store: Store,
    one: _Scored,
    known: Mapping[str, float],
    networks: Networks,
    named: set[str],
    *,
    warn: Callable[[str], None],
) -> _Word:
    """Compute and write the metrics of a score that need its network, and return the outcome as a word."""
    from stnbench.trials.export import StoredNetwork  # these import torch
    from stnbench.trials.score import Classifier

    lacking = {name: item for name, item in missing(known, "network").items() if name in named}
    try:
        classifier = Classifier.of(
            StoredNetwork.of_attempt(one.folder), one.score.split, data_root=networks.data_root,
            source=networks.source, device=networks.device, threads=networks.threads,
        )  # fmt: skip
    except StnbenchError as error:
        warn(f"warning: {', '.join(lacking)} of the trial {one.trial_id} is left out: {error}")
        return "without"
    if classifier.scored != one.images:
        warn(f"warning: {', '.join(lacking)} of the trial {one.trial_id} is left out: it was scored on other images")
        return "without"
    new = classifier.measure(lacking, warn)
    _write(store, one, known, new)
    return "written" if new else "without"
