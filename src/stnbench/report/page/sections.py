"""A page from its sections, each left out where there is nothing to say."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stnbench.report.agreement_text import HEADING
from stnbench.report.board import Leaderboard
from stnbench.report.page.agreement import agreement_lines
from stnbench.report.page.answers import hardest_lines
from stnbench.report.page.confusion import confusion_lines
from stnbench.report.page.costs import cost_figure
from stnbench.report.page.curves import learning_curves
from stnbench.report.page.document import document_lines
from stnbench.report.page.figure import figure_lines
from stnbench.report.page.findings import findings_lines
from stnbench.report.page.gallery import gallery_lines
from stnbench.report.page.head import head_lines
from stnbench.report.page.health import health_figure
from stnbench.report.page.html import escape
from stnbench.report.page.leaderboard import leaderboard_lines
from stnbench.report.page.material import Material
from stnbench.report.page.runs import failure_lines, run_lines
from stnbench.report.page.watch import watch_lines


@dataclass(frozen=True, kw_only=True, slots=True)
class _Section:
    key: str
    title: str
    lines: Sequence[str]


def to_page(boards: Sequence[Leaderboard], material: Mapping[str, Material] | None = None) -> str:
    """One page with an article for each sweep. The same input gives the same bytes.

    Args:
        boards: the leaderboards.
        material: what is shown beside them, by sweep.
    """
    title = ", ".join(board.sweep for board in boards) or "no sweeps"
    body = ["<main>"]
    for index, board in enumerate(boards):
        body += _article(board, (material or {}).get(board.sweep, Material()), f"s{index}")
    body.append("</main>")
    has_figures = any('class="plot"' in line for line in body)
    return "\n".join(document_lines(f"{title} - stnbench", body, has_figures=has_figures)) + "\n"


def _article(board: Leaderboard, material: Material, prefix: str) -> Iterator[str]:
    sections = [section for section in _sections(board, material, prefix) if section.lines]
    yield f'<article id="{prefix}">'
    yield "<header>"
    yield from head_lines(board)
    if len(sections) > 2:
        links = (f'<a href="#{prefix}-{section.key}">{escape(section.title)}</a>' for section in sections)
        yield f'<nav aria-label="Sections">{"".join(links)}</nav>'
    yield "</header>"
    for section in sections:
        yield f'<section id="{prefix}-{section.key}" aria-labelledby="{prefix}-{section.key}-title">'
        yield f'<h2 id="{prefix}-{section.key}-title">{escape(section.title)}</h2>'
        yield from section.lines
        yield "</section>"
    yield "</article>"


def _sections(board: Leaderboard, material: Material, prefix: str) -> Iterator[_Section]:
    yield _Section(key="leaderboard", title="Leaderboard", lines=[*leaderboard_lines(board, prefix)])
    yield _Section(key="learning", title="Learning and cost", lines=[*_figures(board, material, prefix)])
    if board.findings is not None:
        lines = [*findings_lines(board, board.findings, prefix)]
        yield _Section(key="findings", title="What makes the difference", lines=lines)
    if board.agreement is not None:
        lines = [*agreement_lines(board.agreement, prefix)]
        yield _Section(key="agreement", title=HEADING, lines=lines)
    yield _Section(key="errors", title="What goes wrong", lines=[*_errors(material, prefix)])
    yield _Section(
        key="transformers", title="What the transformers do", lines=[*_transformers(board, material, prefix)]
    )
    yield _Section(key="run", title="How it was run", lines=[*run_lines(board)])
    if board.failures:
        lines = [*failure_lines(board, material.last_lines)]
        yield _Section(key="failures", title="What failed", lines=lines)


def _figures(board: Leaderboard, material: Material, prefix: str) -> Iterator[str]:
    if material.trials is not None and material.epochs is not None:
        curves = learning_curves(board, material.trials, material.epochs)
        if curves is not None:
            yield from figure_lines(curves, prefix)
    costs = cost_figure(board)
    if costs is not None and material.trials is not None:
        yield from figure_lines(costs, prefix)


def _errors(material: Material, prefix: str) -> Iterator[str]:
    if material.no_answers:
        yield f'<p class="note">{escape(material.no_answers)}</p>'
    if material.answers:
        yield from confusion_lines(material.answers, prefix)
        yield "<h3>The hardest images</h3>"
        yield from hardest_lines(material.answers[0])


def _transformers(board: Leaderboard, material: Material, prefix: str) -> Iterator[str]:
    if material.watched is not None:
        yield from watch_lines(material.watched, prefix)
    if material.trials is not None and material.health is not None:
        health = health_figure(board, material.trials, material.health)
        if health is not None:
            yield from figure_lines(health, prefix)
    yield from gallery_lines(material.pictures)
