"""Random numbers of augmentation, drawn beforehand for a whole epoch."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from stnbench.core.seeds import derive_seed


def draw_uniform(label: str, seed: int, epoch: int, shape: tuple[int, ...]) -> Float64[Tensor, "*shape"]:
    """Numbers in [0, 1), on the CPU; they depend on the arguments alone, and other labels have numbers of their own."""
    generator = torch.Generator("cpu").manual_seed(derive_seed(seed, "augment", label, epoch))
    return torch.rand(math.prod(shape), generator=generator, dtype=torch.float64, device="cpu").reshape(shape)
