"""``key=value`` on the command line."""

import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st

from stnbench.config.locate import conf_folder, take_dataset_root
from stnbench.config.resolve import parse_only, parse_overrides, take_engine_options
from stnbench.core.errors import INTEGER_MAX, SpecError
from stnbench.spec.sweep import Override

HYDRA = OverridesParser.create()

MEANT = [
    ("1e-3", 0.001),
    ("20_000", 20_000),
    ("[20,20,20]", (20, 20, 20)),
    ("[a, 'b, c', 1e-3, null]", ("a", "b, c", 0.001, None)),
    ("'a, b'", "a, b"),
    ('"016"', "016"),
    ("TRUE", True),
    ("", ""),
    ("localisation rate 0.3", "localisation rate 0.3"),
    ("jörg", "jörg"),
    ("GTSRB (1)", "GTSRB (1)"),
    ("run=3", "run=3"),
    ("a#b&c;d", "a#b&c;d"),
    ("~/x", "~/x"),
    ("a\\,b", "a,b"),
    ("50%", "50%"),
]


@pytest.mark.parametrize(("text", "value"), MEANT)
def test_values_are_what_they_look_like(text: str, value: object) -> None:
    """Numbers, names, lists and text in quotes as in Hydra; other text as it stands."""
    (override,) = parse_overrides([f"some.key={text}"])
    assert (override.key, override.value, type(override.value)) == ("some.key", value, type(value))


@given(st.text(st.sampled_from("0123456789_.eE+-abnultrefis \\,[]'\"$:/"), max_size=12))
def test_what_hydra_reads_is_read_alike(text: str) -> None:
    """For any value that both accept; a value that is null by its spelling in YAML alone is null here as well."""
    try:
        hydra = HYDRA.parse_override(f"k={text}")
        (ours,) = parse_overrides([f"k={text}"])
    except (HydraException, SpecError, ValueError):
        return
    if not hydra.is_sweep_override():
        theirs = hydra.value()
        wanted = tuple(theirs) if isinstance(theirs, list) else theirs
        assert ours.value == (wanted.strip() if isinstance(wanted, str) and text.endswith(" ") else wanted)


@given(st.text(max_size=40))
def test_any_argument_is_an_override_or_a_clear_error(text: str) -> None:
    """Nothing but SpecError comes out; it says where, and what to write."""
    for argument in (text, f"a={text}"):
        try:
            parse_overrides([argument])
        except SpecError as error:
            said = error
        else:
            continue
        assert said.problem.startswith("the command line")
        assert said.remedy


WRONG = [
    ("foo", "write key=value"),
    ("=3", "write key=value"),
    ("+a=3", "adds or deletes"),
    ("++a=3", "adds or deletes"),
    ("~a=3", "adds or deletes"),
    ("locnet1.sizes=20,20,20", "write locnet1.sizes=[20,20,20] for a list"),
    ("transformer=affine,scale", "transformer=[affine,scale]"),
    ("a=choice(1,2)", "calls a function"),
    ("a=range(1,5)", "calls a function"),
    ("a=[1,2", "cannot be read"),
    ("a='x", "cannot be read"),
    ("a={b: 1}", "not one value"),
    ("a=[[1,2],[3]]", "list of lists"),
    ("a=" + "[" * 50_000, "brackets within brackets"),
    ("a=" + "9" * 5000, "too large"),
    ("a=[" + "9" * 5000 + "]", "too large"),
    (f"a={INTEGER_MAX + 1}", "too large"),
    ("a=\udcff", "not Unicode"),
    ("a=x\0y", "not Unicode"),
    ("a='x\udcff'", "not Unicode"),
    ("a=" + "x" * 20_000, "20,000 characters"),
]


@pytest.mark.parametrize(("argument", "message"), WRONG)
def test_what_cannot_be_meant_is_refused_with_what_to_write(argument: str, message: str) -> None:
    """One short line each."""
    with pytest.raises(SpecError, match=r"^the command line") as caught:
        parse_overrides([argument])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_key_that_is_given_twice_is_refused() -> None:
    """The first would have no effect."""
    with pytest.raises(SpecError, match=r"training\.epochs is given twice, 3 and 5"):
        parse_overrides(["training.epochs=3", "seeds=2", "training.epochs=5"])


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30)


