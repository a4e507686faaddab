"""Errors of trials: the classes confused most, and the images that most trials get wrong."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.effects import Estimate
from stnbench.core.identity import Json
from stnbench.report import table as text
from stnbench.report.html.document import Figure, Trace, View, bullets, data_uri, escape, figure_lines, figure_text
from stnbench.report.table import ESSENTIAL, Column, Facet, Table, values_of
from stnbench.spec.data import Split

# Tables of a page, which can be sorted by value and filtered by words and facets, and read without a script.


MOST_ROWS: Final = 2000
"""The largest number of rows on a page; CSV and JSON have all."""

FIRST_ROWS: Final = 25
"""The number of rows that the script shows at first, of tables with filters."""

_MOST_CHOICES: Final = 60
"""The largest number of choices of a select; a facet with more has none and is searched by words."""

_FEWEST_FILTERED: Final = 4
_WHISKER_PX: Final = (92, 14)


def table_lines(table: Table[Any], name: str, *, link: Callable[[Any], str] | None = None) -> Iterator[str]:
    """Yield a table as HTML, with filters unless it is short.

    Args:
        table: the table.
        name: the id of the table on the page.
        link: returns the target of the cell that names a row: the id of another table, which is then filtered by the
            cell.
    """
    if len(table.items) > MOST_ROWS:
        yield f'<p class="note">The first {MOST_ROWS:,} of {len(table.items):,} rows; CSV and JSON have all.</p>'
    items = table.items[:MOST_ROWS]
    facets = [(facet, labels) for facet in table.facets if len(labels := _labels(facet, items)) > 1]
    has_filters = len(items) >= _FEWEST_FILTERED and (bool(table.facets) or len(items) > FIRST_ROWS)
    if has_filters:
        yield from _filters(facets, name)
    yield from _table(table, items, facets, name, has_filters=has_filters, link=link)


def _labels(facet: Facet[Any], items: Sequence[Any]) -> list[str]:
    """Return the values of a facet in the order of the rows; empty where they are too many for a select."""
    found = dict.fromkeys(value for item in items if (value := facet.value(item)))
    return [*found] if len(found) <= _MOST_CHOICES else []


def _filters(facets: Sequence[tuple[Facet[Any], list[str]]], name: str) -> Iterator[str]:
    yield f'<form class="filters" id="{escape(name)}-filter" data-needs-script hidden>'
    yield '<label>Search<input type="search" placeholder="words of a row" autocomplete="off"></label>'
    for index, (facet, labels) in enumerate(facets):
        yield f'<label>{escape(facet.heading)}<select data-facet="{index}"><option value="">all</option>'
        yield "".join(f'<option value="{place}">{escape(label)}</option>' for place, label in enumerate(labels))
        yield "</select></label>"
    yield '<button type="reset">Reset</button>'
    yield '<details class="chooser"><summary>Columns</summary><div></div></details>'
    yield '<output aria-live="polite"></output></form>'


def _table(
    table: Table[Any],
    items: Sequence[Any],
    facets: Sequence[tuple[Facet[Any], list[str]]],
    name: str,
    *,
    has_filters: bool,
    link: Callable[[Any], str] | None,
) -> Iterator[str]:
    columns = _page_order(table)
    filters = f' data-filter="{escape(name)}-filter"' if has_filters else ""
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.caption)}">'
    yield f'<table class="board" id="{escape(name)}"{filters} data-first="{FIRST_ROWS}">'
    yield f"<caption>{escape(table.caption)}</caption>"
    yield f"<thead><tr>{''.join(map(_heading, columns))}</tr></thead><tbody>"
    frames = _frames(table, items, columns)
    places = [(facet, {label: place for place, label in enumerate(labels)}) for facet, labels in facets]
    for index, item in enumerate(items):
        frame = frames.get(table.group(item) if table.group else "")
        cells = "".join(_cell(table, column, item, frame, link) for column in columns)
        tone = f' class="{table.tone(item)}"' if table.tone and table.tone(item) else ""
        found = "".join(
            f' data-f{number}="{known[value]}"'
            for number, (facet, known) in enumerate(places)
            if (value := facet.value(item)) in known
        )
        yield f'<tr{tone} data-at="{index}"{found}>{cells}</tr>'
    yield "</tbody></table></div>"
    if has_filters and len(items) > FIRST_ROWS:
        yield (
            f'<p><button type="button" class="more" data-more="{escape(name)}" data-needs-script hidden>'
            f"Show all {len(items):,} rows</button></p>"
        )


def _page_order(table: Table[Any]) -> list[Column[Any]]:
    """Return the columns in the order of the page.

    The column that names a row is first and stays visible; the score is next, to be visible on a phone.
    """
    return sorted(table.people_columns(), key=lambda column: (column.key != table.label, not column.has_whisker))


def _heading(column: Column[Any]) -> str:
    classes = ' class="number"' if column.is_number else ""
    first = "descending" if column.is_number and column.key != "rank" else "ascending"
    weight = ESSENTIAL + 1 if column.importance >= ESSENTIAL else column.importance
    return (
        f'<th scope="col"{classes} data-first="{first}" data-weight="{weight}" data-key="{escape(column.key)}">'
        f'<button type="button">{escape(column.heading)}</button></th>'
    )


def _cell(
    table: Table[Any],
    column: Column[Any],
    item: object,
    frame: tuple[float, float] | None,
    link: Callable[[Any], str] | None,
) -> str:
    said = column.show(item)
    shown = escape(said)
    if column.key == table.label:
        short = escape(values_of(said)).replace("_", "_\u200b")  # on narrow screens; the filters name the axes
        broken = f'<span data-short="{short}">{shown.replace("_", "_<wbr>")}</span>'
        if link is not None:
            broken = f'<a href="#{escape(link(item))}" data-find="{shown}">{broken}</a>'
        return f'<th scope="row" data-sort="{_order(column, item)}">{broken}</th>'
    tone = column.tone(item) if column.tone else ""
    if tone and said:
        shown = f'<span class="mark {tone}">{shown}</span>'
    if column.has_whisker and frame is not None:
        shown = _whisker(column.value(item), frame) + shown
    classes = ' class="number"' if column.is_number else ' class="words"' if len(said) > 28 else ""
    return f'<td{classes} data-sort="{_order(column, item)}">{shown}</td>'


def _order(column: Column[Any], item: object) -> str:
    value = column.order(item)
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, int | float) else escape(value)


def _frames(table: Table[Any], items: Sequence[Any], columns: Sequence[Column[Any]]) -> dict[str, tuple[float, float]]:
    """Return the range of the drawn intervals by group, a little more than that of the means; wider ones are cut."""
    drawn = next((column for column in columns if column.has_whisker), None)
    means: dict[str, list[float]] = {}
    for item in items if drawn else ():
        value = drawn.value(item) if drawn else None
        if isinstance(value, Estimate):
            means.setdefault(table.group(item) if table.group else "", []).append(value.mean)
    rooms = {group: max(0.25 * (max(own) - min(own)), 0.002) for group, own in means.items()}
    return {group: (min(own) - rooms[group], max(own) + rooms[group]) for group, own in means.items()}


def _whisker(estimate: Estimate | None, frame: tuple[float, float]) -> str:
    """Return an interval as a line with a dot at the mean, as SVG; empty without an estimate."""
    width, height = _WHISKER_PX
    if estimate is None:
        return ""

    def place(share: float) -> float:
        return round(3 + (width - 6) * min(max((share - frame[0]) / (frame[1] - frame[0]), 0.0), 1.0), 1)

    low, high = estimate.low, estimate.high
    line = "" if low is None or high is None else f'<path d="M{place(low)} 7H{place(high)}"/>'
    return (
        f'<svg class="whisker" width="{width}" height="{height}" aria-hidden="true" fill="currentColor" '
        f'stroke="currentColor" stroke-width="1.5">{line}<circle cx="{place(estimate.mean)}" cy="7" r="3"/></svg>'
    )


MOST_HARD: Final = 24


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """The predictions of trials for the images of one split of one data set.

    Attributes:
        split: the split.
        task: the name of the set of images, where a sweep has several; empty where it has one.
        class_names: in label order.
        labels: int64 (images,), the true classes.
        tracks: int64 (images,), one number for each track, or for each image where tracks are unknown.
        rows: int64 (images,), the rows of the images in their half of the data set.
        predictions: int64 (images,) by trial id.
        best: the ids of the trials of the best configuration.
        best_label: the label of that configuration.
        trials: the number of trials that were scored on the images, those without predictions here included.
        pictures: uint8 (channels, height, width) by place among the images, for the hardest ones; None where the data
            are not on this machine.
    """

    split: Split
    task: str
    class_names: Sequence[str]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    rows: NDArray[np.int64]
    predictions: Mapping[str, NDArray[np.int64]]
    best: Sequence[str]
    best_label: str
    trials: int
    pictures: Mapping[int, NDArray[np.uint8]] | None

    def name_of(self, label: int) -> str:
        """Return the name of a class; its number where it has none."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else f"class {label}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hard:
    """An image that many trials get wrong.

    Attributes:
        place: its place among the images.
        label: its true class.
        wrong: the number of trials that get it wrong.
        trials: the number of trials with a prediction.
        answer: the most frequent wrong prediction.
        answered: the number of trials with that prediction.
    """

    place: int
    label: int
    wrong: int
    trials: int
    answer: int
    answered: int


