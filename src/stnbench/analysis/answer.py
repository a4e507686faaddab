"""Plain-sentence answers to a sweep's question, computed from fits and comparisons by pure functions."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.fitted import Fitted
from stnbench.analysis.simultaneous import pairs_table, single_table
from stnbench.analysis.verdicts import Answer, Comparison, Effect, Sentence, TaskSummary, Topic, Verdict

SENTENCES_MAX: Final = 5
LEVELS_MAX: Final = 40
CONTRAST_METHOD: Final = "contrast of configurations, moderated t"

_NUMBER: Final = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A configuration and its place in the layout of its sweep.

    Attributes:
        configuration: its name in the comparison.
        label: its name for people.
        axes: its label on every axis.
        baseline: the configuration without a transformer that it is compared with; empty if it has none.
        has_axes: whether it is a point of the axes; baselines that stand beside the axes are not.
    """

    configuration: str
    label: str
    axes: Mapping[str, str]
    baseline: str = ""
    has_axes: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The compared configurations of one task; ``name`` is empty where there is only one task."""

    name: str
    comparison: Comparison
    fitted: Fitted | None
    placed: Sequence[Placed] = field(default=())


def build_answer(groups: Sequence[Group], *, tasks: TaskSummary | None = None) -> Answer:
    """Answer a sweep's question in two to five sentences.

    Args:
        groups: one for each task; the axis of the tasks is not among the axes of their configurations.
        tasks: the summary over all tasks, if there are several.
    """
    cautions = [*_cautions(groups)]
    if len(groups) == 1:
        (group,) = groups
        axes = [*_axes(group)]
        found = [*cautions, *_transformer(group), *_best(group)]
        room = SENTENCES_MAX - len(found)
        axes.sort(key=lambda sentence: not sentence.is_decided)
        found[-1:-1] = axes[:room] if found else []
        return Answer(sentences=tuple(found))
    found = [*cautions, *_over_tasks(groups)]
    if tasks is not None:
        found += _ranks(tasks, groups)
    return Answer(sentences=tuple(found[:SENTENCES_MAX]))


def pp(effect: Effect) -> str:
    """Format a difference in percentage points, with its interval if it has one."""
    if effect.low is None or effect.high is None:
        return f"{100 * effect.mean:+.2f} pp"
    return f"{100 * effect.mean:+.2f} pp [{100 * effect.low:+.2f}, {100 * effect.high:+.2f}]"


def _size(effect: Effect) -> str:
    """Format the size of a difference whose direction is in the sentence, with its interval."""
    found = effect if effect.mean >= 0 else effect.turned
    if found.low is None or found.high is None:
        return f"{100 * found.mean:.2f} pp"
    return f"{100 * found.mean:.2f} pp [{100 * found.low:.2f}, {100 * found.high:.2f}]"


def _quoted(choice: str, choices: Sequence[str]) -> str:
    """Return a choice of an axis as it stands in a sentence: quoted if any of the axis has several words."""
    return f"'{choice}'" if any(" " in other for other in choices) else choice


def _bound(effects: Sequence[Effect]) -> float:
    """Return the largest difference that none of the intervals excludes, in percentage points."""
    return 100 * max(max(abs(effect.low or 0.0), abs(effect.high or 0.0)) for effect in effects)


def _cautions(groups: Sequence[Group]) -> Iterator[Sentence]:
    parts = []
    for group in groups:
        best = group.comparison.best
        if best and best.failures and best.failures.failed:
            where = f" on {group.name}" if group.name else ""
            parts.append(
                f"{_label(group, best.configuration)} scores highest{where} in the runs that did not fail, but "
                f"{best.failures.failed} of its {best.failures.runs} runs diverged or collapsed"
            )
    failures = [item.failures for group in groups for item in group.comparison.decisions if item.failures]
    failed, runs = sum(item.failed for item in failures), sum(item.runs for item in failures)
    if failed and not parts:
        parts.append(f"{failed} of {runs} runs diverged or collapsed and are in no mean")
    if any(group.comparison.is_provisional for group in groups):
        parts.append("provisional: runs are missing")
    fits = [group.fitted for group in groups if group.fitted is not None]
    if groups and not fits:
        parts.append("no run has a score: nothing can be compared")
    elif any(len(group.comparison.decisions) > 1 for group in groups) and not any(one.has_variance for one in fits):
        seeds = max(len(fitted.model.seeds) for fitted in fits)
        parts.append(
            "one seed decides nothing: a second one is needed"
            if seeds == 1
            else "nothing can be decided yet: no configuration has two seeds in common with another"
        )
    if parts:
        text = "; ".join(parts)
        yield Sentence(topic=Topic.CAUTION, text=f"{text[0].upper()}{text[1:]}.")


def _label(group: Group, configuration: str) -> str:
    return next((item.label for item in group.placed if item.configuration == configuration), configuration)


def _transformer(group: Group) -> Iterator[Sentence]:
    """Yield the sentence on whether a transformer helps: the mean gain, and the number of configurations that gain."""
    gain = mean_gain(group)
    if gain is None:
        return
    effect, count = gain
    gains = [item.gain for item in group.comparison.decisions if item.gain]
    up = [item for item in gains if item.is_told and item.mean > 0]
    down = [item for item in gains if item.is_told and item.mean < 0]
    if not effect.is_told:
        text = (
            f"No effect of a spatial transformer was seen: {pp(effect)} on average over {_counted(count)}; more than "
            f"{_bound([effect]):.2f} pp either way is excluded."
        )
        if up or down:
            text = (
                f"On average a spatial transformer changes accuracy by {pp(effect)}, which may be nothing; tested one "
                f"by one, {_some(len(up), len(gains), 'gain')} and {_some(len(down), len(gains), 'lose')}."
            )
    else:
        helps = "helps" if effect.mean > 0 else "hurts"
        told, others = (up, down) if effect.mean > 0 else (down, up)
        text = f"A spatial transformer {helps}: {pp(effect)} on average over {_counted(count)}"
        same, opposite = ("gain", "lose") if effect.mean > 0 else ("lose", "gain")
        if len(gains) > 1 or others:
            text += f"; tested one by one, {_some(len(told), len(gains), same)}"
        if others:
            text += f" and {_some(len(others), len(gains), opposite)}"
        text += "."
    yield Sentence(
        topic=Topic.TRANSFORMER,
        text=text,
        is_decided=effect.is_told or bool(up or down),
        effects=(("transformer", effect),),
    )


def mean_gain(group: Group) -> tuple[Effect, int] | None:
    """Estimate the mean difference of configurations to their baselines.

    Returns:
        The effect and the number of configurations in it; None without a pair of both or without an estimate of noise.
    """
    fitted = group.fitted
    if fitted is None or not fitted.has_variance:
        return None
    weights = np.zeros(len(fitted.names))
    known = [
        (fitted.place[item.configuration], fitted.place[item.baseline])
        for item in group.placed
        if item.baseline in fitted.place and item.configuration in fitted.place and item.baseline != item.configuration
    ]
    if not known:
        return None
    for own, base in known:
        weights[own] += 1 / len(known)
        weights[base] -= 1 / len(known)
    (effect,) = _effects(fitted, weights[None], single_table())
    return effect, len(known)


def _some(count: int, of: int, verb: str) -> str:
    """Return a count of several with its verb, such as ``2 of 8 gain significantly``."""
    counted = f"{count} of {of}" if count else f"none of the {of}"
    return f"{counted} {verb if count > 1 else f'{verb}s'} significantly"


def _counted(count: int) -> str:
    return "1 configuration" if count == 1 else f"{count} configurations"


def _effects(fitted: Fitted, weights: Floats, table: Floats) -> list[Effect]:
    return [
        Effect(n=len(fitted.model.seeds), mean=mean, low=low, high=high, p_adjusted=p_value, method=CONTRAST_METHOD)
        for mean, low, high, p_value in fitted.contrast_family(weights, table)
    ]


def _best(group: Group) -> Iterator[Sentence]:
    best = group.comparison.best
    if best is None or best.mean is None:
        return
    others = [item for item in group.comparison.decisions if item.verdict is not None and item is not best]
    counts = {verdict: sum(item.verdict is verdict for item in others) for verdict in Verdict}
    margin = 100 * group.comparison.margin
    named = {
        Verdict.LOWER: "lower",
        Verdict.EQUIVALENT: f"equivalent within {margin:g} pp",
        Verdict.UNDECIDED: "undecided",
    }
    parts = [(counts[verdict], name) for verdict, name in named.items() if counts[verdict]]
    if len(others) == 1:
        text = f"the other one is {parts[0][1]}"
    elif len(parts) == 1:
        text = f"all {len(others)} others are {parts[0][1]}"
    else:
        text = f"of the {len(others)} others " + ", ".join(
            f"{count} {'is' if count == 1 else 'are'} {name}" if not place else f"{count} {name}"
            for place, (count, name) in enumerate(parts)
        )
    yield Sentence(
        topic=Topic.BEST,
        text=f"{_label(group, best.configuration)} scores highest, {100 * best.mean:.2f} %"
        + (f"; {text}." if others else "."),
        is_decided=bool(counts[Verdict.LOWER] or counts[Verdict.EQUIVALENT]),
    )


def _axes(group: Group) -> Iterator[Sentence]:
    """Yield a sentence for every axis whose effect can be separated from those of the others."""
    fitted = group.fitted
    if fitted is None or not fitted.has_variance:
        return
    there = [item for item in group.placed if item.has_axes and item.configuration in fitted.place]
    for axis in dict.fromkeys(name for item in there for name in item.axes):
        own = [item for item in there if axis in item.axes]
        levels = list(dict.fromkeys(item.axes[axis] for item in own))
        if not 1 < len(levels) <= LEVELS_MAX:
            continue
        sizes = [size_of(level) for level in levels]
        numbers = [size for size in sizes if size is not None and size > 0]
        if len(numbers) == len(levels) and len(set(numbers)) > 2 and max(numbers) >= 2 * min(numbers):
            sentence = _trend(fitted, own, axis, dict(zip(levels, numbers, strict=True)))
        else:
            sentence = _levels(fitted, own, axis, levels)
        if sentence is not None:
            yield sentence


def size_of(label: str) -> float | None:
    """Return the number that a level stands for.

    This is the level itself, the number after ``key=``, or the geometric mean of a list of sizes; None for other
    labels.
    """
    text = label.rpartition("=")[2]
    parts = [part.strip() for part in text.strip("[]()").split(",")]
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    numbers = [float(part) for part in parts]
    if len(numbers) == 1:
        return numbers[0]
    return math.exp(math.fsum(map(math.log, numbers)) / len(numbers)) if min(numbers) > 0 else None


def _levels(fitted: Fitted, own: Sequence[Placed], axis: str, levels: Sequence[str]) -> Sentence | None:
    kinds = np.array([[item.axes[axis] == level for level in levels] for item in own], dtype=np.float64)
    maps = _mapped(kinds - kinds[:, -1:], own, axis)  # effects that add up to 0
    if maps is None:
        return None
    effects = np.vstack([maps[:-1], -maps[:-1].sum(axis=0)])
    pairs = list(itertools.combinations(range(len(levels)), 2))
    weights = np.zeros((len(pairs), len(fitted.names)))
    places = [fitted.place[item.configuration] for item in own]
    for row, (first, second) in enumerate(pairs):
        weights[row, places] = effects[first] - effects[second]
    found = _effects(fitted, weights, pairs_table(len(levels)))
    named = [
        (levels[first], levels[second], effect) if effect.mean >= 0 else (levels[second], levels[first], effect.turned)
        for (first, second), effect in zip(pairs, found, strict=True)
    ]
    told = [item for item in named if item[2].is_told]
    first_name, second_name, largest = max(told or named, key=lambda item: item[2].mean)
    better, worse = (_quoted(name, levels) for name in (first_name, second_name))
    if told:
        rest = "" if len(pairs) == 1 else f"; {len(told)} of {len(pairs)} pairs of choices differ significantly"
        text = f"{axis}: {better} is better than {worse} by {_size(largest)}, all else equal{rest}."
    else:
        text = (
            f"{axis}: no significant difference between its {len(levels)} choices; the largest is {pp(largest)} "
            f"({better} less {worse}), and one of more than {_bound(found):.2f} pp is excluded."
        )
    effects_named = tuple((f"{one} less {other}", effect) for one, other, effect in named)
    return Sentence(topic=Topic.AXIS, text=text, axis=axis, is_decided=bool(told), effects=effects_named)


def _trend(fitted: Fitted, own: Sequence[Placed], axis: str, sizes: Mapping[str, float]) -> Sentence | None:
    logs = np.array([[math.log2(sizes[item.axes[axis]])] for item in own])
    maps = _mapped(logs, own, axis)
    if maps is None:
        return None
    weights = np.zeros((1, len(fitted.names)))
    weights[0, [fitted.place[item.configuration] for item in own]] = maps[0]
    (effect,) = _effects(fitted, weights, single_table())
    if effect.is_told:
        way = "raises" if effect.mean > 0 else "lowers"
        text = f"{axis}: a doubling {way} accuracy by {_size(effect)}, over {len(sizes)} sizes and all else equal."
    else:
        text = (
            f"{axis}: no significant effect of size over {len(sizes)} sizes; a doubling changes accuracy by at most "
            f"{_bound([effect]):.2f} pp ({pp(effect)})."
        )
    return Sentence(
        topic=Topic.TREND, text=text, axis=axis, is_decided=effect.is_told, effects=(("a doubling", effect),)
    )


def _mapped(columns: Floats, own: Sequence[Placed], axis: str) -> Floats | None:
    """Return the map from means to the coefficients of ``columns`` in an additive model of all axes.

    Args:
        columns: (configurations, columns) of the design of this axis; columns that are 0 get no coefficient.
        own: the configurations that have the axis.
        axis: its name; all other axes enter the model as labels.

    Returns:
        An array (columns, configurations); None if the coefficients are not determined because of other axes.
    """
    used = np.abs(columns).max(axis=0) > 0
    others: list[Floats] = [np.ones((len(own), 1))]
    for name in dict.fromkeys(name for item in own for name in item.axes if name != axis):
        labels = [item.axes.get(name, "\0") for item in own]
        kinds = list(dict.fromkeys(labels))
        if 2 * len(kinds) <= len(own):
            others.append(np.array([[label == kind for kind in kinds[1:]] for label in labels], dtype=np.float64))
    rest = np.hstack(others)
    design = np.hstack([columns[:, used], rest])
    if np.linalg.matrix_rank(design) < np.linalg.matrix_rank(rest) + int(used.sum()):
        return None
    mapped = np.zeros((columns.shape[1], len(own)))
    mapped[used] = np.linalg.pinv(design)[: int(used.sum())]
    return mapped


def _over_tasks(groups: Sequence[Group]) -> Iterator[Sentence]:
    gains = [(group.name, gain[0]) for group in groups if (gain := mean_gain(group)) is not None]
    if not gains:
        return
    up = [(name, effect) for name, effect in gains if effect.is_told and effect.mean > 0]
    down = [(name, effect) for name, effect in gains if effect.is_told and effect.mean < 0]
    low, high = min(gains, key=lambda item: item[1].mean), max(gains, key=lambda item: item[1].mean)
    if len(gains) == 1:
        text = f"On {low[0]}, the only task with a baseline, a spatial transformer changes accuracy by {pp(low[1])}"
    elif up or down:
        text = f"A spatial transformer helps on {len(up)} of {len(gains)} tasks and hurts on {len(down)}"
    else:
        text = f"On none of {len(gains)} tasks does a spatial transformer have a significant effect"
    if len(gains) > 1:
        text += f"; its mean change goes from {pp(low[1])} ({low[0]}) to {pp(high[1])} ({high[0]})"
    text += "."
    yield Sentence(topic=Topic.TRANSFORMER, text=text, is_decided=bool(up or down), effects=tuple(gains))


def _ranks(tasks: TaskSummary, groups: Sequence[Group]) -> Iterator[Sentence]:
    if not tasks.ranks:
        return
    best = tasks.ranks[0]
    label = next(
        (
            _label(group, best.configuration)
            for group in groups
            if any(item.configuration == best.configuration for item in group.placed)
        ),
        best.configuration,
    )
    text = f"Over {len(tasks.tasks)} tasks {label} has the best mean rank, {best.mean_rank:.2f}"
    is_decided = False
    if tasks.critical_difference is not None:
        behind = sum(item.mean_rank - best.mean_rank > tasks.critical_difference for item in tasks.ranks)
        text += f"; {behind} of {len(tasks.ranks) - 1} others are behind by more than the critical difference"
        is_decided = behind > 0
    yield Sentence(topic=Topic.TASKS, text=f"{text}.", is_decided=is_decided)
    if tasks.note:
        yield Sentence(topic=Topic.TASKS, text=tasks.note)
