"""What the command line asks of a sweep is done, or refused: never silently neither."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stnbench.config.axes import PointComposer, require_effect, require_effects
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder, find_sweep, sweep_files
from stnbench.config.resolve import parse_only, parse_overrides
from stnbench.config.sweeps import read_sweep, require_same_sweep, with_own_name
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.text import NAME_MAX, short_name
from stnbench.planning.build import GridPlanner
from stnbench.spec.codec import from_plain, to_plain
from stnbench.spec.sweep import SweepSpec

COMPOSER = Composer(conf_folder())
HEAD = "question: Does it matter?\nseeds: [1]\nbaselines: false\n"
RECIPES = HEAD + (
    "axes:\n  recipe:\n    plain: {optimizer.learning_rate: 0.01}\n"
    "    fast: {optimizer.learning_rate: 0.05, training.label_smoothing: 0.1}\n"
)
FAMILIES = HEAD + "base: {locnet@locnet1: conv}\naxes: {transformer: [affine, scale, tps], training.epochs: [1, 2]}\n"

Read = Callable[..., SweepSpec]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads the sweep of a text, as a command line asks it."""

    def read_it(text: str, *overrides: str, only: tuple[str, ...] = (), name: str = "mine") -> SweepSpec:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        sweep = read_sweep(path, COMPOSER, parse_overrides(overrides), only=parse_only(only))
        require_effects(sweep, COMPOSER)
        return sweep

    return read_it


def labels(sweep: SweepSpec) -> list[str]:
    """The configurations that the sweep asks for first."""
    return [trial.label for trial in GridPlanner(sweep, PointComposer(sweep, COMPOSER)).ask()]


WITHOUT_EFFECT = [
    (RECIPES, "optimizer.learning_rate=0.3", "the axis recipe sets optimizer.learning_rate", "--only 'recipe=...'"),
    (RECIPES, "training.label_smoothing=0.2", "the axis recipe sets training.label_smoothing", "it has plain, fast"),
    (RECIPES, "transformer=rotation", "transformer=rotation has no effect", "nothing that is configured here reads it"),
    (RECIPES, "locnet@locnet3=conv", "locnet@locnet3=conv has no effect", "lecun has 2 stages"),
    (FAMILIES, "optimizer.locnet_learning_rate_factor=0.1", "", ""),
    (FAMILIES, "transformer.zoom=0.5", "transformer.zoom=0.5 has no effect", "on affine"),
    (RECIPES, "training.batch_size=10", "", ""),
    (RECIPES, "preprocess.kernel_size=9", "preprocess.kernel_size=9 has no effect", "in this trial"),
]


@pytest.mark.parametrize(("text", "override", "problem", "remedy"), WITHOUT_EFFECT)
def test_an_override_holds_or_is_refused(read: Read, text: str, override: str, problem: str, remedy: str) -> None:
    """Because an axis sets the key, or because nothing reads it; the message says which, and what to do."""
    if not problem:
        assert read(text, override).overrides
        return
    with pytest.raises(SpecError, match="the command line") as caught:
        read(text, override)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_a_shipped_sweep_refuses_what_its_axes_set() -> None:
    """``st_paper network=cnn`` would run the same 48 configurations under another name."""
    for override in ("network=cnn", "locnet1.sizes=[10,10,10]", "locnet@locnet1=conv"):
        with pytest.raises(SpecError, match="the axis classifier sets"):
            read_sweep(find_sweep("st_paper", Path("/nowhere")), COMPOSER, parse_overrides([override]))


def test_what_holds_already_may_be_given(read: Read) -> None:
    """A value that a file sets by itself changes nothing, and is what was asked for."""
    assert labels(read(FAMILIES, "training.batch_size=50", "scale=paper")) == labels(read(FAMILIES))


def test_an_override_of_one_trial_has_an_effect_too() -> None:
    """``train`` refuses likewise, and takes what holds already."""
    overrides = parse_overrides(["transformer=rotation", "network=lecun", "training.epochs=3"])
    with pytest.raises(SpecError, match="transformer=rotation has no effect"):
        require_effect(overrides[0], overrides, COMPOSER)
    for override in overrides[1:]:
        require_effect(override, overrides, COMPOSER)


@pytest.mark.parametrize("words", [[], ["experiment=arcos_garcia"]])
def test_the_folder_of_images_may_be_said_on_the_command_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    """Without it there are no images where the default looks, which makes it no less effective."""
    monkeypatch.chdir(tmp_path)
    for name in ("bars/1.png", "bars/2.png", "dots/1.png", "dots/2.png"):
        (tmp_path / "shapes" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (len(name), int(name[-5]), 0)).save(tmp_path / "shapes" / name)
    said = [*words, "dataset=folder", "dataset.path=shapes"]
    overrides = parse_overrides(said)
    for override in overrides:
        require_effect(override, overrides, COMPOSER)
    assert labels(read(HEAD + "axes: {training.epochs: [1]}\n", *said[-2:])) == ["epochs=1"]


