"""Every family of transformations keeps the contract of ``Transformation``."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jacrev, vmap
from torch.nn import functional

from stnbench.core.errors import ShapeError
from stnbench.spec.transformer import Family
from stnbench.stn.affine import AffineTransformation, invert_affine, map_affine
from stnbench.stn.base import Transformation, pixel_centres
from stnbench.stn.sampler import sample
from stnbench.stn.transforms import build_transformation

FAMILIES = get_args(Family)
SIZE = (5, 7)

every_family = pytest.mark.parametrize("family", FAMILIES)
both_corners = pytest.mark.parametrize("align_corners", [True, False])


def near_identity(transformation: Transformation, batch: int, *, spread: float = 0.3) -> Tensor:
    """Random float64 parameters around the identity, the same ones every time."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.rand(batch, transformation.number_of_parameters, generator=generator, dtype=torch.float64)
    return torch.tensor(transformation.identity_parameters(), dtype=torch.float64) + spread * (2 * noise - 1)


def test_every_family_of_the_specification_can_be_built() -> None:
    """The registry holds a transformation for every family that a specification may name, all different."""
    names = {family: build_transformation(family).parameter_names for family in FAMILIES}
    assert len(set(names.values())) == len(FAMILIES)


@every_family
def test_names_and_identity_agree_in_number(family: Family) -> None:
    """A family has one identity value for each named parameter."""
    transformation = build_transformation(family)
    assert transformation.number_of_parameters == len(transformation.parameter_names)
    assert len(transformation.identity_parameters()) == transformation.number_of_parameters


@every_family
@both_corners
def test_identity_grid_is_bitwise_the_pixel_centres(family: Family, *, align_corners: bool) -> None:
    """The identity reads every output pixel at its own centre, without any rounding."""
    transformation = build_transformation(family)
    parameters = torch.tensor([transformation.identity_parameters()] * 2)
    grid = transformation.grid(parameters, SIZE, align_corners=align_corners)
    centres = pixel_centres(SIZE, align_corners=align_corners, like=parameters)
    assert torch.equal(grid, centres.reshape(1, *SIZE, 2).expand(2, *SIZE, 2))


@every_family
@both_corners
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (48, 48), (23, 12)])
def test_identity_gives_the_image_back(family: Family, *, align_corners: bool, size: tuple[int, int]) -> None:
    """Sampling at the identity's grid gives the image back within (height + width) 2^-24 of its range."""
    transformation = build_transformation(family)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    parameters = torch.tensor([transformation.identity_parameters()] * 2)
    grid = transformation.grid(parameters, size, align_corners=align_corners)
    back = sample(images, grid, sampler="bilinear", padding="zeros", align_corners=align_corners)
    assert (back - images).abs().max() <= sum(size) * 2**-24


@every_family
@both_corners
def test_shapes_follow_batch_and_size(family: Family, *, align_corners: bool) -> None:
    """Grid and matrix have one row an image, also for an empty batch."""
    transformation = build_transformation(family)
    for batch in (0, 1, 3):
        parameters = near_identity(transformation, batch)
        assert transformation.grid(parameters, SIZE, align_corners=align_corners).shape == (batch, *SIZE, 2)
        assert transformation.theta_out_to_in(parameters).shape == (batch, 2, 3)


@every_family
def test_wrong_number_of_parameters_is_an_error_that_names_them(family: Family) -> None:
    """One parameter too many is a ShapeError with the shape found and the shape wanted."""
    transformation = build_transformation(family)
    count = transformation.number_of_parameters
    for act in (
        transformation.theta_out_to_in,
        lambda wrong: transformation.grid(wrong, SIZE, align_corners=True),
        lambda wrong: transformation.map_points(wrong, torch.zeros(1, 2)),
    ):
        with pytest.raises(ShapeError) as caught:
            act(torch.zeros(4, count + 1))
        assert caught.value.actual == (4, count + 1)
        assert caught.value.expected == f"(batch, {count}): {', '.join(transformation.parameter_names)}"


