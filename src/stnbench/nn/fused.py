"""Kernels in Triton for a GPU: contrastive normalisation in one pass each way, and pooling that keeps a byte a maximum.

``use_fused_kernels`` makes a module's layers use them. The layers of ``stnbench.nn.layers`` and of torch are the
reference: results differ from theirs by rounding alone, those of pooling not at all. Triton's interpreter
(``TRITON_INTERPRET=1`` before this module is imported) runs the kernels on a CPU.
"""

from typing import Any, Final, cast, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from stnbench.core.errors import InfeasibleError
from stnbench.nn.layers import THRESHOLD, ContrastiveNorm

LARGEST_SIDE: Final = 64
"""Largest height and width in pixels of maps that a program normalises at once."""

_SMALLEST_SIDE: Final = 16
"""Smallest side of a product of matrices in Triton."""

_NUMBERS_AT_ONCE: Final = 8192
"""Numbers of a map that a program holds at once: 32 registers of each of 256 threads."""

_BLOCK: Final = 1024
"""Maxima that a program of pooling finds."""

_WARPS: Final = 8


def use_fused_kernels(module: nn.Module) -> None:
    """Make the contrastive norms of a module, and its pooling over 2 x 2 pixels, use the kernels here.

    Raises:
        InfeasibleError: where a contrastive norm is of maps larger than a program can hold.
    """
    for layer in module.modules():
        if type(layer) is ContrastiveNorm:
            if max(layer.coef.shape) > LARGEST_SIDE:
                height, width = layer.coef.shape
                problem = f"a contrastive norm is of maps of {height} x {width} pixels, and fused_kernels are asked for"
                remedy = f"they take at most {LARGEST_SIDE} pixels: take fused_kernels out of STNBENCH_COMPUTE"
                raise InfeasibleError(problem, remedy=remedy)
            cast("Any", layer).__class__ = FusedContrastiveNorm
        elif type(layer) is nn.MaxPool2d and _is_two_by_two(layer):
            cast("Any", layer).__class__ = FusedMaxPool2d


def _is_two_by_two(pool: nn.MaxPool2d) -> bool:
    settings = [pool.kernel_size, pool.stride, pool.padding, pool.dilation]
    pairs = [(size, size) if isinstance(size, int) else tuple(size) for size in settings]
    return pairs == [(2, 2), (2, 2), (0, 0), (1, 1)] and not pool.ceil_mode and not pool.return_indices


