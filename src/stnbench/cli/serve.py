"""``stnbench serve``: the live page of sweeps on this machine."""

import argparse
import json
import re
import sys
from collections.abc import Sequence

from stnbench.cli.parser import CommandParser, add_json, whole
from stnbench.core.command import DONE
from stnbench.core.errors import UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.serve.server import CHILD_FLAG, FIRST_PORT, serve
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped, and return the exit code.

    Raises:
        StnbenchError: for a sweep that does not exist, or a port that is taken.
    """
    options = make_parser().parse_args(arguments)
    layout = RunsLayout.from_environment()
    if options.sweep is not None and not options.until_input_ends:
        with Store.open(layout.store, writable=False) as store:
            known = [record.spec.name for record in store.sweeps()]
        if options.sweep not in known:
            raise UnknownNameError("sweep", options.sweep, known, where="the store")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        found = re.search(r"http://\S+", line) if options.json else None
        if found is not None:
            print(json.dumps({"address": found[0]}), flush=True)

    serve(layout, sweep=options.sweep, port=options.port, until_input_ends=options.until_input_ends, say=say)
    return DONE


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench serve",
        description="Shows sweeps as they run, on a page of this machine alone, with controls. "
        "The address that it prints holds a secret: whoever has it can control the sweeps.",
        epilog="From another machine: ssh -L 8321:127.0.0.1:8321 HOST. Exit codes: 0 ended as asked, 2 cannot start.",
    )
    parser.add_argument(
        "sweep", nargs="?", metavar="SWEEP", help="the sweep that the page begins with (default: a list)"
    )
    port = f"of 127.0.0.1 (default: {FIRST_PORT} or the next that is free)"
    parser.add_argument("--port", type=whole(0, 65_535), help=port)
    add_json(parser)
    parser.add_argument(CHILD_FLAG, action="store_true", help=argparse.SUPPRESS)
    return parser
