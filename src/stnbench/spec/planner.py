"""Specifications of planners, which propose the configurations of a sweep, and pruners, which end trials early.

``trials`` counts trials, not configurations: 50 trials with two seeds are 25 configurations. Baselines are added to
these.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Discriminator
from typing_extensions import override

from stnbench.core.errors import INTEGER_MAX, require
from stnbench.spec.codec import PartSpec, Strict
from stnbench.spec.registry import Registry
from stnbench.spec.result import Verdict

# Ranges of numbers and their values.
#
# All planners use the same values: a range with ``step`` or ``values`` has exactly those, a range of whole numbers all
# of them, and a range of floats a lattice that is finer than any difference between trials (``RESOLUTION`` intervals,
# rounded to the digits that keep neighbours distinct). The label of a value is therefore exact, and a planner that
# continues after an interruption finds the value again.


RESOLUTION = 1000
"""Number of intervals of a range of floats without steps, equal on its scale."""

STEPS_MAX = 10_000
"""Largest number of steps of a range."""

INTEGERS_MAX = 10_000
"""Largest number of values of a range of whole numbers without steps."""

DIGITS_MIN, DIGITS_MAX = 4, 15


@dataclass(frozen=True, kw_only=True, slots=True)
class IntSpan(Strict):
    """Range of whole numbers from ``low`` to ``high``, both included, sampled uniformly or log-uniformly.

    ``step`` keeps every step-th number; ``values`` is the number of evenly spaced values that are kept.
    """

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int | None = None
    values: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        few = self.is_stepped or self.high - self.low < INTEGERS_MAX
        require(few, "int", [self.low, self.high], f"at most {INTEGERS_MAX} numbers, or say step: or values:")

    @property
    def is_stepped(self) -> bool:
        """Return whether the range has few enough values for a grid."""
        return self.step is not None or self.values is not None

    def numbers(self) -> tuple[int, ...]:
        """Return all values in ascending order."""
        if self.values is not None:
            spread = _spread(self.low, self.high, self.values, log=self.log)
            return tuple(dict.fromkeys(math.floor(number + 0.5) for number in spread))
        return tuple(range(self.low, self.high + 1, self.step or 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatSpan(Strict):
    """Range of numbers from ``low`` to ``high``, both included, sampled uniformly or log-uniformly.

    ``step`` is the distance between values; ``values`` is the number of evenly spaced values.
    """

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False
    step: float | None = None
    values: int | None = None

    def __post_init__(self) -> None:
        _check(self)

    @property
    def is_stepped(self) -> bool:
        """Return whether the range has few enough values for a grid."""
        return self.step is not None or self.values is not None

    def numbers(self) -> tuple[float, ...]:
        """Return all values in ascending order."""
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
    """Return ``count`` numbers from low to high, evenly spaced on a linear or logarithmic scale, with exact ends."""
    shares = (index / (count - 1) for index in range(1, count - 1))
    inner = [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
    return [low, *inner, high]


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    """Return numbers rounded to the fewest digits, at least four, that keep neighbours distinct."""
    pairs = itertools.pairwise(numbers)
    gap = min((upper - lower) / max(abs(lower), abs(upper)) for lower, upper in pairs)
    digits = min(DIGITS_MAX, max(DIGITS_MIN, math.ceil(-math.log10(gap)) + 1))
    inner = [float(f"{number:.{digits}g}") for number in numbers[1:-1]]
    ends = numbers[0], float(f"{numbers[-1]:.{DIGITS_MAX}g}")
    return tuple(dict.fromkeys([ends[0], *inner, ends[1]]))


_MAX_SEEDS: Final = "Seeds of a configuration, at most."
_MAX_TRIALS: Final = "End before it would take more trials than these."
_WARM_UP: Final = "Number of first epochs in which nothing is pruned."

OptionValue = bool | int | float | str | None
SCHEMA: Final = "schema"
"""Key of the metadata of a field with its description and limits in JSON Schema, for editors of sweep files."""


def key(description: str, default: Any, **limits: float) -> Any:  # noqa: ANN401 - as dataclasses.field does
    """Return a dataclass field with a default, a description and limits, which are keywords of JSON Schema."""
    return field(default=default, metadata=_said(description, **limits))


def _said(description: str, **limits: float) -> dict[str, Any]:
    return {SCHEMA: {"description": description, **limits}}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannerSpec(PartSpec):
    """Base specification of planners; external planners propose points of the grid.

    Attributes:
        is_grid: whether it trains every point with every seed, and nothing else.
        compares_all: whether every point gets the seeds of the sweep, so that equal-parameter baselines can be sized.
        chooses_seeds: whether it decides how many seeds a configuration gets.
        objectives: 2 for a planner that receives FLOPs as well as accuracies, else 1.
    """

    is_grid: ClassVar[bool] = False
    compares_all: ClassVar[bool] = False
    chooses_seeds: ClassVar[bool] = False
    objectives: ClassVar[int] = 1

    @property
    def trials_max(self) -> int | None:
        """Return the largest number of trials that it proposes, its key ``trials``, or None if there is no limit."""
        return getattr(self, "trials", None)

    @property
    def seeds_max(self) -> int | None:
        """Return ``max_seeds``, the most seeds of a configuration, or None if the sweep decides."""
        return getattr(self, "max_seeds", None)

    def further(self, seeds: int) -> str:
        """Return a line about the trials that depend on results and are not in the plan, for a number of seeds."""
        del seeds
        return "" if self.is_grid else f"these are the first; {self.kind} proposes others by the answers"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrunerSpec(PartSpec):
    """Base specification of pruners."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GridPlannerSpec(PlannerSpec):
    """All points of all grids, without the excluded ones, with every seed."""

    is_grid: ClassVar[bool] = True
    compares_all: ClassVar[bool] = True
    kind: Literal["grid"] = "grid"


