"""Canonical rotations: the same output for every member of the group, and gradients straight through."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stnbench.core.errors import SpecError
from stnbench.nn import SpatialTransformer
from stnbench.nn.transforms.affine import CanonicalRotation, Similarity
from stnbench.spec.transformer import CanonicalRotationSpec

pytestmark = pytest.mark.slow


def layer(seed: int, *, size: int = 17, **options: Any) -> SpatialTransformer:
    """A layer far from its start, so that it has preferences."""
    torch.manual_seed(seed)
    made = SpatialTransformer("canonical_rotation", in_channels=2, size=size, locnet=(4, 4, 8), **options)
    assert made.localization is not None
    torch.nn.init.normal_(made.localization.parameters_layer.weight)
    return made.eval()


def images(seed: int, *, size: int = 17) -> Tensor:
    """Random images."""
    return torch.rand(3, 2, size, size, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    turns=st.integers(1, 3),
    rotations=st.sampled_from([4, 8]),
    align_corners=st.booleans(),
    size=st.sampled_from([16, 17]),
)
def test_quarter_turns_of_the_input_change_nothing(
    seed: int, turns: int, rotations: int, align_corners: bool, size: int
) -> None:
    """The output of an image and of the image turned are the same, whatever the weights are."""
    made, seen = layer(seed, size=size, rotations=rotations, align_corners=align_corners), images(seed, size=size)
    with torch.no_grad():
        scores = made.locate(seen).sort(dim=1).values
        is_decided = scores[:, -1] - scores[:, -2] > 1e-4  # else rounding decides which of two copies is shown
        shown, turned = made(seen), made(seen.rot90(turns, dims=(2, 3)))
    torch.testing.assert_close(shown[is_decided], turned[is_decided], rtol=0, atol=1e-4)


def test_scores_of_a_turned_image_are_those_of_the_image_in_turn() -> None:
    """Turning permutes the copies: which is which is all that changes."""
    made, seen = layer(1), images(1)
    with torch.no_grad():
        scores, turned = made.locate(seen), made.locate(seen.rot90(1, dims=(2, 3)))
    # positive angles show the image turned back, as rot90 does
    torch.testing.assert_close(turned, scores.roll(-1, dims=1), rtol=0, atol=1e-4)
    assert (scores - turned).abs().max() > 1e-2


@pytest.mark.parametrize("count", [2, 4, 6, 36])
def test_every_choice_is_the_rotation_by_its_angle(count: int) -> None:
    """The matrix of the k-th score is that of the family ``rotation``, and exact for quarter turns."""
    family = CanonicalRotation(count, prior_weight=0.0)
    found = family.theta_out_to_in(family.orbit(torch.device("cpu")).double())
    angles = torch.arange(count, dtype=torch.float64)[:, None] * 2 * math.pi / count
    torch.testing.assert_close(found, Similarity(rotation=True).theta_out_to_in(angles), rtol=0, atol=1e-14)
    if count == 4:
        assert found[1].tolist() == [[0, -1, 0], [1, 0, 0]]


def test_gradients_are_those_of_the_mean_rotation() -> None:
    """Backwards, the choice is the softmax of the scores: what a step changes is which copy is likely."""
    family = CanonicalRotation(5, prior_weight=0.0)
    scores = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weights = torch.randn(3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rotations = family.theta_out_to_in(torch.eye(5, dtype=torch.float64)).detach()
    mean = (scores.softmax(dim=1)[..., None, None] * rotations).sum(dim=1)
    (expected,) = torch.autograd.grad((mean * weights).sum(), scores)
    (found,) = torch.autograd.grad((family.theta_out_to_in(scores) * weights).sum(), scores)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_prior_is_the_cross_entropy_with_the_image_as_it_is() -> None:
    """It is weighted, joins the penalty, and is absent where its weight is 0."""
    made, seen = layer(3, prior_weight=0.5), images(3)
    scores = made.locate(seen)
    expected = 0.5 * torch.nn.functional.cross_entropy(scores, torch.zeros(3, dtype=torch.int64))
    penalty = made.explain(seen).penalty
    assert penalty is not None
    torch.testing.assert_close(penalty, expected, rtol=0, atol=1e-6)
    assert layer(3, prior_weight=0.0).explain(seen).penalty is None


def test_the_corners_are_not_locnet_input() -> None:
    """Nothing outside the disc changes a score, so that empty corners tell no copy from another."""
    made, seen = layer(4, rotations=8), images(4)
    other = seen.clone()
    other[:, :, 0, 0] = other[:, :, -1, 1] = 7.0
    assert torch.equal(made.locate(seen)[:, 0], made.locate(other)[:, 0])


def test_a_layer_learns_which_way_is_up() -> None:
    """Gradients reach the scores through the choice, and a few steps lower a loss that prefers another copy."""
    made, seen = layer(5, prior_weight=0.0), images(5)
    target = seen.rot90(1, dims=(2, 3))
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = (made(seen) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("keys", [{"rotations": 1}, {"rotations": 37}, {"prior_weight": -1.0}])
def test_a_group_that_cannot_be_is_refused(keys: dict[str, Any]) -> None:
    """One rotation is no choice."""
    with pytest.raises(SpecError, match=next(iter(keys))):
        CanonicalRotationSpec(**keys)
