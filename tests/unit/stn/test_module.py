"""The spatial transformer as a module."""

import pytest
import torch

from stnbench.core.errors import InfeasibleError, ShapeError
from stnbench.spec.transformer import Family, LocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.stn.maps import MapSize
from stnbench.stn.module import SpatialTransformer, build_spatial_transformer


def transformer(family: Family = "affine", *, align_corners: bool = True) -> SpatialTransformer:
    """A small spatial transformer for 3 x 12 x 10 images."""
    spec = PlacedTransformerSpec(
        place=1,
        transformer=TransformerSpec(family=family, align_corners=align_corners),
        locnet=LocnetSpec(sizes=(3, 4, 5)),
    )
    module = build_spatial_transformer(spec, MapSize(3, 12, 10))
    module.initialize(torch.Generator().manual_seed(1))
    return module


def images(batch: int = 2) -> torch.Tensor:
    """Random images in [0, 1]."""
    return torch.rand(batch, 3, 12, 10, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("align_corners", [True, False])
def test_a_new_transformer_changes_nothing(*, align_corners: bool) -> None:
    """The first forward pass gives the images back, within 22 x 2^-24."""
    batch = images()
    assert (transformer(align_corners=align_corners)(batch) - batch).abs().max() <= 22 * 2**-24


def test_a_new_transformer_changes_nothing_under_autocast() -> None:
    """Theta and grid stay in float32 under autocast; bfloat16 ones would blur the images."""
    batch = images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = transformer()(batch)
    assert out.dtype == torch.float32
    assert (out - batch).abs().max() <= 22 * 2**-24


def test_given_parameters_are_applied() -> None:
    """A translation by one pixel to the right in the input shows every column one place to the left."""
    batch = images()
    moved = transformer("translation").transform(batch, torch.tensor([[2 / 9, 0.0]] * 2))
    torch.testing.assert_close(moved[..., :-1], batch[..., 1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[..., -1], torch.zeros(2, 3, 12), rtol=0, atol=1e-5)


def test_explain_says_what_forward_does() -> None:
    """In one pass: the same images as forward, the parameters of locate, theta and the share outside."""
    module = transformer("scale")
    torch.nn.init.constant_(module.localization.parameters_layer.bias, 2.0)
    batch = images()
    done = module.explain(batch)
    assert torch.equal(done.images, module(batch))
    assert torch.equal(done.parameters, module.locate(batch))
    assert done.theta_out_to_in.tolist() == [[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]] * 2
    assert done.outside_share.tolist() == pytest.approx([1 - 6 * 4 / 120] * 2)
    assert not done.theta_out_to_in.requires_grad
    assert done.images.requires_grad


def test_parameters_of_another_batch_are_an_error() -> None:
    """Three rows of parameters do not fit two images."""
    with pytest.raises(ShapeError) as caught:
        transformer("translation").transform(images(), torch.zeros(3, 2))
    assert (caught.value.actual, caught.value.expected) == ((3, 2), "(2, 2), one row an image")


def test_too_small_a_map_names_the_place() -> None:
    """The message of an infeasible localisation network begins with where it stands."""
    with pytest.raises(InfeasibleError, match=r"^at place 3, the localisation network 200-300-200"):
        build_spatial_transformer(PlacedTransformerSpec(place=3), MapSize(3, 7, 7))


def test_the_whole_module_has_right_gradients() -> None:
    """Gradients to the images and through theta agree with finite differences in float64."""
    spec = PlacedTransformerSpec(place=1, locnet=LocnetSpec(sizes=(2, 2, 3)))
    module = build_spatial_transformer(spec, MapSize(1, 8, 8))
    module.initialize(torch.Generator().manual_seed(1))
    module.double()
    last = module.localization.parameters_layer.weight
    torch.nn.init.normal_(last, std=0.3, generator=torch.Generator().manual_seed(3))
    batch = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(module, batch, eps=1e-7, atol=1e-4)
