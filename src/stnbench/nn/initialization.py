"""Layers whose weights start at zero, and the drawing of weights from a given random generator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from typing_extensions import override

from stnbench.core.errors import InfeasibleError, StnbenchError
from stnbench.core.identity import derive_seed

# Size of a feature map, and its change by convolution and pooling.


@dataclass(frozen=True, slots=True)
class MapSize:
    """Channels, height and width of one image or feature map; with a height or width below 1 nothing is left of it."""

    channels: int
    height: int
    width: int

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is left of the map."""
        return self.height < 1 or self.width < 1

    @property
    def numbers(self) -> int:
        """Return the number of values in the map: channels times height times width."""
        return self.channels * self.height * self.width

    def convolved(self, channels: int, *, kernel: int, padding: int) -> "MapSize":
        """Return the size after a square convolution of stride 1 with ``padding`` pixels at each side."""
        change = 2 * padding - kernel + 1
        return MapSize(channels, self.height + change, self.width + change)

    def pooled(self) -> "MapSize":
        """Return the size after pooling 2 x 2 with stride 2; an odd last row or column is dropped, as in 2015."""
        return replace(self, height=self.height // 2, width=self.width // 2)

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"


# Convolutions of few input channels, with a fast gradient with respect to the input on a CPU.
#
# A spatial transformer before the first stage learns from that gradient. oneDNN computes it with the input's channels
# across a vector of sixteen numbers: of RGB, three are used, and this one gradient takes a sixth of a step of
# lecun 38,64,100. Here four neighbouring pixels are computed as channels of one, which is a convolution of stride 2
# with a kernel larger by 1: 2.3 times as fast for 5x5, with the same products in the same order, and zeros.


MOST_CHANNELS: Final = 4
"""Largest number of input channels for this path: with more, the vectors are full without it."""


class FewChannelConv2d(nn.Conv2d):
    """Square ``torch.nn.Conv2d`` of stride 1 with padding below the kernel size, for images of up to four channels.

    It has a faster gradient with respect to the input on a CPU. On other devices, if no gradient with respect to the
    images is required, for images of odd height or width, and under ``torch.compile``, it runs as ``torch.nn.Conv2d``
    does.
    """

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Return the feature maps of images.

        Gradients of gradients do not pass to the images.
        """
        height, width = images.shape[-2:]
        is_plain = not (images.requires_grad and torch.is_grad_enabled()) or images.device.type != "cpu"
        if is_plain or height % 2 or width % 2 or torch.compiler.is_compiling():
            return super().forward(images)
        maps = super().forward(images.detach())
        connected: Tensor = _InputGradient.apply(maps, images, self.weight.detach(), int(self.padding[0]))
        return connected


CHANNEL_MULTIPLE: Final = 8
"""Channels that a GPU's tensor cores take at once: with other numbers of them, cuDNN may have no fast kernel."""


class PaddedConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` that is computed with zero channels added, up to a multiple of ``CHANNEL_MULTIPLE``.

    Weights, outputs and their gradients are those of the convolution without them, except for the order of sums. Images
    of up to ``MOST_CHANNELS`` channels are not padded, since that would multiply the work; their maps are.
    """

    @override
    def forward(
        self, input: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Return the feature maps of maps."""
        outputs = -self.out_channels % CHANNEL_MULTIPLE
        inputs = 0 if self.in_channels <= MOST_CHANNELS else -self.in_channels % CHANNEL_MULTIPLE
        weight = functional.pad(self.weight, (0, 0, 0, 0, 0, inputs, 0, outputs))
        bias = None if self.bias is None else functional.pad(self.bias, (0, outputs))
        maps = functional.pad(input, (0, 0, 0, 0, 0, inputs)) if inputs else input
        found: Tensor = self._conv_forward(maps, weight, bias)
        return found[:, : self.out_channels]


def pad_channels(module: nn.Module) -> None:
    """Make the convolutions of a module that have no multiple of ``CHANNEL_MULTIPLE`` channels compute padded ones."""
    for layer in module.modules():
        if type(layer) in {nn.Conv2d, FewChannelConv2d}:
            conv = cast("nn.Conv2d", layer)
            odd = conv.out_channels % CHANNEL_MULTIPLE
            odd = odd or (conv.in_channels > MOST_CHANNELS and conv.in_channels % CHANNEL_MULTIPLE)
            if odd and conv.groups == 1:
                cast("Any", conv).__class__ = PaddedConv2d


class _InputGradient(torch.autograd.Function):
    """Identity on maps that were computed without a gradient, with a backward pass to the images they came from."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, images: Tensor, weight: Tensor, padding: int) -> Tensor:  # noqa: ANN401 - torch's
        ctx.save_for_backward(weight)
        ctx.padding = padding
        ctx.dtype = images.dtype
        return maps.view_as(maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401 - torch's
        (weight,) = ctx.saved_tensors
        of_images = input_gradient(gradient, weight.to(gradient.dtype), padding=ctx.padding)
        return gradient, of_images.to(ctx.dtype), None, None


def input_gradient(
    gradient: Float[Tensor, "batch out_channels out_height out_width"],
    weight: Float[Tensor, "out_channels channels kernel kernel"],
    *,
    padding: int,
) -> Float[Tensor, "batch channels height width"]:
    """Return the gradient of a convolution of stride 1 with respect to its input, whose height and width are even.

    With pixel (2 Y + v, 2 X + u) of the input, v and u in {0, 1}: row ``2 Y + v + padding - k`` of the maps reaches it
    by row k of the kernel. The four (v, u) are channels of one convolution, whose kernels are the flipped one, moved by
    (v, u), and ``pixel_shuffle`` puts them into place.

    Args:
        gradient: the gradient with respect to the output of the convolution.
        weight: the weights of the convolution, with a square kernel.
        padding: the padding of the convolution, in pixels.
    """
    outputs, channels, kernel, _ = weight.shape
    flipped = weight.flip(2, 3).transpose(0, 1)
    moved = weight.new_zeros(channels, 2, 2, outputs, kernel + 1, kernel + 1)
    for v in (0, 1):
        for u in (0, 1):
            moved[:, v, u, :, v : v + kernel, u : u + kernel] = flipped
    kernels = moved.flatten(0, 2).contiguous(memory_format=torch.channels_last)
    phases = functional.conv2d(gradient, kernels, stride=2, padding=kernel - 1 - padding)
    return functional.pixel_shuffle(phases, 2)


_CPU: Final = torch.device("cpu")

Layer = TypeVar("Layer", bound=nn.Module)


MakeModule = Callable[[bool], nn.Module]
"""Function that makes a module on the default device; called with True, with the weights that training starts from."""


class OwnModule(nn.Module):
    """Wrapper of a third-party module, which draws its weights itself.

    Args:
        make: makes the module.
    """

    def __init__(self, make: MakeModule) -> None:
        super().__init__()
        self._make = make
        with torch.random.fork_rng([]):
            self.made = make(False)  # noqa: FBT003 - as MakeModule says

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the maps of the wrapped module; features (batch, numbers) become maps of 1 x 1 pixels."""
        out: Tensor = self.made(maps)
        return out[:, :, None, None] if out.ndim == _FEATURES else out

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Load the weights of a newly made instance, whose random numbers derive from ``generator`` alone."""
        seed = int(torch.randint(2**62, (), generator=generator, device=_CPU))
        with torch.random.fork_rng([]), _CPU:
            torch.manual_seed(seed)
            initial = self._make(True)  # noqa: FBT003 - likewise
        self.made.load_state_dict(initial.state_dict())


_FEATURES, _MAPS = 2, 4
"""Number of dimensions of a batch of features, and of a batch of maps."""


def own_module(make: MakeModule, size: MapSize, name: str) -> tuple[OwnModule, MapSize]:
    """Wrap a third-party module, and return it with the size of its output, found by a run on the meta device.

    Args:
        make: makes the module.
        size: the size of the input maps.
        name: the module's name, for error messages.

    Raises:
        InfeasibleError: where the module cannot be made for such maps, or its output is neither maps (batch, channels,
            height, width) nor features (batch, numbers).
    """
    try:
        with torch.device("meta"), torch.no_grad():
            made = make(False).eval()  # noqa: FBT003 - likewise
            out = made(torch.empty(1, size.channels, size.height, size.width))
    except StnbenchError:
        raise
    except Exception as error:
        problem = f"{name} cannot take {size} maps ({type(error).__name__}: {error})"
        raise InfeasibleError(problem, remedy="choose larger images, or another network") from error
    if not isinstance(out, Tensor) or out.ndim not in (_FEATURES, _MAPS):
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        remedy = "return maps (batch, channels, height, width) or features (batch, numbers)"
        raise InfeasibleError(f"{name} returns {shape}", remedy=remedy)
    height, width = (out.shape[2], out.shape[3]) if out.ndim == _MAPS else (1, 1)
    return OwnModule(make), MapSize(out.shape[1], height, width)


def _layers(part: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of a part, itself first, without those inside third-party modules."""
    yield part
    if not isinstance(part, OwnModule):
        for child in part.children():
            yield from _layers(child)


def allocated(layer: Layer) -> Layer:
    """Allocate a layer of the meta device on the default device, and return it with zeros as weights.

    No random state is touched.
    """
    layer.to_empty(device=torch.get_default_device())
    clear_weights(layer)
    return layer


def conv(inputs: int, outputs: int, *, kernel: int, padding: int, bias: bool = True) -> nn.Conv2d:
    """Return a square convolution of stride 1, whose weights are zero until they are drawn.

    Args:
        inputs: the number of input channels.
        outputs: the number of output channels.
        kernel: the kernel size in pixels.
        padding: the zero padding at each side in pixels.
        bias: whether there is a bias.
    """
    kind = FewChannelConv2d if inputs <= MOST_CHANNELS and padding < kernel else nn.Conv2d
    return allocated(kind(inputs, outputs, kernel, padding=padding, bias=bias, device="meta"))


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer with a bias, whose weights are zero until they are drawn."""
    return allocated(nn.Linear(inputs, outputs, device="meta"))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch normalisation of maps that has seen no batch; its weights are zero until they are drawn."""
    return allocated(nn.BatchNorm2d(channels, device="meta"))


def part_generator(seed: int, part: str) -> torch.Generator:
    """Return the random generator (CPU) of the weights of one part of a network.

    Its seed derives from ``seed`` and the name of the part, so that the other parts of a network do not change its
    weights.
    """
    return torch.Generator(_CPU).manual_seed(derive_seed(seed, "init", part))


def draw_weights(part: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of all convolutions and linear layers of a part in module order, and reset its batch norms.

    Weights and biases are uniform in +-1 / sqrt(fan in), the default of torch7, which the networks of 2015 used, and of
    PyTorch. They are drawn on the CPU, so that every device starts with the same ones. A batch norm scales by 1, shifts
    by 0 and has seen no batch (mean 0, variance 1); it makes the function independent of the scale of the weights
    before it.

    Args:
        part: the module whose weights are drawn.
        generator: a CPU generator; None uses torch's global one, which ``torch.manual_seed`` seeds.
    """
    with torch.no_grad():
        for layer in _layers(part):
            if isinstance(layer, OwnModule):
                layer.initialize(generator)
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                bound = (layer.weight[0].numel()) ** -0.5
                for parameter in layer.parameters(recurse=False):
                    drawn = torch.empty(parameter.shape, dtype=torch.float32, device=_CPU)
                    parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()


def clear_weights(part: nn.Module) -> None:
    """Set every parameter of a part to zero, and reset the running statistics of its batch norms.

    The state is then the same everywhere, for weights that will be loaded.
    """
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.zero_()
        for layer in part.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
