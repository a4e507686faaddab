"""One loader reads every YAML file, and nothing is built before its size is known."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from stnbench.config import values
from stnbench.config.locate import conf_folder, sweep_files
from stnbench.config.resolve import parse_overrides
from stnbench.config.values import BYTES_MAX, parse_yaml, read_yaml
from stnbench.core.errors import INTEGER_MAX, SpecError


@pytest.fixture(params=[yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)], ids=["python", "libyaml"])
def any_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: the faster one is not everywhere."""
    monkeypatch.setattr(values, "_LOADER", request.param)


MEANT = [
    ("1e-3", 0.001),
    ("1E5", 100_000.0),
    ("-2.5e+2", -250.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("20_000", 20_000),
    ("-7", -7),
    ("0", 0),
    ("true", True),
    ("False", False),
    ("null", None),
    ("~", None),
    ("on", "on"),
    ("Off", "Off"),
    ("yes", "yes"),
    ("no", "no"),
    ("y", "y"),
    ("2001-12-14", "2001-12-14"),
    ("1.2.3", "1.2.3"),
    ("=", "="),
    ("'016'", "016"),
    ('"on"', "on"),
    ("'1:30'", "1:30"),
    (str(INTEGER_MAX), INTEGER_MAX),
]


@pytest.mark.usefixtures("any_parser")
@pytest.mark.parametrize(("text", "value"), MEANT)
def test_a_scalar_is_what_yaml_1_2_and_hydra_say(text: str, value: object) -> None:
    """A learning rate of 1e-3 is a number, and a choice may be called on."""
    found = parse_yaml(f"a: {text}\n", where="x.yaml")["a"]
    assert (found, type(found)) == (value, type(value))


DISPUTED = [
    "016",
    "-08",
    "00",
    "0x1F",
    "0o17",
    "0b11",
    "1:30",
    "190:20:30.15",
    ".inf",
    "-.INF",
    ".nan",
    "inf",
    "NaN",
    "1__0",
    "1_",
    "00.5",
]


@pytest.mark.usefixtures("any_parser")
@pytest.mark.parametrize("text", DISPUTED)
def test_a_number_that_readers_do_not_agree_on_is_refused(text: str) -> None:
    """Never 14 for 016; the message has the line, and what to write for the number and for the name."""
    with pytest.raises(SpecError, match=r"x\.yaml, line 2: .*quotes") as caught:
        parse_yaml(f"b: 1\na: [{text}]\n", where="x.yaml")
    assert f"'{text}'" in str(caught.value)
    with pytest.raises(SpecError, match=r"the command line: 'a=.*quotes"):
        parse_overrides([f"a={text}"])


scalars = st.one_of(
    st.text(st.sampled_from("0123456789_.:eE+-xob~aintfulr"), min_size=1, max_size=8),
    st.sampled_from([text for text, _ in MEANT if text[0] not in "'\""] + DISPUTED),
    st.integers().map(str),
    st.floats().map(repr),
)


@given(scalars)
def test_a_plain_scalar_means_the_same_in_a_file_as_on_the_command_line(text: str) -> None:
    """Both give the same value of the same type, or both refuse it."""
    if is_scalar(text):
        assert in_file(text) == on_command_line(text)


@given(scalars)
def test_a_plain_scalar_means_what_hydra_reads_from_conf(text: str) -> None:
    """Hydra's loader of files gives the same value, or ours refuses the file."""
    ours = in_file(text, for_hydra=True)
    if ours is not None:
        assert describe(OmegaConf.to_container(OmegaConf.load(io.StringIO(f"a: {text}\n")))["a"]) == ours  # type: ignore[call-overload, index]


def in_file(text: str, *, for_hydra: bool = False) -> tuple[type, str] | None:
    """The value of a scalar in a file; None where it is refused, or is no scalar there."""
    try:
        value = parse_yaml(f"a: {text}\n", where="x.yaml", for_hydra=for_hydra)["a"]
    except SpecError:
        return None
    return describe(value)


def is_scalar(text: str) -> bool:
    """Whether the text is one plain scalar to YAML, and not structure, which a command line does not have."""
    try:
        events = list(yaml.parse(f"a: {text}\n", Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return False
    return len(events) == 8 and isinstance(events[4], yaml.ScalarEvent) and events[4].value == text


def on_command_line(text: str) -> tuple[type, str] | None:
    """The value of a scalar on the command line; None where it is refused."""
    try:
        return describe(parse_overrides([f"a={text}"])[0].value)
    except SpecError:
        return None


def describe(value: object) -> tuple[type, str]:
    """A value with its type: 1, 1.0 and True are three things."""
    return type(value), repr(value)


TWICE = [
    ("a: 1\nb: 2\na: 3\n", "line 3: the key a stands twice (first in line 1)"),
    ("axes:\n  x: [1]\n  y: [1]\n  x: [2]\n", "line 4: the key x stands twice (first in line 2)"),
    ("a: {b: 1, b: 1}\n", "line 1: the key b stands twice"),
    ("a: 1\n'a': 1\n", "line 2: the key a stands twice"),
    ("on: 1\n'on': 2\n", "line 2: the key on stands twice"),
    ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: {y: 2}\n", "line 4: the key << stands twice"),
]


@pytest.mark.usefixtures("any_parser")
@pytest.mark.parametrize(("text", "message"), TWICE)
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, message: str) -> None:
    """The first value would be gone without a word."""
    with pytest.raises(SpecError) as caught:
        parse_yaml(text, where="x.yaml")
    assert message in str(caught.value)


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10 if n else ['1'] * 10)}]\n" for n in range(9))

