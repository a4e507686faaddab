"""Whoever adds a choice is told by mypy every place that has to know it, and at run time by the first that does not."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import stnbench
from stnbench.data.splits import split_tracks
from stnbench.planning.pruning import OptunaJudge
from stnbench.planning.samplers import sampler_maker
from stnbench.spec.planner import SamplerSpec
from stnbench.spec.sweep import SweepSpec

ROOT = Path(stnbench.__file__).parent


class Unheard(SamplerSpec):
    """A choice that somebody forgot to add: it has what every specification has, and no place knows it."""

    kind = "unheard"
    distortion = None
    image_size = 8
    sizes = (1, 2, 3)
    seed = 1


def sweep(**changes: object) -> SweepSpec:
    """A sweep with a planner or a pruner that no place knows."""
    made = SweepSpec(name="x", question="?")
    for key, value in changes.items():
        object.__setattr__(made, key, value)
    return made


UNHEARD = cast("Any", Unheard())

# ``unwrap``: without the types that tests check at run time, and users' processes do not.
PLACES: dict[str, Callable[[], object]] = {
    "sampler": lambda: sampler_maker(UNHEARD),
    "pruner of Optuna": lambda: OptunaJudge(UNHEARD, "x").expect("t", "", 3),
    "split": lambda: split_tracks(UNHEARD, np.array([0]), np.array([0])),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_choice_that_nobody_added_is_refused(place: str) -> None:
    """An unknown sampler was random search, an unknown schedule constant, an unknown data set GTSRB; now none runs."""
    with pytest.raises(AssertionError, match="unreachable"):
        PLACES[place]()


def matches() -> Iterator[tuple[str, ast.Match]]:
    """Every match statement of the package."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Match):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_no_match_falls_through_in_silence() -> None:
    """The last case of every match catches all; over a closed choice it is assert_never, which mypy proves."""
    open_ended = [
        where
        for where, node in matches()
        if not isinstance(node.cases[-1].pattern, ast.MatchAs) or node.cases[-1].pattern.pattern is not None
    ]

    assert open_ended == []
