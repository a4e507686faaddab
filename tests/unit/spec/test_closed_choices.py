"""Whoever adds a choice is told by mypy every place that has to know it, and at run time by the first that does not."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from stnbench.config.axes import read_planner, read_pruner
from stnbench.core.errors import UnknownNameError
from stnbench.data import split_tracks
from stnbench.planning.build import build_planner
from stnbench.spec.codec import from_plain
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec


class Unheard:
    """A choice that somebody forgot to register: it has what every specification has, and no registry knows it."""

    kind = "unheard"
    distortion = None
    image_size = 8
    sizes = (1, 2, 3)
    seed = 1
    is_grid = False
    samples = False
    warmup_epochs = 0.0


def sweep(**changes: object) -> SweepSpec:
    """A sweep with a planner or a pruner that no place knows."""
    made = SweepSpec(name="x", question="?")
    for key, value in changes.items():
        object.__setattr__(made, key, value)
    return made


UNHEARD = cast("Any", Unheard())


def build_locnet() -> None:
    """Build a localisation network; ``unwrap``: without the types that tests check at run time, and users do not."""
    from stnbench.nn.initialization import MapSize
    from stnbench.nn.localization import build_localization

    inspect.unwrap(build_localization)(UNHEARD, MapSize(3, 8, 8), identity=(0.0,))


def use_schedule() -> None:
    """Ask a schedule for a learning rate."""
    from stnbench.training.optim import StepTime, learning_rate_at

    learning_rate_at(UNHEARD, peak=0.1, time=StepTime(step=0, steps_per_epoch=1, epochs=1, records=()))


def open_data() -> None:
    """Open a data set."""
    from stnbench.data.build import open_dataset

    open_dataset(UNHEARD, root=Path(), workers=1)


BUILT: dict[str, Callable[[], object]] = {
    "planner": lambda: build_planner(sweep(planner=UNHEARD), lambda _: TrialSpec()),
    "pruner": lambda: build_planner(sweep(pruner=UNHEARD), lambda _: TrialSpec()),
    "locnet": build_locnet,
    "schedule": use_schedule,
    "dataset": open_data,
}

READ: dict[str, Callable[[], object]] = {
    "planner": lambda: read_planner({"kind": "unheard"}, "a test"),
    "pruner": lambda: read_pruner({"kind": "unheard"}, "a test"),
    "locnet": lambda: from_plain(
        TrialSpec, {"transformers": [{"place": 1, "locnet": {"kind": "unheard"}}]}, where="a test"
    ),
    "schedule": lambda: from_plain(TrialSpec, {"schedule": {"kind": "unheard"}}, where="a test"),
    "dataset": lambda: from_plain(TrialSpec, {"dataset": {"kind": "unheard"}}, where="a test"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILT)
def test_what_once_fell_through_is_refused(kind: str) -> None:
    """An unknown sampler was random search, an unknown pruner none, an unknown localisation network flatten and dense.

    An unknown schedule was constant and an unknown data set GTSRB; none is read or built any more.
    """
    with pytest.raises(UnknownNameError, match="'unheard'"):
        READ[kind]()
    with pytest.raises(UnknownNameError, match=f"unknown {kind} 'unheard'"):
        BUILT[kind]()


def test_a_split_that_nobody_added_is_refused() -> None:
    """A closed choice is matched to its end."""
    with pytest.raises(AssertionError, match="unreachable"):
        split_tracks(UNHEARD, np.array([0]), np.array([0]))