def hardest(
    labels: NDArray[np.int64],
    tracks: NDArray[np.int64],
    predictions: Sequence[NDArray[np.int64]],
    most: int = MOST_HARD,
) -> list[Hard]:
    """Return the images that most trials get wrong, one of each track, the hardest first.

    Images that every trial gets right are left out.

    Args:
        labels: int64 (images,), the true classes.
        tracks: int64 (images,).
        predictions: int64 (images,) of each trial.
        most: the largest number of images returned.
    """
    answers = np.stack(list(predictions))
    wrong = (answers != labels).sum(axis=0)
    order = np.lexsort((np.arange(len(labels)), -wrong))
    _, first = np.unique(tracks[order], return_index=True)
    found = []
    for place in order[np.sort(first)][:most].tolist():
        if wrong[place]:
            counts = Counter(int(answer) for answer in answers[:, place] if answer != labels[place])
            answer, answered = min(counts.items(), key=lambda item: (-item[1], item[0]))
            count, label = int(wrong[place]), int(labels[place])
            hard = Hard(place=place, label=label, wrong=count, trials=len(answers), answer=answer, answered=answered)
            found.append(hard)
    return found


def hardest_lines(answers: Answers) -> Iterator[str]:
    """Yield the hardest images as HTML with their pictures, or the reason why there are none."""
    found = hardest(answers.labels, answers.tracks, list(answers.predictions.values()))
    of_task = f" of {answers.task}" if answers.task else ""
    if not found:
        yield f'<p class="note">Every trial gets every image{escape(of_task)} right.</p>'
        return
    count, trials = len(answers.predictions), answers.trials
    among = f"{count} trials" if count == trials else f"{count} of {trials} trials"
    yield (
        f'<p class="note">The {answers.split} images{escape(of_task)} that most of {among} get wrong, one of each '
        "track: what it is, what it is most often taken for, and how many get it wrong.</p>"
    )
    if answers.pictures is None:
        yield (
            '<p class="note">The pictures are not shown: the data set is not on the machine that wrote this page '
            "(its cache is looked for in STNBENCH_DATA, by the digest that the trials recorded).</p>"
        )
        yield from bullets(_hard_line(answers, hard) for hard in found)
        return
    yield '<ul class="pictures">'
    for hard in found:
        uri = data_uri("png", picture_png(answers.pictures[hard.place]))
        name = escape(answers.name_of(hard.label))
        yield f'<li><img src="{uri}" alt="{name}, image {int(answers.rows[hard.place])}" loading="lazy">'
        yield f'<strong>{name}</strong><br><span class="wrong">{escape(_answer(answers, hard))}</span><br>'
        yield f'<span class="faint">{escape(_share(hard))}</span></li>'
    yield "</ul>"