@given(names)
def test_where_gtsrb_lies_is_any_path(name: str) -> None:
    """Umlauts, spaces, brackets, quotes, commas, ``=``, ``#``, ``%``: a path is a path."""
    path = Path("/somewhere") / name
    root, others = take_dataset_root(parse_overrides([f"dataset.root={path}"]))
    assert (root, others) == (path.resolve(), ())


def test_where_gtsrb_lies_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is expanded, which no shell does behind ``=``; quotes that reach us are taken off."""
    monkeypatch.setenv("HOME", "/home/jörg")
    for text in ("~/gtsrb (1)", "'~/gtsrb (1)'", '"~/gtsrb (1)"'):
        assert take_dataset_root(parse_overrides([f"dataset.root={text}"]))[0] == Path("/home/jörg/gtsrb (1)")
    with pytest.raises(SpecError, match="give the folder that holds GTSRB"):
        take_dataset_root(parse_overrides(["dataset.root="]))
    with pytest.raises(SpecError, match="no path here"):
        take_dataset_root(parse_overrides(["dataset.root=~nobody-of-that-name/x"]))


def test_only_names_axes_with_some_of_their_values() -> None:
    """Separated by commas, or the axis named again; numbers are called as tables call them."""
    sizes = "locnet1.sizes=[20,20,20],[30,60,30]"
    only = parse_only(["transformer=affine, scale", sizes, "transformer=tps", "a.rate=1e-3"])

    assert {item.key: item.value for item in only} == {
        "transformer": ("affine", "scale", "tps"),
        "locnet1.sizes": ("20,20,20", "30,60,30"),
        "a.rate": 0.001,
    }


def test_a_list_of_lists_is_refused_with_the_option_that_takes_it() -> None:
    """The remedy can be typed as it stands."""
    with pytest.raises(SpecError, match="is a list of lists") as refused:
        parse_overrides(["locnet1.sizes=[[20,20,20], [30,60,30]]"])
    (written,) = re.findall(r"--only '(.*)'", str(refused.value.remedy))
    assert parse_only([written]) == (Override(key="locnet1.sizes", value=("20,20,20", "30,60,30")),)


@pytest.mark.parametrize("text", ["", "transformer", "transformer=", "=affine", "a=[", "a=" + "[" * 9999])
def test_only_says_how_it_is_written(text: str) -> None:
    """One line."""
    with pytest.raises(SpecError, match="--only"):
        parse_only([text])


def test_options_of_slurm_are_taken_from_the_command_line_and_its_file() -> None:
    """A number is text where text is meant, a word a list of one; the file says the rest, and trials get the others."""
    words = ["engine.memory=16000", "engine.partitions=gpu", "engine.sbatch='--exclude=node07'", "seed=3"]
    options, others = take_engine_options(parse_overrides(words), "slurm", conf_folder())
    assert (options.memory, options.partitions, options.sbatch) == ("16000", ("gpu",), ("--exclude=node07",))
    assert (options.jobs, options.time_limit) == (4, "4h")
    assert [other.key for other in others] == ["seed"]


@pytest.mark.parametrize(
    ("word", "engine", "said"),
    [
        ("engine.memory=1", "local", r"the command line: engine\.memory is no key of the engine local"),
        ("engine.job=1", "slurm", r"the command line.*job"),
        ("engine.jobs=many", "slurm", r"the command line.*engine\.jobs"),
        ("engine.heartbeat=60s", "slurm", r"the command line and conf/engine/slurm\.yaml: engine\.lost_after"),
    ],
)
def test_a_wrong_option_of_an_engine_is_told_with_its_place(word: str, engine: str, said: str) -> None:
    """An option of another engine, an unknown one, one of another type, and two that contradict each other."""
    with pytest.raises(SpecError, match=said):
        take_engine_options(parse_overrides([word]), engine, conf_folder())
