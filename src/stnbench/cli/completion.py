"""``stnbench completion``: the script by which a shell completes commands, options and their choices."""

import argparse
import importlib
from collections.abc import Sequence
from typing import Final

import shtab

from stnbench.cli.main import COMMANDS
from stnbench.cli.parser import CommandParser, add_json, path, print_result
from stnbench.core.command import DONE

SHELLS: Final = ("bash", "zsh", "fish")

_NAMES_SWEEPS: Final = frozenset({"sweep", "sweeps"})
"""Positional arguments that name sweeps."""

# Asked when a name is completed, and not when the script is written: another folder has other sweeps.
_SWEEPS: Final = shtab.cmd("stnbench list --names 2>/dev/null")

_EPILOG: Final = """\
Let your shell read it when it starts:
  bash: stnbench completion bash > ~/.local/share/bash-completion/completions/stnbench
  zsh:  stnbench completion zsh > FOLDER/_stnbench, where FOLDER is one of $fpath
  fish: stnbench completion fish > ~/.config/fish/completions/stnbench.fish
Write it again after an update of stnbench. Exit codes: 0 done, 2 an unknown shell."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().parse_args(arguments)
    script = shtab.complete(_all_commands(), shell=options.shell)
    print_result(options, script, {"shell": options.shell, "script": script})
    return DONE


def _all_commands() -> argparse.ArgumentParser:
    """Return one parser with the options of every command, which otherwise are loaded one at a time."""
    parser = argparse.ArgumentParser(prog="stnbench")
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        options: argparse.ArgumentParser = importlib.import_module(command.module).make_parser()
        _say_what_completes(options)
        commands.add_parser(name, help=command.summary, parents=[options], add_help=False)
    return parser


def _say_what_completes(parser: argparse.ArgumentParser) -> None:
    """Mark the arguments of a parser and its sub-commands that are paths or names of sweeps."""
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way to what a parser takes
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - see above
            for command in action.choices.values():
                _say_what_completes(command)
        elif action.type is path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it
        elif action.dest in _NAMES_SWEEPS and not action.option_strings:
            action.complete = _SWEEPS  # type: ignore[attr-defined]  # see above


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench completion",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Prints a script with which a shell completes commands and options.",
        epilog=_EPILOG,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    add_json(parser)
    return parser
