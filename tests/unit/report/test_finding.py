"""Findings from a real store, and what every format says of them."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from made_up_results import NOW, Filler, result, transformed
from numpy.typing import NDArray

from stnbench.analysis.ensembles import TRACKS_METHOD
from stnbench.analysis.verdicts import Verdict
from stnbench.report import finding, output
from stnbench.report.board import Leaderboard
from stnbench.report.findings import Findings
from stnbench.report.output import read_leaderboard
from stnbench.report.render.text import to_terminal
from stnbench.report.sections import board_sections
from stnbench.spec.network import LecunSpec
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.result import ScoredImages
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial

IMAGES = 400
LABELS = tuple(int(label) for label in np.arange(IMAGES) % 10)
SCORED = ScoredImages(labels=LABELS, tracks=tuple((np.arange(IMAGES) // 20).tolist()), rows=tuple(range(IMAGES)))
CHANCES = {(10, 0.01): 0.80, (20, 0.01): 0.88, (10, 0.02): 0.86, (20, 0.02): 0.95}
TWIN = 0.75


def axis(name: str, *values: float) -> Axis:
    """An axis of numbers."""
    choices = (Choice(label=f"{name}={value}", overrides=(Override(key=name, value=value),)) for value in values)
    return Axis(name=name, choices=tuple(choices))


def sweep(*, within: str = "") -> SweepSpec:
    """Two sizes and two learning rates."""
    axes = (axis("size", 10, 20), axis("rate", 0.01, 0.02))
    return SweepSpec(name="grid", question="Which?", axes=axes, seeds=(1, 2, 3), within=within)


def configs() -> list[tuple[PlannedTrial, float]]:
    """Every trial of the sweep with the chance that its network is right; baselines have one axis and little chance."""
    found = []
    for seed, (size, rate) in product((1, 2, 3), CHANCES):
        spec = replace(transformed(size, seed=seed), optimizer=SgdSpec(learning_rate=rate))
        labels = (("size", f"size={size}"), ("rate", f"rate={rate}"))
        label = f"size={size} \u00b7 rate={rate}"
        found.append((PlannedTrial(spec=spec, point=Point(labels=labels), label=label), CHANCES[size, rate]))
        if size == 10:
            point, label = Point(labels=labels[1:]), f"rate={rate} \u00b7 no ST"
            found.append((PlannedTrial(spec=spec.baseline(), point=point, label=label, is_baseline=True), TWIN))
    return found


def right(spec: TrialSpec, chance: float) -> NDArray[np.bool_]:
    """Which images a trial has right; tracks are alike."""
    rng = np.random.default_rng(int(spec.trial_id, 16) % 2**32)
    tracks = np.repeat(np.random.default_rng(0).normal(0, 0.1, IMAGES // 20), 20)
    return rng.random(IMAGES) < np.clip(chance + tracks, 0, 1)


Scored = Callable[[TrialSpec], ScoredImages | None]
"""On which images a trial was scored; None where it does not say."""

Fill = Callable[[SweepSpec, Scored], Leaderboard]


def filled(
    store: Store, spec: SweepSpec, scored: Scored, trials: Sequence[tuple[PlannedTrial, float]] = ()
) -> Leaderboard:
    """The leaderboard of the sweep, all of its trials, or those given, complete."""
    trials = trials or configs()
    filler = Filler(store, name="grid")
    store.save_sweep(spec, [trial for trial, _ in trials], NOW)
    for trial, chance in trials:
        token, answers = filler.start(trial.spec), right(trial.spec, chance)
        said = np.where(answers, LABELS, (np.array(LABELS) + 1) % 10)
        made = result(trial.spec, token, int(answers.sum()), images=IMAGES)
        validation = replace(made.validation, predictions=tuple(said.tolist()), scored=scored(trial.spec))
        store.complete_attempt(token, replace(made, epochs=made.epochs[-1:], validation=validation), NOW)
    return read_leaderboard(store, "grid")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, made once: migrations take longer than most tests."""
    file = tmp_path_factory.mktemp("finding") / "empty.db"
    Store.open(file, writable=True).close()
    return file


@pytest.fixture
def fill(empty: Path, tmp_path: Path) -> Iterator[Fill]:
    """Fills a store of its own."""
    file = Path(shutil.copy(empty, tmp_path / "stnbench.db"))
    with Store.open(file, writable=True) as store:
        yield lambda spec, scored: filled(store, spec, scored)


