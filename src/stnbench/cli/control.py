"""``stnbench control``: pause, resume, stop, retry, slots and seeds of a sweep while it runs."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from stnbench.cli.parser import CommandParser, whole
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.paths import RunsLayout
from stnbench.core.text import printable
from stnbench.orchestration.control import find_target, send_request
from stnbench.orchestration.host import ProcessIdentity
from stnbench.orchestration.lock import read_holder
from stnbench.report.labels import sized_label
from stnbench.spec.control import (
    ALL,
    COUNT_MAX,
    Action,
    AddSeeds,
    ControlRecord,
    ControlRequest,
    Pause,
    Resume,
    Retry,
    SetSlots,
    Stop,
)
from stnbench.store.records import TrialRecord
from stnbench.store.store import Store

ACTIONS: Final = ("pause", "resume", "stop", "retry", "slots", "seeds", "list")
WAIT_S: Final = 10.0
"""How long a running orchestrator may take to answer."""

_ASK_AGAIN_S: Final = 0.2


def main(arguments: Sequence[str]) -> int:
    """Ask something of a sweep; the exit code: 0 carried out or left for the next run, 1 refused or not answered.

    Raises: StnbenchError for a sweep, configuration or trial that is not there.
    """
    options = _parser().parse_args(arguments)
    layout = RunsLayout.from_environment()
    with Store.open(layout.store, writable=False) as store:
        sweeps = [record.spec.name for record in store.sweeps()]
        if options.sweep not in sweeps:
            raise UnknownNameError("sweep", options.sweep, sweeps, where="the store")
        if options.action == "list":
            print("\n".join(control_lines(store.controls(options.sweep))))
            return DONE
        action = parse_action(options.action, options.value, store.sweep_trials(options.sweep), options.sweep)
        request = send_request(layout.control, options.sweep, action, at=datetime.now(UTC), program="stnbench control")
        if not is_orchestrated(layout):
            print(f"no sweep runs here: this is carried out when {options.sweep} is started")
            return DONE
        record = wait_for(store, request, sleep=time.sleep, clock_s=time.monotonic)
    if record is None:
        late = f"not carried out yet: the process that runs another sweep here, or is busy, has {request.request_id}"
        print(late, file=sys.stderr)
        return SOME_FAILED
    print(("refused: " if record.is_refused else "") + printable(record.outcome))
    return SOME_FAILED if record.is_refused else DONE


def parse_action(name: str, value: str | None, trials: Sequence[TrialRecord], sweep: str) -> Action:
    """Return what the command line asks.

    Args:
        name: of the action.
        value: that follows it.
        trials: of the sweep; the target of stop and retry is one of them.
        sweep: its name, for messages.

    Raises:
        SpecError: for a value that is missing, too many, or none of the sweep's.
    """
    if (value is None) is (name in {"stop", "retry", "slots", "seeds"}):
        needed = {"stop": "LABEL", "retry": "LABEL", "slots": "N", "seeds": "+N"}.get(name, "")
        raise SpecError(
            f"{name} {'needs a value' if needed else 'takes no value'}",
            remedy=f"stnbench control SWEEP {name} {needed}".strip(),
        )
    text = value or ""
    match name:
        case "pause":
            return Pause()
        case "resume":
            return Resume()
        case "stop":
            return Stop(target=_target(text, trials, sweep))
        case "retry":
            return Retry(target=ALL if text == ALL else _target(text, trials, sweep))
        case "slots":
            return SetSlots(count=_count(text))
        case "seeds":
            return AddSeeds(count=_count(text.removeprefix("+")))
        case _:
            raise UnknownNameError("action", name, ACTIONS)


def wait_for(
    store: Store,
    request: ControlRequest,
    *,
    sleep: Callable[[float], None],
    clock_s: Callable[[], float],
    wait_s: float = WAIT_S,
) -> ControlRecord | None:
    """Return what became of a request; None where nothing has in time."""
    began_s = clock_s()
    while True:
        found = [item for item in store.controls(request.sweep) if item.request.request_id == request.request_id]
        if found or clock_s() - began_s > wait_s:
            return found[0] if found else None
        sleep(_ASK_AGAIN_S)


def is_orchestrated(layout: RunsLayout) -> bool:
    """Return whether a process runs a sweep in this folder, as far as can be told from here."""
    holder = read_holder(layout)
    if holder is None:
        return False
    here = ProcessIdentity.current()
    return (holder.host, holder.boot_id) != (here.host, here.boot_id) or holder.is_alive()


def control_lines(records: Sequence[ControlRecord]) -> list[str]:
    """Return what was asked of a sweep and what became of it, a line each."""
    if not records:
        return ["nothing was asked of this sweep while it ran"]
    return [
        f"{record.applied_at:%Y-%m-%d %H:%M:%S} {record.request.action.kind:<6} "
        f"{'refused: ' if record.is_refused else ''}{printable(record.outcome)} [{printable(record.request.asked_by)}]"
        for record in records
    ]


def _target(text: str, trials: Sequence[TrialRecord], sweep: str) -> str:
    """Return the name of a configuration or trial as the store has it, also of one as tables show it."""
    shown = {sized_label(trial.label, trial.point.labels, trial.spec): trial.label for trial in trials}
    label, hash_sign, seed = text.rpartition("#")
    name = shown.get(text) or (f"{shown[label]}#{seed}" if hash_sign and label in shown else text)
    find_target(trials, name, sweep=sweep)
    return name


def _count(text: str) -> int:
    try:
        return whole(1, COUNT_MAX)(text)
    except argparse.ArgumentTypeError as error:
        raise SpecError(str(error), remedy="for example: slots 4, seeds +2") from error


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="stnbench control",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Asks something of a sweep while it runs, from any terminal of the machine.",
        epilog="pause          start no more trials; those that run go on\n"
        "resume         start trials again\n"
        "stop LABEL     give up a configuration; LABEL#SEED, or the beginning of an id: a trial\n"
        "retry LABEL    run again what failed or was given up; retry all: everything that failed\n"
        "slots N        run so many trials at once\n"
        "seeds +N       train every configuration with so many seeds more\n"
        "list           list what was asked, and what came of it\n"
        "All of it holds until it is taken back, also when the sweep is started again.\n"
        "Exit codes: 0 done, or left for the next start of the sweep; 1 refused, or not answered; 2 cannot ask.",
    )
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep of the store")
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("value", nargs="?", metavar="VALUE", help="LABEL, N or +N, where the action takes one")
    return parser
