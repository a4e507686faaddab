"""Requests to a running sweep, and their combined effect.

A request is written by any process (``orchestration/control.py``); only the orchestrator executes it and records it in
the store, once. State that must outlast the process is recomputed from those records.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, assert_never

from pydantic import Discriminator

from stnbench.core.errors import require
from stnbench.spec.codec import Strict, named_before

COUNT_MAX: Final = 10_000
TARGET_MAX: Final = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause(Strict):
    """Request to launch no further trials; running trials continue."""

    kind: Literal["pause"] = "pause"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume(Strict):
    """Request to launch trials again."""

    kind: Literal["resume"] = "resume"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop(Strict):
    """Request to give up a configuration (``LABEL``) or a trial (``LABEL#SEED``, or the beginning of its id)."""

    target: str
    kind: Literal["stop"] = "stop"

    def __post_init__(self) -> None:
        require(0 < len(self.target) <= TARGET_MAX, "target", self.target[:40], "a label or an id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry(Strict):
    """Request to rerun a failed or given up configuration or trial, or with ``all`` everything that failed."""

    target: str
    kind: Literal["retry"] = "retry"

    def __post_init__(self) -> None:
        require(0 < len(self.target) <= TARGET_MAX, "target", self.target[:40], "a label, an id or 'all'")


@dataclass(frozen=True, kw_only=True, slots=True)
class SetSlots(Strict):
    """Request to run ``count`` trials concurrently from now on."""

    count: int
    kind: Literal["slots"] = "slots"

    def __post_init__(self) -> None:
        require(1 <= self.count <= COUNT_MAX, "count", self.count, f"from 1 to {COUNT_MAX}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AddSeeds(Strict):
    """Request to train every configuration with ``count`` further seeds."""

    count: int
    kind: Literal["seeds"] = "seeds"

    def __post_init__(self) -> None:
        require(1 <= self.count <= COUNT_MAX, "count", self.count, f"from 1 to {COUNT_MAX}")


Action = Annotated[Pause | Resume | Stop | Retry | SetSlots | AddSeeds, Discriminator("kind")]

ALL: Final = "all"
"""Target of a retry that stands for all failed trials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlRequest(Strict):
    """A request to a sweep.

    Attributes:
        request_id: identifier, unique among all requests; later ones of the same host sort after earlier ones.
        sweep: name of the sweep.
        action: the requested action.
        asked_at: time of the request, ISO 8601 with a time zone.
        asked_by: user, host and program.
    """

    request_id: str
    sweep: str
    action: Action
    asked_at: str
    asked_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect(Strict):
    """Effect of an executed request.

    Attributes:
        trials: the affected trials.
        configs: configurations that were given up or resumed as a whole, including their future trials.
        slots: number of slots after the request.
        slots_before: number of slots with which the run was started.
    """

    trials: tuple[str, ...] = ()
    configs: Annotated[tuple[str, ...], named_before("configs", "cells")] = ()
    slots: int = 0
    slots_before: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlRecord:
    """A request that was executed or refused; ``outcome`` describes the result in a line."""

    request: ControlRequest
    applied_at: datetime
    is_refused: bool
    outcome: str
    effect: Effect


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """Combined effect of all requests so far.

    Attributes:
        paused_by: request that paused the sweep; None if it is not paused.
        further_seeds: number of seeds of every configuration in addition to the sweep's.
        slots: number of slots of the last request; 0 for none. It applies to runs started with ``slots_started``.
        slots_started: see ``slots``.
        given_up: trials that must not run.
        given_up_configs: configurations that must not run.
        taken_back: trials that a retry has requested again, also of given up configurations.
    """

    paused_by: ControlRequest | None = None
    further_seeds: int = 0
    slots: int = 0
    slots_started: int = 0
    given_up: frozenset[str] = frozenset()
    given_up_configs: frozenset[str] = frozenset()
    taken_back: frozenset[str] = frozenset()

    @property
    def is_paused(self) -> bool:
        """Return whether no trials are launched."""
        return self.paused_by is not None

    def gives_up(self, trial_id: str, config_id: str) -> bool:
        """Check whether a user has given up a trial or its configuration."""
        return trial_id in self.given_up or (config_id in self.given_up_configs and trial_id not in self.taken_back)


def controls_after(records: Iterable[ControlRecord]) -> Controls:  # noqa: C901 - a branch for each action
    """Return the combined effect of the executed requests, given in their order."""
    paused_by, seeds, slots, started = None, 0, 0, 0
    given_up: set[str] = set()
    configs: set[str] = set()
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
                configs |= set(effect.configs)
                taken_back -= set(effect.trials)
            case Retry():
                given_up -= set(effect.trials)
                configs -= set(effect.configs)
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
        given_up_configs=frozenset(configs),
        taken_back=frozenset(taken_back),
    )


def further_seeds(seeds: Sequence[int], count: int) -> range:
    """Return the ``count`` seeds that follow the largest seed of a sweep."""
    return range(max(seeds) + 1, max(seeds) + 1 + count)
