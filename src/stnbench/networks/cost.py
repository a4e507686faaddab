"""What a network costs, known before it runs."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stnbench.networks.build import build_network, input_map
from stnbench.networks.classifiers import StnClassifier
from stnbench.spec.result import Cost
from stnbench.spec.trial import TrialSpec
from stnbench.stn.module import SpatialTransformer

_FLOAT32_BYTES = 4


def measure_cost(spec: TrialSpec, *, classes: int) -> Cost:
    """The cost of a trial's network for one image, without memory for its weights or its maps.

    FLOPs are those of convolutions and matrix products; interpolation, pooling and ReLU are not counted.
    Raises: InfeasibleError where the network cannot be built.
    """
    size = input_map(spec)
    with torch.device("meta"), torch.no_grad():
        network = build_network(spec, classes=classes, seed=None)
        image = torch.empty(1, size.channels, size.height, size.width)
        outputs = _OutputBytes()
        with FlopCounterMode(display=False) as counter, outputs.watching(network):
            network(image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters=parameters, flops=counter.get_total_flops(), activation_bytes=outputs.total)


class _OutputBytes:
    """Counts the float32 bytes of the outputs of a network's layers while it is watched."""

    def __init__(self) -> None:
        self.total = 0

    def watching(self, network: StnClassifier) -> ExitStack:
        """A block in which the output of every layer and spatial transformer is counted."""
        stack = ExitStack()
        for module in network.modules():
            if isinstance(module, SpatialTransformer) or not any(module.children()):
                stack.callback(module.register_forward_hook(self._add).remove)
        return stack

    def _add(self, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.total += output.numel() * _FLOAT32_BYTES
