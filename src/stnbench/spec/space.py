"""Ranges of numbers, and the one place that turns a range into values.

Every planner sees the same values: a range with ``step`` or ``values`` has exactly those, a range of whole numbers all
of them, and a range of floats a lattice that is finer than any trial can tell (``RESOLUTION`` intervals, rounded to the
digits that keep neighbours apart). A value is therefore said in full by its label, and a planner that goes on after an
interruption finds it again.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator

from stnbench.spec.check import INTEGER_MAX, require
from stnbench.spec.codec import Strict

RESOLUTION = 1000
"""Intervals of a range of floats without steps, equal on its scale."""

STEPS_MAX = 10_000
"""Steps of a range, at most."""

INTEGERS_MAX = 10_000
"""Whole numbers in a range without steps, at most."""

DIGITS_MIN, DIGITS_MAX = 4, 15


@dataclass(frozen=True, kw_only=True, slots=True)
class IntSpan(Strict):
    """Whole numbers from ``low`` to ``high``, both included; sampled evenly, or evenly on a logarithmic scale.

    ``step`` keeps every step-th, ``values`` so many of them, evenly spread.
    """

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int | None = None
    values: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        _check(self)
        few = self.is_stepped or self.high - self.low < INTEGERS_MAX
        require(few, "int", [self.low, self.high], f"at most {INTEGERS_MAX} numbers, or say step: or values:")

    @property
    def is_stepped(self) -> bool:
        """Whether it is a short list of values, which a grid can visit."""
        return self.step is not None or self.values is not None

    def numbers(self) -> tuple[int, ...]:
        """Every value, in ascending order."""
        if self.values is not None:
            spread = _spread(self.low, self.high, self.values, log=self.log)
            return tuple(dict.fromkeys(math.floor(number + 0.5) for number in spread))
        return tuple(range(self.low, self.high + 1, self.step or 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatSpan(Strict):
    """Numbers from ``low`` to ``high``, both included; sampled evenly, or evenly on a logarithmic scale.

    ``step`` keeps those at this distance from one another, ``values`` so many, evenly spread.
    """

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False
    step: float | None = None
    values: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        _check(self)

    @property
    def is_stepped(self) -> bool:
        """Whether it is a short list of values, which a grid can visit."""
        return self.step is not None or self.values is not None

    def numbers(self) -> tuple[float, ...]:
        """Every value, in ascending order."""
        if self.step is not None:
            steps = math.floor((self.high - self.low) / self.step * (1 + 1e-12) + 1e-9)
            return _rounded([self.low + index * self.step for index in range(steps + 1)])
        return _rounded(_spread(self.low, self.high, self.values or RESOLUTION + 1, log=self.log))


Span = Annotated[IntSpan | FloatSpan, Discriminator("kind")]


def _check(span: Span) -> None:
    ends = [span.low, span.high]
    require(span.low < span.high, span.kind, ends, "write the lower end first: [low, high]")
    require(not span.log or span.low > 0, span.kind, ends, "a logarithmic scale needs a lower end above 0")
    require(span.step is None or span.values is None, "step", span.step, "say step: or values:, not both")
    require(span.step is None or not span.log, "step", span.step, "with log: say values: (how many) instead")
    fits = span.step is None or 0 < span.step <= span.high - span.low
    require(fits, "step", span.step, "above 0 and not longer than the range")
    inside = span.low >= -INTEGER_MAX and span.high <= INTEGER_MAX
    require(inside or span.kind == "float", span.kind, ends, f"at most {INTEGER_MAX}")
    few = span.step is None or not fits or (span.high - span.low) / span.step < STEPS_MAX
    require(few, "step", span.step, f"larger: a range has at most {STEPS_MAX} steps")
    require(span.values is None or 2 <= span.values <= RESOLUTION, "values", span.values, f"from 2 to {RESOLUTION}")


def _spread(low: float, high: float, count: int, *, log: bool) -> list[float]:
    """So many numbers from low to high, evenly spread on a linear or logarithmic scale; the ends are exact."""
    shares = (index / (count - 1) for index in range(1, count - 1))
    inner = [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
    return [low, *inner, high]


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    """Numbers with as few digits, four at least, as keep neighbours apart."""
    pairs = itertools.pairwise(numbers)
    gap = min((upper - lower) / max(abs(lower), abs(upper)) for lower, upper in pairs)
    digits = min(DIGITS_MAX, max(DIGITS_MIN, math.ceil(-math.log10(gap)) + 1))
    inner = [float(f"{number:.{digits}g}") for number in numbers[1:-1]]
    ends = numbers[0], float(f"{numbers[-1]:.{DIGITS_MAX}g}")
    return tuple(dict.fromkeys([ends[0], *inner, ends[1]]))
