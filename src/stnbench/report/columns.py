"""The registry of the columns of every table of a report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from stnbench.analysis.effects import Estimate
from stnbench.analysis.verdicts import Effect, TaskRank, Verdict
from stnbench.report import table
from stnbench.report.board import FailureGroup, Leaderboard, Row
from stnbench.report.findings import (
    AgreementRow,
    Claim,
    ClaimVerdict,
    FoldsFinding,
    GainFinding,
    Importance,
    Interaction,
    MainEffect,
    PairFinding,
    ParetoFront,
)
from stnbench.report.table import ESSENTIAL, Column, Facet, Table, Tone, Value
from stnbench.spec.metrics import PERCENT, describe
from stnbench.spec.result import Verdict as Health

_VERDICT_TONES: Final[Mapping[Verdict, Tone]] = {
    Verdict.BEST: "best",
    Verdict.EQUIVALENT: "good",
    Verdict.UNDECIDED: "open",
    Verdict.LOWER: "faint",
}


def leaderboard_table(board: Leaderboard) -> Table[Row]:
    """Return the table of a leaderboard, with a row for each configuration."""
    health = [verdict.value for verdict in Health]
    return Table(
        key="rows",
        caption=f"Leaderboard of {board.sweep}",
        columns=[*_score_columns(board), *_metric_columns(board), *_cost_columns(), *_row_data(board)],
        items=board.rows,
        label="cell",
        group=lambda row: row.group,
        tone=_row_tone,
        facets=[
            *(Facet(heading=name, value=lambda row, name=name: dict(row.axes).get(name)) for name in board.axes),  # type: ignore[misc]
            Facet(heading="verdict", value=_verdict),
            Facet(
                heading="health, worst",
                value=lambda row: next((name for name in reversed(health) if getattr(row.health, name)), None),
            ),
        ],
    )


def _score_columns(board: Leaderboard) -> list[Column[Row]]:
    decimals = table.decimals_for(board.images)
    within: list[Column[Row]] = [
        Column(key="group", heading=board.within, value=lambda row: row.group or None, importance=9, is_number=False)
    ]
    return [
        *(within if board.within else ()),
        Column(key="cell", heading="configuration", value=lambda row: row.label, importance=ESSENTIAL, is_number=False,
               text=lambda row: table.without_group(row.label, row.group)),
        Column(key="", heading=f"{board.split} % [95 %]", value=lambda row: row.score, importance=ESSENTIAL,
               text=lambda row: _score_text(row, decimals), has_whisker=True),
        Column(key="rank", heading="rank", value=lambda row: row.rank or None, sort=lambda row: row.rank_first,
               importance=8),
        Column(key="verdict", heading="verdict", value=_verdict, text=_verdict_text, importance=8, is_number=False,
               tone=_row_tone),
        Column(key="st_gain", heading="ST gain (pp)", value=_gain, is_estimate=True,
               text=lambda row: table.points(_gain(row), decimals), importance=7),
        Column(key="health", heading="health", value=lambda row: asdict(row.health), text=lambda row: row.health.text,
               sort=lambda row: row.health.text, importance=7, is_number=False,
               tone=lambda row: "bad" if row.health.is_bad else "good" if row.health.verdicts else ""),
        Column(key="seeds", heading="n", value=lambda row: list(row.seeds), text=_seeds_text, sort=_n, importance=8),
        Column(key="test", heading="test % [95 %]" if board.split != "test" else "", value=lambda row: row.test,
               text=lambda row: table.score(row.test, 2), importance=6, is_estimate=True),
        Column(key="delta", heading="\u0394 vs best (pp)", value=_delta, is_estimate=True,
               text=lambda row: table.points(_delta(row), decimals), importance=4),
        Column(key="gain_equal_parameters", heading="gain over equal parameters (pp)", is_estimate=True, importance=5,
               value=lambda row: row.decision and row.decision.gain_equal_parameters,
               text=lambda row: table.points(row.decision and row.decision.gain_equal_parameters, decimals)),
    ]  # fmt: skip


def _metric_columns(board: Leaderboard) -> list[Column[Row]]:
    """Return a column for every metric of a row; people see those of meters and those that the sweep names."""

    def of_metric(name: str) -> Column[Row]:
        known = describe(name)
        unit = f" {known.unit}" if known.unit else ""
        is_metered = known.needs == "meter"
        where = "" if is_metered else f", {board.split}"
        return Column(
            key=f"metric_{name}",
            heading=f"{known.heading}{where}{unit} [95 %]" if is_metered or name in board.columns else "",
            value=lambda row: row.metrics.get(name),
            text=lambda row: _metric_text(row.metrics.get(name), known.unit),
            is_estimate=True,
            importance=3 if is_metered and name not in board.columns else 7,
        )

    found = dict.fromkeys([*board.columns, *(name for row in board.rows for name in row.metrics)])
    return [of_metric(name) for name in found]


def _metric_text(estimate: Estimate | None, unit: str) -> str:
    if estimate is None or unit == PERCENT:
        return table.score(estimate, 2)
    ends = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.4g}, {estimate.high:.4g}]"
    return f"{estimate.mean:.4g}{ends}"


def _cost_columns() -> list[Column[Row]]:
    return [
        Column(
            key="parameters",
            heading="parameters",
            value=lambda row: row.parameters,
            text=lambda row: table.count(row.parameters),
            importance=5,
        ),
        Column(
            key="flops", heading="FLOPs", value=lambda row: row.flops, text=lambda row: table.count(row.flops),
            importance=2,
        ),
        Column(key="activation_bytes", value=lambda row: row.activation_bytes),
        Column(
            key="epoch_duration_s",
            heading="s/epoch",
            value=lambda row: row.epoch_duration_s,
            text=lambda row: table.seconds(row.epoch_duration_s),
            importance=3,
        ),
        Column(
            key="peak_memory_mib",
            heading="memory, MiB",
            value=lambda row: row.peak_memory_mib,
            text=lambda row: table.MISSING if row.peak_memory_mib is None else f"{row.peak_memory_mib:,.0f}",
            importance=1,
        ),
        Column(
            key="notes",
            heading="notes",
            value=lambda row: list(row.notes),
            text=lambda row: "; ".join(row.notes),
            importance=6,
            is_number=False,
        ),
    ]  # fmt: skip


def _row_data(board: Leaderboard) -> list[Column[Row]]:
    """Return the columns that only programs get: of the rows and of their comparisons with the best."""
    pairs = {pair.config_id: pair for pair in (board.findings.pairs if board.findings else ())}

    def of_pair(
        key: str, value: Callable[[PairFinding], Value], *, is_estimate: bool = False, prefix: str | None = None
    ) -> Column[Row]:
        def of_row(row: Row) -> Value:
            return value(pairs[row.config_id]) if row.config_id in pairs else None

        return Column(key=key, value=of_row, is_estimate=is_estimate, prefix=prefix)

    grouped: list[Column[Row]] = [] if board.within else [Column(key="group", value=lambda row: row.group or None)]
    return [
        *grouped,
        Column(key="configuration", value=lambda row: row.label),
        Column(key="cell_id", value=lambda row: row.config_id),
        Column(key="split", value=lambda _: board.split),
        Column(key="rank_first", value=lambda row: row.rank_first),
        Column(key="rank_last", value=lambda row: row.rank_last),
        Column(key="axes", value=lambda row: dict(row.axes), prefix="axis:"),
        Column(key="baseline", value=lambda row: row.is_baseline),
        Column(key="standing", value=lambda row: row.standing.value if row.standing else None),
        Column(key="behind", value=lambda row: row.behind, is_estimate=True),
        Column(key="seeds_needed", value=lambda row: row.decision.seeds_needed if row.decision else row.seeds_needed),
        Column(key="failures", value=_failures, prefix="failures_"),
        Column(key="states", value=lambda row: asdict(row.states), prefix="trials_"),
        of_pair("behind_p_corrected", lambda pair: pair.corrected_p),
        of_pair("behind_over_images", lambda pair: pair.over_images, is_estimate=True),
        of_pair("behind_over_images_p_corrected", lambda pair: pair.over_images_corrected_p),
        of_pair("mcnemar", lambda pair: asdict(pair.mcnemar) if pair.mcnemar else None, prefix="mcnemar_"),
        of_pair("improvement", lambda pair: pair.improvement, is_estimate=True),
    ]


def _verdict(row: Row) -> str | None:
    if row.decision is not None:
        return row.decision.verdict and row.decision.verdict.value
    return row.standing.value if row.standing else None


def _verdict_text(row: Row) -> str:
    """Return the verdict as text, such as ``undecided (needs about 12 seeds)`` where that number would decide it."""
    word = _verdict(row)
    if word is None:
        return table.MISSING
    needed = row.decision.seeds_needed if row.decision is not None else row.seeds_needed
    return word if needed is None else f"{word} (needs about {needed:,} seeds)"


def _row_tone(row: Row) -> Tone:
    verdict = row.decision.verdict if row.decision is not None else row.standing
    return _VERDICT_TONES[verdict] if verdict else "faint"


def _gain(row: Row) -> Estimate | Effect | None:
    return row.decision.gain if row.decision is not None else row.st_gain


def _delta(row: Row) -> Estimate | Effect | None:
    return row.decision.delta if row.decision is not None else row.behind


def _score_text(row: Row, decimals: int) -> str:
    """Return the accuracy of the runs that did not fail as text, and beside it the number of those that did."""
    score = f"{table.score(row.score, decimals)} {table.method(row.score)}" if row.score else ""
    failures = row.decision.failures if row.decision else None
    if failures is None or not failures.failed:
        return score
    words = [f"{count} {word}" for word in ("collapsed", "diverged") if (count := getattr(failures, word))]
    return f"{score} ({' and '.join(words)} of {failures.runs})".strip()


def _failures(row: Row) -> Value:
    failures = row.decision.failures if row.decision else None
    return {**asdict(failures), "rate": failures.rate} if failures else None


def _seeds_text(row: Row) -> str:
    done, wanted = row.states.complete, row.states.trials
    return str(done) if done == wanted else f"{done}/{wanted}"


def _n(row: Row) -> int:
    return row.states.complete


FAILURES: Final[Sequence[Column[FailureGroup]]] = (
    Column(key="count", heading="trials", value=lambda group: len(group.trial_ids), importance=ESSENTIAL),
    Column(key="kind", heading="kind", value=lambda group: group.kind, importance=ESSENTIAL, is_number=False,
           tone=lambda _: "bad"),
    Column(key="message", heading="message", value=lambda group: group.message, importance=ESSENTIAL, is_number=False),
    Column(key="trial_ids", heading="trial ids", value=lambda group: list(group.trial_ids), is_number=False,
           text=lambda group: table.some(group.trial_ids, 3)),
)  # fmt: skip


def _named(label: str, group: str, *, grouped: bool) -> str:
    return table.with_group(label, group) if grouped else label


def folds_columns(decimals: int) -> list[Column[FoldsFinding]]:
    """Return the columns of recipes over the folds of a cross-validation."""
    return [
        Column(key="cell", heading="configuration", value=lambda it: it.label, importance=ESSENTIAL, is_number=False,
               text=lambda it: table.with_group(it.label, it.group)),
        Column(key="group", value=lambda it: it.group or None),
        Column(key="accuracy", heading="validation % [95 %]", value=lambda it: it.accuracy, importance=ESSENTIAL,
               is_estimate=True,
               text=lambda it: table.score(it.accuracy, decimals)),
        Column(key="folds", value=lambda it: it.folds),
        Column(key="scored_folds", heading="folds", value=lambda it: it.scored_folds,
               text=lambda it: f"{it.scored_folds} of {it.folds}"),
        Column(key="networks", heading="networks", value=lambda it: it.networks),
        Column(key="images", heading="images", value=lambda it: it.images),
        Column(key="errors", heading="errors", value=lambda it: it.errors, importance=7,
               text=lambda it: f"{round(it.errors, 1):,g}"),
        Column(key="standing", value=lambda it: it.standing.value),
        Column(key="difference", heading="\u0394 vs best (pp)", value=lambda it: it.difference, importance=7,
               is_estimate=True,
               text=lambda it: table.points(it.difference, decimals)),
        Column(key="p_corrected", heading="adjusted p", value=lambda it: it.corrected_p, importance=6,
               text=lambda it: table.p_value(it.corrected_p)),
    ]  # fmt: skip


def pair_columns(decimals: int, *, grouped: bool) -> list[Column[PairFinding]]:
    """Return the columns of comparisons with the best configuration of a group."""
    return [
        Column(key="cell", heading="configuration", value=lambda it: it.label, importance=ESSENTIAL, is_number=False,
               text=lambda it: _named(it.label, it.group, grouped=grouped)),
        Column(key="group", value=lambda it: it.group or None),
        Column(key="cell_id", value=lambda it: it.config_id),
        Column(key="best", value=lambda it: it.best_label),
        Column(key="best_cell_id", value=lambda it: it.best_config_id),
        Column(key="standing", value=lambda it: it.standing.value),
        Column(key="difference", heading="\u0394 vs best (pp)", value=lambda it: it.difference, importance=ESSENTIAL,
               is_estimate=True,
               text=lambda it: table.points(it.difference, decimals)),
        Column(key="p_corrected", heading="adjusted p", value=lambda it: it.corrected_p, importance=8,
               text=lambda it: table.p_value(it.corrected_p)),
        Column(key="over_images", heading="over seeds and images (pp)", value=lambda it: it.over_images, importance=7,
               is_estimate=True,
               text=lambda it: table.points(it.over_images, decimals)),
        Column(key="over_images_p_corrected", heading="adjusted p, over images", importance=6,
               value=lambda it: it.over_images_corrected_p, text=lambda it: table.p_value(it.over_images_corrected_p)),
        Column(key="mcnemar", heading="discordant (b : c)", prefix="mcnemar_",
               value=lambda it: asdict(it.mcnemar) if it.mcnemar else None,
               text=_discordant, sort=lambda it: it.mcnemar.only_config if it.mcnemar else None, importance=4),
        Column(key="mcnemar_p", heading="McNemar p", value=lambda it: it.mcnemar.p_value if it.mcnemar else None,
               text=lambda it: table.p_value(it.mcnemar.p_value if it.mcnemar else None), importance=3),
        Column(key="improvement", heading="probability of improvement, %", value=lambda it: it.improvement,
               is_estimate=True,
               text=lambda it: table.score(it.improvement, 0), importance=5),
        Column(key="seeds_needed", heading="seeds needed", value=lambda it: it.seeds_needed, importance=5),
    ]  # fmt: skip


def _discordant(pair: PairFinding) -> str:
    return f"{pair.mcnemar.only_config:,} : {pair.mcnemar.only_base:,}" if pair.mcnemar else table.MISSING


def gain_columns(decimals: int, *, grouped: bool) -> list[Column[GainFinding]]:
    """Return the columns of gains of transformers over the baselines without them."""
    baselines = {True: "equal-parameter baseline", False: "baseline"}
    return [
        Column(key="cell", heading="configuration", value=lambda it: it.label, importance=ESSENTIAL, is_number=False,
               text=lambda it: _named(it.label, it.group, grouped=grouped)),
        Column(key="group", value=lambda it: it.group or None),
        Column(key="cell_id", value=lambda it: it.config_id),
        Column(key="baseline_cell_id", value=lambda it: it.baseline_config_id),
        Column(key="equal_parameters", heading="over", value=lambda it: it.is_equal_size, is_number=False,
               text=lambda it: baselines[it.is_equal_size], importance=8),
        Column(key="parameter_ratio", heading="its parameters, %", value=lambda it: it.parameter_ratio,
               text=lambda it: table.percent(it.parameter_ratio, 0)),
        Column(key="difference", heading="ST gain (pp)", value=lambda it: it.difference, importance=ESSENTIAL,
               is_estimate=True,
               text=lambda it: table.points(it.difference, decimals)),
        Column(key="over_images", heading="over seeds and images (pp)", value=lambda it: it.over_images, importance=7,
               is_estimate=True,
               text=lambda it: table.points(it.over_images, decimals)),
    ]  # fmt: skip


def effect_columns(decimals: int) -> list[Column[MainEffect]]:
    """Return the columns of main effects, with a row for each choice of an axis."""
    return [
        Column(key="axis", heading="axis", value=lambda it: it.axis, importance=ESSENTIAL, is_number=False),
        Column(key="label", heading="choice", value=lambda it: it.label, importance=ESSENTIAL, is_number=False),
        Column(key="mean", heading="mean %", value=lambda it: it.mean,
               text=lambda it: table.percent(it.mean, decimals)),
        Column(key="effect", is_estimate=True, heading="effect (pp)", value=lambda it: it.effect, importance=ESSENTIAL,
               text=lambda it: table.points(it.effect, decimals)),
        Column(key="n", heading="n", value=lambda it: it.effect.n),
        Column(key="cells", heading="configurations", value=lambda it: it.configs),
        Column(key="method", heading="method", value=lambda it: it.method, is_number=False, importance=4),
    ]  # fmt: skip


def interaction_columns(decimals: int) -> list[Column[Interaction]]:
    """Return the columns of interactions, with a row for each pair of axes."""
    return [
        Column(key="first", heading="axis", value=lambda it: it.first, importance=ESSENTIAL, is_number=False),
        Column(key="second", heading="and axis", value=lambda it: it.second, importance=ESSENTIAL, is_number=False),
        Column(key="f", heading="F", value=lambda it: it.statistic,
               text=lambda it: table.MISSING if it.statistic is None else f"{it.statistic:.3g}"),
        Column(key="p", value=lambda it: it.p_value),
        Column(key="p_corrected", heading="adjusted p", value=lambda it: it.corrected_p, importance=8,
               text=lambda it: table.p_value(it.corrected_p)),
        Column(key="largest", heading="largest departure (pp)", value=lambda it: it.largest, is_number=False,
               text=lambda it: _departure(it, decimals), importance=7),
        Column(key="seeds", heading="seeds", value=lambda it: it.seeds),
        Column(key="cells", heading="configurations", value=lambda it: it.configs),
        Column(key="first_labels", value=lambda it: list(it.first_labels)),
        Column(key="second_labels", value=lambda it: list(it.second_labels)),
        Column(key="means", value=lambda it: [list(row) for row in it.means]),
        Column(key="residuals", value=lambda it: [list(row) for row in it.residuals]),
    ]  # fmt: skip


def _departure(pair: Interaction, decimals: int) -> str:
    value, row, column = max(
        ((value, row, column) for row, values in enumerate(pair.residuals) for column, value in enumerate(values)),
        key=lambda item: abs(item[0]),
    )
    return f"{table.signed(value, decimals)} for {pair.first_labels[row]} with {pair.second_labels[column]}"


IMPORTANCES: Final[Sequence[Column[Importance]]] = (
    Column(key="axis", heading="axis", value=lambda it: it.axis, importance=ESSENTIAL, is_number=False),
    Column(key="variance_explained", heading="variance explained, %", value=lambda it: it.variance_explained,
           text=lambda it: table.percent(it.variance_explained, 0), importance=8),
    Column(key="ped_anova", heading="PED-ANOVA, %", value=lambda it: it.ped_anova,
           text=lambda it: table.percent(it.ped_anova, 0)),
    Column(key="fanova", heading="fANOVA, %", value=lambda it: it.fanova, text=lambda it: table.percent(it.fanova, 0)),
    Column(key="cells", heading="configurations", value=lambda it: it.configs),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontPoint:
    """A configuration on a Pareto front; ``mean`` is its accuracy in [0, 1]."""

    group: str
    cost_name: str
    config_id: str
    label: str
    cost: float
    mean: float


COSTS: Final = {"parameters": "parameters", "flops": "FLOPs", "epoch_duration_s": "s/epoch"}


def front_points(fronts: Iterable[ParetoFront]) -> list[FrontPoint]:
    """Return the points of all fronts, one front after the other."""
    return [
        FrontPoint(group=front.group, cost_name=front.cost, config_id=config_id, label=label, cost=cost, mean=mean)
        for front in fronts
        for config_id, label, cost, mean in zip(front.config_ids, front.labels, front.costs, front.means, strict=True)
    ]


def front_columns(decimals: int) -> list[Column[FrontPoint]]:
    """Return the columns of points of Pareto fronts."""
    return [
        Column(key="cost_name", heading="cost", value=lambda it: it.cost_name, is_number=False, importance=ESSENTIAL,
               text=lambda it: COSTS[it.cost_name]),
        Column(key="group", heading="group", value=lambda it: it.group or None, is_number=False, importance=8),
        Column(key="cell", heading="configuration", value=lambda it: it.label, is_number=False, importance=ESSENTIAL,
               text=lambda it: table.without_group(it.label, it.group)),
        Column(key="cell_id", value=lambda it: it.config_id),
        Column(key="cost", heading="amount", value=lambda it: it.cost, importance=ESSENTIAL,
               text=lambda it: table.seconds(it.cost) if it.cost_name == "epoch_duration_s" else table.count(it.cost)),
        Column(key="mean", heading="accuracy, %", value=lambda it: it.mean, importance=ESSENTIAL,
               text=lambda it: table.percent(it.mean, decimals)),
    ]  # fmt: skip


def published_columns(split: str) -> list[Column[AgreementRow]]:
    """Return the columns of configurations with a published accuracy; ``split`` is that of our accuracies."""
    return [
        Column(key="cell", heading="configuration", value=lambda it: it.label, is_number=False, importance=ESSENTIAL),
        Column(key="cell_id", value=lambda it: it.config_id),
        Column(key="published_rank", heading="published rank", value=lambda it: it.published_rank, importance=8,
               text=lambda it: f"{it.published_rank:g}"),
        Column(key="our_rank", heading="rank here", value=lambda it: it.our_rank, importance=8,
               text=lambda it: f"{it.our_rank:g}"),
        Column(key="published", heading="published, test % [95 %] W", value=lambda it: it.published, importance=7,
               is_estimate=True,
               text=lambda it: table.score(it.published, 2)),
        Column(key="ours", heading=f"here, {split} % [95 %]", value=lambda it: it.ours, importance=ESSENTIAL,
               is_estimate=True,
               text=lambda it: f"{table.score(it.ours, 2)} {table.method(it.ours)}"),
        Column(key="n", heading="n", value=lambda it: it.ours.n),
    ]  # fmt: skip


_CLAIM_TONES: Final[Mapping[ClaimVerdict, Tone]] = {
    ClaimVerdict.HOLDS: "good",
    ClaimVerdict.DOES_NOT_HOLD: "bad",
    ClaimVerdict.UNDECIDED: "open",
}

CLAIMS: Final[Sequence[Column[Claim]]] = (
    Column(key="claim", heading="published claim", value=lambda it: it.name, is_number=False, importance=ESSENTIAL),
    Column(key="verdict", heading="verdict", value=lambda it: it.verdict.value, is_number=False, importance=ESSENTIAL,
           tone=lambda it: _CLAIM_TONES[it.verdict]),
    Column(key="effect", is_estimate=True, heading="effect (pp) [95 %]", value=lambda it: it.effect, importance=8,
           text=lambda it: table.points(it.effect, 2)),
    Column(key="published_effect", heading="published effect (pp)", value=lambda it: it.published_effect, importance=7,
           text=lambda it: table.MISSING if it.published_effect is None else table.signed(it.published_effect, 2)),
    Column(key="unit", heading="effect is", value=lambda it: it.unit, is_number=False),
    Column(key="comparisons", heading="comparisons", value=lambda it: it.comparisons),
    Column(key="cells", heading="configurations", value=lambda it: it.configs),
    Column(key="method", heading="method", value=lambda it: it.method, is_number=False,
           text=lambda it: f"{it.method}; {it.detail}"),
    Column(key="detail", value=lambda it: it.detail),
)  # fmt: skip


TASKS: Final[Sequence[Column[TaskRank]]] = (
    Column(key="cell", heading="configuration", value=lambda it: it.configuration, is_number=False,
           importance=ESSENTIAL),
    Column(key="mean_rank", heading="mean rank [95 %]", value=lambda it: it.mean_rank, importance=ESSENTIAL,
           text=lambda it: f"{it.mean_rank:.2f} [{it.low:.2f}, {it.high:.2f}]"),
    Column(key="low", value=lambda it: it.low),
    Column(key="high", value=lambda it: it.high),
    Column(key="wins", heading="wins", value=lambda it: it.wins, importance=7),
    Column(key="ties", heading="ties", value=lambda it: it.ties, importance=7),
    Column(key="losses", heading="losses", value=lambda it: it.losses, importance=7),
    Column(key="imputed", heading="imputed tasks", value=lambda it: it.imputed),
)  # fmt: skip
