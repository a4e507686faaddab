"""Every sampler keeps the contract of ``sample``."""

from collections.abc import Iterator
from functools import partial
from typing import Final, get_args

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from stnbench.core.errors import ShapeError
from stnbench.nn.sampling import sample
from stnbench.nn.transforms import pixel_centres
from stnbench.nn.transforms.affine import map_affine
from stnbench.spec.transformer import Padding, Sampler

SAMPLERS = get_args(Sampler)

WITH_GRID_GRADIENTS: Final = ("bilinear", "bicubic", "mipmap")
"""Those whose gradient to the grid is that of the values: nearest has none, and linearized another one."""

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)
every_padding = pytest.mark.parametrize("padding", get_args(Padding))
both_corners = pytest.mark.parametrize("align_corners", [True, False])


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Torch's deterministic algorithms, for one test."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=before)


def images_of(batch: int, channels: int = 2, size: tuple[int, int] = (9, 11), *, dtype: torch.dtype) -> Tensor:
    """Random images in [0, 1], the same ones every time."""
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(3), dtype=dtype)


def grid_of(scale: float, size: tuple[int, int], batch: int = 1, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """The grid of a zoom that is turned and moved a little, so that no point lies on a pixel."""
    theta = torch.tensor([[1.0, 0.13, 0.021], [-0.17, 1.0, 0.033]], dtype=dtype).expand(batch, 2, 3) * scale
    points = pixel_centres(size, align_corners=False, like=theta)[None]
    return map_affine(theta, points).reshape(batch, *size, 2)


@every_sampler
@both_corners
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (48, 48), (23, 12)])
def test_identity_gives_the_image_back(sampler: Sampler, *, align_corners: bool, size: tuple[int, int]) -> None:
    """The pixels' own centres give the image back within (height + width) 2^-22 of its range."""
    images = images_of(2, 3, size, dtype=torch.float32)
    grid = pixel_centres(size, align_corners=align_corners, like=images).reshape(1, *size, 2).expand(2, *size, 2)
    for wanted in (grid, grid.clone().requires_grad_()):
        back = sample(images, wanted, sampler=sampler, padding="zeros", align_corners=align_corners)
        assert (back - images).abs().max() <= sum(size) * 2**-22


@every_sampler
@both_corners
@pytest.mark.parametrize("scale", [0.4, 0.7, 1.5])
def test_a_constant_image_stays_constant_inside(sampler: Sampler, *, align_corners: bool, scale: float) -> None:
    """Whatever is read well inside one grey is that grey."""
    images = torch.full((1, 2, 40, 36), 0.7)
    output = (64, 64) if scale < 1 else (16, 16)
    grid = grid_of(scale, output)
    read = sample(images, grid, sampler=sampler, padding="zeros", align_corners=align_corners)
    inside = (grid.abs() < 0.75).all(dim=-1)
    assert inside.sum() > 50
    torch.testing.assert_close(read[0][:, inside[0]], torch.full((2, int(inside.sum())), 0.7), rtol=0, atol=1e-6)


@every_sampler
@every_padding
def test_padding_decides_what_lies_outside(sampler: Sampler, padding: Padding) -> None:
    """Far outside one grey there are zeros, or the same grey; no sampler reads anything else there."""
    images = torch.full((1, 1, 8, 8), 0.7)
    far = sample(images, grid_of(0.2, (6, 6)) + 5, sampler=sampler, padding=padding, align_corners=True)
    torch.testing.assert_close(far, torch.full_like(far, 0.0 if padding == "zeros" else 0.7), rtol=0, atol=1e-6)


@every_sampler
def test_output_has_the_shape_of_the_grid(sampler: Sampler) -> None:
    """Any number of images (none included) and channels, any size of the output, one pixel included."""
    for batch, channels, size in ((0, 3, (4, 4)), (1, 1, (1, 1)), (3, 2, (4, 6)), (2, 5, (1, 7)), (2, 5, (30, 1))):
        images = images_of(batch, channels, dtype=torch.float32)
        grid = grid_of(0.8, size, batch).requires_grad_()
        read = sample(images, grid, sampler=sampler, padding="border", align_corners=True)
        assert read.shape == (batch, channels, *size)
        assert read.isfinite().all()


