"""The cells of a grid, and twins: what a point means, without its seeds."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

from stnbench.analysis.fitted import ScoredRun
from stnbench.core.errors import BeyondLimitsError, InfeasibleError
from stnbench.planning.base import ComposePoint
from stnbench.spec.planner import SAMPLERS, GridPlannerSpec
from stnbench.spec.sweep import EQUAL_PARAMETERS, LABEL_SEPARATOR, Axis, Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.records import PlannedTrial

TWIN_LABEL = "no ST"
NOMINAL_IMAGES = 10_000
"""Of a split whose size a planner does not know."""

SURVEYED_MAX = 1000
"""Points of a sampled space that are looked at before it is searched."""


def grid_cells(sweep: SweepSpec, compose: ComposePoint) -> list[PlannedTrial]:
    """The twins and the cells of every grid, each once, with some seed; twins of equal size come after the plain ones.

    Points that mean the same trial (a localisation network's size without a transformer) are one cell.
    Those beyond the limits of the sweep are left out.

    Raises:
        SpecError: for a point that cannot be meant.
        BeyondLimitsError: if no cell keeps the limits.
    """
    cells: dict[str, tuple[Point, TrialSpec]] = {}
    beyond: BeyondLimitsError | None = None
    for point in sweep.points():
        try:
            spec = compose(point)
        except BeyondLimitsError as error:
            beyond = error
            continue
        cells.setdefault(spec.cell_id, (point, spec))
    if beyond is not None and not cells:
        raise beyond
    twins = [*_twins(cells, axes_of_transformers(sweep))] if sweep.twins else []
    if sweep.twins == EQUAL_PARAMETERS:
        twins += _equal_size_twins(cells)
    return [*twins, *(PlannedTrial(spec=spec, point=point, label=point.label) for point, spec in cells.values())]


def with_seeds(cells: Iterable[PlannedTrial], seeds: Iterable[int]) -> list[PlannedTrial]:
    """Every cell with every seed: all with the first before any with the second."""
    seeded = itertools.product(seeds, list(cells))
    return [dataclasses.replace(cell, spec=cell.spec.with_seed(seed)) for seed, cell in seeded]


def scored_run(cell_id: str, seed: int, accuracy: float) -> ScoredRun:
    """Return what a comparison needs of a trial that a planner was told of.

    Planners are told shares and not counts: a share counts as known to half of one of ``NOMINAL_IMAGES`` images.

    Args:
        cell_id: of the configuration.
        seed: of the trial.
        accuracy: its validation accuracy, a share.
    """
    return ScoredRun(configuration=cell_id, seed=seed, correct=accuracy * NOMINAL_IMAGES, images=NOMINAL_IMAGES)


def survey(sweep: SweepSpec, compose: ComposePoint) -> Iterator[TrialSpec]:
    """Trials that stand for all that the sweep may ask: of a sampled range the lowest value, and not every point.

    Raises:
        SpecError: for a point that cannot be meant.
    """
    if sweep.planner.kind not in SAMPLERS:
        yield from (cell.spec for cell in grid_cells(sweep, compose))
        return
    grids = [tuple(map(_pinned, grid)) for grid in sweep.grids]
    pinned = dataclasses.replace(sweep, axes=grids[0], more_axes=tuple(grids[1:]), planner=GridPlannerSpec())
    for point in itertools.islice(pinned.points(), SURVEYED_MAX):
        try:
            yield compose(point)
        except InfeasibleError:
            continue


def axes_of_transformers(sweep: SweepSpec) -> frozenset[str]:
    """The axes that change nothing but transformers and their localisation networks."""
    keys: dict[str, set[str]] = {}
    for axis in (axis for grid in sweep.grids for axis in grid):
        keys.setdefault(axis.name, set()).update(axis.keys)
    parts = ("locnet", "transformer")
    return frozenset(
        name for name, own in keys.items() if own and all(key.rpartition("@")[2].startswith(parts) for key in own)
    )


def twin_of(point: Point, spec: TrialSpec, left_out: frozenset[str]) -> PlannedTrial:
    """The twin of a proposed cell, called after what is not on the axes ``left_out``."""
    labels = tuple((name, label) for name, label in point.labels if name not in left_out)
    label = LABEL_SEPARATOR.join([*(label for _, label in labels), TWIN_LABEL])
    return PlannedTrial(spec=spec.twin(), point=Point(labels=labels), label=label, is_twin=True)


def _pinned(axis: Axis) -> Axis:
    return axis if axis.span is None else dataclasses.replace(axis, span=None, choices=axis.values[:1])


def _twins(cells: dict[str, tuple[Point, TrialSpec]], left_out: frozenset[str]) -> Iterator[PlannedTrial]:
    """The twins that are not cells themselves; each keeps the labels that all of its cells share.

    It keeps none on the axes ``left_out``: what they change, it has not.
    """
    groups: dict[str, list[tuple[Point, TrialSpec]]] = {}
    for point, spec in cells.values():
        twin = spec.twin()
        if twin.cell_id not in cells:
            groups.setdefault(twin.cell_id, []).append((point, twin))
    # A label that every cell of the sweep has says nothing; one that only these cells have does.
    everywhere = _shared(point for point, _ in cells.values())
    for group in groups.values():
        shared = _shared(point for point, _ in group)
        first, twin = group[0]
        labels = tuple(
            (name, label) for name, label in first.labels if (name, label) in shared and name not in left_out
        )
        telling = [label for name, label in labels if (name, label) not in everywhere]
        yield PlannedTrial(
            spec=twin, point=Point(labels=labels), label=LABEL_SEPARATOR.join([*telling, TWIN_LABEL]), is_twin=True
        )


def _equal_size_twins(cells: dict[str, tuple[Point, TrialSpec]]) -> Iterator[PlannedTrial]:
    """Of each cell with transformers one that is wider instead; cells that are the same size share theirs.

    It keeps the labels that all of its cells share, and is called after its sizes.
    """
    from stnbench.trials.assess import equal_size_twin  # torch, which only such sweeps pay

    groups: dict[str, list[tuple[Point, TrialSpec]]] = {}
    for point, spec in cells.values():
        try:
            twin = equal_size_twin(spec)
        except InfeasibleError:  # the cell itself will say so
            continue
        if spec.transformers and twin.cell_id not in cells and twin != spec.twin():
            groups.setdefault(twin.cell_id, []).append((point, twin))
    for group in groups.values():
        shared = _shared(point for point, _ in group)
        first, twin = group[0]
        labels = tuple(item for item in first.labels if item in shared)
        sizes = f"{TWIN_LABEL}, wider: {','.join(map(str, twin.network.sizes))}"
        label = LABEL_SEPARATOR.join([*(label for _, label in labels), sizes])
        yield PlannedTrial(spec=twin, point=Point(labels=labels), label=label, is_twin=True)


def _shared(points: Iterable[Point]) -> set[tuple[str, str]]:
    sets: Sequence[set[tuple[str, str]]] = [set(point.labels) for point in points]
    return set.intersection(*sets) if sets else set()
