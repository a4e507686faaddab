"""The columns of trials and of the summary of a run, and the difference of two trials."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from stnbench.core.identity import Json
from stnbench.core.text import written_kwh
from stnbench.report import table
from stnbench.report import table as text
from stnbench.report.runs import FailedKind, SlotUse, TrialRow
from stnbench.report.table import ESSENTIAL, Column, Facet, Section, Table, Tone
from stnbench.spec.codec import to_plain
from stnbench.spec.data import Split
from stnbench.spec.metrics import ENERGY
from stnbench.spec.result import Environment, EpochRecord, ScoredImages, TrialState
from stnbench.spec.trial import TrialSpec
from stnbench.store.queries import StoreReader
from stnbench.store.tables import Outcome, TrialRecord

# The columns of trials and of the summary of a run.


def _accuracy(row: TrialRow) -> str:
    """Return the accuracy as text, in percent; for a trial that is not complete, with the epoch."""
    if row.accuracy is None:
        return table.MISSING
    where = "" if row.state is TrialState.COMPLETE else f" (epoch {row.epoch} of {row.epochs})"
    return f"{table.percent(row.accuracy, 2)}{where}"


_TONES: Final[Mapping[TrialState, Tone]] = {
    TrialState.PLANNED: "faint",
    TrialState.RUNNING: "open",
    TrialState.COMPLETE: "good",
    TrialState.FAILED: "bad",
    TrialState.PRUNED: "faint",
}

_BAD_HEALTH: Final = frozenset({"unhelpful", "identity", "constant", "collapsed", "diverged"})

TRIALS: Final[Sequence[Column[TrialRow]]] = (
    Column(key="cell", heading="configuration", value=lambda it: it.label, is_number=False, importance=ESSENTIAL),
    Column(key="seed", heading="seed", value=lambda it: it.seed, importance=ESSENTIAL),
    Column(key="state", heading="state", value=lambda it: it.state.value, is_number=False, importance=ESSENTIAL,
           text=lambda it: f"{it.state.value}: {it.failure_kind}" if it.failure_kind else it.state.value,
           tone=lambda it: _TONES[it.state]),
    Column(key="accuracy", heading="validation %", value=lambda it: it.accuracy, importance=ESSENTIAL,
           text=_accuracy),
    Column(key="health", heading="health", value=lambda it: it.health or None, is_number=False, importance=8,
           tone=lambda it: "bad" if it.health in _BAD_HEALTH else "good" if it.health else ""),
    Column(key="attempts", heading="attempts", value=lambda it: it.attempts, importance=6),
    Column(key="slot", heading="slot", value=lambda it: it.slot or None, is_number=False, importance=4),
    Column(key="started_at", heading="started", value=lambda it: iso(it.started_at), text=lambda it: at(it.started_at),
           is_number=False, importance=3),
    Column(key="finished_at", heading="ended", value=lambda it: iso(it.finished_at), is_number=False, importance=2,
           text=lambda it: at(it.finished_at)),
    Column(key="busy_s", heading="took", value=lambda it: it.busy_s, importance=5,
           text=lambda it: table.duration(it.busy_s) if it.finished_at else table.MISSING),
    Column(key="energy_kwh", heading="energy", value=lambda it: it.energy_kwh, importance=4,
           text=lambda it: table.MISSING if it.energy_kwh is None else written_kwh(it.energy_kwh)),
    Column(key="trial_id", heading="id", value=lambda it: it.trial_id, is_number=False, importance=7),
    Column(key="cell_id", value=lambda it: it.config_id),
    Column(key="baseline", value=lambda it: it.is_baseline),
    Column(key="axes", value=lambda it: dict(it.axes), prefix="axis:"),
    Column(key="epoch", value=lambda it: it.epoch),
    Column(key="epochs", value=lambda it: it.epochs),
    Column(key="failure_kind", value=lambda it: it.failure_kind or None),
    Column(key="failure_message", value=lambda it: it.failure_message or None),
)  # fmt: skip

SLOTS: Final[Sequence[Column[SlotUse]]] = (
    Column(key="slot", heading="slot", value=lambda it: it.slot, is_number=False, importance=ESSENTIAL),
    Column(key="attempts", heading="attempts", value=lambda it: it.attempts),
    Column(key="busy_s", heading="busy", value=lambda it: it.busy_s, text=lambda it: table.duration(it.busy_s)),
    Column(key="share", heading="use, %", value=lambda it: it.share, text=lambda it: table.percent(it.share, 0)),
)  # fmt: skip

KINDS: Final[Sequence[Column[FailedKind]]] = (
    Column(key="kind", heading="kind", value=lambda it: it.kind, is_number=False, importance=ESSENTIAL,
           tone=lambda _: "bad"),
    Column(key="trials", heading="trials", value=lambda it: it.trials, importance=ESSENTIAL),
    Column(key="shared", heading="shared properties", value=lambda it: list(it.shared), is_number=False, importance=8,
           text=lambda it: "; ".join(it.shared)),
    Column(key="labels", heading="configurations", value=lambda it: list(it.labels), is_number=False, importance=8,
           text=lambda it: table.some(it.labels, 4)),
    Column(key="message", heading="most frequent message", value=lambda it: it.message, is_number=False),
)  # fmt: skip


def trial_table(rows: Sequence[TrialRow], caption: str, most: int | None = None) -> Table[TrialRow]:
    """Return a table with a row for each trial, of which documents show ``most``."""
    return Table(
        key="trials",
        caption=caption,
        columns=TRIALS,
        items=rows,
        label="cell",
        most=most,
        facets=(
            Facet(heading="state", value=lambda it: it.state.value),
            Facet(heading="health", value=lambda it: it.health or None),
            Facet(heading="failure", value=lambda it: it.failure_kind or None),
            Facet(heading="seed", value=lambda it: str(it.seed)),
        ),
    )


def iso(moment: datetime | None) -> str | None:
    """Return a time for programs: ISO 8601 in UTC."""
    return None if moment is None else moment.isoformat(timespec="seconds")


def at(moment: datetime | None) -> str:
    """Return a time for people, in UTC."""
    return table.MISSING if moment is None else f"{moment:%Y-%m-%d %H:%M}"


# The difference of two trials: specification, results, learning curves and environment.


_SHOWN_MAX: Final = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two trials.

    Attributes:
        record: the trial.
        outcome: its outcome; None where it is not complete.
        epochs: those of the attempt that completed it, else of its last attempt.
        images: the images that it was validated on; None where they are not known.
    """

    record: TrialRecord
    outcome: Outcome | None
    epochs: Sequence[EpochRecord]
    images: ScoredImages | None

    @property
    def name(self) -> str:
        """Return the sweep, label and seed of the trial, in the form that commands take."""
        return f"{self.record.sweep}:{self.record.label}#{self.record.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A property of both trials: its name and both values, with their difference where both are numbers."""

    name: str
    first: Json
    second: Json
    difference: float | None = None
    unit: str = ""


