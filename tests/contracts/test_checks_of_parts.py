"""The checks that users run on their parts hold for ours, and find what breaks them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from own_parts import write_part

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.metrics import metrics
from stnbench.spec.network import NETWORKS
from stnbench.spec.registry import REGISTRIES
from stnbench.spec.transformer import TRANSFORMERS
from stnbench.testing.parts import MENUS, NETWORK_CHECKS, check_part, menu_of, run_checks
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
    NETWORK_CHECKS[check](MENUS["network"].specify(name, SMALL.get(name, {})))


OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("pruner", "threshold"): {"accuracy": 0.45},
    ("planner", "racing"): {"max_seeds": 3},
    ("planner", "until_decided"): {"max_seeds": 4, "looks": 2},
    ("planner", "random"): {"trials": 8},
    ("planner", "tpe"): {"trials": 8},
    ("planner", "nsga2"): {"trials": 12, "population": 4},
    ("planner", "optuna"): {"trials": 6, "sampler": "QMCSampler"},
    ("augmentation", "random"): {"rotation_deg": 10.0, "brightness": 0.2, "blur": 0.3, "erase": 0.2},
}
"""Keys that a part of ours needs, or that make it do something."""

OTHERS = [
    (kind, name)
    for kind in ("locnet", "augmentation", "optimizer", "schedule", "planner", "pruner")
    for name in REGISTRIES[kind].names()
    if REGISTRIES[kind].source(name) is None
] + [("metric", name) for name, known in metrics().items() if not known.digest and known.needs != "meter"]


@pytest.mark.parametrize(("kind", "name"), OTHERS)
def test_every_other_part_keeps_its_promises(kind: str, name: str) -> None:
    """What ``stnbench check-part`` asks of a part of a user's own, of any kind that can be registered."""
    check_part(kind, name, **OPTIONS.get((kind, name), {}))


def test_every_kind_that_can_be_registered_has_a_menu() -> None:
    """A new registry without checks is found here."""
    assert {*MENUS} == {*REGISTRIES, "metric"}


BROKEN = """
import math, torch, stnbench
from stnbench.data.augmentation import Augmentation
from stnbench.planning import Planner
from stnbench.planning.build import GridPlanner
from stnbench.planning.build import Judge

@stnbench.register("optimizer", "deaf")
class Deaf(torch.optim.SGD):
    def __init__(self, groups, spec):
        super().__init__(groups, lr=0.01)

    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.data -= 0.01 * weight.grad

@stnbench.register("schedule", "counting")
class Counting:
    calls = 0

    def factor(self, time):
        Counting.calls += 1
        return 1 / Counting.calls

@stnbench.register("metric", "errors", better="higher")
def errors(probabilities, labels):
    return (probabilities.argmax(axis=1) != labels).mean()

@stnbench.register("augmentation", "loud")
class Loud(Augmentation):
    def draw(self, *, seed, epoch, count):
        return {"level": torch.rand(count, 1, 1, 1)}

    def apply(self, images, boxes, numbers):
        return images.float() + 200 * numbers["level"], boxes

@stnbench.register("planner", "forgetful")
class Forgetful(GridPlanner):
    def __init__(self, sweep, spec, compose, slots):
        super().__init__(sweep, compose)
        self.left = 2

    def ask(self):
        self._asked, self.left = False, self.left - 1
        return super().ask()

    @property
    def is_exhausted(self):
        return self.left <= 0

@stnbench.register("pruner", "envious")
class Envious(Judge):
    def __init__(self, spec, sweep):
        pass

    def expect(self, trial_id, group, epochs):
        pass

    def is_hopeless(self, progress):
        return progress.validation_accuracy > 0.8
"""


@pytest.mark.usefixtures("parts_forgotten")
def test_other_parts_that_break_a_promise_are_told_which(tmp_path: Path) -> None:
    """One of each kind, with one fault."""
    write_part(tmp_path, "broken", BROKEN)
    found = {}
    for name in ("deaf", "counting", "errors", "loud", "forgetful", "envious"):
        menu = menu_of(name)
        results = run_checks(menu, menu.specify(name, {}), lambda *_: None)
        found[name] = {check for check, said in results.items() if said}

    assert found == {
        "deaf": {"learning rates of the groups"},
        "counting": {"nothing kept between steps", "warm-up"},
        "errors": {"right is better than wrong"},
        "loud": {"numbers of the seed and epoch", "levels and boxes"},
        "forgetful": {
            "comes to an end",
            "same answers, same trials",
            "answers to no question",
            "goes on after a break",
            "trials that fail",
        },
        "envious": {"keeps the best"},
    }, found


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
    results = run_checks(MENUS["network"], MENUS["network"].specify("mine", {}), lambda *_: None)

    assert {name for name, found in results.items() if found} == broken, results


@pytest.mark.usefixtures("parts_forgotten")
def test_a_name_that_parts_of_two_kinds_have_needs_the_kind(tmp_path: Path) -> None:
    """Otherwise it is refused, as are a name and a kind that do not exist."""
    write_part(tmp_path, "affine", STAGE.replace('"mine"', '"affine"').format(stage="nn.Conv2d(channels, 4, 3)"))
    with pytest.raises(SpecError, match=r"affine is a transformer and a network: say which: --kind"):
        menu_of("affine")
    assert menu_of("affine", "network").kind == "network"
    with pytest.raises(UnknownNameError, match="unknown part 'afine': did you mean affine"):
        menu_of("afine")
    with pytest.raises(UnknownNameError, match="unknown kind of part 'netwrok': did you mean network"):
        check_part("netwrok", "lecun")
