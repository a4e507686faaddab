"""Muon for matrices with AdamW for all other parameters, as one optimiser of torch."""

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from typing_extensions import override

from stnbench.core.errors import InfeasibleError
from stnbench.spec.optimizer import MuonSpec
from stnbench.training.optim import OUTPUT, Groups

_MATRIX_DIMENSIONS = 2


def muon(groups: Groups, spec: MuonSpec) -> Optimizer:
    """Return Muon over the weights of hidden layers, and AdamW over all other parameters.

    Raises:
        InfeasibleError: where this version of torch has no Muon.
    """
    kind = getattr(torch.optim, "Muon", None)
    if kind is None:
        problem = f"optimizer=muon needs torch.optim.Muon, which torch {torch.__version__} does not have"
        raise InfeasibleError(problem, remedy="install torch 2.9 or newer, or choose optimizer=adamw")
    matrices, others = [], []
    for group in groups:
        is_matrix = [not group.get(OUTPUT) and p.ndim >= _MATRIX_DIMENSIONS for p in group["params"]]
        chosen = list(itertools.compress(group["params"], is_matrix))
        left = [parameter for parameter, chosen_ in zip(group["params"], is_matrix, strict=True) if not chosen_]
        matrices += [{**group, "params": chosen}] if chosen else []
        others += [{**group, "params": left}] if left else []
    views = {parameter: _as_matrix(parameter) for group in matrices for parameter in group["params"]}
    parts: list[Optimizer] = []
    if matrices:
        parts.append(
            kind(
                [{**group, "params": [views[parameter] for parameter in group["params"]]} for group in matrices],
                lr=spec.learning_rate,
                weight_decay=spec.weight_decay,
                momentum=spec.momentum,
                nesterov=spec.nesterov,
                ns_steps=spec.newton_schulz_steps,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if others:
        betas = (spec.beta1, spec.beta2)
        decay = spec.weight_decay
        parts.append(AdamW(others, lr=spec.learning_rate, betas=betas, eps=spec.epsilon, weight_decay=decay))
    return JoinedOptimizer(parts, views)


class JoinedOptimizer(Optimizer):
    """Several optimisers as one, whose parameter groups are joined in order.

    Args:
        parts: the optimisers, of different parameters.
        views: parameters that an optimiser sees as another shape of the same memory.
    """

    def __init__(self, parts: list[Optimizer], views: dict[nn.Parameter, nn.Parameter]) -> None:
        self._parts = parts
        self._views = views
        super().__init__([group for part in parts for group in part.param_groups], {})
        # The dictionaries of the parts themselves, so that a rate that is set here is set there.
        self.param_groups = [group for part in parts for group in part.param_groups]

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with every part; ``closure`` is ignored."""
        del closure
        for parameter, view in self._views.items():
            view.grad = None if parameter.grad is None else _rows(parameter.grad, like=parameter)
        for part in self._parts:
            part.step()

    @override
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the parameters and of their views."""
        super().zero_grad(set_to_none)
        for parameter in self._views:
            parameter.grad = None

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the states of all parts as one, with parameters numbered consecutively."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for part in self._parts:
            first = sum(len(group["params"]) for group in groups)
            own = part.state_dict()
            state |= {first + index: kept for index, kept in own["state"].items()}
            numbered = ({**group, "params": [first + n for n in group["params"]]} for group in own["param_groups"])
            groups.extend(numbered)
        return {"state": state, "param_groups": groups}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of every part.

        Raises:
            ValueError: where it does not fit.
        """
        left, first = list(state_dict["param_groups"]), 0
        for part in self._parts:
            own, left = left[: len(part.param_groups)], left[len(part.param_groups) :]
            count = sum(len(group["params"]) for group in part.param_groups)
            numbers = range(first, first + count)
            part.load_state_dict(
                {
                    "state": {n - first: kept for n, kept in state_dict["state"].items() if n in numbers},
                    "param_groups": [{**group, "params": [n - first for n in group["params"]]} for group in own],
                }
            )
            first += count
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """Return the states of all parts, by parameter (or its view)."""
        return defaultdict(dict, {key: kept for part in self._parts for key, kept in part.state.items()})

    @state.setter
    def state(self, value: object) -> None:
        """Ignore the value: torch sets an empty state when an optimiser is made, and the parts keep theirs."""


def _as_matrix(parameter: nn.Parameter) -> nn.Parameter:
    """Return the same memory as a matrix with a row for each output channel."""
    return nn.Parameter(_rows(parameter.detach(), like=parameter))


def _rows(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor as a matrix whose columns lie as those of a weight do; their order changes no step of Muon."""
    if like.is_contiguous():
        return tensor.reshape(len(tensor), -1)
    return tensor.movedim(1, -1).reshape(len(tensor), -1)
