"""The sections of a report, which every format renders."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from stnbench.analysis.effects import LEVEL, RankCorrelation
from stnbench.analysis.verdicts import FOLDS_METHOD, Comparison, TaskSummary
from stnbench.core.identity import Json
from stnbench.report import columns, trials
from stnbench.report import table as text
from stnbench.report.board import Leaderboard, Row, StateCounts
from stnbench.report.findings import Agreement, ClaimVerdict, Findings, FoldsFinding, GainFinding, PairFinding
from stnbench.report.runs import RunSummary
from stnbench.report.table import Section, Table

MOST_ROWS: Final = 20
"""The largest number of rows of a table that documents show, for each group."""

MOST_ON_FRONT: Final = 8

Sections = tuple[Section, ...]


def board_sections(board: Leaderboard) -> Sections:
    """Return the sections of a sweep's report, in order, without those that are empty.

    The same leaderboard gives the same sections.
    """
    run = run_section(board.run, board.states, [found for _, found in board.comparisons]) if board.run else None
    is_news = bool(board.states.unfinished)  # of a sweep that went well, the leaderboard comes first
    found = (
        answer_section(board),
        run if is_news else None,
        failures_section(board),
        leaderboard_section(board),
        None if is_news else run,
        tasks_section(board.tasks) if board.tasks else None,
        *(findings_sections(board, board.findings) if board.findings else ()),
        *(published_sections(board.agreement) if board.agreement else ()),
        trials_section(board) if board.trials else None,
        provenance_section(board),
    )
    return tuple(section for section in found if section is not None)


def leaderboard_section(board: Leaderboard) -> Section:
    """Return the section with the ranking and the meaning of its words."""
    images = f", {board.images:,} images" if board.images else ""
    tables = (columns.leaderboard_table(board),) if board.rows else ()
    lines = [f"Accuracy on the {board.split} split{images}."]
    if board.is_provisional:
        lines.append(f"Provisional: {board.states.unfinished or 'runs are missing'}; ranks and verdicts may change.")
    notes = dict.fromkeys(note for _, comparison in board.comparisons for note in comparison.notes)
    return Section(
        key="leaderboard",
        heading="Leaderboard (provisional)" if board.is_provisional else "Leaderboard",
        text=lines,
        tables=tables,
        notes=(*board.notes, *notes),
    )


def tasks_section(tasks: TaskSummary) -> Section:
    """Return the section with mean ranks of configurations over the tasks of a sweep."""
    lines = [f"Over {text.counted(len(tasks.tasks), 'task')}: {', '.join(tasks.tasks)}. Rank 1 is the best."]
    if tasks.critical_difference is not None:
        lines.append(
            f"Mean ranks that differ by more than {tasks.critical_difference:.2f} differ significantly (Nemenyi's "
            f"critical difference; Friedman p {text.equals_p(tasks.friedman_p)})."
        )
    lines += [f"No significant difference: {', '.join(clique)}." for clique in tasks.cliques]
    return Section(
        key="tasks",
        heading="Across tasks",
        text=lines,
        tables=(_table("tasks", "Mean ranks over tasks", columns.TASKS, tasks.ranks),),
        notes=(tasks.note,) if tasks.note else (),
    )


def answer_section(board: Leaderboard) -> Section:
    """Return the section that answers the sweep's question in a few sentences."""
    lines = board.answer.lines if board.answer else tuple(_answer(board))
    if board.findings and board.findings.folds:
        lines = (*_folds_sentences(board.findings.folds), *lines)
    return Section(key="answer", heading="Answer", text=lines)


def _answer(board: Leaderboard) -> Iterator[str]:
    groups: dict[str, list[Row]] = {}
    for row in board.rows:
        if row.score is not None:
            groups.setdefault(row.group, []).append(row)
    if board.why_unscored:
        yield board.why_unscored
    for group, rows in groups.items():
        decimals = text.decimals_for(board.images)
        best = rows[0]
        where = f"{group}: " if group else ""
        label = text.without_group(best.label, group)
        yield f"{where}{label} scores highest, {text.score(best.score, decimals)} % ({text.counted(_n(best), 'seed')})."
        if best.st_gain is not None and len(groups) == 1:
            gain = text.points(best.st_gain, decimals)
            yield f"That is {gain} percentage points over the same network without its transformers."


def _n(row: Row) -> int:
    return row.score.n if row.score else 0


