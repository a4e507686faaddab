"""Health, gathered batch by batch, is what one look at all images gives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stnbench.diagnostics.health import HealthMeter, TransformerWatch
from stnbench.diagnostics.pose import sample_points
from stnbench.spec.result import TransformerHealth
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.training.step import TrainingRun

MakeRun = Callable[[TrialSpec], TrainingRun]

IDENTITY = np.array([1, 0, 0, 0, 1, 0])
POINTS = sample_points().double().numpy()


def mapped(theta: np.ndarray) -> np.ndarray:
    """Where affine maps (n, 6) take the nine points: (n, 9, 2)."""
    matrices = theta.astype(np.float64).reshape(-1, 2, 3)
    return np.asarray(np.einsum("nij,pj->npi", matrices[:, :, :2], POINTS) + matrices[:, None, :, 2])


def health(theta: np.ndarray, outside: np.ndarray, sizes: list[int]) -> TransformerHealth:
    """The health of affine maps (n, 6) taken in as batches of these sizes."""
    meter = HealthMeter(2)
    parts = (torch.tensor(numbers).split(sizes) for numbers in (theta, mapped(theta), outside))
    for matrices, points, shares in zip(*parts, strict=True):
        meter.add(matrices.unflatten(1, (2, 3)), points, shares)
    return meter.result()


def of_one(*theta: float, outside: float = 0.0) -> TransformerHealth:
    """The health of one image's affine map."""
    return health(np.array([theta], np.float32), np.array([outside], np.float32), [1])


def turned(angle_deg: float, large: float, small: float) -> tuple[float, ...]:
    """An affine map with these singular values, turned before and after stretching."""
    angle = np.deg2rad(angle_deg)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (a, b), (c, d) = rotation @ np.diag([large, small]) @ rotation
    return (a, b, 0.25, c, d, -0.5)


@given(
    theta=hnp.arrays(np.float32, st.tuples(st.integers(2, 12), st.just(6)), elements=st.floats(-4, 4, width=32)),
    data=st.data(),
)
def test_batches_do_not_matter(theta: np.ndarray, data: st.DataObject) -> None:
    """Any cut into batches gives numpy's numbers over all images."""
    cut = data.draw(st.integers(1, len(theta) - 1))
    outside = np.linspace(0, 1, len(theta), dtype=np.float32)
    found = health(theta, outside, [cut, len(theta) - cut])
    exact = theta.astype(np.float64)
    parts = exact.reshape(-1, 2, 3)[:, :, :2]
    singular = np.linalg.svd(parts, compute_uv=False)
    moved = mapped(theta)
    assert found.place == 2
    assert found.theta_mean == pytest.approx(exact.mean(axis=0), abs=1e-9)
    assert found.theta_std == pytest.approx(exact.std(axis=0), abs=1e-9)
    assert found.outside_share == pytest.approx(0.5)
    assert found.identity_distance == pytest.approx(np.sqrt(((exact - IDENTITY) ** 2).mean()), abs=1e-9)
    assert found.determinant_mean == pytest.approx(np.linalg.det(parts).mean(), abs=1e-9)
    assert found.singular_max_mean == pytest.approx(singular[:, 0].mean(), abs=1e-6)
    assert found.singular_min_mean == pytest.approx(singular[:, 1].mean(), abs=1e-6)
    assert found.movement == pytest.approx(np.sqrt(((moved - POINTS) ** 2).sum(axis=2).mean()), abs=1e-9)
    assert found.movement_spread == pytest.approx(np.sqrt(moved.var(axis=0).sum(axis=1).mean()), abs=1e-9)
    assert found.finite_share == 1


def test_the_identity_is_at_distance_zero() -> None:
    """A transformer that does nothing has no spread, moves and loses nothing, and keeps areas and lengths."""
    found = health(np.tile(IDENTITY, (5, 1)).astype(np.float32), np.zeros(5, np.float32), [3, 2])
    assert found == TransformerHealth(
        place=2,
        theta_mean=(1, 0, 0, 0, 1, 0),
        theta_std=(0,) * 6,
        outside_share=0,
        identity_distance=0,
        determinant_mean=1,
        movement=0,
        movement_spread=0,
        singular_max_mean=1,
        singular_min_mean=1,
        lost_share=0,
    )


