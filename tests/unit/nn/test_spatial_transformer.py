"""The spatial transformer as a module."""

import pytest
import torch
from narrowed import known

from stnbench.core.errors import InfeasibleError, ShapeError
from stnbench.nn.initialization import MapSize
from stnbench.nn.sampling import sample
from stnbench.nn.spatial_transformer import SpatialTransformer, build_spatial_transformer
from stnbench.spec.transformer import (
    ConvLocnetSpec,
    PlacedTransformerSpec,
    SharedLocnetSpec,
    TransformerSpec,
)


def transformer(family: str = "affine", *, align_corners: bool = True) -> SpatialTransformer:
    """A small spatial transformer for 3 x 12 x 10 images."""
    spec = PlacedTransformerSpec(
        place=1,
        transformer=TransformerSpec(family=family, align_corners=align_corners),
        locnet=ConvLocnetSpec(sizes=(3, 4, 5)),
    )
    module = build_spatial_transformer(spec, MapSize(3, 12, 10))
    module.initialize(torch.Generator().manual_seed(1))
    return module


def last_layer(module: SpatialTransformer) -> torch.nn.Linear:
    """The layer that emits the parameters."""
    assert module.localization is not None
    return module.localization.parameters_layer


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
    torch.nn.init.constant_(last_layer(module).bias, 2.0)
    batch = images()
    done = module.explain(batch)
    assert torch.equal(done.images, module(batch))
    (parameters,) = done.parameters
    assert torch.equal(parameters, module.locate(batch))
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
    spec = PlacedTransformerSpec(place=1, locnet=ConvLocnetSpec(sizes=(2, 2, 3)))
    module = build_spatial_transformer(spec, MapSize(1, 8, 8))
    module.initialize(torch.Generator().manual_seed(1))
    module.double()
    last = last_layer(module).weight
    torch.nn.init.normal_(last, std=0.3, generator=torch.Generator().manual_seed(3))
    batch = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(module, batch, eps=1e-7, atol=1e-4)


def iterated(family: str, iterations: int) -> SpatialTransformer:
    """As ``transformer``, looking several times."""
    spec = TransformerSpec(family=family, iterations=iterations)
    placed = PlacedTransformerSpec(place=1, transformer=spec, locnet=ConvLocnetSpec(sizes=(3, 4, 5)))
    module = build_spatial_transformer(placed, MapSize(3, 12, 10))
    module.initialize(torch.Generator().manual_seed(1))
    return module


@pytest.mark.parametrize("family", ["affine", "projective", "tps"])
def test_iterations_compose_and_read_the_image_itself(family: str) -> None:
    """Two looks that each zoom out by 1.5 or in by 2/3 lose nothing: the image read once at the product is the result.

    Reading what was read already would lose the border at the first zoom and blur twice.
    """
    module = iterated(family, 2)
    torch.nn.init.normal_(last_layer(module).weight, std=0.05, generator=torch.Generator().manual_seed(4))
    batch = images()
    done = module.explain(batch)
    first, second = done.parameters
    points = torch.rand(1, 7, 2, generator=torch.Generator().manual_seed(5)) * 2 - 1
    by_hand = module.transformation.map_points(first, module.transformation.map_points(second, points))
    assert not torch.equal(first, second)
    torch.testing.assert_close(done.map_points(points), by_hand.detach(), rtol=0, atol=1e-6)
    once = sample(batch, done.grid, sampler="bilinear", padding="zeros", align_corners=True)
    assert torch.equal(done.images, once)


def test_theta_of_iterations_is_the_product_of_their_matrices() -> None:
    """For affine maps the composed theta is theta1 theta2, to 1e-5."""
    module = iterated("affine", 3)
    torch.nn.init.normal_(last_layer(module).weight, std=0.1, generator=torch.Generator().manual_seed(4))
    done = module.explain(images())
    row = torch.tensor([[0.0, 0.0, 1.0]])
    product = torch.eye(3)
    for step in done.parameters:
        matrices = [torch.cat([theta, row]) for theta in module.transformation.theta_out_to_in(step.detach())]
        product = product @ torch.stack(matrices)
    torch.testing.assert_close(done.theta_out_to_in.float(), product[:, :2], rtol=0, atol=1e-5)


