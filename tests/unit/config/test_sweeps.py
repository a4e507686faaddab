"""Sweep files become sweeps."""

import shutil
from pathlib import Path

import pytest

from stnbench.config.axes import PointComposer
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder, find_sweep, sweep_files
from stnbench.config.resolve import parse_overrides
from stnbench.config.sweeps import read_sweep
from stnbench.core.errors import FormerNameWarning, SpecError, UnknownNameError
from stnbench.planning.build import GridPlanner, build_planner
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.planner import UntilDecidedPlannerSpec
from stnbench.spec.sweep import SweepSpec


@pytest.fixture(scope="module")
def composer() -> Composer:
    """The shipped groups."""
    return Composer(conf_folder())


def read(tmp_path: Path, composer: Composer, text: str, *overrides: str) -> SweepSpec:
    """The sweep of a file with this text."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return read_sweep(path, composer, parse_overrides(overrides))


QUESTION = "question: Does it matter?\n"


def test_locnet_sizes_asks_the_question_of_2015(composer: Composer) -> None:
    """4 sizes x 2 families and one baseline, three seeds each: every configuration once in the first round of seeds."""
    sweep = read_sweep(find_sweep("locnet_sizes", Path()), composer)
    asked = GridPlanner(sweep, PointComposer(sweep, composer)).ask()

    assert len(asked) == 27
    assert len({trial.spec.config_id for trial in asked[:9]}) == 9
    assert [trial.label for trial in asked if trial.is_baseline] == ["no ST", "no ST", "no ST"]


@pytest.mark.slow
def test_every_shipped_sweep_can_be_planned(composer: Composer) -> None:
    """No shipped sweep is broken, or has two axes on one key; test_published_sweeps composes those of 2015 on GTSRB."""
    for name, path in sweep_files(Path("/nowhere")).items():
        sweep = read_sweep(path, composer)
        assert build_planner(sweep, PointComposer(sweep, composer)).ask(), name


def test_overrides_make_a_variant_with_a_name_of_its_own(tmp_path: Path, composer: Composer) -> None:
    """Defaults said aloud and seeds do not; the order of overrides does not matter."""
    text = QUESTION + "axes: {transformer: [affine, scale]}\nbase: {locnet@locnet1: conv}\n"
    variant = read(tmp_path, composer, text, "scale=smoke", "dataset=gtsrb", "training.epochs=3")

    assert variant.name == "mine-gtsrb-smoke-training.epochs_3"
    assert variant.name == read(tmp_path, composer, text, "training.epochs=3", "dataset=gtsrb", "scale=smoke").name
    assert read(tmp_path, composer, text, "dataset=signs", "scale=quick", "seeds=[3,4,5]").name == "mine"


def test_an_override_of_an_axis_narrows_it(tmp_path: Path, composer: Composer) -> None:
    """One value of an axis may be chosen, by the label that tables show; others are refused."""
    text = QUESTION + "axes: {locnet1.sizes: [[20,20,20],[30,60,30]]}\nbase: {locnet@locnet1: conv}\n"
    sweep = read(tmp_path, composer, text, "locnet1.sizes=[30,60,30]")

    assert [choice.label for choice in sweep.axes[0].choices] == ["30,60,30"]
    with pytest.raises(UnknownNameError, match="30,60,30"):
        read(tmp_path, composer, text, "locnet1.sizes=[1,1,1]")


def test_an_override_that_is_a_default_still_narrows(tmp_path: Path, composer: Composer) -> None:
    """``affine`` is chosen without being said, and yet says something where a sweep has several families."""
    text = QUESTION + "axes: {transformer: [scale, affine]}\nbase: {locnet@locnet1: conv, network: idsia}\n"

    assert [choice.label for choice in read(tmp_path, composer, text, "transformer=affine").axes[0].choices] == [
        "affine"
    ]
    assert read(tmp_path, composer, text, "network=lecun").name == "mine-lecun"
    assert read(tmp_path, composer, text, "network=idsia").name == "mine"


def test_a_default_that_an_experiment_does_not_choose_is_a_change(tmp_path: Path) -> None:
    """The experiment of the base, or of an axis, says what holds where nothing else is said."""
    folder = tmp_path / "conf"
    shutil.copytree(conf_folder(), folder)
    text = "# @package _global_\ndefaults: [override /dataset: gtsrb, override /network: idsia]\n"
    (folder / "experiment" / "search.yaml").write_text(text)
    composer = Composer(folder)
    base = QUESTION + "axes: {optimizer: [sgd, momentum]}\nbase: {experiment: search}\n"

    assert read(tmp_path, composer, base, "dataset=gtsrb", "network=idsia").name == "mine"
    assert read(tmp_path, composer, base, "dataset=signs", "network=lecun").name == "mine-signs-lecun"
    axis = QUESTION + "axes: {experiment: [none, search]}\n"
    assert read(tmp_path, composer, axis, "dataset=signs").name == "mine-signs"
    assert read(tmp_path, composer, axis, "preprocess=global").name == "mine"


def test_a_default_that_a_scale_does_not_choose_is_a_change(tmp_path: Path) -> None:
    """A scale chooses from other groups as well: the one that is asked for says what holds beside it."""
    composer = Composer(conf_folder())
    text = QUESTION + "axes: {network: [lecun, idsia]}\n"

    assert read(tmp_path, composer, text, "preprocess=global").name == "mine"
    assert read(tmp_path, composer, text, "preprocess=contrastive").name == "mine-contrastive"
    assert read(tmp_path, composer, text, "preprocess=contrastive", "scale=paper").name == "mine-paper"
    assert read(tmp_path, composer, text, "preprocess=global", "scale=paper").name == "mine-global-paper"


GRIDS = QUESTION + (
    "axes:\n"
    "  - network: [lecun]\n"
    "    network.sizes: [[10,20,30], [20,30,40]]\n"
    "    optimizer: [sgd, momentum]\n"
    "  - network: [idsia]\n"
    "    network.sizes: [[10,20,30,40]]\n"
    "  - {}\n"
    "baselines: false\n"
    "seeds: 1\n"
)


def test_baselines_may_be_of_equal_size(tmp_path: Path, composer: Composer) -> None:
    """In the file, and on the command line, which has the last word."""
    asked = QUESTION + "axes: {locnet1.sizes: [[10,10,10]]}\nbaselines: equal_parameters\n"
    assert read(tmp_path, composer, asked).baselines == "equal_parameters"
    assert read(tmp_path, composer, asked, "baselines=true").baselines is True
    assert read(tmp_path, composer, QUESTION, "baselines=equal_parameters").baselines == "equal_parameters"


def test_a_list_of_axes_spans_several_grids(tmp_path: Path, composer: Composer) -> None:
    """Each grid has axes of its own; a point has the labels of its grid, and a grid without axes is the base alone."""
    sweep = read(tmp_path, composer, GRIDS + "exclude:\n  - {network.sizes: [20,30,40], optimizer: momentum}\n")
    asked = GridPlanner(sweep, PointComposer(sweep, composer)).ask()

    assert [trial.label for trial in asked] == [
        "lecun · 10,20,30 · sgd",
        "lecun · 10,20,30 · momentum",
        "lecun · 20,30,40 · sgd",
        "idsia · 10,20,30,40",
        "base",
    ]
    assert from_plain(SweepSpec, to_plain(sweep), where="the store") == sweep


def test_grids_that_meet_share_the_configuration(tmp_path: Path, composer: Composer) -> None:
    """A point that two grids have is asked once."""
    text = QUESTION + "axes:\n  - {optimizer: [sgd, momentum]}\n  - {optimizer: [momentum]}\nseeds: 1\n"
    sweep = read(tmp_path, composer, text)

    assert [trial.label for trial in GridPlanner(sweep, PointComposer(sweep, composer)).ask()] == ["sgd", "momentum"]


def test_an_override_narrows_every_grid(tmp_path: Path, composer: Composer) -> None:
    """Grids without a point of that value go; what no grid varies holds for all of them."""
    for override, labels in (
        ("network=idsia", ["idsia · 10,20,30,40"]),
        ("optimizer=momentum", ["lecun · 10,20,30 · momentum", "lecun · 20,30,40 · momentum"]),
    ):
        sweep = read(tmp_path, composer, GRIDS, override, "training.epochs=3")
        asked = GridPlanner(sweep, PointComposer(sweep, composer)).ask()
        assert [trial.label for trial in asked] == labels
        assert {trial.spec.training.epochs for trial in asked} == {3}
    with pytest.raises(UnknownNameError, match="idsia"):
        read(tmp_path, composer, GRIDS, "network=idsa")


def test_excluded_points_and_named_choices(tmp_path: Path, composer: Composer) -> None:
    """Choices may be named and change several keys at once; a point is left out where all its pairs match."""
    text = QUESTION + (
        "axes:\n"
        "  st:\n"
        "    one: {locnet@locnet1: conv}\n"
        "    two: {locnet@locnet1: conv, locnet@locnet2: conv}\n"
        "  transformer: [affine, rotation, scale]\n"
        "exclude:\n"
        "  - {st: two, transformer: rotation}\n"
        "baselines: false\n"
        "seeds: 1\n"
    )
    sweep = read(tmp_path, composer, text)
    labels = [trial.label for trial in GridPlanner(sweep, PointComposer(sweep, composer)).ask()]

    assert labels == ["one · affine", "one · rotation", "one · scale", "two · affine", "two · scale"]


def test_points_that_mean_the_same_trial_are_asked_once(tmp_path: Path, composer: Composer) -> None:
    """Without a localisation network the family has no effect, and a config without a transformer needs no baseline."""
    text = QUESTION + "axes: {locnet@locnet1: [none, conv], transformer: [affine, rotation]}\nseeds: [1]\n"
    sweep = read(tmp_path, composer, text)
    asked = GridPlanner(sweep, PointComposer(sweep, composer)).ask()

    assert [trial.label for trial in asked] == ["none · affine", "conv · affine", "conv · rotation"]
    assert not any(trial.is_baseline for trial in asked)


def test_baselines_keep_the_labels_that_tell_them_apart(tmp_path: Path, composer: Composer) -> None:
    """Two networks have two baselines; what all configurations share is not repeated."""
    text = QUESTION + (
        "base: {locnet@locnet1: conv}\naxes: {network: [lecun, idsia], transformer: [affine, scale]}\nseeds: [1]\n"
    )
    sweep = read(tmp_path, composer, text)
    asked = GridPlanner(sweep, PointComposer(sweep, composer)).ask()

    assert [trial.label for trial in asked if trial.is_baseline] == ["lecun · no ST", "idsia · no ST"]


def test_baselines_have_no_label_of_what_they_lack(tmp_path: Path, composer: Composer) -> None:
    """Where a network stands in one config only, its baseline still is not called after that config's transformer."""
    text = QUESTION + (
        "base: {locnet@locnet1: conv}\naxes:\n"
        "  - {network: [lecun], transformer: [affine, scale]}\n"
        "  - {network: [idsia], transformer: [affine], locnet1: {small: {locnet1.sizes: [3, 4, 5]}}}\n"
        "seeds: [1]\n"
    )
    sweep = read(tmp_path, composer, text)
    baselines = [trial for trial in GridPlanner(sweep, PointComposer(sweep, composer)).ask() if trial.is_baseline]

    assert [baseline.label for baseline in baselines] == ["lecun · no ST", "idsia · no ST"]
    assert [baseline.point.labels for baseline in baselines] == [(("network", "lecun"),), (("network", "idsia"),)]


