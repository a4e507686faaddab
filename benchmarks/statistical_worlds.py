"""Made-up sweeps, in which it is known what is true."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A kind of sweep; ``deviation`` is the usual standard deviation of a run, a share."""

    name: str
    configurations: int
    seeds: int
    unevenness: float = 0.0
    accuracy: float = 0.95
    deviation: float = 0.005
    images: int = 4000
    is_heavy_tailed: bool = False
    collapsed: float = 0.0
    missing: float = 0.0

    def deviations(self, rng: np.random.Generator) -> Floats:
        """(configurations,) standard deviations of a run."""
        return self.deviation * np.exp(self.unevenness * rng.standard_normal(self.configurations))

    def draw(self, rng: np.random.Generator, deviations: Floats, behind: Floats) -> Floats:
        """(configurations, seeds) accuracies, NaN for runs that are missing."""
        shape = (self.configurations, self.seeds)
        noise = rng.standard_t(3, shape) / np.sqrt(3) if self.is_heavy_tailed else rng.standard_normal(shape)
        block = 2 * self.deviation * rng.standard_normal(self.seeds)
        found = self.accuracy - behind[:, None] * self.deviation + block + deviations[:, None] * noise
        found = np.round(np.clip(found, 0, 1) * self.images) / self.images
        found[rng.random(shape) < self.collapsed] = np.round(self.images / 43) / self.images
        found[rng.random(shape) < self.missing] = np.nan
        return found

    def draw_many(
        self, rng: np.random.Generator, behind: Floats, *, draws: int, uneven_unit: bool = False
    ) -> tuple[Floats, Floats]:
        """(draws, configurations, seeds) accuracies and (draws, configurations) standard deviations of a run.

        ``behind`` is in usual standard deviations, or with ``uneven_unit`` in root mean squares of all runs' ones.
        """
        unit = np.exp(self.unevenness**2) if uneven_unit else 1.0
        found = []
        for _ in range(draws):
            deviations = self.deviations(rng)
            found.append((self.draw(rng, deviations, behind * unit), deviations))
        return np.stack([pair[0] for pair in found]), np.stack([pair[1] for pair in found])
