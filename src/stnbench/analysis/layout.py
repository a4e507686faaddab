"""Cells in a layout of axes, and which of them can be compared with all else equal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedCell:
    """A cell: its label on every axis it is on, and its accuracy by seed."""

    labels: Mapping[str, str]
    scores: Mapping[int, float]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Blocks:
    """Cells in whole blocks: in each, every combination of the labels of ``axes`` stands with the same other labels.

    ``scores`` is (blocks, labels of the first axis, labels of the second one, ..., seeds), ``labels`` those of each
    axis, ``seeds`` those that all these cells have.
    """

    axes: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    scores: NDArray[np.float64]

    @property
    def cells(self) -> int:
        """How many cells."""
        return int(np.prod(self.scores.shape[:-1]))


def usual_seeds(cells: Iterable[PlacedCell]) -> tuple[int, ...]:
    """The seeds that most cells have, in order: of those the most where several sets are as frequent."""
    sets = Counter(tuple(sorted(cell.scores)) for cell in cells)
    return max(sets, key=lambda seeds: (sets[seeds], len(seeds), seeds), default=())


def whole_blocks(cells: Sequence[PlacedCell], *axes: str) -> Blocks | None:
    """The whole blocks of cells on these axes; None where there is none.

    Cells without one of the axes, or without a score for one of the usual seeds of the others, are left out, and so are
    blocks in which a combination is missing. Labels are in the order in which they come.
    """
    there = [cell for cell in cells if all(axis in cell.labels for axis in axes)]
    seeds = usual_seeds(there)
    there = [cell for cell in there if cell.scores.keys() >= set(seeds)]
    labels = tuple(tuple(dict.fromkeys(cell.labels[axis] for cell in there)) for axis in axes)
    blocks: dict[frozenset[tuple[str, str]], dict[tuple[str, ...], PlacedCell]] = {}
    for cell in there:
        others = frozenset((name, label) for name, label in cell.labels.items() if name not in axes)
        blocks.setdefault(others, {})[tuple(cell.labels[axis] for axis in axes)] = cell
    combinations = list(product(*labels))
    whole = [block for block in blocks.values() if len(block) == len(combinations)]
    if not seeds or not whole:
        return None
    scores = [[block[combination].scores[seed] for combination in combinations for seed in seeds] for block in whole]
    shape = (len(whole), *map(len, labels), len(seeds))
    return Blocks(axes=axes, labels=labels, seeds=seeds, scores=np.array(scores).reshape(shape))
