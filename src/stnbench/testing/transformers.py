"""The contract of a family of transformations, with one check for each property."""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import torch
from torch import Tensor

from stnbench.nn.spatial_transformer import SpatialTransformer
from stnbench.nn.transforms import Transformation
from stnbench.nn.transforms.registry import build_transformation
from stnbench.spec.codec import from_json, from_plain, to_json
from stnbench.spec.transformer import CONTROL, TRANSFORMERS, AnyTransformer, TransformerSpec

SIZE: Final = (12, 17)
"""Height and width of the images: not square, so that swapped axes are detected."""

Check = Callable[[TransformerSpec], None]


def check_transformer(family: str, **options: object) -> None:
    """Run every check on a family, in a test of a part.

    Args:
        family: name of the family.
        **options: keys of its specification.

    Raises:
        AssertionError: if a property is violated; the message names it.
        UnknownNameError: if the family is not registered.
    """
    spec = specification(family, **options)
    for check in TRANSFORMER_CHECKS.values():
        check(spec)


def specification(family: str, **options: object) -> TransformerSpec:
    """Return the specification of a family.

    Raises:
        UnknownNameError or SpecError: if it cannot be meant.
    """
    plain = cast("Any", {"family": family, **options})
    return cast("TransformerSpec", from_plain(cast("Any", AnyTransformer), plain, where="the part"))


def names_and_identity(spec: TransformerSpec) -> None:
    """Check that there are as many names as identity parameters, and no name twice."""
    family = build_transformation(spec)
    names, identity = family.parameter_names, family.identity_parameters()
    require(len(names) == len(identity), f"{len(names)} parameter names and {len(identity)} identity parameters")
    require(len(set(names)) == len(names), f"a parameter name occurs twice: {names}")


def identity_start(spec: TransformerSpec) -> None:
    """Check that the identity parameters map every point to itself, and that a new layer leaves images unchanged."""
    if TRANSFORMERS.has_trait(spec.family, CONTROL):
        return
    family = build_transformation(spec)
    parameters = torch.tensor([family.identity_parameters()] * 2)
    points = _points()
    require_close(family.map_points(parameters, points), points.expand(2, -1, -1), 1e-6, "the identity moves points")
    layer, images = _layer(spec), _images()
    require_close(layer(images), images, 1e-5, "a new layer changes images")


def shapes(spec: TransformerSpec) -> None:
    """Check that grids are (batch, height, width, 2) and matrices (batch, 2, 3), for one image and for several."""
    family = build_transformation(spec)
    for batch in (1, 3):
        parameters = _parameters(family, batch)
        grid = family.grid(parameters, SIZE, align_corners=True)
        require(tuple(grid.shape) == (batch, *SIZE, 2), f"the grid of {batch} images has shape {tuple(grid.shape)}")
        theta = family.theta_out_to_in(parameters)
        require(tuple(theta.shape) == (batch, 2, 3), f"theta of {batch} images has shape {tuple(theta.shape)}")


def images_alone(spec: TransformerSpec) -> None:
    """Check that an image is transformed in a batch as it is alone."""
    family = build_transformation(spec)
    parameters = _parameters(family, 3)
    together = family.grid(parameters, SIZE, align_corners=False)
    alone = torch.cat([family.grid(row[None], SIZE, align_corners=False) for row in parameters])
    require_close(together, alone, 1e-6, "an image is transformed otherwise in a batch than alone")


def own_points(spec: TransformerSpec) -> None:
    """Check that points per image are mapped like points shared by all, so that transformations can be composed."""
    family = build_transformation(spec)
    parameters, points = _parameters(family, 3), _points()
    shared = family.map_points(parameters, points)
    require_close(
        family.map_points(parameters, points.expand(3, -1, -1)), shared, 1e-6, "own points differ from shared ones"
    )


def gradients(spec: TransformerSpec) -> None:
    """Check that gradients agree with finite differences in float64, at the identity and away from it."""
    family = build_transformation(spec)
    if not family.parameter_names:
        return
    points = _points()[:, ::5].double()
    if family.is_discrete:  # the gradient is that of another map, so finite differences do not match
        parameters = _parameters(family, 2).double().requires_grad_()
        (slope,) = torch.autograd.grad(family.map_points(parameters, points).square().sum(), parameters)
        require(bool(slope.isfinite().all()) and bool(slope.any()), "the gradient is not finite, or nothing but zero")
        return
    for spread in (0.0, 0.1):
        parameters = _parameters(family, 2, spread=spread).double().requires_grad_()
        try:
            torch.autograd.gradcheck(lambda given: family.map_points(given, points), parameters, atol=1e-4)
        except RuntimeError as error:  # torch's GradcheckError is one
            where = "at the identity" if spread == 0 else "away from the identity"
            raise AssertionError(f"gradients are wrong {where}: {str(error).splitlines()[0]}") from error


