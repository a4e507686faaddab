"""The grids: every point of their axes, less the excluded ones, with every seed."""

import itertools
from collections.abc import Iterator, Sequence

from typing_extensions import override

from stnbench.planning.base import ComposePoint, Observation, Planner
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.records import PlannedTrial

TWIN_LABEL = "no ST"


class GridPlanner(Planner):
    """Asks for everything at once; answers change nothing.

    Seeds run in rounds, all cells with the first seed before any with the second, so that a sweep that is stopped early
    has seen every cell. Points that mean the same trial (a localisation network's size without a transformer) are asked
    once.
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
        cells = list(self._cells())
        seeded = itertools.product(self._sweep.seeds, cells)
        return [
            PlannedTrial(spec=cell.spec.with_seed(seed), point=cell.point, label=cell.label, is_twin=cell.is_twin)
            for seed, cell in seeded
        ]

    @override
    def tell(self, observation: Observation) -> None:
        del observation

    @property
    @override
    def is_exhausted(self) -> bool:
        return self._asked

    def _cells(self) -> Iterator[PlannedTrial]:
        cells: dict[str, tuple[Point, TrialSpec]] = {}
        for point in points(self._sweep):
            spec = self._compose(point)
            cells.setdefault(spec.cell_id, (point, spec))
        if self._sweep.twins:
            yield from _twins(cells, _axes_of_transformers(self._sweep))
        for point, spec in cells.values():
            yield PlannedTrial(spec=spec, point=point, label=point.label)


def points(sweep: SweepSpec) -> Iterator[Point]:
    """Every point of one grid after the other, the last axis fastest, less the excluded ones."""
    for grid in sweep.grids:
        for choices in itertools.product(*(axis.choices for axis in grid)):
            labels = tuple((axis.name, choice.label) for axis, choice in zip(grid, choices, strict=True))
            if not any(set(excluded) <= set(labels) for excluded in sweep.exclude):
                yield Point(labels=labels)


def _axes_of_transformers(sweep: SweepSpec) -> frozenset[str]:
    """The axes that change nothing but transformers and their localisation networks."""
    keys: dict[str, set[str]] = {}
    for axis in (axis for grid in sweep.grids for axis in grid):
        keys.setdefault(axis.name, set()).update(item.key for choice in axis.choices for item in choice.overrides)
    parts = ("locnet", "transformer")
    return frozenset(
        name for name, own in keys.items() if own and all(key.rpartition("@")[2].startswith(parts) for key in own)
    )


def _twins(cells: dict[str, tuple[Point, TrialSpec]], left_out: frozenset[str]) -> Iterator[PlannedTrial]:
    """The twins that are not cells themselves; each keeps the labels that all of its cells share.

    It keeps none on the axes ``left_out``: what they change, it has not.
    """
    groups: dict[str, list[tuple[Point, TrialSpec]]] = {}
    for point, spec in cells.values():
        twin = spec.twin()
        if twin.cell_id not in cells:
            groups.setdefault(twin.cell_id, []).append((point, twin))
    for group in groups.values():
        shared = set.intersection(*(set(point.labels) for point, _ in group))
        first, twin = group[0]
        # A label that every cell of the sweep has says nothing; one that only these cells have does.
        everywhere = set.intersection(*(set(point.labels) for point, _ in cells.values()))
        labels = tuple(
            (name, label) for name, label in first.labels if (name, label) in shared and name not in left_out
        )
        telling = [label for name, label in labels if (name, label) not in everywhere]
        yield PlannedTrial(
            spec=twin, point=Point(labels=labels), label=" · ".join([*telling, TWIN_LABEL]), is_twin=True
        )
