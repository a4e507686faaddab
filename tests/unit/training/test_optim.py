"""Parameter groups have rates of their own, and schedules are pure functions of the step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stnbench.spec.trial import ConstantScheduleSpec, OneCycleScheduleSpec, SgdSpec
from stnbench.training.optim import build_optimizer, learning_rate_at, set_learning_rate


def ones(count: int) -> nn.Parameter:
    """A parameter of ones whose gradient is one."""
    parameter = nn.Parameter(torch.ones(count))
    parameter.grad = torch.ones(count)
    return parameter


def test_localisation_networks_learn_at_their_multiple_of_the_rate() -> None:
    """One step at 0.1 moves the classifier by 0.1 and the localisation network by a tenth of it."""
    classifier, localization = ones(3), ones(2)
    spec = SgdSpec(learning_rate=0.5, locnet_learning_rate_factor=0.1)
    optimizer = build_optimizer(spec, classifier=[classifier], localization=[localization])
    set_learning_rate(optimizer, 0.1)
    optimizer.step()
    assert classifier.tolist() == pytest.approx([0.9] * 3)
    assert localization.tolist() == pytest.approx([0.99] * 2)


def test_without_localisation_networks_there_is_one_group() -> None:
    """A twin without transformers has nothing to put into the second group."""
    optimizer = build_optimizer(SgdSpec(), classifier=[ones(1)], localization=[])
    assert len(optimizer.param_groups) == 1


def test_the_settings_reach_the_optimiser() -> None:
    """Momentum, decay and Nesterov are those of the specification."""
    spec = SgdSpec(learning_rate=0.2, momentum=0.9, weight_decay=1e-3, nesterov=True)
    group = build_optimizer(spec, classifier=[ones(1)], localization=[]).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.2, 0.9, 1e-3, True)


def test_dampened_momentum_is_that_of_torch7() -> None:
    """Three steps by hand, with gradients 1, 1 and -2 at a rate of 0.1.

    torch7's optim.sgd copies the first gradient, then keeps 0.9 of what it has and adds 0.1 of the gradient: 1, 1, 0.7.
    Undampened momentum adds all of it: 1, 1.9, -0.29.
    """
    weights = {}
    for name, dampening in (("torch7", 0.9), ("plain", 0.0)):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        spec = SgdSpec(learning_rate=0.1, momentum=0.9, dampening=dampening)
        optimizer = build_optimizer(spec, classifier=[weight], localization=[])
        seen = []
        for gradient in (1.0, 1.0, -2.0):
            weight.grad = torch.tensor([gradient], dtype=torch.float64)
            optimizer.step()
            seen.append(weight.item())
        weights[name] = seen
    assert weights["torch7"] == pytest.approx([-0.1, -0.2, -0.27])
    assert weights["plain"] == pytest.approx([-0.1, -0.29, -0.261])


@given(step=st.integers(0, 999))
def test_a_constant_rate_never_changes(step: int) -> None:
    """As in 2015."""
    assert learning_rate_at(ConstantScheduleSpec(), peak=0.01, step=step, steps=1000) == 0.01


@given(steps=st.integers(1, 2000), share=st.floats(0.01, 0.99), data=st.data())
def test_one_cycle_stays_between_zero_and_the_peak(steps: int, share: float, data: st.DataObject) -> None:
    """No step is taken above the peak, and none at zero or below."""
    step = data.draw(st.integers(0, steps - 1))
    rate = learning_rate_at(OneCycleScheduleSpec(warmup_share=share), peak=0.5, step=step, steps=steps)
    assert 0 < rate <= 0.5


def test_one_cycle_rises_to_its_peak_and_falls() -> None:
    """1/25 at the start, the peak after the warm-up, half of it midway down, nearly nothing at the end."""
    rates = [
        learning_rate_at(OneCycleScheduleSpec(warmup_share=0.3), peak=1.0, step=s, steps=1000) for s in range(1000)
    ]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[300] == max(rates) == pytest.approx(1.0)
    assert rates[650] == pytest.approx(0.5)
    assert rates[-1] < 1e-5
    assert rates[:301] == sorted(rates[:301])
    assert rates[300:] == sorted(rates[300:], reverse=True)
