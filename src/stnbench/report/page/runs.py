"""How a sweep was run, and what failed in it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from stnbench.report import text
from stnbench.report.board import FailureGroup, Leaderboard
from stnbench.report.page.html import escape, escape_lines

MOST_GROUPS: Final = 30
MOST_IDS: Final = 8
LAST_LINES: Final = 14
"""Of what a failed trial said."""

_CODE: Final = frozenset({"Command", "Commit", "Data", "Versions"})


def run_lines(board: Leaderboard) -> Iterator[str]:
    """With what the numbers were made."""
    yield '<dl class="known">'
    for name, value in text.provenance_lines(board.provenance):
        values = [value] if name == "Command" else value.split("; ")
        tag = "code" if name in _CODE else "span"
        yield f"<dt>{escape(name)}</dt><dd>{'<br>'.join(f'<{tag}>{escape(one)}</{tag}>' for one in values)}</dd>"
    yield "</dl>"


def failure_lines(board: Leaderboard, last_lines: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Failures by kind and message, with the last lines that one trial of each said, by trial id."""
    failed = board.states.failed
    yield f'<p class="note">{failed} of {board.states.trials} trials failed, for {_reasons(len(board.failures))}.</p>'
    for group in board.failures[:MOST_GROUPS]:
        yield from _failure(group, last_lines.get(group.trial_ids[0], ()))
    if len(board.failures) > MOST_GROUPS:
        more = len(board.failures) - MOST_GROUPS
        yield f'<p class="note">{more} rarer reasons are left out; the JSON report has them all.</p>'


def _failure(group: FailureGroup, lines: Sequence[str]) -> Iterator[str]:
    count = f"{len(group.trial_ids)} \u00d7 {group.kind}"
    yield f'<details open><summary><span class="mark bad">{escape(count)}</span>{escape(group.message)}</summary>'
    shown = ", ".join(group.trial_ids[:MOST_IDS])
    more = f" and {len(group.trial_ids) - MOST_IDS} more" if len(group.trial_ids) > MOST_IDS else ""
    trials = "trial" if len(group.trial_ids) == 1 else "trials"
    yield f'<p class="note">{trials} <code>{escape(shown)}</code>{more}</p>'
    if lines:
        yield f'<pre tabindex="0">{escape_lines(lines[-LAST_LINES:])}</pre>'
    yield "</details>"


def _reasons(count: int) -> str:
    return "one reason" if count == 1 else f"{count} different reasons"