class FusedContrastiveNorm(ContrastiveNorm):
    """``ContrastiveNorm`` by one kernel for each direction.

    Shape:
        - Input: (batch, channels, height, width), float32, bfloat16 or float16.
        - Output: (batch, channels, height, width), in the input's type; computed in float32.
    """

    @override
    def normalised(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the normalised maps."""
        result: Tensor = _Normalise.apply(maps, self.rows, self.columns, self.coef)
        return result


class FusedMaxPool2d(nn.MaxPool2d):
    """``nn.MaxPool2d(2)`` that keeps one byte for each maximum, where torch keeps eight, for its gradient.

    Shape:
        - Input: (batch, channels, height, width).
        - Output: (batch, channels, height // 2, width // 2).
    """

    @override
    def forward(
        self, input: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """Return the maximum of every 2 x 2 pixels; an odd last row or column is dropped."""
        result: Tensor = _Pool.apply(input)
        return result


# Contrastive normalisation. With m = the mean over channels, W = the window's weighted mean, a = W(m) / coef,
# u = x - a, q = the mean of u^2 over channels, v = W(q) and s = sqrt(max(v, (threshold coef)^2)) / coef, y = u / s.
# Each program has one image, whose maps stay in the cache between its loops over channels.


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, rows: Tensor, columns: Tensor, coef: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        batch, channels, height, width = maps.shape
        result = torch.empty_like(maps)
        subtracted, variance = (
            torch.empty((batch, height, width), dtype=torch.float32, device=maps.device) for _ in range(2)
        )
        _normalise[(batch,)](
            *(maps, result, subtracted, variance, rows, columns, coef),
            *(channels, height, width, *maps.stride(), *result.stride(), THRESHOLD),
            **_blocks(channels, height, width),
        )
        ctx.save_for_backward(maps, subtracted, variance, rows, columns, coef)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401 - torch's
        maps, subtracted, variance, rows, columns, coef = ctx.saved_tensors
        batch, channels, height, width = maps.shape
        of_maps = torch.empty_like(maps)
        _normalise_backward[(batch,)](
            *(maps, gradient, of_maps, subtracted, variance, rows, columns, coef),
            *(channels, height, width, *maps.stride(), *gradient.stride(), *of_maps.stride(), THRESHOLD),
            **_blocks(channels, height, width),
        )
        return of_maps, None, None, None


def _blocks(channels: int, height: int, width: int) -> dict[str, int]:
    """Return the sides of a program's maps, powers of two, and the number of channels that it holds at once."""
    sides = [max(_SMALLEST_SIDE, triton.next_power_of_2(side)) for side in (height, width)]
    at_once = max(1, _NUMBERS_AT_ONCE // (sides[0] * sides[1]))
    return {
        "HEIGHT": sides[0],
        "WIDTH": sides[1],
        "CHANNELS": min(at_once, triton.next_power_of_2(channels)),
        "num_warps": _WARPS,
    }


@triton.jit
@no_type_check
def _window(mean, rows, columns, height, width, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, TURNED: tl.constexpr):
    # rows @ mean @ columns, or the same with both matrices transposed, of one map as a vector
    r = tl.arange(0, HEIGHT)
    c = tl.arange(0, WIDTH)
    one, other = (r[None, :], r[:, None]) if TURNED else (r[:, None], r[None, :])
    left = tl.load(rows + one * height + other, mask=(one < height) & (other < height), other=0.0)
    one, other = (c[None, :], c[:, None]) if TURNED else (c[:, None], c[None, :])
    right = tl.load(columns + one * width + other, mask=(one < width) & (other < width), other=0.0)
    by_rows = tl.dot(left, tl.reshape(mean, (HEIGHT, WIDTH)), input_precision="ieee")
    return tl.reshape(tl.dot(by_rows, right, input_precision="ieee"), (HEIGHT * WIDTH,))


@triton.jit
@no_type_check
def _read(first_of_pixels, stride, channel, channels, inside):
    # some channels of all pixels, as float32; 0 outside
    mask = inside[:, None] & (channel < channels)[None, :]
    return tl.load(first_of_pixels[:, None] + channel[None, :] * stride, mask=mask, other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _write(first_of_pixels, stride, channel, channels, inside, values):
    mask = inside[:, None] & (channel < channels)[None, :]
    tl.store(first_of_pixels[:, None] + channel[None, :] * stride, values, mask=mask)


@triton.jit
@no_type_check
def _normalise(
    maps, result, subtracted, variance, rows, columns, coefs, channels, height, width,
    maps_image, maps_channel, maps_row, maps_column, result_image, result_channel, result_row, result_column, threshold,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, HEIGHT * WIDTH) // WIDTH
    column = tl.arange(0, HEIGHT * WIDTH) % WIDTH
    inside = (row < height) & (column < width)
    coef = tl.load(coefs + row * width + column, mask=inside, other=1.0)
    pixels = maps + image * maps_image + row * maps_row + column * maps_column
    sums = tl.zeros((HEIGHT * WIDTH,), tl.float32)
    for first in range(0, channels, CHANNELS):
        sums += tl.sum(_read(pixels, maps_channel, first + tl.arange(0, CHANNELS), channels, inside), axis=1)
    around = _window(sums / channels, rows, columns, height, width, HEIGHT, WIDTH, False) / coef
    squares = tl.zeros((HEIGHT * WIDTH,), tl.float32)
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        centred = _read(pixels, maps_channel, channel, channels, inside) - around[:, None]
        squares += tl.sum(tl.where((channel < channels)[None, :], centred * centred, 0.0), axis=1)
    squares = tl.where(inside, squares, 0.0)
    spread = _window(squares / channels, rows, columns, height, width, HEIGHT, WIDTH, False)
    kept = (image * height + row) * width + column
    tl.store(subtracted + kept, around, mask=inside)
    tl.store(variance + kept, spread, mask=inside)
    least = threshold * coef
    deviation = tl.sqrt(tl.maximum(spread, least * least)) / coef
    written = result + image * result_image + row * result_row + column * result_column
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        centred = _read(pixels, maps_channel, channel, channels, inside) - around[:, None]
        _write(written, result_channel, channel, channels, inside, centred / deviation[:, None])


@triton.jit
@no_type_check
def _normalise_backward(
    maps, gradient, of_maps, subtracted, variance, rows, columns, coefs, channels, height, width,
    maps_image, maps_channel, maps_row, maps_column, gradient_image, gradient_channel, gradient_row, gradient_column,
    result_image, result_channel, result_row, result_column, threshold,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    # With g = the gradient of y: dv = -sum(g u) / s^2 / (2 sqrt(v) coef) where v is above its bound, else 0;
    # dq = W'(dv); du = g / s + 2 u dq / channels; da = -sum(du) / coef; dx = du + W'(da) / channels.
    image = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, HEIGHT * WIDTH) // WIDTH
    column = tl.arange(0, HEIGHT * WIDTH) % WIDTH
    inside = (row < height) & (column < width)
    kept = (image * height + row) * width + column
    around = tl.load(subtracted + kept, mask=inside, other=0.0)
    spread = tl.load(variance + kept, mask=inside, other=1.0)
    coef = tl.load(coefs + row * width + column, mask=inside, other=1.0)
    least = threshold * coef
    root = tl.sqrt(tl.maximum(spread, least * least))
    scale = coef / root
    pixels = maps + image * maps_image + row * maps_row + column * maps_column
    ups = gradient + image * gradient_image + row * gradient_row + column * gradient_column
    products = tl.zeros((HEIGHT * WIDTH,), tl.float32)
    up_sums = tl.zeros((HEIGHT * WIDTH,), tl.float32)
    sums = tl.zeros((HEIGHT * WIDTH,), tl.float32)
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        centred = _read(pixels, maps_channel, channel, channels, inside) - around[:, None]
        up = _read(ups, gradient_channel, channel, channels, inside)
        products += tl.sum(up * centred, axis=1)
        up_sums += tl.sum(up, axis=1)
        sums += tl.sum(tl.where((channel < channels)[None, :], centred, 0.0), axis=1)
    passes = inside & (spread >= least * least)
    of_variance = tl.where(passes, -products * scale * scale / (2.0 * root * coef), 0.0)
    factor = 2.0 * _window(of_variance, rows, columns, height, width, HEIGHT, WIDTH, True) / channels
    of_around = tl.where(inside, -(up_sums * scale + factor * sums) / coef, 0.0)
    of_mean = _window(of_around, rows, columns, height, width, HEIGHT, WIDTH, True) / channels
    written = of_maps + image * result_image + row * result_row + column * result_column
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        centred = _read(pixels, maps_channel, channel, channels, inside) - around[:, None]
        up = _read(ups, gradient_channel, channel, channels, inside)
        down = up * scale[:, None] + centred * factor[:, None] + of_mean[:, None]
        _write(written, result_channel, channel, channels, inside, down)


# Pooling. A map is seen as (images, height, width, inner): inner is the channels where they are last in memory, else 1.


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        batch, channels, height, width = maps.shape
        is_last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
        order = torch.channels_last if is_last else torch.contiguous_format
        maps, inner = maps.contiguous(memory_format=order), channels if is_last else 1
        shape = (batch, channels, height // 2, width // 2)
        result = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=order)
        places = torch.empty(shape, dtype=torch.uint8, device=maps.device, memory_format=order)
        if result.numel():
            grid = (triton.cdiv(result.numel(), _BLOCK),)
            _pool[grid](maps, result, places, height, width, inner, result.numel(), BLOCK=_BLOCK)
        ctx.save_for_backward(places)
        ctx.sizes = (maps.shape, order, inner)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        (places,) = ctx.saved_tensors
        shape, order, inner = ctx.sizes
        is_whole = shape[2] % 2 == 0 and shape[3] % 2 == 0
        make = torch.empty if is_whole else torch.zeros  # an odd last row or column has no gradient
        of_maps = make(shape, dtype=gradient.dtype, device=gradient.device).contiguous(memory_format=order)
        if places.numel():
            grid = (triton.cdiv(places.numel(), _BLOCK),)
            gradient = gradient.contiguous(memory_format=order)
            _pool_backward[grid](gradient, places, of_maps, shape[2], shape[3], inner, places.numel(), BLOCK=_BLOCK)
        return of_maps


@triton.jit
@no_type_check
def _first_of(index, height, width, inner):
    # the place in the input of the upper left pixel of a maximum
    rest = index // inner
    column = rest % (width // 2)
    rest = rest // (width // 2)
    row = rest % (height // 2)
    image = rest // (height // 2)
    return ((image * height + 2 * row) * width + 2 * column) * inner + index % inner


@triton.jit
@no_type_check
def _pool(maps, result, places, height, width, inner, count, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    first = _first_of(index, height, width, inner)
    best = tl.load(maps + first, mask=mask, other=0.0).to(tl.float32)  # exact, and stored as it was
    place = tl.zeros((BLOCK,), tl.uint8)
    for number in tl.static_range(1, 4):
        offset = ((number // 2) * width + number % 2) * inner
        value = tl.load(maps + first + offset, mask=mask, other=0.0).to(tl.float32)
        better = (value > best) | (value != value)  # as in torch, the first of equal maxima, and the last that is NaN
        best = tl.where(better, value, best)
        place = tl.where(better, number, place).to(tl.uint8)
    tl.store(result + index, best, mask=mask)
    tl.store(places + index, place, mask=mask)


@triton.jit
@no_type_check
def _pool_backward(gradient, places, of_maps, height, width, inner, count, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    first = _first_of(index, height, width, inner)
    up = tl.load(gradient + index, mask=mask, other=0.0).to(tl.float32)
    place = tl.load(places + index, mask=mask, other=0)
    for number in tl.static_range(0, 4):
        offset = ((number // 2) * width + number % 2) * inner
        tl.store(of_maps + first + offset, tl.where(place == number, up, 0.0), mask=mask)
