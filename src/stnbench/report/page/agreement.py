"""What was published of the same cells: a figure, the table of ranks, and the claims of then."""

from collections.abc import Iterator

from stnbench.core.identity import Json
from stnbench.report import text
from stnbench.report.agreement import Agreement, AgreementRow
from stnbench.report.agreement_text import agreement_columns, agreement_sentences, claim_columns, claim_sentences
from stnbench.report.page.figure import Figure, Trace, View, figure_lines, whiskers
from stnbench.report.page.html import bullets, figure_text, table


def agreement_lines(agreement: Agreement, prefix: str) -> Iterator[str]:
    """How far the rankings agree, in words, a figure and tables."""
    yield from bullets(agreement_sentences(agreement))
    if len(agreement.rows) > 1:
        yield from figure_lines(_figure(agreement), prefix)
    if agreement.rows:
        yield from table(agreement_columns(agreement), f"Ranks here and in {agreement.published}")
    if agreement.claims:
        yield from table(claim_columns(agreement), "What was claimed then, tested with these cells")
    yield from bullets(claim_sentences(agreement))


def _figure(agreement: Agreement) -> Figure:
    rows = agreement.rows
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [round(100 * row.published.mean, 3) for row in rows],
        "y": [round(100 * row.ours.mean, 3) for row in rows],
        "error_x": whiskers([row.published for row in rows]),
        "error_y": whiskers([row.ours for row in rows]),
        "marker": {"size": 9},
        "text": [_hover(row) for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
        "meta": {"colour": "accent"},
    }
    ours = [row.ours.mean for row in rows]
    room = max(0.12 * (max(ours) - min(ours)), 0.002)
    layout: dict[str, Json] = {
        "xaxis": {"title": {"text": f"{figure_text(agreement.published)}, {agreement.published_split} accuracy, %"}},
        "yaxis": {
            "title": {"text": f"here, {agreement.split} accuracy, %"},
            "range": [round(100 * (min(ours) - room), 3), round(100 * (max(ours) + room), 3)],
        },
        "showlegend": False,
    }
    caption = (
        "Each point is a cell: what was published of it, with Wilson's interval of one run over its images, and what "
        "it scores here, with the interval of the leaderboard, cut where it leaves the frame."
    )
    view = View(label="", traces=[trace], layout=layout)
    return Figure(key="published", title="Then and now", caption=caption, views=[view])


def _hover(row: AgreementRow) -> str:
    ours = f"here {text.score(row.ours, 2)}, rank {row.our_rank:g}"
    return f"{figure_text(row.label, 60)}<br>{ours}<br>then {text.score(row.published, 2)}, rank {row.published_rank:g}"
