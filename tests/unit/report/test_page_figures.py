"""The figures and pictures of a page: what they show, and that Plotly knows every word of them."""

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from made_up_pages import IMAGES, SWEEP, MadeUpPage, make_page
from narrowed import plain, traces_of
from PIL import Image

from stnbench.analysis.effects import KENDALL, NO_INTERVAL_METHOD, Estimate, RankCorrelation
from stnbench.analysis.verdicts import Verdict
from stnbench.report import output
from stnbench.report.board import Leaderboard
from stnbench.report.findings import (
    Agreement,
    AgreementRow,
    Claim,
    ClaimVerdict,
    Findings,
    Importance,
    Interaction,
    MainEffect,
    PairFinding,
    ParetoFront,
)
from stnbench.report.html import document, scores
from stnbench.report.html import material as pictures
from stnbench.report.html.answers import Answers, confusion_lines, hardest, hardest_lines
from stnbench.report.html.document import Figure, Trace, View, describe
from stnbench.report.html.effects import effect_figure, health_figure, importance_figure, interaction_figure
from stnbench.report.html.material import (
    NO_LABELS,
    Material,
    Places,
    find_images,
    gallery_lines,
    read_material,
    read_pictures,
)
from stnbench.report.html.page import to_page
from stnbench.report.html.scores import cost_figure, learning_curves
from stnbench.store.store import Store


@pytest.fixture(autouse=True)
def small_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five megabytes of script that are searched again and again would make these tests slow."""
    monkeypatch.setattr(document, "_plotly", lambda: "")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> MadeUpPage:
    """A made-up sweep on disk."""
    return make_page(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def made(page: MadeUpPage) -> tuple[Leaderboard, Material]:
    """The same, read."""
    return read(page)


def read(page: MadeUpPage, **changes: Any) -> tuple[Leaderboard, Material]:
    """The leaderboard and what its page shows beside it."""
    places = Places(layout=page.layout, data_root=page.data_root, reports=page.reports)
    with Store.open(page.layout.store, writable=False) as store:
        report = output.read_report(store, SWEEP)
        return report.board, read_material(report.board, report.frames, replace(places, **changes))


def estimate(mean: float) -> Estimate:
    """A mean with an interval."""
    return Estimate(n=3, mean=mean, low=mean - 0.01, high=mean + 0.01, method="t over seeds", spread=0.004)


def make_findings(best: str = "30") -> Findings:
    """Some of everything."""
    effects = [
        MainEffect(axis=axis, label=label, mean=0.7, effect=estimate(effect), configs=4, method="whole blocks")
        for axis, label, effect in (("size", "10", -0.02), ("size", "30", 0.02), ("family", "affine", 0.0))
    ]
    pair = Interaction(
        first="size",
        second="family",
        first_labels=("10", "30"),
        second_labels=("affine", "scale"),
        means=((0.6, 0.7), (0.8, 0.9)),
        residuals=((0.01, -0.01), (-0.01, 0.01)),
        seeds=3,
        configs=4,
        statistic=4.0,
        p_value=0.01,
        corrected_p=0.02,
    )
    weights = [
        Importance(axis=axis, configs=4, variance_explained=share, ped_anova=share, fanova=None)
        for axis, share in (("size", 0.75), ("family", 0.25))
    ]
    front = ParetoFront(
        group="", cost="parameters", config_ids=("a", "b"), labels=("a", best), costs=(1e5, 1e6), means=(0.6, 0.8)
    )
    behind = PairFinding(
        group="", config_id="a", label="10", best_config_id="b", best_label=best, standing=Verdict.UNDECIDED,
        difference=estimate(-0.03), corrected_p=0.2, seeds_needed=7,
    )  # fmt: skip
    return Findings(
        split="validation",
        pairs=(behind,),
        main_effects=tuple(effects),
        interactions=(pair,),
        importances=tuple(weights),
        pareto=(front,),
        notes=("One thing was left out.",),
    )


def make_agreement() -> Agreement:
    """Two configurations that were published, and one claim that is left open."""
    rows = [
        AgreementRow(
            config_id=label, label=label, ours=estimate(mean), published=then, our_rank=rank, published_rank=rank
        )
        for label, mean, then, rank in (("30", 0.8, estimate(0.98), 1.0), ("20", 0.7, estimate(0.97), 2.0))
    ]
    tau = RankCorrelation(
        measure=KENDALL, configs=2, seeds=3, value=1.0, low=None, high=None, method=NO_INTERVAL_METHOD, p_value=1.0
    )
    claim = Claim(
        name="Larger is better",
        verdict=ClaimVerdict.UNDECIDED,
        effect=estimate(0.002),
        unit="in accuracy",
        comparisons=1,
        configs=2,
        method="t over seeds",
        detail="above 0 in 1 of 1 pairs",
        published_effect=0.01,
    )
    return Agreement(
        published="results_2015",
        published_split="test",
        published_images=12_630,
        split="validation",
        seeds=(1, 2, 3),
        rows=tuple(rows),
        tau=tau,
        rho=None,
        claims=(claim,),
        untested=(),
        left_out=0,
    )


def figures(made: tuple[Leaderboard, Material]) -> Iterator[Figure]:
    """Every figure there is."""
    board, material = made
    findings = make_findings()
    assert material.trials is not None
    assert material.epochs is not None
    assert material.health is not None
    found = (
        learning_curves(board, material.trials, material.epochs),
        cost_figure(replace(board, findings=findings)),
        effect_figure(findings),
        interaction_figure(findings),
        importance_figure(findings),
        health_figure(board, material.trials, material.health),
    )
    for figure in found:
        assert figure is not None
        yield figure


@pytest.mark.slow
def test_plotly_knows_every_word(made: tuple[Leaderboard, Material]) -> None:
    """Plotly's own checks accept the traces and layouts of every view of every figure, the matrix included."""
    from plotly.graph_objects import Figure as Checked

    board, material = made
    told = replace(board, findings=make_findings(), agreement=make_agreement())
    written = to_page([told], {SWEEP: material})
    blocks = re.findall(r'<script type="application/json" id="s0-(\w+)-data">(.*?)</script>', written)
    views = [(name, view) for name, block in blocks if name != "watch" for view in json.loads(block)]
    drawn = {
        "curves",
        "costs",
        "effects",
        "interactions",
        "importance",
        "published",
        "confusion",
        "health",
        "timeline",
        "sizes",
    }
    assert {name for name, _ in views} == drawn
    for _, view in views:
        Checked(data=view["data"], layout=view["layout"])


