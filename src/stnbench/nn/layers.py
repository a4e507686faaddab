"""Layers that torch lacks: contrastive normalisation as in 2015, dense layers on maps, dropout with its own seed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stnbench.core.errors import ShapeError, SpecError
from stnbench.core.identity import derive_seed
from stnbench.nn.initialization import allocated

# Full precision for geometry and statistics, whatever precision the network around them runs in.


_WITHOUT_AUTOCAST = frozenset({"meta"})
"""Device types that torch.autocast does not know."""


def full_precision(kind_of_device: str) -> AbstractContextManager[object]:
    """Return a context without autocast, for results that float16 and bfloat16 would spoil."""
    if kind_of_device in _WITHOUT_AUTOCAST or not torch.is_autocast_enabled(kind_of_device):
        return nullcontext()
    return torch.autocast(kind_of_device, enabled=False)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Compute convolutions in float32 within the context, on a GPU that rounds those of the network to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def at_least_float32(values: Tensor) -> Tensor:
    """Return the values in float32; float64 stays, so that gradients can be checked."""
    return values if values.dtype == torch.float64 else values.to(torch.float32)


THRESHOLD: Final = 1e-4
"""Lower bound of the local deviation, so that flat regions are not amplified."""

BOX_SIZE: Final = 9
"""Side of the box in pixels that torch/nn takes where it is given no kernel, as happened in the networks of 2015."""

GAUSSIAN_SIZE: Final = 7
"""Side in pixels of the gaussian that the networks of 2015 meant to use, and that Arcos-Garcia et al. 2018 did use."""

_CPU: Final = torch.device("cpu")

_RAREST: Final = 1e-12
"""Probability at either end of Student's t that is not drawn: the most extreme draw is 700,000 scales away."""


def gaussian_kernel(size: int) -> tuple[float, ...]:
    """Return a gaussian of ``size`` weights with a standard deviation of ``size / 4`` pixels and a maximum of 1."""
    centre, deviation = (size - 1) / 2, size / 4
    return tuple(math.exp(-(((i - centre) / deviation) ** 2) / 2) for i in range(size))


def box_kernel(size: int) -> tuple[float, ...]:
    """Return ``size`` equal weights of 1."""
    return (1.0,) * size


CONTRASTIVE_KERNELS: Final[Mapping[str, tuple[float, ...]]] = {
    "box": box_kernel(BOX_SIZE),
    "gaussian": gaussian_kernel(GAUSSIAN_SIZE),
}
"""Kernels that a contrastive norm inside a network may have, by name."""


class ContrastiveNorm(nn.Module):
    """Subtractive, then divisive local normalisation, over all channels together.

    torch/nn's SpatialContrastiveNormalization: Jarrett et al. 2009 with a constant threshold. With mean(x) = the
    kernel's weighted mean over window and channels, zero outside the image, and coef = the share of the kernel's weight
    inside the image: ``v = x - mean(x) / coef``, ``s = sqrt(mean(v^2)) / coef``, and the result is ``v / max(s,
    1e-4)``. The deviation is divided by coef and not by its root, so borders come out smaller than in the textbook.

    The channels are averaged first; the mean over the window is then one product with a band matrix for each side of
    the map. Where s is below the threshold its gradient is zero, so that flat images have a finite one.

    Args:
        kernel: an odd number of weights, used along x and along y.
        height: the height of the maps in pixels.
        width: the width of the maps in pixels.

    Raises:
        SpecError: for a kernel with an even number of weights.

    Shape:
        - Input: (batch, channels, height, width).
        - Output: (batch, channels, height, width), in the input's type; computed in float32 at least.
    """

    rows: Tensor
    columns: Tensor
    coef: Tensor

    def __init__(self, kernel: Sequence[float], *, height: int, width: int) -> None:
        super().__init__()
        if len(kernel) % 2 == 0:
            raise SpecError(f"the kernel of a contrastive norm has {len(kernel)} weights", remedy="use an odd number")
        rows, columns = _band(kernel, height), _band(kernel, width)
        device = torch.get_default_device()
        coef = rows.sum(dim=1)[:, None] * columns.sum(dim=1)
        for name, buffer in (("rows", rows), ("columns", columns.T), ("coef", coef)):
            self.register_buffer(name, buffer.to(device, torch.float32).contiguous(), persistent=False)

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the normalised maps.

        Raises:
            ShapeError: where the maps do not have the height and width that the module was made for.
        """
        if maps.shape[-2:] != self.coef.shape:
            raise ShapeError("the input of a contrastive norm", maps.shape, f"(batch, channels, {_size(self.coef)})")
        return self.normalised(maps)

    def normalised(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the normalised maps, whose shape has been checked."""
        with full_precision(maps.device.type):
            values = at_least_float32(maps)
            coef = self.coef.to(values.dtype)
            centred = values - self._window_mean(values) / coef
            variance = self._window_mean(centred.square())
            # sqrt has no finite gradient at 0; below the square of the threshold clamp lets none through.
            deviation = variance.clamp(min=(THRESHOLD * coef).square()).sqrt() / coef
            return (centred * deviation.reciprocal()).to(maps.dtype)

    def _window_mean(self, values: Tensor) -> Tensor:
        """Return the kernel's weighted mean over window and channels, (batch, 1, height, width)."""
        mean = values.mean(dim=1, keepdim=True)
        return self.rows.to(mean.dtype) @ mean @ self.columns.to(mean.dtype)


