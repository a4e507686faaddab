"""A leaderboard as a table of texts, which Markdown, LaTeX, HTML and the terminal each dress in their own way."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from stnbench.analysis.inference import Standing
from stnbench.report import text
from stnbench.report.board import FailureGroup, Leaderboard, Row
from stnbench.spec.sweep import LABEL_SEPARATOR


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column: ``cells`` has one text a row. The least ``important`` ones go first where there is no room.

    ``bad`` says of which rows the cell tells of something wrong; empty where none can.
    """

    heading: str
    cells: tuple[str, ...]
    is_number: bool
    importance: int
    bad: tuple[bool, ...] = ()

    def is_bad(self, row: int) -> bool:
        """Whether the cell of a row, counted from 0, tells of something wrong."""
        return bool(self.bad) and self.bad[row]


def leaderboard_columns(board: Leaderboard) -> list[Column]:
    """The columns of a leaderboard; those that no row has anything for are left out."""
    decimals = text.decimals_for(board.images)
    shows_test = board.split != "test" and any(row.test for row in board.rows)
    shows_gain = any(row.st_gain for row in board.rows)
    shows_notes = any(row.notes for row in board.rows)

    def column(heading: str, of: Callable[[Row], str], importance: int, *, is_number: bool = True) -> Column:
        return Column(heading=heading, cells=tuple(map(of, board.rows)), is_number=is_number, importance=importance)

    columns = [column(board.within, lambda row: text.clean(row.group), 9, is_number=False)] if board.within else []
    columns += [
        column("rank", lambda row: row.rank or text.MISSING, 9),
        column("cell", _cell_text, 9, is_number=False),
        column("n", _seeds_text, 9),
        column(f"{board.split} %", lambda row: text.percent(row.score.mean if row.score else None, decimals), 9),
        column("95 % interval", lambda row: _interval_text(row, decimals), 9),
        column("vs best", _standing_text, 7, is_number=False),
    ]
    if shows_gain:
        columns.append(column("ST gain (points)", lambda row: text.points(row.st_gain, decimals), 8))
    if any(row.health.verdicts for row in board.rows):
        bad = tuple(row.health.is_bad for row in board.rows)
        health = column("health", lambda row: row.health.text or text.MISSING, 8, is_number=False)
        columns.append(replace(health, bad=bad))
    if shows_test:
        columns.append(column("test % [95 %]", lambda row: text.score(row.test, 2), 5))
    if any(row.behind for row in board.rows):
        columns.append(column("behind (points)", lambda row: text.points(row.behind, decimals), 1))
    columns += [
        column("parameters", lambda row: text.count(row.parameters), 4),
        column("FLOPs", lambda row: text.count(row.flops), 2),
        column("s/epoch", lambda row: text.seconds(row.epoch_duration_s), 3),
    ]
    if shows_notes:
        columns.append(column("notes", lambda row: "; ".join(row.notes), 5, is_number=False))
    return columns


def heading(board: Leaderboard) -> str:
    """What the table is of: the split, and how many images it has."""
    images = f", {board.images:,} images" if board.images else ""
    return f"Accuracy on the {board.split} split{images}."


def failure_line(group: FailureGroup, *, shown_ids: int = 3) -> str:
    """``3 x diverged: the loss is nan (trials 0123, ...)``."""
    more = ", ..." if len(group.trial_ids) > shown_ids else ""
    trials = "trial" if len(group.trial_ids) == 1 else "trials"
    ids = ", ".join(group.trial_ids[:shown_ids])
    return f"{len(group.trial_ids)} x {group.kind}: {text.clean(group.message)} ({trials} {ids}{more})"


def _cell_text(row: Row) -> str:
    """The label, without its group, which has a column of its own."""
    return text.clean(without_group(row.label, row.group))


def without_group(label: str, group: str) -> str:
    """A cell's label without that of its group, where something is left."""
    parts = label.split(LABEL_SEPARATOR)
    if group in parts and len(parts) > 1:
        parts.remove(group)
    return LABEL_SEPARATOR.join(parts)


def _standing_text(row: Row) -> str:
    """``tied``, or ``underpowered (needs about 12 seeds)``, where so many would tell a difference of that size."""
    if row.standing is None:
        return text.MISSING
    if row.standing is Standing.UNDERPOWERED and row.seeds_needed is not None and row.behind is not None:
        return f"{row.standing} (needs about {max(row.seeds_needed, row.behind.n + 1):,} seeds)"
    return row.standing.value


def _interval_text(row: Row, decimals: int) -> str:
    """The interval with its method in a letter."""
    return f"{text.interval(row.score, decimals)} {text.method(row.score)}" if row.score else text.MISSING


def _seeds_text(row: Row) -> str:
    done, wanted = row.states.complete, row.states.trials
    return str(done) if done == wanted else f"{done}/{wanted}"
