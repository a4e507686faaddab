"""Designs of the networks as data: one function for each network in the registry."""

import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula
from torchvision.ops import deform_conv2d

from stnbench.core.errors import InfeasibleError, SpecError, UnknownNameError
from stnbench.nn.layers import full_precision
from stnbench.spec.network import (
    NETWORKS,
    CnnSpec,
    ContrastiveKernel,
    DeformableSpec,
    FcnSpec,
    IdsiaSpec,
    LecunSpec,
    ModernSpec,
    NetworkSpec,
    PoojahiraSpec,
    TimmSpec,
    TorchvisionSpec,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conv:
    """Convolution ``kernel`` x ``kernel`` of stride 1."""

    channels: int
    kernel: int
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """Linear layer from all numbers of the map to ``units`` numbers, a map of 1 x 1 pixels."""

    units: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxPool:
    """Max-pooling 2 x 2 of stride 2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalAverage:
    """Average of every channel over the map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    """ReLU, or leaky ReLU with a slope of 0.01."""

    function: Literal["relu", "leaky_relu"] = "relu"


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchNorm:
    """Batch normalisation of every channel, with a learned scale and shift."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrastive:
    """Contrastive normalisation over all channels together."""

    kernel: ContrastiveKernel


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelDropout:
    """Dropout of ``share`` of the channels of every image in training; the others grow to match."""

    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnLayers:
    """All layers of a stage (from 1) of a network that makes its modules itself: a backbone or a third-party one."""

    network: NetworkSpec
    stage: int


LayerDesign = OwnLayers | Conv | Dense | MaxPool | GlobalAverage | Activation | BatchNorm | Contrastive | ChannelDropout


@dataclass(frozen=True, kw_only=True, slots=True)
class StageDesign:
    """Layers before which a transformer may stand.

    Attributes:
        layers: the layers in order.
        keeps_input: whether a pooled copy of the stage's input follows its output, as further channels.
    """

    layers: tuple[LayerDesign, ...]
    keeps_input: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkDesign:
    """Stages, then hidden layers; the logits, a linear function of their whole output, are implied."""

    stages: tuple[StageDesign, ...]
    hidden: tuple[LayerDesign, ...] = ()


_NORMED: Final = (BatchNorm(), Activation())


def lecun(spec: LecunSpec) -> NetworkDesign:
    """Return two stages of conv 5x5 (Sermanet & LeCun 2011); multi-scale keeps the second stage's input."""
    first, second, hidden = spec.sizes
    stages = (
        StageDesign(layers=_stage_2015(first, 5, spec)),
        StageDesign(layers=_stage_2015(second, 5, spec), keeps_input=spec.multi_scale),
    )
    return NetworkDesign(stages=stages, hidden=_dense(hidden))


def idsia(spec: IdsiaSpec) -> NetworkDesign:
    """Return three stages of conv 7x7, 4x4 and 4x4 (Ciresan et al. 2012)."""
    *channels, hidden = spec.sizes
    stages = tuple(
        StageDesign(layers=_stage_2015(count, kernel, spec)) for count, kernel in zip(channels, (7, 4, 4), strict=True)
    )
    return NetworkDesign(stages=stages, hidden=_dense(hidden))


def fcn(spec: FcnSpec) -> NetworkDesign:
    """Return two hidden layers, the first of them as the stage (Jaderberg et al. 2015)."""
    first, second = spec.sizes
    return NetworkDesign(stages=(StageDesign(layers=_dense(first)),), hidden=_dense(second))


def cnn(spec: CnnSpec) -> NetworkDesign:
    """Return two stages of conv 9x9 and 7x7, and no hidden layer (Jaderberg et al. 2015)."""
    return NetworkDesign(
        stages=tuple(
            StageDesign(layers=(Conv(channels=count, kernel=kernel), MaxPool(), Activation()))
            for count, kernel in zip(spec.sizes, (9, 7), strict=True)
        )
    )


def poojahira(spec: PoojahiraSpec) -> NetworkDesign:
    """Return three stages of conv 5x5, 3x3 and 3x3 with batch norm behind the activation (poojahira/gtsrb-pytorch)."""
    *channels, hidden = spec.sizes
    dropout = _dropout(spec.dropout)
    stages = tuple(
        StageDesign(
            layers=(
                Conv(channels=count, kernel=kernel),
                MaxPool(),
                Activation(function="leaky_relu"),
                BatchNorm(),
                *dropout,
            )
        )
        for count, kernel in zip(channels, (5, 3, 3), strict=True)
    )
    return NetworkDesign(stages=stages, hidden=(*_dense(hidden), *dropout))


def modern(spec: ModernSpec) -> NetworkDesign:
    """Return stages of conv 3x3 with batch norm before the activation.

    Pooling stands right behind the first convolution of a stage (as in Keller Jordan's airbench), which leaves the
    other layers a quarter of the work.
    """
    average = (GlobalAverage(),) if spec.global_average else ()
    stages = tuple(
        StageDesign(
            layers=(
                *_conv3(count),
                MaxPool(),
                *_NORMED,
                *((*_conv3(count), *_NORMED) * (spec.convs_per_stage - 1)),
            )
        )
        for count in spec.sizes
    )
    return NetworkDesign(stages=stages, hidden=(*average, *_dropout(spec.dropout)))


def design_network(spec: NetworkSpec) -> NetworkDesign:
    """Return the design of a specified network.

    Raises:
        UnknownNameError: for a network that is not registered.
    """
    made = NETWORKS.implementation(spec.kind)(spec)
    if isinstance(made, NetworkDesign):
        return made
    stages = range(1, spec.stages + 1)
    return NetworkDesign(stages=tuple(StageDesign(layers=(OwnLayers(network=spec, stage=stage),)) for stage in stages))


def _stage_2015(channels: int, kernel: int, spec: LecunSpec | IdsiaSpec) -> tuple[LayerDesign, ...]:
    """Return conv, max-pool, ReLU and, if specified, contrastive norm.

    The code of 2015 pools after ReLU: the same numbers and gradients, with four times the work.
    """
    norm = (Contrastive(kernel=spec.contrastive_kernel),) if spec.contrastive_norm else ()
    return (Conv(channels=channels, kernel=kernel, padding=2), MaxPool(), Activation(), *norm)


def _conv3(channels: int) -> tuple[LayerDesign, ...]:
    """Return a convolution that a batch norm follows, whose shift takes the place of a bias."""
    return (Conv(channels=channels, kernel=3, padding=1, bias=False),)


def _dense(units: int) -> tuple[LayerDesign, ...]:
    return (Dense(units=units), Activation())


def _dropout(share: float) -> tuple[LayerDesign, ...]:
    return (ChannelDropout(share=share),) if share > 0 else ()


# Networks that make their modules themselves: backbones of timm and torchvision, and deformable convolutions.
#
# The logits are a linear layer behind the last stage.


_LAST_LAYERS: Final = ("fc", "classifier", "heads", "head")
"""Names of the classifier layer in torchvision's networks."""

_COLOURS: Final = 3


class Timm:
    """Backbone of timm without its classifier; it returns features of an image."""

    def __init__(self, spec: TimmSpec) -> None:
        self._spec = spec

    def stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return the backbone for images of a size in pixels, with drawn weights.

        Raises:
            SpecError: where timm is not installed.
            UnknownNameError: for a name that timm does not have.
        """
        del number
        return self._made(channels, height, width, pretrained=False)

    def initial_stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return the backbone with the weights that training starts from.

        Raises:
            SpecError: where timm is not installed.
            UnknownNameError: for a name that timm does not have.
        """
        del number
        return self._made(channels, height, width, pretrained=self._spec.pretrained)

    def _made(self, channels: int, height: int, width: int, *, pretrained: bool) -> nn.Module:
        timm, name = _timm(), self._spec.name
        if not timm.is_model(name):
            raise UnknownNameError("network.name", name, timm.list_models(), where="timm")
        known = timm.get_pretrained_cfg(name)
        sized = {"img_size": (height, width)} if known is not None and known.fixed_input_size else {}
        made: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=0, **sized)
        return made