@pytest.fixture(scope="module")
def whole(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Leaderboard]]:
    """A store with the whole sweep, all trials on the same images; tests only read it."""
    file = Path(shutil.copy(empty, tmp_path_factory.mktemp("whole") / "stnbench.db"))
    with Store.open(file, writable=True) as store:
        yield store, filled(store, sweep(), lambda _: SCORED)


@pytest.fixture
def board(whole: tuple[Store, Leaderboard]) -> Leaderboard:
    """The leaderboard of that sweep."""
    return whole[1]


def findings_of(board: Leaderboard) -> Findings:
    """Its findings."""
    assert board.findings is not None
    return board.findings


def test_every_configuration_is_compared_with_the_best(board: Leaderboard) -> None:
    """The differences, standings and seeds needed are those of the leaderboard, and images say more."""
    rows = {row.config_id: row for row in board.rows}
    pairs = findings_of(board).pairs
    assert [pair.config_id for pair in pairs] == [row.config_id for row in board.rows[1:]]
    for pair in pairs:
        row = rows[pair.config_id]
        assert (pair.difference, pair.standing, pair.seeds_needed) == (row.behind, row.standing, row.seeds_needed)
        assert pair.best_config_id == board.rows[0].config_id
        assert (pair.standing is Verdict.LOWER) == (pair.corrected_p <= 0.05)
        assert pair.difference is not None
        assert pair.over_images is not None
        assert pair.over_images.mean == pytest.approx(pair.difference.mean)
        assert pair.over_images.method == TRACKS_METHOD
        assert pair.over_images_corrected_p is not None
        assert pair.over_images_corrected_p >= pair.over_images.p_value
        assert pair.improvement is not None
        assert pair.improvement.mean < 0.5
        assert pair.mcnemar is not None
        alone = pair.mcnemar.only_config - pair.mcnemar.only_base
        assert alone == pytest.approx(3 * IMAGES * pair.difference.mean)
        assert (pair.mcnemar.seeds, pair.mcnemar.images, pair.mcnemar.tracks) == (3, IMAGES, IMAGES // 20)


def test_gains_are_over_baselines(board: Leaderboard) -> None:
    """Each configuration with transformers has the gain of the leaderboard, with an interval over images."""
    gains = findings_of(board).gains
    assert {gain.config_id: gain.difference for gain in gains} == {
        row.config_id: row.st_gain for row in board.rows if row.st_gain
    }
    assert len(gains) == 4
    for gain in gains:
        assert gain.over_images is not None
        assert gain.over_images.mean == pytest.approx(gain.difference.mean)
        assert gain.parameter_ratio == 1.0
        assert not gain.is_equal_size


def test_gains_are_over_networks_of_equal_size_where_the_sweep_has_them(empty: Path, tmp_path: Path) -> None:
    """Each configuration is compared with the wider baseline that is nearest in parameters, beside the plain one."""
    spec = transformed(10)
    wider = [replace(spec.baseline(), network=LecunSpec(sizes=sizes)) for sizes in ((9, 10, 11), (30, 30, 30))]
    costs = {spec.config_id: 1000, spec.baseline().config_id: 500, wider[0].config_id: 950, wider[1].config_id: 1900}
    point = Point(labels=(("size", "size=10"),))
    trials = [
        PlannedTrial(spec=own.with_seed(seed), point=point, label=str(cost), is_baseline=cost != 1000)
        for (own, cost), seed in product(zip((spec, spec.baseline(), *wider), costs.values(), strict=True), (1, 2))
    ]
    asked = SweepSpec(name="grid", question="?", axes=(axis("size", 10),), baselines="equal_parameters")
    with Store.open(Path(shutil.copy(empty, tmp_path / "stnbench.db")), writable=True) as store:
        store.save_sweep(asked, trials, NOW)
        for trial in trials:
            token = Filler(store, name="grid").start(trial.spec)
            cost = costs[trial.spec.config_id]
            made = result(trial.spec, token, 1000 + cost // 100 + trial.spec.seed)
            store.complete_attempt(token, replace(made, cost=replace(made.cost, parameters=cost)), NOW)
        plain, equal = findings_of(read_leaderboard(store, "grid")).gains
    assert (plain.baseline_config_id, plain.is_equal_size, plain.parameter_ratio) == (
        spec.baseline().config_id,
        False,
        0.5,
    )
    assert (equal.baseline_config_id, equal.is_equal_size, equal.parameter_ratio) == (wider[0].config_id, True, 0.95)


def test_effects_are_those_of_the_axes_without_baselines(board: Leaderboard) -> None:
    """Size 20 and rate 0.02 are better, by half of the differences of means; both explain the variance together."""
    found = findings_of(board)
    means = {row.label: row.score.mean for row in board.rows if row.score and not row.is_baseline}
    by_size = [means[f"size={size} \u00b7 rate=0.01"] + means[f"size={size} \u00b7 rate=0.02"] for size in (10, 20)]
    effects = {effect.label: effect for effect in found.main_effects}
    assert list(effects) == ["size=10", "size=20", "rate=0.01", "rate=0.02"]
    assert effects["size=20"].effect.mean == pytest.approx((by_size[1] - by_size[0]) / 4)
    assert effects["size=20"].mean == pytest.approx(by_size[1] / 2)
    assert {effect.configs for effect in found.main_effects} == {4}
    (pair,) = found.interactions
    assert (pair.first, pair.second, pair.configs, pair.seeds) == ("size", "rate", 4, 3)
    assert pair.corrected_p == pair.p_value
    shares = [item.variance_explained for item in found.importances]
    assert all(share is not None and 0 < share < 1 for share in shares)
    assert any("Optuna's importances need 10 configurations" in note for note in found.notes)


def test_fronts_hold_the_best(board: Leaderboard) -> None:
    """All configurations cost the same here, so each front is the best configuration."""
    fronts = findings_of(board).pareto
    assert [front.cost for front in fronts] == ["parameters", "flops", "epoch_duration_s"]
    assert {front.config_ids for front in fronts} == {(board.rows[0].config_id,)}


def test_within_an_axis_groups_are_compared_by_themselves(fill: Fill) -> None:
    """Each rate has a best configuration of its own; with one axis left, nothing is said of effects."""
    found = findings_of(fill(sweep(within="rate"), lambda _: SCORED))
    assert {pair.group for pair in found.pairs} == {"rate=0.01", "rate=0.02"}
    assert len({pair.best_config_id for pair in found.pairs}) == 2
    assert {front.group for front in found.pareto} == {"rate=0.01", "rate=0.02"}
    assert (found.main_effects, found.interactions, found.importances) == ((), (), ())


def test_older_scores_are_compared_over_seeds_alone(fill: Fill) -> None:
    """Where the store does not know the images, the findings say so, and do without."""
    found = findings_of(fill(sweep(), lambda _: None))
    assert found.pairs
    assert all(pair.over_images is None and pair.mcnemar is None and pair.improvement for pair in found.pairs)
    assert any("not known which images" in note for note in found.notes)


def test_other_images_are_not_paired(fill: Fill) -> None:
    """Configurations that were scored on different images are compared over seeds alone, the others over images too."""
    other = replace(SCORED, rows=tuple(range(1, IMAGES + 1)))
    best = replace(transformed(20), optimizer=SgdSpec(learning_rate=0.02)).config_id
    found = findings_of(fill(sweep(), lambda spec: other if spec.config_id == best else SCORED))
    assert all(pair.over_images is None for pair in found.pairs)
    assert sum(gain.over_images is not None for gain in found.gains) == 3


def test_one_seed_has_no_interval_over_seeds_and_images(empty: Path, tmp_path: Path) -> None:
    """McNemar's test speaks of its images; nothing is said of other seeds, nor of a chance or of seeds needed."""
    with Store.open(Path(shutil.copy(empty, tmp_path / "stnbench.db")), writable=True) as store:
        trials = [(trial, chance) for trial, chance in configs() if trial.spec.seed == 1]
        found = findings_of(filled(store, replace(sweep(), seeds=(1,)), lambda _: SCORED, trials))
    assert all(pair.mcnemar for pair in found.pairs)
    for pair in found.pairs:
        assert (pair.over_images, pair.over_images_corrected_p, pair.improvement, pair.seeds_needed) == (None,) * 4
        assert pair.standing is Verdict.UNDECIDED
    assert all(gain.over_images is None for gain in found.gains)
    assert [pair.p_value for pair in found.interactions] == [None]
    assert not any("not known which images" in note for note in found.notes)


def test_unknown_tracks_are_said(fill: Fill) -> None:
    """Without tracks every image counts for itself, and the method says so."""
    found = findings_of(fill(sweep(), lambda _: replace(SCORED, tracks=())))
    methods = {pair.over_images.method for pair in found.pairs if pair.over_images}
    assert methods == {"t over seeds and images"}


def test_of_large_sweeps_the_best_are_locnet_input(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best configurations and their baselines are compared image by image, and the findings say how many."""
    monkeypatch.setattr(finding, "MOST_ANSWERED", 2)
    monkeypatch.setattr(finding, "FEWEST_ANSWERED", 2)
    found = findings_of(fill(sweep(), lambda _: SCORED))
    assert [pair.over_images is not None for pair in found.pairs[:2]] == [True, False]
    assert any("the 2 best configurations" in note for note in found.notes)


FORMATS: tuple[output.Format, ...] = ("md", "latex", "csv", "json")


def test_the_same_store_gives_the_same_findings(whole: tuple[Store, Leaderboard]) -> None:
    """Read again, everything is equal to the last digit, in every format."""
    store, board = whole
    again = read_leaderboard(store, "grid")
    assert again == board
    for kind in FORMATS:
        assert output.render([again], kind) == output.render([board], kind)
    assert read_leaderboard(store, "grid", findings=False) == replace(board, findings=None, trials=(), run=None)


def test_markdown_has_a_section_for_each_kind(board: Leaderboard) -> None:
    """Each once, with tables of which all lines have as many columns."""
    written = output.render([board], "md")
    for heading in (
        "Differences from the best",
        "Gains of transformers",
        "Main effects",
        "Interactions",
        "Importance of axes",
        "Pareto fronts",
    ):
        assert written.count(f"\n## {heading}\n") == 1
    tables = [block.splitlines() for block in written.split("\n\n") if block.startswith("|")]
    assert len(tables) == 9
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1


def test_long_tables_are_cut(board: Leaderboard) -> None:
    """Of many configurations the best are shown, of many choices those that matter; the rest is counted."""
    found = findings_of(board)
    many = replace(found, pairs=found.pairs * 30, main_effects=found.main_effects * 30)
    tables = {table.key: table for part in board_sections(replace(board, findings=many)) for table in part.tables}
    assert len(tables["differences"].first_items()) == 20
    assert tables["differences"].left_out() == "130 more rows: --format json and csv have all."


def test_programs_get_all_of_it(board: Leaderboard) -> None:
    """JSON has every finding under one key, CSV what is of one configuration in its line."""
    plain = json.loads(output.render([board], "json"))
    assert set(plain["findings"]) == {
        "folds", "differences", "gains", "main_effects", "interactions", "importances", "pareto", "notes",
    }  # fmt: skip
    assert [item["cell_id"] for item in plain["findings"]["differences"]] == [
        row["cell_id"] for row in plain["rows"][1:]
    ]
    best, *others = csv.DictReader(io.StringIO(output.render([board], "csv")))
    assert best["mcnemar_p_value"] == best["behind_over_images_mean"] == ""
    for line, item in zip(others, plain["findings"]["differences"], strict=True):
        assert float(line["behind_over_images_mean"]) == item["over_images"]["mean"]
        assert float(line["behind_p_corrected"]) == item["p_corrected"]
        assert int(line["mcnemar_only_base"]) == item["mcnemar"]["only_base"]
        assert line["seeds_needed"] == ("" if item["seeds_needed"] is None else str(item["seeds_needed"]))


def test_undecided_rows_say_how_many_seeds_it_takes(board: Leaderboard) -> None:
    """In every table; the number is above that of the seeds there are."""
    (index,) = (place for place, row in enumerate(board.rows) if row.label == "size=20 \u00b7 rate=0.01")
    behind = board.rows[index].behind
    assert behind is not None
    shown = replace(board.rows[index], decision=None, standing=Verdict.UNDECIDED, seeds_needed=1234)
    rows = (*board.rows[:index], shown, *board.rows[index + 1 :])
    for kind in ("md", "latex", "html"):
        assert "undecided (needs about 1,234 seeds)" in output.render([replace(board, rows=rows)], kind)
    assert "undecided (needs about 1,234 seeds)" in to_terminal(
        board.sweep, board.question, board_sections(replace(board, rows=rows))
    )
