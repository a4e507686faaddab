"""Pages made of sections, with an article for each sweep and figures beside the sections that they belong to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from stnbench.report import table as text
from stnbench.report.board import Leaderboard
from stnbench.report.html.answers import FIRST_ROWS, confusion_lines, hardest_lines, table_lines
from stnbench.report.html.document import Figure, bullets, document_lines, escape, escape_lines, figure_lines
from stnbench.report.html.effects import effect_figure, health_figure, importance_figure, interaction_figure
from stnbench.report.html.material import Material, film_lines, gallery_lines
from stnbench.report.html.scores import cost_figure, learning_curves, published_figure, timeline_figure
from stnbench.report.html.search import AxisFigures, axis_figures
from stnbench.report.sections import board_sections
from stnbench.report.table import Section

_IN_HEADER: Final = frozenset({"answer", "run"})

Parts = dict[str, tuple[str, list[str]]]
"""The parts of an article: heading and lines by key."""


def to_page(boards: Sequence[Leaderboard], material: Mapping[str, Material] | None = None) -> str:
    """Return one page with an article for each sweep. The same input gives the same bytes.

    Args:
        boards: the leaderboards.
        material: the content beside the sections, by sweep.
    """
    title = ", ".join(board.sweep for board in boards) or "no sweeps"
    body = ["<main>"]
    for index, board in enumerate(boards):
        body += _article(board, (material or {}).get(board.sweep, Material()), f"s{index}")
    body.append("</main>")
    has_figures = any('class="plot"' in line for line in body)
    return "\n".join(document_lines(f"{title} - stnbench", body, has_figures=has_figures)) + "\n"


def to_plain_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return a page of sections without figures. The same input gives the same bytes."""
    body = ["<main>", "<header>", '<p class="eyebrow">stnbench</p>', f"<h1>{escape(title)}</h1>"]
    body += [f"<p>{escape(subtitle)}</p>"] if subtitle else []
    body.append("</header>")
    for index, section in enumerate(sections):
        body += ["<section>", f"<h2>{escape(section.heading)}</h2>"]
        body += [f"<p>{escape(sentence)}</p>" for sentence in section.text]
        for table in section.tables:
            body += table_lines(table, f"s{index}-{table.key}-table")
        body += [*bullets(section.notes, "notes-list"), "</section>"]
    body.append("</main>")
    return "\n".join(document_lines(f"{title} - stnbench", body, has_figures=False)) + "\n"


def to_index(entries: Sequence[tuple[Leaderboard, str]]) -> str:
    """Return a page that lists sweeps with their questions and answers, the one that ran last first.

    Args:
        entries: the leaderboards, each with the address of its page.
    """

    def last(entry: tuple[Leaderboard, str]) -> float:
        run = entry[0].run
        return run.ended_at.timestamp() if run is not None and run.ended_at is not None else 0.0

    body = ["<main>", "<header>", '<p class="eyebrow">stnbench</p>', "<h1>Sweeps</h1>", "</header>"]
    for board, address in sorted(entries, key=lambda entry: (-last(entry), entry[0].sweep)):
        answer = next((section.text for section in board_sections(board) if section.key == "answer"), ())
        states, run = board.states, board.run
        when = "" if run is None or run.ended_at is None else f", last event {run.ended_at:%Y-%m-%d %H:%M} UTC"
        counts = f"{states.complete:,} of {text.counted(states.trials, 'trial')} complete"
        others = f" ({states.unfinished})" if states.unfinished else ""
        body += [
            f'<section><h2><a href="{escape(address)}">{escape(board.sweep)}</a></h2>',
            f"<p><strong>{escape(board.question)}</strong></p>",
            *(f"<p>{escape(sentence)}</p>" for sentence in answer),
            f'<p class="note">{escape(counts + others + when)}</p></section>',
        ]
    body.append("</main>")
    return "\n".join(document_lines("Sweeps - stnbench", body, has_figures=False)) + "\n"


