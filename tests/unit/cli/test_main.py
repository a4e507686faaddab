"""``stnbench COMMAND``."""

import argparse
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stnbench.cli
from stnbench.cli.main import COMMANDS, load_main, main
from stnbench.core.errors import UnknownNameError


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command, or asked for help, every command is shown with its summary."""
    assert main(arguments) == 0

    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in shown
        assert command.summary in shown


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints the version of the package."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stnbench {stnbench.__version__}\n"


def test_an_unknown_command_is_refused_with_the_nearest_one() -> None:
    """A misspelt command offers the one that was meant."""
    with pytest.raises(UnknownNameError, match=r"unknown command 'swep': did you mean sweep"):
        main(["swep"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_under_its_own_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``stnbench COMMAND --help`` exits with 0 and says how that command is called."""
    with pytest.raises(SystemExit) as left:
        load_main(name)(["--help"])

    assert left.value.code == 0
    assert f"usage: stnbench {name}" in capsys.readouterr().out


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser, or those of its sub-commands."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser
    for action in below:
        for choice in action.choices.values():
            yield from leaves(choice)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name: str) -> None:
    """A program can read the answer of any of them, of every sub-command too."""
    parser = importlib.import_module(COMMANDS[name].module).make_parser()

    assert [leaf.prog for leaf in leaves(parser) if "--json" not in leaf._option_string_actions] == []


def test_every_module_of_commands_is_a_command() -> None:
    """A module of ``stnbench.cli`` with a ``main`` cannot be forgotten in the table."""
    with_main = {
        f"stnbench.cli.{module.name}"
        for module in pkgutil.iter_modules(stnbench.cli.__path__)
        if "\ndef main(" in (Path(stnbench.cli.__path__[0]) / f"{module.name}.py").read_text(encoding="utf-8")
    }

    assert with_main - {"stnbench.cli.main"} == {command.module for command in COMMANDS.values()}


@pytest.mark.slow
def test_the_program_ends_like_every_command() -> None:
    """``python -m stnbench`` turns a foreseen error into one line and exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "stnbench", "stauts"], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown command 'stauts': did you mean status")
    assert done.stderr.count("\n") == 1