HOSTILE = {
    "brackets": "a: " + "[" * 100_000,
    "braces": "a: " + "{a: " * 50_000,
    "blocks": "".join("  " * level + "a:\n" for level in range(200)),
    "laughs": LAUGHS,
    "itself": "a: &x [1, *x]",
    "itself as a mapping": "a: &x {b: *x}",
    "digits": "a: " + "9" * 5000,
    "negative digits": "a: -" + "9" * 5000,
    "exponent": "a: 1e999999999",
    "surrogate": 'a: "\\ud800"',
    "null byte": 'a: "\\0"',
    "control": "a: \x01",
    "long": "a: " + "x" * 20_000,
    "python": "a: !!python/object/apply:os.system [ls]",
    "own tag": "a: !x 3",
    "typed": "a: !!int '016'",
    "two documents": "a: 1\n---\na: 2\n",
    "version": "%YAML 1.1\n---\na: on\n",
    "no such alias": "a: *b",
    "a list as a key": "? [a]\n: 1",
    "an alias as a key": "a: &x b\n*x : 1\n",
    "a merge of a number": "a: {<<: 3}",
    "unclosed": 'a: "x',
    "tab": "a:\n\t- 1",
    "list": "- a",
    "text": "a",
}


@pytest.mark.slow
@pytest.mark.usefixtures("any_parser")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(name: str) -> None:
    """No traceback, nothing large is built, and the message is short and names the file."""
    with pytest.raises(SpecError, match=r"^x\.yaml") as caught:
        parse_yaml(HOSTILE[name], where="x.yaml")
    assert len(str(caught.value)) < 400
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.remedy


@pytest.mark.usefixtures("any_parser")
def test_more_values_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit itself is read, one more value is not; aliases count as often as they stand."""
    monkeypatch.setattr(values, "VALUES_MAX", 100)
    assert parse_yaml("a: [" + "1," * 97 + "]", where="x.yaml") == {"a": [1] * 97}
    for text in ("a: [" + "1," * 101 + "]", "a: &x [" + "1," * 60 + "]\nb: *x\n"):
        with pytest.raises(SpecError, match=r"x\.yaml.*more than 100 values"):
            parse_yaml(text, where="x.yaml")


def test_a_file_that_is_too_large_or_not_utf_8_is_named(tmp_path: Path) -> None:
    """Before anything is parsed; the line of the first wrong byte is told."""
    path = tmp_path / "x.yaml"
    path.write_bytes(b"#" * (BYTES_MAX + 1))
    with pytest.raises(SpecError, match=r"x\.yaml is larger than 256 KiB"):
        read_yaml(path)
    path.write_bytes("a: 1\nb: j\xf6rg\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"x\.yaml, line 2: not UTF-8"):
        read_yaml(path)
    with pytest.raises(SpecError, match=r"y\.yaml cannot be read \(No such file"):
        read_yaml(tmp_path / "y.yaml")


def test_aliases_and_merges_work_as_usual() -> None:
    """A key beside ``<<`` wins over it, and the first of several wins over the others; what is built is not shared."""
    found = parse_yaml("a: &a {x: 1, y: [2]}\nb: {<<: *a, x: 3}\nc: {<<: [{x: 5}, *a]}\nd: *a\n", where="x.yaml")

    assert found == {"a": {"x": 1, "y": [2]}, "b": {"x": 3, "y": [2]}, "c": {"x": 5, "y": [2]}, "d": {"x": 1, "y": [2]}}
    found["d"]["y"].append(4)
    assert found["a"]["y"] == [2]


def test_a_file_may_begin_with_a_mark_and_be_empty(tmp_path: Path) -> None:
    """Windows' editors write a byte order mark; a file of comments holds nothing."""
    (tmp_path / "x.yaml").write_bytes("\ufeffa: 1\r\n".encode())
    (tmp_path / "y.yaml").write_text("# nothing yet\n")

    assert read_yaml(tmp_path / "x.yaml") == {"a": 1}
    assert read_yaml(tmp_path / "y.yaml") == {}


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)
numbers = st.integers(-INTEGER_MAX, INTEGER_MAX) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


class Quoting(yaml.SafeDumper):
    """Writes text in quotes."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(st.dictionaries(st.sampled_from("abc"), plain, max_size=3))
def test_what_a_library_wrote_is_read_back(content: dict[str, Any]) -> None:
    """Whatever PyYAML writes of plain values with text in quotes, since to it ``0o17`` and ``INF`` are text without."""
    assert parse_yaml(yaml.dump(content, Dumper=Quoting, allow_unicode=True), where="x.yaml") == content


@given(st.text(st.sampled_from("ab01:-[]{},&*#!|>'\"%@ \n\t<?"), max_size=40))
def test_any_text_is_read_or_refused_in_one_way(text: str) -> None:
    """Nothing but SpecError comes out, from either parser."""
    for loader in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(values, "_LOADER", loader)
            try:
                found: object = parse_yaml(text, where="x.yaml")
            except SpecError:
                continue
            assert isinstance(found, dict)


def shipped() -> Iterator[Path]:
    """Every YAML file that ships."""
    return itertools.chain(conf_folder().rglob("*.yaml"), sweep_files(Path("/nowhere")).values())


def test_every_shipped_file_means_to_hydra_what_it_means_here() -> None:
    """So there is one reading of them, whoever reads."""
    for path in shipped():
        assert OmegaConf.to_container(OmegaConf.load(path)) == read_yaml(path), path
