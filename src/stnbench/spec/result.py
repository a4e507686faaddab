"""What a trial leaves behind: scores, epochs, health, cost, environment; or a failure."""

from dataclasses import dataclass
from enum import StrEnum

from stnbench.spec.codec import Strict
from stnbench.spec.data import Split


class FailureKind(StrEnum):
    """Why an attempt did not finish; each kind has its own retry policy (``orchestration/policy.py``)."""

    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    KILLED = "killed"
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

    ``theta_error`` says how far theta is from the sign's true pose, and ``theta_error_identity`` what it would be
    without the transformer (``training/pose.py``); None where the poses are not known, or nothing can be said.
    """

    place: int
    theta_mean: tuple[float, ...]
    theta_std: tuple[float, ...]
    outside_share: float
    identity_distance: float
    determinant_mean: float
    branch: int = 1
    theta_error: float | None = None
    theta_error_identity: float | None = None


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


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitScore(Strict):
    """The score of the last epoch's network on one split, with the predicted label of every image, in file order."""

    split: Split
    images: int
    correct: int
    loss: float
    predictions: tuple[int, ...]

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment(Strict):
    """What a result was made with; recorded beside it and never part of its identity.

    ``micro_batches`` is in how many parts each batch was computed, above 1 where memory was short.
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