@dataclass(frozen=True, kw_only=True, slots=True)
class RacingPlannerSpec(PlannerSpec):
    """Grid with the sweep's seeds, then seed by seed only for the configurations that may still be the best.

    A configuration leaves the race when the leaderboard would call it ``lower``. The race ends when one configuration
    is left, at ``max_seeds`` per configuration, or before it would need more than ``trials``.
    """

    chooses_seeds: ClassVar[bool] = True
    kind: Literal["racing"] = "racing"
    max_seeds: int = key(_MAX_SEEDS, 10, minimum=2)
    trials: int | None = key(_MAX_TRIALS, None, minimum=1)

    def __post_init__(self) -> None:
        require(self.max_seeds >= 2, "max_seeds", self.max_seeds, "at least 2")
        require(self.trials is None or self.trials >= 1, "trials", self.trials, "at least 1")

    @override
    def further(self, seeds: int) -> str:
        return f"then up to {self.max_seeds} seeds for configurations that may still be the best (racing)"


@dataclass(frozen=True, kw_only=True, slots=True)
class UntilDecidedPlannerSpec(PlannerSpec):
    """Grid with the sweep's seeds, then further seeds for undecided configurations until all are decided.

    The sweep is analysed at most ``looks`` times, each time at a level of 5 % divided by their number. It ends with a
    verdict on every configuration, at ``max_seeds`` per configuration, or before it would need more than ``trials``.
    """

    compares_all: ClassVar[bool] = True
    chooses_seeds: ClassVar[bool] = True
    kind: Literal["until_decided"] = "until_decided"
    max_seeds: int = key(_MAX_SEEDS, 20, minimum=2, maximum=10_000)
    looks: int = key(
        "How often verdicts are looked for; each look is at 5 % over their number.", 6, minimum=2, maximum=1_000
    )
    trials: int | None = key(_MAX_TRIALS, None, minimum=1)

    def __post_init__(self) -> None:
        require(2 <= self.max_seeds <= 10_000, "max_seeds", self.max_seeds, "from 2 to 10,000")
        require(2 <= self.looks <= 1_000, "looks", self.looks, "from 2 to 1,000")
        require(self.trials is None or self.trials >= 1, "trials", self.trials, "at least 1")

    def further(self, seeds: int) -> str:
        """Return a line about the trials that depend on results and are not in the plan."""
        looks = ", ".join(map(str, self.look_seeds(seeds)))
        return f"then seeds for configurations that are undecided; looks are planned at {looks} seeds"

    def look_seeds(self, first: int) -> tuple[int, ...]:
        """Return the number of seeds per configuration at each planned analysis, growing by about the same factor.

        Args:
            first: number of seeds of the sweep. The first analysis is at this number, but at least at two, since one
                seed decides nothing.

        Returns:
            ``looks`` numbers that rise to ``max_seeds``; fewer if there are not enough whole numbers between.
        """
        first = max(first, 2)
        if self.max_seeds <= first:
            return (first,)
        factor = self.max_seeds / first
        numbers = {round(first * factor ** (look / (self.looks - 1))) for look in range(self.looks)}
        return tuple(sorted(numbers))


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerSpec(PlannerSpec):
    """Base specification of planners that propose points one by one.

    ``at_once`` is the number of configurations that are proposed before the first of them is complete; None for as many
    as keep the slots busy, so that proposals depend on the number of slots. ``seed`` determines all random choices.
    """

    trials: int = key("How many trials are proposed, seeds counted.", 50, minimum=1)
    at_once: int | None = key(
        "How many configurations are proposed before the first is answered; null keeps all slots busy.", None, minimum=1
    )
    seed: int = key("Decides everything random of the planner.", 1, minimum=0)

    def __post_init__(self) -> None:
        require(self.trials >= 1, "trials", self.trials, "at least 1")
        require(self.at_once is None or self.at_once >= 1, "at_once", self.at_once, "at least 1")
        require(self.seed >= 0, "seed", self.seed, "at least 0")

    @property
    def optuna_sampler(self) -> tuple[str, Mapping[str, OptionValue]]:
        """Return the class of Optuna's sampler and its arguments."""
        raise NotImplementedError

    @override
    def further(self, seeds: int) -> str:
        return f"these are the first; {self.kind} asks for {self.trials} trials in all, by the answers"


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomPlannerSpec(SamplerSpec):
    """Points drawn uniformly from the axes."""

    kind: Literal["random"] = "random"

    @property
    def optuna_sampler(self) -> tuple[str, Mapping[str, OptionValue]]:
        """Return the class of Optuna's sampler and its arguments."""
        return "RandomSampler", {}


