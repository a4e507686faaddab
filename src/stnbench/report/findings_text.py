"""Findings as sentences and tables of texts, the same in every format. Long ones are cut; ``--format json`` has all."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from stnbench.analysis.folds import FOLDS_METHOD
from stnbench.analysis.inference import LEVEL
from stnbench.report import text
from stnbench.report.board import Leaderboard
from stnbench.report.findings import (
    Findings,
    FoldsFinding,
    GainFinding,
    Interaction,
    MainEffect,
    PairFinding,
    ParetoFront,
)
from stnbench.report.table import Column, without_group

MOST_ROWS: Final = 20
"""Of a table: the best cells of each group, the labels with the largest effects."""

MOST_ON_FRONT: Final = 8

FOLDS: Final = "Over all folds"
"""The heading of what is summed over the folds of a cross-validation."""

Grouped = TypeVar("Grouped", FoldsFinding, PairFinding, GainFinding)

_COSTS: Final = {"parameters": "parameters", "flops": "FLOPs", "epoch_duration_s": "seconds an epoch"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One kind of finding: a heading, sentences, a table (no columns where there is none), and sentences below it."""

    heading: str
    above: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    below: tuple[str, ...] = ()


def findings_parts(board: Leaderboard) -> Iterator[Part]:
    """What there is to tell of a leaderboard's findings, kind by kind."""
    findings = board.findings
    if findings is None:
        return
    decimals = text.decimals_for(board.images)
    tells_gains = any(gain.over_images or gain.is_equal_size for gain in findings.gains)
    parts = (
        _folds(findings.folds) if findings.folds else None,
        _differences(findings.pairs, decimals, grouped=bool(board.within)) if findings.pairs else None,
        _gains(findings.gains, decimals, grouped=bool(board.within)) if tells_gains else None,
        _main_effects(findings.main_effects, decimals) if findings.main_effects else None,
        _interactions(findings.interactions, decimals) if findings.interactions else None,
        _importances(findings) if findings.importances else None,
        _fronts(findings.pareto, decimals) if findings.pareto else None,
        Part(heading="What these findings leave out", above=findings.notes) if findings.notes else None,
    )
    yield from (part for part in parts if part is not None)


def p_text(p_value: float | None) -> str:
    """A p-value to three decimals: ``0.012`` or ``< 0.001``."""
    if p_value is None:
        return text.MISSING
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _folds(recipes: Sequence[FoldsFinding]) -> Part:
    shown = _first_of_groups(recipes)
    decimals = text.decimals_for(min(recipe.images for recipe in shown))
    columns = [
        _column("cell", (_named(recipe.group, recipe.label, grouped=True) for recipe in shown), is_number=False),
        _column("folds", (f"{recipe.scored_folds} of {recipe.folds}" for recipe in shown)),
        _column("networks", (f"{recipe.networks:,}" for recipe in shown)),
        _column("images", (f"{recipe.images:,}" for recipe in shown)),
        _column("errors", (f"{round(recipe.errors, 1):,g}" for recipe in shown)),
        _column("validation % [95 %]", (text.score(recipe.accuracy, decimals) for recipe in shown)),
        _column("less the best (points)", (text.points(recipe.difference, decimals) for recipe in shown)),
        _column("p", (p_text(recipe.corrected_p) for recipe in shown)),
    ]
    return Part(
        heading=FOLDS,
        above=(
            "Cross-validation: each of these images was held out once, and read by networks that never saw its track.",
        ),
        columns=_told(columns),
        below=tuple(_folds_notes(recipes, left_out=len(recipes) - len(shown))),
    )


def folds_sentences(recipes: Sequence[FoldsFinding]) -> Iterator[str]:
    """The same in a line each, for where there is room for no second table."""
    for recipe in _first_of_groups(recipes):
        decimals = text.decimals_for(recipe.images)
        accuracy = text.score(recipe.accuracy, decimals)
        behind = f", {text.points(recipe.difference, decimals)} points to the best" if recipe.difference else ""
        yield text.clean(
            f"over {recipe.scored_folds} of {recipe.folds} folds, {_named(recipe.group, recipe.label, grouped=True)}: "
            f"{accuracy} % of {recipe.images:,} images ({FOLDS_METHOD}), {round(recipe.errors, 1):,g} errors{behind}"
        )


def _folds_notes(recipes: Sequence[FoldsFinding], *, left_out: int) -> Iterator[str]:
    if left_out:
        yield f"{left_out} more: --format json has them."
    if any(recipe.networks > recipe.scored_folds for recipe in recipes):
        yield "Errors are means over the networks of a fold, summed over folds."
    yield (
        "The interval is of t over folds, on the logarithm of the share of errors: other tracks and other seeds are in "
        "it. That the networks of two folds share most of their training images is not, nor can it be (Bengio and "
        "Grandvalet 2004)."
    )
    if any(recipe.difference for recipe in recipes):
        yield "Differences are of t over folds, paired; p is corrected by Holm's method for all pairs of rows."


