"""Every family of transformations keeps the contract of ``Transformation``."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jacrev, vmap
from torch.nn import functional

from stnbench.core.errors import ShapeError
from stnbench.nn.sampling import sample
from stnbench.nn.transforms import Transformation, first_order, pixel_centres
from stnbench.nn.transforms.affine import AffineTransformation, invert_affine, map_affine
from stnbench.nn.transforms.nonlinear import (
    Diffeomorphic,
    HomographyTransformation,
    Saliency,
    ThinPlateSpline,
    invert_homography,
    map_homography,
)
from stnbench.nn.transforms.registry import build_transformation
from stnbench.spec.transformer import TRANSFORMERS
from stnbench.testing.transformers import specification

VARIANTS: dict[str, dict[str, object]] = {
    "saliency separable": {"separable": True},
    "saliency 4": {"saliency_points": 4},
    "canonical_rotation 6": {"rotations": 6},
    "diffeomorphic 7": {"control_points": 7, "steps": 3},
}
"""Families with other keys than their defaults: the first word is the family."""

FAMILIES = [*TRANSFORMERS.names(), *VARIANTS]
SIZE = (5, 7)


def build(family: str) -> Transformation:
    """The transformation of a family, its other keys at their defaults, or of a variant."""
    return build_transformation(specification(family.split(maxsplit=1)[0], **VARIANTS.get(family, {})))


WITH_PARAMETERS = [name for name in FAMILIES if build(name).number_of_parameters]
"""All but the fixed zoom, which has no identity either: its own facts are in tests/unit/stn/test_controls.py."""

AFFINE = [name for name in FAMILIES if isinstance(build(name), AffineTransformation)]
HOMOGRAPHIES = [name for name in FAMILIES if isinstance(build(name), HomographyTransformation)]
SPLINES = [name for name in FAMILIES if isinstance(build(name), ThinPlateSpline)]
FLOWS = [name for name in FAMILIES if isinstance(build(name), Diffeomorphic)]
DRAWN = [name for name in FAMILIES if isinstance(build(name), Saliency)]

every_family = pytest.mark.parametrize("family", FAMILIES)
every_family_with_parameters = pytest.mark.parametrize("family", WITH_PARAMETERS)
both_corners = pytest.mark.parametrize("align_corners", [True, False])


def near_identity(transformation: Transformation, batch: int, *, spread: float = 0.3) -> Tensor:
    """Random float64 parameters around the identity, the same ones every time."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.rand(batch, transformation.number_of_parameters, generator=generator, dtype=torch.float64)
    return torch.tensor(transformation.identity_parameters(), dtype=torch.float64) + spread * (2 * noise - 1)


def test_every_family_of_the_specification_can_be_built() -> None:
    """The registry holds a transformation for every family, all different but for roi, which is a given crop."""
    does = {}
    for family in FAMILIES:
        theta = build(family).theta_out_to_in(near_identity(build(family), 1))
        does[family] = (build(family).parameter_names, tuple(theta.flatten().tolist()))
    assert does.pop("roi") == does["crop"]
    assert len(set(does.values())) == len(does)


def test_every_family_has_a_test_of_its_inverse() -> None:
    """A family is affine, a homography, a spline, a flow or a saliency; each kind's inverse is tested below."""
    assert {*AFFINE, *HOMOGRAPHIES, *SPLINES, *FLOWS, *DRAWN} == set(FAMILIES)
    assert set(FAMILIES) - {"fixed_zoom"} == set(WITH_PARAMETERS)


@every_family
def test_names_and_identity_agree_in_number(family: str) -> None:
    """A family has one identity value for each named parameter."""
    transformation = build(family)
    assert transformation.number_of_parameters == len(transformation.parameter_names)
    assert len(transformation.identity_parameters()) == transformation.number_of_parameters


@every_family_with_parameters
@both_corners
def test_identity_grid_is_bitwise_the_pixel_centres(family: str, *, align_corners: bool) -> None:
    """The identity reads every output pixel at its own centre, without any rounding."""
    transformation = build(family)
    parameters = torch.tensor([transformation.identity_parameters()] * 2)
    grid = transformation.grid(parameters, SIZE, align_corners=align_corners)
    centres = pixel_centres(SIZE, align_corners=align_corners, like=parameters)
    assert torch.equal(grid, centres.reshape(1, *SIZE, 2).expand(2, *SIZE, 2))


