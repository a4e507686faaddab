"""Requests of users to a sweep, from the command line or the live page: their parsing, and the wait for an answer."""

from collections.abc import Callable, Sequence
from typing import Final

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.orchestration.control import find_target
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
from stnbench.spec.sweep import sized_label
from stnbench.store.queries import StoreReader
from stnbench.store.records import TrialRecord

ACTIONS: Final = ("pause", "resume", "stop", "retry", "slots", "seeds")
WAIT_S: Final = 10.0
"""Seconds that a running orchestrator may take to answer."""

_ASK_AGAIN_S: Final = 0.2


def parse_action(name: str, value: str | None, trials: Sequence[TrialRecord], sweep: str) -> Action:
    """Parse the action of a command line.

    Args:
        name: name of the action.
        value: value of the action, if any.
        trials: trials of the sweep; the target of stop and retry is one of them.
        sweep: name of the sweep, for messages.

    Raises:
        SpecError: if the value is missing, unexpected or not valid for the sweep.
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
    store: StoreReader,
    request: ControlRequest,
    *,
    sleep: Callable[[float], None],
    clock_s: Callable[[], float],
    wait_s: float = WAIT_S,
) -> ControlRecord | None:
    """Wait for the record of a request; return None if there is none within ``wait_s`` seconds."""
    began_s = clock_s()
    while True:
        found = [item for item in store.controls(request.sweep) if item.request.request_id == request.request_id]
        if found or clock_s() - began_s > wait_s:
            return found[0] if found else None
        sleep(_ASK_AGAIN_S)


def _target(text: str, trials: Sequence[TrialRecord], sweep: str) -> str:
    """Return the stored name of a configuration or trial, which may be given as tables show it."""
    shown = {sized_label(trial.label, trial.point.labels, trial.spec): trial.label for trial in trials}
    label, hash_sign, seed = text.rpartition("#")
    name = shown.get(text) or (f"{shown[label]}#{seed}" if hash_sign and label in shown else text)
    find_target(trials, name, sweep=sweep)
    return name


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
    if not 1 <= number <= COUNT_MAX:
        raise SpecError(
            f"'{text[:40]}' is not a whole number from 1 to {COUNT_MAX}", remedy="for example: slots 4, seeds +2"
        )
    return number
