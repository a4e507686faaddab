"""Which classes the best cell takes for which: a matrix of those confused most, and the most frequent in a table."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stnbench.core.identity import Json
from stnbench.report import text
from stnbench.report.page.answers import Answers
from stnbench.report.page.figure import Figure, Trace, View, figure_lines
from stnbench.report.page.html import column, figure_text, table

MOST_CLASSES: Final = 14
"""In a matrix: those most often confused."""

_MOST_CONFUSIONS: Final = 10


def confusion_lines(known: Sequence[Answers], prefix: str) -> Iterator[str]:
    """The confusions of the best cell: a matrix of the classes confused most, and the most frequent ones in words."""
    shown = [(answers, _confusions(answers)) for answers in known if answers.best]
    views = [_matrix_view(answers, counts) for answers, counts in shown if counts]
    if not views:
        if shown:
            yield '<p class="note">The best cell makes no mistake.</p>'
        return
    first, counts = next((answers, counts) for answers, counts in shown if counts)
    trials = "1 trial" if len(first.best) == 1 else f"{len(first.best)} trials"
    caption = (
        f"Images of the {first.split} split that the best cell ({first.best_label}) takes for another class, in "
        f"{trials}, in percent of the true class's images. Of the classes confused, at most {MOST_CLASSES}; what is "
        "right is left out, so that the rest can be seen."
    )
    if len(shown) > 1:
        caption = (
            "As percentages of the true class's images, for the best cell of each task, all its trials together. Of "
            f"the classes confused, at most {MOST_CLASSES}; what is right is left out."
        )
    figure = Figure(key="confusion", title="What the best cell confuses", caption=caption, views=views, width_px=620)
    yield from figure_lines(figure, prefix)
    yield from _confusion_table(first, counts)


def _confusions(answers: Answers) -> dict[tuple[int, int], int]:
    """How often which class is taken for which other one, by the trials of the best cell."""
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
    """How often one class is taken for another, of how many images; ``percent`` is None where they are the same."""

    count: int
    images: int
    percent: float | None

    @property
    def text(self) -> str:
        """Whole percent; empty where there are none."""
        if not self.percent:
            return ""
        return f"{self.percent:.0f}" if self.percent >= 1 else "&lt;1"  # as Plotly wants it

    @classmethod
    def of(cls, answers: Answers, counts: Mapping[tuple[int, int], int], label: int, said: int) -> "_Cell":
        """Of the trials of the best cell together."""
        images = len(answers.best) * int((answers.labels == label).sum())
        count = counts.get((label, said), 0)
        percent = None if label == said or not images else round(100 * count / images, 2)
        return cls(count=count, images=images, percent=percent)


def _most_confused(counts: Mapping[tuple[int, int], int]) -> list[int]:
    """The classes that are in most confusions, in the order of their labels."""
    weights: Counter[int] = Counter()
    for (label, said), count in counts.items():
        weights[label] += count
        weights[said] += count
    return sorted(sorted(weights, key=lambda label: (-weights[label], label))[:MOST_CLASSES])


def _confusion_table(answers: Answers, counts: Mapping[tuple[int, int], int]) -> Iterator[str]:
    shown = list(counts.items())[:_MOST_CONFUSIONS]
    images = [len(answers.best) * int((answers.labels == label).sum()) for (label, _), _ in shown]
    shares = [text.percent(count / of, 1) for (_, count), of in zip(shown, images, strict=True)]
    columns = (
        column("is", (answers.name_of(label) for (label, _), _ in shown), is_number=False),
        column("taken for", (answers.name_of(said) for (_, said), _ in shown), is_number=False),
        column("times", (str(count) for _, count in shown)),
        column("% of the class", shares),
    )
    yield from table(columns, f"The most frequent confusions{f' of {answers.task}' if answers.task else ''}")
