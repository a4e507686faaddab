"""Parameter groups have rates of their own, and schedules are pure functions of the step."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR

from stnbench.core.errors import InfeasibleError
from stnbench.spec.optimizer import (
    OPTIMIZERS,
    TENSOR_RATES,
    AdamSpec,
    AdamWSpec,
    ConstantScheduleSpec,
    CosineScheduleSpec,
    MuonSpec,
    OneCycleScheduleSpec,
    OptimizerSpec,
    PlateauScheduleSpec,
    RmspropSpec,
    ScheduleSpec,
    SgdSpec,
    StepScheduleSpec,
)
from stnbench.spec.result import EpochRecord
from stnbench.training.optim import (
    StepTime,
    build_optimizer,
    learning_rate_at,
    reads_tensor_rates,
    set_learning_rate,
)


def rate_at(schedule: ScheduleSpec, *, peak: float, step: int, steps: int) -> float:
    """The learning rate of a step of a training of one epoch."""
    return learning_rate_at(schedule, peak=peak, time=StepTime(step=step, steps_per_epoch=steps, epochs=1))


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


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA; that of the lock does")
@pytest.mark.parametrize("spec", [SgdSpec(momentum=0.9), AdamSpec(), AdamWSpec(), RmspropSpec(), MuonSpec()])
def test_on_a_gpu_one_kernel_updates_and_reads_its_rate_there(spec: OptimizerSpec) -> None:
    """Fused, or capturable where there is no fused one; what the registry promises of an optimiser is so."""
    with FakeTensorMode():
        weights = [nn.Parameter(torch.ones(3, 2, device="cuda")) for _ in range(2)]
        optimizer = build_optimizer(spec, classifier=weights[:1], localization=weights[1:])
    assert reads_tensor_rates(optimizer) == OPTIMIZERS.has_trait(spec.kind, TENSOR_RATES) == (spec.kind != "muon")
    on_cpu = build_optimizer(spec, classifier=[ones(3)] if spec.kind != "muon" else [square()], localization=[])
    assert not reads_tensor_rates(on_cpu)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA; that of the lock does")
@pytest.mark.parametrize("spec", [SgdSpec(momentum=0.9), AdamSpec(), AdamWSpec(amsgrad=True), RmspropSpec()])
def test_a_step_of_an_optimiser_on_a_gpu_can_be_captured(spec: OptimizerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch itself refuses to capture a step of Adam or RMSprop that was not said to be captured, fused or not."""
    with FakeTensorMode():
        weights = [nn.Parameter(torch.ones(3, 2, device="cuda")) for _ in range(2)]
        optimizer = build_optimizer(spec, classifier=weights[:1], localization=weights[1:])
    assert OPTIMIZERS.has_trait(spec.kind, TENSOR_RATES)
    capturing = SimpleNamespace(is_capturing=lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda: capturing)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    optimizer.step()  # no weight has a gradient: only torch's check runs


def square() -> nn.Parameter:
    """A matrix, which Muon takes."""
    return nn.Parameter(torch.ones(2, 2))


def test_without_localisation_networks_there_is_one_group() -> None:
    """A baseline without transformers has nothing to put into the second group."""
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
    assert rate_at(ConstantScheduleSpec(), peak=0.01, step=step, steps=1000) == 0.01


@given(steps=st.integers(1, 2000), share=st.floats(0.01, 0.99), data=st.data())
def test_one_cycle_stays_between_zero_and_the_peak(steps: int, share: float, data: st.DataObject) -> None:
    """No step is taken above the peak, and none at zero or below."""
    step = data.draw(st.integers(0, steps - 1))
    rate = rate_at(OneCycleScheduleSpec(warmup_share=share), peak=0.5, step=step, steps=steps)
    assert 0 < rate <= 0.5


