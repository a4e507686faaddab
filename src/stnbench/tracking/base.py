"""The contract of a tracker."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter
from typing_extensions import override

from stnbench.analysis.inference import Estimate
from stnbench.core.identity import digest
from stnbench.spec.result import Cost, Environment, EpochRecord, Failure, SplitScore
from stnbench.spec.states import AttemptState
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptView:
    """Everything a tracker shows of one attempt, as the store knows it at one moment. Times are unix milliseconds.

    ``axes`` are pairs of an axis of the sweep and the trial's label on it.
    """

    sweep: str
    trial_id: str
    cell_id: str
    label: str
    axes: tuple[tuple[str, str], ...]
    is_twin: bool
    spec: TrialSpec
    number: int
    token: str
    state: AttemptState
    started_at_ms: int
    finished_at_ms: int | None
    epochs: tuple[EpochRecord, ...] = ()
    validation: SplitScore | None = None
    test: SplitScore | None = None
    cost: Cost | None = None
    environment: Environment | None = None
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CellView:
    """The summary of one cell over its seeds: accuracies are shares in [0, 1] on the validation split.

    ``rank`` is 1 for the best and for those that cannot be told from it, ``rank_text`` says how far it goes: ``1-3``.
    ``standing`` compares with the best in a word, ``st_gain`` is the accuracy gained over the cell's twin; each is None
    or empty where it is not known. ``health`` says how its transformers are: ``healthy``, ``2 collapsed, 1 healthy``.
    ``place`` counts from 0 for the first of the leaderboard, ties in its order.
    """

    sweep: str
    cell_id: str
    label: str
    axes: tuple[tuple[str, str], ...]
    is_twin: bool
    seeds: int
    mean: float
    low: float | None
    high: float | None
    method: str
    cost: Cost | None
    rank: int | None = None
    rank_text: str = ""
    standing: str = ""
    st_gain: Estimate | None = None
    health: str = ""
    place: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture of the gallery ``key``, where it stands at ``step`` (of the optimiser), as a PNG file."""

    key: str
    step: int
    png: bytes


class Tracker(ABC):
    """Shows attempts and cells to people.

    Every method is idempotent: showing the same view twice leaves what showing it once leaves, and a later view of the
    same attempt replaces an earlier one. Used from one thread at a time.
    Raises: any exception of the library below; the caller logs it and goes on, training never depends on a tracker.
    """

    @abstractmethod
    def open_sweep(self, sweep: SweepSpec) -> None:
        """Prepare to show this sweep; called before any of its attempts or cells."""

    @abstractmethod
    def show_attempt(self, view: AttemptView) -> None:
        """Show an attempt: begun, at a new epoch, or ended. An ended attempt is shown as ended at once."""

    @abstractmethod
    def show_cell(self, view: CellView) -> None:
        """Show the summary of a cell."""

    @abstractmethod
    def show_pictures(self, view: AttemptView, pictures: Iterable[Picture]) -> int:
        """Show galleries beside an attempt; how many pictures were new. One that is shown already is left as it is."""

    @abstractmethod
    def close_orphans(self, sweep: str, running_tokens: Sequence[str]) -> int:
        """End every attempt of the sweep shown as running whose token is not among these; return how many."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections; no other method is called afterwards."""


# When two views show the same.


def view_digest(view: AttemptView | CellView) -> str:
    """The identity of what a view shows: equal views have equal digests, so what was shown need not be shown again."""
    plain = TypeAdapter(type(view)).dump_python(view, mode="json")
    return digest({"kind": type(view).__name__, "view": plain})


# A tracker for those who want none.


class NullTracker(Tracker):
    """Shows nothing."""

    @override
    def open_sweep(self, sweep: SweepSpec) -> None:
        pass

    @override
    def show_attempt(self, view: AttemptView) -> None:
        pass

    @override
    def show_cell(self, view: CellView) -> None:
        pass

    @override
    def show_pictures(self, view: AttemptView, pictures: Iterable[Picture]) -> int:
        return 0

    @override
    def close_orphans(self, sweep: str, running_tokens: Sequence[str]) -> int:
        return 0

    @override
    def close(self) -> None:
        pass