def test_every_figure_says_what_it_shows(made: tuple[Leaderboard, Material]) -> None:
    """A title and a caption, views with labels where there are several, and no number that JSON cannot say."""
    for figure in figures(made):
        assert figure.title
        assert len(figure.caption) > 40
        assert len(figure.views) == 1 or all(view.label for view in figure.views)
        json.dumps([[*view.traces, view.layout] for view in figure.views], allow_nan=False)


def test_curves_are_means_with_bands(made: tuple[Leaderboard, Material]) -> None:
    """By hand: a config's mean accuracy after the second epoch is three quarters of its last one, here as elsewhere."""
    board, material = made
    assert material.trials is not None
    assert material.epochs is not None
    figure = learning_curves(board, material.trials, material.epochs)
    assert figure is not None
    row = next(row for row in board.rows if row.label == "20")
    assert row.score is not None
    band, line = [trace for trace in traces_of(figure.views[0]) if trace["legendgroup"] == row.config_id]
    assert (line["name"], line["x"][:2], line["customdata"][0]) == ("20", [1, 2], row.score.n)
    assert line["y"][1] == pytest.approx(75 * row.score.mean, rel=1e-4)
    assert band["fill"] == "toself"
    assert len(band["x"]) == 2 * len(line["x"])


def test_bands_that_hide_everything_are_left_out(made: tuple[Leaderboard, Material]) -> None:
    """Two seeds that differ give the best configuration a band wider than half the frame: the line stands alone."""
    board, material = made
    assert material.trials is not None
    assert material.epochs is not None
    figure = learning_curves(board, material.trials, material.epochs)
    assert figure is not None
    best = board.rows[0]
    assert len(best.seeds) == 2
    assert [trace["legendgroup"] for trace in figure.views[0].traces].count(best.config_id) == 1


