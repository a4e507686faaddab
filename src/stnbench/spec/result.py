"""Results of trials: scores, epochs, health, cost, environment and failures."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from stnbench.spec.codec import Strict
from stnbench.spec.data import Split
from stnbench.spec.trial import TrialSpec

# The states of trials and attempts.


class TrialState(StrEnum):
    """State of a trial, as given by its attempts."""

    PLANNED = "planned"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    PRUNED = "pruned"

    @property
    def is_final(self) -> bool:
        """Return whether no further attempt follows unless a user asks for one."""
        return self in {TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED}


class AttemptState(StrEnum):
    """State of one execution of a trial.

    ``lost``: its process died or stopped responding without a report. ``stopped``: a user or a budget ended the sweep.
    """

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    PRUNED = "pruned"
    LOST = "lost"
    STOPPED = "stopped"


# Verdicts on spatial transformers.


class Verdict(StrEnum):
    """Verdict on a spatial transformer, from good to bad; ``spec/result.py`` defines when each is given.

    ``healthy``: it transforms images differently, and that helps. ``unhelpful``: it transforms them differently, and no
    benefit is measurable. ``identity``: it does nothing. ``constant``: it does the same to every image. ``collapsed``:
    it shows the classifier almost nothing of the image. ``diverged``: its output is not finite.
    """

    HEALTHY = "healthy"
    UNHELPFUL = "unhelpful"
    IDENTITY = "identity"
    CONSTANT = "constant"
    COLLAPSED = "collapsed"
    DIVERGED = "diverged"

    @property
    def severity(self) -> int:
        """Return the severity from 0 for healthy to 5 for diverged, for plots and tables that need numbers."""
        return list(Verdict).index(self)


def worst(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """Return the worst of several verdicts, or None if there is none, as without a transformer that learns."""
    return max((verdict for verdict in verdicts if verdict is not None), key=lambda it: it.severity, default=None)


class FailureKind(StrEnum):
    """Reason why an attempt did not finish; each kind has a retry policy (``orchestration/messages.py``)."""

    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    KILLED = "killed"
    DEVICE = "device"
    NO_DEVICE = "no_device"
    DATA = "data"
    HUNG = "hung"
    INFRASTRUCTURE = "infrastructure"
    INVALID = "invalid"
    BUG = "bug"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure(Strict):
    """Failure of an attempt.

    ``traceback`` is empty if the process died without a report; ``last_output`` then holds the end of its log.
    """

    kind: FailureKind
    message: str
    traceback: str = ""
    last_output: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerHealth(Strict):
    """Effect of one spatial transformer, the ``branch``-th at its ``place``, on the images of a split after one epoch.

    ``theta_mean`` and ``theta_std`` are over images, of the six numbers [a, b, tx, c, d, ty] of the output-to-input
    matrix, row by row. ``outside_share`` is the share of sampling points outside the image, ``identity_distance`` the
    root mean square over images and the six numbers of theta less the identity, ``determinant_mean`` the mean
    determinant of the 2 x 2 part (the area read, over the area written).

    ``theta_error`` is the distance of the sign from its usual place in the output, in half sides of the sign: the mean
    over images, each clipped at 2, relative to the transformer's best constant pose. ``theta_error_far_share`` is the
    share of images whose error is above 1. ``theta_error_identity`` and its share are those of the unchanged images,
    and of any transformer that does the same to all of them (``diagnostics/pose.py``). None if the poses are unknown or
    the error is undefined.

    ``movement`` is the root mean square distance of nine sampling points (corners, middles of edges, centre) from the
    identity's, and ``movement_spread`` that from their own mean over images, both in half sides of the image and exact
    for every family. ``singular_max_mean`` and ``singular_min_mean`` are of theta's 2 x 2 part, ``lost_share`` is the
    share of images of which the classifier can see little (``judge``). All are over the images for which theta and
    these points are finite; ``finite_share`` is their share, and if it is 0, so are all others.

    ``dead_share`` is the share of the units in the localisation network's last hidden layer that are 0 for every image,
    in all of its views: if all are, theta is constant. It is unknown for a compiled network. ``gradient_ratio`` is the
    gradient of the localisation network divided by that of the classifier in training, each as a root mean square over
    parameters and steps. ``accuracy_identity`` and ``accuracy_mean`` are the accuracies of the network with this
    transformer's parameters replaced by the identity's and by their mean over the images, measured only after the last
    epoch; with ``_all_`` those of all transformers are replaced at once. ``verdict`` summarises the record. Values are
    None in records of older versions, for controls, which learn nothing, and if they are unknown.
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
    """Record of one epoch of training; ``step`` counts optimiser steps from the start. It holds no test score.

    ``metrics`` (``spec/metrics.py``) are of the validation images, by the keys of their stored values.
    """

    epoch: int
    step: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    train_duration_s: float
    evaluate_duration_s: float
    health: tuple[TransformerHealth, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict | None:
        """Return the worst verdict on a transformer, or None if none was judged."""
        return worst(health.verdict for health in self.health)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredImages(Strict):
    """Images of a score, in the order of its predictions; trials scored on equal images can be paired by image.

    ``labels`` are the true labels. ``tracks`` holds the number of each image's track (images of a track are nearly
    equal), and is empty if tracks are unknown. ``rows`` are the indices of the images in their half of the data set,
    and empty if they are all of it.
    """

    labels: tuple[int, ...]
    tracks: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitScore(Strict):
    """Score of the last epoch's network on one split, with the predicted label of every image in file order.

    ``scored`` identifies the images; it is None in results of older versions, and in scores from the store, which keeps
    it separately. ``metrics`` (``spec/metrics.py``) are by the keys of their stored values; empty in results of older
    versions.
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
        """Return the share of images classified correctly, in [0, 1]."""
        return self.correct / self.images


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost(Strict):
    """Cost of a network, known before it runs.

    ``flops`` is the number of floating-point operations of one image's forward pass, two for each multiply-add;
    ``activation_bytes`` is the float32 memory of all layer outputs of one image.
    """

    parameters: int
    flops: int
    activation_bytes: int


def show_digests(digests: Mapping[str, str]) -> str:
    """Return the digests of a data set's halves as text, ``train abcd, test ef01``; ``read_digests`` reads it."""
    return ", ".join(f"{half} {digest}" for half, digest in digests.items())


def read_digests(text: str) -> dict[str, str]:
    """Return the digests by half (``train``, ``test``) from the text of ``show_digests``; empty if it has none."""
    return dict(re.findall(r"\b(train|test) (\w+)", text))


def other_half(recorded: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Return the half of a data set whose images differ from those recorded by a result, or None if neither does.

    A half that is not found, or was not recorded, is not compared.
    """
    return next((half for half, digest in recorded.items() if found.get(half, digest) != digest), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment(Strict):
    """Environment in which a result was made; recorded with it and never part of its identity.

    ``dataset_digest`` identifies the images that were read, in the format of ``show_digests``; ``digests`` is the
    mapping. ``micro_batches`` is the number of parts in which each batch was computed, above 1 if memory was short.
    ``compute`` names the enabled options of ``ComputeOptions``, ``driver`` is the version of the GPU's driver, and
    ``numerics`` describes the rounding of products and whether the same run would give the same bits; empty in older
    results.
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
        """Return the digest of each half of the data set that was read; empty if it was not recorded."""
        return read_digests(self.dataset_digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult(Strict):
    """Report of a finished attempt, as written to its ``result.json``.

    ``token`` identifies the attempt: a result is only accepted for the attempt that made it. ``test`` is None if there
    were no test images to score.
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


# Verdicts on spatial transformers by their effect on the validation images.


NEGLIGIBLE_MOVEMENT: Final = 0.02
"""In half sides of the image: half a pixel of 48, less than the blur of bilinear sampling."""

SMALLEST_AREA: Final = 0.05
"""Lower limit of |det|: an image is lost if less than a twentieth of it is read (11 x 11 of 48 x 48 pixels)."""

LARGEST_AREA: Final = 4.0
"""Upper limit of |det|: an image is lost if it is shrunk to less than half its sides, a quarter of the output."""

LOST_OUTSIDE: Final = 0.75
"""An image is lost if more than this share of sampling points lies outside it, the share at the largest area."""

LOST_SHARE: Final = 0.25
"""Share of images: on distorted digits, transformers that learnt had lost up to 0.19, collapsed ones at least 0.41."""

MOST_OUTSIDE: Final = 0.5
"""Share of the sampling points of all images."""

FAR_MOVEMENT: Final = 1.0
"""In half sides: a quarter turn moves sampling points by 1.15; networks at the start of training move them less."""

CHANCE_FACTOR: Final = 1.5
"""A classifier below this multiple of the accuracy of a constant answer has not learnt, or has forgotten."""


HELP_Z: Final = 2.0
"""Number of standard errors by which accuracy must exceed that of constant parameters to count as better."""


def judge(health: TransformerHealth, *, accuracy: float, chance: float, images: int) -> Verdict | None:
    """Return the verdict on one transformer after one epoch, or None if the record does not determine it.

    The first condition that holds decides. ``diverged``: theta or a sampling point of any image is not finite.
    ``collapsed``: more than ``MOST_OUTSIDE`` of the sampling points lie outside the image, or more than ``LOST_SHARE``
    of the images are lost (|det| outside ``SMALLEST_AREA`` to ``LARGEST_AREA``, or more than ``LOST_OUTSIDE`` of the
    sampling points outside), or the network is at chance with sampling points far from the identity's. ``identity``:
    sampling points are at most negligibly moved. ``constant``: they are moved, with negligible differences between
    images. ``healthy``: they differ, and that helps (``helps``). ``unhelpful``: they differ, and no benefit is
    measurable. Whether it helps is known after the last epoch, when parameters are replaced; before that, a transformer
    that transforms images differently has no verdict.

    Args:
        health: effect of the transformer; its ``verdict`` is ignored.
        accuracy: accuracy of the network on the same images, in [0, 1].
        chance: accuracy on them of always predicting their most frequent class, in [0, 1].
        images: number of images.
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
    """Check whether transforming every image differently helps; None if parameters were not replaced.

    It helps if the accuracy exceeds those with the transformer's parameters replaced by their mean and by the
    identity's by at least ``HELP_Z`` standard errors of a paired difference (McNemar 1947). The standard error is the
    largest possible one, for errors on disjoint images. If the poses are known, signs must also vary less in the output
    than in the images (theta error below that of the identity), because a classifier that has merely adapted to a
    transformer loses accuracy without it as well.

    Args:
        health: effect of the transformer.
        accuracy: accuracy of the network on the same images, in [0, 1].
        images: number of images.
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
    """Return the verdict on an attempt so far: that of its last epoch, or ``diverged`` if it failed by diverging.

    The result is None without a transformer that learns, and before the end of the first epoch.
    """
    if (
        failure is not None
        and failure.kind is FailureKind.DIVERGED
        and not all(placed.transformer.is_control for placed in spec.transformers)
    ):
        return Verdict.DIVERGED
    return epochs[-1].verdict if epochs else None
