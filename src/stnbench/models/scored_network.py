"""A network with its preprocessing: from images in [0, 255] to logits."""

import dataclasses
import functools
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stnbench.core.errors import EngineError, InfeasibleError, SpecError
from stnbench.data.build import dataset_info
from stnbench.data.preprocessing import GlobalStatistics, Preprocess
from stnbench.models.classifiers import (
    Explained,
    StnClassifier,
    build_head,
    build_network,
    build_stage,
    feasible,
    input_map,
    locnet_input_size,
    shared_stages,
)
from stnbench.models.designs import NetworkDesign, StageDesign, design_network
from stnbench.nn.initialization import MapSize, pad_channels
from stnbench.nn.localization import Localization, build_localization
from stnbench.nn.spatial_transformer import (
    ParallelTransformers,
    PlaceOutput,
    SpatialTransformer,
    build_spatial_transformer,
)
from stnbench.nn.transforms.registry import build_transformation
from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.result import Cost
from stnbench.spec.transformer import DenseLocnetSpec, LocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import ComputeOptions, Precision, TrialSpec

# Spatial transformers of a network that learn: all but the controls.


Key = tuple[int, int]
"""Place of a transformer and its branch there, both from 1."""


def learning_transformers(network: StnClassifier) -> dict[Key, SpatialTransformer]:
    """Return the transformers with a localisation network, by ascending place and branch."""
    return {
        (parallel.place, branch): transformer
        for parallel in network.transformers.values()
        if isinstance(parallel, ParallelTransformers)
        for branch, transformer in enumerate(parallel.transformers(), start=1)
        if transformer.localization is not None
    }


def localization_networks(network: StnClassifier) -> dict[Key, Localization]:
    """Return the localisation networks of all transformers that learn, by ascending place and branch."""
    found = {key: transformer.localization for key, transformer in learning_transformers(network).items()}
    return {key: localization for key, localization in found.items() if localization is not None}


# Compilation of the parts of a network with torch.compile.


BACKEND: Final = "inductor"


def compile_network(network: StnClassifier, compute: ComputeOptions, device: torch.device) -> None:
    """Set up the parts of a network to run compiled, if ``compute`` says so; they are compiled when they first run.

    The parts are the convolution stages, the head and the localisation networks, one by one: geometry and sampling
    between them run as written, in float32, and so do hooks of the parts, which a compiled call would not notice once
    it is compiled. Weights and their names stay as they are. torch raises where it cannot compile (without a C++
    compiler, for example); there is no fallback.

    Raises:
        EngineError: where an option needs a GPU, as CUDA graphs do, which training uses, and the device is none.
    """
    if compute.of_gpus and device.type != "cuda":
        name = compute.of_gpus[0]
        raise EngineError(
            f"{name} are asked for, and the device is {device}",
            remedy=f"take {name} out of STNBENCH_COMPUTE, or run on a GPU",
        )
    if compute.compile:
        # Beyond its limit of compilations torch would run a part uncompiled, and report it in a log alone.
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # noqa: SLF001 - where torch documents it
        for part in compiled_parts(network):
            cast("Any", part).forward = torch.compile(part.forward, backend=BACKEND)


def choose_kernels(network: StnClassifier, preprocess: nn.Module, compute: ComputeOptions) -> None:
    """Make the layers of a network and its preprocessing compute with the kernels that ``compute`` names.

    Weights and their names stay as they are. Nothing falls back to another kernel.

    Raises:
        EngineError: where kernels in Triton are requested and it is not installed, or parts are to be compiled as well.
        InfeasibleError: where a layer is too large for a kernel.
    """
    if compute.padded_channels:
        pad_channels(network)
    if compute.fused_kernels:
        if compute.compile:
            problem = "fused_kernels and compile are asked for, and a compiled part uses its own kernels"
            raise EngineError(problem, remedy="take one of them out of STNBENCH_COMPUTE")
        try:
            from stnbench.nn.fused import use_fused_kernels  # Triton, which comes with torch for CUDA
        except ModuleNotFoundError as error:
            problem = f"fused_kernels are asked for, and {error.name} is not installed"
            raise EngineError(problem, remedy="take fused_kernels out of STNBENCH_COMPUTE, or make setup") from error
        use_fused_kernels(network)
        use_fused_kernels(preprocess)