def read_side(store: StoreReader, record: TrialRecord, *, split: Split = "validation") -> Side:
    """Read a trial with its outcome, epochs and images, as far as the store has them.

    Raises:
        StoreError: if the store cannot be read.
    """
    outcome = store.outcome(record.trial_id, predictions=True)
    seen = store.epochs_of_trial(record.trial_id)
    attempt = outcome.attempt if outcome else max((item.attempt for item in seen), default=0)
    sets = store.image_sets(record.sweep, split)
    return Side(
        record=record,
        outcome=outcome,
        epochs=[item.record for item in seen if item.attempt == attempt],
        images=sets.sets.get(sets.of_trial.get(record.trial_id, "")),
    )


def difference_sections(first: Side, second: Side) -> list[Section]:
    """Return the difference as sections: specification, results, the same images, curves, environment."""
    specification = list(_different(_flat(first.record.spec), _flat(second.record.spec)))
    sections = [_section("specification", "Specification", specification, "They are the same trial.")]
    results = list(_results(first, second))
    missing = ", ".join(side.name for side in (first, second) if side.outcome is None)
    said = [f"Not complete: {missing}."] if missing else []
    sections.append(_section("results", "Results", results, "Neither has a result.", notes=said))
    images = _image_lines(first, second)
    if images:
        sections.append(images)
    sections.append(_section("curves", "Curves", list(_curves(first, second)), "Neither has ended an epoch."))
    environments = [side.outcome.environment if side.outcome else None for side in (first, second)]
    known = [environment for environment in environments if environment is not None]
    lines = list(_different(_environment(known[0]), _environment(known[1]))) if len(known) == 2 else []
    same = "They were computed with the same code, libraries, data and kind of machine." if len(known) == 2 else ""
    sections.append(_section("environment", "Environment", lines, same or "Known of complete trials alone."))
    return sections


def _section(key: str, heading: str, lines: Sequence[Line], nothing: str, *, notes: Sequence[str] = ()) -> Section:
    if not lines:
        return Section(key=key, heading=heading, text=[nothing])
    has_difference = any(line.difference is not None for line in lines)
    columns: list[Column[Line]] = [
        Column(key="name", heading="what", value=lambda line: line.name, is_number=False, importance=ESSENTIAL),
        *(_value_column(key, is_number=has_difference) for key in ("first", "second")),
    ]
    if has_difference:
        heading_of_difference = "second \u2212 first"
        columns.append(
            Column(
                key="difference",
                heading=heading_of_difference,
                value=lambda line: line.difference,
                text=_signed,
                importance=ESSENTIAL,
            )
        )
    table = Table(key=key, caption=heading, columns=columns, items=lines, label="name")
    return Section(key=key, heading=heading, tables=(table,), notes=notes)


def _value_column(key: str, *, is_number: bool) -> Column[Line]:
    def value(line: Line) -> Json:
        return line.first if key == "first" else line.second

    return Column(
        key=key,
        heading=key,
        value=value,
        text=lambda line: _shown(value(line), line.unit),
        is_number=is_number,
        importance=ESSENTIAL,
    )