def _timm() -> ModuleType:
    if importlib.util.find_spec("timm") is None:
        problem = "network=timm needs the package timm, which is not installed"
        raise SpecError(problem, remedy="pip install 'stnbench[timm]'")
    return importlib.import_module("timm")


class Torchvision:
    """Classifier of torchvision without its last layers."""

    def __init__(self, spec: TorchvisionSpec) -> None:
        self._spec = spec

    def stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return the backbone for images of a size in pixels, with drawn weights.

        Raises:
            UnknownNameError: for a name that torchvision does not have.
            InfeasibleError: for images that do not have three channels.
        """
        del number, width
        return self._made(channels, height, pretrained=False)

    def initial_stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return the backbone with the weights that training starts from.

        Raises:
            UnknownNameError: for a name that torchvision does not have.
            InfeasibleError: for images that do not have three channels.
        """
        del number, width
        return self._made(channels, height, pretrained=self._spec.pretrained)

    def _made(self, channels: int, side: int, *, pretrained: bool) -> nn.Module:
        from torchvision import models

        name = self._spec.name
        names = models.list_models(module=models)
        if name not in names:
            raise UnknownNameError("network.name", name, names, where="torchvision")
        if channels != _COLOURS:
            problem = f"{name} of torchvision reads 3 channels, and the images have {channels}"
            remedy = "choose images of three colours, or network=timm, whose models take any number"
            raise InfeasibleError(problem, remedy=remedy)
        options: dict[str, Any] = {"image_size": side} if name.startswith("vit_") else {}
        if name in {"googlenet", "inception_v3"}:
            options |= {"aux_logits": False, "init_weights": True}
        made: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
        for last in (item for item in _LAST_LAYERS if hasattr(made, item)):
            setattr(made, last, nn.Identity())
        return made


