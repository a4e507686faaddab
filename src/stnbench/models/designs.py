"""Designs of the networks as data: one function for each network in the registry."""

from dataclasses import dataclass
from typing import Final, Literal

from stnbench.spec.network import (
    NETWORKS,
    CnnSpec,
    ContrastiveKernel,
    FcnSpec,
    IdsiaSpec,
    LecunSpec,
    ModernSpec,
    NetworkSpec,
    PoojahiraSpec,
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
