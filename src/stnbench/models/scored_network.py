"""A network with its preprocessing: from images in [0, 255] to logits."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from stnbench.core.errors import EngineError
from stnbench.data.preprocessing import GlobalStatistics, Preprocess
from stnbench.models.classifiers import Explained, StnClassifier, build_network
from stnbench.nn.initialization import pad_channels
from stnbench.nn.localization import Localization
from stnbench.nn.spatial_transformer import ParallelTransformers, SpatialTransformer
from stnbench.spec.augment import TtaSpec
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
            problem = "fused_kernels and compile are asked for, and a compiled part has kernels of its own"
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