def test_one_cycle_rises_to_its_peak_and_falls() -> None:
    """1/25 at the start, the peak after the warm-up, half of it midway down, nearly nothing at the end."""
    rates = [rate_at(OneCycleScheduleSpec(warmup_share=0.3), peak=1.0, step=s, steps=1000) for s in range(1000)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[300] == max(rates) == pytest.approx(1.0)
    assert rates[650] == pytest.approx(0.5)
    assert rates[-1] < 1e-5
    assert rates[:301] == sorted(rates[:301])
    assert rates[300:] == sorted(rates[300:], reverse=True)


def falling(epochs: int) -> list[EpochRecord]:
    """Epochs whose losses rise and fall as those of a hard task do."""
    drawn = torch.rand(epochs, 2, generator=torch.Generator().manual_seed(epochs)).tolist()
    return [
        EpochRecord(
            epoch=epoch + 1,
            step=4 * (epoch + 1),
            train_loss=train,
            validation_loss=validation / (1 + epoch // 7),
            validation_accuracy=0.5,
            learning_rate=0.1,
            train_duration_s=1.0,
            evaluate_duration_s=1.0,
            health=(),
        )
        for epoch, (train, validation) in enumerate(drawn)
    ]


@given(
    factor=st.floats(0.1, 0.9),
    patience=st.integers(0, 4),
    threshold=st.floats(0, 0.3),
    watch=st.sampled_from(["validation", "training"]),
    epochs=st.integers(1, 30),
)
def test_a_plateau_is_torch_s(factor: float, patience: int, threshold: float, watch: Any, epochs: int) -> None:
    """ReduceLROnPlateau, told the losses one by one, has the rates that ours has as a function of all of them."""
    spec = PlateauScheduleSpec(factor=factor, patience_epochs=patience, threshold=threshold, watch=watch)
    optimizer = torch.optim.SGD([ones(1)], lr=1.0)
    reference = ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=threshold, eps=0.0)
    records = falling(epochs)
    for epoch in range(epochs):
        time = StepTime(step=4 * epoch + 3, steps_per_epoch=4, epochs=epochs, records=records[:epoch])
        rate = learning_rate_at(spec, peak=1.0, time=time)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        reference.step(records[epoch].validation_loss if watch == "validation" else records[epoch].train_loss)


def test_a_plateau_without_the_epochs_before_is_a_bug() -> None:
    """No rate is guessed where losses are not known."""
    with pytest.raises(ValueError, match="0 epochs are recorded before epoch 2"):
        learning_rate_at(PlateauScheduleSpec(), peak=1.0, time=StepTime(step=4, steps_per_epoch=4, epochs=2))


@given(every=st.integers(1, 6), factor=st.floats(0.1, 1.0), epochs=st.integers(1, 20))
def test_steps_are_torch_s(every: int, factor: float, epochs: int) -> None:
    """StepLR, told of every epoch."""
    optimizer = torch.optim.SGD([ones(1)], lr=0.5)
    reference = StepLR(optimizer, every, factor)
    for epoch in range(epochs):
        time = StepTime(step=3 * epoch + 2, steps_per_epoch=3, epochs=epochs)
        rate = learning_rate_at(StepScheduleSpec(every_epochs=every, factor=factor), peak=0.5, time=time)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        reference.step()


@given(final=st.floats(0, 1), steps=st.integers(1, 60))
def test_a_cosine_is_torch_s(final: float, steps: int) -> None:
    """CosineAnnealingLR, told of every step."""
    optimizer = torch.optim.SGD([ones(1)], lr=0.5)
    reference = CosineAnnealingLR(optimizer, steps, 0.5 * final)
    for step in range(steps):
        rate = rate_at(CosineScheduleSpec(final_share=final), peak=0.5, step=step, steps=steps)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimizer.step()
        reference.step()


def test_a_warm_up_rises_to_the_schedule_and_leaves_it_alone() -> None:
    """Over one and a half epochs of four steps: sixths of the cosine, and then the cosine."""
    warm, plain = CosineScheduleSpec(warmup_epochs=1.5), CosineScheduleSpec()
    times = [StepTime(step=step, steps_per_epoch=4, epochs=3) for step in range(12)]
    rates, usual = ([learning_rate_at(spec, peak=1.0, time=time) for time in times] for spec in (warm, plain))
    assert [rate / own for rate, own in zip(rates, usual, strict=True)] == pytest.approx(
        [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, *[1.0] * 7]
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_takes_convolutions_as_matrices(layout: torch.memory_format) -> None:
    """Three steps on a convolution are torch's Muon on its weight as a matrix; its bias takes AdamW's."""
    drawn = torch.Generator().manual_seed(1)
    weight = nn.Parameter(torch.randn(6, 3, 5, 5, generator=drawn).to(memory_format=layout))
    bias, last = ones(6), nn.Parameter(torch.randn(4, 6, generator=drawn))
    matrix = nn.Parameter(weight.detach().reshape(6, -1).clone())
    others = [nn.Parameter(item.detach().clone()) for item in (bias, last)]
    spec = MuonSpec(learning_rate=0.02)
    ours = build_optimizer(spec, classifier=[weight, bias, last], localization=[], outputs=[last])
    theirs = [
        torch.optim.Muon([matrix], lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.02, weight_decay=0.01),
    ]
    for _ in range(3):
        ours.zero_grad()
        assert weight.grad is None
        weight.grad = torch.randn(6, 3, 5, 5, generator=drawn).to(memory_format=layout)
        matrix.grad = weight.grad.reshape(6, -1)
        for mine, other in zip((bias, last), others, strict=True):
            mine.grad = torch.randn(mine.shape, generator=drawn)
            other.grad = mine.grad.clone()
        ours.step()
        for optimizer in theirs:
            optimizer.step()
    torch.testing.assert_close(weight.reshape(6, -1), matrix, rtol=0.02, atol=1e-4)  # it multiplies in bfloat16
    assert torch.equal(bias, others[0])
    assert torch.equal(last, others[1])


def test_a_torch_without_muon_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the version that has it, and nothing in its place."""
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InfeasibleError, match=r"needs torch.optim.Muon, which torch .* install torch 2.9"):
        build_optimizer(MuonSpec(), classifier=[ones(1)], localization=[])
