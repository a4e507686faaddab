"""What a trial leaves behind: scores, epochs, health, cost, environment; or a failure."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from stnbench.spec.codec import Strict
from stnbench.spec.data import Split
from stnbench.spec.states import Verdict, worst
from stnbench.spec.trial import TrialSpec


class FailureKind(StrEnum):
    """Why an attempt did not finish; each kind has its own retry policy (``orchestration/policy.py``)."""

    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    KILLED = "killed"
    DEVICE = "device"
    NO_DEVICE = "no_device"
    HUNG = "hung"
    INFRASTRUCTURE = "infrastructure"
    INVALID = "invalid"
    BUG = "bug"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure(Strict):
    """Why an attempt did not finish.

    ``traceback`` is empty where the process died without a word; ``last_output`` then holds the end of its log.
    """

    kind: FailureKind
    message: str
    traceback: str = ""
    last_output: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerHealth(Strict):
    """What one spatial transformer, the ``branch``-th at its ``place``, did to the images of a split, after one epoch.

    ``theta_mean`` and ``theta_std`` are over images, of the six numbers [a, b, tx, c, d, ty] of the output-to-input
    matrix, row by row. ``outside_share`` is the share of sampling points outside the image, ``identity_distance`` the
    root mean square over images and the six numbers of theta less the identity, ``determinant_mean`` the mean
    determinant of the 2 x 2 part (the area read, over the area written).

    ``theta_error`` says how far the sign is from its usual place in the output, in half sides of the sign: the mean
    over images, each counted with at most 2, against the transformer's own best constant pose.
    ``theta_error_far_share`` is the share of images whose error is above 1. ``theta_error_identity`` and its share are
    those of the images as they are, and of any transformer that does the same to all of them
    (``diagnostics/pose.py``). None where the poses are not known, or nothing can be said.

    ``movement`` is the root mean square distance of nine sampling points (corners, middles of edges, centre) from the
    identity's, and ``movement_spread`` that from their own mean over images, both in half sides of the image and exact
    for every family. ``singular_max_mean`` and ``singular_min_mean`` are of theta's 2 x 2 part, ``lost_share`` is the
    share of images of which the classifier can see little (``spec/result.py``). All are over the images for which theta
    and these points are finite; ``finite_share`` is their share, and where it is 0, so is all else.

    ``dead_share`` is the share of the units in the localisation network's last hidden layer that are 0 for every image,
    in all of its views: where all are, theta is one and the same. Not known of a compiled network.
    ``gradient_ratio`` is the gradient of the localisation network over that of the classifier in training, each as a
    root mean square over parameters and steps. ``accuracy_identity`` and ``accuracy_mean`` are the network's with this
    transformer's parameters replaced by the identity's and by their mean over the images, after the last epoch alone;
    with ``_all_`` those of all transformers are replaced at once. ``verdict`` says it in a word. None in records of
    older versions, for controls, which learn nothing, and where the number is not known.
    """

    place: int
    theta_mean: tuple[float, ...]
    theta_std: tuple[float, ...]
    outside_share: float
    identity_distance: float
    determinant_mean: float
    branch: int = 1
    theta_error: float | None = None
    theta_error_far_share: float | None = None
    theta_error_identity: float | None = None
    theta_error_identity_far_share: float | None = None
    movement: float | None = None
    movement_spread: float | None = None
    singular_max_mean: float | None = None
    singular_min_mean: float | None = None
    lost_share: float | None = None
    finite_share: float = 1.0
    dead_share: float | None = None
    gradient_ratio: float | None = None
    accuracy_identity: float | None = None
    accuracy_mean: float | None = None
    accuracy_all_identity: float | None = None
    accuracy_all_mean: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord(Strict):
    """One epoch of training; ``step`` counts optimiser steps from the start. Never a test score."""

    epoch: int
    step: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    train_duration_s: float
    evaluate_duration_s: float
    health: tuple[TransformerHealth, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The worst of its transformers; None without one that was judged."""
        return worst(health.verdict for health in self.health)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredImages(Strict):
    """Which images a score is of, in the order of its predictions: trials scored on equal ones can be paired by image.

    ``tracks`` is one number a track (images of a track are near copies), empty where tracks are unknown. ``rows`` are
    the places of the images in their half of the data set, empty where they are all of it.
    """

    labels: tuple[int, ...]
    tracks: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitScore(Strict):
    """The score of the last epoch's network on one split, with the predicted label of every image, in file order.

    ``scored`` says which images these are; None in results of older versions, and where the store keeps it by itself.
    ``metrics`` (``spec/metrics.py``) are by the keys of their stored values; none in results of older versions.
    """

    split: Split
    images: int
    correct: int
    loss: float
    predictions: tuple[int, ...]
    scored: ScoredImages | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly, in [0, 1]."""
        return self.correct / self.images


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost(Strict):
    """What a network costs, known before it runs.

    ``flops`` counts two for each multiply-add of one image's forward pass; ``activation_bytes`` is the float32 memory
    of all layer outputs of one image.
    """

    parameters: int
    flops: int
    activation_bytes: int


def show_digests(digests: Mapping[str, str]) -> str:
    """Digests by half of a data set as text: ``train abcd, test ef01``; ``read_digests`` takes it back."""
    return ", ".join(f"{half} {digest}" for half, digest in digests.items())


def read_digests(text: str) -> dict[str, str]:
    """Digests by half (``train``, ``test``) from the text that results record; empty where it says none."""
    return dict(re.findall(r"\b(train|test) (\w+)", text))


def other_half(recorded: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Return the half of a data set whose images are others than those that a result recorded; None where none is.

    Nothing can be said of a half that is not found, or was not recorded.
    """
    return next((half for half, digest in recorded.items() if found.get(half, digest) != digest), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment(Strict):
    """What a result was made with; recorded beside it and never part of its identity.

    ``dataset_digest`` says which images were read, as ``show_digests`` writes it; ``digests`` is the mapping.

    ``micro_batches`` is in how many parts each batch was computed, above 1 where memory was short.
    ``compute`` names the options of ``spec/trial.py`` that were on, ``driver`` is the version of a GPU's driver, and
    ``numerics`` says what rounded products and whether the same run would give the same bits; empty in older results.
    """

    commit: str
    dirty: bool
    python: str
    platform: str
    host: str
    device: str
    threads: int
    versions: tuple[tuple[str, str], ...]
    dataset_digest: str
    micro_batches: int = 1
    compute: str = ""
    driver: str = ""
    numerics: str = ""

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each half of the data set that was read; empty in records that do not tell."""
        return read_digests(self.dataset_digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult(Strict):
    """Everything a finished attempt reports, as written to its ``result.json``.

    ``token`` names the attempt: a result is accepted for the attempt that made it. ``test`` is None where no test
    images were there to score.
    """

    trial_id: str
    token: str
    epochs: tuple[EpochRecord, ...]
    validation: SplitScore
    test: SplitScore | None
    cost: Cost
    environment: Environment
    train_duration_s: float
    peak_memory_mib: float


# When a spatial transformer is healthy: the verdict on what it did to the validation images, pure.


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
