"""How a sweep proposes its cells, and when it ends a trial early.

``trials`` counts trials, so seeds are counted: 50 trials with two seeds are 25 cells. Twins come on top.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Discriminator

from stnbench.spec.check import INTEGER_MAX, require
from stnbench.spec.codec import Strict
from stnbench.spec.registry import Registry
from stnbench.spec.states import Verdict

# Ranges of numbers, and the one place that turns a range into values.
#
# Every planner sees the same values: a range with ``step`` or ``values`` has exactly those, a range of whole numbers
# all of them, and a range of floats a lattice that is finer than any trial can tell (``RESOLUTION`` intervals, rounded
# to the digits that keep neighbours apart). A value is therefore said in full by its label, and a planner that goes on
# after an interruption finds it again.


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannerSpec(Strict):
    """What all planners share; one from outside proposes points of the grid."""

    @property
    def kind(self) -> str:
        """Name the planner; each has a field of this name."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class PrunerSpec(Strict):
    """What all pruners share."""

    @property
    def kind(self) -> str:
        """Name the pruner; each has a field of this name."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class GridPlannerSpec(PlannerSpec):
    """Every point of every grid, less the excluded ones, with every seed."""

    kind: Literal["grid"] = "grid"


@dataclass(frozen=True, kw_only=True, slots=True)
class RacingPlannerSpec(PlannerSpec):
    """The grid with the sweep's seeds, then seed by seed for those cells only that may still be the best.

    A cell leaves the race when the leaderboard would call it ``lower``. The race ends with one cell left, at
    ``max_seeds`` a cell, or before it would take more than ``trials``.
    """

    kind: Literal["racing"] = "racing"
    max_seeds: int = 10
    trials: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.max_seeds >= 2, "max_seeds", self.max_seeds, "at least 2")
        require(self.trials is None or self.trials >= 1, "trials", self.trials, "at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class UntilDecidedPlannerSpec(PlannerSpec):
    """The grid with the sweep's seeds, then seeds for those configurations that are undecided, until none is.

    The sweep is looked at ``looks`` times at most, each time at 5 % over their number. It ends with a verdict on every
    configuration, at ``max_seeds`` a configuration, or before it would take more than ``trials``.
    """

    kind: Literal["until_decided"] = "until_decided"
    max_seeds: int = 20
    looks: int = 6
    trials: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        require(2 <= self.max_seeds <= 10_000, "max_seeds", self.max_seeds, "from 2 to 10,000")
        require(2 <= self.looks <= 1_000, "looks", self.looks, "from 2 to 1,000")
        require(self.trials is None or self.trials >= 1, "trials", self.trials, "at least 1")

    def look_seeds(self, first: int) -> tuple[int, ...]:
        """With how many seeds of a configuration each planned look is taken, growing by about the same factor.

        Args:
            first: how many seeds the sweep names. The first look is at these, and at two at least: one decides nothing.
        Returns: ``looks`` numbers that rise to ``max_seeds``, fewer where there are not so many between.
        """
        first = max(first, 2)
        if self.max_seeds <= first:
            return (first,)
        factor = self.max_seeds / first
        numbers = {round(first * factor ** (look / (self.looks - 1))) for look in range(self.looks)}
        return tuple(sorted(numbers))


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerSpec(PlannerSpec):
    """What all planners share that propose points one by one.

    ``at_once`` is how many cells are proposed before the first of them is answered; None: as many as keep the slots
    busy, so that proposals then depend on how many there are. ``seed`` decides everything random.
    """

    trials: int = 50
    at_once: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.trials >= 1, "trials", self.trials, "at least 1")
        require(self.at_once is None or self.at_once >= 1, "at_once", self.at_once, "at least 1")
        require(self.seed >= 0, "seed", self.seed, "at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomPlannerSpec(SamplerSpec):
    """Points drawn evenly from the axes."""

    kind: Literal["random"] = "random"


@dataclass(frozen=True, kw_only=True, slots=True)
class TpePlannerSpec(SamplerSpec):
    """The tree-structured Parzen estimator (Bergstra et al. 2011): points like the good ones so far."""

    kind: Literal["tpe"] = "tpe"


@dataclass(frozen=True, kw_only=True, slots=True)
class Nsga2PlannerSpec(SamplerSpec):
    """NSGA-II (Deb et al. 2002) for two aims at once: high validation accuracy and few FLOPs."""

    kind: Literal["nsga2"] = "nsga2"
    population: int = 10

    def __post_init__(self) -> None:
        """Check the values."""
        SamplerSpec.__post_init__(self)
        require(self.population >= 2, "population", self.population, "at least 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptunaPlannerSpec(SamplerSpec):
    """Any of Optuna's samplers by the name of its class, with options that are plain numbers and names."""

    kind: Literal["optuna"] = "optuna"
    sampler: str
    options: dict[str, bool | int | float | str | None] = field(default_factory=dict)


