"""Stochastic gradient descent with a rate of its own for localisation networks, and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any, Final, assert_never

import torch
from torch import Tensor, nn
from torch.optim import SGD

from stnbench.spec.trial import ConstantScheduleSpec, OneCycleScheduleSpec, ScheduleSpec, SgdSpec

_FACTOR: Final = "learning_rate_factor"
"""The key of a parameter group that holds its multiple of the learning rate."""

_ONE_CYCLE_START: Final = 1 / 25


def build_optimizer(spec: SgdSpec, *, classifier: Iterable[nn.Parameter], localization: Iterable[nn.Parameter]) -> SGD:
    """SGD over the parameters of the classifier and those of all localisation networks.

    ``set_learning_rate`` sets the rates before each step. On a GPU one kernel updates all weights, and can read its
    learning rate there (``use_tensor_rates``).
    """
    classifier = list(classifier)
    groups = [(classifier, 1.0), (list(localization), spec.locnet_learning_rate_factor)]
    return SGD(
        [{"params": parameters, _FACTOR: factor} for parameters, factor in groups if parameters],
        lr=spec.learning_rate,
        momentum=spec.momentum,
        dampening=spec.dampening,
        weight_decay=spec.weight_decay,
        nesterov=spec.nesterov,
        fused=True if any(parameter.is_cuda for parameter in classifier) else None,
    )


def set_learning_rate(optimizer: SGD, learning_rate: float) -> None:
    """Give every group its multiple of the rate."""
    for group, rate in zip(optimizer.param_groups, group_rates(optimizer, learning_rate), strict=True):
        group["lr"] = rate


def group_rates(optimizer: SGD, learning_rate: float) -> list[float]:
    """The learning rate of every group: its multiple of the rate."""
    return [learning_rate * group[_FACTOR] for group in optimizer.param_groups]


def use_tensor_rates(optimizer: SGD) -> list[Tensor]:
    """Let a fused optimiser read its learning rates from tensors, one a group, beside its weights; those tensors.

    Whoever writes into them sets the rate of the next step, also of one that a CUDA graph replays. Empty where the
    optimiser is not fused: it would ask for their numbers.
    """
    if not all(group["fused"] for group in optimizer.param_groups):
        return []
    rates = []
    for group in optimizer.param_groups:
        group["lr"] = torch.full((), float(group["lr"]), dtype=torch.float32, device=group["params"][0].device)
        rates.append(group["lr"])
    return rates


def optimizer_state(optimizer: SGD) -> dict[str, Any]:
    """The optimiser's state as torch has it, with learning rates as numbers: what a run on any device goes on from."""
    state: dict[str, Any] = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def load_optimizer_state(optimizer: SGD, state: dict[str, Any]) -> None:
    """Take over a state that a run on any device left; how this device computes an update stays.

    Raises: ValueError or KeyError where it does not fit.
    """
    ways = [{way: group[way] for way in ("fused", "foreach")} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, way in zip(optimizer.param_groups, ways, strict=True):
        group.update(way)


def learning_rate_at(schedule: ScheduleSpec, *, peak: float, step: int, steps: int) -> float:
    """The learning rate of one optimiser step.

    Args:
        schedule: its shape.
        peak: the optimiser's learning rate, the largest that occurs.
        step: the step, from 0.
        steps: how many steps the whole training has.
    """
    match schedule:
        case ConstantScheduleSpec():
            return peak
        case OneCycleScheduleSpec():
            return peak * _one_cycle(step / steps, schedule.warmup_share)
        case _:
            assert_never(schedule)


def _one_cycle(progress: float, warmup_share: float) -> float:
    """Half a cosine from 1/25 up to 1 over the warm-up, then half a cosine down; progress in [0, 1), and zero at 1.

    Smith 2018, arXiv 1803.09820; the cosines and the start at 1/25 are common practice.
    """
    if progress < warmup_share:
        return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * _rise(progress / warmup_share)
    return 1 - _rise((progress - warmup_share) / (1 - warmup_share))


def _rise(share: float) -> float:
    """From 0 at 0 to 1 at 1 along half a cosine."""
    return (1 - math.cos(math.pi * share)) / 2