def _differences(pairs: Sequence[PairFinding], decimals: int, *, grouped: bool) -> Part:
    shown = _first_of_groups(pairs)
    columns = [
        _column("cell", (_named(pair.group, pair.label, grouped=grouped) for pair in shown), is_number=False),
        _column("less the best (points)", (text.points(pair.difference, decimals) for pair in shown)),
        _column("p", (p_text(pair.corrected_p) for pair in shown)),
        _column("over seeds and images (points)", (text.points(pair.over_images, decimals) for pair in shown)),
        _column("p of it", (p_text(pair.over_images_corrected_p) for pair in shown)),
        _column("alone right", (_alone(pair) for pair in shown)),
        _column("McNemar p", (p_text(pair.mcnemar.p_value if pair.mcnemar else None) for pair in shown)),
        _column("chance to beat it %", (text.score(pair.improvement, 0) for pair in shown)),
        _column("seeds needed", (f"{pair.seeds_needed:,}" if pair.seeds_needed else text.MISSING for pair in shown)),
    ]
    best = dict.fromkeys(_named(pair.group, pair.best_label, grouped=grouped) for pair in pairs)
    more = [f"{len(pairs) - len(shown)} cells further down: --format json has them."] if len(shown) < len(pairs) else []
    return Part(
        heading="Differences",
        above=(f"Against {'the best' if len(best) == 1 else 'the best of each group'}: {'; '.join(best)}.",),
        columns=_told(columns),
        below=(*more, *_difference_notes(pairs)),
    )


def _difference_notes(pairs: Sequence[PairFinding]) -> Iterator[str]:
    yield (
        "The first interval is of t over common seeds, on these images; p is corrected by Holm's method for all pairs "
        "of cells, for the best was picked."
    )
    methods = dict.fromkeys(pair.over_images.method for pair in pairs if pair.over_images)
    if methods:
        yield (
            f"Over seeds and images ({'; '.join(methods)}): the same mean with the chance of other images in it, from "
            "a two-way layout of seeds and tracks; p is corrected likewise. Where this interval holds 0 and the first "
            "does not, the order may be of these images only."
        )
    if any(pair.mcnemar for pair in pairs):
        yield (
            "Alone right: how often the cell, and how often the best, was the only one of the two to be right, counted "
            "over images and seeds. McNemar's p takes these networks as they are, flips whole tracks with all their "
            "seeds, and is not corrected."
        )
    if any(pair.improvement for pair in pairs):
        yield "Chance to beat it: that a new run is ahead of a new run of the best with the same seed."
    if any(pair.seeds_needed for pair in pairs):
        yield (
            "Seeds needed: for 80 % power at the corrected level, were difference and spread as seen; few seeds know "
            "both badly, so it is a rough number."
        )


def _gains(gains: Sequence[GainFinding], decimals: int, *, grouped: bool) -> Part:
    shown = _first_of_groups(gains)
    twins = {True: "wider, as many parameters", False: "the same without"}
    columns = [
        _column("cell", (_named(gain.group, gain.label, grouped=grouped) for gain in shown), is_number=False),
        _column("twin", (twins[gain.is_equal_size] for gain in shown), is_number=False),
        _column("twin's parameters %", (text.percent(gain.parameter_ratio, 0) for gain in shown)),
        _column("ST gain (points)", (text.points(gain.difference, decimals) for gain in shown)),
        _column("over seeds and images (points)", (text.points(gain.over_images, decimals) for gain in shown)),
    ]
    more = [f"{len(gains) - len(shown)} more: --format json has them."] if len(shown) < len(gains) else []
    return Part(heading="Gains of transformers", columns=_told(columns), below=tuple(more))


def _main_effects(effects: Sequence[MainEffect], decimals: int) -> Part:
    largest = sorted(effects, key=lambda effect: -abs(effect.effect.mean))[: 2 * MOST_ROWS]
    shown = [effect for effect in effects if effect in largest]
    columns = [
        _column("axis", (effect.axis for effect in shown), is_number=False),
        _column("choice", (effect.label for effect in shown), is_number=False),
        _column("mean %", (text.percent(effect.mean, decimals) for effect in shown)),
        _column("effect (points)", (text.points(effect.effect, decimals) for effect in shown)),
        _column("n", (str(effect.effect.n) for effect in shown)),
        _column("from", (f"{effect.cells} cells, {effect.method}" for effect in shown), is_number=False),
    ]
    left_out = len(effects) - len(shown)
    more = [f"{left_out} choices with small effects are left out."] if left_out else []
    return Part(
        heading="Main effects",
        above=("How far each choice is from the mean of its axis, all else equal; intervals of t over seeds.",),
        columns=tuple(columns),
        below=tuple(more),
    )


