"""The figures of searches and grids: history, parallel coordinates, slices, pairs of axes, sizes, pruned trials."""

import itertools
import json
import re
from dataclasses import replace

import narrowed
import numpy as np
import pandas as pd
import pytest
from made_up_pages import FAMILIES, PRUNED, SEARCHED, MadeUpPage, make_many, make_search
from narrowed import plain, traces_of

from stnbench.report import output
from stnbench.report.board import Leaderboard
from stnbench.report.html import axes, document
from stnbench.report.html.axes import make_scale, numbers_of, pair_figure, read_configurations, scales_of, size_figure
from stnbench.report.html.document import Figure, describe
from stnbench.report.html.material import Material, Places, read_material
from stnbench.report.html.page import to_page
from stnbench.report.html.search import axis_figures, history_figure, parallel_figure, pruned_figure, slice_figure
from stnbench.spec.result import TrialState
from stnbench.store.store import Store

Made = tuple[Leaderboard, Material, pd.DataFrame]


def read(page: MadeUpPage, name: str) -> Made:
    """The leaderboard, what its page shows beside it, and the frame of trials."""
    places = Places(layout=page.layout, data_root=page.data_root, reports=page.reports)
    with Store.open(page.layout.store, writable=False) as store:
        report = output.read_report(store, name)
        return report.board, read_material(report.board, report.frames, places), report.frames.trials


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A search by TPE of 60 trials, 20 of them pruned and two failed."""
    return read(make_search(tmp_path_factory.mktemp("search")), "search")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A grid of six sizes and five families with two seeds, half done."""
    return read(make_many(tmp_path_factory.mktemp("grid"), sizes=6, name="grid"), "grid")


@pytest.mark.parametrize(
    ("label", "numbers"),
    [
        ("0.01", (0.01,)),
        ("learning_rate=1e-05", (1e-5,)),
        ("size 10", (10.0,)),
        ("20,20,20", (20.0, 20.0, 20.0)),
        ("-3", (-3.0,)),
        ("affine", ()),
        ("learning rate 0.1", (0.1,)),
        ("lie_affine2", ()),
        ("1.5 x", ()),
        ("true", ()),
    ],
)
def test_numbers_of_labels(label: str, numbers: tuple[float, ...]) -> None:
    """Numbers, numbers with their key and lists of sizes are read; names are not, whatever they end with."""
    assert numbers_of(label) == numbers


def test_scales_order_what_can_be_ordered() -> None:
    """Numbers and sizes rise, names keep the order of the sweep; a wide range of positive numbers is logarithmic."""
    rates = make_scale("rate", ["rate=0.1", "rate=0.001", "rate=0.01"])
    assert (rates.kind, rates.is_log, rates.labels) == ("number", True, ("rate=0.001", "rate=0.01", "rate=0.1"))
    assert rates.share("rate=0.01") == pytest.approx(0.5)
    assert not make_scale("share", ["0", "100"]).is_log
    sizes = make_scale("sizes", ["100,200,100", "20,20,20"])
    assert (sizes.kind, sizes.labels) == ("ordered", ("20,20,20", "100,200,100"))
    assert make_scale("family", ["scale", "affine", "scale"]).labels == ("scale", "affine")
    assert make_scale("mixed", ["3", "none"]).kind == "category"
    assert make_scale("lengths", ["3", "3,4"]).kind == "category"


def test_the_history_counts_complete_configurations_alone(search: Made) -> None:
    """60 proposals: 38 complete, 20 pruned, 2 without a value; the best so far never falls and ends at the best."""
    board, _, trials = search
    known = read_configurations(board, trials)
    assert [one.number for one in known] == [*range(1, SEARCHED + 1)]
    figure = history_figure(board, known)
    assert figure is not None
    complete, pruned, best = traces_of(figure.views[0])
    assert [len(trace["x"]) for trace in (complete, pruned, best)] == [
        SEARCHED - PRUNED - 2,
        PRUNED,
        SEARCHED - PRUNED - 2,
    ]
    assert "2 configurations failed" in figure.caption
    assert best["y"] == sorted(best["y"])
    assert (
        best["y"][-1] == max(complete["y"]) == pytest.approx(100 * narrowed.known(board.rows[0].score).mean, abs=1e-3)
    )
    assert max(pruned["y"]) < best["y"][-1]


