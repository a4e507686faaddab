"""The theta error: what it sees, and what it rightly does not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stnbench.diagnostics.pose import (
    FAR_ERROR,
    LARGEST_ERROR,
    MapPoints,
    PoseError,
    apply_homography,
    pose_error,
    sample_points,
)

pytestmark = pytest.mark.slow


def poses(count: int = 40, *, shift: float = 0.3, turn: float = 0.5, slant: float = 0.1) -> torch.Tensor:
    """Random homographies from the sign's square to the image, float64 (count, 3, 3)."""
    generator = torch.Generator().manual_seed(3)
    draws = torch.rand(count, 5, generator=generator, dtype=torch.float64) * 2 - 1
    angle, scale = draws[:, 0] * turn, 0.8 * torch.exp(draws[:, 1] * 0.2)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    zero, one = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    rows = [cos, -sin, draws[:, 2] * shift, sin, cos, draws[:, 3] * shift, draws[:, 4] * slant, zero, one]
    return torch.stack(rows, dim=1).reshape(count, 3, 3)


def maps(pose: torch.Tensor, transformer: torch.Tensor) -> MapPoints:
    """The maps from output to sign for poses and output-to-image homographies (n, 3, 3), or one for all."""

    def map_points(points: torch.Tensor) -> torch.Tensor:
        read = apply_homography(transformer.expand(len(pose), 3, 3), points.expand(len(pose), *points.shape))
        return apply_homography(torch.linalg.inv(pose), read)

    return map_points


def error(pose: torch.Tensor, transformer: torch.Tensor) -> PoseError:
    """The error of transformers that read images of these poses."""
    found = pose_error(maps(pose, transformer))
    assert found is not None
    return found


def affine(a: float, b: float, c: float, d: float, tx: float, ty: float) -> torch.Tensor:
    """One affine map, float64 (3, 3)."""
    return torch.tensor([[a, b, tx], [c, d, ty], [0, 0, 1]], dtype=torch.float64)


IDENTITY = affine(1, 0, 0, 1, 0, 0)
NEAR = st.floats(-0.8, 0.8)
COMMON = st.builds(
    lambda zoom, b, c, tx, ty: affine(zoom, b * zoom, c * zoom, zoom, tx, ty), st.floats(0.1, 5), NEAR, NEAR, NEAR, NEAR
)
"""Affine maps that do the same to every image: a zoom, a shear and a turn, a place."""


def test_points_are_a_lattice_in_x_y_order() -> None:
    """The first point is the upper left corner, the second one is to its right."""
    assert sample_points().tolist()[:2] == [[-1, -1], [0, -1]]
    assert len(sample_points()) == 9


def test_a_transformer_that_undoes_every_pose_has_no_error() -> None:
    """T = P: the sign fills the output, always."""
    found = error(poses(), poses())
    assert found.mean == pytest.approx(0, abs=1e-9)
    assert found.far_share == 0


@given(COMMON)
def test_one_affine_choice_for_all_images_costs_nothing(choice: torch.Tensor) -> None:
    """T = P A with any fixed shear, zoom and shift A: the sign stands still, though not in the middle."""
    assert error(poses(), poses() @ choice).mean == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@given(common=COMMON, share=st.floats(0, 1))
def test_a_common_affine_map_gains_and_costs_nothing(common: torch.Tensor, share: float) -> None:
    """Whatever a transformer has learnt, from nothing (share 0) to all of the pose (share 1)."""
    pose = poses(slant=0)
    learnt = IDENTITY + share * (pose - IDENTITY)
    plain, moved = error(pose, learnt), error(pose, learnt @ common)
    assert moved.mean == pytest.approx(plain.mean, abs=1e-6)
    assert moved.far_share == plain.far_share


