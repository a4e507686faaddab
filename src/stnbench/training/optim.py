"""Optimisers with a rate of their own for localisation networks."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from stnbench.core.errors import SpecError
from stnbench.spec.optimizer import OPTIMIZERS, OUTPUTS_APART, AdamSpec, AdamWSpec, OptimizerSpec, RmspropSpec, SgdSpec

FACTOR: Final = "learning_rate_factor"
"""The key of a parameter group that holds its multiple of the learning rate."""

OUTPUT: Final = "is_output"
"""The key of a parameter group that says whether it holds last layers: logits, and parameters of transformations.

Groups of optimisers with the trait ``OUTPUTS_APART`` have it.
"""

WAYS: Final = ("fused", "foreach", "capturable")
"""Keys of a parameter group that say how a device computes an update, not which."""

Groups = Sequence[dict[str, Any]]
"""Parameters (``params``) with their multiple of the learning rate (``FACTOR``), as torch's optimisers take them."""


def build_optimizer(
    spec: OptimizerSpec,
    *,
    classifier: Iterable[nn.Parameter],
    localization: Iterable[nn.Parameter],
    outputs: Iterable[nn.Parameter] = (),
) -> Optimizer:
    """Return the optimiser over the parameters of the classifier and those of all localisation networks.

    ``set_learning_rate`` sets the rates before each step. On a GPU one kernel updates all weights where the optimiser
    has such a kernel, and can read its learning rate there (``use_tensor_rates``).

    Args:
        spec: which one.
        classifier: its parameters.
        localization: those of all localisation networks.
        outputs: those of either that belong to last layers: groups of their own for optimisers that ask for it.

    Raises:
        UnknownNameError: for one that is not registered.
        InfeasibleError: for one that this torch does not have.
        SpecError: for one from outside that is no optimiser of torch, or drops what its groups say.
    """
    factors = ((list(classifier), 1.0), (list(localization), spec.locnet_learning_rate_factor))
    groups: list[dict[str, Any]] = [{"params": parameters, FACTOR: factor} for parameters, factor in factors]
    if OPTIMIZERS.has_trait(spec.kind, OUTPUTS_APART):
        last = {id(parameter) for parameter in outputs}
        groups = [part for group in groups for part in _apart(group, last)]
    optimizer = OPTIMIZERS.implementation(spec.kind)([group for group in groups if group["params"]], spec)
    if not isinstance(optimizer, Optimizer):
        problem = f"the optimizer {spec.kind} is {type(optimizer).__name__}"
        raise SpecError(problem, remedy="register a class that extends torch.optim.Optimizer")
    for group in optimizer.param_groups:
        if not {FACTOR, "lr"} <= group.keys():
            remedy = "hand the groups to torch.optim.Optimizer as they come, and lr among the defaults"
            raise SpecError(f"a parameter group of the optimizer {spec.kind} has no {FACTOR} or no lr", remedy=remedy)
    return optimizer


def sgd(groups: Groups, spec: SgdSpec) -> Optimizer:
    """Return torch's SGD."""
    return SGD(
        groups,
        lr=spec.learning_rate,
        momentum=spec.momentum,
        dampening=spec.dampening,
        weight_decay=spec.weight_decay,
        nesterov=spec.nesterov,
        fused=_fused(groups),
    )


def adam(groups: Groups, spec: AdamSpec) -> Optimizer:
    """Return torch's Adam."""
    return Adam(
        groups,
        lr=spec.learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        amsgrad=spec.amsgrad,
        fused=_fused(groups),
    )


def adamw(groups: Groups, spec: AdamWSpec) -> Optimizer:
    """Return torch's AdamW."""
    return AdamW(
        groups,
        lr=spec.learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        amsgrad=spec.amsgrad,
        fused=_fused(groups),
    )


def rmsprop(groups: Groups, spec: RmspropSpec) -> Optimizer:
    """Return torch's RMSprop."""
    return RMSprop(
        groups,
        lr=spec.learning_rate,
        alpha=spec.alpha,
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        momentum=spec.momentum,
        centered=spec.centered,
        capturable=bool(_fused(groups)),  # there is no fused one; this one reads tensor rates as well
    )


def _apart(group: dict[str, Any], last: set[int]) -> Groups:
    """A group as two: hidden layers, and the last ones."""
    parameters = group["params"]
    return [
        {**group, "params": [item for item in parameters if id(item) not in last], OUTPUT: False},
        {**group, "params": [item for item in parameters if id(item) in last], OUTPUT: True},
    ]


def _fused(groups: Groups) -> bool | None:
    """Whether one kernel updates all weights: on a GPU; None leaves it to torch."""
    return True if any(parameter.is_cuda for group in groups for parameter in group["params"]) else None


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Give every group its multiple of the rate."""
    for group, rate in zip(optimizer.param_groups, group_rates(optimizer, learning_rate), strict=True):
        group["lr"] = rate


def group_rates(optimizer: Optimizer, learning_rate: float) -> list[float]:
    """Return the learning rate of every group: its multiple of the rate."""
    return [learning_rate * group[FACTOR] for group in optimizer.param_groups]


def reads_tensor_rates(optimizer: Optimizer) -> bool:
    """Return whether the optimiser takes its learning rates from the device: a fused or capturable one does."""
    return all(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)


def use_tensor_rates(optimizer: Optimizer) -> list[Tensor]:
    """Let an optimiser read its learning rates from tensors, one a group, beside its weights; return those tensors.

    Whoever writes into them sets the rate of the next step, also of one that a CUDA graph replays. Empty where the
    optimiser would ask for their numbers.
    """
    if not reads_tensor_rates(optimizer):
        return []
    rates = []
    for group in optimizer.param_groups:
        group["lr"] = torch.full((), float(group["lr"]), dtype=torch.float32, device=group["params"][0].device)
        rates.append(group["lr"])
    return rates


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return the optimiser's state as torch has it, with learning rates as numbers, for a run on any device."""
    state: dict[str, Any] = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take over a state that a run on any device left; how this device computes an update stays.

    Raises: ValueError or KeyError where it does not fit.
    """
    groups = [
        {**stored, **{way: own[way] for way in WAYS if way in own}}
        for stored, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