def run_section(run: RunSummary, states: StateCounts, comparisons: Sequence[Comparison] = ()) -> Section:
    """Return the section about the run: its times, why it ended, the use of slots, and the commands to type next."""
    started, ended = trials.at(run.started_at), trials.at(run.ended_at)
    others = f" ({states.unfinished})" if states.unfinished else ""
    facts = [
        ("Trials", f"{states.complete} of {states.trials} complete{others}"),
        ("Started", f"{started} UTC"),
        ("Last event", f"{ended} UTC, after {text.duration(run.wall_s)}"),
        ("Device hours", f"{run.device_hours:.2f}"),
    ]
    if run.price is not None:
        facts.append(("Price", run.price.of(run.device_hours)))
    facts.append(("Energy", str(run.energy)))
    decided = sum(comparison.decided for comparison in comparisons)
    asked = sum(max(sum(item.verdict is not None for item in found.decisions) - 1, 0) for found in comparisons)
    pace = decided / run.device_hours if run.device_hours else None
    if asked and pace is not None:
        facts.append(("Decided", f"{decided} of {asked} verdicts against the best, {pace:.3g} per device hour"))
    facts = facts if run.started_at else facts[:1]
    slots = (_table("slots", "Use of slots", trials.SLOTS, run.slots),) if run.slots else ()
    return Section(
        key="run",
        heading="Run",
        text=(run.reason,),
        facts=[*facts, *((f"Next: {what}", command) for what, command in run.commands)],
        tables=slots,
        data={"started_at": trials.iso(run.started_at), "ended_at": trials.iso(run.ended_at),
              "reason": run.reason, "device_hours": round(run.device_hours, 6), "decided": decided, "asked": asked,
              "decided_per_device_hour": None if pace is None else round(pace, 6),
              "price": None if run.price is None else {**run.price.plain(run.device_hours)},
              "energy": {**run.energy.plain}},
    )  # fmt: skip


def trials_section(board: Leaderboard) -> Section:
    """Return the section with every trial, in the order of the leaderboard, then of seeds."""
    order = {row.config_id: place for place, row in enumerate(board.rows)}
    rows = sorted(board.trials, key=lambda row: (order.get(row.config_id, len(order)), row.seed))
    name = f"{board.sweep}:{rows[0].label}#{rows[0].seed}"
    return Section(
        key="trials",
        heading="Trials",
        text=(f"Commands take a trial by its id, its beginning, or a name such as {name} or {board.sweep}:best.",),
        tables=(trials.trial_table(rows, f"Trials of {board.sweep}", MOST_ROWS),),
    )


def failures_section(board: Leaderboard) -> Section | None:
    """Return the section with the failed trials by kind and message, or None without a failure."""
    if not board.failures:
        return None
    failed, reasons = board.states.failed, len(board.failures)
    kinds = _table("failed_kinds", "Failed trials by kind", trials.KINDS, board.run.failed) if board.run else None
    groups = _table("failures", "Failed trials by kind and message", columns.FAILURES, board.failures)
    return Section(
        key="failures",
        heading="Failures",
        text=(
            f"{failed} of {text.counted(board.states.trials, 'trial')} failed, for {text.counted(reasons, 'reason')}.",
        ),
        tables=(kinds, groups) if kinds and kinds.items else (groups,),
    )


def provenance_section(board: Leaderboard) -> Section:
    """Return the section with the provenance of the numbers."""
    known = board.provenance
    data: dict[str, Json] = {
        name: [asdict(item) for item in getattr(known, name)]
        for name in ("commits", "devices", "platforms", "versions", "datasets")
    }
    return Section(
        key="provenance",
        heading="How it was run",
        facts=text.provenance_lines(known),
        data={"command": known.command, "seeds": list(known.seeds), **data},
    )


def findings_sections(board: Leaderboard, findings: Findings) -> Iterator[Section]:
    """Yield a section for each kind of findings that there is."""
    decimals, grouped = text.decimals_for(board.images), bool(board.within)
    parts: tuple[tuple[Sequence[Any], Callable[[], Section]], ...] = (
        (findings.folds, lambda: _folds(findings.folds)),
        (findings.pairs, lambda: _differences(findings.pairs, decimals, grouped=grouped)),
        (findings.gains, lambda: _gains(findings.gains, decimals, grouped=grouped)),
        (findings.main_effects, lambda: _effects(findings, decimals)),
        (findings.interactions, lambda: _interactions(findings, decimals)),
        (findings.importances, lambda: _importances(findings)),
        (findings.pareto, lambda: _fronts(findings, decimals)),
        (findings.notes, lambda: _left_out(findings.notes)),
    )
    yield from (build() for items, build in parts if items)


def _left_out(notes: Sequence[str]) -> Section:
    return Section(key="left_out", heading="What these findings leave out", notes=notes, is_detail=True)


def _gains(gains: Sequence[GainFinding], decimals: int, *, grouped: bool) -> Section:
    own = columns.gain_columns(decimals, grouped=grouped)
    table = _table("gains", "Gains of transformers", own, gains)
    return Section(key="gains", heading="Gains of transformers", tables=(table,), is_detail=True)