def test_a_zoom_reads_a_quarter_of_the_area() -> None:
    """Scale 0.5 in x and y: determinant 0.25, distance sqrt(2 * 0.25 / 6), movement half of the points' sqrt(4 / 3)."""
    found = of_one(0.5, 0, 0, 0, 0.5, 0)
    assert found.determinant_mean == 0.25
    assert found.identity_distance == pytest.approx(np.sqrt(0.5 / 6))
    assert found.movement == pytest.approx(np.sqrt(4 / 3) / 2)
    assert (found.singular_max_mean, found.singular_min_mean) == (0.5, 0.5)


def test_singular_values_do_not_depend_on_the_turn() -> None:
    """A stretch of 2 by 0.5 has them at any angle, mirrored too."""
    for theta in (turned(0, 2, 0.5), turned(33, 2, 0.5), turned(70, 0.5, 2), turned(20, 2, -0.5)):
        found = of_one(*theta)
        assert (found.singular_max_mean, found.singular_min_mean) == pytest.approx((2, 0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("theta", "outside", "lost"),
    [
        ((1, 0, 0, 0, 1, 0), 0.0, 0),
        ((1, 0, 1, 0, 1, 1), 0.75, 0),
        ((1, 0, 1.1, 0, 1, 1), 0.76, 1),
        ((0.3, 0, 0, 0, 0.3, 0), 0.0, 0),
        ((0.2, 0, 0, 0, 0.2, 0), 0.0, 1),
        ((1.9, 0, 0, 0, -1.9, 0), 0.7, 0),
        ((2.1, 0, 0, 0, -2.1, 0), 0.7, 1),
    ],
)
def test_an_image_is_lost_where_little_of_it_is_seen(theta: tuple[float, ...], outside: float, lost: float) -> None:
    """Too small a spot, too small a picture, mirrored or not, or three quarters and more beside the image."""
    assert of_one(*theta, outside=outside).lost_share == lost


def test_images_that_are_not_finite_are_counted_and_left_out() -> None:
    """The numbers are those of the other images, and all 0 without one."""
    theta = np.tile(IDENTITY, (4, 1)).astype(np.float32)
    theta[1, 0], theta[3, 5] = np.nan, np.inf
    found = health(theta, np.zeros(4, np.float32), [2, 2])
    assert (found.finite_share, found.determinant_mean, found.movement) == (0.5, 1, 0)
    none = of_one(np.nan, 0, 0, 0, 1, 0)
    assert (none.finite_share, none.theta_mean, none.identity_distance, none.movement) == (0, (0,) * 6, 0, 0)


def test_movement_is_seen_where_theta_at_the_centre_is_not(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """A thin-plate spline that moves one corner alone keeps the centre nearly still: movement tells."""
    placed = PlacedTransformerSpec(
        place=1, transformer=TransformerSpec(family="tps"), locnet=ConvLocnetSpec(sizes=(3, 4, 5))
    )
    run = make_run(
        TrialSpec(**{name: getattr(toy_spec, name) for name in ("dataset", "network")}, transformers=(placed,))
    )
    (key,) = run.model.network.transformers
    bias = run.model.network.get_parameter(f"transformers.{key}.branches.0.localization.parameters_layer.bias")
    with torch.no_grad():
        bias[0] += 0.5
    watch = TransformerWatch()
    rows = torch.arange(4)
    with torch.no_grad():
        watch.add(run.model.explain(run.images.images[rows], run.images.boxes[rows]).transformers, None)
    (found,) = watch.results()
    assert found.movement is not None
    assert found.movement > 3 * found.identity_distance
    assert found.movement_spread == pytest.approx(0, abs=1e-6)
    ((first, *others),) = watch.mean_parameters()[(1, 1)]
    assert first != pytest.approx(others[0])
