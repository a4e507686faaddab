"""Parts of a network as torch.compile makes them."""

from typing import Any, Final, cast

import torch
from torch import nn

from stnbench.core.errors import EngineError
from stnbench.models.classifiers import StnClassifier
from stnbench.models.learners import localization_networks
from stnbench.spec.compute import ComputeOptions

BACKEND: Final = "inductor"


def compile_network(network: StnClassifier, compute: ComputeOptions, device: torch.device) -> None:
    """Let the parts of a network run compiled, where that is asked for; they are compiled when they first run.

    The parts are the convolution stages, the head and the localisation networks, one by one: what lies between them,
    geometry and sampling, runs as it is written, in float32. So do hooks of the parts, which a compiled call would
    not notice once it is compiled. Weights and their names stay as they are. torch raises where it cannot compile
    (without a C++ compiler, say); nothing falls back.

    Raises: EngineError where CUDA graphs are asked for, of which training makes use, and the device is no GPU.
    """
    if compute.cuda_graphs and device.type != "cuda":
        raise EngineError(
            f"CUDA graphs are asked for, and the device is {device}",
            remedy="take cuda_graphs out of STNBENCH_COMPUTE, or run on a GPU",
        )
    if compute.compile:
        # Beyond its limit of compilations torch would run a part as it is, and say so in a log alone.
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # noqa: SLF001 - where torch documents it
        for part in compiled_parts(network):
            cast("Any", part).forward = torch.compile(part.forward, backend=BACKEND)


def compiled_parts(network: StnClassifier) -> list[nn.Module]:
    """The parts that are compiled, each for itself."""
    return [*network.stages, network.head, *localization_networks(network).values()]
