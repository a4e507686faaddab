"""The grids: every point of their axes, less the excluded ones, with every seed."""

from collections.abc import Sequence

from typing_extensions import override

from stnbench.planning.base import ComposePoint, Observation, Planner
from stnbench.planning.cells import grid_cells, with_seeds
from stnbench.spec.sweep import SweepSpec
from stnbench.store.records import PlannedTrial


class GridPlanner(Planner):
    """Asks for everything at once; answers change nothing.

    Seeds run in rounds, all cells with the first seed before any with the second, so that a sweep that is stopped early
    has seen every cell.
    """

    def __init__(self, sweep: SweepSpec, compose: ComposePoint) -> None:
        self._sweep = sweep
        self._compose = compose
        self._asked = False

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        if self._asked:
            return ()
        self._asked = True
        return with_seeds(grid_cells(self._sweep, self._compose), self._sweep.seeds)

    @override
    def tell(self, observation: Observation) -> None:
        del observation

    @property
    @override
    def is_exhausted(self) -> bool:
        return self._asked
