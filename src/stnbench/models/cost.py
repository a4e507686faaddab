"""Cost of a network, known before it runs.

A sweep has a thousand networks, and a second for all of them. Most of their parts are parts of many of them, so a
network's cost is the sum of the costs of its parts: stages, the head, localisation networks, and the transformers of a
place with the smallest localisation network possible are each run once on the meta device, on maps of a size, under
torch's counter of FLOPs. A test compares the sum with whole networks.
"""

import functools
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stnbench.core.errors import InfeasibleError
from stnbench.models.classifiers import build_head, build_stage, feasible, input_map, shared_stages, size_looked_at
from stnbench.models.designs import NetworkDesign, StageDesign, design_network
from stnbench.nn.localization import build_localization
from stnbench.nn.maps import MapSize
from stnbench.nn.spatial_transformer import ParallelTransformers, PlaceOutput, build_spatial_transformer
from stnbench.nn.transforms.registry import build_transformation
from stnbench.spec.result import Cost
from stnbench.spec.transformer import DenseLocnetSpec, LocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec

_FLOAT32_BYTES = 4
_SMALLEST = DenseLocnetSpec(sizes=(1,))


@dataclass(frozen=True, slots=True)
class _Part:
    """Contribution of a part of a network to its cost: parameters, FLOPs, and bytes of activations."""

    parameters: int = 0
    flops: int = 0
    bytes: int = 0

    def __add__(self, other: "_Part") -> "_Part":
        return _Part(self.parameters + other.parameters, self.flops + other.flops, self.bytes + other.bytes)

    def times(self, branches: int, looks: int) -> "_Part":
        """Return the contribution as part of ``branches`` branches with ``looks`` passes each."""
        return _Part(self.parameters * branches, self.flops * branches * looks, self.bytes * branches * looks)


def measure_cost(spec: TrialSpec, *, classes: int) -> Cost:
    """Return the cost of a trial's network for one image, without memory for its weights or its maps.

    FLOPs are those of convolutions and matrix products; interpolation, pooling and ReLU are not counted. Activations
    are in bytes of float32.

    Raises:
        InfeasibleError: where the network cannot be built.
    """
    with feasible(spec), torch.device("meta"), torch.no_grad():
        design, size, total = design_network(spec.network), input_map(spec), _Part()
        placed = {item.place: item for item in spec.transformers}
        for place, stage_design in enumerate(design.stages, start=1):
            if place in placed:
                part, size = _place(design, placed[place], size)
                total += part
            part, size = _stage(stage_design, size)
            total += part
        total += _head(design, size, classes)
    return Cost(parameters=total.parameters, flops=total.flops, activation_bytes=total.bytes)


def _place(design: NetworkDesign, spec: PlacedTransformerSpec, size: MapSize) -> tuple[_Part, MapSize]:
    """Return the cost of everything at a place, and the size of its output."""
    if spec.locnet is None:
        return _transformers(spec, size)
    looked_at = size_looked_at(design, spec, size)
    look, seen = _localization(spec, looked_at), size
    for stage_design in design.stages[spec.place - 1 : spec.place - 1 + shared_stages(spec.locnet)]:
        stage, seen = _stage(stage_design, seen)
        look += replace(stage, parameters=0)  # they are the classifier's
    smallest = replace(spec, locnet=_SMALLEST)
    branches, looks = spec.transformer.branches, spec.transformer.iterations * _copies_of(spec.transformer)
    part, output_size = _transformers(smallest, size)
    return part + look.times(branches, looks) + _localization(smallest, size).times(-branches, looks), output_size


@functools.cache
def _stage(design: StageDesign, size: MapSize) -> tuple[_Part, MapSize]:
    stage = build_stage(design, size)
    return _measure(stage, _maps(size)), stage.output_size


@functools.cache
def _head(design: NetworkDesign, size: MapSize, classes: int) -> _Part:
    return _measure(build_head(design, size, classes=classes), _maps(size))


@functools.cache
def _transformers(spec: PlacedTransformerSpec, size: MapSize) -> tuple[_Part, MapSize]:
    transformers = ParallelTransformers(spec, size, size)
    return _measure(transformers, _maps(size), torch.empty(1, 4)), transformers.output_size


def _localization(spec: PlacedTransformerSpec, looked_at: MapSize) -> _Part:
    """Return the cost of the localisation network of one branch, for one pass; nothing for a control."""
    if spec.locnet is None:
        return _Part()
    try:
        return _measured_localization(spec.locnet, looked_at, _parameters_of(spec.transformer))
    except InfeasibleError:
        build_spatial_transformer(spec, looked_at)  # raises with the place in its message
        raise


@functools.cache
def _measured_localization(locnet: LocnetSpec, looked_at: MapSize, parameters: int) -> _Part:
    return _measure(build_localization(locnet, looked_at, identity=(0.0,) * parameters), _maps(looked_at))


@functools.cache
def _parameters_of(spec: TransformerSpec) -> int:
    """Return the number of values that a localisation network emits for an image, or for each of its copies."""
    return 1 if _copies_of(spec) > 1 else len(build_transformation(spec).identity_parameters())


@functools.cache
def _copies_of(spec: TransformerSpec) -> int:
    """Return the number of copies of an image that a localisation network sees in each pass."""
    orbit = build_transformation(spec).orbit(torch.device("meta"))
    return 1 if orbit is None else orbit.shape[0]


def _maps(size: MapSize) -> Tensor:
    return torch.empty(1, size.channels, size.height, size.width)


def _measure(part: nn.Module, *inputs: Tensor) -> _Part:
    outputs = _OutputBytes()
    with FlopCounterMode(display=False) as counter, outputs.watching(part):
        part.eval()(*inputs)
    parameters = sum(parameter.numel() for parameter in part.parameters())
    return _Part(parameters, counter.get_total_flops(), outputs.total)


class _OutputBytes:
    """Counter of the float32 bytes of the outputs of a network's layers while it is watched."""

    def __init__(self) -> None:
        self.total = 0

    def watching(self, network: nn.Module) -> ExitStack:
        """Return a context in which the outputs of all layers and spatial transformers are counted."""
        stack = ExitStack()
        for module in network.modules():
            is_layer = not any(module.children()) and not isinstance(module, nn.Sequential)
            if isinstance(module, ParallelTransformers) or is_layer:
                stack.callback(module.register_forward_hook(self._add).remove)
        return stack

    def _add(self, _layer: nn.Module, _inputs: tuple[object, ...], output: Tensor | PlaceOutput) -> None:
        outputs = [done.images for done in output.branches] if isinstance(output, PlaceOutput) else [output]
        self.total += sum(tensor.numel() for tensor in outputs) * _FLOAT32_BYTES
