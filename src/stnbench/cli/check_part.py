"""``stnbench check-part``: check a part against the contract of its kind, with one line for each check."""

import json
from collections.abc import Sequence
from typing import Final

from stnbench.cli.parser import CommandParser
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import StnbenchError
from stnbench.spec.parts import VARIABLE

KINDS: Final = ("transformer",)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code: 0 if every check passes, 1 if one fails.

    Raises:
        UnknownNameError: for a part that is not registered.
        SpecError: for a key that the part does not have.
    """
    options = make_parser().parse_args(arguments)
    from stnbench.testing.transformers import TRANSFORMER_CHECKS, specification

    spec = specification(options.name, **dict(_setting(item) for item in options.settings))
    results: dict[str, str] = {}
    for name, check in TRANSFORMER_CHECKS.items():
        try:
            check(spec)
            results[name] = ""
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises is what the check found
            results[name] = str(error) if isinstance(error, AssertionError | StnbenchError) else _told(error)
        if not options.json:
            print(f"ok      {name}" if not results[name] else f"FAILED  {name}: {results[name]}", flush=True)
    failed = sum(map(bool, results.values()))
    if options.json:
        print(json.dumps({"part": options.name, "failed": failed, "checks": results}))
    else:
        print(f"{options.name}: {len(results) - failed} of {len(results)} checks passed")
    return SOME_FAILED if failed else DONE


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _setting(item: str) -> tuple[str, object]:
    key, _, value = item.partition("=")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench check-part",
        description="Checks a family of transformations against what every family promises: the identity at the start, "
        "shapes, gradients, half precision, determinism, the compiler.",
        epilog=f"Parts are found in the folders, files and modules that {VARIABLE} names, and in installed packages. "
        "Exit codes: 0 all checks pass, 1 one fails, 2 there is no such part.",
    )
    parser.add_argument("name", help="the family, ours or one of your own")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="keys of its specification")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
