"""Splits of a training half by whole tracks, never by single frames, since frames of one track are near copies."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import SpecError
from stnbench.core.identity import derive_seed
from stnbench.spec.data import AllSplitSpec, FoldSplitSpec, OneTrackSplitSpec, SplitSpec, TrackSplitSpec

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """Two sorted sets of rows, int64, that together cover a half; disjoint, unless all of it is trained on."""

    train: Indices
    validation: Indices


def split_tracks(spec: SplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Split:
    """Split rows into those to train on and those to validate on; the same arguments give the same split.

    No track is in both, except in the split ``all``, which trains on everything. The draw of one class does not depend
    on the other classes, except for folds, to which tracks are dealt class after class so that they have equal sizes.

    Args:
        spec: the number of tracks that are held out, and the seed of the draw.
        labels: (n,), the classes.
        tracks: (n,), one number per track, unique in the half.

    Raises:
        SpecError: if tracks are unknown, if a class would have no image left to train on, or if nothing would be held
            out.
    """
    if not len(tracks) or tracks.min() < 0:
        raise SpecError("the tracks of these images are unknown", remedy="split the training half of a set with tracks")
    held_out = _draw(spec, labels, tracks)
    is_held_out = np.isin(tracks, held_out)
    trained = np.ones_like(is_held_out) if isinstance(spec, AllSplitSpec) else ~is_held_out
    split = Split(train=np.flatnonzero(trained), validation=np.flatnonzero(is_held_out))
    _check(spec, split, labels)
    return split


def subset(indices: Indices, n: int, seed: int) -> Indices:
    """Draw ``n`` of the rows at random, sorted; a smaller draw with the same seed is contained in a larger one.

    Raises:
        SpecError: if there are fewer than ``n`` rows, or ``n`` is less than 1.
    """
    if not 1 <= n <= len(indices):
        problem = f"{n} training images are asked for, and there are {len(indices)}"
        raise SpecError(problem, remedy=f"ask for 1 to {len(indices)}")
    drawn = np.random.default_rng(derive_seed(seed, "subset")).permutation(indices)[:n]
    return np.sort(drawn)


def _draw_some(spec: TrackSplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Indices:
    """Draw ``spec.tracks_per_class`` tracks of every class, at most half of them."""
    drawn = [
        _generator(spec.seed, label).permutation(own)[: min(spec.tracks_per_class, len(own) // 2)]
        for label, own in _tracks_by_class(labels, tracks)
    ]
    return np.concatenate(drawn)


def _draw_one(spec: OneTrackSplitSpec | AllSplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Indices:
    """Draw one track of every class, never its first, as the code of 2015 did.

    Raises:
        SpecError: if a class has only one track.
    """
    drawn = []
    for label, own in _tracks_by_class(labels, tracks):
        if len(own) < 2:
            raise SpecError(f"class {label} has one track", remedy="holding out one needs at least two")
        drawn.append(_generator(spec.seed, label).choice(own[1:]))
    return np.array(drawn, np.int64)


def _draw_fold(spec: FoldSplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Indices:
    """Return the tracks of one fold.

    The tracks of every class, in random order, are dealt to the folds in turn; the next class continues where the
    previous one ended.
    """
    order = np.concatenate(
        [_generator(spec.seed, label).permutation(own) for label, own in _tracks_by_class(labels, tracks)]
    )
    return order[spec.fold :: spec.folds]


def _draw(spec: SplitSpec, labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Indices:
    match spec:
        case TrackSplitSpec():
            return _draw_some(spec, labels, tracks)
        case OneTrackSplitSpec() | AllSplitSpec():
            return _draw_one(spec, labels, tracks)
        case FoldSplitSpec():
            return _draw_fold(spec, labels, tracks)
        case _:
            assert_never(spec)


def _tracks_by_class(labels: NDArray[np.int64], tracks: NDArray[np.int64]) -> Iterator[tuple[int, Indices]]:
    """Yield each class with its tracks in ascending order."""
    for label in np.unique(labels):
        yield int(label), np.unique(tracks[labels == label])


def _generator(seed: int, label: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "split", label))


def _check(spec: SplitSpec, split: Split, labels: NDArray[np.int64]) -> None:
    if not len(split.validation):
        raise SpecError(f"the split {spec.kind} holds out nothing", remedy="there are too few tracks for it")
    lost = np.setdiff1d(labels, labels[split.train])
    if len(lost):
        problem = f"the split {spec.kind} leaves class {lost[0]} without images to train on"
        raise SpecError(problem, remedy="a class needs at least two tracks")
