"""Every test runs in a tier of the Makefile, whatever its marks, and CI runs every tier that needs no GPU."""

import re
import subprocess
from functools import partial
from itertools import chain, combinations
from pathlib import Path

from _pytest.mark.expression import Expression

ROOT = Path(__file__).parents[2]
MARKS = ("slow", "thorough", "exhaustive", "scheduler", "cuda")
TIERS = ("test", "test-thorough", "test-exhaustive", "test-scheduler", "test-gpu")


def selected(target: str) -> set[tuple[str, ...]]:
    """Return the combinations of marks that a target of the Makefile selects."""
    command = ["make", "--dry-run", "--always-make", target]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (asked,) = re.findall(r" -m pytest .*-m '([^']+)'", printed)
    expression = Expression.compile(asked)
    every = chain.from_iterable(combinations(MARKS, count) for count in range(len(MARKS) + 1))
    return {marks for marks in every if expression.evaluate(partial(is_among, marks))}


def is_among(marks: tuple[str, ...], name: str, /, **_: str | int | bool | None) -> bool:
    """Return whether a mark of this name is among these."""
    return name in marks


def test_every_combination_of_marks_is_in_a_tier() -> None:
    """No test is left out by all of them, the inner loop adds none, and coverage is that of the first two tiers."""
    tiers = {target: selected(target) for target in (*TIERS, "test-fast", "test-full", "coverage")}

    assert set().union(*(tiers[target] for target in TIERS)) == {
        marks for count in range(len(MARKS) + 1) for marks in combinations(MARKS, count)
    }
    assert tiers["test-fast"] < tiers["test"]
    assert not tiers["test"] & tiers["test-thorough"]
    assert tiers["coverage"] == tiers["test-full"] == tiers["test"] | tiers["test-thorough"]


def test_ci_runs_every_tier_that_needs_no_gpu() -> None:
    """On PostgreSQL as well, where there are tests of it."""
    script = (ROOT / ".ci" / "run").read_text()

    assert ".ci/with-postgres make test\n" in script
    assert ".ci/with-postgres make test-thorough\n" in script
    assert "make test-exhaustive test-scheduler" in script
