"""Student's t over parameters: its draws, its divergence, and scores that average over it."""

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from stnbench.core.errors import SpecError
from stnbench.nn import SpatialTransformer
from stnbench.nn.layers import StudentNoise
from stnbench.nn.transforms import START, StudentT
from stnbench.nn.transforms.affine import Affine
from stnbench.spec.transformer import PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.testing.transformers import TRANSFORMER_CHECKS, specification


def layer(**options: Any) -> SpatialTransformer:
    """A new layer with a posterior."""
    torch.manual_seed(1)
    return SpatialTransformer("affine", in_channels=2, size=12, locnet=(3, 3, 5), posterior="student_t", **options)


def images(batch: int = 4) -> Tensor:
    """Random images."""
    return torch.rand(batch, 2, 12, 12, generator=torch.Generator().manual_seed(2))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["affine", "rotation_vector", "projective", "tps", "diffeomorphic", "saliency"])
def test_every_family_with_a_posterior_keeps_the_contract(family: str) -> None:
    """Means and spreads are parameters like others: identity at the start, shapes, gradients.

    What is checked at every call in these tests cannot be traced: one graph and ONNX are in test_public_layer.
    """
    spec = specification(family, posterior="student_t")
    for name, check in TRANSFORMER_CHECKS.items():
        if name != "compiles as one graph":
            check(spec)


def test_draws_are_those_of_student() -> None:
    """Twenty thousand draws cannot be told from t with 2 degrees of freedom, and serving changes none of them."""
    noise = StudentNoise()
    drawn = noise.draw(20_000)
    assert stats.kstest(drawn.numpy(), stats.t(2).cdf).pvalue > 0.01
    again = StudentNoise()
    assert torch.equal(torch.cat([again.draw(7), again.draw(19_993)]), drawn)


def test_training_draws_and_a_layer_at_rest_does_not() -> None:
    """At rest the mean is read, which is the identity at the start; a training layer moves every image otherwise."""
    made = layer()
    torch.testing.assert_close(made.eval()(images()), images(), rtol=0, atol=1e-5)
    done = made.train().explain(images())
    (theta,) = done.parameters
    moved = theta[:, :6] - torch.tensor(Affine().identity_parameters())
    assert moved.abs().min() > 0
    expected = layer().train().explain(images()).parameters[0]
    assert torch.equal(theta, expected)
    scale = math.sqrt(math.log1p(math.exp(START)))
    drawn = StudentNoise().draw(24).view(4, 6)
    torch.testing.assert_close(moved, scale * drawn, rtol=1e-4, atol=1e-6)


def test_the_penalty_is_the_divergence_from_the_prior() -> None:
    """It is the sum of ln beta + 1 / beta - 1, nothing at beta = 1, with gradients to the spreads alone."""
    family = StudentT(Affine(), weight=0.5)
    at_prior = math.log(math.e - 1)  # softplus of it is 1
    parameters = torch.tensor([[0.3] * 6 + [at_prior] * 6, [0.1] * 6 + [at_prior] * 5 + [START]]).requires_grad_()
    penalty = family.penalty(parameters)
    assert penalty is not None
    beta = math.log1p(math.exp(START))
    torch.testing.assert_close(penalty.item(), 0.5 * (math.log(beta) + 1 / beta - 1) / 2, rtol=1e-5, atol=1e-5)
    penalty.backward()
    assert parameters.grad is not None
    assert not parameters.grad[:, :6].any()
    assert StudentT(Affine(), weight=0.0).penalty(parameters) is None


def test_the_wildest_numbers_keep_the_penalty_finite() -> None:
    """A spread that vanishes costs much, and no infinity."""
    parameters = torch.tensor([[0.0] * 6 + [-1e4] * 3 + [1e4] * 3], requires_grad=True)
    penalty = StudentT(Affine(), weight=1.0).penalty(parameters)
    assert penalty is not None
    penalty.backward()
    assert penalty.isfinite()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


def test_gradients_reach_the_spreads_through_the_images() -> None:
    """Draws are moves of the mean by a scale, so that the loss of what is shown says how wide to be."""
    made = layer(posterior_weight=0.0).train()
    made(images()).square().mean().backward()
    assert made.localization is not None
    bias = made.localization.parameters_layer.bias.grad
    assert bias is not None
    assert bias.shape == (12,)
    assert bias[6:].abs().min() > 0


def test_a_fixed_draw_is_the_same_for_every_image_and_pass() -> None:
    """What an image is scored by does not depend on those beside it; other numbers are other draws."""
    made, seen = layer().eval(), images()
    assert made.noise is not None
    with torch.no_grad():
        shown = []
        for sample in (0, 0, 1):
            made.noise.fix(sample)
            shown.append(made(seen))
        made.noise.fix(0)
        alone = torch.cat([made(one[None]) for one in seen])
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    torch.testing.assert_close(alone, shown[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["fixed_zoom", "roi"])
def test_a_control_has_no_posterior(family: str) -> None:
    """Nothing is emitted whose distribution it could be."""
    with pytest.raises(SpecError, match=f"posterior is 'student_t'.*{family}|{family} has none"):
        TransformerSpec(family=family, posterior="student_t")


def test_a_choice_among_rotations_has_no_posterior() -> None:
    """Scores of copies are no parameters of a map."""
    with pytest.raises(SpecError, match="posterior"):
        SpatialTransformer("canonical_rotation", in_channels=1, size=12, posterior="student_t")


def test_keys_of_a_posterior_that_is_not_there_make_no_other_trial() -> None:
    """Without a posterior its weight and its draws are the defaults; with one they count."""

    def trial(**keys: object) -> str:
        placed = PlacedTransformerSpec(place=1, transformer=TransformerSpec(**keys))  # type: ignore[arg-type]
        return TrialSpec(transformers=(placed,)).trial_id

    assert trial(posterior_weight=0.5, posterior_samples=3) == trial()
    assert len({trial(posterior="student_t", posterior_samples=count) for count in (3, 10)} | {trial()}) == 3
