"""Specifications that mean the same are one trial, whatever idle keys they name and whatever types Python passes."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import SpecError
from stnbench.spec.codec import from_json, from_plain, to_json, to_plain
from stnbench.spec.data import DigitsSpec, DistortionSpec, GtsrbSpec, PreprocessSpec, SignsSpec
from stnbench.spec.network import IdsiaSpec, LecunSpec, ModernSpec
from stnbench.spec.optimizer import AugmentSpec, SgdSpec, TtaSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec

FACTORS = st.floats(0, 10)
LEARNING = st.sampled_from(["affine", "rotation", "crop", "tps", "projective"])
PLAIN = st.sampled_from(["fixed_zoom", "roi"])


def placed(family: str, **keys: object) -> PlacedTransformerSpec:
    """A transformer at the image."""
    spec = TransformerSpec(family=family, **keys)  # type: ignore[arg-type]
    return PlacedTransformerSpec(place=1, transformer=spec, locnet=None if spec.is_control else ConvLocnetSpec())


def same(one: TrialSpec, other: TrialSpec) -> bool:
    """Whether two specifications are equal and have one identity, also after a journey through JSON."""
    assert (one == other) == (one.trial_id == other.trial_id)
    decoded = from_json(TrialSpec, to_json(other), where="a test")
    assert decoded.trial_id == other.trial_id
    return one == other


@given(one=FACTORS, other=FACTORS, family=PLAIN)
def test_a_rate_of_localisation_networks_counts_only_where_one_learns(one: float, other: float, family: str) -> None:
    """Without a transformer, and with a control, each factor would be the same training again."""
    for transformers in ((), (placed(family),)):
        trials = [
            TrialSpec(transformers=transformers, optimizer=SgdSpec(locnet_learning_rate_factor=factor))
            for factor in (one, other)
        ]
        assert same(*trials)


@given(one=FACTORS, other=FACTORS, family=LEARNING)
def test_the_baselines_of_trials_that_differ_in_that_rate_are_one_trial(one: float, other: float, family: str) -> None:
    """A sweep over the factor has one baseline; the trials themselves differ."""
    trials = [
        TrialSpec(transformers=(placed(family),), optimizer=SgdSpec(locnet_learning_rate_factor=factor))
        for factor in (one, other)
    ]

    assert same(trials[0].baseline(), trials[1].baseline())
    assert same(*trials) == (one == other)


@given(st.integers(1, 40).map(lambda half: 2 * half + 1), st.booleans())
def test_a_kernel_without_its_norm_counts_not(side: int, norm: bool) -> None:
    """``preprocess.kernel_size`` is that of the contrastive norm."""
    said = TrialSpec(preprocess=PreprocessSpec(contrastive_norm=norm, kernel_size=side))

    assert same(said, TrialSpec(preprocess=PreprocessSpec(contrastive_norm=norm))) == (not norm or side == 7)


@given(size=st.integers(24, 96), other=st.integers(24, 96))
def test_an_output_as_large_as_the_input_is_the_default(size: int, other: int) -> None:
    """At the image, and before later stages, whose maps are as large as the network makes them."""
    data = SignsSpec(image_size=size)
    said = TrialSpec(dataset=data, transformers=(placed("affine", output_size=other),))
    assert same(said, TrialSpec(dataset=data, transformers=(placed("affine"),))) == (size == other)

    second = PlacedTransformerSpec(place=2, transformer=TransformerSpec(output_size=size // 2))
    expected = dataclasses.replace(second, transformer=TransformerSpec())
    assert same(TrialSpec(dataset=data, transformers=(second,)), TrialSpec(dataset=data, transformers=(expected,)))


def test_the_size_of_later_maps_follows_from_what_stands_before() -> None:
    """48 pixels zoomed to 32 and pooled to 16 are 8 behind the first stage of modern; idsia makes 23 of 48."""
    first = placed("affine", output_size=32, output_pooling=2)
    for size, expected in ((8, None), (24, 24)):
        second = PlacedTransformerSpec(place=2, transformer=TransformerSpec(output_size=size))
        trial = TrialSpec(network=ModernSpec(), transformers=(first, second))
        assert trial.transformers[1].transformer.output_size == expected
    third = PlacedTransformerSpec(place=3, transformer=TransformerSpec(output_size=12))
    second = PlacedTransformerSpec(place=2, transformer=TransformerSpec(output_size=23))
    trial = TrialSpec(network=IdsiaSpec(), transformers=(second, third))
    assert [item.transformer.output_size for item in trial.transformers] == [None, None]


@given(family=PLAIN, penalty=FACTORS, zoom=st.floats(0.2, 4), points=st.integers(2, 16))
def test_keys_that_nothing_reads_count_not(family: str, penalty: float, zoom: float, points: int) -> None:
    """A control is not penalised, an affine map has no control points, a box no zoom."""
    plain = TrialSpec(transformers=(placed(family, zoom=zoom),))
    said = TrialSpec(transformers=(placed(family, zoom=zoom, identity_penalty=penalty, control_points=points),))
    assert same(said, plain)
    idle = TrialSpec(transformers=(placed("affine", zoom=zoom, control_points=points),))
    assert same(idle, TrialSpec(transformers=(placed("affine"),)))


@given(zoom=st.floats(0.1, 8), low=st.floats(0.1, 1), high=st.floats(1, 8))
def test_a_guard_of_a_constant_scale_is_another_constant_or_nothing(zoom: float, low: float, high: float) -> None:
    """Of a fixed zoom it is the zoom clamped; of a rigid family whose scale is within its bounds it never acts."""
    guarded = TrialSpec(transformers=(placed("fixed_zoom", zoom=zoom, scale_min=low, scale_max=high),))
    assert same(guarded, TrialSpec(transformers=(placed("fixed_zoom", zoom=min(max(zoom, low), high)),)))
    for family in ("rotation", "rotation_translation", "translation"):
        held = TrialSpec(transformers=(placed(family, scale_min=low, scale_max=high),))
        assert same(held, TrialSpec(transformers=(placed(family),)))
    tight = TrialSpec(transformers=(placed("rotation", scale_max=0.5),))
    assert not same(tight, TrialSpec(transformers=(placed("rotation"),)))


@given(seed=st.integers(0, 2**40), placement=st.sampled_from(["centre", "random"]))
def test_a_distortion_that_does_nothing_is_none(seed: int, placement: str) -> None:
    """Whatever its seed, of every set."""
    for data in (SignsSpec, GtsrbSpec, DigitsSpec):
        distortion = DistortionSpec(seed=seed, placement=placement)  # type: ignore[arg-type]
        assert same(TrialSpec(dataset=data(distortion=distortion)), TrialSpec(dataset=data()))


@given(
    one=st.integers(0, 2**40),
    other=st.integers(0, 2**40),
    canvas=st.floats(1.5, 3),
    angle=st.sampled_from([0.0, 10.0]),
)
def test_the_seed_of_a_constant_distortion_draws_nothing(one: int, other: int, canvas: float, angle: float) -> None:
    """A larger frame alone has no chance in it; a rotation has."""
    trials = [
        TrialSpec(dataset=SignsSpec(distortion=DistortionSpec(canvas=canvas, rotation_deg=angle, seed=seed)))
        for seed in (one, other)
    ]
    assert same(*trials) == (angle == 0 or one == other)


@given(
    st.permutations([0.9, 1.0, 1.1]),
    st.permutations([-5.0, 0.0, 5.0]),
)
def test_the_order_of_views_counts_not(zooms: list[float], angles: list[float]) -> None:
    """Their probabilities are averaged."""
    views = TtaSpec(shift=0.04, zooms=tuple(zooms), rotations_deg=tuple(angles))
    assert same(
        TrialSpec(tta=views),
        TrialSpec(tta=TtaSpec(shift=0.04, zooms=(0.9, 1.0, 1.1), rotations_deg=(-5.0, 0.0, 5.0))),
    )


NOTHING = [
    TrialSpec(tta=TtaSpec()),
    TrialSpec(tta=TtaSpec(zooms=(1.0, 1.0, 1.0), rotations_deg=(-0.0,))),
    TrialSpec(augment=AugmentSpec()),
    TrialSpec(optimizer=SgdSpec(dampening=0.9)),
    TrialSpec(training=TrainingSpec(train_images=None, drop_last="incomplete")),
]


@pytest.mark.parametrize("said", NOTHING)
def test_parts_that_do_nothing_are_left_out(said: TrialSpec) -> None:
    """A single view at rest, an augmentation of nothing, the dampening of no momentum."""
    assert same(said, TrialSpec())


@given(images=st.integers(51, 5000), batch=st.integers(1, 50))
def test_dropping_the_last_batch_counts_where_it_is_full(images: int, batch: int) -> None:
    """Where the images are no multiple of the batch, the incomplete last one is dropped anyway."""
    trials = [
        TrialSpec(training=TrainingSpec(train_images=images, batch_size=batch, drop_last=drop))
        for drop in ("incomplete", "always")
    ]
    assert same(*trials) == (images % batch != 0)


def test_half_turns_to_either_side_are_one_view() -> None:
    """And two views that are the same weigh as one where there is no other."""
    left, right = (TrialSpec(tta=TtaSpec(rotations_deg=(angle,))) for angle in (-180.0, 180.0))
    assert same(left, right)
    assert same(TrialSpec(tta=TtaSpec(zooms=(2.0, 2.0))), TrialSpec(tta=TtaSpec(zooms=(2.0,))))
    heavier = TrialSpec(tta=TtaSpec(zooms=(1.0, 2.0, 2.0)))
    assert not same(heavier, TrialSpec(tta=TtaSpec(zooms=(1.0, 2.0))))


TYPES: list[tuple[Callable[[], object], Callable[[], object]]] = [
    (lambda: SgdSpec(learning_rate=1), lambda: SgdSpec(learning_rate=1.0)),
    (lambda: SgdSpec(learning_rate=np.float64(0.5)), lambda: SgdSpec(learning_rate=0.5)),
    (lambda: SgdSpec(weight_decay=-0.0), SgdSpec),
    (lambda: TrainingSpec(epochs=3.0), lambda: TrainingSpec(epochs=3)),  # type: ignore[arg-type]
    (lambda: TrainingSpec(epochs=np.int64(3)), lambda: TrainingSpec(epochs=3)),  # type: ignore[arg-type]
    (lambda: LecunSpec(sizes=[1, 2, 3]), lambda: LecunSpec(sizes=(1, 2, 3))),  # type: ignore[arg-type]
    (lambda: ModernSpec(sizes=[8, 8.0]), lambda: ModernSpec(sizes=(8, 8))),  # type: ignore[arg-type]
    (lambda: TtaSpec(zooms=[1, 2]), lambda: TtaSpec(zooms=(1.0, 2.0))),  # type: ignore[arg-type]
    (lambda: TransformerSpec(scale_max=2), lambda: TransformerSpec(scale_max=2.0)),
    (lambda: DistortionSpec(rotation_deg=5), lambda: DistortionSpec(rotation_deg=5.0)),
    (lambda: AugmentSpec(scale=np.float32(0.5)), lambda: AugmentSpec(scale=0.5)),  # type: ignore[arg-type]
    (lambda: TrialSpec(seed=2.0), lambda: TrialSpec(seed=2)),  # type: ignore[arg-type]
    (lambda: TrialSpec(transformers=[placed("roi")]), lambda: TrialSpec(transformers=(placed("roi"),))),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("said", "meant"), TYPES)
def test_types_that_python_lets_pass_are_settled(said: Callable[[], object], meant: Callable[[], object]) -> None:
    """Equal values are one value: same text, same hash."""
    assert said() == meant()
    assert to_json(said()) == to_json(meant())
    assert hash(said()) == hash(meant())


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf")])
def test_a_number_that_is_not_whole_is_refused_where_whole_ones_count(value: float) -> None:
    """From Python as from YAML."""
    with pytest.raises(SpecError, match=r"epochs is .*whole number"):
        TrainingSpec(epochs=value)  # type: ignore[arg-type]


def test_trials_with_test_time_augmentation_keep_their_identity() -> None:
    """The identity says ``views``, as it did before the field had its present name; stored specifications may."""
    spec = TrialSpec(tta=TtaSpec(shift=0.04))
    assert spec.trial_id == "4b3e94e20523301b"
    plain = to_plain(spec)
    stored = {("views" if key == "tta" else key): value for key, value in plain.items()}
    assert from_plain(TrialSpec, stored, where="a store") == spec
