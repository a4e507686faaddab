"""A trial's identity is what decides its result, and nothing else."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import InfeasibleError, SpecError, UnknownNameError
from stnbench.core.identity import Json, canonical_json
from stnbench.spec.codec import from_json, from_plain, to_identity, to_json, to_plain
from stnbench.spec.data import FoldSplitSpec, GtsrbSpec, OneTrackSplitSpec, PreprocessSpec, SignsSpec, TrackSplitSpec
from stnbench.spec.network import IdsiaSpec, LecunSpec
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.registry import REGISTRIES
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec

SIZES = st.integers(1, 300)
PLACED = st.builds(
    PlacedTransformerSpec,
    place=st.integers(1, 2),
    transformer=st.builds(TransformerSpec, family=st.sampled_from(["affine", "rotation", "scale_translation"])),
    locnet=st.builds(ConvLocnetSpec, sizes=st.tuples(SIZES, SIZES, SIZES)),
)
TRIALS = st.builds(
    TrialSpec,
    dataset=st.builds(SignsSpec, image_size=st.integers(16, 64)) | st.builds(GtsrbSpec),
    split=st.builds(TrackSplitSpec) | st.builds(OneTrackSplitSpec) | st.builds(FoldSplitSpec, fold=st.integers(0, 9)),
    preprocess=st.builds(PreprocessSpec, contrastive_norm=st.booleans()),
    network=st.builds(LecunSpec, sizes=st.tuples(SIZES, SIZES, SIZES), multi_scale=st.booleans()),
    transformers=st.just(()) | PLACED.map(lambda placed: (placed,)),
    optimizer=st.builds(SgdSpec, learning_rate=st.floats(1e-5, 1.0)),
    training=st.builds(TrainingSpec, epochs=st.integers(1, 30), train_images=st.none() | st.integers(50, 30_000)),
    seed=st.integers(0, 2**31),
)


@given(TRIALS)
def test_a_trial_survives_the_journey_through_json(spec: TrialSpec) -> None:
    """Decoding what was encoded gives the same trial with the same identity."""
    again = from_json(TrialSpec, to_json(spec), where="a test")

    assert again == spec
    assert again.trial_id == spec.trial_id


@given(TRIALS, TRIALS)
def test_equal_identity_means_equal_trial(one: TrialSpec, other: TrialSpec) -> None:
    """Two trials share an identity exactly when they are equal."""
    assert (one.trial_id == other.trial_id) == (one == other)


@given(TRIALS)
def test_seeds_of_a_configuration_share_its_identity(spec: TrialSpec) -> None:
    """Another seed is another trial of the same configuration."""
    other = spec.with_seed(spec.seed + 1)

    assert other.config_id == spec.config_id
    assert other.trial_id != spec.trial_id


def test_the_identity_of_known_trials_is_golden() -> None:
    """A change of these orphans every stored trial; raise RESULTS_VERSION instead where the meaning changes."""
    with_st = TrialSpec(transformers=(PlacedTransformerSpec(place=1),), seed=7)

    assert TrialSpec().trial_id == "e43892a0c45d6e3a"
    assert with_st.trial_id == "7d9deef11bad3e76"


def test_a_default_said_aloud_does_not_change_the_identity() -> None:
    """The identity leaves plain fields at their defaults out."""
    said = TrialSpec(dataset=SignsSpec(image_size=48, drawing_seed=1), optimizer=SgdSpec(momentum=0.0), seed=1)

    assert said.trial_id == TrialSpec().trial_id
    assert "image_size" not in str(to_identity(said))


def test_the_baseline_has_no_transformer_and_is_its_own_baseline() -> None:
    """BaselineChoice of different transformers are one trial."""
    one = TrialSpec(transformers=(PlacedTransformerSpec(place=1),))
    other = TrialSpec(transformers=(PlacedTransformerSpec(place=2, transformer=TransformerSpec(family="scale")),))

    assert one.baseline() == other.baseline() == one.baseline().baseline()
    assert one.baseline().transformers == ()


def test_a_transformer_beyond_the_last_stage_is_infeasible() -> None:
    """Place 3 exists in idsia and not in lecun; the message says how many there are."""
    placed = (PlacedTransformerSpec(place=3),)

    assert TrialSpec(network=IdsiaSpec(), transformers=placed).transformers == placed
    with pytest.raises(InfeasibleError, match="2 stages"):
        TrialSpec(network=LecunSpec(), transformers=placed)


WRONG: list[tuple[str, dict[str, Json], type[SpecError], str]] = [
    ("dataset", {"imag_size": 3}, UnknownNameError, "dataset.image_size"),
    ("dataset", {"image_size": 3}, SpecError, "dataset.image_size is 3"),
    ("dataset", {"image_size": "48"}, SpecError, "valid integer"),
    ("dataset", {"kind": "sign"}, UnknownNameError, "did you mean signs"),
    ("training", {"epochs": 2.5}, SpecError, "training.epochs is 2.5"),
    ("training", {"epochs": True}, SpecError, "training.epochs is True"),
    ("training", {"train_images": 10}, SpecError, "at least one batch"),
    ("optimizer", {"momentum": 1.0}, SpecError, "below 1"),
    ("optimizer", {"nesterov": True}, SpecError, "momentum"),
    ("optimizer", {"nesterov": True, "momentum": 0.9, "dampening": 0.9}, SpecError, "dampening of 0"),
    ("optimizer", {"dampening": 1.5}, SpecError, "dampening is 1.5"),
    ("training", {"drop_last": "never"}, UnknownNameError, "incomplete"),
    ("training", {"train_images": 50, "drop_last": "always"}, SpecError, "more than one batch"),
    ("network", {"sizes": [1, 2]}, SpecError, "network.sizes"),
    ("network", {"sizes": [1, 2, 0]}, SpecError, "from 1 to 1,000,000"),
    ("network", {"sizes": [2**63 - 1, 1, 1]}, SpecError, "from 1 to 1,000,000"),
    ("dataset", {"tracks_per_class": 2**62}, SpecError, "to 1,000,000"),
    ("dataset", {"test_tracks_per_class": 2**62}, SpecError, "from 1 to 1,000,000"),
    ("preprocess", {"kernel_size": 2**40 + 1}, SpecError, "at most 1,023"),
    ("preprocess", {"kernel_size": 4}, SpecError, "odd"),
]


@pytest.mark.parametrize(("key", "change", "kind", "text"), WRONG)
def test_a_wrong_value_is_named(key: str, change: dict[str, Json], kind: type[SpecError], text: str) -> None:
    """Nothing is coerced; the message has the file, the key and the remedy."""
    plain = to_plain(TrialSpec())
    section = plain[key]
    assert isinstance(section, dict)
    section |= change

    with pytest.raises(kind, match=r"conf/x\.yaml") as caught:
        from_plain(TrialSpec, plain, where="conf/x.yaml")
    assert text in str(caught.value)


def test_the_specification_is_frozen() -> None:
    """A described trial cannot change under its identity."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrialSpec().seed = 2  # type: ignore[misc]


NEEDED: dict[str, dict[str, Json]] = {
    "timm": {"name": "resnet18"},
    "torchvision": {"name": "resnet18"},
    "folder": {"name": "shapes", "digest": "0" * 16, "class_names": ["bars", "dots"], "train_images": 20},
    "threshold": {"accuracy": 0.5},
    "optuna": {"sampler": "QMCSampler"},
}
"""Keys that some parts need."""


@pytest.mark.parametrize("kind", REGISTRIES)
def test_no_part_has_the_identity_of_another(kind: str) -> None:
    """Families with a class of their own were taken for affine, of which their trials had the identity."""
    identities = {}
    for name, made in REGISTRIES[kind].tagged().items():
        keys = {REGISTRIES[kind].discriminator: name, **NEEDED.get(name, {})}
        bare = [field for field in dataclasses.fields(made) if field.name not in keys]
        keys |= {field.name: 20 for field in bare if field.default is field.default_factory is dataclasses.MISSING}
        identities[name] = canonical_json(to_identity(from_plain(made, keys, where="a test")))
    assert len(set(identities.values())) == len(identities), identities
