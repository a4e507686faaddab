"""A tracker for those who want none."""

from collections.abc import Iterable, Sequence

from typing_extensions import override

from stnbench.spec.sweep import SweepSpec
from stnbench.tracking.base import AttemptView, CellView, Picture, Tracker


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