def _shown(value: Json, unit: str = "") -> str:
    if value is None:
        return text.MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = value if isinstance(value, str) else str(value).replace("'", "")
        return shown if len(shown) <= _SHOWN_MAX else f"{shown[: _SHOWN_MAX - 1]}\u2026"
    if unit == "%":
        return f"{100 * value:.2f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _signed(line: Line) -> str:
    if line.difference is None:
        return text.MISSING
    if line.unit == "%":
        return f"{100 * line.difference:+.2f} pp"
    is_whole = isinstance(line.first, int) and isinstance(line.second, int)
    return f"{line.difference:+,.0f}" if is_whole else f"{line.difference:+.4g}"


def _flat(spec: TrialSpec) -> dict[str, Json]:
    """Return the values of a specification by dotted keys."""
    return dict(_leaves(to_plain(spec), ""))


def _environment(environment: Environment) -> dict[str, Json]:
    named: dict[str, Json] = {f"versions.{name}": version for name, version in environment.versions}
    return {name: value for name, value in to_plain(environment).items() if name != "versions"} | named


def _leaves(value: Json, key: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for place, item in enumerate(value, start=1):
            yield from _leaves(item, f"{key}[{place}]")
    else:
        yield key, value


def _different(first: Mapping[str, Json], second: Mapping[str, Json]) -> Iterator[Line]:
    for name in dict.fromkeys([*first, *second]):
        if first.get(name) != second.get(name):
            yield Line(name=name, first=first.get(name), second=second.get(name))


def _results(first: Side, second: Side) -> Iterator[Line]:
    pairs: list[tuple[str, str, Any]] = [
        ("validation accuracy", "%", lambda item: item.validation.accuracy),
        ("validation loss", "", lambda item: item.validation.loss),
        ("test accuracy", "%", lambda item: item.test.accuracy if item.test else None),
        ("test loss", "", lambda item: item.test.loss if item.test else None),
        ("parameters", "", lambda item: item.cost.parameters),
        ("FLOPs of an image", "", lambda item: item.cost.flops),
        ("activations of an image, bytes", "", lambda item: item.cost.activation_bytes),
        ("training, seconds", "", lambda item: item.train_duration_s),
        ("peak memory, MiB", "", lambda item: item.peak_memory_mib),
        ("energy, kWh", "", lambda item: item.validation.metrics.get(ENERGY)),
    ]
    for name, unit, value in pairs:
        own = [value(side.outcome) if side.outcome else None for side in (first, second)]
        if own != [None, None]:
            yield _line(name, own[0], own[1], unit=unit)


def _line(name: str, *values: Any, unit: str = "") -> Line:  # noqa: ANN401 - numbers or None, two of them
    first, second = values
    are_numbers = all(isinstance(value, int | float) for value in (first, second))
    return Line(name=name, first=first, second=second, difference=second - first if are_numbers else None, unit=unit)


def _image_lines(first: Side, second: Side) -> Section | None:
    """Return the section that counts the images that only one of the two trials classifies correctly.

    It is None unless both are complete and were validated on the same images.
    """
    if first.outcome is None or second.outcome is None or first.images is None or first.images != second.images:
        return None
    import numpy as np  # only this section needs it

    from stnbench.analysis.ensembles import mcnemar

    labels = np.asarray(first.images.labels)
    right = [np.asarray(side.outcome.validation.predictions) == labels for side in (first, second) if side.outcome]
    tracks = np.unique(np.asarray(first.images.tracks or range(len(labels))), return_inverse=True)[1]
    test = mcnemar(right[1][None], right[0][None], tracks.astype(np.int64))
    both = int((right[0] & right[1]).sum())
    alone = f"{test.only_base:,} in the first alone, {test.only_config:,} in the second alone"
    lines = [
        f"{both:,} of {len(labels):,} validation images are right in both, {alone}.",
        f"p = {test.p_value:.3g} ({test.method}): of these two networks, not of their configurations.",
    ]
    return Section(key="images", heading="The same images", text=lines)


def _curves(first: Side, second: Side) -> Iterator[Line]:
    if not first.epochs and not second.epochs:
        return
    ends = [side.epochs[-1] if side.epochs else None for side in (first, second)]
    pairs: list[tuple[str, str, Callable[[EpochRecord], float]]] = [
        ("last epoch", "", lambda end: end.epoch),
        ("steps", "", lambda end: end.step),
        ("train loss at the end", "", lambda end: end.train_loss),
        ("validation loss at the end", "", lambda end: end.validation_loss),
        ("validation accuracy at the end", "%", lambda end: end.validation_accuracy),
        ("learning rate at the end", "", lambda end: end.learning_rate),
    ]
    for name, unit, value in pairs:
        yield _line(name, *(value(end) if end else None for end in ends), unit=unit)
    bests = [max(side.epochs, key=lambda item: item.validation_accuracy, default=None) for side in (first, second)]
    yield _line("best validation accuracy", *(best.validation_accuracy if best else None for best in bests), unit="%")
    yield _line("epoch of the best", *(best.epoch if best else None for best in bests))
    verdicts = [end.verdict.value if end and end.verdict else None for end in ends]
    if verdicts != [None, None]:
        yield Line(name="health", first=verdicts[0], second=verdicts[1])
