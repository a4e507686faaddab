"""Options of commands are checked where they stand."""

from pathlib import Path

import pytest

from stnbench.cli.main import COMMANDS, load_main
from stnbench.cli.parser import CommandParser, above_zero, duration_s, path, whole
from stnbench.core.errors import SpecError


@pytest.fixture
def parser() -> CommandParser:
    """Options of every type."""
    made = CommandParser(prog="stnbench x")
    made.add_argument("--count", type=whole())
    made.add_argument("--share", type=above_zero)
    made.add_argument("--budget", type=duration_s)
    made.add_argument("--out", type=path)
    made.add_argument("--engine", choices=["local", "ray"])
    return made


WRONG = [
    (["--count", "0"], "argument --count: '0' is not a whole number of at least 1: see stnbench x --help"),
    (["--count", "9" * 5000], "is not a whole number"),
    (["--count", "²"], "is not a whole number"),
    (["--count"], "expected one argument"),
    (["--share", "nan"], "'nan' is not a number above 0"),
    (["--budget", "2"], "the duration '2' has no unit: write 2s, 2m or 2h"),
    (["--engine", "rya"], "unknown --engine 'rya' in stnbench x: did you mean ray"),
    (["--bugdet", "2h"], "unknown option '--bugdet' in stnbench x: did you mean --budget"),
    (["--cou", "1"], "did you mean --count"),
    (["--out", "~nobody-of-that-name/x"], "no path here"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_cannot_be_meant_is_one_line(parser: CommandParser, arguments: list[str], message: str) -> None:
    """The option, the value and the remedy, without the usage of the whole command, and short."""
    with pytest.raises(SpecError) as caught:
        parser.parse_args(arguments)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_path_may_begin_at_home(parser: CommandParser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell does not expand ``--out=~/x``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parser.parse_args(["--out=~/x"]).out == tmp_path / "x"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_parsed_so(name: str) -> None:
    """An option that does not exist, or a word too few, is refused by each of them as a SpecError."""
    with pytest.raises(SpecError, match=f"stnbench {name}"):
        load_main(name)(["--there-is-none=1"])
