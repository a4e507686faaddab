"""The head of a page: the question, the answer in a sentence, and the facts that a reader must know first."""

from collections.abc import Iterator, Mapping, Sequence

from stnbench.analysis.inference import Standing
from stnbench.report import text
from stnbench.report.board import Leaderboard, Row
from stnbench.report.page.html import column, escape, table
from stnbench.report.table import without_group

_MOST_GROUPS = 12


def head_lines(board: Leaderboard) -> Iterator[str]:
    """Name, question, answer and facts."""
    yield f'<p class="eyebrow">stnbench, sweep <code>{escape(board.sweep)}</code></p>'
    yield f"<h1>{escape(board.question) or escape(board.sweep)}</h1>"
    groups: dict[str, list[Row]] = {}
    for row in board.rows:
        if row.score is not None:
            groups.setdefault(row.group, []).append(row)
    if not groups:
        yield '<p class="answer">No trial is complete yet.</p>'
    elif len(groups) == 1:
        (rows,) = groups.values()
        yield f'<p class="answer">{_answer(board, rows)}</p>'
    else:
        yield from _group_table(board, groups)
    yield from _facts(board)


def best_row(board: Leaderboard) -> Row | None:
    """The best cell, of the first group where there are several; None without a score."""
    return next((row for row in board.rows if row.standing is Standing.BEST), None)


def _answer(board: Leaderboard, rows: Sequence[Row]) -> str:
    best = rows[0]
    images = f"{board.images:,} " if board.images else ""
    said = f"{_score(board, best)} of {images}{escape(board.split)} images right"
    sentences = [f"<strong>{escape(best.label)}</strong> scores highest: {said} ({_method(best)})."]
    sentences.append(_others(rows))
    if best.st_gain is not None:
        gain = escape(text.points(best.st_gain, text.decimals_for(board.images)))
        sentences.append(f"That is {gain} percentage points over the same network without its transformers.")
    return " ".join(sentence for sentence in sentences if sentence)


def _group_table(board: Leaderboard, groups: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """The best cell of each group."""
    decimals = text.decimals_for(board.images)
    best = [rows[0] for rows in groups.values()]
    unclear = (f"{_unclear(rows)} of {len(rows) - 1}" for rows in groups.values())
    columns = (
        column(board.within, groups, is_number=False),
        column("best cell", (without_group(row.label, row.group) for row in best), is_number=False),
        column(f"{board.split} %", (text.percent(row.score.mean if row.score else None, decimals) for row in best)),
        column("95 % interval", (f"{text.interval(row.score, decimals)} {text.method(row.score)}" for row in best)),
        column("n", (str(len(row.seeds)) for row in best)),
        column("cannot be told from it", unclear),
    )
    caption = f"The best cell of each {board.within}, and how many others cannot be told from it"
    yield from table(columns, caption, _MOST_GROUPS)


def _score(board: Leaderboard, row: Row) -> str:
    decimals = text.decimals_for(board.images)
    mean = text.percent(row.score.mean if row.score else None, decimals)
    return f"<strong>{escape(mean)} %</strong> {escape(text.interval(row.score, decimals))}"


def _method(row: Row) -> str:
    if row.score is None or row.score.n == 1:
        return "one seed, 95 % Wilson interval over images"
    return f"mean of {row.score.n} seeds, 95 % t interval"


def _others(rows: Sequence[Row]) -> str:
    """What is to be thought of the cells behind the best one."""
    if len(rows) == 1:
        return ""
    unclear = _unclear(rows)
    if not unclear:
        return "Every other cell is lower."
    which = f"None of the other {len(rows) - 1} cells" if unclear == len(rows) - 1 else f"{unclear} of the other cells"
    if len(rows) == 2:
        which = "The other cell"
    can = "can" if which.startswith("None") else "cannot"
    few = " by so few seeds" if any(row.standing is Standing.UNDERPOWERED for row in rows) else ""
    return f"{which} {can} be told from it{few}."


def _unclear(rows: Sequence[Row]) -> int:
    """How many cannot be told from the best."""
    return sum(row.standing in {Standing.TIED, Standing.UNDERPOWERED} for row in rows)


def _facts(board: Leaderboard) -> Iterator[str]:
    counts = sorted({row.score.n for row in board.rows if row.score})
    seeds = "\u2013".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else text.MISSING
    states = board.states
    facts = [
        ("split", board.split),
        ("images", f"{board.images:,}" if board.images else text.MISSING),
        ("cells", f"{len(board.rows):,}"),
        ("seeds a cell (n)", seeds),
        ("trials complete", f"{states.complete:,} of {states.trials:,}"),
        *((name, f"{count:,}") for name, count in _states(board) if count),
    ]
    yield '<dl class="facts">'
    yield from (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    yield "</dl>"


def _states(board: Leaderboard) -> list[tuple[str, int]]:
    states = board.states
    return [
        ("failed", states.failed),
        ("pruned", states.pruned),
        ("running", states.running),
        ("planned", states.planned),
    ]
