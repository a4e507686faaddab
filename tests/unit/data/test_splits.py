"""Splits hold out whole tracks, and are the same whenever they are drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stnbench.core.errors import SpecError
from stnbench.data import split_tracks, subset
from stnbench.spec.data import AllSplitSpec, FoldSplitSpec, OneTrackSplitSpec, SplitSpec, TrackSplitSpec

pytestmark = pytest.mark.slow

Arrays = tuple[NDArray[np.int64], NDArray[np.int64]]

OFFICIAL_TRACKS: tuple[int, ...] = (
    7,
    74,
    75,
    47,
    66,
    62,
    14,
    48,
    47,
    49,
    67,
    44,
    70,
    72,
    26,
    21,
    14,
    37,
    40,
    7,
    12,
    11,
    13,
    17,
    9,
    50,
    20,
)
OFFICIAL_TRACKS += (8, 18, 9, 15, 26, 8, 23, 14, 40, 13, 7, 69, 10, 12, 8, 8)


def halves(tracks_per_class: list[int], frames: int = 3, seed: int = 0) -> Arrays:
    """Labels and tracks of a half in random order, with gaps between track numbers."""
    labels, tracks = [], []
    for label, count in enumerate(tracks_per_class):
        for track in range(count):
            labels += [label] * frames
            tracks += [label * 1000 + track * 7] * frames
    order = np.random.default_rng(seed).permutation(len(labels))
    return np.array(labels)[order], np.array(tracks)[order]


def official() -> Arrays:
    """Labels and tracks as the official training half has them: track 19 of class 33 is one frame short."""
    labels, tracks = [], []
    for label, count in enumerate(OFFICIAL_TRACKS):
        for track in range(count):
            frames = 29 if (label, track) == (33, 19) else 30
            labels += [label] * frames
            tracks += [label * 100_000 + track] * frames
    return np.array(labels), np.array(tracks)


specs = st.one_of(
    st.builds(TrackSplitSpec, tracks_per_class=st.integers(1, 5), seed=st.integers(0, 9)),
    st.builds(OneTrackSplitSpec, seed=st.integers(0, 9)),
    st.integers(2, 4).flatmap(
        lambda folds: st.builds(
            FoldSplitSpec, folds=st.just(folds), fold=st.integers(0, folds - 1), seed=st.integers(0, 9)
        )
    ),
)


@given(specs, st.lists(st.integers(2, 9), min_size=2, max_size=6), st.integers(0, 9))
def test_every_split_is_a_partition_by_tracks(spec: SplitSpec, tracks_per_class: list[int], seed: int) -> None:
    """Disjoint, complete, sorted, no track on both sides, every class to train on, the same twice."""
    labels, tracks = halves(tracks_per_class, seed=seed)
    split = split_tracks(spec, labels, tracks)
    assert np.concatenate([split.train, split.validation]).size == len(labels)
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == list(range(len(labels)))
    assert split.train.tolist() == sorted(split.train.tolist())
    assert split.validation.tolist() == sorted(split.validation.tolist())
    assert set(tracks[split.train]).isdisjoint(tracks[split.validation])
    assert set(labels[split.train]) == set(labels)
    assert split.train.dtype == split.validation.dtype == np.int64
    again = split_tracks(spec, labels, tracks)
    assert again.validation.tolist() == split.validation.tolist()


@given(specs, st.lists(st.integers(2, 9), min_size=2, max_size=6), st.integers(1, 9))
def test_the_order_of_rows_does_not_matter(spec: SplitSpec, tracks_per_class: list[int], seed: int) -> None:
    """The same tracks are held out of a half in another order."""
    labels, tracks = halves(tracks_per_class, seed=0)
    other_labels, other_tracks = halves(tracks_per_class, seed=seed)
    held_out = tracks[split_tracks(spec, labels, tracks).validation]
    assert set(other_tracks[split_tracks(spec, other_labels, other_tracks).validation]) == set(held_out)


@given(st.lists(st.integers(2, 12), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 9))
def test_tracks_of_every_class_are_held_out_up_to_half(tracks_per_class: list[int], asked: int, seed: int) -> None:
    """As many as asked, and never more than half of a class."""
    labels, tracks = halves(tracks_per_class)
    split = split_tracks(TrackSplitSpec(tracks_per_class=asked, seed=seed), labels, tracks)
    for label, count in enumerate(tracks_per_class):
        held_out = tracks[split.validation][labels[split.validation] == label]
        assert len(set(held_out)) == min(asked, count // 2)


@given(st.lists(st.integers(2, 9), min_size=2, max_size=6), st.integers(2, 4), st.integers(0, 9))
def test_folds_cover_every_track_once(tracks_per_class: list[int], folds: int, seed: int) -> None:
    """Each row is held out by just one fold, folds differ by one track at most, and so do they within a class."""
    labels, tracks = halves(tracks_per_class)
    splits = [split_tracks(FoldSplitSpec(folds=folds, fold=k, seed=seed), labels, tracks) for k in range(folds)]
    assert sorted(np.concatenate([split.validation for split in splits]).tolist()) == list(range(len(labels)))
    sizes = [len(set(tracks[split.validation])) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    for label in range(len(tracks_per_class)):
        own = [len(set(tracks[split.validation][labels[split.validation] == label])) for split in splits]
        assert max(own) - min(own) <= 1


@given(st.lists(st.integers(2, 4), min_size=1, max_size=6), st.integers(0, 99))
def test_one_track_is_never_the_first(tracks_per_class: list[int], seed: int) -> None:
    """One of every class, and not its lowest number, as in 2015."""
    labels, tracks = halves(tracks_per_class)
    split = split_tracks(OneTrackSplitSpec(seed=seed), labels, tracks)
    held_out = sorted(set(tracks[split.validation].tolist()))
    assert [track // 1000 for track in held_out] == list(range(len(tracks_per_class)))
    assert all(track % 1000 > 0 for track in held_out)


def test_one_track_of_the_official_half_is_the_split_of_2015() -> None:
    """1,290 images are held out and 37,919 are left, one fewer and one more where the short track is drawn."""
    labels, tracks = official()
    assert len(labels) == 39_209
    assert len(np.unique(tracks)) == 1_307
    short = 0
    for seed in range(40):
        split = split_tracks(OneTrackSplitSpec(seed=seed), labels, tracks)
        drawn = int(3_300_019 in tracks[split.validation])
        short += drawn
        assert (len(split.train), len(split.validation)) == (37_919 + drawn, 1_290 - drawn)
    assert short < 40


def test_all_trains_on_every_image_and_watches_one_track_a_class() -> None:
    """39,209 rows to train on; what is watched is what ``one_track`` would hold out."""
    labels, tracks = official()
    split = split_tracks(AllSplitSpec(seed=3), labels, tracks)
    assert split.train.tolist() == list(range(39_209))
    held_out = split_tracks(OneTrackSplitSpec(seed=3), labels, tracks).validation
    assert split.validation.tolist() == held_out.tolist()


def test_the_default_split_resolves_small_differences() -> None:
    """Three tracks of every class: one image weighs less than 0.03 points."""
    labels, tracks = official()
    split = split_tracks(TrackSplitSpec(), labels, tracks)
    assert len(split.validation) in {3_869, 3_870}
    assert 100 / len(split.validation) < 0.03


def test_another_seed_holds_out_other_tracks() -> None:
    """The seed is used."""
    labels, tracks = official()
    held_out = {tuple(split_tracks(TrackSplitSpec(seed=seed), labels, tracks).validation) for seed in range(5)}
    assert len(held_out) == 5


def test_unknown_tracks_cannot_be_split() -> None:
    """GTSRB's test half has none."""
    with pytest.raises(SpecError, match="tracks of these images are unknown"):
        split_tracks(TrackSplitSpec(), np.zeros(3, np.int64), np.full(3, -1))