@dataclass(frozen=True, kw_only=True, slots=True)
class TpePlannerSpec(SamplerSpec):
    """Tree-structured Parzen estimator (Bergstra et al. 2011): points similar to the best ones so far."""

    kind: Literal["tpe"] = "tpe"

    @property
    def optuna_sampler(self) -> tuple[str, Mapping[str, OptionValue]]:
        """Return the class of Optuna's sampler and its arguments."""
        # Running configurations count as poor ones, so that several at once do not cluster in one place.
        return "TPESampler", {"constant_liar": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class Nsga2PlannerSpec(SamplerSpec):
    """NSGA-II (Deb et al. 2002) for two objectives: high validation accuracy and few FLOPs."""

    objectives: ClassVar[int] = 2
    kind: Literal["nsga2"] = "nsga2"
    population: int = key("The configurations of one generation.", 10, minimum=2)

    def __post_init__(self) -> None:
        SamplerSpec.__post_init__(self)
        require(self.population >= 2, "population", self.population, "at least 2")

    @property
    def optuna_sampler(self) -> tuple[str, Mapping[str, OptionValue]]:
        """Return the class of Optuna's sampler and its arguments."""
        return "NSGAIISampler", {"population_size": self.population}


@dataclass(frozen=True, kw_only=True, slots=True)
class OptunaPlannerSpec(SamplerSpec):
    """Any of Optuna's samplers by the name of its class, with options that are plain numbers and names."""

    kind: Literal["optuna"] = "optuna"
    sampler: str = field(metadata=_said("The class of a sampler of Optuna, such as CmaEsSampler."))
    options: dict[str, OptionValue] = field(default_factory=dict, metadata=_said("Arguments of the sampler."))

    @property
    def optuna_sampler(self) -> tuple[str, Mapping[str, OptionValue]]:
        """Return the class of Optuna's sampler and its arguments."""
        return self.sampler, self.options


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
"""Specification of any planner, discriminated by ``kind``."""


def sampler_names() -> list[str]:
    """Return the names of the planners that propose points one by one."""
    return [name for name in PLANNERS.names() if issubclass(PLANNERS.part(name).spec, SamplerSpec)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _HalvingSpec(PrunerSpec):
    """Base of the pruners by successive halving."""

    min_epochs: int = key("The epoch at which trials are compared for the first time.", 1, minimum=1)
    reduction_factor: int = key(
        "Reduction factor: the share of trials that goes on at each comparison is 1 over it.", 3, minimum=2
    )

    def __post_init__(self) -> None:
        require(self.min_epochs >= 1, "min_epochs", self.min_epochs, "at least 1")
        require(self.reduction_factor >= 2, "reduction_factor", self.reduction_factor, "at least 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class AshaPrunerSpec(_HalvingSpec):
    """Asynchronous successive halving (Li et al. 2020).

    At ``min_epochs``, and at each further multiple by ``reduction_factor``, only the best 1 / ``reduction_factor`` of
    the trials that have reached it continue.
    """

    kind: Literal["asha"] = "asha"


@dataclass(frozen=True, kw_only=True, slots=True)
class FreezeThawPrunerSpec(_HalvingSpec):
    """Successive halving whose trials pause where ``asha`` ends them, and go on once they are among the best there."""

    kind: Literal["freeze_thaw"] = "freeze_thaw"


@dataclass(frozen=True, kw_only=True, slots=True)
class HyperbandPrunerSpec(_HalvingSpec):
    """Hyperband (Li et al. 2018): successive halving with several first rungs, each for a share of the trials."""

    kind: Literal["hyperband"] = "hyperband"


@dataclass(frozen=True, kw_only=True, slots=True)
class MedianPrunerSpec(PrunerSpec):
    """Median rule: ends a trial whose best epoch so far is worse than the median of the others at this epoch.

    It acts once ``startup_trials`` trials are complete and the first ``warmup_epochs`` epochs are over.
    """

    kind: Literal["median"] = "median"
    startup_trials: int = key("Number of complete trials before which nothing is pruned.", 5, minimum=0)
    warmup_epochs: int = key(_WARM_UP, 1, minimum=0)

    def __post_init__(self) -> None:
        require(self.startup_trials >= 0, "startup_trials", self.startup_trials, "at least 0")
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdPrunerSpec(PrunerSpec):
    """Threshold rule: ends a trial by fixed limits once the first ``warmup_epochs`` are over.

    A trial ends if its validation accuracy, in [0, 1], is below ``accuracy``, or if one of its transformers samples
    more than the share ``outside_share`` of its points outside the image.
    """

    kind: Literal["threshold"] = "threshold"
    accuracy: float | None = key("The lowest validation accuracy, in [0, 1].", None, minimum=0, maximum=1)
    outside_share: float | None = key(
        "The largest share of points that a transformer samples outside the image.", None, minimum=0, maximum=1
    )
    warmup_epochs: int = key(_WARM_UP, 1, minimum=0)

    def __post_init__(self) -> None:
        given = self.accuracy is not None or self.outside_share is not None
        require(given, "accuracy", self.accuracy, "say accuracy: or outside_share:")
        for key, value in (("accuracy", self.accuracy), ("outside_share", self.outside_share)):
            require(value is None or 0 <= value <= 1, key, value, "between 0 and 1")
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthPrunerSpec(PrunerSpec):
    """Health rule: ends a trial once the verdict on a transformer is among ``verdicts``, after ``warmup_epochs``.

    A collapsed transformer may recover when the learning rate falls, but is far behind by then. ``constant`` and
    ``identity`` may be named as well, with enough warm-up epochs, since every transformer begins as the identity.
    """

    kind: Literal["health"] = "health"
    verdicts: tuple[Verdict, ...] = key(
        "End a trial with one of these verdicts on a transformer.", (Verdict.COLLAPSED, Verdict.DIVERGED), minItems=1
    )
    warmup_epochs: int = key(_WARM_UP, 0, minimum=0)

    def __post_init__(self) -> None:
        require(bool(self.verdicts), "verdicts", self.verdicts, "name at least one, as collapsed")
        require(Verdict.HEALTHY not in self.verdicts, "verdicts", "healthy", "leave it out: nothing is wrong then")
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")


PRUNERS: Final = Registry("pruner", PrunerSpec, section="pruner")
PRUNERS.declare_each(
    {
        AshaPrunerSpec: "stnbench.planning.build:asha",
        FreezeThawPrunerSpec: "stnbench.planning.build:freeze_thaw",
        HyperbandPrunerSpec: "stnbench.planning.build:hyperband",
        MedianPrunerSpec: "stnbench.planning.build:median",
        ThresholdPrunerSpec: "stnbench.planning.build:threshold",
        HealthPrunerSpec: "stnbench.planning.build:health",
    }
)

AnyPruner = Annotated[PrunerSpec, PRUNERS]
"""Specification of any pruner, discriminated by ``kind``."""