@every_family
@both_corners
def test_gradients_of_the_grid_are_right(family: Family, *, align_corners: bool) -> None:
    """The gradient of every sampling point agrees with finite differences in float64."""
    transformation = build_transformation(family)
    parameters = near_identity(transformation, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: transformation.grid(p, (3, 4), align_corners=align_corners), parameters)


@every_family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_geometry_is_float32_for_every_lower_precision(family: Family, dtype: torch.dtype) -> None:
    """Low-precision parameters, and autocast, leave matrix and grid in float32."""
    transformation = build_transformation(family)
    parameters = near_identity(transformation, 2).to(dtype)
    expected = transformation.grid(parameters.float(), SIZE, align_corners=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grid = transformation.grid(parameters, SIZE, align_corners=True)
        assert transformation.theta_out_to_in(parameters).dtype == torch.float32
    assert grid.dtype == torch.float32
    assert torch.equal(grid, expected)


@every_family
def test_many_models_can_be_batched(family: Family) -> None:
    """``torch.vmap`` over a further axis gives what a loop gives, and a call inside it leaves nothing behind."""
    transformation = build_transformation(family)
    parameters = near_identity(transformation, 6).reshape(3, 2, -1)

    def grid(one: Tensor) -> Tensor:
        return transformation.grid(one, SIZE, align_corners=True)

    torch.testing.assert_close(vmap(grid)(parameters), torch.stack([grid(one) for one in parameters]))
    jacobian = jacrev(grid)(parameters[0])
    assert jacobian.shape == (2, *SIZE, 2, 2, transformation.number_of_parameters)
    assert grid(parameters[0]).isfinite().all()


@every_family
def test_theta_is_the_first_order_map_at_the_centre(family: Family) -> None:
    """The matrix has the value and the slope of the family's map at the output's centre."""
    transformation = build_transformation(family)
    parameters = near_identity(transformation, 1)
    centre = torch.zeros(1, 2, dtype=torch.float64)
    theta = transformation.theta_out_to_in(parameters)[0]
    slope = jacrev(lambda points: transformation.map_points(parameters, points))(centre)[0, 0, :, 0, :]
    torch.testing.assert_close(theta[:, 2], transformation.map_points(parameters, centre)[0, 0])
    torch.testing.assert_close(theta[:, :2], slope)


AFFINE_FAMILIES = [name for name in FAMILIES if isinstance(build_transformation(name), AffineTransformation)]


@pytest.mark.parametrize("family", AFFINE_FAMILIES)
@both_corners
def test_affine_grids_are_those_of_torch(family: Family, *, align_corners: bool) -> None:
    """``torch.nn.functional.affine_grid`` of the matrix gives the same grid, to 1e-12 in float64."""
    transformation = build_transformation(family)
    parameters = near_identity(transformation, 3)
    theta = transformation.theta_out_to_in(parameters)
    expected = functional.affine_grid(theta, [3, 1, *SIZE], align_corners=align_corners)
    actual = transformation.grid(parameters, SIZE, align_corners=align_corners)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", AFFINE_FAMILIES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_inverse_matrix_undoes_the_map(family: Family, data: st.DataObject) -> None:
    """Reading at a point and going back by the inverse matrix ends at the point."""
    transformation = build_transformation(family)
    count = transformation.number_of_parameters
    offsets = data.draw(st.lists(st.floats(-0.4, 0.4), min_size=count, max_size=count))
    identity = torch.tensor([transformation.identity_parameters()], dtype=torch.float64)
    parameters = identity + torch.tensor([offsets], dtype=torch.float64)
    points = pixel_centres(SIZE, align_corners=True, like=parameters)
    read = transformation.map_points(parameters, points)[0]
    back = map_affine(invert_affine(transformation.theta_out_to_in(parameters)), read)[0]
    torch.testing.assert_close(back, points, rtol=0, atol=1e-10)