def _article(board: Leaderboard, material: Material, prefix: str) -> Iterator[str]:
    sections = {section.key: section for section in board_sections(board)}
    parts = {key: part for key, part in _parts(board, sections, material, prefix).items() if part[1]}
    yield f'<article id="{prefix}">'
    yield "<header>"
    yield f'<p class="eyebrow">stnbench, sweep <code>{escape(board.sweep)}</code></p>'
    yield f"<h1>{escape(board.question) or escape(board.sweep)}</h1>"
    yield from _answer_lines(sections["answer"], prefix)
    yield from _facts(board)
    if "run" in sections:
        yield from _run_lines(board, sections["run"], material, prefix)
    links = "".join(f'<a href="#{prefix}-{key}">{escape(heading)}</a>' for key, (heading, _) in parts.items())
    yield f'<nav aria-label="Sections">{links}</nav>'
    yield "</header>"
    for key, (heading, lines) in parts.items():
        yield f'<section id="{prefix}-{key}" aria-labelledby="{prefix}-{key}-title">'
        yield f'<h2 id="{prefix}-{key}-title">{escape(heading)}</h2>'
        yield from lines
        yield "</section>"
    yield "</article>"


def _parts(board: Leaderboard, sections: Mapping[str, Section], material: Material, prefix: str) -> Parts:
    """Return the sections and the parts that only a page has; figures precede a long leaderboard."""
    figures = ("Learning and cost", list(_score_figures(board, material, prefix)))
    of_axes = _axis_figures(board, material, prefix)
    title = "The search" if material.is_search else "Accuracy over the axes"
    ahead = (title, list(_figure_grid(of_axes.first, prefix)))
    own: Parts = {}
    for key, section in sections.items():
        if key in _IN_HEADER:
            continue
        if key == "leaderboard" and len(board.rows) > FIRST_ROWS:
            own["search"], own["learning"] = ahead, figures
        if section.is_detail:
            is_apart = material.is_search  # the importances stand beside the axes of a search
            lines = list(_finding_figures(board, prefix, has_importance=not is_apart))
            own.setdefault("findings", ("What makes the difference", lines))
            own["findings"][1].extend(_detail_lines(section, prefix))
        else:
            own[key] = (section.heading, list(_section_lines(board, section, material, prefix)))
        if key == "leaderboard":
            own.setdefault("search", ahead)
            own.setdefault("learning", figures)
            own["axes"] = ("Axes", list(_figure_grid(of_axes.second, prefix)))
            own["transformers"] = ("What the transformers do", list(_transformers(board, material, prefix)))
            own["errors"] = ("Errors", list(_errors(material, prefix)))
    return own


def _answer_lines(section: Section, prefix: str) -> Iterator[str]:
    yield f'<div class="answer" id="{prefix}-answer">'
    yield from (f"<p>{escape(sentence)}</p>" for sentence in section.text)
    yield "</div>"


def _section_lines(board: Leaderboard, section: Section, material: Material, prefix: str) -> Iterator[str]:
    yield from (f'<p class="note">{escape(line)}</p>' for line in section.text)
    if section.key == "published" and board.agreement is not None:
        yield from _figure(published_figure(board.agreement), prefix)
    yield from _fact_lines(section)
    link = (lambda _: f"{prefix}-trials") if section.key == "leaderboard" and board.trials else None
    for table in section.tables:
        is_folded = table is not section.tables[0]
        yield f"<details><summary>{escape(table.caption)}</summary>" if is_folded else ""
        yield from table_lines(table, f"{prefix}-{table.key}-table", link=link)
        yield "</details>" if is_folded else ""
    if section.key == "failures":
        yield from _last_lines(board, material)
    yield '<div class="notes-list">'
    yield from bullets(section.notes)
    yield "</div>"


def _run_lines(board: Leaderboard, section: Section, material: Material, prefix: str) -> Iterator[str]:
    """Yield why the run ended in one line, with times, use of slots and next commands in a closed part."""
    took = "So far" if board.states.running else "It took"
    when = "" if board.run is None or board.run.wall_s is None else f" {took} {text.duration(board.run.wall_s)}."
    said = escape(" ".join(section.text) + when)
    yield f'<details class="run" id="{prefix}-run"><summary><h2>{escape(section.heading)}</h2> {said}'
    yield ' <span class="link">Times, slots and next commands</span></summary>'
    yield from _fact_lines(section)
    for table in section.tables:
        yield from table_lines(table, f"{prefix}-{table.key}-table")
    if board.run is not None and material.trials is not None:
        yield from _figure(timeline_figure(board.run), prefix)
    yield "</details>"


def _detail_lines(section: Section, prefix: str) -> Iterator[str]:
    yield f'<details class="part"><summary><h3>{escape(section.heading)}</h3></summary>'
    yield from bullets(section.text, "notes-list")
    for table in section.tables:
        yield from table_lines(table, f"{prefix}-{table.key}-table")
    yield from bullets(section.notes, "notes-list")
    yield "</details>"


