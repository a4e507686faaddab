"""The spatial transformer layer: a localisation network, a transformation and a sampler in one module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from stnbench.core.errors import InfeasibleError, ShapeError, SpecError, require
from stnbench.nn.initialization import MapSize, part_generator
from stnbench.nn.layers import StudentNoise
from stnbench.nn.localization import Localization, build_localization
from stnbench.nn.sampling import outside_share, sample
from stnbench.nn.transforms import StudentT, Transformation, first_order, pixel_centres
from stnbench.nn.transforms.affine import AffineTransformation, box_parameters
from stnbench.nn.transforms.registry import build_transformation
from stnbench.spec.codec import from_plain
from stnbench.spec.transformer import AnyTransformer, ConvLocnetSpec, LocnetSpec, PlacedTransformerSpec, TransformerSpec

# Bounds on the scale of a transformation of any family.


_SMALLEST_SPREAD = 1e-6
"""Lower bound of the spread of sampling points: closer points have no scale that could be corrected."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScaleGuard:
    """Bounds on the scale of a transformation of any family, applied to the sampling points of each image.

    The scale of an image is the root mean square distance of its sampling points from their mean over that of the
    output's points: 1 for a movement, 2 where twice as wide a region is read, for affine maps a mean of the singular
    values. Where it leaves its bounds, all points are drawn towards their mean or away from it until it is on the
    bound; the rest of the transformation, and its gradient, stays.

    Attributes:
        centre: (batch, 1, 2), the mean of the sampling points.
        factor: (batch, 1, 1), the factor of the distances from the mean; 1 where the scale is within its bounds.
    """

    centre: Tensor
    factor: Tensor

    @classmethod
    def fit(
        cls,
        points: Float[Tensor, "batch points 2"],
        output_points: Float[Tensor, "1 points 2"],
        *,
        low: float | None,
        high: float | None,
    ) -> "ScaleGuard":
        """Return the guard for sampling points of the output points, with bounds on their scale; None is no bound."""
        centre = points.mean(dim=1, keepdim=True)
        scale = (_spread(points) / _spread(output_points)).clamp(min=_SMALLEST_SPREAD)
        return cls(centre=centre, factor=torch.clamp(scale, min=low, max=high) / scale)

    def on_cpu(self) -> "ScaleGuard":
        """Return the same guard, detached and on the CPU."""
        return ScaleGuard(centre=self.centre.detach().cpu(), factor=self.factor.detach().cpu())

    def apply(self, points: Float[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Return the sampling points under the guard, bitwise unchanged where the factor is 1."""
        moved = self.centre + self.factor * (points - self.centre)
        return torch.where(self.factor == 1, points, moved)


def _spread(points: Tensor) -> Tensor:
    """Return the root mean square distance of the points from their mean, (batch, 1, 1)."""
    variance = points.var(dim=1, correction=0, keepdim=True).sum(dim=-1, keepdim=True)
    return variance.clamp(min=_SMALLEST_SPREAD**2).sqrt()


_ROUNDING = 1e-6
"""Tolerance of the squared distance of a pixel's centre from that of the image."""

Look = Callable[[Tensor], Tensor]
"""Function from images to the input of a localisation network, such as the output of the stages that it shares."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Transformed:
    """Output of a spatial transformer: the images, and the transformation that was applied to them.

    Attributes:
        images: (batch, channels, height, width), the output.
        parameters: (batch, parameters) for each iteration, as the localisation network emitted them.
        grid: (batch, height, width, 2), the (x, y) of the input that every output pixel was read at.
        penalty: a scalar for the loss, the weighted distance from the identity plus the family's penalty; None where
            there is neither.
        transformation: the family, which maps points by the parameters.
        guard: the guard on the scale, None where there is none.
        align_corners: whether -1 and 1 in coordinates are the centres of the border pixels, or their outer edges.
    """

    images: Tensor
    parameters: tuple[Tensor, ...]
    grid: Tensor
    penalty: Tensor | None
    transformation: Transformation
    guard: ScaleGuard | None
    align_corners: bool

    def map_points(self, points: Float[Tensor, "#batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Return the points of the input at which points (x, y) of the output were read, detached.

        Iterations are composed, and the guard is included.
        """
        return compose(self.transformation, tuple(step.detach() for step in self.parameters), points, self.guard)

    @property
    def theta_out_to_in(self) -> Float[Tensor, "batch 2 3"]:
        """Return the matrix of every image from output to input coordinates, at least float32, detached.

        It is exact for a single affine transformation, otherwise the first-order approximation at the centre of the
        output.
        """
        return theta_out_to_in(self.transformation, tuple(step.detach() for step in self.parameters), self.guard)

    @property
    def outside_share(self) -> Float[Tensor, " batch"]:
        """Return the share, in [0, 1], of every image's sampling points outside the image, detached."""
        return outside_share(self.grid)


class SpatialTransformer(nn.Module):
    """Layer that predicts a transformation of each image, and resamples the image by it (Jaderberg et al. 2015).

    With more than one iteration, the localisation network sees its own output again (Lin & Lucey 2017); the
    transformations are composed, the latest one applied to the output's points first, and the original images are read
    with the result. The output is as large as the input, or ``output_size`` pixels a side; the images of later
    iterations are always as large as the input.

    A new transformer is the identity: its last layer has zero weights. The other weights are drawn from torch's
    generator, which ``torch.manual_seed`` sets.

    Convention: theta maps output to input coordinates: ``(x_in, y_in) = theta (x_out, y_out, 1)``, normalised to [-1,
    1], x to the right and y down, as in ``torch.nn.functional.affine_grid``. An absolute determinant below 1 enlarges.
    ``align_corners`` says whether -1 and 1 are the centres of the border pixels or their outer edges.

    Args:
        family: a family of transformations by name (``"affine"``, ``"tps"``, ...), or its whole specification.
        in_channels: the number of channels of the images.
        size: the height and width of the images in pixels, or the side of square ones.
        locnet: the localisation network: three sizes ``a, b, c`` for two convolutions of 5 x 5 and a hidden layer, or a
            specification. A control (``fixed_zoom``, ``roi``) has none, and the argument is ignored.
        draw: whether to draw the weights now; False leaves them zero, for weights that are loaded or drawn later.
        **options: keys of the transformer's specification, for a family given by name: the sampling (``sampler``,
            ``padding``, ``align_corners``, ``output_size``), the number of iterations (``iterations``), limits
            (``scale_min``, ``scale_max``, ``identity_penalty``), and the family's options (``control_points``).

    Raises:
        UnknownNameError: for an option or family that does not exist.
        SpecError: for an option with an invalid value.
        InfeasibleError: where the images are too small for the localisation network.

    Shape:
        - Input: (batch, in_channels, height, width).
        - Output: (batch, in_channels, out_height, out_width); theta (batch, 2, 3).

    Example:
        >>> import torch
        >>> from stnbench.nn import SpatialTransformer
        >>> transformer = SpatialTransformer("affine", in_channels=3, size=48, locnet=(20, 20, 20))
        >>> images = torch.rand(2, 3, 48, 48)
        >>> straightened, theta = transformer(images, return_theta=True)
        >>> straightened.shape, theta.shape
        (torch.Size([2, 3, 48, 48]), torch.Size([2, 2, 3]))
    """

    place_of_work: Tensor

    def __init__(
        self,
        family: str | TransformerSpec = "affine",
        *,
        in_channels: int,
        size: int | tuple[int, int],
        locnet: Sequence[int] | LocnetSpec | None = (20, 20, 20),
        draw: bool = True,
        **options: Any,  # noqa: ANN401 - checked against the specification
    ) -> None:
        super().__init__()
        self.spec = _transformer_spec(family, options)
        self.transformation = build_transformation(self.spec)
        self.localization: Localization | None = None
        self.noise = None if self.spec.posterior is None else StudentNoise()
        if not self.spec.is_control:
            height, width = (size, size) if isinstance(size, int) else size
            locnet_input = MapSize(in_channels, height, width)
            identity, orbit = self.transformation.identity_parameters(), self.transformation.orbit(torch.device("cpu"))
            emitted = identity if orbit is None else identity[:1]  # one number a copy
            self.localization = build_localization(_locnet_spec(locnet), locnet_input, identity=emitted)
            self.localization.copies = 1 if orbit is None else orbit.shape[0]
        if draw:
            self.initialize()
        self.register_buffer("place_of_work", torch.empty(0), persistent=False)
        self.transformation.prepare(self.place_of_work.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SpatialTransformer":  # noqa: FBT001, FBT002 - torch's
        """Apply a function to all tensors, as torch does, and move the transformation's constants to their device."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.transformation.prepare(self.place_of_work.device)
        return self

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"] | None = None,
        *,
        return_theta: bool = False,
    ) -> (
        Float[Tensor, "batch channels out_height out_width"]
        | tuple[Float[Tensor, "batch channels out_height out_width"], Float[Tensor, "batch 2 3"]]
    ):
        """Return the transformed images, with the matrices of the transformations if ``return_theta`` is True.

        Args:
            images: the images.
            boxes: as in ``explain``.
            return_theta: also return theta (batch, 2, 3), from output to input coordinates; exact for affine families,
                the first-order approximation at the centre of the output for others. Gradients pass.

        Raises:
            ShapeError: where the localisation network was made for images of another size, or ``roi`` has no boxes.
        """
        done = self.explain(images, boxes)
        if not return_theta:
            return done.images
        return done.images, theta_out_to_in(self.transformation, done.parameters, done.guard)

    def explain(
        self,
        images: Float[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"] | None = None,
        look: Look | None = None,
    ) -> Transformed:
        """Return the transformed images with the transformations that were applied, in one pass.

        Args:
            images: the images.
            boxes: x1, y1, x2, y2 of the sign in every image, normalised, -1 and 1 at the outer edges of the image; used
                by the control ``roi`` alone.
            look: a function from images to the input of the localisation network; None for the images themselves.

        Raises:
            ShapeError: where the localisation network was made for images of another size, or ``roi`` has no boxes.
        """
        parameters: tuple[Tensor, ...] = (self._locate(images, boxes, look),)
        while len(parameters) < self.spec.iterations:
            again = self._read(images, parameters, size=_size(images)).images
            parameters = (*parameters, self._locate(again, boxes, look))
        return self._read(images, parameters, size=self.output_size(_size(images)))

    def locate(
        self, images: Float[Tensor, "batch channels height width"], look: Look | None = None
    ) -> Float[Tensor, "batch parameters"]:
        """Return the parameters that the localisation network chooses for every image in the first iteration."""
        return self._locate(images, None, look)

    def transform(
        self,
        images: Float[Tensor, "batch channels height width"],
        parameters: Float[Tensor, "rows parameters"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the images transformed by given parameters of the family, one row for each image.

        Raises:
            ShapeError: where the number of parameters is not the family's, or that of rows not that of images.
        """
        return self._read(images, (parameters,), size=self.output_size(_size(images))).images

    def output_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of the output in pixels for an input of a height and a width."""
        side = self.spec.output_size
        return input_size if side is None else (side, side)

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights so that the transformer is the identity; None uses torch's global generator."""
        if self.localization is not None:
            self.localization.initialize(generator)

    def _locate(self, images: Tensor, boxes: Tensor | None, look: Look | None) -> Tensor:
        if self.localization is not None:
            seen = self._copies(images)
            parameters: Tensor = self.localization(seen if look is None else look(seen))
            return self._drawn(parameters)
        if not self.spec.reads_boxes:
            return images.new_zeros(images.shape[0], self.transformation.number_of_parameters)
        if boxes is None:
            raise ShapeError(f"the boxes for {self.spec.family}", (), f"({images.shape[0]}, 4), one an image")
        height, width = images.shape[-2:]
        return box_parameters(boxes, (height, width), align_corners=self.spec.align_corners)

    def _drawn(self, parameters: Tensor) -> Tensor:
        """Return parameters drawn from the emitted ones where these are a distribution, else the emitted ones."""
        if self.noise is None or not isinstance(self.transformation, StudentT):
            return parameters
        return self.transformation.moved(parameters, self.noise(*self.transformation.split(parameters)))

    def _copies(self, images: Tensor) -> Tensor:
        """Return the images, or for families with an orbit the copies of each, one after the other, without corners."""
        orbit = self.transformation.orbit(images.device)
        if orbit is None:
            return images
        size, spec = _size(images), self.spec
        centres = pixel_centres(size, align_corners=spec.align_corners, like=orbit)
        disc = (centres.square().sum(dim=-1) <= 1 + _ROUNDING).reshape(size).to(images.dtype)
        copies = []
        for parameters in orbit.unbind():
            rows = parameters.expand(images.shape[0], -1)
            grid = self.transformation.grid(rows, size, align_corners=spec.align_corners)
            copies.append(
                sample(images, grid, sampler=spec.sampler, padding=spec.padding, align_corners=spec.align_corners)
            )
        return torch.stack([copy * disc for copy in copies], dim=1).flatten(0, 1)

    def _read(self, images: Tensor, parameters: tuple[Tensor, ...], *, size: tuple[int, int]) -> Transformed:
        height, width = size
        if parameters[0].shape[0] != images.shape[0]:
            expected = f"({images.shape[0]}, {self.transformation.number_of_parameters}), one row an image"
            raise ShapeError("the parameters of the spatial transformer", parameters[0].shape, expected)
        spec = self.spec
        like = self.transformation.checked(parameters[0])
        centres = pixel_centres((height, width), align_corners=spec.align_corners, like=like)[None]
        points = compose(self.transformation, parameters, centres)
        guard = None
        if spec.scale_min is not None or spec.scale_max is not None:
            guard = ScaleGuard.fit(points, centres, low=spec.scale_min, high=spec.scale_max)
            points = guard.apply(points)
        grid = points.reshape(images.shape[0], height, width, 2)
        own_penalties = [self.transformation.penalty(step) for step in parameters]
        penalties = [own for own in own_penalties if own is not None]
        if spec.identity_penalty:
            penalties.append(spec.identity_penalty * (points - centres).square().sum(dim=-1).mean())
        return Transformed(
            images=sample(images, grid, sampler=spec.sampler, padding=spec.padding, align_corners=spec.align_corners),
            parameters=parameters,
            grid=grid,
            penalty=None if not penalties else penalties[0] if len(penalties) == 1 else torch.stack(penalties).sum(),
            transformation=self.transformation,
            guard=guard,
            align_corners=spec.align_corners,
        )


def _size(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return height, width


def compose(
    transformation: Transformation,
    parameters: tuple[Tensor, ...],
    points: Float[Tensor, "#batch points 2"],
    guard: ScaleGuard | None = None,
) -> Float[Tensor, "batch points 2"]:
    """Return (x, y) of the output mapped to the input by all iterations, the latest first, then by the guard.

    ``parameters`` holds those of each iteration, (batch, parameters), the earliest first.
    """
    for step in reversed(parameters):
        points = transformation.map_points(step, points)
    return points if guard is None else guard.apply(points)


def theta_out_to_in(
    transformation: Transformation, parameters: tuple[Tensor, ...], guard: ScaleGuard | None
) -> Float[Tensor, "batch 2 3"]:
    """Return the matrix of every image from output to input coordinates, at least float32.

    It is exact for a single affine transformation without a guard, otherwise the first-order approximation at the
    centre of the output. Gradients pass.
    """
    if len(parameters) == 1 and guard is None and isinstance(transformation, AffineTransformation):
        return transformation.theta_out_to_in(parameters[0])
    return first_order(lambda points: compose(transformation, parameters, points, guard), like=parameters[0])


def build_spatial_transformer(spec: PlacedTransformerSpec, locnet_input: MapSize) -> SpatialTransformer:
    """Return the spatial transformer of a specification, with weights that are zero until they are drawn.

    Args:
        spec: the transformer and its place.
        locnet_input: the size of the maps that its localisation network sees.

    Raises:
        InfeasibleError: where the maps are too small for it, or ``roi`` stands behind the image; the message names the
            place.
    """
    if spec.transformer.reads_boxes and spec.place > 1:
        problem = f"the control {spec.transformer.family} stands at place {spec.place}"
        raise InfeasibleError(problem, remedy="the annotated box is one of the image: place 1 only")
    size = (locnet_input.height, locnet_input.width)
    try:
        return SpatialTransformer(
            spec.transformer, in_channels=locnet_input.channels, size=size, locnet=spec.locnet, draw=False
        )
    except InfeasibleError as error:
        raise InfeasibleError(f"at place {spec.place}, {error.problem}", remedy=error.remedy) from error


def _transformer_spec(family: str | TransformerSpec, options: Mapping[str, Any]) -> TransformerSpec:
    where = "SpatialTransformer"
    if isinstance(family, str):
        spec: TransformerSpec = from_plain(cast("Any", AnyTransformer), {"family": family, **options}, where=where)
        for key in ("branches", "output_pooling"):
            count = getattr(spec, key)
            require(count == 1, key, count, "1: several branches and pooling belong to ParallelTransformers")
        return spec
    require(not options, "options", list(options), "none beside a whole specification: say them in it")
    return family


def _locnet_spec(locnet: Sequence[int] | LocnetSpec | None) -> LocnetSpec:
    if locnet is None:
        raise SpecError("locnet is None", remedy="give three sizes: only controls have no localisation network")
    if isinstance(locnet, Sequence):
        return from_plain(ConvLocnetSpec, {"sizes": list(locnet)}, where="SpatialTransformer", prefix="locnet")
    return locnet


# All spatial transformers at one place, side by side, with outputs joined by channel.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlaceOutput:
    """Output of all spatial transformers at one place.

    Attributes:
        maps: (batch, out_channels, out_height, out_width), the outputs joined by channel and pooled.
        branches: the output of each spatial transformer, in order.
    """

    maps: Tensor
    branches: tuple[Transformed, ...]


class ParallelTransformers(nn.Module):
    """Spatial transformers side by side at one place, then average pooling if the specification asks for it.

    The output has ``branches`` times the channels of the input (Jaderberg et al. 2015, MNIST addition).

    Args:
        spec: the place and the transformer.
        input_size: the size of the maps that are transformed.
        locnet_input: the size of the maps that the localisation networks see.

    Raises:
        InfeasibleError: where these maps are too small.
    """

    def __init__(self, spec: PlacedTransformerSpec, input_size: MapSize, locnet_input: MapSize) -> None:
        super().__init__()
        transformer = spec.transformer
        self.place = spec.place
        self.pooling = transformer.output_pooling
        self.branches = nn.ModuleList(
            build_spatial_transformer(spec, locnet_input) for _ in range(transformer.branches)
        )
        height, width = self.transformers()[0].output_size((input_size.height, input_size.width))
        written = replace(input_size, height=height, width=width)
        self.output_size = replace(
            written,
            channels=input_size.channels * transformer.branches,
            height=height // self.pooling,
            width=width // self.pooling,
        )
        if self.output_size.is_empty:
            problem = f"at place {spec.place}, output_pooling {self.pooling} leaves nothing of a {written} map"
            raise InfeasibleError(problem, remedy="pool less")

    def forward(
        self,
        maps: Float[Tensor, "batch channels height width"],
        boxes: Float[Tensor, "batch 4"] | None = None,
        look: Look | None = None,
    ) -> PlaceOutput:
        """Return the maps of all branches; arguments and errors are those of ``SpatialTransformer.explain``."""
        branches = tuple(transformer.explain(maps, boxes, look) for transformer in self.transformers())
        joined = branches[0].images if len(branches) == 1 else torch.cat([done.images for done in branches], dim=1)
        pooled = joined if self.pooling == 1 else functional.avg_pool2d(joined, self.pooling)
        return PlaceOutput(maps=pooled, branches=branches)

    def transformers(self) -> list[SpatialTransformer]:
        """Return the spatial transformers of the branches, in order."""
        return [branch for branch in self.branches if isinstance(branch, SpatialTransformer)]

    def initialize(self, seed: int) -> None:
        """Draw the weights from random numbers that derive from the seed and differ between branches."""
        for number, transformer in enumerate(self.transformers(), start=1):
            part = f"localization{self.place}" if number == 1 else f"localization{self.place}.{number}"
            transformer.initialize(part_generator(seed, part))
