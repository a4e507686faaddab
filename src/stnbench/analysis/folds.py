"""Cross-validation: the accuracy of a recipe from networks that each saw all but one part of the images."""

import math
from collections.abc import Sequence
from typing import Final

from stnbench.analysis.inference import Estimate, t_quantile
from stnbench.core.errors import SpecError

FOLDS_METHOD: Final = "t over folds"


def folds_accuracy(errors: Sequence[float], images: Sequence[int]) -> Estimate:
    """The share of all images that is read right, with its 95 % interval over folds, of which n is the number.

    Each fold is one draw of tracks and of a network together, so that both are in the interval: that of Student's t for
    a ratio of sums, on the logarithm of the share of errors, which few tracks make skew. One fold, and folds without
    any error, have no interval. That all networks share images to learn from is not in it, nor can be: no estimate of
    the variance of cross-validation is unbiased (Bengio and Grandvalet 2004). ``test_promises.py`` measures how often
    it holds.

    Args:
        errors: images read wrongly in each fold, a mean where it has several networks.
        images: how many images each fold has.
    Raises: SpecError for no fold at all.
    """
    folds, total = len(images), sum(images)
    if not total:
        raise SpecError("the accuracy over no folds was asked for", remedy="give at least one")
    share = math.fsum(errors) / total
    if folds == 1 or share == 0:
        return Estimate(n=folds, mean=1 - share, low=None, high=None, method=FOLDS_METHOD)
    residuals = [wrong - share * count for wrong, count in zip(errors, images, strict=True)]
    deviation = math.sqrt(folds / (folds - 1) * math.fsum(residual**2 for residual in residuals)) / total
    factor = math.exp(t_quantile(folds - 1) * deviation / share)
    low = 1 - share * factor
    return Estimate(
        n=folds, mean=1 - share, low=max(low, 0.0), high=1 - share / factor, method=FOLDS_METHOD, clipped=low < 0
    )
