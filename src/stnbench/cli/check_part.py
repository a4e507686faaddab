"""``stnbench check-part``: check a part against the contract of its kind, with one line for each check."""

import json
from collections.abc import Sequence

from stnbench.cli.parser import CommandParser, add_json
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.spec.parts import VARIABLE


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code: 0 if every check passes, 1 if one fails.

    Raises:
        UnknownNameError: for a part that is not registered.
        SpecError: for a key that the part does not have, or a name that parts of several kinds have.
    """
    options = make_parser().parse_args(arguments)
    from stnbench.testing.parts import menu_of, run_checks

    menu = menu_of(options.name, options.kind)
    spec = menu.specify(options.name, dict(_setting(item) for item in options.settings))

    def tell(name: str, found: str) -> None:
        if not options.json:
            print(f"FAILED  {name}: {found}" if found else f"ok      {name}", flush=True)

    results = run_checks(menu, spec, tell)
    failed = sum(map(bool, results.values()))
    if options.json:
        print(json.dumps({"part": options.name, "kind": menu.kind, "failed": failed, "checks": results}))
    else:
        print(f"{options.name}: {len(results) - failed} of {len(results)} checks passed")
    return SOME_FAILED if failed else DONE


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
        description="Checks a part of any kind (transformer, locnet, network, dataset, augmentation, optimizer, "
        "schedule, planner, pruner, metric) against what every part of its kind promises: for a transformer the "
        "identity at the start, shapes, gradients, half precision, determinism, the compiler.",
        epilog=f"Parts are found in the folders, files and modules that {VARIABLE} names, and in installed packages. "
        "Exit codes: 0 all checks pass, 1 one fails, 2 there is no such part.",
    )
    parser.add_argument("name", help="the part, of stnbench or of your own")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="keys of its specification")
    parser.add_argument("--kind", default="", help="its kind, where parts of several kinds have the name")
    add_json(parser)
    return parser