def compiled_parts(network: StnClassifier) -> list[nn.Module]:
    """Return the parts that are compiled, each separately."""
    return [*network.stages, network.head, *localization_networks(network).values()]


_AS_ON_THE_DEVICE = ComputeOptions()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Model:
    """Preprocessing and network, on one device.

    Attributes:
        network: the network, with float32 weights.
        preprocess: the preprocessing of images before the network.
        tta: the views of test-time augmentation over which it is scored, None for one view.
        precision: of convolutions and matrix products; geometry, sampling, normalisation and logits stay float32.
        compute: options of the computation on the device.
    """

    network: StnClassifier
    preprocess: Preprocess
    tta: TtaSpec | None = None
    precision: Precision = "float32"
    compute: ComputeOptions = _AS_ON_THE_DEVICE

    def explain(self, images: Tensor, boxes: Tensor) -> Explained:
        """Return the logits of images, with the output of every spatial transformer, in one pass.

        Args:
            images: (batch, channels, height, width), uint8, or float32 in [0, 255].
            boxes: (batch, 4), x1, y1, x2, y2 of the signs, normalised, which the control ``roi`` reads.
        """
        with torch.no_grad():
            prepared: Tensor = self.preprocess(images)
        return self.explain_prepared(prepared, boxes)

    def explain_prepared(self, images: Tensor, boxes: Tensor | None) -> Explained:
        """Return ``explain`` of images (batch, channels, height, width) that have been preprocessed."""
        images = images.contiguous(memory_format=memory_format(images.device, self.compute))
        with self._autocast(images.device):
            explained = self.network.explain(images, boxes)
        return replace(explained, logits=explained.logits.float()) if self.precision == "bfloat16" else explained

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()


def build_model(
    spec: TrialSpec,
    statistics: GlobalStatistics,
    *,
    classes: int,
    device: torch.device,
    compute: ComputeOptions = _AS_ON_THE_DEVICE,
) -> Model:
    """Return the model of a trial with its first weights, which derive from the trial's seed.

    Args:
        spec: the trial.
        statistics: the statistics of the training images, for the preprocessing.
        classes: the number of logits.
        device: the device of the network and its preprocessing.
        compute: options of the computation on the device.

    Raises:
        InfeasibleError: where the network cannot be built.
        EngineError: where the device does not support the options.
    """
    network = build_network(spec, classes=classes, seed=spec.seed)
    preprocess = Preprocess(spec.preprocess, statistics, image_size=spec.dataset.image_size)
    network = network.to(device, memory_format=memory_format(device, compute))  # type: ignore[call-overload] # missing in torch's stubs
    compile_network(network, compute, device)
    choose_kernels(network, preprocess, compute)
    return Model(
        network=network,
        preprocess=preprocess.to(device),
        tta=spec.tta,
        precision=spec.training.precision,
        compute=compute,
    )


def memory_format(device: torch.device, compute: ComputeOptions) -> torch.memory_format:
    """Return the memory format of maps: channels last on a CPU or where requested, else contiguous.

    A step on a CPU takes a quarter less time with channels last.
    """
    is_last = device.type == "cpu" or compute.channels_last
    return torch.channels_last if is_last else torch.contiguous_format


# Cost of a network, known before it runs.
#
# A sweep has a thousand networks, and a second for all of them. Most of their parts are parts of many of them, so a
# network's cost is the sum of the costs of its parts: stages, the head, localisation networks, and the transformers of
# a place with the smallest localisation network possible are each run once on the meta device, on maps of a size,
# under torch's counter of FLOPs. A test compares the sum with whole networks.


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
    locnet_input = locnet_input_size(design, spec, size)
    look, seen = _localization(spec, locnet_input), size
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


