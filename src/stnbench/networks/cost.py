"""What a network costs, known before it runs."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stnbench.networks.build import build_network, input_map
from stnbench.networks.classifiers import StnClassifier
from stnbench.spec.result import Cost
from stnbench.spec.trial import TrialSpec
from stnbench.stn.parallel import ParallelTransformers, PlaceOutput

_FLOAT32_BYTES = 4


def measure_cost(spec: TrialSpec, *, classes: int) -> Cost:
    """The cost of a trial's network for one image, without memory for its weights or its maps.

    FLOPs are those of convolutions and matrix products; interpolation, pooling and ReLU are not counted.
    Raises: InfeasibleError where the network cannot be built.
    """
    size = input_map(spec)
    with torch.device("meta"), torch.no_grad():
        network = build_network(spec, classes=classes, seed=None)
        image, box = torch.empty(1, size.channels, size.height, size.width), torch.empty(1, 4)
        outputs = _OutputBytes()
        with FlopCounterMode(display=False) as counter, outputs.watching(network):
            network.eval()(image, box)
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
            if isinstance(module, ParallelTransformers) or not any(module.children()):
                stack.callback(module.register_forward_hook(self._add).remove)
        return stack

    def _add(self, _layer: nn.Module, _inputs: tuple[object, ...], output: Tensor | PlaceOutput) -> None:
        outputs = [done.images for done in output.branches] if isinstance(output, PlaceOutput) else [output]
        self.total += sum(tensor.numel() for tensor in outputs) * _FLOAT32_BYTES
