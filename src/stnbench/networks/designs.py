"""The networks of 2015 as data: one function and one registry line each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stnbench.spec.network import IdsiaSpec, LecunSpec, NetworkSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class StageDesign:
    """One convolution stage: conv ``kernel`` x ``kernel``, max-pool 2, ReLU and, if asked for, contrastive norm.

    ``keeps_input`` joins a pooled copy of the stage's input behind its output, by channel.
    """

    channels: int
    kernel: int
    padding: int = 2
    contrastive_norm: bool = True
    keeps_input: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkDesign:
    """Convolution stages, then one hidden layer of ``hidden`` units."""

    stages: tuple[StageDesign, ...]
    hidden: int


def lecun(spec: LecunSpec) -> NetworkDesign:
    """Two stages of conv 5x5 (Sermanet & LeCun 2011); multi-scale keeps the second stage's input."""
    first, second, hidden = spec.sizes
    norm = spec.contrastive_norm
    stages = (
        StageDesign(channels=first, kernel=5, contrastive_norm=norm),
        StageDesign(channels=second, kernel=5, contrastive_norm=norm, keeps_input=spec.multi_scale),
    )
    return NetworkDesign(stages=stages, hidden=hidden)


def idsia(spec: IdsiaSpec) -> NetworkDesign:
    """Three stages of conv 7x7, 4x4 and 4x4 (Ciresan et al. 2012)."""
    *channels, hidden = spec.sizes
    stages = tuple(
        StageDesign(channels=count, kernel=kernel, contrastive_norm=spec.contrastive_norm)
        for count, kernel in zip(channels, (7, 4, 4), strict=True)
    )
    return NetworkDesign(stages=stages, hidden=hidden)


_DESIGNS: Final[Mapping[type, Callable[[Any], NetworkDesign]]] = {LecunSpec: lecun, IdsiaSpec: idsia}


def design_network(spec: NetworkSpec) -> NetworkDesign:
    """The design of a specified network."""
    return _DESIGNS[type(spec)](spec)