def test_lines_of_parallel_coordinates_are_rows_of_the_table(search: Made) -> None:
    """Every configuration has one line, of one point an axis and a gap, that names its row of the leaderboard."""
    board, _, trials = search
    known = read_configurations(board, trials)
    scales = scales_of(board, known)
    figure = parallel_figure(board, known, scales, is_search=True, table_id="s0-rows-table")
    assert figure is not None
    (view,) = figure.views
    link, traces = plain(dict(narrowed.known(view.link))), traces_of(view)
    assert link["axes"] == len(scales) + 1 == 5
    rows = link["rows"]
    assert sorted(itertools.chain(*rows)) == [*range(SEARCHED)]
    for trace, own in zip(traces, rows, strict=True):
        assert len(trace["y"]) == 6 * len(own)
        for place, at in enumerate(own):
            line = trace["y"][6 * place : 6 * place + 6]
            shares = [scale.share(dict(board.rows[at].axes)[scale.name]) for scale in scales]
            assert line[:4] == pytest.approx(shares, abs=1e-4)
            assert (line[4] is None) == (board.rows[at].score is None)
            assert line[5] is None
    best = next(trace for trace, own in zip(traces, rows, strict=True) if 0 in own)
    assert best["meta"] == {"colour": "hue 0.90"}
    assert describe(view)[0].startswith(board.rows[0].label)


def test_slices_show_every_value_on_every_axis(search: Made) -> None:
    """A view for each axis, 38 points and 20 crosses in each; ranges of rates are logarithmic."""
    board, _, trials = search
    known = read_configurations(board, trials)
    figure = slice_figure(board, known, scales_of(board, known))
    assert figure is not None
    assert {view.label for view in figure.views} == set(board.axes)
    for view in figure.views:
        assert [len(trace["x"]) for trace in traces_of(view)] == [SEARCHED - PRUNED - 2, PRUNED]
    rate = next(view for view in figure.views if view.label == "optimizer.learning_rate")
    assert plain(rate.layout["xaxis"])["type"] == "log"


def test_ranges_are_contours_and_choices_heat_maps(search: Made) -> None:
    """All six pairs of four axes; contours lie within the values nearby, and are empty far from any."""
    board, _, trials = search
    known = read_configurations(board, trials)
    figure = pair_figure(known, scales_of(board, known), is_search=True)
    assert figure is not None
    kinds = [traces_of(view)[0]["type"] for view in figure.views]
    assert (kinds.count("contour"), kinds.count("heatmap")) == (1, 5)
    contour = traces_of(figure.views[kinds.index("contour")])[0]
    values = [value for row in contour["z"] for value in row if value is not None]
    scored = [100 * one.value for one in known if one.value is not None]
    assert min(scored) <= min(values) < max(values) <= max(scored)
    assert any(value is None for row in contour["z"] for value in row)


def test_a_contour_far_from_values_is_empty() -> None:
    """One value in a corner says nothing of the opposite one, and is itself everywhere near it."""
    surface = axes._smoothed(np.array([[0.0, 0.0]]), np.array([7.0]), np.array([0.0, 0.1, 1.0]))
    assert [surface[0, 0], surface[1, 0]] == pytest.approx([7.0, 7.0])
    assert np.isnan(surface[2, 2])


def test_pruned_trials_have_short_curves(search: Made) -> None:
    """20 pruned curves of one to three epochs, told apart from the 38 complete ones; none where none was pruned."""
    board, material, _ = search
    assert material.epochs is not None
    figure = pruned_figure(board, material.epochs)
    assert figure is not None
    complete, pruned = traces_of(figure.views[0])
    assert (complete["x"].count(None), pruned["x"].count(None)) == (SEARCHED - PRUNED - 2, PRUNED)
    assert max(epoch for epoch in pruned["x"] if epoch) == 3
    kept = tuple(trial for trial in board.trials if trial.state is not TrialState.PRUNED)
    assert pruned_figure(replace(board, trials=kept), material.epochs) is None


def test_sizes_have_a_line_for_each_family(grid: Made) -> None:
    """Five lines over six sizes; a point is the mean over the seeds that have all of its configurations."""
    board, _, trials = grid
    known = read_configurations(board, trials)
    figure = size_figure(board, known, scales_of(board, known))
    assert figure is not None
    (view,) = figure.views
    assert view.label == "locnet1.sizes by transformer"
    assert {trace["name"] for trace in traces_of(view)} <= set(FAMILIES)
    line = next(trace for trace in traces_of(view) if trace["name"] == "affine")
    assert line["x"] == sorted(line["x"])
    one = next(one for one in known if one.axes == {"locnet1.sizes": "size 10", "transformer": "affine"})
    place = [label for label, _ in line["customdata"]].index("size 10")
    assert line["y"][place] == pytest.approx(100 * np.mean([*one.by_seed.values()]), abs=1e-3)
    assert line["customdata"][place][1] == len(one.by_seed)