@every_sampler
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_result_has_the_precision_of_the_images(sampler: Sampler, dtype: torch.dtype) -> None:
    """Half-precision images are read in float32, and no rounding but that of the result is seen, under autocast too."""
    images = images_of(2, dtype=dtype)
    grid = grid_of(1.5, (6, 6), 2).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = sample(images, grid, sampler=sampler, padding="zeros", align_corners=True)
    assert read.dtype == dtype
    exact = sample(images.double(), grid.double(), sampler=sampler, padding="zeros", align_corners=True)
    torch.testing.assert_close(read.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)


@every_sampler
def test_another_number_of_grids_than_images_is_an_error(sampler: Sampler) -> None:
    """Two images need two grids."""
    with pytest.raises(ShapeError) as caught:
        sample(
            images_of(2, dtype=torch.float32),
            grid_of(1.0, (4, 4), 3),
            sampler=sampler,
            padding="zeros",
            align_corners=True,
        )
    assert caught.value.actual == (3, 4, 4, 2)


@every_sampler
def test_the_meta_device_knows_the_shape(sampler: Sampler) -> None:
    """Costs are measured without memory."""
    grid = torch.empty(2, 5, 6, 2, device="meta", requires_grad=True)
    images = torch.empty(2, 3, 9, 7, device="meta")
    read = sample(images, grid, sampler=sampler, padding="zeros", align_corners=True)
    assert read.shape == (2, 3, 5, 6)
    assert read.device.type == "meta"


@every_sampler
@pytest.mark.parametrize("scale", [0.6, 2.7])
def test_gradients_to_the_images_are_right(sampler: Sampler, scale: float) -> None:
    """They agree with finite differences in float64, where the image is enlarged and where it is reduced."""
    images = images_of(1, dtype=torch.float64).requires_grad_()
    grid = grid_of(scale, (4, 3), dtype=torch.float64)
    act = partial(sample, sampler=sampler, padding="zeros", align_corners=True)
    assert torch.autograd.gradcheck(lambda images: act(images, grid), images, fast_mode=True)


@pytest.mark.parametrize("sampler", WITH_GRID_GRADIENTS)
@pytest.mark.parametrize("scale", [0.6, 2.7])
def test_gradients_to_the_grid_are_right(sampler: Sampler, scale: float) -> None:
    """They agree with finite differences in float64, where the image is enlarged and where it is reduced."""
    images = images_of(1, dtype=torch.float64)
    grid = grid_of(scale, (4, 3), dtype=torch.float64).requires_grad_()
    act = partial(sample, sampler=sampler, padding="border", align_corners=False)
    assert torch.autograd.gradcheck(lambda grid: act(images, grid), grid, fast_mode=True)


@every_sampler
def test_many_models_can_be_batched(sampler: Sampler) -> None:
    """``torch.vmap`` over a further axis gives what a loop gives, values and gradients to the grid."""
    images = images_of(6, dtype=torch.float64).reshape(3, 2, 2, 9, 11)
    grid = torch.stack([grid_of(scale, (5, 4), 2, dtype=torch.float64) for scale in (0.5, 1.0, 2.0)])
    act = partial(sample, sampler=sampler, padding="zeros", align_corners=True)
    pairs = list(zip(images, grid, strict=True))
    torch.testing.assert_close(vmap(act)(images, grid), torch.stack([act(*pair) for pair in pairs]))

    def energy(grid: Tensor, images: Tensor) -> Tensor:
        return act(images, grid).square().sum()

    grids = [one.clone().requires_grad_() for _, one in pairs]
    alone = [torch.autograd.grad(energy(grid, images), grid)[0] for grid, images in zip(grids, images, strict=True)]
    torch.testing.assert_close(vmap(grad(energy))(grid, images), torch.stack(alone))


@every_sampler
def test_the_same_numbers_come_every_time(sampler: Sampler, deterministic: None) -> None:
    """Under deterministic algorithms values and gradients repeat bit by bit, whatever the global random state."""

    def once() -> tuple[Tensor, ...]:
        torch.rand(1)
        images = images_of(2, 3, (24, 24), dtype=torch.float32).requires_grad_()
        grid = grid_of(1.3, (24, 24), 2).requires_grad_()
        read = sample(images, grid, sampler=sampler, padding="zeros", align_corners=True)
        return (read, *torch.autograd.grad(read.square().sum(), (images, grid)))

    assert all(torch.equal(first, second) for first, second in zip(once(), once(), strict=True))