class Dense(nn.Linear):
    """Linear layer over all numbers of a map; its weights are zero until they are drawn.

    Args:
        inputs: channels times height times width of the input.
        units: the number of output channels.

    Shape:
        - Input: (batch, channels, height, width).
        - Output: (batch, units, 1, 1).
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, device="meta")
        allocated(self)

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch units 1 1"]:
        """Return the units as channels of a map of 1 x 1 pixels."""
        return super().forward(maps.flatten(1))[:, :, None, None]


class RandomLayer(nn.Module, ABC):
    """Base class of layers that draw random numbers while training.

    The numbers come from a CPU generator that the layer owns, so that every device draws the same ones;
    ``seed_dropout`` seeds it. Training draws the numbers of many steps at once, and serves them step by step; a layer
    that has been served nothing draws the same numbers as it runs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator(_CPU).manual_seed(0)
        self._served: Tensor | None = None
        self._used = 0

    @abstractmethod
    def draw(self, numbers: int) -> Tensor:
        """Return the next ``numbers`` random numbers, on the CPU."""

    def serve(self, drawn: Tensor | None) -> None:
        """Use numbers drawn before, in order, on the device of the maps; None makes the layer draw as it runs."""
        self._served, self._used = drawn, 0

    def _take(self, numbers: int, device: torch.device) -> Tensor:
        """Return the next ``numbers`` random numbers, served or drawn, on the device."""
        if self._served is None:
            return self.draw(numbers).to(device)
        taken = self._served[self._used : self._used + numbers]
        self._used += numbers
        return taken


class ChannelDropout(RandomLayer):
    """Dropout of channels: in training each channel of each image is zero with probability ``share``.

    The other channels are multiplied by 1 / (1 - share). Outside training the maps pass unchanged. Tompson et al. 2015;
    on maps of 1 x 1 pixels it is the dropout of Srivastava et al. 2014.

    Args:
        share: the probability, at least 0 and below 1.

    Shape:
        - Input: (batch, channels, height, width).
        - Output: (batch, channels, height, width).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def draw(self, numbers: int) -> Bool[Tensor, " numbers"]:
        """Return whether each of the next ``numbers`` channels of images is kept, on the CPU."""
        drawn = torch.rand(numbers, generator=self.generator, dtype=torch.float32, device=_CPU)
        return drawn >= self.share

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the maps, with channels dropped in training."""
        if not self.training:
            return maps
        kept = self._take(maps.shape[0] * maps.shape[1], maps.device)
        factor = kept.view(maps.shape[:2]).to(torch.float32) / (1 - self.share)
        return maps * factor.to(maps.dtype)[:, :, None, None]

    def extra_repr(self) -> str:
        """Return the options for the printed form of the module."""
        return f"share={self.share}"