def test_curves_are_limited(made: tuple[Leaderboard, Material], monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs beyond the first ones wait in the legend, those beyond the limit are left out; the caption says so."""
    board, material = made
    assert material.trials is not None
    assert material.epochs is not None
    monkeypatch.setattr(scores, "SHOWN_CONFIGURATIONS", 2)
    monkeypatch.setattr(scores, "MOST_LINES", 3)
    figure = learning_curves(board, material.trials, material.epochs)
    assert figure is not None
    lines = [trace for trace in figure.views[0].traces if "name" in trace]
    assert [line["visible"] for line in lines] == [True, True, "legendonly"]
    assert lines[1]["name"] == "no ST"  # the baseline is always among those shown
    assert "3 of the 4 configurations" in figure.caption


def test_losses_that_are_no_number_are_left_out(made: tuple[Leaderboard, Material]) -> None:
    """An infinite loss of one epoch breaks no figure."""
    board, material = made
    assert material.trials is not None
    assert material.epochs is not None
    broken = material.epochs.assign(train_loss=float("inf"))
    figure = learning_curves(board, material.trials, broken)
    assert figure is not None
    assert not figure.views[2].traces


def test_health_shows_the_worst_verdict(made: tuple[Leaderboard, Material]) -> None:
    """Every configuration with a transformer was unused after its first epoch and healthy then."""
    board, material = made
    assert material.trials is not None
    assert material.health is not None
    figure = health_figure(board, material.trials, material.health)
    assert figure is not None
    verdicts = traces_of(figure.views[0])[0]["text"]
    assert [row[:2] for row in verdicts] == [["identity", "healthy"]] * 3
    movement = traces_of(next(view for view in figure.views if view.label == "Movement"))[0]
    assert movement["z"][0][:2] == pytest.approx([0.1, 0.2])


def test_no_health_where_nothing_was_judged(made: tuple[Leaderboard, Material]) -> None:
    """Controls have no verdict, and no figure."""
    board, material = made
    assert material.trials is not None
    assert material.health is not None
    assert health_figure(board, material.trials, material.health.assign(verdict=None)) is None


def make_answers(**changes: Any) -> Answers:
    """Three images of two classes in two tracks, answered by three trials."""
    answers = Answers(
        split="validation",
        task="",
        class_names=("stop", "yield"),
        labels=np.array([0, 0, 1]),
        tracks=np.array([5, 5, 6]),
        rows=np.array([10, 11, 12]),
        predictions={"a": np.array([0, 1, 1]), "b": np.array([1, 1, 1]), "c": np.array([1, 1, 2])},
        best=["a", "b"],
        best_label="x",
        trials=3,
        pictures=None,
    )
    return replace(answers, **changes)


def test_hardest_images_by_hand() -> None:
    """The second image is wrong in all three trials; the first is of its track; the third is wrong once, for 2."""
    answers = make_answers()
    found = hardest(answers.labels, answers.tracks, [*answers.predictions.values()])
    assert [(hard.place, hard.wrong, hard.answer, hard.answered) for hard in found] == [(1, 3, 1, 3), (2, 1, 2, 1)]
    assert len(hardest(answers.labels, np.arange(3), [*answers.predictions.values()], most=2)) == 2


def test_no_image_is_hard_that_all_get_right() -> None:
    """Where every answer is right, the page says so."""
    answers = make_answers(predictions={"a": np.array([0, 0, 1])}, best=["a"])
    assert "gets every image right" in "".join(hardest_lines(answers))
    assert list(confusion_lines([answers], "s0")) == ['<p class="note">The best configuration makes no mistake.</p>']


def test_without_data_the_hardest_images_are_named() -> None:
    """The page says that the pictures are elsewhere, and names images, classes and answers."""
    written = "".join(hardest_lines(make_answers()))
    assert "the data set is not on the machine" in written
    assert "image 11, stop: taken for yield by 3; wrong in 100 % of 3 trials" in written
    assert "class 2" in written  # a label without a name is a number


def test_confusions_by_hand() -> None:
    """The two trials of the best configuration take stop for yield 1 + 2 times of 4: 75 %; what is right is blank."""
    lines = "".join(confusion_lines([make_answers()], "s0"))
    (block,) = re.findall(r'<script type="application/json" id="s0-confusion-data">(.*?)</script>', lines)
    (trace,) = json.loads(block)[0]["data"]
    assert trace["z"] == [[None, 75.0], [0.0, None]]
    assert trace["text"] == [["", "75"], ["", ""]]
    assert 'data-sort="stop"><span data-short="stop">stop</span></th><td data-sort="yield">yield</td>' in lines
    assert '<td class="number" data-sort="3">3</td><td class="number" data-sort="0.75">75.0</td>' in lines


def test_pictures_are_those_of_the_data_set(page: MadeUpPage, made: tuple[Leaderboard, Material]) -> None:
    """The images are found by the digest that trials recorded, and stand in the page as PNG."""
    _, material = made
    (answers,) = material.answers
    assert answers.pictures is not None
    assert len(answers.labels) == IMAGES
    written = "".join(hardest_lines(answers))
    first = hardest(answers.labels, answers.tracks, [*answers.predictions.values()])[0]
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', written)[0]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).resize((16, 16), Image.Resampling.BOX))
    expected = answers.pictures[first.place].transpose(1, 2, 0)
    assert np.abs(picture.astype(float) - expected).mean() < 30


def test_data_that_are_elsewhere_are_not_made(page: MadeUpPage, tmp_path: Path) -> None:
    """Nothing is drawn or downloaded for a page: without a cache there are no pictures, and no folder."""
    _, material = read(page, data_root=tmp_path / "data")
    (answers,) = material.answers
    assert answers.pictures is None
    assert not (tmp_path / "data").exists()


def test_broken_cache_is_no_cache(tmp_path: Path) -> None:
    """A manifest that cannot be read is passed over."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "manifest.json").write_text("{")
    assert find_images(tmp_path, "abcd") is None


def test_older_scores_have_no_labels_and_the_page_says_so(made: tuple[Leaderboard, Material]) -> None:
    """Where the store does not know the true classes, a sentence stands in place of the matrix."""
    board, material = made
    written = to_page([board], {SWEEP: replace(material, answers=(), no_answers=NO_LABELS)})
    assert "kept no true labels" in written
    assert "s0-confusion" not in written


def test_the_film_holds_every_moment(made: tuple[Leaderboard, Material]) -> None:
    """The best trial's snapshots: three moments of two images, coordinates in thousandths of half an image."""
    board, material = made
    assert [film.title[:2] for film in material.films] == ["30", "20", "10"]
    written = to_page([board], {SWEEP: material})
    (block,) = re.findall(r'<script type="application/json" id="s0-watch-data">(.*?)</script>', written)
    data = json.loads(block)
    assert data["moments"] == [
        "before training, 0 of 20 steps",
        "step 10 of 20, epoch 1 of 2",
        "step 20 of 20, epoch 2 of 2",
    ]
    assert np.array(data["transformers"]).shape == (1, 3, 2, 162)
    assert data["transformers"][0][2][0][:2] == [-600, -600]


def test_without_runs_there_is_no_film(page: MadeUpPage, tmp_path: Path) -> None:
    """Snapshots that are on another machine are left out."""
    _, material = read(page, layout=replace(page.layout, root=tmp_path))
    assert material.films == ()


def test_gallery_takes_what_show_writes_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures by the names that ``stnbench.show`` gives them, in order; one too many is named; others are left out."""
    folder = tmp_path / "sizes"
    folder.mkdir()
    for name, size in (("training.gif", 30), ("ab12-transform.png", 20), ("page.png", 10), ("x-tracks.gif", 60)):
        (folder / name).write_bytes(b"x" * size)
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    found = read_pictures(tmp_path, "sizes")
    assert [picture.name for picture in found] == ["ab12-transform.png", "training.gif", "x-tracks.gif"]
    assert [picture.content is None for picture in found] == [False, False, True]
    assert "x-tracks.gif lies beside this page" in "".join(gallery_lines(found))
    assert read_pictures(tmp_path, "../sizes") == []


def test_findings_are_tables_and_figures(made: tuple[Leaderboard, Material]) -> None:
    """Differences with what seeds would be needed, interactions with their p-value, and what was left out."""
    board, material = made
    written = to_page([replace(board, findings=make_findings(best="<i>"))], {SWEEP: material})
    assert '<td class="number" data-sort="-0.03">-3.0 [-4.0, -2.0]</td>' in written
    assert '<details class="part"><summary><h3>Differences from the best</h3></summary>' in written
    assert '<details class="part"><summary><h3>Main effects</h3></summary>' in written
    assert "adjusted p = 0.020 (3 seeds, 4 configurations)" in written
    assert "<li>One thing was left out.</li>" in written
    assert "<i>" not in written


def test_what_was_published_stands_beside(made: tuple[Leaderboard, Material]) -> None:
    """The sentences and tables that every format has, in a section of their own; none where nothing was published."""
    board, material = made
    plain = to_page([board], {SWEEP: material})
    written = to_page([replace(board, agreement=make_agreement())], {SWEEP: material})
    assert "Comparison with published results" not in plain
    assert '<h2 id="s0-published-title">Comparison with published results</h2>' in written
    assert (
        '>Larger is better</span></th><td data-sort="undecided"><span class="mark open">undecided</span></td>'
        in written
    )
    assert "98.00 [97.00, 99.00]" in written


def test_intervals_far_wider_than_effects_are_cut() -> None:
    """Means of 2 points stay told apart where an interval reaches 90: the axis ends at three times the farthest."""
    findings = make_findings()
    first, *others = findings.main_effects
    wide = replace(first, effect=replace(first.effect, low=-0.9, high=0.9))
    narrow, cut = effect_figure(findings), effect_figure(replace(findings, main_effects=(wide, *others)))
    assert narrow is not None
    assert cut is not None
    assert plain(narrow.views[0].layout["xaxis"])["range"] == pytest.approx([-3.15, 3.15])
    assert plain(cut.views[0].layout["xaxis"])["range"] == pytest.approx([-6.3, 6.3])


def test_frames_may_be_empty(made: tuple[Leaderboard, Material]) -> None:
    """A sweep without an epoch has no curves and no health."""
    board, material = made
    assert material.trials is not None
    assert material.epochs is not None
    assert material.health is not None
    none = material.epochs.iloc[:0]
    assert isinstance(none, pd.DataFrame)
    assert learning_curves(board, material.trials, none) is None
    assert health_figure(board, material.trials, material.health.iloc[:0]) is None


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((880_277, 880_277), [880_000.0]),
        ((880_277, 901_000), [880_000.0, 901_000.0]),
        ((60_000, 900_000), [5e4, 1e5, 2e5, 5e5, 1e6]),
        ((1, 1e9), [10.0**power for power in range(10)]),
        ((0.9, 11.0), [1.0, 2.0, 5.0, 10.0]),
    ],
)
def test_ticks_of_costs_are_few_and_lie_on_the_axis(values: tuple[float, ...], ticks: list[float]) -> None:
    """At 1, 2 and 5, or powers of ten over a wide range; equal costs have their own, and an axis that is not wide."""
    axis = cast(dict[str, Any], scores._logarithmic(values))
    assert axis["tickvals"] == pytest.approx(ticks)
    low, high = axis["range"]
    assert all(low <= math.log10(tick) <= high for tick in ticks)
    assert high - low == pytest.approx(math.log10(max(values) / min(values)) + 2 * math.log10(1.25), abs=0.001)


def test_figures_have_a_text_for_who_cannot_see_them(made: tuple[Leaderboard, Material]) -> None:
    """Every figure says in words what its first view shows; a line from its start to its end, a map row by row."""
    for figure in figures(made):
        assert describe(figure.views[0]), figure.title
    line: Trace = {"type": "scatter", "name": "20", "x": [1, 2], "y": [50.0, 75.5]}
    grid: Trace = {"type": "heatmap", "x": ["a", "b"], "y": ["c"], "z": [[1.5, None]]}
    assert describe(View(label="", traces=[line], layout={})) == ["20: 50 at 1, 75.5 at 2"]
    assert describe(View(label="", traces=[grid], layout={})) == ["c: a 1.5"]
