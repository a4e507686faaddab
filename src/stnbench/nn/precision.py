"""Full precision for geometry and statistics, whatever precision the network around them runs in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

_WITHOUT_AUTOCAST = frozenset({"meta"})
"""Device types that torch.autocast does not know."""


def full_precision(kind_of_device: str) -> AbstractContextManager[object]:
    """Return a context without autocast, for results that float16 and bfloat16 would spoil."""
    if kind_of_device in _WITHOUT_AUTOCAST or not torch.is_autocast_enabled(kind_of_device):
        return nullcontext()
    return torch.autocast(kind_of_device, enabled=False)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Compute convolutions in float32 within the context, on a GPU that rounds those of the network to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def at_least_float32(values: Tensor) -> Tensor:
    """Return the values in float32; float64 stays, so that gradients can be checked."""
    return values if values.dtype == torch.float64 else values.to(torch.float32)
