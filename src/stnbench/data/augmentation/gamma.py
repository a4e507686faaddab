"""Gamma: shadows become darker or lighter than light parts do, as where a camera exposes for the sky behind a sign."""

from jaxtyping import Float
from torch import Tensor

from stnbench.data.augmentation.draws import draw_uniform
from stnbench.data.augmentation.lightness import BRIGHTEST


def draw_gamma(octaves: float, *, seed: int, epoch: int, count: int) -> Float[Tensor, " n"] | None:
    """An exponent for every image of an epoch, on the CPU; None where ``octaves`` is 0.

    Its logarithm to base 2 is uniform from minus to plus ``octaves``.
    """
    if octaves == 0:
        return None
    return 2 ** (octaves * (2 * draw_uniform("gamma", seed, epoch, (count,)) - 1))


def apply_gamma(
    levels: Float[Tensor, "batch channels height width"], exponent: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels height width"]:
    """The levels, as shares of the brightest, to the power of the image's exponent; black and white stay.

    Args:
        levels: in [0, 255].
        exponent: above 0; below 1 shadows are lit up, above 1 they are darkened.
    """
    return levels.div(BRIGHTEST).pow(exponent[:, None, None, None]).mul_(BRIGHTEST)
