"""Axes, planners and pruners of sweep files."""

from pathlib import Path

import pytest

from stnbench.config.axes import PointComposer
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.config.resolve import parse_overrides
from stnbench.config.sweeps import read_sweep
from stnbench.core.errors import SpecError
from stnbench.planning import survey
from stnbench.planning.build import build_planner
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.planner import (
    AshaPrunerSpec,
    GridPlannerSpec,
    OptunaPlannerSpec,
    RacingPlannerSpec,
    RandomPlannerSpec,
    ThresholdPrunerSpec,
    TpePlannerSpec,
)
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.tables import PlannedTrial

HEAD = "question: Does it matter?\nseeds: [1]\nbaselines: false\n"
RANGE = HEAD + "axes: {optimizer.learning_rate: {float: [0.001, 0.1], log: true}}\n"


@pytest.fixture(scope="module")
def composer() -> Composer:
    """The shipped groups."""
    return Composer(conf_folder())


def read(tmp_path: Path, composer: Composer, text: str, *overrides: str) -> SweepSpec:
    """The sweep of a file with this text."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return read_sweep(path, composer, parse_overrides(overrides))


def ask(sweep: SweepSpec, composer: Composer) -> list[PlannedTrial]:
    """What its planner asks first."""
    return list(build_planner(sweep, PointComposer(sweep, composer)).ask())


def test_a_range_with_steps_is_a_list_to_a_grid(tmp_path: Path, composer: Composer) -> None:
    """By a step, by so many values, and whole numbers; the trials have what the labels say."""
    text = HEAD + (
        "axes:\n"
        "  optimizer.learning_rate: {float: [0.001, 0.1], log: true, values: 3}\n"
        "  training.epochs: {int: [2, 6], step: 2}\n"
    )
    sweep = read(tmp_path, composer, text)
    asked = ask(sweep, composer)

    assert [trial.label for trial in asked][:4] == [
        "learning_rate=0.001 · epochs=2",
        "learning_rate=0.001 · epochs=4",
        "learning_rate=0.001 · epochs=6",
        "learning_rate=0.01 · epochs=2",
    ]
    assert (asked[3].spec.optimizer.learning_rate, asked[3].spec.training.epochs) == (0.01, 2)
    assert from_plain(SweepSpec, to_plain(sweep), where="the store") == sweep


def test_zipped_keys_change_together(tmp_path: Path, composer: Composer) -> None:
    """The first values of all keys are one choice, and its label names each."""
    text = HEAD + (
        "base: {locnet@locnet1: conv, scale: paper}\n"
        "axes:\n"
        "  size:\n"
        "    zip:\n"
        "      network.sizes: [[10, 20, 30], [20, 40, 60]]\n"
        "      locnet1.sizes: [[5, 5, 5], [9, 9, 9]]\n"
        "      training.epochs: [1, 2]\n"
    )
    asked = ask(read(tmp_path, composer, text), composer)

    assert [trial.label for trial in asked] == ["10,20,30 / 5,5,5 / epochs=1", "20,40,60 / 9,9,9 / epochs=2"]
    assert [trial.spec.network.sizes for trial in asked] == [(10, 20, 30), (20, 40, 60)]
    assert [trial.spec.training.epochs for trial in asked] == [1, 2]


CONDITIONAL = HEAD + (
    "axes:\n"
    "  st:\n"
    "    one: {locnet@locnet1: conv}\n"
    "    two: {locnet@locnet1: conv, locnet@locnet2: conv}\n"
    "  transformer: {values: [affine, scale], when: {st: [two]}}\n"
    "  optimizer.momentum: {float: [0, 0.9], values: 2, when: {st: two, transformer: scale}}\n"
)


def test_an_axis_may_depend_on_those_above_it(tmp_path: Path, composer: Composer) -> None:
    """It is there where the condition holds, for a grid as for a sampler."""
    expected = ["one", "two · affine", "two · scale · momentum=0.0", "two · scale · momentum=0.9"]
    sweep = read(tmp_path, composer, CONDITIONAL)
    sampled = read(tmp_path, composer, CONDITIONAL + "planner: {kind: random, trials: 99, at_once: 9}\n")

    assert [trial.label for trial in ask(sweep, composer)] == expected
    assert sorted(trial.label for trial in ask(sampled, composer)) == expected
    assert from_plain(SweepSpec, to_plain(sampled), where="the store") == sampled


def test_a_narrowed_axis_leaves_out_what_depends_on_its_other_values(tmp_path: Path, composer: Composer) -> None:
    """``st=one`` has no axis of families any more."""
    sweep = read(tmp_path, composer, CONDITIONAL, "transformer=scale")

    assert [trial.label for trial in ask(read(tmp_path, composer, CONDITIONAL, "st=one"), composer)] == ["one"]
    assert [trial.label for trial in ask(sweep, composer)][:2] == ["one", "two · scale · momentum=0.0"]


def test_a_range_is_narrowed_to_any_of_its_numbers(tmp_path: Path, composer: Composer) -> None:
    """Also to one that no planner would draw; a number outside is refused."""
    sweep = read(tmp_path, composer, RANGE + "planner: random\n", "optimizer.learning_rate=0.0123456789")

    assert [trial.spec.optimizer.learning_rate for trial in ask(sweep, composer)] == [0.0123456789]
    with pytest.raises(SpecError, match=r"learning_rate=0\.2"):
        read(tmp_path, composer, RANGE + "planner: random\n", "optimizer.learning_rate=0.2")


@pytest.mark.parametrize(
    ("text", "planner"),
    [
        ("", GridPlannerSpec()),
        ("planner: tpe\n", TpePlannerSpec()),
        ("planner: {kind: random, trials: 7, seed: 3, at_once: 2}\n", RandomPlannerSpec(trials=7, seed=3, at_once=2)),
        ("planner: {kind: racing, max_seeds: 5}\n", RacingPlannerSpec(max_seeds=5)),
        (
            "planner: {kind: optuna, sampler: QMCSampler, options: {scramble: true}}\n",
            OptunaPlannerSpec(sampler="QMCSampler", options={"scramble": True}),
        ),
    ],
)
def test_a_planner_is_a_kind_or_a_mapping(tmp_path: Path, composer: Composer, text: str, planner: object) -> None:
    """A kind alone has the defaults."""
    assert read(tmp_path, composer, HEAD + "axes: {optimizer: [sgd, momentum]}\n" + text).planner == planner


def test_a_pruner_goes_with_any_planner(tmp_path: Path, composer: Composer) -> None:
    """It is a key of its own; none is no pruner."""
    text = HEAD + "axes: {optimizer: [sgd, momentum]}\npruner: "

    assert read(tmp_path, composer, text + "asha\n").pruner == AshaPrunerSpec()
    assert read(tmp_path, composer, text + "{kind: threshold, outside_share: 1}\n").pruner == ThresholdPrunerSpec(
        outside_share=1.0
    )
    assert read(tmp_path, composer, text + "none\n").pruner is None


def test_the_command_line_changes_the_planner(tmp_path: Path, composer: Composer) -> None:
    """More trials are the same sweep; another planner or pruner makes a variant, and keeps what both planners have."""
    text = RANGE + "planner: {kind: tpe, trials: 24, seed: 2}\n"
    more = read(tmp_path, composer, text, "planner.trials=48")
    other = read(tmp_path, composer, text, "planner=random", "pruner=asha")

    assert (more.name, more.planner) == ("mine", TpePlannerSpec(trials=48, seed=2))
    assert (other.name, other.planner) == ("mine-planner_random-pruner_asha", RandomPlannerSpec(trials=24, seed=2))
    assert other.pruner == AshaPrunerSpec()
    assert read(tmp_path, composer, text, "planner=tpe", "pruner=none").name == "mine"
    with pytest.raises(SpecError, match="the sweep has no pruner"):
        read(tmp_path, composer, text, "pruner.min_epochs=2")
    with pytest.raises(SpecError, match=r"write limits\.parameters=1e6"):
        read(tmp_path, composer, text, "limits=3")


def test_a_survey_composes_every_choice_of_a_search(tmp_path: Path, composer: Composer) -> None:
    """So a choice that cannot be meant is found before anything runs."""
    sweep = read(tmp_path, composer, RANGE.replace("axes: {", "axes: {optimizer: [sgd, momentum], ") + "planner: tpe\n")
    specs: list[TrialSpec] = list(survey(sweep, PointComposer(sweep, composer)))

    assert [spec.optimizer.learning_rate for spec in specs] == [0.001, 0.001]
    wrong = read(tmp_path, composer, RANGE.replace("axes: {", "axes: {network: [lecn], ") + "planner: tpe\n")
    with pytest.raises(SpecError, match="did you mean lecun"):
        list(survey(wrong, PointComposer(wrong, composer)))


WRONG = [
    ("axes: {a.b: {float: [0, 1]}}\n", "say step: or values:"),
    ("axes: {a.b: {float: [0, 1, 2]}}\n", "write float: [low, high]"),
    ("axes: {a.b: {float: [0, 1], stpe: 1}}\n", "did you mean step"),
    ("axes: {a.b: {float: [0, x]}}\n", "axes.a.b.high"),
    ("axes: {a.b: {int: [0, 1.5]}}\n", "axes.a.b.high"),
    ("axes: {a.b: {float: [1, 0]}}\n", "lower end first"),
    ("axes: {a: {zip: {x: [1, 2], y: [1]}}}\n", "as many for each"),
    ("axes: {a: {zip: {x: [1, 2]}}}\n", "two keys or more"),
    ("axes: {a: {zip: {x: 3, y: [1]}}}\n", "write a list of values"),
    ("axes: {a: {values: affine}}\n", "a list of values"),
    ("columns: 3\n", "list names of metrics"),
    ("columns: [ecee]\n", "unknown metric 'ecee'"),
    ("published: 3\n", "write a name"),
    ("parts: {a: b}\n", "write a folder, a file or a module"),
    ("parts: /elsewhere/parts.py\n", "names code outside the folder you work in"),
    ("axes: {a: [1, 2], b: {values: [1], when: {c: 1}}}\n", "axis above in axes.b.when"),
    ("axes: {a: [1, 2], b: {values: [1], when: {a: 3}}}\n", "did you mean a="),
    ("axes: {b: {values: [1], when: {a: 1}}, a: [1, 2]}\n", "there are none"),
    ("axes: {a: 1}\n", "{float: [low, high]}"),
    ("planner: {trials: 5}\n", "kind"),
    ("planner: {kind: tpe, trails: 5}\n", "did you mean planner.trials"),
    ("planner: {kind: tpe, trials: 0}\n", "at least 1"),
    ("planner: {kind: optuna, sampler: X, options: {a: [1]}}\n", "planner.options"),
    ("planner: [grid]\n", "keys and values"),
    ("pruner: ahsa\n", "asha"),
    ("pruner: threshold\n", "say accuracy: or outside_share:"),
    ("axes: {a: [1, 2]}\nwithin: a\nplanner: tpe\n", "compares within an axis"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_cannot_be_meant_is_named_with_its_file(
    tmp_path: Path, composer: Composer, text: str, message: str
) -> None:
    """The message has the file, the key and what to write."""
    with pytest.raises(SpecError, match=r"mine\.yaml") as caught:
        read(tmp_path, composer, HEAD + text)
    assert message in str(caught.value)