def _localization(spec: PlacedTransformerSpec, locnet_input: MapSize) -> _Part:
    """Return the cost of the localisation network of one branch, for one pass; nothing for a control."""
    if spec.locnet is None:
        return _Part()
    try:
        return _measured_localization(spec.locnet, locnet_input, _parameters_of(spec.transformer))
    except InfeasibleError:
        build_spatial_transformer(spec, locnet_input)  # raises with the place in its message
        raise


@functools.cache
def _measured_localization(locnet: LocnetSpec, locnet_input: MapSize, parameters: int) -> _Part:
    return _measure(build_localization(locnet, locnet_input, identity=(0.0,) * parameters), _maps(locnet_input))


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


# Cost and feasibility of a trial's network, computed before anything runs and without a device.


# Equal-parameter baselines: the parameters of the transformers spent on a wider classifier instead.


_FACTOR_MAX = 64.0
_HALVINGS = 24
"""Number of bisections of the range of factors; the rest is too small to change a size of a thousand channels."""


def equal_size_baseline(spec: TrialSpec) -> TrialSpec:
    """Return the trial without its transformers, with a network widened to about the same number of parameters.

    All sizes of the network are multiplied by one factor and rounded, as ``width`` does; the factor is the one whose
    network is nearest in number of parameters. A trial without transformers is returned unchanged.

    Raises:
        InfeasibleError: if the trial's network cannot be built.
        SpecError: if the network has no sizes.
    """
    if not spec.transformers:
        return spec
    if not spec.network.sizes:
        problem = f"baselines: equal_parameters widens networks, and {spec.network.kind} has no sizes to multiply"
        raise SpecError(problem, remedy="say baselines: true, or choose a network with sizes")
    classes = len(dataset_info(spec.dataset).class_names)
    wanted, baseline = _parameters(spec, classes), spec.baseline()
    low, high = 1.0, _FACTOR_MAX
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _parameters(_wider(baseline, middle), classes) <= wanted:
            low = middle
        else:
            high = middle
    candidates = (_wider(baseline, low), _wider(baseline, high))
    return min(candidates, key=lambda candidate: abs(_parameters(candidate, classes) - wanted))


def _wider(spec: TrialSpec, factor: float) -> TrialSpec:
    sizes = tuple(int(size * factor + 0.5) for size in spec.network.sizes)
    return dataclasses.replace(spec, network=dataclasses.replace(spec.network, sizes=sizes))  # type: ignore[call-arg] # a network with sizes


@functools.lru_cache(maxsize=4096)
def _parameters(spec: TrialSpec, classes: int) -> int:
    """Return the number of parameters of the trial's network, without allocating them."""
    with torch.device("meta"), torch.no_grad():
        network = build_network(spec, classes=classes, seed=None)
    return sum(parameter.numel() for parameter in network.parameters())


_LIVE_SHARE = 1.6
_IMAGES, _TRAINING_IMAGES = 52_000, 40_000
"""Numbers of images of GTSRB, and of its synthetic replacement."""


def assess_cost(spec: TrialSpec) -> Cost:
    """Return the cost of the trial's network.

    Raises:
        InfeasibleError: if no network can be built from the specification.
    """
    return measure_cost(spec, classes=len(dataset_info(spec.dataset).class_names))


def estimate_gpu_mib(spec: TrialSpec) -> float:
    """Estimate the GPU memory of a trial in MiB before it has run; 0 if its network cannot be built.

    The estimate is the sum of the activations of a batch with their gradients (1.6 times the activations, as not all
    are live at once), the weights, gradients and the optimiser's buffers, and the images of both halves with the
    prepared training half.
    """
    try:
        cost = assess_cost(spec)
    except InfeasibleError:
        return 0.0
    numbers = spec.dataset.channels * spec.dataset.image_size**2
    images = _IMAGES * numbers + _TRAINING_IMAGES * numbers * _FLOAT32_BYTES
    activations = _LIVE_SHARE * spec.training.batch_size * cost.activation_bytes
    return (activations + 3 * _FLOAT32_BYTES * cost.parameters + images) / (1 << 20)
