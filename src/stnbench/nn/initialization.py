"""Layers that start at zero, and weights drawn from a generator that is passed in."""

from typing import Final, TypeVar

import torch
from torch import nn

from stnbench.core.seeds import derive_seed
from stnbench.nn.convolution import MOST_CHANNELS, FewChannelConv2d

_CPU: Final = torch.device("cpu")

Layer = TypeVar("Layer", bound=nn.Module)


def allocated(layer: Layer) -> Layer:
    """A layer of the meta device, on the default device with zeros as weights; no random state is touched."""
    layer.to_empty(device=torch.get_default_device())
    clear_weights(layer)
    return layer


def conv(inputs: int, outputs: int, *, kernel: int, padding: int, bias: bool = True) -> nn.Conv2d:
    """A square convolution of stride 1, its weights zero until they are drawn."""
    kind = FewChannelConv2d if inputs <= MOST_CHANNELS and padding < kernel else nn.Conv2d
    return allocated(kind(inputs, outputs, kernel, padding=padding, bias=bias, device="meta"))


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with a bias, its weights zero until they are drawn."""
    return allocated(nn.Linear(inputs, outputs, device="meta"))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation of maps that has seen no batch, its weights zero until they are drawn."""
    return allocated(nn.BatchNorm2d(channels, device="meta"))


def part_generator(seed: int, part: str) -> torch.Generator:
    """The generator of one part's weights: what stands beside the part in the network does not change its weights."""
    return torch.Generator(_CPU).manual_seed(derive_seed(seed, "init", part))


def draw_weights(part: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw every convolution and linear layer of the part, in the order of its modules, and reset its batch norms.

    Weights and biases are uniform in +-1 / sqrt(fan in), the default of torch7, which the networks of 2015 used, and of
    PyTorch. Without a generator they come from torch's own, which ``torch.manual_seed`` sets. They are drawn on the
    CPU, so that every device starts with the same ones. A batch norm scales by 1, shifts
    by 0 and has seen no batch (mean 0, variance 1); it takes the scale of the weights before it out of the function.
    """
    with torch.no_grad():
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                bound = (layer.weight[0].numel()) ** -0.5
                for parameter in layer.parameters(recurse=False):
                    drawn = torch.empty(parameter.shape, dtype=torch.float32, device=_CPU)
                    parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()


def clear_weights(part: nn.Module) -> None:
    """Set every parameter to zero: a state that is the same everywhere, for weights that will be loaded.

    Batch norms have seen no batch then.
    """
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.zero_()
        for layer in part.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
