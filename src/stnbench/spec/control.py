"""What people ask of a sweep while it runs, and what all that was asked so far amounts to: pure.

A request is written by any process (``orchestration/control.py``); the orchestrator alone carries it out and records
it in the store, each once. Whatever has to last longer than the process is worked out of those records again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, assert_never

from pydantic import Discriminator

from stnbench.spec.check import require
from stnbench.spec.codec import Strict

COUNT_MAX: Final = 10_000
TARGET_MAX: Final = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause(Strict):
    """Launch nothing more; trials that run go on."""

    kind: Literal["pause"] = "pause"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume(Strict):
    """Launch trials again."""

    kind: Literal["resume"] = "resume"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop(Strict):
    """Give up a configuration (``LABEL``) or a trial (``LABEL#SEED``, or the beginning of its id)."""

    target: str
    kind: Literal["stop"] = "stop"

    def __post_init__(self) -> None:
        """Check the values."""
        require(0 < len(self.target) <= TARGET_MAX, "target", self.target[:40], "a label or an id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry(Strict):
    """Run again what has failed or was given up, of a configuration or a trial, or with ``all`` everything failed."""

    target: str
    kind: Literal["retry"] = "retry"

    def __post_init__(self) -> None:
        """Check the values."""
        require(0 < len(self.target) <= TARGET_MAX, "target", self.target[:40], "a label, an id or 'all'")


@dataclass(frozen=True, kw_only=True, slots=True)
class SetSlots(Strict):
    """Run so many trials at once from now on."""

    count: int
    kind: Literal["slots"] = "slots"

    def __post_init__(self) -> None:
        """Check the values."""
        require(1 <= self.count <= COUNT_MAX, "count", self.count, f"from 1 to {COUNT_MAX}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AddSeeds(Strict):
    """Train every configuration with so many seeds more."""

    count: int
    kind: Literal["seeds"] = "seeds"

    def __post_init__(self) -> None:
        """Check the values."""
        require(1 <= self.count <= COUNT_MAX, "count", self.count, f"from 1 to {COUNT_MAX}")


Action = Annotated[Pause | Resume | Stop | Retry | SetSlots | AddSeeds, Discriminator("kind")]

ALL: Final = "all"
"""The target of a retry that means every failed trial."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlRequest(Strict):
    """One request for one sweep.

    Attributes:
        request_id: unique among all requests; a later one of the same host sorts after an earlier one.
        sweep: its name.
        action: what to do.
        asked_at: when, ISO 8601 with a time zone.
        asked_by: user, host and program.
    """

    request_id: str
    sweep: str
    action: Action
    asked_at: str
    asked_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect(Strict):
    """What carrying a request out has meant.

    Attributes:
        trials: that it was about.
        cells: configurations that were given up, or taken back, as a whole: also their trials to come.
        slots: how many there are now, and ``slots_before`` how many the run was started with.
    """

    trials: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    slots: int = 0
    slots_before: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlRecord:
    """A request as it was carried out or refused; ``outcome`` says so in a line."""

    request: ControlRequest
    applied_at: datetime
    is_refused: bool
    outcome: str
    effect: Effect


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """What all requests so far amount to.

    Attributes:
        paused_by: the request that paused the sweep; None where it is not paused.
        further_seeds: how many every configuration has beside the sweep's.
        slots: how many the last request asked for, for runs that are started with ``slots_started``; 0 for none.
        given_up: trials, and ``given_up_cells`` configurations, that are not to run.
    """

    paused_by: ControlRequest | None = None
    further_seeds: int = 0
    slots: int = 0
    slots_started: int = 0
    given_up: frozenset[str] = frozenset()
    given_up_cells: frozenset[str] = frozenset()
    taken_back: frozenset[str] = frozenset()

    @property
    def is_paused(self) -> bool:
        """Whether nothing is launched."""
        return self.paused_by is not None

    def gives_up(self, trial_id: str, cell_id: str) -> bool:
        """Whether a person has given up this trial, or its configuration."""
        return trial_id in self.given_up or (cell_id in self.given_up_cells and trial_id not in self.taken_back)


def controls_after(records: Iterable[ControlRecord]) -> Controls:  # noqa: C901 - a branch for each action
    """Work out what the requests amount to that were carried out, in their order."""
    paused_by, seeds, slots, started = None, 0, 0, 0
    given_up: set[str] = set()
    cells: set[str] = set()
    taken_back: set[str] = set()
    for record in records:
        if record.is_refused:
            continue
        effect = record.effect
        match record.request.action:
            case Pause():
                paused_by = paused_by or record.request
            case Resume():
                paused_by = None
            case Stop():
                given_up |= set(effect.trials)
                cells |= set(effect.cells)
                taken_back -= set(effect.trials)
            case Retry():
                given_up -= set(effect.trials)
                cells -= set(effect.cells)
                taken_back |= set(effect.trials)
            case SetSlots():
                slots, started = effect.slots, effect.slots_before
            case AddSeeds(count=count):
                seeds += count
            case _:
                assert_never(record.request.action)
    return Controls(
        paused_by=paused_by,
        further_seeds=seeds,
        slots=slots,
        slots_started=started,
        given_up=frozenset(given_up),
        given_up_cells=frozenset(cells),
        taken_back=frozenset(taken_back),
    )


def further_seeds(seeds: Sequence[int], count: int) -> range:
    """The seeds that follow those of a sweep."""
    return range(max(seeds) + 1, max(seeds) + 1 + count)