class StudentNoise(RandomLayer):
    """Noise of Student's t with 2 degrees of freedom, times scales, added to means.

    It is added in training and where a draw is fixed (``fix``); otherwise the means are returned unchanged, so that a
    network in evaluation gives the same result for an image every time.

    Shape:
        - Input: means and scales (batch, parameters).
        - Output: (batch, parameters).
    """

    def __init__(self) -> None:
        super().__init__()
        self._fixed: int | None = None
        self._kept: dict[tuple[int, int], Tensor] = {}

    def draw(self, numbers: int) -> Float[Tensor, " numbers"]:
        """Return ``numbers`` numbers of Student's t with 2 degrees of freedom, on the CPU."""
        return _student(numbers, self.generator)

    def fix(self, sample: int | None, kept: dict[tuple[int, int], Tensor] | None = None) -> None:
        """Use draw number ``sample`` for every image, the same every time; None ends this.

        Args:
            sample: the number of the draw.
            kept: numbers by draw and count, filled as they are needed: a pass that finds them there uploads nothing.
        """
        self._fixed = sample
        self._kept = {} if kept is None else kept

    def forward(
        self, means: Float[Tensor, "batch parameters"], scales: Float[Tensor, "batch parameters"]
    ) -> Float[Tensor, "batch parameters"]:
        """Return the means plus noise in training or with a fixed draw, else the means."""
        if self._fixed is not None:
            drawn = self._fixed_draw(self._fixed, means.shape[1], means.device)
        elif self.training:
            drawn = self._take(means.shape[0] * means.shape[1], means.device).view(means.shape)
        else:
            return means
        return means + scales * drawn.to(means.dtype)

    def _fixed_draw(self, sample: int, numbers: int, device: torch.device) -> Tensor:
        """Return the numbers of a fixed draw on a device, from those that are kept where they are."""
        key = (sample, numbers)
        if key not in self._kept:
            seeded = torch.Generator(_CPU).manual_seed(derive_seed(sample, "posterior"))
            self._kept[key] = _student(numbers, seeded).to(device)
        return self._kept[key]


def _student(numbers: int, generator: torch.Generator) -> Float[Tensor, " numbers"]:
    """Return random numbers of Student's t with 2 degrees of freedom, by its quantile function, float32."""
    drawn = torch.rand(numbers, generator=generator, dtype=torch.float64, device=_CPU).clamp(_RAREST, 1 - _RAREST)
    return ((2 * drawn - 1) / (2 * drawn * (1 - drawn)).sqrt()).to(torch.float32)


def seed_dropout(network: nn.Module, seed: int) -> None:
    """Seed every layer of the network that draws random numbers, each with a different stream.

    If the seed derives from the epoch, an epoch drops the same channels whether or not the run was interrupted before
    it.
    """
    for index, layer in enumerate(dropout_layers(network)):
        layer.generator.manual_seed(derive_seed(seed, "dropout", index))


def dropout_layers(network: nn.Module) -> list[RandomLayer]:
    """Return all layers of a network that draw random numbers, such as dropout, in the order of its modules."""
    return [layer for layer in network.modules() if isinstance(layer, RandomLayer)]


def _band(kernel: Sequence[float], size: int) -> Float[Tensor, "size size"]:
    """Return the float64 matrix that filters ``size`` pixels with the kernel, scaled to a sum of 1 and zero outside."""
    half = len(kernel) // 2
    weights = torch.tensor(kernel, dtype=torch.float64, device="cpu") / math.fsum(kernel)
    offset = torch.arange(size, device="cpu") - torch.arange(size, device="cpu")[:, None] + half
    inside = (offset >= 0) & (offset < len(kernel))
    return weights[offset.clamp(0, len(kernel) - 1)] * inside


def _size(image: Tensor) -> str:
    return ", ".join(map(str, image.shape))
