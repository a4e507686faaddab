"""The checks that users run on their parts hold for ours, and find what breaks them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from own_parts import write_part

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.network import NETWORKS
from stnbench.spec.transformer import TRANSFORMERS
from stnbench.testing.parts import MENUS, NETWORK_CHECKS, check_part, menu_of, run_checks
from stnbench.testing.parts import specification as part_specification
from stnbench.testing.transformers import TRANSFORMER_CHECKS, specification

CHECKS = [name for name in TRANSFORMER_CHECKS if name != "compiles as one graph"]
"""The shapes that tests check at every call cannot be traced; tests/support/layer_in_torch.py compiles every family."""


@pytest.mark.parametrize("family", [name for name in TRANSFORMERS.names() if TRANSFORMERS.source(name) is None])
@pytest.mark.parametrize("check", CHECKS)
def test_every_family_keeps_its_promises(family: str, check: str) -> None:
    """What ``stnbench check-part`` asks of a part of a user's own."""
    TRANSFORMER_CHECKS[check](specification(family))


SMALL: dict[str, dict[str, Any]] = {
    "lecun": {"sizes": [6, 8, 10]},
    "idsia": {"sizes": [6, 8, 10, 12]},
    "fcn": {"sizes": [12, 12]},
    "cnn": {"sizes": [6, 8]},
    "poojahira": {"sizes": [6, 8, 10, 12]},
    "modern": {"sizes": [6, 8]},
    "timm": {"name": "test_resnet"},
    "deformable": {"sizes": [6, 8]},
    "torchvision": {"name": "shufflenet_v2_x0_5"},
}
"""Sizes with which the checks take a moment; a network that is not named here has its own."""


LEARNING_IS_SLOW = {"timm", "torchvision", "deformable"}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, marks=pytest.mark.thorough if is_slow else ())
        for name in NETWORKS.names()
        if NETWORKS.source(name) is None
        for check in NETWORK_CHECKS
        for is_slow in [check == "learns" and name in LEARNING_IS_SLOW]
    ],
)
def test_every_network_keeps_its_promises(name: str, check: str) -> None:
    """What ``stnbench check-part`` asks of a network of a user's own."""
    NETWORK_CHECKS[check](part_specification(MENUS["network"], name, SMALL.get(name, {})))


STAGE = """
from torch import nn
import torch, stnbench

@stnbench.register("network", "mine")
class Mine:
    def stage(self, number, channels, height, width):
        return {stage}
"""


class Odd(torch.nn.Module):
    """A module that breaks a promise."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.how, self.conv = how, torch.nn.Conv2d(channels, 4, 5, stride=4)
        self.idle = torch.nn.Linear(2, 2) if how == "idle" else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """As a module."""
        made: torch.Tensor = self.conv(maps)
        if self.how == "noisy":
            return made + torch.rand_like(made)
        if self.how == "mixes":
            return made - made.mean(dim=0, keepdim=True)
        if self.how == "detached":
            return made.detach() * 0
        return made


@pytest.mark.usefixtures("parts_forgotten")
@pytest.mark.parametrize(
    ("how", "broken"),
    [
        ("sound", set()),
        ("noisy", {"images alone and together", "determinism", "transformers before every stage"}),
        ("mixes", {"images alone and together"}),
        ("idle", {"gradients everywhere"}),
    ],
)
def test_a_network_that_breaks_a_promise_is_told_which(
    how: str, broken: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise in scoring, images that depend on their batch, and parameters without a part; a sound one passes."""
    monkeypatch.setattr(torch.nn, "Odd", Odd, raising=False)
    write_part(tmp_path, "mine", STAGE.format(stage=f"nn.Odd(channels, {how!r})"))
    results = run_checks(MENUS["network"], part_specification(MENUS["network"], "mine", {}), lambda *_: None)

    assert {name for name, found in results.items() if found} == broken, results


@pytest.mark.usefixtures("parts_forgotten")
def test_a_name_that_parts_of_two_kinds_have_needs_the_kind(tmp_path: Path) -> None:
    """Otherwise it is refused, as are a name and a kind that do not exist."""
    write_part(tmp_path, "affine", STAGE.replace('"mine"', '"affine"').format(stage="nn.Conv2d(channels, 4, 3)"))
    with pytest.raises(SpecError, match=r"affine is a transformer and a network: say which: --kind"):
        menu_of("affine")
    assert menu_of("affine", "network").registry is NETWORKS
    with pytest.raises(UnknownNameError, match="unknown part 'afine': did you mean affine"):
        menu_of("afine")
    with pytest.raises(UnknownNameError, match="unknown kind of part 'netwrok': did you mean network"):
        check_part("netwrok", "lecun")
