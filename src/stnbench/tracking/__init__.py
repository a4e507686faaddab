"""The interface of a tracker, and the views that it shows."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import TypeAdapter

from stnbench.analysis.effects import Estimate
from stnbench.core.identity import digest
from stnbench.spec.result import AttemptState, Cost, Environment, EpochRecord, Failure, SplitScore
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptView:
    """Everything a tracker shows of one attempt, as of one state of the store. Times are Unix milliseconds.

    ``axes`` are pairs of an axis of the sweep and the trial's label on it.
    """

    sweep: str
    trial_id: str
    config_id: str
    label: str
    axes: tuple[tuple[str, str], ...]
    is_baseline: bool
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
class ConfigurationView:
    """Summary of one configuration over its seeds; accuracies are shares in [0, 1] on the validation split.

    ``rank`` is 1 for the best and for those not distinguishable from it, ``rank_text`` is its range, such as ``1-3``.
    ``standing`` compares with the best in a word, ``st_gain`` is the accuracy gained over the baseline; each is None or
    empty if it is not known. ``health`` describes its transformers, such as ``healthy`` or ``2 collapsed, 1 healthy``.
    ``place`` is the position in the leaderboard, from 0, with ties in its order.
    """

    sweep: str
    config_id: str
    label: str
    axes: tuple[tuple[str, str], ...]
    is_baseline: bool
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
    """One picture of the gallery ``key`` at the optimiser's ``step``, as a PNG file."""

    key: str
    step: int
    png: bytes


class Tracker(ABC):
    """Abstract display of attempts and configurations.

    Every method is idempotent: showing the same view twice has the same effect as once, and a later view of the same
    attempt replaces an earlier one. A tracker is used from one thread at a time.
    Methods may raise any exception of the underlying library; the caller logs it and continues, since training never
    depends on a tracker.
    """

    @abstractmethod
    def open_sweep(self, sweep: SweepSpec) -> None:
        """Prepare to show this sweep; called before any of its attempts or configurations."""

    @abstractmethod
    def show_attempt(self, view: AttemptView) -> None:
        """Show an attempt that has begun, has a new epoch, or has ended. An ended attempt is shown as ended at once."""

    @abstractmethod
    def show_configuration(self, view: ConfigurationView) -> None:
        """Show the summary of a configuration."""

    @abstractmethod
    def show_pictures(self, view: AttemptView | ConfigurationView, pictures: Iterable[Picture]) -> int:
        """Show galleries with an attempt or a configuration that is shown, and return the number of new pictures.

        Existing pictures are not changed.
        """

    @abstractmethod
    def close(self) -> None:
        """Release connections; no other method is called afterwards."""


# Equality of views.


def view_digest(view: AttemptView | ConfigurationView) -> str:
    """Return a digest of a view's contents: equal views have equal digests, and need not be shown again."""
    plain = TypeAdapter(type(view)).dump_python(view, mode="json")
    plain["cell_id"] = plain.pop("config_id")  # stored digests keep the names of their time
    return digest({"kind": "AttemptView" if isinstance(view, AttemptView) else "CellView", "view": plain})