def test_an_axis_is_narrowed_to_some_of_its_values(read: Read) -> None:
    """By an override with a list, or by --only; both are the same sweep."""
    asked = read(FAMILIES, "transformer=[tps,affine]", "training.epochs=1")
    only = read(FAMILIES, "training.epochs=1", only=("transformer=tps,affine",))

    assert labels(asked) == ["affine · epochs=1", "tps · epochs=1"]
    assert labels(only) == labels(asked)
    assert only.name == asked.name == "mine-training.epochs_1-tps_affine"
    assert from_plain(SweepSpec, to_plain(only), where="the store") == only


def test_an_axis_of_lists_is_narrowed_to_some_of_them(read: Read) -> None:
    """A list is one value where the axis has it; several are written side by side."""
    text = HEAD + "base: {locnet@locnet1: conv}\naxes: {locnet1.sizes: [[20,20,20], [30,30,30], [40,40,40]]}\n"

    assert labels(read(text, "locnet1.sizes=[30,30,30]")) == ["30,30,30"]
    assert labels(read(text, only=("locnet1.sizes=[40,40,40],[20,20,20]",))) == ["20,20,20", "40,40,40"]
    assert labels(read(text, "locnet1.sizes=['40,40,40','20,20,20']")) == ["20,20,20", "40,40,40"]


def test_named_choices_are_narrowed_by_name_whatever_it_looks_like(read: Read) -> None:
    """Also a name that looks like a number or a switch."""
    text = (
        HEAD
        + "axes:\n  st:\n    on: {locnet@locnet1: conv}\n    off: {locnet@locnet1: none}\n    '1': {network: idsia}\n"
    )

    assert labels(read(text, "st=on")) == ["on"]
    assert labels(read(text, only=("st=off,1",))) == ["off", "1"]


def test_a_range_is_narrowed_to_some_of_its_numbers(read: Read) -> None:
    """In the order that was given."""
    text = HEAD + "axes: {optimizer.learning_rate: {float: [0.001, 0.1]}}\nplanner: random\n"
    sweep = read(text, only=("optimizer.learning_rate=0.05,0.01",))

    assert [choice.label for choice in sweep.axes[0].choices] == ["learning_rate=0.05", "learning_rate=0.01"]
    with pytest.raises(UnknownNameError, match=r"learning_rate=0\.2"):
        read(text, only=("optimizer.learning_rate=0.05,0.2",))


WRONG_ONLY = [
    ("tranformer=affine", (), "did you mean transformer"),
    ("transformer=afine", (), "did you mean affine"),
    ("optimizer=sgd", (), "unknown axis 'optimizer'"),
    ("transformer=affine", ("transformer=tps",), "narrowed twice"),
]


@pytest.mark.parametrize(("only", "overrides", "message"), WRONG_ONLY)
def test_only_is_for_axes_and_their_values(read: Read, only: str, overrides: tuple[str, ...], message: str) -> None:
    """A misspelt one would run everything."""
    with pytest.raises(SpecError, match=message):
        read(FAMILIES, *overrides, only=(only,))


SHADOWED = [
    (
        "axes:\n  recipe: {slow: {optimizer.learning_rate: 0.01}}\n  optimizer.learning_rate: [0.1]\n",
        "recipe and optimizer.learning_rate both set optimizer.learning_rate",
    ),
    ("axes:\n  a: {x: {seed: 1}, y: {network: idsia}}\n  b: {z: {seed: 2}}\n", "a and b both set seed"),
    (
        "axes:\n  pair: {zip: {network: [lecun, idsia], optimizer: [sgd, momentum]}}\n  optimizer: [sgd]\n",
        "pair and optimizer both set optimizer",
    ),
    ("axes:\n  - {seed: [1]}\n  - {a: {x: {seed: 1}}, seed: {int: [1, 3], values: 2}}\n", "a and seed both set seed"),
    (
        "axes:\n  a: {x: {seed: 1}, y: {network: idsia}}\n  seed: {values: [2], when: {a: [x, y]}}\n",
        "a and seed both set seed",
    ),
]


@pytest.mark.parametrize(("text", "message"), SHADOWED)
def test_two_axes_on_one_key_are_refused(read: Read, text: str, message: str) -> None:
    """The upper one would disappear without a word."""
    with pytest.raises(SpecError, match=r"mine\.yaml") as caught:
        read(HEAD + text)
    assert message in str(caught.value)


