"""A convolution of few input channels whose gradient with respect to its input is quick on a CPU.

Where a spatial transformer stands before the first stage, that gradient is what it learns from. oneDNN computes it with
the input's channels across a vector of sixteen numbers: of RGB, three are used, and this one gradient takes a sixth of
a step of lecun 38,64,100. Here four neighbouring pixels are computed as channels of one, which is a convolution of
stride 2 with a kernel larger by 1: 2.3 times as quick for 5x5, the same products in the same order, and zeros.
"""

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

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
