"""Controls: the fixed zoom, and boxes as crops."""

import pytest
import torch
from torch import Tensor

from stnbench.core.errors import ShapeError
from stnbench.nn.sampling import sample
from stnbench.nn.transforms import pixel_centres
from stnbench.nn.transforms.affine import Crop, FixedZoom, box_parameters
from stnbench.nn.transforms.registry import build_transformation
from stnbench.spec.transformer import TransformerSpec

both_corners = pytest.mark.parametrize("align_corners", [True, False])


def read_box(images: Tensor, box: list[float], *, align_corners: bool) -> Tensor:
    """The images under the crop of a box."""
    size = (images.shape[-2], images.shape[-1])
    parameters = box_parameters(torch.tensor([box] * len(images)), size, align_corners=align_corners)
    grid = Crop().grid(parameters, size, align_corners=align_corners)
    return sample(images, grid, sampler="bilinear", padding="border", align_corners=align_corners)


def test_the_zoom_reads_the_middle_share_of_each_side() -> None:
    """Every image's edges are read at the zoom, whatever its parameters, of which there are none."""
    zoom = build_transformation(TransformerSpec(family="fixed_zoom", zoom=0.5))
    assert zoom.identity_parameters() == ()
    read = zoom.map_points(torch.zeros(2, 0), torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]))
    assert read.tolist() == [[[0.5, -0.5], [0.0, 0.0]]] * 2


@both_corners
def test_a_zoom_of_one_is_the_identity(*, align_corners: bool) -> None:
    """Bit by bit."""
    grid = FixedZoom(1.0).grid(torch.zeros(1, 0), (3, 4), align_corners=align_corners)
    assert torch.equal(grid.reshape(-1, 2), pixel_centres((3, 4), align_corners=align_corners, like=grid))


@both_corners
def test_the_box_of_the_whole_image_is_the_identity(*, align_corners: bool) -> None:
    """Its edges are those of the image: scales 1 and no translation."""
    box = torch.tensor([[-1.0, -1.0, 1.0, 1.0]])
    assert box_parameters(box, (5, 8), align_corners=align_corners).tolist() == [[1.0, 1.0, 0.0, 0.0]]


@both_corners
def test_a_box_is_read_from_edge_to_edge(*, align_corners: bool) -> None:
    """The lower right quarter of a 4 x 6 image fills 4 x 6 pixels: each of its pixels' quarters is read once."""
    x, y = torch.meshgrid(torch.arange(6.0), torch.arange(4.0), indexing="xy")
    read = read_box(torch.stack([x, y])[None], [0.0, 0.0, 1.0, 1.0], align_corners=align_corners)[0]
    # Pixel 3 reaches from 2.5 to 3.5: its halves have their centres at 2.75 and 3.25; beyond 5 there is the border.
    assert read[0, 0].tolist() == pytest.approx([2.75, 3.25, 3.75, 4.25, 4.75, 5.0], abs=1e-5)
    assert read[1, :, 0].tolist() == pytest.approx([1.75, 2.25, 2.75, 3.0], abs=1e-5)


def test_the_same_places_are_read_in_both_conventions() -> None:
    """A box is a box of pixels: what align_corners says changes numbers and no image."""
    images = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(4))
    box = [-0.62, -0.8, 0.7, 0.55]
    aligned = read_box(images, box, align_corners=True)
    torch.testing.assert_close(aligned, read_box(images, box, align_corners=False), rtol=0, atol=1e-5)


def test_an_image_of_one_pixel_has_boxes_too() -> None:
    """Its parameters are finite, and the pixel is read."""
    one = torch.full((1, 1, 1, 1), 0.5)
    assert read_box(one, [-0.5, -0.5, 0.8, 0.8], align_corners=True).item() == pytest.approx(0.5)


def test_boxes_of_another_shape_are_an_error() -> None:
    """Three numbers are no box."""
    with pytest.raises(ShapeError) as caught:
        box_parameters(torch.zeros(2, 3), (4, 4), align_corners=True)
    assert (caught.value.actual, caught.value.expected) == ((2, 3), "(batch, 4): x1, y1, x2, y2")