def test_seeds_that_lack_a_configuration_are_left_out(grid: Made) -> None:
    """Averaged over families, a size has the seeds that all its families have: none where one family lacks all."""
    board, _, trials = grid
    known = [replace(one, by_seed={1: 0.5, 2: 0.7}) for one in read_configurations(board, trials)]
    scales = [scale for scale in scales_of(board, known) if scale.kind == "number"]
    lacking = [replace(known[0], by_seed={1: 0.9}), *known[1:]]
    figure = size_figure(board, lacking, scales)
    assert figure is not None
    (trace,) = traces_of(figure.views[0])
    counts = dict(trace["customdata"])
    assert counts.pop(known[0].axes["locnet1.sizes"]) == 1
    assert set(counts.values()) == {2}


def test_heat_maps_say_how_many_configurations_they_average(grid: Made) -> None:
    """A grid of two axes has one configuration for each configuration; those without a score are empty."""
    board, _, trials = grid
    known = read_configurations(board, trials)
    figure = pair_figure(known, scales_of(board, known), is_search=False)
    assert figure is not None
    (trace,) = traces_of(figure.views[0])
    flat = [value for row in trace["z"] for value in row]
    assert len(flat) == 30
    assert sum(value is None for value in flat) == sum(one.value is None for one in known)
    assert {count for row in trace["customdata"] for count in row} <= {0, 1}


def test_many_numbers_are_put_into_intervals() -> None:
    """Thirty numbers make six intervals that hold them all; a dozen stay as they are."""
    scale = make_scale("rate", [f"rate={number / 1000}" for number in range(1, 31)])
    names, of_label = axes._put_together(scale)
    assert len(names) == 6
    assert set(of_label) == set(scale.labels)
    assert names[0] == "0.001 to 0.005"
    few = make_scale("rate", [f"rate={number}" for number in range(12)])
    assert axes._put_together(few)[0] == [*few.labels]


def all_figures(made: Made, *, is_search: bool) -> list[Figure]:
    """Every figure of a sweep's axes."""
    board, material, trials = made
    found = axis_figures(board, trials, material.epochs, is_search=is_search, table_id="t")
    return [*found.first, *found.second]


@pytest.mark.slow
def test_plotly_knows_every_word_of_searches_and_grids(search: Made, grid: Made) -> None:
    """Plotly's own checks accept the traces and layouts, and every figure has a title, a caption and words."""
    from plotly.graph_objects import Figure as Checked

    of_search, of_grid = all_figures(search, is_search=True), all_figures(grid, is_search=False)
    assert [figure.key for figure in of_search] == ["history", "pruned", "parallel", "slices", "pairs"]
    assert [figure.key for figure in of_grid] == ["sizes", "parallel", "pairs"]
    for figure in (*of_search, *of_grid):
        assert len(figure.caption) > 40
        for view in figure.views:
            assert describe(view)
            json.dumps([*view.traces, view.layout], allow_nan=False)
            Checked(data=view.traces, layout=dict(view.layout))


def test_a_search_tells_of_itself_before_its_table(search: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has the history ahead of a long leaderboard, the axes behind it with the importances among them."""
    monkeypatch.setattr(document, "_plotly", lambda: "")
    board, material, _ = search
    assert material.is_search
    written = to_page([board], {"search": material})
    parts = re.findall(r'<section id="s0-(\w+)"', written)
    assert parts.index("search") < parts.index("leaderboard") < parts.index("axes")
    keys = re.findall(r'<figure class="figure(?: broad)?" id="s0-(\w+)"', written)
    assert keys.count("importance") == 1
    assert (
        keys.index("history")
        < keys.index("pruned")
        < keys.index("slices")
        < keys.index("importance")
        < keys.index("pairs")
    )


def test_a_sweep_without_axes_has_no_such_figures(search: Made) -> None:
    """One configuration, or several that differ on no axis, make no figure and no empty section."""
    board, material, trials = search
    bare = replace(board, rows=tuple(replace(row, axes=()) for row in board.rows), axes=())
    found = axis_figures(bare, trials, material.epochs, is_search=False, table_id="t")
    assert (found.first, found.second) == ([], [])
    nothing = axis_figures(replace(board, rows=(), trials=()), trials.iloc[:0], None, is_search=True, table_id="t")
    assert (nothing.first, nothing.second) == ([], [])
