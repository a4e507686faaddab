"""Requests of users to a running sweep, from a folder of files to decisions.

Only the orchestrator writes the store, so a request is a file in ``runs/control``, written atomically, under a name
that is never used twice. This works for a store that is a file and for one on a server, from other processes and other
machines that share the folder, and while no orchestrator runs. The orchestrator records a request in the store in the
transaction that carries it out and then removes its file: if it is killed in between, the next process finds the
request in the store, and does not carry it out again.
"""

import contextlib
import getpass
import secrets
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, assert_never

from stnbench.core.errors import FolderError, SpecError, UnknownNameError, require
from stnbench.core.files import write_atomic
from stnbench.core.text import counted
from stnbench.spec.codec import from_json, to_json
from stnbench.spec.control import (
    ALL,
    COUNT_MAX,
    Action,
    AddSeeds,
    ControlRecord,
    ControlRequest,
    Controls,
    Effect,
    Pause,
    Resume,
    Retry,
    SetSlots,
    Stop,
    further_seeds,
)
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import SweepSpec, sized_label
from stnbench.store.queries import StoreReader
from stnbench.store.tables import TrialRecord

REQUEST_MAX_BYTES: Final = 64_000
_SUFFIX: Final = ".json"
_DIGITS: Final = 20
"""Digits with which the name of a request begins: nanoseconds since 1970, more than those of any request that waits."""
_REFUSED: Final = ".refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The decision on a request: its outcome in words, its effect, and the trials to give up and to take back."""

    outcome: str
    is_refused: bool = False
    effect: Effect = field(default_factory=Effect)
    give_up: tuple[str, ...] = ()
    take_back: tuple[str, ...] = ()


def send_request(folder: Path, sweep: str, action: Action, *, at: datetime, program: str) -> ControlRequest:
    """Write a request for the orchestrator, and return it.

    Args:
        folder: ``RunsLayout.control``.
        sweep: name of the sweep.
        action: the requested action.
        at: the current time.
        program: name of the requesting program, for the record.

    Raises:
        FolderError: if the request cannot be written.
    """
    number = int(at.timestamp() * 1e9)
    waiting = (path.name[:_DIGITS] for path in folder.glob(f"*{_SUFFIX}"))
    number = max(number, *(int(name) + 1 for name in waiting if name.isdecimal()), 0)  # the clock may be set back
    request_id = f"{number:0{_DIGITS}d}-{secrets.token_hex(4)}"
    by = f"{_user()}@{socket.gethostname()} ({program})"
    request = ControlRequest(request_id=request_id, sweep=sweep, action=action, asked_at=at.isoformat(), asked_by=by)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{request_id}{_SUFFIX}", to_json(request).encode())
    except OSError as error:
        problem = f"the request cannot be left in {folder} ({error.strerror or error})"
        raise FolderError(problem, remedy="ask as the user who runs the sweep") from error
    return request