def _table(key: str, caption: str, own: Sequence[Any], items: Sequence[Any], most: int = MOST_ROWS) -> Table[Any]:
    label = next((column.key for column in own if column.heading), "")
    has_groups = any(hasattr(item, "group") for item in items)
    return Table(
        key=key,
        caption=caption,
        columns=own,
        items=items,
        label=label,
        most=most,
        group=(lambda item: item.group) if has_groups else None,
    )


def _folds(recipes: Sequence[FoldsFinding]) -> Section:
    decimals = text.decimals_for(min(recipe.images for recipe in recipes))
    return Section(
        key="folds",
        heading="Over all folds",
        text=("Cross-validation: each image was held out once, and scored by networks that never saw its track.",),
        tables=(_table("folds", "Recipes over all folds", columns.folds_columns(decimals), recipes),),
        notes=tuple(_folds_notes(recipes)),
    )


def _folds_sentences(recipes: Sequence[FoldsFinding]) -> Iterator[str]:
    best = recipes[0]
    decimals = text.decimals_for(best.images)
    yield (
        f"Over {best.scored_folds} of {best.folds} folds, {text.with_group(best.label, best.group)}: "
        f"{text.score(best.accuracy, decimals)} % of {best.images:,} images ({FOLDS_METHOD}), "
        f"{round(best.errors, 1):,g} errors."
    )


def _folds_notes(recipes: Sequence[FoldsFinding]) -> Iterator[str]:
    if any(recipe.networks > recipe.scored_folds for recipe in recipes):
        yield "Errors are means over the networks of a fold, summed over folds."
    yield (
        "The interval is of t over folds, on the logarithm of the share of errors; it covers other tracks and other "
        "seeds. It does not cover that the networks of two folds share most of their training images, and no interval "
        "can (Bengio and Grandvalet 2004)."
    )
    if any(recipe.difference for recipe in recipes):
        yield "Differences are paired by fold (t over folds); p is adjusted by Holm's method for all pairs of rows."


def _differences(pairs: Sequence[PairFinding], decimals: int, *, grouped: bool) -> Section:
    best = dict.fromkeys(text.with_group(pair.best_label, pair.group) if grouped else pair.best_label for pair in pairs)
    against = "the best" if len(best) == 1 else "the best of each group"
    return Section(
        key="differences",
        heading="Differences from the best",
        text=(f"Compared with {against}: {'; '.join(best)}.",),
        tables=(_table("differences", "Differences", columns.pair_columns(decimals, grouped=grouped), pairs),),
        notes=tuple(_difference_notes(pairs)),
        is_detail=True,
    )


def _difference_notes(pairs: Sequence[PairFinding]) -> Iterator[str]:
    yield (
        "The first interval is of t over common seeds, on these images; p is adjusted by Holm's method for all pairs "
        "of configurations, because the best was selected."
    )
    methods = dict.fromkeys(pair.over_images.method for pair in pairs if pair.over_images)
    if methods:
        yield (
            f"Over seeds and images ({'; '.join(methods)}): the same mean with an interval that also covers other "
            "images, from a two-way layout of seeds and tracks. Where this interval holds 0 and the first does not, "
            "the order may hold for these images only."
        )
    if any(pair.mcnemar for pair in pairs):
        yield (
            "Discordant (b : c): images, counted over seeds, that only the configuration (b) or only the best (c) "
            "classifies correctly. McNemar's p takes these networks as given, permutes whole tracks, and is not "
            "adjusted."
        )
    if any(pair.improvement for pair in pairs):
        yield "Probability of improvement: that a new run scores above a new run of the best with the same seed."
    if any(pair.seeds_needed for pair in pairs):
        yield (
            "Seeds needed: for 80 % power at the adjusted level, if difference and spread are as observed; few seeds "
            "estimate both badly."
        )


def _effects(findings: Findings, decimals: int) -> Section:
    largest = sorted(findings.main_effects, key=lambda effect: -abs(effect.effect.mean))[: 2 * MOST_ROWS]
    first = [effect for effect in findings.main_effects if effect in largest]
    others = [effect for effect in findings.main_effects if effect not in largest]
    table = _table("main_effects", "Main effects", columns.effect_columns(decimals), [*first, *others], 2 * MOST_ROWS)
    return Section(
        key="main_effects",
        heading="Main effects",
        text=("How far each choice is from the mean of its axis, all else equal; intervals of t over seeds.",),
        tables=(table,),
        is_detail=True,
    )