def control(family: str) -> SpatialTransformer:
    """A control, which has no localisation network."""
    spec = PlacedTransformerSpec(place=1, transformer=TransformerSpec(family=family, zoom=0.5), locnet=None)
    return build_spatial_transformer(spec, MapSize(3, 12, 10))


def test_the_fixed_zoom_learns_nothing_and_zooms() -> None:
    """It has no parameters, and shows the middle half of every side."""
    module = control("fixed_zoom")
    assert not list(module.parameters())
    assert module.explain(images()).theta_out_to_in.tolist() == [[[0.5, 0, 0], [0, 0.5, 0]]] * 2


def test_roi_shows_the_box() -> None:
    """The left half of the image as a box fills the output; without boxes there is an error that says so."""
    module = control("roi")
    batch = images()
    box = torch.tensor([[-1.0, -1.0, 0.0, 1.0]] * 2)
    theta = module.explain(batch, box).theta_out_to_in
    edge = 10 / 9  # the outer edges in coordinates of pixel centres
    left, right = (theta[0, 0, 0] * side + theta[0, 0, 2] for side in (-edge, edge))
    assert (float(left), float(right)) == pytest.approx((-edge, 0), abs=1e-5)
    with pytest.raises(ShapeError, match="boxes"):
        module(batch)


def test_roi_behind_the_image_is_infeasible() -> None:
    """The annotated box is one of the image."""
    spec = PlacedTransformerSpec(place=2, transformer=TransformerSpec(family="roi"), locnet=None)
    with pytest.raises(InfeasibleError, match="place 2"):
        build_spatial_transformer(spec, MapSize(3, 12, 10))


@pytest.mark.parametrize(("wanted", "found"), [(5.0, 2.0), (0.1, 0.5), (1.5, 1.5)])
def test_the_guard_keeps_the_scale_within_its_bounds(wanted: float, found: float) -> None:
    """Between 0.5 and 2 a scale is as it was chosen; beyond, it is on the bound, and theta says what was read."""
    spec = TransformerSpec(family="scale", scale_min=0.5, scale_max=2.0)
    placed = PlacedTransformerSpec(place=1, transformer=spec, locnet=ConvLocnetSpec(sizes=(3, 4, 5)))
    module = build_spatial_transformer(placed, MapSize(3, 12, 10))
    module.initialize(torch.Generator().manual_seed(1))
    torch.nn.init.constant_(last_layer(module).bias, wanted)
    done = module.explain(images())
    assert done.theta_out_to_in[0, 0, 0].item() == pytest.approx(found, rel=1e-4)
    assert done.grid.amax().item() == pytest.approx(found, rel=1e-4)


def test_the_penalty_is_the_mean_squared_distance_from_the_identity() -> None:
    """A shift by 0.3 in x at a weight of 2 costs 2 * 0.09, and its gradient pulls the shift back."""
    spec = TransformerSpec(family="translation", identity_penalty=2.0)
    placed = PlacedTransformerSpec(place=1, transformer=spec, locnet=ConvLocnetSpec(sizes=(3, 4, 5)))
    module = build_spatial_transformer(placed, MapSize(3, 12, 10))
    module.initialize(torch.Generator().manual_seed(1))
    with torch.no_grad():
        last_layer(module).bias.copy_(torch.tensor([0.3, 0.0]))
    penalty = module.explain(images()).penalty
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.18, rel=1e-5)
    penalty.backward()
    assert known(last_layer(module).bias.grad).tolist() == pytest.approx([2 * 2 * 0.3, 0], abs=1e-5)


def test_a_localisation_network_sees_what_it_is_shown() -> None:
    """With a look at pooled maps, the network sees those and the image itself is transformed."""
    spec = PlacedTransformerSpec(place=1, locnet=SharedLocnetSpec(sizes=(4,)))
    module = build_spatial_transformer(spec, MapSize(3, 6, 5))
    module.initialize(torch.Generator().manual_seed(1))
    batch = images()
    seen = []

    def look(maps: torch.Tensor) -> torch.Tensor:
        seen.append(maps)
        return torch.nn.functional.avg_pool2d(maps, 2)

    assert module.explain(batch, look=look).images.shape == batch.shape
    assert len(seen) == 1
    assert seen[0] is batch