def test_a_class_with_one_track_is_named() -> None:
    """Nothing can be held out of it, or nothing would be left."""
    labels, tracks = halves([1, 3])
    with pytest.raises(SpecError, match="class 0 has one track"):
        split_tracks(OneTrackSplitSpec(), labels, tracks)
    with pytest.raises(SpecError, match="class 0 without images"):
        split_tracks(FoldSplitSpec(folds=2, fold=0), labels, tracks)
    with pytest.raises(SpecError, match="holds out nothing"):
        split_tracks(TrackSplitSpec(), *halves([1, 1]))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 5))
def test_subsets_are_nested(first: int, second: int, seed: int) -> None:
    """The smaller of two draws of one seed lies in the larger."""
    indices = np.arange(50) * 3
    small, large = (subset(indices, n, seed) for n in sorted((first, second)))
    assert set(small.tolist()) <= set(large.tolist()) <= set(indices.tolist())
    assert len(set(small.tolist())) == min(first, second)
    assert small.tolist() == sorted(small.tolist())


@pytest.mark.parametrize("n", [0, -1, 51])
def test_too_many_images_name_both_numbers(n: int) -> None:
    """The number asked for and the number there are."""
    with pytest.raises(SpecError, match=rf"^{n} training images are asked for, and there are 50"):
        subset(np.arange(50), n, 0)
