"""Augmentation of training images, drawn in advance for a whole epoch, and the views of test-time augmentation."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from stnbench.core.errors import InfeasibleError, ShapeError, SpecError
from stnbench.core.identity import derive_seed
from stnbench.data import homographies
from stnbench.data.homographies import radians
from stnbench.nn.layers import exact_convolutions, full_precision
from stnbench.nn.sampling import sample
from stnbench.nn.transforms import pixel_centres
from stnbench.nn.transforms.nonlinear import invert_homography
from stnbench.spec.optimizer import AUGMENTATIONS, AugmentationSpec, AugmentSpec

# Contract of an augmentation. What it does to the images of an epoch is drawn before the epoch, on the CPU: a run that
# resumes from a checkpoint, runs on another device or in other batches varies images in the same way.


class Augmentation(ABC):
    """A random variation of training images, made from its specification.

    An instance keeps nothing between calls. Validation and test images are never varied.
    """

    def require_channels(self, channels: int) -> None:
        """Raise InfeasibleError if images of this number of channels cannot be varied."""
        del channels

    @abstractmethod
    def draw(self, *, seed: int, epoch: int, count: int) -> Mapping[str, Tensor]:
        """Draw the numbers of an epoch, on the CPU, from the arguments alone (see ``draw_uniform``).

        The names, the types and all but the first dimension of the tensors are the same in every epoch.

        Args:
            seed: the trial's seed.
            epoch: the epoch, from 0.
            count: number of images that the epoch visits.

        Returns:
            Tensors with ``count`` rows, by name; row i is for the i-th image that the epoch visits.
        """

    def moves(self, numbers: Mapping[str, Tensor]) -> Tensor | None:
        """Return the homographies (batch, 3, 3) that move the contents, in coordinates of boxes, or None."""
        del numbers
        return None

    @abstractmethod
    def apply(
        self,
        images: UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"],
        numbers: Mapping[str, Tensor],
    ) -> tuple[Float32[Tensor, "batch channels height width"], Float[Tensor, "batch 4"]]:
        """Return varied images, float32 in [0, 255], and the boxes x1, y1, x2, y2 around their contents, in [-1, 1].

        ``numbers`` are rows of the tensors that ``draw`` returned, one an image, on their device. On a GPU the call
        may be captured in a graph: it reads no value of a tensor into Python.
        """


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DrawnAugmentation:
    """An augmentation with the numbers of some images: tensors with one row an image, by name."""

    augmentation: Augmentation
    numbers: Mapping[str, Tensor]

    def to(self, device: torch.device) -> "DrawnAugmentation":
        """Return the same numbers on a device."""
        numbers = {name: part.to(device) for name, part in self.numbers.items()}
        return DrawnAugmentation(augmentation=self.augmentation, numbers=numbers)

    def rows(self, index: Tensor | slice) -> "DrawnAugmentation":
        """Return the numbers of some images, for a batch."""
        numbers = {name: part[index] for name, part in self.numbers.items()}
        return DrawnAugmentation(augmentation=self.augmentation, numbers=numbers)

    def apply(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the varied images, float32 in [0, 255], and the boxes around their contents.

        Raises:
            ShapeError: if the number of images does not fit, or images or boxes change their shape.
        """
        varied, moved = self.augmentation.apply(images, boxes, self.numbers)
        if varied.shape != images.shape or varied.dtype != torch.float32:
            raise ShapeError("images of an augmentation", varied.shape, f"{tuple(images.shape)}, float32")
        if moved.shape != boxes.shape:
            raise ShapeError("boxes of an augmentation", moved.shape, str(tuple(boxes.shape)))
        return varied, moved


def build_augmentation(spec: AugmentationSpec) -> Augmentation:
    """Return the augmentation of a specification.

    Raises:
        UnknownNameError: if it is not registered.
        SpecError: if one from outside is not an ``Augmentation``.
    """
    made = AUGMENTATIONS.implementation(spec.kind)(spec)
    if not isinstance(made, Augmentation):
        problem = f"the augmentation {spec.kind} is {type(made).__name__}"
        raise SpecError(problem, remedy="register a class that extends stnbench.data.augmentation.Augmentation")
    return made