class Inbox:
    """Reader of the requests that wait in a folder."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._warn = warn
        self._read: dict[str, ControlRequest] = {}

    def waiting(self, sweep: str) -> list[ControlRequest]:
        """Return the requests for a sweep, the earliest first; those for other sweeps are left in place."""
        try:
            names = sorted(path.name for path in self._folder.iterdir() if path.suffix == _SUFFIX)
        except OSError:  # there were no requests yet, or the disk is unavailable
            return []
        self._read = {name: request for name, request in self._read.items() if name in names}
        for name in names:
            if name not in self._read and (request := self._read_file(self._folder / name)) is not None:
                self._read[name] = request
        return [request for _, request in sorted(self._read.items()) if request.sweep == sweep]

    def remove(self, request: ControlRequest) -> None:
        """Remove the file of a request that the store has recorded."""
        name = f"{request.request_id}{_SUFFIX}"
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)

    def _read_file(self, path: Path) -> ControlRequest | None:
        """Read a request from a file; set an invalid file aside with a warning and return None."""
        try:
            with path.open("rb") as file:
                data = file.read(REQUEST_MAX_BYTES + 1)
        except OSError:
            return None
        try:
            require(len(data) <= REQUEST_MAX_BYTES, "its size", len(data), f"at most {REQUEST_MAX_BYTES}")
            request = from_json(ControlRequest, data, where=path.name)
            own = path.name.removesuffix(_SUFFIX)
            require(request.request_id == own, "request_id", request.request_id, "it must be the file's name")
            datetime.fromisoformat(request.asked_at)
        except (SpecError, ValueError, RecursionError) as error:
            self._warn(f"a request in {path} cannot be read ({error}); it is set aside")
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(_REFUSED))
            return None
        return request


def find_target(trials: Sequence[TrialRecord], target: str, *, sweep: str) -> tuple[list[TrialRecord], bool]:
    """Return the trials that a name refers to, and whether it refers to a whole configuration.

    Args:
        trials: the trials of the sweep.
        target: ``LABEL``, ``LABEL#SEED``, or an id or its beginning of at least 4 characters.
        sweep: name of the sweep, for messages.

    Raises:
        UnknownNameError: if there is no such trial.
        SpecError: if the target is the beginning of several ids.
    """
    own = [trial for trial in trials if trial.label == target]
    if own:
        return own, True
    label, hash_sign, seed = target.rpartition("#")
    own = [trial for trial in trials if hash_sign and trial.label == label and str(trial.seed) == seed]
    if own:
        return own, False
    own = [trial for trial in trials if len(target) >= 4 and trial.trial_id.startswith(target.lower())]
    if len(own) > 1:
        raise SpecError(f"several trials begin with '{target}'", remedy="give more of the id")
    if not own:
        raise UnknownNameError("configuration", target, dict.fromkeys(trial.label for trial in trials), where=sweep)
    return own, False


def decide(  # noqa: C901, PLR0911 - a branch for each action
    action: Action,
    *,
    sweep: SweepSpec,
    trials: Sequence[TrialRecord],
    running: Collection[str],
    controls: Controls,
    slots: tuple[int, int],
) -> Decision:
    """Decide on the effect of an action on a sweep in its present state.

    Args:
        action: the requested action.
        sweep: the sweep.
        trials: the trials of the sweep.
        running: ids of the running trials.
        controls: the earlier requests.
        slots: number of slots that the engine would offer, and number with which the run was started.
    """
    match action:
        case Pause():
            if controls.is_paused:
                return Decision(outcome="paused already")
            going = f"; {counted(len(running), 'running trial')} to go on to the end" if running else ""
            return Decision(outcome=f"paused: no trial is started{going}")
        case Resume():
            return Decision(outcome="goes on: trials are started again" if controls.is_paused else "was not paused")
        case Stop(target=target) | Retry(target=target):
            try:
                return _decide_on_trials(action.kind, target, sweep, trials, running)
            except SpecError as error:
                return Decision(outcome=str(error), is_refused=True)
        case SetSlots(count=count):
            offered, started = slots
            limit = "" if offered == count else f" (there cannot be {count})"
            effect = Effect(slots=offered, slots_before=started)
            return Decision(outcome=f"{counted(offered, 'slot')} from now on{limit}", effect=effect)
        case AddSeeds(count=count):
            if sweep.planner.chooses_seeds:
                outcome = f"the planner {sweep.planner.kind} chooses seeds itself; raise its max_seeds instead"
                return Decision(outcome=outcome, is_refused=True)
            seeds = further_seeds(sweep.seeds, controls.further_seeds + count)[-count:]
            shown = str(seeds[0]) if count == 1 else f"{seeds[0]} to {seeds[-1]}"
            return Decision(outcome=f"every configuration is also trained with seed{'s' * (count > 1)} {shown}")
        case _:
            assert_never(action)


def _decide_on_trials(
    kind: Literal["stop", "retry"],
    target: str,
    sweep: SweepSpec,
    trials: Sequence[TrialRecord],
    running: Collection[str],
) -> Decision:
    if kind == "retry" and target == ALL:
        own, is_whole = [trial for trial in trials if trial.state is TrialState.FAILED], False
        if not own:
            return Decision(outcome="no trial has failed", is_refused=True)
    else:
        own, is_whole = find_target(trials, target, sweep=sweep.name)
    states = {TrialState.FAILED, TrialState.PRUNED}
    if kind == "stop":
        states = {TrialState.PLANNED, TrialState.RUNNING}
    meant = tuple(trial.trial_id for trial in own if trial.state in states)
    configs = tuple({trial.config_id for trial in own}) if is_whole else ()
    if not meant:
        there = ", ".join(sorted({trial.state.value for trial in own})) or "no such trial"
        fit = "failed or was given up" if kind == "retry" else "waits or runs"
        return Decision(outcome=f"nothing of {target} {fit} ({there})", is_refused=True)
    effect = Effect(trials=meant, configs=configs)
    if kind == "retry":
        outcome = f"planned again: {counted(len(meant), 'trial')} of {target}"
        return Decision(outcome=outcome, effect=effect, take_back=meant)
    at_work = sum(trial_id in running for trial_id in meant)
    outcome = f"given up: {counted(len(meant), 'trial')} of {target}, {at_work} of them running"
    return Decision(outcome=outcome, effect=effect, give_up=meant)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return "unknown"


# Requests of users to a sweep, from the command line or the live page: their parsing, and the wait for an answer.


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
