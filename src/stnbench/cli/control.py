"""``stnbench control``: pause, resume and stop a sweep while it runs, retry trials, and change slots and seeds."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from stnbench.cli.parser import CommandParser, add_json, print_result
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.core.text import printable
from stnbench.orchestration.claims import is_held
from stnbench.orchestration.control import ACTIONS, parse_action, send_request, wait_for
from stnbench.spec.control import ControlRecord
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Send a command to a sweep and return the exit code.

    The code is 0 if the command is carried out or left for the next run, 1 if it is refused or not answered.

    Raises:
        StnbenchError: for a sweep, configuration or trial that does not exist.
    """
    options = make_parser().parse_args(arguments)
    layout = RunsLayout.from_environment()
    with Store.open(layout.store, writable=False) as store:
        sweeps = [record.spec.name for record in store.sweeps()]
        if options.sweep not in sweeps:
            raise UnknownNameError("sweep", options.sweep, sweeps, where="the store")
        if options.action == "list":
            records = store.controls(options.sweep)
            facts = {"sweep": options.sweep, "controls": [*map(_facts, records)]}
            print_result(options, "\n".join(control_lines(records)), facts)
            return DONE
        action = parse_action(options.action, options.value, store.sweep_trials(options.sweep), options.sweep)
        request = send_request(layout.control, options.sweep, action, at=datetime.now(UTC), program="stnbench control")
        if not is_held(layout, options.sweep):
            later = f"no sweep runs here: this is carried out when {options.sweep} is started"
            facts = {"sweep": options.sweep, "request": request.request_id, "state": "waiting"}
            print_result(options, later, facts)
            return DONE
        record = wait_for(store, request, sleep=time.sleep, clock_s=time.monotonic)
    if record is None:
        late = f"not carried out yet: the process that runs another sweep here, or is busy, has {request.request_id}"
        print(late, file=sys.stderr)
        if options.json:
            print(json.dumps({"sweep": options.sweep, "request": request.request_id, "state": "unanswered"}))
        return SOME_FAILED
    text = ("refused: " if record.is_refused else "") + printable(record.outcome)
    state = "refused" if record.is_refused else "done"
    facts = {"sweep": options.sweep, "request": request.request_id, "state": state, "outcome": record.outcome}
    print_result(options, text, facts)
    return SOME_FAILED if record.is_refused else DONE


def _facts(record: ControlRecord) -> dict[str, object]:
    return {
        "at": record.applied_at.isoformat(),
        "action": record.request.action.kind,
        "outcome": record.outcome,
        "refused": record.is_refused,
        "asked_by": record.request.asked_by,
    }


def control_lines(records: Sequence[ControlRecord]) -> list[str]:
    """Return the commands sent to a sweep and their outcomes, one line each."""
    if not records:
        return ["nothing was asked of this sweep while it ran"]
    return [
        f"{record.applied_at:%Y-%m-%d %H:%M:%S} {record.request.action.kind:<6} "
        f"{'refused: ' if record.is_refused else ''}{printable(record.outcome)} [{printable(record.request.asked_by)}]"
        for record in records
    ]


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench control",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Asks something of a sweep while it runs, from any terminal of the machine.",
        epilog="pause          start no more trials; those that run go on\n"
        "resume         start trials again\n"
        "stop LABEL     give up a configuration; LABEL#SEED, or the beginning of an id: a trial\n"
        "retry LABEL    run again what failed or was given up; retry all: everything that failed\n"
        "slots N        run N trials at once\n"
        "seeds +N       train every configuration with N more seeds\n"
        "list           list the requests and their outcomes\n"
        "All of it holds until it is taken back, also when the sweep is started again.\n"
        "Exit codes: 0 done, or left for the next start of the sweep; 1 refused, or not answered; 2 cannot ask.",
    )
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep of the store")
    parser.add_argument("action", choices=(*ACTIONS, "list"), metavar="ACTION", help=", ".join((*ACTIONS, "list")))
    parser.add_argument("value", nargs="?", metavar="VALUE", help="LABEL, N or +N, where the action takes one")
    add_json(parser)
    return parser