class Deformable:
    """Stages of deformable convolutions."""

    def __init__(self, spec: DeformableSpec) -> None:
        self._spec = spec

    def stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return a stage (from 1) for maps of a size, with drawn weights."""
        del height, width
        size = self._spec.sizes[number - 1]
        layers = DeformableConv2d(channels, size, modulated=self._spec.modulated), nn.BatchNorm2d(size), nn.ReLU()
        return nn.Sequential(*layers, nn.MaxPool2d(2))


class DeformableConv2d(nn.Module):
    """Deformable convolution 3x3 with a padding of 1; a new one equals an ordinary convolution of the same weights.

    Args:
        channels: channels of the input.
        outputs: channels of the output.
        modulated: whether each sampled value is multiplied by a learned factor in [0, 2].

    Shape:
        - Input: (batch, channels, height, width).
        - Output: (batch, outputs, height, width), float32.
    """

    def __init__(self, channels: int, outputs: int, *, modulated: bool) -> None:
        super().__init__()
        places = _KERNEL * _KERNEL
        self.conv = nn.Conv2d(channels, outputs, _KERNEL, padding=1, bias=False)
        self.offsets = nn.Conv2d(channels, 2 * places, _KERNEL, padding=1)
        self.factors = nn.Conv2d(channels, places, _KERNEL, padding=1) if modulated else None
        for layer in (self.offsets, self.factors):
            for weight in () if layer is None else layer.parameters():
                nn.init.zeros_(weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the convolved maps."""
        # The kernel exists in float32 alone on a CPU, and offsets are geometry, which stays in float32.
        with full_precision(maps.device.type):
            maps = maps.float()
            factors = None if self.factors is None else 2 * self.factors(maps).sigmoid()
            convolved: Tensor = deform_conv2d(maps, self.offsets(maps), self.conv.weight, padding=1, mask=factors)
        return convolved


_KERNEL: Final = 3


@register_flop_formula(torch.ops.torchvision.deform_conv2d)
def _deformable_flops(
    maps: Sequence[int], weight: Sequence[int], *_: object, out_shape: Sequence[int], **__: object
) -> int:
    """Return the FLOPs, two for a multiply-add; those of interpolation are not counted anywhere."""
    del maps
    return 2 * math.prod(out_shape) * math.prod(weight[1:])
