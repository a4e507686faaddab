"""Leaderboards as one self-contained page: no script, nothing fetched, everything escaped."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape as escape_html

from stnbench.report import text
from stnbench.report.board import Leaderboard
from stnbench.report.table import Column, failure_line, heading, leaderboard_columns
from stnbench.statistics.inference import Standing

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #8a8f98; --best: #1a7f37; --bad: #c0392b; }
@media (prefers-color-scheme: dark) { :root { --best: #56d364; --bad: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 115rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.question { font-size: 1.1rem; margin: 0 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; white-space: nowrap; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid var(--line); text-align: left; }
th { font-weight: 600; border-bottom-width: 2px; }
.number { text-align: right; }
.best td { color: var(--best); font-weight: 600; }
.tied td { color: var(--best); }
.none td { color: var(--dim); }
tr .bad { color: var(--bad); font-weight: 600; }
.failures li { color: var(--bad); }
ul { margin: .5rem 0; padding-left: 1.2rem; max-width: 60rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { color: var(--dim); }
dd { margin: 0; font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
"""


def to_page(boards: Sequence[Leaderboard]) -> str:
    """One page with a section for each sweep."""
    title = ", ".join(board.sweep for board in boards) or "no sweeps"
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
        f"<title>{escape(title)} - stnbench</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        *(line for board in boards for line in _section(board)),
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def escape(raw: str) -> str:
    """Text that HTML shows as it is, on one line; safe in attributes as well."""
    return escape_html(text.clean(raw), quote=True)


def _section(board: Leaderboard) -> Iterator[str]:
    yield "<section>"
    yield f"<h1>{escape(board.sweep)}</h1>"
    yield f'<p class="question">{escape(board.question)}</p>'
    yield "<dl>"
    for name, value in text.provenance_lines(board.provenance):
        yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"
    yield f"<p>{escape(heading(board))}</p>"
    if board.rows:
        yield from _table(board, leaderboard_columns(board))
    yield from _list("notes", board.notes)
    if board.failures:
        yield "<h2>Failures</h2>"
        yield from _list("failures", map(failure_line, board.failures))
    yield "</section>"


def _table(board: Leaderboard, columns: Sequence[Column]) -> Iterator[str]:
    yield '<div class="wide"><table>'
    yield f"<thead><tr>{''.join(_cell('th', column, column.heading) for column in columns)}</tr></thead>"
    yield "<tbody>"
    for index, row in enumerate(board.rows):
        kind = {None: "none", Standing.BEST: "best", Standing.TIED: "tied"}.get(row.standing, "other")
        cells = "".join(_cell("td", column, column.cells[index], is_bad=column.is_bad(index)) for column in columns)
        yield f'<tr class="{kind}">{cells}</tr>'
    yield "</tbody>"
    yield "</table></div>"


def _cell(tag: str, column: Column, content: str, *, is_bad: bool = False) -> str:
    classes = [name for name, applies in (("number", column.is_number), ("bad", is_bad)) if applies]
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    return f"<{tag}{attribute}>{escape(content)}</{tag}>"


def _list(kind: str, items: Iterable[str]) -> Iterator[str]:
    lines = [f"<li>{escape(item)}</li>" for item in items]
    if lines:
        yield from (f'<ul class="{kind}">', *lines, "</ul>")
