"""When a spatial transformer is healthy: the verdict on what it did to the validation images, pure."""

import math
from collections.abc import Sequence
from typing import Final

from stnbench.spec.result import EpochRecord, Failure, FailureKind, TransformerHealth
from stnbench.spec.trial import TrialSpec
from stnbench.spec.verdict import Verdict

NEGLIGIBLE_MOVEMENT: Final = 0.02
"""In half sides of the image: half a pixel of 48, less than bilinear reading itself blurs."""

SMALLEST_AREA: Final = 0.05
"""Of |det|: an image is lost where less than a twentieth of it is read (a spot of 11 pixels a side of 48)."""

LARGEST_AREA: Final = 4.0
"""Of |det|: an image is lost where it is shrunk to less than half its sides, a quarter of the output."""

LOST_OUTSIDE: Final = 0.75
"""An image is lost where more sampling points than this lie outside it, as many as at the largest area."""

LOST_SHARE: Final = 0.25
"""Of images: on distorted digits, transformers that came to learn had lost up to 0.19, collapsed ones from 0.41 on."""

MOST_OUTSIDE: Final = 0.5
"""Of the sampling points of all images."""

FAR_MOVEMENT: Final = 1.0
"""In half sides: a quarter turn moves sampling points by 1.15, and a network that has just begun to learn by less."""

CHANCE_FACTOR: Final = 1.5
"""Below so many times the score of one and the same answer a classifier has not learnt, or forgot what it had."""


HELP_Z: Final = 2.0
"""Standard errors by which accuracy must exceed that of constant parameters for the difference to be no chance."""


def judge(health: TransformerHealth, *, accuracy: float, chance: float, images: int) -> Verdict | None:
    """The verdict on one transformer after one epoch; None where the record does not tell.

    ``diverged``: of any image, theta or a sampling point is not finite. ``collapsed``: most sampling points lie outside
    the image, or more than ``LOST_SHARE`` of the images are lost (|det| not from ``SMALLEST_AREA`` to ``LARGEST_AREA``,
    or more than ``LOST_OUTSIDE`` of the sampling points outside), or the network is at chance with the sampling points
    far from the identity's. ``identity``: sampling points hardly leave the identity's. ``constant``: they do, and
    hardly differ between images. ``healthy``: they differ, and it helps (``helps``). ``unhelpful``: they differ, and no
    help can be seen. All in this order. Whether it helps is known after the last epoch, when parameters are replaced;
    before, a transformer that treats images differently has no verdict.

    Args:
        health: what the transformer did, its own ``verdict`` not looked at.
        accuracy: of the network on the same images, in [0, 1].
        chance: the accuracy on them of answering always with their most frequent class.
        images: how many they are.
    """
    if health.movement is None or health.movement_spread is None or health.lost_share is None:
        return None
    if health.finite_share < 1:
        return Verdict.DIVERGED
    is_helpless = accuracy <= CHANCE_FACTOR * chance and health.movement > FAR_MOVEMENT
    if health.outside_share > MOST_OUTSIDE or health.lost_share > LOST_SHARE or is_helpless:
        return Verdict.COLLAPSED
    if health.movement < NEGLIGIBLE_MOVEMENT:
        return Verdict.IDENTITY
    if health.movement_spread < NEGLIGIBLE_MOVEMENT:
        return Verdict.CONSTANT
    verdicts = {True: Verdict.HEALTHY, False: Verdict.UNHELPFUL, None: None}
    return verdicts[helps(health, accuracy=accuracy, images=images)]


def helps(health: TransformerHealth, *, accuracy: float, images: int) -> bool | None:
    """Whether treating every image differently helps; None where parameters were not replaced.

    It does where the network reads more images right than with the transformer's parameters replaced by their mean, and
    more than with the identity's, by at least ``HELP_Z`` standard errors: those of a paired difference (McNemar 1947)
    whose every error is another image's, which is the most that it can be. Where the poses are known, signs must also
    stand stiller in the output than in the images: theta error below that of the identity. A classifier that has merely
    got used to a transformer loses accuracy without it as well.
    """
    constants = [known for known in (health.accuracy_identity, health.accuracy_mean) if known is not None]
    if not constants:
        return None
    gained = accuracy - max(constants)
    standard_error = math.sqrt((2 - accuracy - max(constants)) / images)
    if gained <= 0 or gained < HELP_Z * standard_error:
        return False
    error, constant_error = health.theta_error, health.theta_error_identity
    return error is None or constant_error is None or error < constant_error


def judge_attempt(spec: TrialSpec, epochs: Sequence[EpochRecord], failure: Failure | None = None) -> Verdict | None:
    """The verdict on an attempt so far: that of its last epoch, or ``diverged`` where it failed so.

    None without a transformer that learns, and before the first epoch has ended.
    """
    if (
        failure is not None
        and failure.kind is FailureKind.DIVERGED
        and not all(placed.transformer.is_control for placed in spec.transformers)
    ):
        return Verdict.DIVERGED
    return epochs[-1].verdict if epochs else None
