"""The measures of stability: what they are 0, 1 or equal for, whatever the images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stnbench.data.homographies import map_points
from stnbench.diagnostics.stability import (
    CORNERS,
    WARPS,
    corner_spread,
    equivariance_error,
    pixel_variance,
    quadrilateral_area,
    quadrilateral_iou,
    sign_coordinates,
    sign_movement,
    track_mean,
    track_means,
    track_ratio,
    warp_images,
)

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**32 - 1)
OUTPUT = torch.tensor(CORNERS, dtype=torch.float64)


def draw_poses(seed: int, count: int = 12) -> Tensor:
    """Random homographies from the sign's square to the image, float64 (count, 3, 3)."""
    draws = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    angle, scale = draws[:, 0] / 2, 0.8 * torch.exp(draws[:, 1] * 0.2)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = [cos, -sin, 0.2 * draws[:, 2], sin, cos, 0.2 * draws[:, 3], 0.1 * draws[:, 4], zero, one]
    return torch.stack(rows, dim=1).reshape(count, 3, 3)


def draw_boxes(seed: int, count: int = 12) -> Tensor:
    """Random upright boxes x1, y1, x2, y2 inside the image, float64 (count, 4)."""
    draws = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    centre, half = 0.2 * draws[:, :2] - 0.1, 0.5 + 0.3 * draws[:, 2:]
    return torch.cat([centre - half, centre + half], dim=1)


def corners_of(boxes: Tensor) -> Tensor:
    """The corners of boxes, in the order of the output's."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=1).reshape(-1, 4, 2)


def in_three_tracks(count: int = 12) -> Tensor:
    """Tracks of equal length, interleaved."""
    return torch.arange(count) % 3


@given(seed=SEEDS)
def test_a_transformer_that_undoes_every_pose_stands_still(seed: int) -> None:
    """It reads the sign, whole, from every image: neither corners nor sign move."""
    poses = draw_poses(seed)
    read = map_points(poses, OUTPUT.expand(12, -1, -1))
    seen = sign_coordinates(read, draw_boxes(seed), poses)
    assert corner_spread(seen, in_three_tracks()).tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert sign_movement(seen, in_three_tracks()).tolist() == pytest.approx([0, 0, 0], abs=1e-12)


@given(seed=SEEDS)
def test_a_transformer_that_reads_the_box_stands_still(seed: int) -> None:
    """Where poses are not known, the sign's coordinates are those of its box."""
    boxes = draw_boxes(seed)
    seen = sign_coordinates(corners_of(boxes), boxes, None)
    assert corner_spread(seen, in_three_tracks()).tolist() == pytest.approx([0, 0, 0], abs=1e-12)


@given(seed=SEEDS, zoom=st.floats(0.1, 1.5))
def test_a_fixed_zoom_moves_as_the_boxes_do(seed: int, zoom: float) -> None:
    """Its corners' spread is that of (+-zoom - centre) / half side over the boxes; zoom 1 is the identity."""
    boxes = draw_boxes(seed)
    seen = sign_coordinates((zoom * OUTPUT).expand(12, -1, -1), boxes, None)
    centre, half = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    for track, spread in enumerate(corner_spread(seen, in_three_tracks()).tolist()):
        own = slice(track, None, 3)
        sides = [((sign * zoom - centre[own]) / half[own]).var(dim=0).sum() for sign in (-1, 1)]
        assert spread == pytest.approx(math.sqrt(float(sum(sides)) / 2))


@given(seed=SEEDS)
def test_zooming_into_one_spot_is_not_standing_still(seed: int) -> None:
    """The spread of the corners falls with the region read, the movement of the sign in the output does not."""
    boxes = draw_boxes(seed)
    wide, narrow = (sign_coordinates((zoom * OUTPUT).expand(12, -1, -1), boxes, None) for zoom in (1.0, 0.01))
    tracks = in_three_tracks()
    assert (corner_spread(narrow, tracks) < corner_spread(wide, tracks)).all()
    assert (sign_movement(narrow, tracks) > sign_movement(wide, tracks)).all()


def test_a_vanishing_line_does_not_drown_the_others() -> None:
    """A pose whose horizon crosses the output moves corners by four half sides at most; one without is not touched."""
    poses = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    poses[0, 2, 0] = 0.999
    poses[1, 0, 0] = 0.1
    seen = sign_coordinates(OUTPUT.expand(3, -1, -1), draw_boxes(1, 3), poses)
    assert seen[0].abs().max() == 4
    assert torch.allclose(seen[1], OUTPUT * torch.tensor([10.0, 1.0]))
    assert torch.equal(seen[2], OUTPUT)


def test_the_spread_is_the_standard_deviation_of_a_corner() -> None:
    """A sign that steps by 0.2 to and fro in x has corners with a standard deviation of 0.2 / sqrt(2)."""
    corners = OUTPUT.expand(2, -1, -1).clone()
    corners[1, :, 0] += 0.2
    assert corner_spread(corners, torch.zeros(2)).item() == pytest.approx(0.2 / math.sqrt(2))
    assert corner_spread(corners[:1], torch.zeros(1)).isnan().all()