def draw_augmentation(spec: AugmentationSpec, *, seed: int, epoch: int, count: int) -> DrawnAugmentation:
    """Build an augmentation and draw the numbers of an epoch; see ``Augmentation.draw``.

    Raises:
        UnknownNameError: if it is not registered.
        SpecError: if one from outside is not an ``Augmentation``, or draws other rows than one an image.
    """
    made = build_augmentation(spec)
    numbers = made.draw(seed=seed, epoch=epoch, count=count)
    for name, part in numbers.items():
        if not isinstance(part, Tensor) or part.device.type != "cpu" or part.shape[:1] != (count,):
            found = f"shape {tuple(part.shape)} on {part.device}" if isinstance(part, Tensor) else type(part).__name__
            problem = f"the augmentation {spec.kind} draws {name} as {found}"
            raise SpecError(problem, remedy=f"return a tensor with {count} rows, one an image, on the CPU")
    return DrawnAugmentation(augmentation=made, numbers=numbers)


# Random numbers of augmentation, drawn in advance for a whole epoch.


def draw_uniform(label: str, seed: int, epoch: int, shape: tuple[int, ...]) -> Float64[Tensor, "*shape"]:
    """Draw uniform numbers in [0, 1), float64 on the CPU.

    They depend on the arguments alone, and each label has separate numbers.
    """
    generator = torch.Generator("cpu").manual_seed(derive_seed(seed, "augment", label, epoch))
    return torch.rand(math.prod(shape), generator=generator, dtype=torch.float64, device="cpu").reshape(shape)


# The lightness of images.


LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in the luma of gamma-encoded RGB (Rec. ITU-R BT.601)."""

COLOURS = 3

BRIGHTEST = 255.0
"""The highest level; levels are 8-bit intensities, including fractions."""


def lightness(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch lightnesses height width"]:
    """Return the luma (batch, 1, height, width) of RGB images; return others unchanged, each channel as a lightness."""
    if images.shape[1] != COLOURS:
        return images
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


# Gamma: shadows become darker or lighter while light parts change less, as when a camera exposes for the sky behind
# a sign.


def draw_gamma(octaves: float, *, seed: int, epoch: int, count: int) -> Float[Tensor, " n"] | None:
    """Draw a gamma exponent for every image of an epoch, on the CPU; return None if ``octaves`` is 0.

    Its logarithm to base 2 is uniform from minus to plus ``octaves``.
    """
    if octaves == 0:
        return None
    return 2 ** (octaves * (2 * draw_uniform("gamma", seed, epoch, (count,)) - 1))


def apply_gamma(
    levels: Float[Tensor, "batch channels height width"], exponent: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels height width"]:
    """Raise the levels, as shares of the brightest, to the power of the image's exponent; black and white stay.

    Args:
        levels: levels in [0, 255].
        exponent: one per image, above 0; below 1 shadows become lighter, above 1 darker.
    """
    return levels.div(BRIGHTEST).pow(exponent[:, None, None, None]).mul_(BRIGHTEST)


# Effects that hide a sign: blur and erased rectangles. Their numbers are drawn in advance, as for all augmentation.


_SIGMA_PX: Final = 1.25
_REACH_PX: Final = 2
"""Half width of the Gaussian kernel; 4 percent of the weight lie beyond it."""


def draw_blur(share: float, *, seed: int, epoch: int, count: int) -> Float[Tensor, " n"] | None:
    """Draw a share from minus to plus ``share`` for every image of an epoch, on the CPU; return None if it is 0."""
    if share == 0:
        return None
    return share * (2 * draw_uniform("blur", seed, epoch, (count,)) - 1)


def draw_erased(share: float, *, seed: int, epoch: int, count: int) -> Float[Tensor, "n 4"] | None:
    """Draw a rectangle (x1, y1, x2, y2) for every image of an epoch, on the CPU, or None if ``share`` is 0.

    Its sides are uniform from 0 to ``share`` of the image's sides, and its position is uniform too. Coordinates are
    normalised, -1 and 1 at the outer edges.
    """
    if share == 0:
        return None
    drawn = draw_uniform("erase", seed, epoch, (count, 4))
    sides = 2 * share * drawn[:, :2]
    start = -1 + drawn[:, 2:] * (2 - sides)
    return torch.cat([start, start + sides], dim=1)


def blurred(
    levels: Float[Tensor, "batch channels height width"], share: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels height width"]:
    """Interpolate between the images and their Gaussian blur, or extrapolate where the share is negative.

    The result is clipped to [0, 255]; border pixels are replicated for the blur.
    """
    channels, reach = levels.shape[1], _REACH_PX
    offsets = torch.arange(-reach, reach + 1, dtype=levels.dtype, device=levels.device)
    kernel = torch.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1)
    padded = functional.pad(levels, (reach, reach, reach, reach), mode="replicate")
    with exact_convolutions():
        mean = functional.conv2d(padded, kernel[:, :, None, :], groups=channels)
        mean = functional.conv2d(mean, kernel[:, :, :, None], groups=channels)
    return torch.lerp(levels, mean, share[:, None, None, None]).clamp_(0, BRIGHTEST)


def erased(
    levels: Float[Tensor, "batch channels height width"], boxes: Float[Tensor, "batch 4"]
) -> Float[Tensor, "batch channels height width"]:
    """Paint every pixel whose centre lies in the image's box in the image's mean colour.

    Boxes are x1, y1, x2, y2 in normalised coordinates.
    """
    height, width = levels.shape[-2:]
    x, y = pixel_centres((height, width), align_corners=False, like=levels).unbind(-1)
    x1, y1, x2, y2 = (edge[:, None] for edge in boxes.unbind(1))
    covered = ((x >= x1) & (x < x2) & (y >= y1) & (y < y2)).reshape(-1, 1, height, width)
    return torch.where(covered, levels.mean(dim=(2, 3), keepdim=True), levels)


# Augmentation on the device: a batch of images is varied by one resampling and one colour map.
#
# All numbers of an epoch are drawn in advance, on the CPU, from the trial's seed. They depend neither on the device
# nor on the batch size, a run that resumes from a checkpoint gets the same ones, and two trials with one seed get the
# same ones for every kind of variation that both have.


_CORNERS: Final = 8
_OTHERS: Final = 10
"""Numbers drawn per image, whatever is specified, so that one kind of variation does not shift the others."""

_BLUE_DIFFERENCE: Final = (-0.14713, -0.28886, 0.43599)
_RED_DIFFERENCE: Final = (0.615, -0.51499, -0.10001)
"""The chroma of RGB (U and V of PAL); both are 0 for greys."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Augmentations:
    """The augmentation parameters of n images; 4 MB for GTSRB's 39,209.

    Attributes:
        in_to_out: (n, 3, 3), the homography that moves the content of the image, in normalised coordinates with -1 and
            1 at the outer edges; None without geometric variation.
        out_to_in: (n, 3, 3), its inverse, which gives the positions where output pixels are read.
        colour: the matrix from old to new colours, (n, 3, 3), or (n, 1, 1) where all channels are treated the same;
            None without a change of levels.
        mean_share: (n,), the share of the image's mean lightness that is then added.
        gamma: (n,), the exponent of the levels, above 0; None without gamma.
        blur: (n,), the share of the way to the blurred image, negative away from it; None without blur.
        erased: (n, 4), x1, y1, x2, y2 of the rectangle that is painted over, in coordinates as above; None without one.
    """

    in_to_out: Tensor | None
    out_to_in: Tensor | None
    colour: Tensor | None
    mean_share: Tensor | None
    gamma: Tensor | None = None
    blur: Tensor | None = None
    erased: Tensor | None = None

    def to(self, device: torch.device) -> "Augmentations":
        """Return the same augmentations on a device."""
        return Augmentations(**{name: None if part is None else part.to(device) for name, part in self.parts()})

    def rows(self, index: Tensor | slice) -> "Augmentations":
        """Return the augmentations of some images, for a batch."""
        return Augmentations(**{name: None if part is None else part[index] for name, part in self.parts()})

    def apply(
        self,
        images: UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"],
    ) -> tuple[Float32[Tensor, "batch channels height width"], Float[Tensor, "batch 4"]]:
        """Return the augmented images, float32 in [0, 255], and the boxes around the moved contents of ``boxes``.

        Args:
            images: as many as there are augmentations, as high as wide, since angles are those of the square.
            boxes: x1, y1, x2, y2, normalised as ``in_to_out``; the returned boxes are clipped to the image.

        Raises:
            ShapeError: if the number of images or of channels does not fit.
        """
        self._check(images)
        levels = images.to(torch.float32)
        with full_precision(images.device.type):
            if self.in_to_out is not None and self.out_to_in is not None:
                levels = _resampled(levels, self.out_to_in)
                boxes = homographies.map_boxes(self.in_to_out, boxes)
            if self.gamma is not None:
                levels = apply_gamma(levels, self.gamma)
            if self.colour is not None and self.mean_share is not None:
                levels = _coloured(levels, self.colour, self.mean_share)
            if self.blur is not None:
                levels = blurred(levels, self.blur)
            if self.erased is not None:
                levels = erased(levels, self.erased)
        return levels, boxes

    def parts(self) -> list[tuple[str, Tensor | None]]:
        """Return the parameters by name, or None for a variation that is disabled."""
        return [(part.name, getattr(self, part.name)) for part in fields(self)]

    def _check(self, images: Tensor) -> None:
        for name, part in self.parts():
            if part is not None and len(part) != len(images):
                raise ShapeError(f"{name} of the augmentations", part.shape, f"{len(images)} rows, one an image")
        if self.colour is not None and self.colour.shape[-1] not in (1, images.shape[1]):
            raise ShapeError("a batch whose saturation or hue is varied", images.shape, "(batch, 3, height, width)")