@every_family_with_parameters
def test_identity_gives_each_image_its_own_points_back(family: str) -> None:
    """Points that differ between the images come back bit by bit, in float32 and in float64."""
    transformation = build(family)
    for dtype in (torch.float32, torch.float64):
        points = 2 * torch.rand(3, 9, 2, generator=torch.Generator().manual_seed(2), dtype=dtype) - 1
        mapped = transformation.map_points(torch.tensor([transformation.identity_parameters()] * 3), points)
        assert mapped.dtype == dtype
        assert torch.equal(mapped, points)


@every_family_with_parameters
@both_corners
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (48, 48), (23, 12)])
def test_identity_gives_the_image_back(family: str, *, align_corners: bool, size: tuple[int, int]) -> None:
    """Sampling at the identity's grid gives the image back within (height + width) 2^-24 of its range."""
    transformation = build(family)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    parameters = torch.tensor([transformation.identity_parameters()] * 2)
    grid = transformation.grid(parameters, size, align_corners=align_corners)
    back = sample(images, grid, sampler="bilinear", padding="zeros", align_corners=align_corners)
    assert (back - images).abs().max() <= sum(size) * 2**-24


@every_family
@both_corners
def test_shapes_follow_batch_and_size(family: str, *, align_corners: bool) -> None:
    """Grid and matrix have one row an image, also for an empty batch."""
    transformation = build(family)
    for batch in (0, 1, 3):
        parameters = near_identity(transformation, batch)
        assert transformation.grid(parameters, SIZE, align_corners=align_corners).shape == (batch, *SIZE, 2)
        assert transformation.theta_out_to_in(parameters).shape == (batch, 2, 3)


@every_family
def test_wrong_number_of_parameters_is_an_error_that_names_them(family: str) -> None:
    """One parameter too many is a ShapeError with the shape found and the shape wanted."""
    transformation = build(family)
    count = transformation.number_of_parameters
    for act in (
        transformation.theta_out_to_in,
        lambda wrong: transformation.grid(wrong, SIZE, align_corners=True),
        lambda wrong: transformation.map_points(wrong, torch.zeros(1, 1, 2)),
    ):
        with pytest.raises(ShapeError) as caught:
            act(torch.zeros(4, count + 1))
        assert caught.value.actual == (4, count + 1)
        assert caught.value.expected == f"(batch, {count}): {', '.join(transformation.parameter_names) or 'none'}"


@every_family_with_parameters
@both_corners
def test_gradients_of_the_grid_are_right(family: str, *, align_corners: bool) -> None:
    """The gradient of every sampling point agrees with finite differences in float64."""
    transformation = build(family)
    if transformation.is_discrete:
        family_of_gradients = near_identity(transformation, 2).requires_grad_()
        transformation.grid(family_of_gradients, (3, 4), align_corners=align_corners).square().sum().backward()
        assert family_of_gradients.grad is not None
        return  # its gradients are another map's: tests/unit/nn/test_canonical.py has which
    parameters = near_identity(transformation, 2).requires_grad_()

    def grid(parameters: Tensor) -> Tensor:
        return transformation.grid(parameters, (3, 4), align_corners=align_corners)

    assert torch.autograd.gradcheck(grid, parameters, fast_mode=True)


@every_family
def test_gradients_of_composed_maps_are_right(family: str) -> None:
    """The gradient to points that a map receives agrees with finite differences, also at the centre."""
    transformation = build(family)
    parameters = near_identity(transformation, 2)
    points = near_identity(build("translation"), 6).reshape(2, 3, 2)
    points[0, 0] = 0

    def read(points: Tensor) -> Tensor:
        return transformation.map_points(parameters, points)

    assert torch.autograd.gradcheck(read, points.requires_grad_(), fast_mode=True)


