"""Full precision inside autocast."""

import torch

from stnbench.nn.layers import at_least_float32, full_precision


def test_autocast_is_off_inside_and_on_again_after() -> None:
    """A product in the block is float32, one after it bfloat16."""
    a = torch.eye(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision("cpu"):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16


def test_devices_without_autocast_are_let_be() -> None:
    """The meta device knows no autocast, and needs none."""
    with full_precision("meta"):
        assert torch.empty(1, device="meta").device.type == "meta"


def test_only_lower_precisions_are_raised() -> None:
    """float16 becomes float32, float64 stays."""
    assert at_least_float32(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32
    assert at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
