"""Backbones of timm and torchvision, with transformers before the image."""

import importlib.util
from typing import Any

import pytest
import torch
from narrowed import known

from stnbench.core.errors import InfeasibleError, SpecError, UnknownNameError
from stnbench.core.identity import Json
from stnbench.models import designs
from stnbench.models.classifiers import build_network
from stnbench.models.scored_network import measure_cost
from stnbench.spec.codec import from_plain
from stnbench.spec.trial import TrialSpec


def trial(kind: str, name: str, **keys: Any) -> TrialSpec:
    """A trial with a backbone and an affine transformer at the image."""
    plain: dict[str, Json] = {"network": {"kind": kind, "name": name}, "dataset": {"kind": "signs", "image_size": 32}}
    return from_plain(TrialSpec, {**plain, "transformers": [{"place": 1}], **keys}, where="a test")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [("timm", "resnet18"), ("timm", "vit_tiny_patch16_224"), ("torchvision", "resnet18"), ("torchvision", "vit_b_16")],
)
def test_a_backbone_takes_a_step_behind_a_transformer(kind: str, name: str) -> None:
    """Every parameter gets a finite gradient; cost is the module's own; the start is the seed's."""
    spec = trial(kind, name)
    network = build_network(spec, classes=5, seed=1)
    again = build_network(spec, classes=5, seed=1)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.nn.functional.cross_entropy(network.train()(images), torch.tensor([1, 2])).backward()

    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))
    assert measure_cost(spec, classes=5).parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("kind", "meant"), [("timm", "resnet18"), ("torchvision", "resnet18")])
def test_an_unknown_backbone_is_refused_by_name(kind: str, meant: str) -> None:
    """The nearest names are said."""
    with pytest.raises(UnknownNameError, match=f"unknown network.name 'resnet1' in {kind}: did you mean .*{meant}"):
        measure_cost(trial(kind, "resnet1"), classes=5)


def test_without_timm_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing falls back."""
    found = importlib.util.find_spec
    absent = lambda name: None if name == "timm" else found(name)  # noqa: E731 - a stand-in of one line
    monkeypatch.setattr("importlib.util.find_spec", absent)
    with pytest.raises(SpecError, match=r"network=timm needs the package timm, .*pip install 'stnbench\[timm\]'"):
        measure_cost(trial("timm", "resnet26"), classes=5)


def test_images_that_a_backbone_cannot_take_are_infeasible() -> None:
    """Grey images for torchvision; images that its stages pool to nothing."""
    grey = {"kind": "digits", "image_size": 32}
    with pytest.raises(InfeasibleError, match="resnet18 of torchvision reads 3 channels, and the images have 1"):
        measure_cost(trial("torchvision", "resnet18", dataset=grey), classes=5)
    with pytest.raises(InfeasibleError, match="stage 1 of the network torchvision cannot take 3 x 32 x 32 maps"):
        measure_cost(trial("torchvision", "alexnet"), classes=5)


def test_pretrained_weights_are_where_training_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for once, when weights are drawn, and taken; building and measuring ask for none."""
    import timm

    asked, create = [], timm.create_model

    def model(name: str, *, pretrained: bool, **keys: Any) -> torch.nn.Module:
        made = create(name, pretrained=False, **keys)
        asked.append(pretrained)
        if pretrained:
            torch.nn.init.constant_(made.get_parameter("conv1.weight"), 0.25)
        return made

    monkeypatch.setattr(timm, "create_model", model)
    spec = from_plain(TrialSpec, {"network": {"kind": "timm", "name": "resnet18", "pretrained": True}}, where="a test")
    network = build_network(spec, classes=5, seed=1)

    assert asked.count(True) == 1
    assert bool((network.get_parameter("stages.0.layers.0.made.conv1.weight") == 0.25).all())


@pytest.mark.parametrize("modulated", [False, True])
def test_a_deformable_convolution_begins_as_an_ordinary_one(modulated: bool) -> None:
    """Of the same weights; its offsets have a gradient, so that they leave zero, and move what is read."""
    torch.manual_seed(1)
    layer = designs.DeformableConv2d(3, 4, modulated=modulated)
    maps = torch.rand(2, 3, 9, 11)
    expected = torch.nn.functional.conv2d(maps, layer.conv.weight, padding=1)
    torch.testing.assert_close(layer(maps), expected, rtol=0, atol=1e-5)

    layer(maps).square().sum().backward()
    assert layer.offsets.weight.grad is not None
    assert layer.offsets.weight.grad.abs().max() > 0
    torch.nn.init.constant_(known(layer.offsets.bias), 1.0)  # every place reads a pixel further down and to the right
    moved = torch.zeros_like(maps)
    moved[:, :, :-1, :-1] = maps[:, :, 1:, 1:]
    expected = torch.nn.functional.conv2d(moved, layer.conv.weight, padding=1)
    torch.testing.assert_close(layer(maps)[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], rtol=0, atol=1e-5)


def test_a_deformable_convolution_costs_three_ordinary_ones() -> None:
    """FLOPs of the convolution itself, of its offsets and of its factors; parameters are the module's own."""
    network: Json = {"kind": "deformable", "sizes": [5], "modulated": True}
    spec = from_plain(TrialSpec, {"network": network, "dataset": {"kind": "signs", "image_size": 16}}, where="a test")
    cost = measure_cost(spec, classes=2)

    convolutions = 2 * 16 * 16 * 9 * 3 * (5 + 18 + 9)
    assert cost.flops == convolutions + 2 * 2 * 5 * 8 * 8
    assert cost.parameters == sum(weight.numel() for weight in build_network(spec, classes=2, seed=1).parameters())