@every_family
def test_points_of_each_image_are_mapped_by_its_own_parameters(family: str) -> None:
    """A batch of points gives what one image at a time gives; shared points are the same points for all."""
    transformation = build(family)
    parameters = near_identity(transformation, 3)
    points = near_identity(build("translation"), 12).reshape(3, 4, 2)
    mapped = transformation.map_points(parameters, points)
    alone = [transformation.map_points(parameters[n : n + 1], points[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(mapped, torch.cat(alone), rtol=0, atol=1e-12)
    shared = transformation.map_points(parameters, points[:1])
    torch.testing.assert_close(shared, transformation.map_points(parameters, points[:1].expand(3, 4, 2)))


@every_family
def test_the_meta_device_knows_every_shape(family: str) -> None:
    """Costs are measured without memory: grid and matrix have shapes there, made in a block of that device."""
    with torch.device("meta"):
        transformation = build(family)
        parameters = torch.empty(2, transformation.number_of_parameters)
        assert transformation.grid(parameters, SIZE, align_corners=True).shape == (2, *SIZE, 2)
        assert transformation.theta_out_to_in(parameters).device.type == "meta"
    grid = transformation.grid(near_identity(transformation, 2), SIZE, align_corners=True)
    assert grid.device.type == "cpu"


@every_family_with_parameters
def test_inference_leaves_nothing_behind(family: str) -> None:
    """A call in torch.inference_mode gives what training gives, and training goes on after it."""
    with torch.inference_mode():
        transformation = build(family)
        parameters = near_identity(transformation, 2)
        inferred = transformation.grid(parameters, SIZE, align_corners=True)
        transformation.theta_out_to_in(parameters)
    trained = near_identity(transformation, 2).requires_grad_()
    grid = transformation.grid(trained, SIZE, align_corners=True)
    assert torch.equal(grid, inferred)
    grid.sum().backward()  # likewise
    assert trained.grad is not None


@every_family_with_parameters
def test_parameters_that_are_no_numbers_stay_so(family: str) -> None:
    """NaN parameters, of a training that diverged, give NaN and no places."""
    transformation = build(family)
    nothing = torch.full((2, transformation.number_of_parameters), torch.nan)
    nothing[1] = torch.tensor(transformation.identity_parameters())
    grid = transformation.grid(nothing, SIZE, align_corners=True)
    assert grid[0].isnan().any()
    assert grid[1].isfinite().all()


@every_family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_geometry_is_float32_for_every_lower_precision(family: str, dtype: torch.dtype) -> None:
    """Low-precision parameters, and autocast, leave matrix and grid in float32."""
    transformation = build(family)
    parameters = near_identity(transformation, 2).to(dtype)
    expected = transformation.grid(parameters.float(), SIZE, align_corners=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grid = transformation.grid(parameters, SIZE, align_corners=True)
        assert transformation.theta_out_to_in(parameters).dtype == torch.float32
    assert grid.dtype == torch.float32
    assert torch.equal(grid, expected)


@every_family_with_parameters
def test_many_models_can_be_batched(family: str) -> None:
    """``torch.vmap`` over a further axis gives what a loop gives, and a call inside it leaves nothing behind."""
    transformation = build(family)
    parameters = near_identity(transformation, 6).reshape(3, 2, transformation.number_of_parameters)

    def grid(one: Tensor) -> Tensor:
        return transformation.grid(one, SIZE, align_corners=True)

    torch.testing.assert_close(vmap(grid)(parameters), torch.stack([grid(one) for one in parameters]))
    jacobian = jacrev(grid)(parameters[0])
    assert jacobian.shape == (2, *SIZE, 2, 2, transformation.number_of_parameters)
    assert grid(parameters[0]).isfinite().all()


@every_family
def test_theta_is_the_first_order_map_at_the_centre(family: str) -> None:
    """The matrix has the value and the slope of the family's map at the output's centre, to 1e-9."""
    transformation = build(family)
    parameters = near_identity(transformation, 1)
    centre = torch.zeros(1, 1, 2, dtype=torch.float64)
    theta = transformation.theta_out_to_in(parameters)[0]
    slope = jacrev(lambda points: transformation.map_points(parameters, points))(centre)[0, 0, :, 0, 0, :]
    torch.testing.assert_close(theta[:, 2], transformation.map_points(parameters, centre)[0, 0], rtol=0, atol=1e-9)
    torch.testing.assert_close(theta[:, :2], slope, rtol=0, atol=1e-9)


@every_family
def test_theta_of_a_composed_map_is_the_product(family: str) -> None:
    """First-order matrices of a map after a zoom about the centre multiply, in the type that is asked for."""
    transformation = build(family)
    parameters = near_identity(transformation, 2)
    zoom, halves = build("scale"), torch.full((2, 1), 0.5)
    with torch.inference_mode():
        theta = first_order(
            lambda points: transformation.map_points(parameters, zoom.map_points(halves, points)), like=halves
        )
    assert theta.dtype == torch.float32
    expected = transformation.theta_out_to_in(parameters) * torch.tensor([0.5, 0.5, 1.0])
    torch.testing.assert_close(theta, expected.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", AFFINE)
@both_corners
def test_affine_grids_are_those_of_torch(family: str, *, align_corners: bool) -> None:
    """``torch.nn.functional.affine_grid`` of the matrix gives the same grid, to 1e-12 in float64."""
    transformation = build(family)
    parameters = near_identity(transformation, 3)
    theta = transformation.theta_out_to_in(parameters)
    expected = functional.affine_grid(theta, [3, 1, *SIZE], align_corners=align_corners)
    actual = transformation.grid(parameters, SIZE, align_corners=align_corners)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", AFFINE)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_inverse_matrix_undoes_the_map(family: str, data: st.DataObject) -> None:
    """Reading at a point and going back by the inverse matrix ends at the point."""
    transformation = build(family)
    count = transformation.number_of_parameters
    offsets = data.draw(st.lists(st.floats(-0.4, 0.4), min_size=count, max_size=count))
    identity = torch.tensor([transformation.identity_parameters()], dtype=torch.float64)
    parameters = identity + torch.tensor([offsets], dtype=torch.float64)
    points = pixel_centres(SIZE, align_corners=True, like=parameters)
    read = transformation.map_points(parameters, points[None])
    back = map_affine(invert_affine(transformation.theta_out_to_in(parameters)), read)[0]
    torch.testing.assert_close(back, points, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", HOMOGRAPHIES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_inverse_homography_undoes_the_map(family: str, data: st.DataObject) -> None:
    """Reading at a point and going back by the inverse homography ends at the point."""
    transformation = build(family)
    assert isinstance(transformation, HomographyTransformation)
    offsets = data.draw(st.lists(st.floats(-0.3, 0.3), min_size=8, max_size=8))
    parameters = torch.tensor([offsets], dtype=torch.float64)
    points = pixel_centres(SIZE, align_corners=True, like=parameters)[None]
    read = transformation.map_points(parameters, points)
    back = map_homography(invert_homography(transformation.homography_out_to_in(parameters)), read)
    torch.testing.assert_close(back, points, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", SPLINES)
def test_opposite_movements_undo_a_spline_to_second_order(family: str) -> None:
    """The inverse of a spline is no spline; the opposite movements miss by the square of their size."""
    transformation = build(family)
    points = pixel_centres(SIZE, align_corners=True, like=near_identity(transformation, 1))[None]
    missed = []
    for spread in (0.02, 0.01):
        parameters = near_identity(transformation, 4, spread=spread)
        back = transformation.map_points(-parameters, transformation.map_points(parameters, points))
        missed.append((back - points).abs().max().item())
    assert 0 < missed[0] < 0.02**2 * 10
    assert missed[0] / missed[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("family", FLOWS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_opposite_velocities_undo_a_flow(family: str, data: st.DataObject) -> None:
    """Reading at a point and flowing back ends at the point, in and beyond the image, and nothing folds."""
    transformation = build(family)
    assert isinstance(transformation, Diffeomorphic)
    count = transformation.number_of_parameters
    seed, reach = data.draw(st.integers(0, 2**30)), data.draw(st.floats(0.01, 0.4))
    drawn = torch.rand(1, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parameters = reach * (2 * drawn - 1)
    points = 1.3 * pixel_centres(SIZE, align_corners=True, like=parameters)[None]
    back = transformation.invert_points(parameters, transformation.map_points(parameters, points))
    torch.testing.assert_close(back, points, rtol=0, atol=2e-3 if "7" in family else 2e-5)
    slopes = vmap(jacrev(lambda point: transformation.map_points(parameters, point[None, None])[0, 0]))(points[0])
    assert (torch.linalg.det(slopes) > 0).all()


@pytest.mark.parametrize("family", DRAWN)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_saliency_keeps_the_order_of_points(family: str, data: st.DataObject) -> None:
    """A separable map can be undone: each coordinate keeps its order; others do as long as saliency is gentle."""
    transformation = build(family)
    separable = "separable" in family
    seed, reach = data.draw(st.integers(0, 2**30)), data.draw(st.floats(0, 8 if separable else 0.5))
    noise = torch.randn(
        1, transformation.number_of_parameters, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    grid = transformation.grid(reach * noise, (25, 25), align_corners=True)[0]
    assert (grid[:, :, 0].diff(dim=1) > 0).all()
    assert (grid[:, :, 1].diff(dim=0) > 0).all()
