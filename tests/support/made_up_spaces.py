"""Spaces of trials that nobody trains, for tests of planners: accuracies come from a formula."""

import dataclasses
from collections.abc import Sequence
from random import Random

from stnbench.core.identity import derive_seed
from stnbench.spec.planner import FloatSpan, IntSpan
from stnbench.spec.result import TransformerHealth
from stnbench.spec.sweep import Axis
from stnbench.spec.trial import TrialSpec
from stnbench.store.tables import PlannedTrial
from stnbench.testing.search import EPOCHS, MOMENTUM, RATE, WIDTH, MadeUpCompose, Run, Score, bowl, choices, flops_of

__all__ = [
    "DECAY", "EPOCHS", "FACTOR", "MOMENTUM", "RATE", "WIDTH", "MadeUpCompose", "Run", "Score", "bowl", "choices",
    "conditional", "floats", "flops_of", "health", "integers", "labels_of", "noise",
]  # fmt: skip

DECAY = "optimizer.weight_decay"
FACTOR = "optimizer.locnet_learning_rate_factor"


def floats(name: str, low: float, high: float, *, log: bool = False) -> Axis:
    """An axis of a range."""
    return Axis(name=name, span=FloatSpan(low=low, high=high, log=log))


def integers(name: str, low: int, high: int, *, log: bool = False) -> Axis:
    """An axis of a range of whole numbers."""
    return Axis(name=name, span=IntSpan(low=low, high=high, log=log))


def conditional(axis: Axis, name: str, *labels: str) -> Axis:
    """The axis, there only where another one has one of these labels."""
    return dataclasses.replace(axis, when=((name, labels),))


def noise(spec: TrialSpec, *purpose: str | int) -> float:
    """A standard normal number, decided by the configuration, the seed and the purpose."""
    return Random(derive_seed(spec.seed, spec.config_id, *purpose)).gauss(0.0, 1.0)


def health(outside_share: float) -> TransformerHealth:
    """A transformer that samples so much outside the image."""
    return TransformerHealth(
        place=1,
        theta_mean=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        theta_std=(0.0,) * 6,
        outside_share=outside_share,
        identity_distance=0.1,
        determinant_mean=1.0,
    )


def labels_of(trials: Sequence[PlannedTrial]) -> list[str]:
    """The labels of trials, each configuration once, in order."""
    return list(dict.fromkeys(trial.label for trial in trials))