class RandomAugmentation(Augmentation):
    """The variations that ``AugmentSpec`` describes."""

    def __init__(self, spec: AugmentSpec) -> None:
        self.spec = spec

    @override
    def require_channels(self, channels: int) -> None:
        spec = self.spec
        if spec.needs_rgb and channels != COLOURS:
            varied = f"saturation {spec.saturation} and hue_deg {spec.hue_deg}"
            raise InfeasibleError(
                f"augment has {varied}, and images have {channels} channels",
                remedy="only RGB images have colours: set augment.saturation=0 and augment.hue_deg=0",
            )

    @override
    def draw(self, *, seed: int, epoch: int, count: int) -> dict[str, Tensor]:
        drawn = draw_augmentations(self.spec, seed=seed, epoch=epoch, count=count)
        return {name: part for name, part in drawn.parts() if part is not None}

    @override
    def moves(self, numbers: Mapping[str, Tensor]) -> Tensor | None:
        return numbers.get("in_to_out")

    @override
    def apply(self, images: Tensor, boxes: Tensor, numbers: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        parts = {field.name: numbers.get(field.name) for field in fields(Augmentations)}
        return Augmentations(**parts).apply(images, boxes)


def draw_augmentations(spec: AugmentSpec, *, seed: int, epoch: int, count: int) -> Augmentations:
    """Draw the augmentations of an epoch, on the CPU; row i is for the i-th image that the epoch visits.

    They depend on the arguments alone.
    """
    generator = torch.Generator("cpu").manual_seed(derive_seed(seed, "augment", epoch))
    uniform = torch.rand(count, _OTHERS + _CORNERS, generator=generator, dtype=torch.float64, device="cpu")
    drawn = 2 * uniform - 1
    in_to_out = _content_moves(spec, drawn) if spec.is_geometric else None
    colour, mean_share = _colour_maps(spec, drawn) if spec.is_colour else (None, None)
    return Augmentations(
        in_to_out=_single(in_to_out),
        out_to_in=_single(None if in_to_out is None else invert_homography(in_to_out)),
        colour=_single(colour),
        mean_share=_single(mean_share),
        gamma=_single(draw_gamma(spec.gamma, seed=seed, epoch=epoch, count=count)),
        blur=_single(draw_blur(spec.blur, seed=seed, epoch=epoch, count=count)),
        erased=_single(draw_erased(spec.erase, seed=seed, epoch=epoch, count=count)),
    )


def _content_moves(spec: AugmentSpec, drawn: Float[Tensor, "n numbers"]) -> Float[Tensor, "n 3 3"]:
    """Return the homographies of the content: perspective first, then scale and aspect, shear, rotation, translation.

    Coordinates are normalised: a side of the image has length 2.
    """
    scale, stretch = 1 + spec.scale * drawn[:, 0], (1 + spec.aspect * drawn[:, 1]).sqrt()
    corners = homographies.moving_corners(2 * spec.perspective * drawn[:, _OTHERS:])
    x, y = (2 * spec.translation * drawn[:, 4:6]).unbind(1)
    moves = homographies.scaling(scale * stretch, scale / stretch) @ corners
    moves = homographies.shearing(radians(spec.shear_deg * drawn[:, 2])) @ moves
    return homographies.translation(x, y) @ homographies.rotation(radians(spec.rotation_deg * drawn[:, 3])) @ moves


def _colour_maps(
    spec: AugmentSpec, drawn: Float[Tensor, "n numbers"]
) -> tuple[Float[Tensor, "n colours colours"], Float[Tensor, " n"]]:
    """Return the colour matrices of a batch, and the share of each image's mean lightness that is added to it.

    Apply them as ``out = matrix @ pixel + share * mean_lightness``. All four variations (brightness, contrast,
    saturation, hue) are linear maps that keep grey grey, and the last two keep the luma, so that one matrix covers them
    all.
    """
    brightness, contrast = 1 + spec.brightness * drawn[:, 6], 1 + spec.contrast * drawn[:, 7]
    colour = (brightness * contrast)[:, None, None]
    if spec.needs_rgb:
        colour = colour * _chroma_maps(1 + spec.saturation * drawn[:, 8], radians(spec.hue_deg * drawn[:, 9]))
    return colour, brightness * (1 - contrast)


def _chroma_maps(factor: Float[Tensor, " n"], angle_rad: Float[Tensor, " n"]) -> Float[Tensor, "n 3 3"]:
    """Return matrices that rotate the chroma of RGB by an angle, from red by yellow to green, and scale it.

    The rotation is in the plane of U and V rather than in HSV's hue: it is linear, and keeps the luma, where HSV keeps
    the largest of the three levels.
    """
    to_yuv = factor.new_tensor([LUMA, _BLUE_DIFFERENCE, _RED_DIFFERENCE])
    turn = homographies.rotation(angle_rad)[:, :2, :2]
    in_yuv = torch.zeros(len(factor), 3, 3, dtype=factor.dtype, device=factor.device)
    in_yuv[:, 0, 0] = 1
    in_yuv[:, 1:, 1:] = factor[:, None, None] * turn
    to_rgb: Tensor = torch.linalg.inv(to_yuv)
    return to_rgb @ in_yuv @ to_yuv


def _single(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.to(torch.float32)


def _resampled(
    levels: Float32[Tensor, "batch channels side side"], out_to_in: Float32[Tensor, "batch 3 3"]
) -> Float32[Tensor, "batch channels side side"]:
    """Sample the images bilinearly at the positions of the output pixels; border pixels are replicated outwards."""
    side = levels.shape[-1]
    points = homographies.map_points(out_to_in, pixel_centres((side, side), align_corners=False, like=levels)[None])
    grid = points.reshape(-1, side, side, 2)
    sampled = sample(levels, grid, sampler="bilinear", padding="border", align_corners=False)
    return sampled.clamp_(0, BRIGHTEST)


def _coloured(
    levels: Float32[Tensor, "batch channels height width"],
    colour: Float32[Tensor, "batch colours colours"],
    mean_share: Float32[Tensor, " batch"],
) -> Float32[Tensor, "batch channels height width"]:
    """Map the colours of the images and add the share of the mean lightness; only the sum is clipped to [0, 255]."""
    mean = lightness(levels).mean(dim=(2, 3), keepdim=True) * mean_share[:, None, None, None]
    mapped = (
        levels * colour[..., None]
        if colour.shape[-1] == 1
        else torch.bmm(colour, levels.flatten(2)).reshape(levels.shape)
    )
    return mapped.add_(mean).clamp_(0, BRIGHTEST)


# The views of an image (``spec.tta``), each made by one resampling.


def each_view(
    moves: Sequence[homographies.ViewMove | None],
    images: UInt8[Tensor, "batch channels side side"] | Float32[Tensor, "batch channels side side"],
    boxes: Float[Tensor, "batch 4"],
) -> Iterator[tuple[Float32[Tensor, "batch channels side side"], Float[Tensor, "batch 4"]]]:
    """Yield the images, float32 in [0, 255], and the boxes, moved as in each view; borders are replicated outwards.

    A view that moves nothing yields the images unchanged, to the last bit.

    Args:
        moves: the views, as ``homographies.prepare_views`` returns them for the device of the images.
        images: the images as they are.
        boxes: the boxes of their signs, -1 and 1 at the outer edges of the image.
    """
    for move in moves:
        if move is None:
            yield images.float(), boxes
            continue
        moved = Augmentations(
            in_to_out=move.in_to_out.expand(len(images), 3, 3).contiguous(),
            out_to_in=move.out_to_in.expand(len(images), 3, 3).contiguous(),
            colour=None,
            mean_share=None,
        )
        yield moved.apply(images, boxes)