def _interactions(interactions: Sequence[Interaction], decimals: int) -> Part:
    """Those that can be told from chance, in a line each; the others by name."""
    told = [pair for pair in interactions if pair.corrected_p is not None and pair.corrected_p <= LEVEL]
    told.sort(key=lambda pair: (-pair.largest, pair.first, pair.second))
    lines = [_interaction_line(pair, decimals) for pair in told[:MOST_ROWS]]
    others = [f"{pair.first} and {pair.second}" for pair in interactions if pair not in told]
    if others:
        shown = "; ".join(others[:MOST_ROWS])
        more = f"; and {len(others) - MOST_ROWS} more" if len(others) > MOST_ROWS else ""
        lines.append(f"Not told from chance, or with one seed only: {shown}{more}.")
    return Part(
        heading="Interactions",
        above=("Whether the effect of one axis depends on another: F tests with seeds as blocks, corrected by Holm.",),
        below=tuple(lines),
    )


def _interaction_line(pair: Interaction, decimals: int) -> str:
    value, row, column = max(
        ((value, row, column) for row, values in enumerate(pair.residuals) for column, value in enumerate(values)),
        key=lambda item: abs(item[0]),
    )
    return (
        f"{pair.first} and {pair.second}: F = {pair.statistic:.3g}, p {_equals(pair.corrected_p)} ({pair.seeds} seeds, "
        f"{pair.cells} cells); farthest from adding up: {pair.first_labels[row]} with {pair.second_labels[column]}, "
        f"{100 * value:+.{decimals}f} points."
    )


def _importances(findings: Findings) -> Part:
    shown = sorted(findings.importances, key=lambda item: (-(item.variance_explained or 0), item.axis))
    columns = [
        _column("axis", (item.axis for item in shown), is_number=False),
        _column("variance explained %", (text.percent(item.variance_explained, 0) for item in shown)),
        _column("PED-ANOVA %", (text.percent(item.ped_anova, 0) for item in shown)),
        _column("fANOVA %", (text.percent(item.fanova, 0) for item in shown)),
        _column("cells", (str(item.cells) for item in shown)),
    ]
    return Part(
        heading="Importance",
        above=(
            "Variance explained: the share of the variance of cells' mean accuracies that is between an axis's labels.",
            "PED-ANOVA: what the best tenth of cells has in common; fANOVA: what explains their variance.",
        ),
        columns=_told(columns),
    )


def _fronts(fronts: Sequence[ParetoFront], decimals: int) -> Part:
    return Part(
        heading="Pareto fronts",
        above=("Cells that no other beats in mean accuracy at the same cost or less, the cheapest first.",),
        below=tuple(_front_line(front, decimals) for front in fronts[: 3 * MOST_ROWS]),
    )


def _front_line(front: ParetoFront, decimals: int) -> str:
    """The cells at the expensive end, which are the best."""
    amount = text.seconds if front.cost == "epoch_duration_s" else text.count
    cells = [
        f"{without_group(label, front.group)} ({amount(cost)}: {text.percent(mean, decimals)} %)"
        for label, cost, mean in zip(front.labels, front.costs, front.means, strict=True)
    ]
    left_out = len(cells) - MOST_ON_FRONT
    more = f"{left_out} cheaper ones; " if left_out > 0 else ""
    where = f"{front.group}, " if front.group else ""
    return f"{where}{_COSTS[front.cost]}: {more}{'; '.join(cells[-MOST_ON_FRONT:])}."


def _first_of_groups(items: Iterable[Grouped]) -> list[Grouped]:
    seen: dict[str, int] = {}
    kept: list[Grouped] = []
    for item in items:
        seen[item.group] = seen.get(item.group, 0) + 1
        if seen[item.group] <= MOST_ROWS:
            kept.append(item)
    return kept


def _told(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Those that some row has something for."""
    return tuple(column for column in columns if any(cell != text.MISSING for cell in column.cells))


def _column(heading: str, cells: Iterable[str], *, is_number: bool = True) -> Column:
    return Column(heading=heading, cells=tuple(map(text.clean, cells)), is_number=is_number, importance=9)


def _alone(pair: PairFinding) -> str:
    return f"{pair.mcnemar.only_cell:,} : {pair.mcnemar.only_base:,}" if pair.mcnemar else text.MISSING


def _named(group: str, label: str, *, grouped: bool) -> str:
    return f"{group}: {label}" if grouped and group and group not in label else label


def _equals(p_value: float | None) -> str:
    said = p_text(p_value)
    return said if said.startswith("<") else f"= {said}"
