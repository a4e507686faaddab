"""McNemar's test for networks scored on the same images, where images come in tracks and networks in seeds."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.inference import McNemar

EXACT_METHOD: Final = "McNemar, exact, whole tracks"
NORMAL_METHOD: Final = "McNemar, normal, whole tracks"
_EXACT_CLUSTERS_MAX: Final = 200
"""Up to so many tracks with a difference the distribution is summed out; beyond it is normal to the third digit."""


def mcnemar(cell: NDArray[np.bool_], base: NDArray[np.bool_], tracks: NDArray[np.int64]) -> McNemar:
    """Compare two cells on the same images.

    For one seed, and images that are each a track of their own, it is McNemar's exact test. The images of a track are
    near copies and the seeds of a cell see the same images, so neither are independent: under the null hypothesis the
    two cells could be exchanged on a whole track, in all seeds at once, and nothing less. So the signs of the tracks'
    differences are flipped (as Durkalski et al. 2003 do for clustered pairs in the normal limit).

    Args:
        cell: (seeds, images) whether it is right.
        base: likewise, of what it is compared with, in the same order of seeds.
        tracks: (images,) from 0 on without gaps.
    """
    differences = (cell.astype(np.int64) - base).sum(axis=0)
    by_track = np.bincount(tracks, weights=differences).round().astype(np.int64)
    by_track = by_track[by_track != 0]
    is_exact = len(by_track) <= _EXACT_CLUSTERS_MAX
    return McNemar(
        seeds=len(cell),
        images=cell.shape[1],
        tracks=int(tracks.max()) + 1,
        only_cell=int((cell & ~base).sum()),
        only_base=int((base & ~cell).sum()),
        p_value=_exact_p(by_track) if is_exact else _normal_p(by_track),
        method=EXACT_METHOD if is_exact else NORMAL_METHOD,
    )


def _exact_p(differences: NDArray[np.int64]) -> float:
    """The chance that signs drawn at random give a sum as far from 0, by summing out all of them."""
    sizes = np.abs(differences)
    total = int(sizes.sum())
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for size in sizes[sizes > 0].tolist():
        halves = chances / 2
        chances = np.zeros_like(halves)  # what leaves at the ends is 0: the outer places are still empty
        chances[size:] += halves[:-size]
        chances[:-size] += halves[size:]
    reached = abs(int(differences.sum()))
    sums = np.abs(np.arange(-total, total + 1))
    return min(1.0, float(chances[sums >= reached].sum()))


def _normal_p(differences: NDArray[np.int64]) -> float:
    from scipy import special  # half a second that only those who ask pay

    statistic = abs(float(differences.sum())) / float(np.sqrt((differences.astype(np.float64) ** 2).sum()))
    return float(2 * special.ndtr(-statistic))