@pytest.mark.parametrize("slant", [0.0, 0.1])
def test_a_fixed_zoom_has_learnt_nothing_at_any_zoom(slant: float) -> None:
    """0.5, 1, 2 and 4 read the same, also where signs are seen at a slant; so does the zoom of a collapse."""
    pose = poses(slant=slant)
    expected = error(pose, IDENTITY).mean
    assert expected > 0.2
    for zoom in (0.01, 0.5, 2.0, 4.0):
        assert error(pose, affine(zoom, 0, 0, zoom, 0, 0)).mean == pytest.approx(expected, rel=1e-6)


def test_the_error_falls_with_the_pose_that_is_left() -> None:
    """A transformer that undoes half of the pose has about half of the error of one that undoes nothing."""
    pose = poses(slant=0)
    errors = [error(pose, IDENTITY + share * (pose - IDENTITY)).mean for share in (0, 0.25, 0.5, 0.75, 1)]
    assert errors == sorted(errors, reverse=True)
    assert 0.3 < errors[2] / errors[0] < 0.7


def test_the_error_is_in_half_sides_of_the_sign() -> None:
    """Signs half as large as the image that are moved by +-0.1 half sides of it move by 0.2 of their own."""
    pose = affine(0.5, 0, 0, 0.5, 0, 0).repeat(20, 1, 1)
    pose[:, 0, 2] = torch.tensor([0.1, -0.1] * 10)
    assert error(pose, IDENTITY).mean == pytest.approx(0.2)


@pytest.mark.slow
@given(share=st.floats(0.02, 0.49))
def test_images_thrown_far_away_show(share: float) -> None:
    """Each with the largest error; the others, whose pose is undone, keep theirs of 0."""
    pose = poses(100)
    thrown = int(share * 100)
    transformer = pose.clone()
    transformer[:thrown, 0, 2] += 10
    found = error(pose, transformer)
    assert found.mean == pytest.approx(LARGEST_ERROR * thrown / 100, abs=0.005)
    assert found.far_share == thrown / 100


def test_images_shrunk_to_a_point_show() -> None:
    """A quarter of them: each is as far off as the nine points are from one of them, and counts as far."""
    pose = poses(100)
    transformer = pose.clone()
    transformer[:24, :2, :2] = 0
    found = error(pose, transformer)
    assert found.far_share == 0.24
    assert 0.24 * FAR_ERROR < found.mean < 0.24 * LARGEST_ERROR


@pytest.mark.slow
@given(sd=st.floats(0.001, 0.02))
def test_jitter_is_no_learning(sd: float) -> None:
    """Theta that varies without a reason reads no better than one that does not."""
    pose = poses(200)
    generator = torch.Generator().manual_seed(5)
    jittered = IDENTITY.repeat(200, 1, 1)
    jittered[:, :2] += sd * torch.randn(200, 2, 3, generator=generator, dtype=torch.float64)
    assert error(pose, jittered).mean > 0.98 * error(pose, IDENTITY).mean


def test_a_transformer_that_shows_a_point_has_no_error_to_speak_of() -> None:
    """Where all of the output is one point, or one line, of the sign, there is no number, rather than a wrong one."""
    assert pose_error(maps(poses(), affine(0, 0, 0, 0, 0, 0))) is None
    assert pose_error(maps(poses(), affine(1, 0, 0, 0, 0, 0))) is None
    assert pose_error(lambda points: torch.full((4, *points.shape), torch.nan, dtype=torch.float64)) is None


def test_one_pose_at_its_vanishing_line_counts_once() -> None:
    """An image without a finite place is one far off of forty-one, and leaves the others as they are."""
    clean = maps(poses(), IDENTITY)
    broken = pose_error(lambda points: torch.cat([clean(points), torch.full((1, len(points), 2), torch.nan)]))
    plain = pose_error(clean)
    assert broken is not None
    assert plain is not None
    assert broken.mean == pytest.approx((40 * plain.mean + LARGEST_ERROR) / 41, rel=1e-6)
    assert broken.far_share == pytest.approx((40 * plain.far_share + 1) / 41)
