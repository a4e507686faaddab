"""From a sweep's trials to its agreement with published results, pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from stnbench.analysis.comparison import fit_and_compare
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.inference import accuracy_estimate, wilson_estimate
from stnbench.analysis.ranks import rank_correlations, ranks_of
from stnbench.report.agreement import Agreement, AgreementRow, Claim
from stnbench.report.claims import CLAIMS, Judge, ScoredCell
from stnbench.spec.data import Split
from stnbench.spec.published import PublishedCell, PublishedTable


@dataclass(slots=True)
class _Cell:
    """The scored trials of one cell: images right and images there are, by seed."""

    label: str
    twin_cell_id: str
    parameters: int | None
    scores: dict[int, tuple[int, int]] = field(default_factory=dict)

    def accuracies(self, seeds: Sequence[int]) -> dict[int, float] | None:
        """Accuracy by seed; None where it has not all of these seeds."""
        if not self.scores.keys() >= set(seeds):
            return None
        return {seed: self.scores[seed][0] / self.scores[seed][1] for seed in seeds}


def build_agreement(table: PublishedTable, trials: pd.DataFrame, *, split: Split = "validation") -> Agreement | None:
    """The cells of a sweep's trials (``frames.TRIAL_COLUMNS``) beside what was published; None before any has both.

    Cells are compared on the seeds that most of them have; those that lack one of these are left out. The same frame
    gives the same agreement.
    """
    cells = _read_cells(trials, split)
    there = [item for item in table.cells if item.cell_id in cells]
    seeds = _usual_seeds([cells[item.cell_id] for item in there])
    scored = {item.cell_id: item for item in there if cells[item.cell_id].accuracies(seeds) is not None}
    if not seeds or not scored:
        return None
    ordered = sorted(scored.values(), key=lambda item: (-item.result.accuracy, cells[item.cell_id].label, item.cell_id))
    ours = np.array([list((cells[item.cell_id].accuracies(seeds) or {}).values()) for item in ordered])
    theirs = np.array([item.result.accuracy for item in ordered])
    correlations = rank_correlations(ours, theirs)
    claims = _claims(ordered, cells, seeds)
    tested = {claim.name for claim in claims}
    return Agreement(
        published=table.name,
        published_split="test",
        published_images=table.images,
        split=split,
        seeds=seeds,
        rows=tuple(
            _row(item, cells[item.cell_id], seeds, table.images, (float(our_rank), float(their_rank)))
            for item, our_rank, their_rank in zip(ordered, ranks_of(-ours.mean(axis=1)), ranks_of(-theirs), strict=True)
        ),
        tau=correlations[0] if correlations else None,
        rho=correlations[1] if correlations else None,
        claims=tuple(claims),
        untested=tuple(name for name in CLAIMS if name not in tested),
        left_out=len(there) - len(scored),
    )


def _row(
    item: PublishedCell, cell: _Cell, seeds: Sequence[int], images: int, ranks: tuple[float, float]
) -> AgreementRow:
    right, there = zip(*(cell.scores[seed] for seed in seeds), strict=True)
    return AgreementRow(
        cell_id=item.cell_id,
        label=cell.label,
        ours=accuracy_estimate(right, there),
        published=wilson_estimate(round(item.result.accuracy * images), images),
        our_rank=ranks[0],
        published_rank=ranks[1],
    )


def _claims(items: Sequence[PublishedCell], cells: Mapping[str, _Cell], seeds: Sequence[int]) -> list[Claim]:
    """Test the claims, with strength borrowed from all cells of the sweep, published or not."""
    baselines = {name: cell.twin_cell_id for name, cell in cells.items() if cell.twin_cell_id != name}
    runs = [
        ScoredRun(configuration=name, seed=seed, correct=right, images=images)
        for name, cell in cells.items()
        for seed, (right, images) in cell.scores.items()
        if seed in seeds
    ]
    comparison, fitted = fit_and_compare(runs, baselines=baselines)
    if fitted is None:
        return []
    published = {item.cell_id: item.result.accuracy for item in items}
    found = []
    for item in items:
        base = baselines.get(item.cell_id)
        found.append(
            ScoredCell(
                configuration=item.cell_id,
                baseline=base if base in fitted.place else None,
                result=item.result,
                parameters=cells[item.cell_id].parameters,
                twin_parameters=cells[base].parameters if base is not None and base in cells else None,
                twin_published=None if base is None else published.get(base),
            )
        )
    return Judge(comparison, fitted).claims(found)


def _usual_seeds(cells: Sequence[_Cell]) -> tuple[int, ...]:
    """The seeds that most cells have; of sets that are as frequent, the largest."""
    sets = Counter(tuple(sorted(cell.scores)) for cell in cells if cell.scores)
    return max(sets, key=lambda seeds: (sets[seeds], len(seeds), seeds), default=())


def _read_cells(trials: pd.DataFrame, split: Split) -> dict[str, _Cell]:
    """The cells of a frame, also those without a score yet."""
    names = ("cell_id", "label", "twin_cell_id", "seed", "parameters", f"{split}_correct", f"{split}_images")
    cells: dict[str, _Cell] = {}
    for cell_id, label, twin_cell_id, seed, parameters, correct, images in zip(
        *(_values(trials[name]) for name in names), strict=True
    ):
        cell = cells.setdefault(cell_id, _Cell(label=label, twin_cell_id=twin_cell_id, parameters=None))
        cell.parameters = cell.parameters if parameters is None else int(parameters)
        if correct is not None and images:
            cell.scores[int(seed)] = (int(correct), int(images))
    return cells


def _values(column: "pd.Series[Any]") -> list[Any]:
    """A column as Python values, None for what is missing."""
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
