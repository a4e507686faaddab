"""Made-up answers of made-up networks to images in tracks, with a truth that is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Where networks are right with a chance whose logit is a sum of normal parts, one for each of these reasons.

    ``track``: some tracks are hard for all; ``config_track``: or for one configuration; ``config_seed``: some seeds of
    a configuration are better; ``rest``: or only on some tracks. So images of a track are alike, and so are seeds.
    ``base`` is the middle.
    """

    base: float
    track: float
    config_track: float
    config_seed: float
    rest: float
    tracks: int = 262
    frames: int = 30

    def images(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The track of each image: half as many to all of the frames each."""
        return np.repeat(np.arange(self.tracks), rng.integers(self.frames // 2, self.frames + 1, self.tracks))

    def answers(
        self, rng: np.random.Generator, tracks: NDArray[np.int64], *, seeds: int, ahead: tuple[float, ...]
    ) -> NDArray[np.bool_]:
        """Which image (configs, seeds, images) is right; ``ahead`` is on the scale of logits."""
        configs, count = len(ahead), int(tracks.max()) + 1
        logits = (
            self.base
            + np.array(ahead)[:, None, None]
            + self.track * rng.standard_normal((1, 1, count))
            + self.config_track * rng.standard_normal((configs, 1, count))
            + self.config_seed * rng.standard_normal((configs, seeds, 1))
            + self.rest * rng.standard_normal((configs, seeds, count))
        )
        chances = special.expit(logits)[:, :, tracks]
        is_right: NDArray[np.bool_] = rng.random(chances.shape, dtype=np.float32) < chances
        return is_right

    def accuracy(self, ahead: float = 0.0) -> float:
        """What a configuration so far ahead has, over all seeds and all images there might be."""
        spread = np.sqrt(self.track**2 + self.config_track**2 + self.config_seed**2 + self.rest**2)
        points, weights = np.polynomial.hermite_e.hermegauss(201)
        return float((special.expit(self.base + ahead + spread * points) * weights).sum() / weights.sum())


SPREAD = World(base=5.5, track=1.0, config_track=0.1, config_seed=0.5, rest=0.2)
"""Errors, 0.8 % of images, are in many tracks, and seeds differ more than tracks do."""

CONCENTRATED = World(base=8.0, track=2.5, config_track=1.0, config_seed=0.3, rest=1.0)
"""As on GTSRB: of 262 tracks some twenty have an error, and a few have most; configs differ in which these are."""
