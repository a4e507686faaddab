"""Augmentation of training images, drawn in advance for a whole epoch, and the views of test-time augmentation."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final

import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor
from torch.nn import functional

from stnbench.core.errors import InfeasibleError, ShapeError
from stnbench.core.identity import derive_seed
from stnbench.data import homographies
from stnbench.data.homographies import radians
from stnbench.nn.precision import exact_convolutions, full_precision
from stnbench.nn.sampling import sample
from stnbench.nn.transforms.base import pixel_centres
from stnbench.nn.transforms.homography import invert_homography
from stnbench.spec.augment import AugmentSpec, TtaSpec

# Random numbers of augmentation, drawn in advance for a whole epoch.


def draw_uniform(label: str, seed: int, epoch: int, shape: tuple[int, ...]) -> Float64[Tensor, "*shape"]:
    """Draw uniform numbers in [0, 1), float64 on the CPU.

    They depend on the arguments alone, and each label has separate numbers.
    """
    generator = torch.Generator("cpu").manual_seed(derive_seed(seed, "augment", label, epoch))
    return torch.rand(math.prod(shape), generator=generator, dtype=torch.float64, device="cpu").reshape(shape)


# The lightness of images, and changes of the lightness that keep the hue.


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


def with_lightness(
    images: Float[Tensor, "batch channels height width"], wanted: Float[Tensor, "batch lightnesses height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Return the images with another lightness and the same hue.

    All three colours move by the same amount, which keeps hue and chroma; where one would leave [0, 255], the pixel is
    moved towards its grey until none does, so that hue and lightness stay exact and only the saturation falls.

    Args:
        images: levels in [0, 255].
        wanted: the new lightness, in [0, 255]; images that are not RGB are replaced by it.
    """
    if images.shape[1] != COLOURS:
        return wanted
    chroma = images - lightness(images)
    above, below = chroma.amax(1, keepdim=True), -chroma.amin(1, keepdim=True)
    smallest = torch.finfo(images.dtype).tiny
    room = torch.minimum((BRIGHTEST - wanted) / above.clamp(min=smallest), wanted / below.clamp(min=smallest))
    return (chroma * room.clamp(max=1) + wanted).clamp(0, BRIGHTEST)


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
    """Draw a rectangle x1, y1, x2, y2 inside the image for every image of an epoch, on the CPU; None if ``share`` is 0.

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
        return Augmentations(**{name: None if part is None else part.to(device) for name, part in self._parts()})

    def rows(self, index: Tensor | slice) -> "Augmentations":
        """Return the augmentations of some images, for a batch."""
        return Augmentations(**{name: None if part is None else part[index] for name, part in self._parts()})

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

    def _parts(self) -> list[tuple[str, Tensor | None]]:
        return [(part.name, getattr(self, part.name)) for part in fields(self)]

    def _check(self, images: Tensor) -> None:
        for name, part in self._parts():
            if part is not None and len(part) != len(images):
                raise ShapeError(f"{name} of the augmentations", part.shape, f"{len(images)} rows, one an image")
        if self.colour is not None and self.colour.shape[-1] not in (1, images.shape[1]):
            raise ShapeError("a batch whose saturation or hue is varied", images.shape, "(batch, 3, height, width)")


def require_augmentable(spec: AugmentSpec, channels: int) -> None:
    """Raise InfeasibleError if the specification varies colours and the images are not RGB."""
    if spec.needs_rgb and channels != COLOURS:
        raise InfeasibleError(
            f"augment has saturation {spec.saturation} and hue_deg {spec.hue_deg}, and images have {channels} channels",
            remedy="only RGB images have colours: set augment.saturation=0 and augment.hue_deg=0",
        )


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


def view_moves(spec: TtaSpec) -> Float[Tensor, "views 3 3"]:
    """Return the homography that moves the content in each view: zoom, then rotation, then shift; float64 on the CPU.

    Convention: homographies of normalised (x, y), -1 and 1 at the outer edges of the image, from input to output.
    """
    zoom, angle_deg, y, x = torch.tensor(_view_grid(spec), dtype=torch.float64).unbind(1)
    turned = homographies.rotation(radians(angle_deg)) @ homographies.scaling(zoom, zoom)
    return homographies.translation(2 * x, 2 * y) @ turned


def _view_grid(spec: TtaSpec) -> list[tuple[float, float, float, float]]:
    """Return the zoom, rotation in degrees, and shift along y and x of each view."""
    steps = (-spec.shift, 0.0, spec.shift) if spec.shift > 0 else (0.0,)
    return list(itertools.product(spec.zooms, spec.rotations_deg, steps, steps))


_STILL: Final = (1.0, 0.0, 0.0, 0.0)
"""Zoom, rotation and shifts of the view that moves nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewMove:
    """One view: homographies (3, 3), float32 on the images' device, from input to output and back."""

    in_to_out: Float32[Tensor, "3 3"]
    out_to_in: Float32[Tensor, "3 3"]


def prepare_views(spec: TtaSpec, device: torch.device) -> tuple[ViewMove | None, ...]:
    """Return the move of each view on a device, None for a view that moves nothing."""
    moves = view_moves(spec)
    back = invert_homography(moves)
    return tuple(
        None if grid == _STILL else ViewMove(in_to_out.float().to(device), out_to_in.float().to(device))
        for grid, in_to_out, out_to_in in zip(_view_grid(spec), moves, back, strict=True)
    )


def each_view(
    moves: Sequence[ViewMove | None],
    images: UInt8[Tensor, "batch channels side side"] | Float32[Tensor, "batch channels side side"],
    boxes: Float[Tensor, "batch 4"],
) -> Iterator[tuple[Float32[Tensor, "batch channels side side"], Float[Tensor, "batch 4"]]]:
    """Yield the images, float32 in [0, 255], and the boxes, moved as in each view; borders are replicated outwards.

    A view that moves nothing yields the images unchanged, to the last bit.

    Args:
        moves: the views, as ``prepare_views`` returns them for the device of the images.
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