APART = (
    "axes:\n  st: {one: {network: lecun}, two: {network: idsia}}\n  a: {choices: {p: {seed: 1}}, when: {st: one}}\n"
    "  b: {choices: {q: {seed: 2}}, when: {st: two}}\n"
)
MEETING = [
    "axes:\n  a: {x: {seed: 1}, y: {network: idsia}}\n  seed: {values: [2, 3], when: {a: y}}\n",
    APART,
    "axes:\n  - {seed: [1]}\n  - {seed: [2]}\n",
]


@pytest.mark.parametrize("text", MEETING)
def test_axes_that_never_meet_may_set_one_key(read: Read, text: str) -> None:
    """Conditions keep them apart, or they stand in different grids."""
    assert labels(read(HEAD + text))


BOUNDED = [
    ("seeds: 3000000000\n", "asks for 3,000,000,000 seeds"),
    (f"seeds: [{2**63}]\n", "too large"),
    ("seeds: [-1]\n", "from 0"),
    ("axes: {seed: {int: [1, 1000000000000]}}\n", "at most 10000 numbers"),
    ("axes: {seed: {int: [1, 1000000000000], step: 1}}\n", "at most 10000 steps"),
    ("axes: {optimizer.momentum: {float: [0, 1], step: 1.0e-12}}\n", "at most 10000 steps"),
    ("axes: {seed: {int: [1, 1000000000000], values: 1000000000}}\n", "from 2 to 1000"),
    ("axes:\n" + "".join(f"  a{n}: {{int: [1, 1000], step: 1}}\n" for n in range(3)), "up to 2,000,000,000 trials"),
]


@pytest.mark.parametrize(("text", "message"), BOUNDED)
def test_sizes_are_bounded_before_they_are_built(read: Read, text: str, message: str) -> None:
    """A typing error costs a line, not the memory of the machine."""
    with pytest.raises(SpecError, match=r"mine\.yaml") as caught:
        read("question: How many?\nbaselines: false\n" + text)
    assert message in str(caught.value)


BLAMED = [
    ("trainig.epochs=3", "the command line: unknown key 'trainig.epochs'", "training.epochs"),
    ("epochs=3", "the command line: unknown key 'epochs'", "did you mean training.epochs"),
    ("training.batch_size=0", "the command line: training.batch_size is 0", "it must be at least 1"),
    ("network=lecn", "the command line: unknown network 'lecn'", "did you mean lecun"),
    ("locnet1=3", "the command line: locnet1=3: locnet1 is a group of keys", "locnet@locnet1=conv"),
    ("optimizer.learning_rate=fast", "the command line: optimizer.learning_rate is 'fast'", "valid number"),
]


@pytest.mark.parametrize(("override", "problem", "remedy"), BLAMED)
def test_what_the_command_line_has_wrong_is_its_own_fault(read: Read, override: str, problem: str, remedy: str) -> None:
    """Not that of a configuration, nor of a file that does not hold the value."""
    sweep = unchecked(read, override)
    with pytest.raises(SpecError) as caught:
        list(GridPlanner(sweep, PointComposer(sweep, COMPOSER)).ask())
    assert str(caught.value).startswith(problem)
    assert remedy in str(caught.value)
    assert ".yaml" not in caught.value.problem or "unknown" in problem
    with pytest.raises(SpecError, match="the command line"):  # as the command asks, effects first
        read(FAMILIES, override)


def unchecked(read: Read, override: str) -> SweepSpec:
    """The sweep with an override, its effects not asked for."""
    sweep, overrides = read(FAMILIES), parse_overrides([override])
    return dataclasses.replace(sweep, base=(*sweep.base, *overrides), overrides=overrides)


def test_what_a_file_has_wrong_is_told_with_its_configuration(read: Read) -> None:
    """The value stands in an axis, and not in conf/optimizer/sgd.yaml."""
    sweep = read(HEAD + "axes: {optimizer.learning_rate: [0.1, fast]}\n")
    with pytest.raises(SpecError) as caught:
        GridPlanner(sweep, PointComposer(sweep, COMPOSER)).ask()
    assert str(caught.value).startswith("sweep mine, configuration fast: optimizer.learning_rate is 'fast'")