def half_precision(spec: TransformerSpec) -> None:
    """Check that parameters in bfloat16 and float16 yield a finite grid in float32."""
    family = build_transformation(spec)
    for kind in (torch.bfloat16, torch.float16):
        grid = family.grid(_parameters(family, 2).to(kind), SIZE, align_corners=True)
        require(grid.dtype == torch.float32, f"parameters in {kind} give a grid in {grid.dtype}")
        require(bool(grid.isfinite().all()), f"parameters in {kind} give a grid that is not finite")


def determinism(spec: TransformerSpec) -> None:
    """Check that the same parameters give the same grid bit for bit, also from another instance."""
    grids = []
    for _ in range(2):
        family = build_transformation(spec)
        grids.append(family.grid(_parameters(family, 2), SIZE, align_corners=True))
    require(torch.equal(*grids), "two calls differ")


def meta_device(spec: TransformerSpec) -> None:
    """Check that the grid has its shape on the meta device, where cost is measured."""
    family = build_transformation(spec)
    parameters = torch.empty(2, len(family.parameter_names), device="meta")
    grid = family.grid(parameters, SIZE, align_corners=True)
    require(tuple(grid.shape) == (2, *SIZE, 2), f"the grid has shape {tuple(grid.shape)} on the meta device")
    require(grid.device.type == "meta", f"the grid is on {grid.device}: a tensor was made elsewhere")


def one_graph(spec: TransformerSpec) -> None:
    """Check that ``torch.compile(fullgraph=True)`` captures the layer, with the same result."""
    if spec.reads_boxes:
        return
    layer, images = _layer(spec), _images()
    torch.compiler.reset()
    try:
        compiled = torch.compile(layer, fullgraph=True, backend="eager")(images)
    except Exception as error:
        raise AssertionError(f"torch.compile cannot capture it: {str(error).splitlines()[0]}") from error
    require_close(compiled, layer(images), 1e-5, "the compiled layer differs")


def stored(spec: TransformerSpec) -> None:
    """Check that the specification is unchanged after serialisation to JSON and back."""
    again = from_json(cast("Any", AnyTransformer), to_json(spec), where="the part")
    require(again == spec, f"{spec} comes back from JSON as {again}")


TRANSFORMER_CHECKS: Final[Mapping[str, Check]] = {
    "names and identity parameters": names_and_identity,
    "identity at the start": identity_start,
    "shapes, not square, batch of one": shapes,
    "images alone and together": images_alone,
    "points of each image's own": own_points,
    "gradients in float64": gradients,
    "half precision": half_precision,
    "determinism": determinism,
    "meta device": meta_device,
    "compiles as one graph": one_graph,
    "specification in JSON": stored,
}
"""Every check, by the property that it checks."""


def _layer(spec: TransformerSpec) -> SpatialTransformer:
    return SpatialTransformer(spec, in_channels=2, size=SIZE, locnet=(3, 3, 5)).eval()


def _images() -> Tensor:
    return torch.rand(2, 2, *SIZE, generator=torch.Generator().manual_seed(1))


def _parameters(family: Transformation, batch: int, *, spread: float = 0.1) -> Tensor:
    """Return parameters around the identity, (batch, parameters), the same at every call."""
    identity = torch.tensor(family.identity_parameters())
    drawn = torch.randn(batch, len(identity), generator=torch.Generator().manual_seed(batch))
    return identity + spread * drawn


def _points() -> Tensor:
    """Return points in the image and slightly outside, (1, 30, 2)."""
    return 2.2 * torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(3)) - 1.1


def require(condition: bool, message: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise an AssertionError with a message if a condition does not hold."""
    if not condition:
        raise AssertionError(message)


def require_close(found: Tensor, expected: Tensor, tolerance: float, message: str) -> None:
    """Raise an AssertionError if any two numbers differ by more than a tolerance."""
    difference = float((found - expected).detach().abs().max())
    require(difference <= tolerance, f"{message}, by {difference:.2g} where {tolerance:g} is allowed")
