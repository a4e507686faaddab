"""The argument parser of every command, with one-line errors and types that check their values."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from stnbench.core.command import DEBUG_FLAG
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import user_path
from stnbench.core.text import parse_duration_s

NUMBER_MAX = 2**31 - 1
"""The largest count that an option takes."""

_SHOWN_MAX = 300
_UNRECOGNIZED = "unrecognized arguments: "


class CommandParser(argparse.ArgumentParser):
    """An ``argparse.ArgumentParser`` with ``--debug``; errors are a SpecError, and so one line and exit code 2.

    Options must be written out, because an abbreviation that is unambiguous today may be ambiguous with a later option.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(**{"allow_abbrev": False, **options})
        self.add_argument(DEBUG_FLAG, action="store_true", help="show the traceback of any error, and log everything")

    @override
    def error(self, message: str) -> NoReturn:
        if message.startswith(_UNRECOGNIZED):
            unknown = next((word for word in message.removeprefix(_UNRECOGNIZED).split() if word.startswith("-")), "")
            if unknown:
                known = [name for name in self._option_string_actions if name.startswith("--")]
                raise UnknownNameError("option", unknown.partition("=")[0], known, where=self.prog)
        shown = message if len(message) <= _SHOWN_MAX else f"{message[:_SHOWN_MAX]}..."
        raise SpecError(f"{self.prog}: {shown}", remedy=f"see {self.prog} --help")

    @override
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            raise UnknownNameError(name, str(value), map(str, action.choices), where=self.prog)


class FormerOption(argparse.Action):
    """An option with a new name: it stores the value and prints the new name."""

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        print(f"warning: {option_string} is deprecated, write --{self.dest}", file=sys.stderr)
        setattr(namespace, self.dest, values)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``, which every command has: one object on standard output, and nothing else."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def print_result(options: argparse.Namespace, text: str, facts: Mapping[str, Any]) -> None:
    """Print the facts as a JSON object if ``--json`` is given, and a text otherwise."""
    print(json.dumps(facts) if options.json else text, flush=True)


def whole(minimum: int = 1, maximum: int = NUMBER_MAX) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``minimum`` to ``maximum``, both included."""

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
        if number is None or not minimum <= number <= maximum:
            limits = f"from {minimum} to {maximum}" if maximum < NUMBER_MAX else f"of at least {minimum}"
            raise argparse.ArgumentTypeError(f"'{_cut(text)}' is not a whole number {limits}")
        return number

    return parse


def above_zero(text: str) -> float:
    """Parse an option that is a finite number above zero."""
    try:
        number = float(text) if len(text) <= 40 else math.nan
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"'{_cut(text)}' is not a number above 0")
    return number


def duration_s(text: str) -> float:
    """Parse an option that is a duration with its unit, and return seconds."""
    try:
        return parse_duration_s(text)
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def path(text: str) -> Path:
    """Parse an option that is a path; ``~`` is expanded to the home folder, also if the shell did not expand it."""
    try:
        return user_path(text, "the path")
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _cut(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