def _figure(figure: Figure | None, prefix: str) -> Iterator[str]:
    if figure is not None:
        yield from figure_lines(figure, prefix)


def _score_figures(board: Leaderboard, material: Material, prefix: str) -> Iterator[str]:
    found: list[Figure | None] = []
    if material.trials is not None and material.epochs is not None:
        found.append(learning_curves(board, material.trials, material.epochs))
    if material.trials is not None:
        found.append(cost_figure(board))
    yield from _figure_grid(found, prefix)


def _figure_grid(figures: Sequence[Figure | None], prefix: str) -> Iterator[str]:
    """Yield figures side by side where there is room."""
    lines = [line for figure in figures for line in _figure(figure, prefix)]
    if lines:
        yield from ('<div class="figures">', *lines, "</div>")


def _axis_figures(board: Leaderboard, material: Material, prefix: str) -> AxisFigures:
    """Return the figures of the axes, those of a search with the importances; none without trials."""
    if material.trials is None:
        return AxisFigures(first=(), second=())
    table_id, is_search = f"{prefix}-rows-table", material.is_search
    found = axis_figures(board, material.trials, material.epochs, is_search=is_search, table_id=table_id)
    weights = importance_figure(board.findings) if board.findings is not None and is_search else None
    return AxisFigures(
        first=found.first, second=[*found.second[:1], *([weights] if weights else []), *found.second[1:]]
    )


def _finding_figures(board: Leaderboard, prefix: str, *, has_importance: bool) -> Iterator[str]:
    if board.findings is not None:
        for figure in (effect_figure(board.findings), interaction_figure(board.findings)):
            yield from _figure(figure, prefix)
        if has_importance:
            yield from _figure(importance_figure(board.findings), prefix)


def _errors(material: Material, prefix: str) -> Iterator[str]:
    if material.no_answers:
        yield f'<p class="note">{escape(material.no_answers)}</p>'
    if material.answers:
        yield from confusion_lines(material.answers, prefix)
        yield "<h3>The hardest images</h3>"
        yield from hardest_lines(material.answers[0])


def _transformers(board: Leaderboard, material: Material, prefix: str) -> Iterator[str]:
    if material.films:
        yield from film_lines(material.films, prefix)
    if material.trials is not None and material.health is not None:
        yield from _figure(health_figure(board, material.trials, material.health), prefix)
    yield from gallery_lines(material.pictures)


def _fact_lines(section: Section) -> Iterator[str]:
    if section.facts:
        yield '<dl class="known">'
        for name, value in section.facts:
            values = [value] if name == "Command" or name.startswith("Next") else value.split("; ")
            yield f"<dt>{escape(name)}</dt><dd>{'<br>'.join(f'<code>{escape(one)}</code>' for one in values)}</dd>"
        yield "</dl>"


def _last_lines(board: Leaderboard, material: Material) -> Iterator[str]:
    """Yield the last output of one trial of each group of failures."""
    found = [(group, lines) for group in board.failures if (lines := material.last_lines.get(group.trial_ids[0], ()))]
    if found:
        yield "<details><summary>The last output of one trial of each</summary>"
    for group, lines in found:
        count = f"{len(group.trial_ids)} \u00d7 {group.kind}"
        yield f'<p><span class="mark bad">{escape(count)}</span> {escape(group.message)}</p>'
        yield f'<p class="note">trial <code>{escape(group.trial_ids[0])}</code></p>'
        yield f'<pre tabindex="0">{escape_lines(lines)}</pre>'
    if found:
        yield "</details>"


def _facts(board: Leaderboard) -> Iterator[str]:
    counts = sorted({row.score.n for row in board.rows if row.score})
    seeds = "\u2013".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else text.MISSING
    states = board.states
    others = [(name, getattr(states, name)) for name in ("failed", "pruned", "running", "planned")]
    facts = [
        ("split", board.split),
        ("images", f"{board.images:,}" if board.images else text.MISSING),
        ("configurations", f"{len(board.rows):,}"),
        ("seeds each (n)", seeds),
        ("trials complete", f"{states.complete:,} of {states.trials:,}"),
        *((name, f"{count:,}") for name, count in others if count),
    ]
    yield '<dl class="facts">'
    yield from (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    yield "</dl>"