WRONG = [
    ("axes: {}\n", "asks no question"),
    (QUESTION + "axis: {}\n", "did you mean axes"),
    (QUESTION + "axes: {transformer: affine}\n", "axes.transformer"),
    (QUESTION + "axes: {transformer: [affine, affine]}\n", "each value once"),
    (QUESTION + "axes: {network.sizes: [[[1]]]}\n", "list of lists"),
    (QUESTION + "axes: []\n", "keys and values"),
    (QUESTION + "axes: [{a: {x: {seed: 1}}}, {a: {x: {seed: 2}}}]\n", "the same in every grid"),
    (QUESTION + "axes: [{seed: [1]}, {transformer: [affine]}]\nwithin: seed\n", "an axis of every grid"),
    (QUESTION + "axes: {transformer: [affine]}\nexclude: [{tranformer: affine}]\n", "did you mean transformer"),
    (QUESTION + "axes: {transformer: [affine]}\nexclude: [{transformer: afine}]\n", "did you mean affine"),
    (QUESTION + "seeds: 0\n", "seeds"),
    (QUESTION + "seeds: [1, 1]\n", "each seed once"),
    (QUESTION + "seeds: [a]\n", "seeds"),
    (QUESTION + "baselines: 1\n", "true or false"),
    (QUESTION + "planner: gird\n", "grid"),
    (QUESTION + "base: [a]\n", "keys and values"),
    ("question: [\n", "not YAML"),
    ("- a\n", "keys and values"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_sweep_is_named_with_its_file(tmp_path: Path, composer: Composer, text: str, message: str) -> None:
    """The message has the file and the remedy."""
    with pytest.raises(SpecError, match=r"mine\.yaml") as caught:
        read(tmp_path, composer, text)
    assert message in str(caught.value)


def test_a_wrong_point_names_the_sweep_and_the_configuration(tmp_path: Path, composer: Composer) -> None:
    """In a sweep of hundreds of configurations the message says which one is wrong."""
    sweep = read(tmp_path, composer, QUESTION + "axes: {network.sizes: [[10,20,30], [1,2]]}\n")
    with pytest.raises(SpecError, match=r"sweep mine, configuration 1,2: network.sizes"):
        GridPlanner(sweep, PointComposer(sweep, composer)).ask()


def test_a_users_own_sweep_is_found_and_hides_a_shipped_one(tmp_path: Path) -> None:
    """``sweeps/`` in the working folder comes first; an unknown name offers the nearest."""
    own = tmp_path / "sweeps"
    own.mkdir()
    (own / "locnet_sizes.yaml").write_text(QUESTION)
    (own / "mine.yaml").write_text(QUESTION)

    assert find_sweep("locnet_sizes", tmp_path) == own / "locnet_sizes.yaml"
    assert "mine" in sweep_files(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean locnet_sizes"):
        find_sweep("locnet_size", tmp_path)


AXIS = "axes: {transformer: [affine, scale]}\n"


@pytest.mark.parametrize(
    ("text", "overrides", "seeds"),
    [
        ("seeds: until_decided\n", (), (1, 2)),
        ("seeds: until_decided\n", ("seeds=3",), (1, 2, 3)),
        ("seeds: 3\n", ("until=decided",), (1, 2, 3)),
        ("seeds: 3\n", ("seeds=until_decided",), (1, 2)),
        ("", ("planner.max_seeds=7", "until=decided"), (1, 2)),
        ("planner: {kind: until_decided, looks: 4, trials: 40}\n", ("until=decided",), (1, 2)),
    ],
)
def test_seeds_until_all_is_decided(
    tmp_path: Path, composer: Composer, text: str, overrides: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    """Said in the file or on the command line, it is the same sweep with a planner that adds seeds to the first."""
    sweep = read(tmp_path, composer, QUESTION + AXIS + text, *overrides)

    assert isinstance(sweep.planner, UntilDecidedPlannerSpec)
    assert sweep.seeds == seeds
    assert sweep.name == "mine"
    assert sweep.planner.max_seeds == (7 if "planner.max_seeds=7" in overrides else 20)
    assert from_plain(SweepSpec, to_plain(sweep), where="the store") == sweep


@pytest.mark.parametrize("planner", ["racing", "random", "tpe"])
@pytest.mark.parametrize("place", ["file", "command line"])
def test_only_a_grid_goes_on_until_all_is_decided(tmp_path: Path, composer: Composer, planner: str, place: str) -> None:
    """A planner that adds or chooses trials itself is named, with the remedy."""
    text = QUESTION + AXIS + f"planner: {planner}\n"
    text, overrides = (text + "seeds: until_decided\n", []) if place == "file" else (text, ["until=decided"])

    with pytest.raises(SpecError, match=planner) as error:
        read(tmp_path, composer, text, *overrides)
    assert error.value.remedy == "use planner: grid"


def test_until_something_else_is_refused(tmp_path: Path, composer: Composer) -> None:
    """The error says what can be written."""
    for override, word in (("until=done", "--until decided"), ("seeds=until_done", "until_decided")):
        with pytest.raises(SpecError) as error:
            read(tmp_path, composer, QUESTION + AXIS, override)
        assert word in error.value.remedy


def test_former_keys_of_a_file_are_taken_with_a_warning(tmp_path: Path, composer: Composer) -> None:
    """``twins`` and an axis ``views`` are the sweep that ``baselines`` and ``tta`` describe."""
    with pytest.warns(FormerNameWarning, match="is now") as given:
        former = read(tmp_path, composer, QUESTION + "axes: {views: [one, nine]}\ntwins: false\n")
    present = read(tmp_path, composer, QUESTION + "axes: {tta: [one, nine]}\nbaselines: false\n")

    assert former == present
    assert sorted(str(warning.message).split(": ")[1] for warning in given) == [
        "twins is now baselines; write that",
        "views is now tta; write that",
    ]


@pytest.mark.parametrize(
    ("former", "present"), [("twins=false", "baselines=false"), ("views.shift=0.1", "tta.shift=0.1")]
)
def test_former_keys_of_the_command_line_are_taken_with_a_warning(former: str, present: str) -> None:
    """They are the overrides of today."""
    with pytest.warns(FormerNameWarning, match="the command line"):
        overrides = parse_overrides([former])
    assert overrides == parse_overrides([present])


def test_sweeps_stored_under_former_names_are_read() -> None:
    """A store of an earlier release says twins."""
    plain = to_plain(SweepSpec(name="mine", question="?", baselines=False))
    stored = {("twins" if key == "baselines" else key): value for key, value in plain.items()}
    assert from_plain(SweepSpec, stored, where="a store") == SweepSpec(name="mine", question="?", baselines=False)