def test_a_name_of_many_overrides_is_short_and_its_own(read: Read) -> None:
    """Beyond what file systems take, a digest of the whole stands for the rest."""
    overrides = [
        "optimizer=momentum",
        "optimizer.learning_rate=0.0123456789",
        "optimizer.weight_decay=0.000123456",
        "training.label_smoothing=0.0512345",
        "training.weight_average=0.95123",
        "training.batch_size=20",
        "dataset.image_size=32",
    ]
    one = read(FAMILIES, *overrides)
    other = read(FAMILIES, *overrides[:-1], "dataset.image_size=33")

    assert len(one.name) <= NAME_MAX
    assert one.name.startswith("mine-")
    assert one.name != other.name
    assert one.name == read(FAMILIES, *reversed(overrides)).name


@given(st.text(max_size=300))
def test_short_names_are_short_and_stay_apart(name: str) -> None:
    """In bytes, for any text; a short one stays as it is."""
    short = short_name(name)
    assert len(short.encode(errors="surrogatepass")) <= NAME_MAX
    assert short == name or len(name.encode(errors="surrogatepass")) > NAME_MAX
    assert short == name or short_name(f"{name}x") != short


def test_a_variant_does_not_take_the_name_of_another_file(read: Read) -> None:
    """``mine scale=smoke`` beside a file mine-smoke.yaml."""
    variant = read(FAMILIES, "scale=smoke")
    assert with_own_name(variant, ["mine", "other"]).name == "mine-smoke"
    named = with_own_name(variant, ["mine", "mine-smoke"])
    assert named.name.startswith("mine-smoke-")
    assert named.name != "mine-smoke"
    assert with_own_name(read(FAMILIES), ["mine", "mine-smoke"]).name == "mine"


def test_a_name_that_another_sweep_has_in_the_store_is_refused(read: Read) -> None:
    """The file may have come, or gone, after the other ran; more seeds or trials are the same sweep."""
    variant = read(FAMILIES, "scale=smoke")
    file = read(FAMILIES, name="mine-smoke")

    with pytest.raises(SpecError, match="'mine scale=smoke', and 'mine-smoke' in the store"):
        require_same_sweep(variant, [file])
    with pytest.raises(SpecError, match="two sweeps would be called mine-smoke"):
        require_same_sweep(file, [variant])
    require_same_sweep(variant, [read(FAMILIES, "scale=smoke", "seeds=3"), read(FAMILIES)])


def test_a_sweep_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell completes it, relative, absolute or from home, and with either ending."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "sweeps"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(FAMILIES)
    (folder / "other.yml").write_text(FAMILIES)

    for name in ("tiny", "sweeps/tiny.yaml", "./sweeps/tiny.yaml", str(folder / "tiny.yaml"), "~/sweeps/tiny.yaml"):
        assert find_sweep(name, tmp_path) == folder / "tiny.yaml"
    for name in ("other", "sweeps/other.yml"):
        assert find_sweep(name, tmp_path) == folder / "other.yml"
    with pytest.raises(UnknownNameError, match=r"did you mean sweeps/tiny\.yaml"):
        find_sweep("sweeps/tiny.yml", tmp_path)
    for name in ("tiny.yaml", "TINY", "Tiny.yml"):
        with pytest.raises(UnknownNameError, match="did you mean tiny"):
            find_sweep(name, tmp_path)
    latin = os.fsdecode(b"t\xe4st")  # stored nowhere: Python could not decode it
    (folder / f"{latin}.yaml").write_text(FAMILIES)
    for name in (latin, f"sweeps/{latin}.yaml"):
        with pytest.raises(SpecError, match=r"use a UTF-8 locale"):
            find_sweep(name, tmp_path)
    (folder / "tiny.yml").write_text(FAMILIES)
    with pytest.raises(SpecError, match="have one name"):
        find_sweep("tiny", tmp_path)


LEFT_BEHIND = [
    ".#sgd.yaml",
    "._sgd.yaml",
    ".sgd.yaml.swp",
    "sgd.yaml~",
    "#sgd.yaml#",
    "sgd.yaml.orig",
    ".hidden.yaml",
    "~$sgd.yaml",
]


def test_what_editors_and_file_systems_leave_is_no_choice(tmp_path: Path) -> None:
    """In conf/ and in sweeps/: links that lead nowhere, copies, folders."""
    conf = tmp_path / "conf"
    shutil.copytree(conf_folder(), conf)
    for folder in (conf / "optimizer", tmp_path / "sweeps"):
        folder.mkdir(exist_ok=True)
        for name in LEFT_BEHIND:
            (folder / name).symlink_to("me@host.1234:1700000000")
        (folder / "dangling.yaml").symlink_to(tmp_path / "nowhere")
        (folder / "folder.yaml").mkdir()

    composer = Composer(conf)
    assert composer.choices("optimizer") == COMPOSER.choices("optimizer")
    assert composer.compose([]) == COMPOSER.compose([])
    assert sweep_files(tmp_path) == sweep_files(Path("/nowhere"))
