"""Points through a homography."""

import numpy as np
from numpy.typing import NDArray


def apply_homography(homography: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) taken through a (3, 3) homography: (n, 2)."""
    moved = points @ homography[:, :2].T + homography[:, 2]
    projected: NDArray[np.float64] = moved[:, :2] / moved[:, 2:]
    return projected