@given(seed=SEEDS)
def test_equal_boxes_overlap_whole(seed: int) -> None:
    """The IoU is 1, also where the output is turned or mirrored."""
    boxes = draw_boxes(seed)
    for order in ([0, 1, 2, 3], [2, 3, 0, 1], [1, 0, 3, 2]):
        assert quadrilateral_iou(corners_of(boxes)[:, order], boxes).tolist() == pytest.approx([1] * 12)


@given(seed=SEEDS)
def test_boxes_overlap_as_boxes_do(seed: int) -> None:
    """The IoU of upright boxes is the one of their sides."""
    one, two = draw_boxes(seed), draw_boxes(seed + 1)
    sides = torch.minimum(one[:, 2:], two[:, 2:]) - torch.maximum(one[:, :2], two[:, :2])
    overlap = sides.clamp(min=0).prod(dim=1)
    areas = [quadrilateral_area(corners_of(boxes)) for boxes in (one, two)]
    expected = overlap / (areas[0] + areas[1] - overlap)
    assert quadrilateral_iou(corners_of(one), two).tolist() == pytest.approx(expected.tolist())


def test_a_diamond_overlaps_half_and_a_far_box_not_at_all() -> None:
    """Golden numbers: half of the square, and nothing."""
    square = torch.tensor([[-1, -1, 1, 1]], dtype=torch.float64)
    diamond = torch.tensor([[(0, -1), (1, 0), (0, 1), (-1, 0)]], dtype=torch.float64)
    assert quadrilateral_iou(diamond, square).item() == pytest.approx(0.5)
    assert quadrilateral_iou(diamond + 5, square).item() == 0


@given(seed=SEEDS, family=st.sampled_from(sorted(WARPS)))
def test_a_transformer_that_follows_every_warp_has_no_error(seed: int, family: str) -> None:
    """T(theta(g x)) = g^-1 T(theta(x)) reads the same places; one that does not move is as far off as the warp is."""
    plain = map_points(draw_poses(seed), OUTPUT.expand(12, -1, -1))
    for warp in WARPS[family]:
        inverse = torch.linalg.inv(warp).expand(12, -1, -1)
        assert equivariance_error(warp, map_points(inverse, plain), plain).tolist() == pytest.approx([0] * 12, abs=1e-9)
        moved = map_points(warp.expand(12, -1, -1), plain)
        expected = (moved - plain).norm(dim=-1).mean(dim=-1)
        assert equivariance_error(warp, plain, plain).tolist() == pytest.approx(expected.tolist())
        assert (expected > 0.01).all()


def test_a_warp_is_read_from_the_image() -> None:
    """A shift by one of four pixels shows the pixel to the right; the border goes on."""
    image = torch.arange(4, dtype=torch.uint8).repeat(1, 1, 4, 1)
    shift = torch.tensor([[1, 0, 0.5], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert warp_images(image, shift)[0, 0, 0].tolist() == pytest.approx([1, 2, 3, 3])


def test_pixels_vary_along_their_own_track_alone() -> None:
    """Two tracks of different, constant images have no variance; a pixel that jumps by 2 in half of them has 0.5."""
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    images[2:] = 100
    tracks = torch.tensor([0, 0, 1, 1])
    assert pixel_variance(images, tracks).tolist() == [0, 0]
    images[1, :, 0] = 2
    assert pixel_variance(images, tracks).tolist() == [1, 0]
    assert track_means(images.double().mean(dim=(1, 2, 3)), tracks).tolist() == [0.5, 100]


@given(values=st.lists(st.floats(0.1, 10), min_size=2, max_size=40), seed=st.integers(0, 99))
def test_an_interval_holds_its_mean_and_repeats_itself(values: list[float], seed: int) -> None:
    """The interval lies within the values, and the same seed gives the same one; a ratio to itself is 1."""
    array = np.array(values)
    found = track_mean(array, seed=seed)
    assert found is not None
    assert found == track_mean(array, seed=seed)
    assert found.mean == pytest.approx(array.mean())
    assert found.low is not None
    assert found.high is not None
    assert array.min() - 1e-9 <= found.low <= found.high <= array.max() + 1e-9
    ratio = track_ratio(array, array, seed=seed)
    assert ratio is not None
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((1, 1, 1))


def test_the_interval_is_as_wide_as_it_should_be() -> None:
    """Of 400 tracks with a standard deviation of 1, it reaches 1.96 / 20 to either side, to a tenth of that."""
    values = np.random.default_rng(1).normal(5, 1, 400)
    values = (values - values.mean()) / values.std() + 5
    found = track_mean(values, seed=1)
    assert found is not None
    assert found.low == pytest.approx(5 - 0.098, abs=0.0098)
    assert found.high == pytest.approx(5 + 0.098, abs=0.0098)


def test_what_cannot_be_known_is_none() -> None:
    """No track with a number, a base of 0, and the interval of one track."""
    nothing = np.array([np.nan])
    assert track_mean(nothing, seed=1) is None
    assert track_ratio(np.ones(3), np.zeros(3), seed=1) is None
    alone = track_mean(np.array([2.0, np.nan]), seed=1)
    assert alone is not None
    assert (alone.tracks, alone.mean, alone.low, alone.high) == (1, 2.0, None, None)
