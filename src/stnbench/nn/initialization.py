"""Layers that start at zero, and weights drawn from a generator that is passed in."""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stnbench.core.errors import InfeasibleError, StnbenchError
from stnbench.core.identity import derive_seed
from stnbench.nn.maps import MapSize

# A convolution of few input channels whose gradient with respect to its input is quick on a CPU.
#
# Where a spatial transformer stands before the first stage, that gradient is what it learns from. oneDNN computes it
# with the input's channels across a vector of sixteen numbers: of RGB, three are used, and this one gradient takes a
# sixth of a step of lecun 38,64,100. Here four neighbouring pixels are computed as channels of one, which is a
# convolution of stride 2 with a kernel larger by 1: 2.3 times as quick for 5x5, the same products in the same order,
# and zeros.


MOST_CHANNELS: Final = 4
"""Beyond, the vectors fill by themselves."""


class FewChannelConv2d(nn.Conv2d):
    """``torch.nn.Conv2d``, square, of stride 1 and padding below the kernel's side, for images of up to four channels.

    The ordinary one's path is taken off the CPU, where no gradient is asked for, and for maps of odd sides.
    """

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """The maps. Gradients of gradients do not pass to the images."""
        height, width = images.shape[-2:]
        is_plain = not (images.requires_grad and torch.is_grad_enabled()) or images.device.type != "cpu"
        if is_plain or height % 2 or width % 2 or torch.compiler.is_compiling():
            return super().forward(images)
        maps = super().forward(images.detach())
        connected: Tensor = _InputGradient.apply(maps, images, self.weight.detach(), int(self.padding[0]))
        return connected


class _InputGradient(torch.autograd.Function):
    """The maps as they are, with the way back to the images that they were computed from without one."""

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
    """The gradient of a convolution with respect to its input, whose sides are even.

    With pixel (2 Y + v, 2 X + u) of the input, v and u in {0, 1}: row ``2 Y + v + padding - k`` of the maps reaches it
    by row k of the kernel. The four (v, u) are channels of one convolution, whose kernels are the flipped one, moved by
    (v, u), and ``pixel_shuffle`` puts them into place.
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
"""Makes a module on the default device; told True, with the weights that training starts from."""


class OwnModule(nn.Module):
    """A module that somebody else has written, which draws its weights itself.

    Args:
        make: makes it.
    """

    def __init__(self, make: MakeModule) -> None:
        super().__init__()
        self._make = make
        with torch.random.fork_rng([]):
            self.made = make(False)  # noqa: FBT003 - as MakeModule says

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return its maps; features of an image, (batch, numbers), are maps of one pixel."""
        out: Tensor = self.made(maps)
        return out[:, :, None, None] if out.ndim == _FEATURES else out

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Take the weights that another instance starts with, whose random numbers derive from the generator alone."""
        seed = int(torch.randint(2**62, (), generator=generator, device=_CPU))
        with torch.random.fork_rng([]), _CPU:
            torch.manual_seed(seed)
            initial = self._make(True)  # noqa: FBT003 - likewise
        self.made.load_state_dict(initial.state_dict())


_FEATURES, _MAPS = 2, 4
"""How many dimensions a batch of features and one of maps has."""


def own_module(make: MakeModule, size: MapSize, name: str) -> tuple[OwnModule, MapSize]:
    """Return a module of somebody else's, and the size of its output, found by running it without memory.

    Args:
        make: makes it.
        size: of the maps that go in.
        name: of the module, for messages.

    Raises: InfeasibleError where it cannot be made for such maps, or its output is neither maps nor features.
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
    """The modules of a part, itself first, but not those inside a module of somebody else's."""
    yield part
    if not isinstance(part, OwnModule):
        for child in part.children():
            yield from _layers(child)


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
    """Set every parameter to zero: a state that is the same everywhere, for weights that will be loaded.

    Batch norms have seen no batch then.
    """
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.zero_()
        for layer in part.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
