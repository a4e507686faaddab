"""Everything that can be chosen trains: two epochs at the scale ``smoke``, and the loss falls."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.config.resolve import parse_overrides, resolve_trial
from stnbench.spec.result import TrialResult
from stnbench.trials.run import run_trial

pytestmark = pytest.mark.slow

COMPOSER = Composer(conf_folder())
SMALL = (
    "scale=smoke",
    "dataset.tracks_per_class=2",
    "dataset.test_tracks_per_class=1",
    "split.tracks_per_class=1",
    "optimizer=momentum",
)
DIGITS = ("scale=smoke", "dataset=digits", "dataset.copies=1", "optimizer=momentum", "preprocess=global")
AN_ST = ("locnet@locnet1=conv", "locnet1.sizes=[100,100,50]")


def choices(group: str, *left_out: str) -> list[str]:
    """The choices of a group, less some."""
    return [choice for choice in COMPOSER.choices(group) if choice not in left_out]


def thorough(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Return the values as parameters: all are thorough but those that stand for them in ``make test``."""
    return [pytest.param(value, marks=() if value in kept else pytest.mark.thorough) for value in values]


def train(data: Path, folder: Path, *overrides: str) -> TrialResult:
    """One trial, in this process."""
    spec = resolve_trial(COMPOSER, parse_overrides(overrides)).spec
    result = run_trial(
        spec,
        token="1",
        folder=folder,
        data_root=data,
        device="cpu",
        threads=1,
        report=lambda _: None,
        should_stop=lambda: False,
    )
    assert result is not None
    return result


def assert_learns(result: TrialResult) -> None:
    """The training loss of the second epoch is below that of the first."""
    first, second = result.epochs
    assert math.isfinite(second.validation_loss)
    assert second.train_loss < first.train_loss


@pytest.mark.parametrize("transformer", thorough(choices("transformer", "same"), "affine"))
def test_every_transformer_trains(transformer: str, shared_data: Path, tmp_path: Path) -> None:
    """A network with this family before it learns, and its health is recorded, theta error included."""
    result = train(shared_data, tmp_path, *SMALL, *AN_ST, f"transformer={transformer}")
    assert_learns(result)
    (health,) = result.epochs[-1].health
    assert health.theta_error is not None


@pytest.mark.parametrize("sampler", thorough(["bicubic", "nearest", "mipmap", "linearized"]))
def test_every_sampler_trains(sampler: str, shared_data: Path, tmp_path: Path) -> None:
    """A network that reads its image so learns; bilinear is every other test's."""
    assert_learns(train(shared_data, tmp_path, *SMALL, *AN_ST, f"transformer.sampler={sampler}"))


@pytest.mark.parametrize("network", thorough(choices("network"), "idsia"))
def test_every_network_trains_with_a_transformer(network: str, shared_data: Path, tmp_path: Path) -> None:
    """Each classifier learns behind an affine transformer."""
    deep = ("optimizer.learning_rate=0.001",) if network in {"timm", "torchvision"} else ()
    assert_learns(train(shared_data, tmp_path, *SMALL, *AN_ST, f"network={network}", *deep))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "overrides",
    [
        ("locnet@locnet1=dense",),
        ("locnet@locnet1=shared",),
        ("locnet@locnet1=shared", "locnet1.stages=2", "transformer.iterations=2"),
        (*AN_ST, "transformer.iterations=3"),
        (*AN_ST, "transformer.branches=2"),
        (*AN_ST, "transformer.posterior=student_t", "transformer.posterior_samples=2", "transformer.iterations=2"),
        (*AN_ST, "transformer.output_pooling=2"),
        (*AN_ST, "transformer.scale_max=1.5", "transformer.identity_penalty=0.1"),
        (*AN_ST, "locnet@locnet2=conv", "transformer@transformer2=translation", "network=idsia"),
    ],
    ids=" ".join,
)
def test_every_place_and_kind_of_localisation_trains(
    overrides: tuple[str, ...], shared_data: Path, tmp_path: Path
) -> None:
    """Dense, shared, iterated, parallel, pooled, guarded and penalised transformers, and two of two families, learn."""
    assert_learns(train(shared_data, tmp_path, *SMALL, *overrides))


@pytest.mark.parametrize("preprocess", thorough(choices("preprocess", "contrastive", "none")))
def test_every_preprocessing_trains(preprocess: str, shared_data: Path, tmp_path: Path) -> None:
    """A network behind each version of the images learns."""
    assert_learns(train(shared_data, tmp_path, *SMALL, f"preprocess={preprocess}"))


@pytest.mark.parametrize("augment", thorough(choices("augment", "none")))
def test_every_augmentation_trains(augment: str, shared_data: Path, tmp_path: Path) -> None:
    """A network and its transformer learn from images that are never the same twice."""
    assert_learns(train(shared_data, tmp_path, *SMALL, *AN_ST, f"augment={augment}"))


@pytest.mark.parametrize("distortion", thorough(choices("distortion"), "RTS"))
def test_every_distortion_of_digits_trains(distortion: str, shared_data: Path, tmp_path: Path) -> None:
    """The paper's network with a transformer learns each task, and its theta error is recorded."""
    result = train(shared_data, tmp_path, *DIGITS, *AN_ST, "network=cnn", f"distortion={distortion}")
    assert_learns(result)
    assert result.epochs[-1].health[0].theta_error is not None


@pytest.mark.thorough
def test_digit_addition_trains(shared_data: Path, tmp_path: Path) -> None:
    """Two parallel transformers look at two channels with a digit each, and the network learns their sum."""
    overrides = ("dataset=digits_addition", "distortion=RTS", "network=fcn", "transformer.branches=2")
    own = [item for item in DIGITS if not item.startswith(("dataset=", "distortion=", "network="))]
    assert_learns(train(shared_data, tmp_path, *own, *AN_ST, *overrides))


@pytest.mark.thorough
def test_the_theta_error_falls_where_a_transformer_learns(shared_data: Path, tmp_path: Path) -> None:
    """On digits somewhere in a larger frame, the sign moves less in the output than it did, and than in the image."""
    digits = ("scale=quick_wide", "dataset=digits", "dataset.copies=4", "distortion=T", "preprocess=global")
    training = ("optimizer=momentum", "optimizer.locnet_learning_rate_factor=0.1", "schedule=one_cycle")
    result = train(shared_data, tmp_path, *digits, *training, "network=fcn", "locnet@locnet1=dense")
    first, last = (record.health[0] for record in (result.epochs[0], result.epochs[-1]))
    assert first.theta_error is not None
    assert last.theta_error is not None
    assert last.theta_error_identity is not None
    assert last.theta_error < 0.85 * first.theta_error
    assert last.theta_error < 0.85 * last.theta_error_identity