SearchPlannerSpec = RandomPlannerSpec | TpePlannerSpec | Nsga2PlannerSpec | OptunaPlannerSpec
"""The planners that propose points one by one, from ranges as well."""

PLANNERS: Final = Registry("planner", PlannerSpec, section="planner")
PLANNERS.declare_each(
    {
        GridPlannerSpec: "stnbench.planning.build:grid",
        RacingPlannerSpec: "stnbench.planning.build:racing",
        UntilDecidedPlannerSpec: "stnbench.planning.build:until_decided",
        RandomPlannerSpec: "stnbench.planning.build:search",
        TpePlannerSpec: "stnbench.planning.build:search",
        Nsga2PlannerSpec: "stnbench.planning.build:search",
        OptunaPlannerSpec: "stnbench.planning.build:search",
    }
)

AnyPlanner = Annotated[PlannerSpec, PLANNERS]
"""The specification of any planner, told apart by ``kind``."""

SAMPLERS = ("random", "tpe", "nsga2", "optuna")
"""The kinds of ``SearchPlannerSpec``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AshaPrunerSpec(PrunerSpec):
    """Asynchronous successive halving (Li et al. 2020).

    At ``min_epochs``, and at ``reduction_factor`` times as many again and again, only the best
    1 / ``reduction_factor`` of the trials that got so far go on.
    """

    kind: Literal["asha"] = "asha"
    min_epochs: int = 1
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        """Check the values."""
        _check_halving(self.min_epochs, self.reduction_factor)


@dataclass(frozen=True, kw_only=True, slots=True)
class HyperbandPrunerSpec(PrunerSpec):
    """Hyperband (Li et al. 2018): successive halving with several first rungs at once, a share of the trials each."""

    kind: Literal["hyperband"] = "hyperband"
    min_epochs: int = 1
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        """Check the values."""
        _check_halving(self.min_epochs, self.reduction_factor)


@dataclass(frozen=True, kw_only=True, slots=True)
class MedianPrunerSpec(PrunerSpec):
    """Ends a trial whose best epoch so far is worse than the median of the others at this epoch.

    Not before ``startup_trials`` are complete and the first ``warmup_epochs`` are over.
    """

    kind: Literal["median"] = "median"
    startup_trials: int = 5
    warmup_epochs: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.startup_trials >= 0, "startup_trials", self.startup_trials, "at least 0")
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdPrunerSpec(PrunerSpec):
    """Ends a trial that has gone wrong, once the first ``warmup_epochs`` are over.

    That is one whose validation accuracy, in [0, 1], is below ``accuracy``, or one of whose transformers samples more
    than the share ``outside_share`` of its points outside the image.
    """

    kind: Literal["threshold"] = "threshold"
    accuracy: float | None = None
    outside_share: float | None = None
    warmup_epochs: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        given = self.accuracy is not None or self.outside_share is not None
        require(given, "accuracy", self.accuracy, "say accuracy: or outside_share:")
        for key, value in (("accuracy", self.accuracy), ("outside_share", self.outside_share)):
            require(value is None or 0 <= value <= 1, key, value, "between 0 and 1")
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthPrunerSpec(PrunerSpec):
    """Ends a trial as soon as the verdict on one of its transformers is among ``verdicts``, after ``warmup_epochs``.

    A collapse may mend once the learning rate falls, and is far behind by then. ``constant`` and ``identity`` may be
    named as well, with epochs enough to warm up: every transformer begins as the identity.
    """

    kind: Literal["health"] = "health"
    verdicts: tuple[Verdict, ...] = (Verdict.COLLAPSED, Verdict.DIVERGED)
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        require(bool(self.verdicts), "verdicts", self.verdicts, "name at least one, as collapsed")
        require(Verdict.HEALTHY not in self.verdicts, "verdicts", "healthy", "leave it out: nothing is wrong then")
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")


OptunaPrunerSpec = AshaPrunerSpec | HyperbandPrunerSpec | MedianPrunerSpec
"""The pruners that Optuna computes."""

PRUNERS: Final = Registry("pruner", PrunerSpec, section="pruner")
PRUNERS.declare_each(
    {
        AshaPrunerSpec: "stnbench.planning.pruning:OptunaJudge",
        HyperbandPrunerSpec: "stnbench.planning.pruning:OptunaJudge",
        MedianPrunerSpec: "stnbench.planning.pruning:OptunaJudge",
        ThresholdPrunerSpec: "stnbench.planning.build:threshold",
        HealthPrunerSpec: "stnbench.planning.build:health",
    }
)

AnyPruner = Annotated[PrunerSpec, PRUNERS]
"""The specification of any pruner, told apart by ``kind``."""


def _check_halving(min_epochs: int, reduction_factor: int) -> None:
    require(min_epochs >= 1, "min_epochs", min_epochs, "at least 1")
    require(reduction_factor >= 2, "reduction_factor", reduction_factor, "at least 2")