def picture_png(image: NDArray[np.uint8], least_px: int = 96) -> bytes:
    """Return an image, uint8 (channels, height, width), as PNG; two channels are red and green.

    An image whose shorter side is below half of ``least_px`` pixels is enlarged to at least that.
    """
    import io

    from PIL import Image

    channels = len(image)
    if channels == 1:
        image = np.repeat(image, 3, axis=0)
    elif channels == 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if min(picture.size) < least_px // 2:
        step = -(-(least_px // 2) // min(picture.size))
        picture = picture.resize((picture.width * step, picture.height * step), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _hard_line(answers: Answers, hard: Hard) -> str:
    row = int(answers.rows[hard.place])
    return f"image {row}, {answers.name_of(hard.label)}: {_answer(answers, hard)}; {_share(hard)}"


def _answer(answers: Answers, hard: Hard) -> str:
    return f"taken for {answers.name_of(hard.answer)} by {hard.answered}"


def _share(hard: Hard) -> str:
    return f"wrong in {100 * hard.wrong / hard.trials:.0f} % of {hard.trials} {_trials(hard.trials)}"


def _trials(count: int) -> str:
    return "trial" if count == 1 else "trials"


MOST_CLASSES: Final = 14
"""The largest number of classes in a matrix, those most often confused."""

_MOST_CONFUSIONS: Final = 10


def confusion_lines(known: Sequence[Answers], prefix: str) -> Iterator[str]:
    """Yield the confusions of the best configuration as HTML: a matrix of the classes confused most, and a table."""
    shown = [(answers, _confusions(answers)) for answers in known if answers.best]
    views = [_matrix_view(answers, counts) for answers, counts in shown if counts]
    if not views:
        if shown:
            yield '<p class="note">The best configuration makes no mistake.</p>'
        return
    first, counts = next((answers, counts) for answers, counts in shown if counts)
    trials = "1 trial" if len(first.best) == 1 else f"{len(first.best)} trials"
    caption = (
        f"Images of the {first.split} split that the best configuration ({first.best_label}) takes for another "
        f"class, in {trials}, in percent of the true class's images. Of the classes confused, at most {MOST_CLASSES}; "
        "correct answers are left out, so that the rest can be seen."
    )
    if len(shown) > 1:
        caption = (
            "As percentages of the true class's images, for the best configuration of each task, all its "
            f"trials together. Of the classes confused, at most {MOST_CLASSES}; what is right is left out."
        )
    figure = Figure(
        key="confusion", title="Confusions of the best configuration", caption=caption, views=views, width_px=620
    )
    yield from figure_lines(figure, prefix)
    yield from _confusion_table(first, counts, prefix)


def _confusions(answers: Answers) -> dict[tuple[int, int], int]:
    """Count the wrong predictions of the best configuration's trials by (true class, predicted class)."""
    counts: Counter[tuple[int, int]] = Counter()
    for trial_id in answers.best:
        said = answers.predictions[trial_id]
        wrong = said != answers.labels
        counts.update(zip(answers.labels[wrong].tolist(), said[wrong].tolist(), strict=True))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _matrix_view(answers: Answers, counts: Mapping[tuple[int, int], int]) -> View:
    kept = _most_confused(counts)
    names = [figure_text(answers.name_of(label), 26) for label in kept]
    cells = [[_Cell.of(answers, counts, label, said) for said in kept] for label in kept]
    places: list[Json] = [*range(len(kept))]
    trace: Trace = {
        "type": "heatmap",
        "z": [[cell.percent for cell in row] for row in cells],
        "x": places,
        "y": places,
        "text": [[cell.text for cell in row] for row in cells],
        "customdata": [
            [[names[i], names[j], f"{cell.count} of {cell.images} images"] for j, cell in enumerate(row)]
            for i, row in enumerate(cells)
        ],
        "texttemplate": "%{text}",
        "hovertemplate": "%{customdata[0]} taken for %{customdata[1]}<br>%{customdata[2]} (%{z:.1f} %)<extra></extra>",
        "hoverongaps": False,
        "zmin": 0,
        "xgap": 1,
        "ygap": 1,
        "showscale": False,
        "meta": {"scale": "one hue"},
    }
    edge = len(kept) - 0.5
    ticks: dict[str, Json] = {"tickvals": places, "ticktext": [*names], "zeroline": False, "showgrid": False}
    layout: dict[str, Json] = {
        "xaxis": {**ticks, "title": {"text": "taken for"}, "range": [-0.5, edge], "tickangle": -40},
        "yaxis": {**ticks, "title": {"text": "is"}, "range": [edge, -0.5]},
    }
    return View(label=answers.task or "all", traces=[trace], layout=layout, height_px=230 + 28 * len(kept))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cell:
    """A cell of the matrix: the number of times that one class is taken for another, of a number of images.

    ``percent`` is None where the two classes are the same.
    """

    count: int
    images: int
    percent: float | None

    @property
    def text(self) -> str:
        """Return whole percent; empty where there are none."""
        if not self.percent:
            return ""
        return f"{self.percent:.0f}" if self.percent >= 1 else "&lt;1"  # Plotly needs it escaped

    @classmethod
    def of(cls, answers: Answers, counts: Mapping[tuple[int, int], int], label: int, said: int) -> "_Cell":
        """Return the cell of two classes, over all trials of the best configuration."""
        images = len(answers.best) * int((answers.labels == label).sum())
        count = counts.get((label, said), 0)
        percent = None if label == said or not images else round(100 * count / images, 2)
        return cls(count=count, images=images, percent=percent)


def _most_confused(counts: Mapping[tuple[int, int], int]) -> list[int]:
    """Return the classes that are in most confusions, in the order of their labels."""
    weights: Counter[int] = Counter()
    for (label, said), count in counts.items():
        weights[label] += count
        weights[said] += count
    return sorted(sorted(weights, key=lambda label: (-weights[label], label))[:MOST_CLASSES])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Confusion:
    """A row of the table: the number of times that a class is taken for another, of the images of the class."""

    label: str
    said: str
    count: int
    images: int


_CONFUSIONS: Final[Sequence[Column[_Confusion]]] = (
    Column(key="is", heading="is", value=lambda it: it.label, is_number=False),
    Column(key="taken_for", heading="taken for", value=lambda it: it.said, is_number=False),
    Column(key="times", heading="times", value=lambda it: it.count),
    Column(key="share", heading="% of the class", value=lambda it: it.count / it.images,
           text=lambda it: text.percent(it.count / it.images, 1)),
)  # fmt: skip


def _confusion_table(answers: Answers, counts: Mapping[tuple[int, int], int], prefix: str) -> Iterator[str]:
    found = [
        _Confusion(
            label=answers.name_of(label),
            said=answers.name_of(said),
            count=count,
            images=len(answers.best) * int((answers.labels == label).sum()),
        )
        for (label, said), count in list(counts.items())[:_MOST_CONFUSIONS]
    ]
    of_task = f" of {answers.task}" if answers.task else ""
    caption = f"The most frequent confusions{of_task}"
    table = Table(key="confusions", caption=caption, columns=_CONFUSIONS, items=found, label="is")
    yield from table_lines(table, f"{prefix}-confusions-table")
