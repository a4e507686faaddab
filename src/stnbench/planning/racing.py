"""Racing: seeds are added only to cells that may still be the best."""

from collections.abc import Iterator, Mapping, Sequence

from typing_extensions import override

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.inference import LEVEL
from stnbench.analysis.verdicts import Verdict
from stnbench.planning.base import ComposePoint, Observation, Planner
from stnbench.planning.cells import grid_cells, scored_run, with_seeds
from stnbench.spec.planner import RacingPlannerSpec
from stnbench.spec.states import TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.records import PlannedTrial


class RacingPlanner(Planner):
    """Asks for every cell with the sweep's seeds, then round by round for one seed more of the cells in the race.

    After each round every cell is compared with the best as the leaderboard does it (seeds as blocks, simultaneous for
    all pairs of cells, within each choice of ``within``); a cell that is ``lower`` leaves the race for good, and so
    does one that fails or is pruned. A twin stays as long as one of its cells, whose gain it is the base of. The race
    is over where one cell is left.

    The sweep is looked at again and again, at most as often as there are rounds after which seeds may be added. Each
    look is made at 5 % over their number (Bonferroni), so that all of them together keep the error rate of one
    comparison, however they depend on one another. Boundaries that use this dependence (Pocock 1977; O'Brien and
    Fleming 1979) would decide a little earlier, but are made for two arms and known variances.

    A round begins when the one before is answered, because cells are compared on common seeds. All that decides is in
    the answers, so a race that is told them again goes on where it was.
    """

    def __init__(self, sweep: SweepSpec, spec: RacingPlannerSpec, compose: ComposePoint) -> None:
        self._sweep = sweep
        self._spec = spec
        self._compose = compose
        self._cells: dict[str, PlannedTrial] | None = None
        self._racing: dict[str, PlannedTrial] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._scores: dict[str, dict[int, float]] = {}
        self._unanswered: set[str] = set()
        self._looks = max(spec.max_seeds - len(sweep.seeds), 1)
        self._rounds = self._seeds()
        self._is_over = False

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        if self._is_over or self._unanswered:
            return ()
        if self._cells is None:
            self._cells = {cell.spec.cell_id: cell for cell in grid_cells(self._sweep, self._compose)}
            self._racing = dict(self._cells)
        else:
            self._drop_lower()
        seeds = next(self._rounds, ())
        asked = with_seeds(self._racing.values(), seeds)
        limit = self._spec.trials
        if not asked or (self._places and limit is not None and len(self._places) + len(asked) > limit):
            self._is_over = True
            return ()
        self._places |= {trial.spec.trial_id: (trial.spec.cell_id, trial.spec.seed) for trial in asked}
        self._unanswered = {trial.spec.trial_id for trial in asked}
        return asked

    @override
    def tell(self, observation: Observation) -> None:
        if observation.trial_id not in self._unanswered or not observation.state.is_final:
            return
        self._unanswered.discard(observation.trial_id)
        cell_id, seed = self._places[observation.trial_id]
        accuracy = observation.validation_accuracy
        if observation.state is TrialState.COMPLETE and accuracy is not None:
            self._scores.setdefault(cell_id, {})[seed] = accuracy
        else:
            self._racing.pop(cell_id, None)

    @property
    @override
    def is_exhausted(self) -> bool:
        return self._is_over

    def _seeds(self) -> Iterator[tuple[int, ...]]:
        """The seeds of each round: the sweep's, then one at a time."""
        yield self._sweep.seeds
        first = max(self._sweep.seeds) + 1
        for seed in range(first, first + self._spec.max_seeds - len(self._sweep.seeds)):
            yield (seed,)

    def _drop_lower(self) -> None:
        """Leave in the race what may be best, and its twins; nothing where one cell is left in every group."""
        groups: dict[str, dict[str, Mapping[int, float]]] = {}
        for cell_id, scores in self._scores.items():
            groups.setdefault(self._group(cell_id), {})[cell_id] = scores
        staying: set[str] = set()
        for cells in groups.values():
            candidates = _may_be_best(cells, level=LEVEL / self._looks) & self._racing.keys()
            if len(candidates) > 1:
                staying |= candidates
        twins = {self._racing[cell_id].spec.twin().cell_id for cell_id in staying}
        self._racing = {key: cell for key, cell in self._racing.items() if key in staying | twins}

    def _group(self, cell_id: str) -> str:
        cells = self._cells or {}
        return dict(cells[cell_id].point.labels).get(self._sweep.within, "")


def _may_be_best(cells: Mapping[str, Mapping[int, float]], *, level: float) -> set[str]:
    """The cells that are not lower than the best one, by tests of this level for all pairs together."""
    runs = [scored_run(cell_id, seed, share) for cell_id, scores in cells.items() for seed, share in scores.items()]
    decisions = compare_configurations(runs, level=level).decisions
    return {item.configuration for item in decisions if item.verdict is not Verdict.LOWER}
