"""The health of a network's transformers after an epoch, with the verdict on each."""

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from stnbench.data.resident import DeviceImages
from stnbench.models.learners import Key, learning_transformers
from stnbench.models.scored_network import Model
from stnbench.spec.health import judge
from stnbench.spec.result import TransformerHealth
from stnbench.training.ablation import ReplacedAccuracy, replaced_accuracies
from stnbench.training.evaluate import Evaluation


def diagnose(
    model: Model,
    images: DeviceImages,
    rows: Tensor,
    evaluation: Evaluation,
    gradient_ratios: Mapping[Key, float | None],
    *,
    is_last: bool,
) -> tuple[TransformerHealth, ...]:
    """The health in the evaluation, completed and judged; controls, which learn nothing, are not judged.

    Args:
        model: the network with its preprocessing.
        images: the images.
        rows: int64 (m,), those that were evaluated.
        evaluation: what was found.
        gradient_ratios: of the epoch's training, by transformer.
        is_last: whether this is the last epoch: theta is replaced then, which takes two more passes at least.
    """
    learners = learning_transformers(model.network)
    if not learners:
        return evaluation.health
    replaced = replaced_accuracies(model, images, rows, evaluation) if is_last else {}
    chance = float(images.labels[rows].bincount().max()) / len(rows)
    healths = []
    for health in evaluation.health:
        key = (health.place, health.branch)
        if key in learners:
            known = dataclasses.replace(health, gradient_ratio=gradient_ratios.get(key))
            known = _with_accuracies(known, replaced.get(key))
            verdict = judge(known, accuracy=evaluation.accuracy, chance=chance, images=len(rows))
            healths.append(dataclasses.replace(known, verdict=verdict))
        else:
            healths.append(health)
    return tuple(healths)


def _with_accuracies(health: TransformerHealth, replaced: ReplacedAccuracy | None) -> TransformerHealth:
    if replaced is None:
        return health
    return dataclasses.replace(
        health,
        accuracy_identity=replaced.identity,
        accuracy_mean=replaced.mean,
        accuracy_all_identity=replaced.all_identity,
        accuracy_all_mean=replaced.all_mean,
    )