def _interactions(findings: Findings, decimals: int) -> Section:
    """Return the section with the interactions, the significant ones first."""
    ordered = sorted(
        findings.interactions,
        key=lambda pair: (pair.corrected_p is None or pair.corrected_p > LEVEL, -pair.largest, pair.first, pair.second),
    )
    told = sum(pair.corrected_p is not None and pair.corrected_p <= LEVEL for pair in ordered)
    return Section(
        key="interactions",
        heading="Interactions",
        text=(
            "Whether the effect of one axis depends on another: F tests with seeds as blocks, Holm-adjusted.",
            f"{told} of {text.counted(len(ordered), 'pair')} of axes are significant at 5 %.",
        ),
        tables=(_table("interactions", "Interactions", columns.interaction_columns(decimals), ordered),),
        is_detail=True,
    )


def _importances(findings: Findings) -> Section:
    ordered = sorted(findings.importances, key=lambda item: (-(item.variance_explained or 0), item.axis))
    return Section(
        key="importances",
        heading="Importance of axes",
        tables=(_table("importances", "Importance of axes", columns.IMPORTANCES, ordered),),
        notes=(
            "Variance explained (eta squared): the share of the variance of mean accuracies between an axis's choices.",
            "PED-ANOVA: what the best tenth of configurations has in common; fANOVA: what explains their variance.",
        ),
        is_detail=True,
    )


def _fronts(findings: Findings, decimals: int) -> Section:
    points = columns.front_points(findings.pareto)
    return Section(
        key="pareto",
        heading="Pareto fronts",
        text=("Configurations that no other beats in mean accuracy at the same cost or less, the cheapest first.",),
        tables=(_table("pareto", "Pareto fronts", columns.front_columns(decimals), points, 3 * MOST_ON_FRONT),),
        is_detail=True,
    )


def published_sections(agreement: Agreement) -> Iterator[Section]:
    """Yield the sections with the published results of the same configurations, and with the published claims."""
    if agreement.rows:
        table = _table(
            "published", f"Ranks here and in {agreement.published}", columns.published_columns(agreement.split),
            agreement.rows, len(agreement.rows),
        )  # fmt: skip
        correlations: dict[str, Json] = {
            name: None if found is None else {"value": found.value, "low": found.low, "high": found.high,
                                              "p": found.p_value, "method": found.method}
            for name, found in (("tau", agreement.tau), ("rho", agreement.rho))
        }  # fmt: skip
        yield Section(
            key="published",
            heading="Comparison with published results",
            text=tuple(_agreement_sentences(agreement)),
            tables=(table,),
            data={"published": agreement.published, "seeds": list(agreement.seeds), **correlations},
        )
    if agreement.claims or agreement.untested:
        yield Section(
            key="claims",
            heading="Published claims",
            text=tuple(_claim_sentences(agreement)),
            tables=(_table("claims", "Published claims, tested here", columns.CLAIMS, agreement.claims),)
            if agreement.claims
            else (),
        )


def _agreement_sentences(agreement: Agreement) -> Iterator[str]:
    configs, seeds = len(agreement.rows), len(agreement.seeds)
    yield (
        f"{text.counted(configs, 'configuration')} of this sweep {'has' if configs == 1 else 'have'} an accuracy in "
        f"{agreement.published}: ours are means over {text.counted(seeds, 'seed')} on the {agreement.split} split, the "
        f"published ones one run each at full size on the {agreement.published_images:,} {agreement.published_split} "
        "images."
    )
    yield from (_correlation(found) for found in (agreement.tau, agreement.rho) if found is not None)
    if agreement.tau is not None and agreement.tau.low is not None:
        yield (
            "The intervals cover other seeds of ours, for these configurations; they do not cover how much a published "
            "run would change with its seed. Noise draws a rank correlation towards 0, so the true value may lie "
            "above the estimate."
        )
    if agreement.left_out:
        left_out = text.counted(agreement.left_out, "configuration")
        yield f"{left_out} with a published accuracy left out: a seed is missing."


def _claim_sentences(agreement: Agreement) -> Iterator[str]:
    if agreement.claims:
        yield (
            "Each claim is tested by itself at 5 %, on our configurations; undecided means that our seeds say neither, "
            "and the note says which parts. "
            "The published effects have no interval: one run each."
        )
    for claim in agreement.claims:
        if claim.verdict is ClaimVerdict.UNDECIDED:
            yield f"{claim.name}: undecided; {claim.detail}."
    if agreement.untested:
        yield f"Not tested, because the sweep has no such configurations: {'; '.join(agreement.untested)}."


def _correlation(found: RankCorrelation) -> str:
    interval = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}] at 95 %"
    return (
        f"{found.measure} {found.value:.2f}{interval} ({found.method}; {text.counted(found.configs, 'configuration')}, "
        f"{text.counted(found.seeds, 'seed')}); p = {found.p_value:.2g} for no agreement, by permutation."
    )
