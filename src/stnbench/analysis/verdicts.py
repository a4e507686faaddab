"""Results of a comparison of configurations, as plain values. No numpy here: who only passes them on stays light.

Accuracies are shares in [0, 1], and so are their differences. Intervals are at 95 %; *simultaneous* ones hold all
differences of their family at once with that confidence, and ``p_adjusted`` is adjusted for the same family.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from stnbench.analysis.inference import Estimate, t_quantile
from stnbench.core.errors import SpecError

SEEDS_METHOD: Final = "over seeds, moderated"
"""Of the single interval of a mean."""

DEFAULT_MARGIN: Final = 0.005
"""The difference in accuracy, as a share, below which two configurations count as equivalent."""


class Verdict(StrEnum):
    """Where a configuration stands against the best one of its group.

    ``best``: the highest adjusted mean. ``lower``: the simultaneous interval of its difference to the best lies below
    0. ``equivalent``: that interval holds 0 and lies within plus or minus the margin. ``undecided``: neither;
    ``seeds_needed`` says how many seeds would decide it.
    """

    BEST = "best"
    LOWER = "lower"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """A difference in accuracy with its simultaneous 95 % interval.

    Attributes:
        n: common seeds of the two sides that were scored.
        mean: the difference, adjusted for the seeds that each side has.
        low: lower end, None where there is no interval.
        high: upper end, likewise.
        p_adjusted: two-sided, adjusted for the family; None where there is no test.
        method: how the interval was made.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    p_adjusted: float | None
    method: str

    @property
    def is_told(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def turned(self) -> "Effect":
        """The same with its sides exchanged."""
        return replace(
            self,
            mean=-self.mean,
            low=None if self.high is None else -self.high,
            high=None if self.low is None else -self.low,
        )

    def is_within(self, margin: float) -> bool:
        """Whether the interval lies within plus or minus ``margin`` (a share)."""
        return self.low is not None and self.high is not None and -margin <= self.low and self.high <= margin


@dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """Runs of a configuration that failed: they are no part of its mean, and a quantity of its own.

    ``diverged`` runs ended without a score, ``collapsed`` ones with that of a network that learnt nothing. ``low`` and
    ``high`` are Wilson's 95 % interval of the rate (Wilson 1927).
    """

    runs: int
    diverged: int
    collapsed: int
    low: float
    high: float

    @property
    def failed(self) -> int:
        """Runs that diverged or collapsed."""
        return self.diverged + self.collapsed

    @property
    def rate(self) -> float:
        """The share of runs that failed."""
        return self.failed / self.runs if self.runs else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One configuration and what is decided about it.

    Attributes:
        configuration: its name or id.
        seeds: those whose runs are in the mean.
        mean: mean accuracy, adjusted to the seeds of the whole group; None without a scored run.
        low: of the mean over all seeds there might be, a single (not simultaneous) 95 % interval.
        high: likewise.
        method: of that interval.
        rank_low: best rank that the decided pairs leave open, from 1; None without a mean.
        rank_high: worst rank, likewise.
        verdict: None without a mean.
        delta: less the best of the group; None for the best itself.
        gain: less the baseline; None for the baseline, or without one.
        gain_equal_parameters: less the baseline with as many parameters, likewise.
        seeds_needed: for a verdict that is undecided, how many seeds a configuration would decide it with a chance of
            80 %, were difference and spread as estimated; None otherwise, and where it cannot be said.
        failures: None where no run has ended.
    """

    configuration: str
    seeds: tuple[int | str, ...]
    mean: float | None
    low: float | None
    high: float | None
    method: str
    rank_low: int | None
    rank_high: int | None
    verdict: Verdict | None
    delta: Effect | None = None
    gain: Effect | None = None
    gain_equal_parameters: Effect | None = None
    seeds_needed: int | None = None
    failures: Failures | None = None

    @property
    def n(self) -> int:
        """How many runs are in the mean."""
        return len(self.seeds)

    @property
    def rank(self) -> str:
        """The rank as text, ``3-9`` or ``18``; empty without one."""
        if self.rank_low is None:
            return ""
        return str(self.rank_low) if self.rank_low == self.rank_high else f"{self.rank_low}-{self.rank_high}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two configurations, in the order of their means; ``difference`` is the first less the second."""

    first: str
    second: str
    difference: Effect


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All configurations of a group (a task), the best first, those without a mean last.

    Attributes:
        decisions: one a configuration.
        margin: of equivalence, a share.
        seeds: all seeds of the group, in order.
        is_provisional: whether runs are missing, so that the verdicts may change when they come.
        run_deviation: the usual standard deviation of a run about its configuration and seed, a share; None where
            it cannot be estimated.
        prior_freedom: with how many degrees of freedom a configuration's variance is drawn towards that of all;
            infinite where all are taken as equal, None where there are no degrees of freedom.
        notes: what a reader must know, in sentences.
        pairs: all pairs, where they were asked for.
    """

    decisions: tuple[Decision, ...]
    margin: float
    seeds: tuple[int | str, ...]
    is_provisional: bool
    run_deviation: float | None
    prior_freedom: float | None
    notes: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def best(self) -> Decision | None:
        """The best one; None where none has a mean."""
        return self.decisions[0] if self.decisions and self.decisions[0].verdict is Verdict.BEST else None

    @property
    def decided(self) -> int:
        """How many configurations have a verdict other than undecided, the best left out."""
        return sum(item.verdict in {Verdict.LOWER, Verdict.EQUIVALENT} for item in self.decisions)


class Topic(StrEnum):
    """What a sentence of an answer is about."""

    CAUTION = "caution"
    TRANSFORMER = "transformer"
    BEST = "best"
    AXIS = "axis"
    TREND = "trend"
    TASKS = "tasks"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """One plain sentence of an answer, with the numbers that it is made of.

    Attributes:
        topic: what it is about.
        text: the sentence, with percentage points as ``pp``.
        axis: the axis it is about; empty for none.
        is_decided: whether it says that something is there (or is smaller than the margin), not only a bound.
        effects: the differences in it, each named.
    """

    topic: Topic
    text: str
    axis: str = ""
    is_decided: bool = False
    effects: tuple[tuple[str, Effect], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a sweep answers to its question: two to five sentences, the most important first."""

    sentences: tuple[Sentence, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The sentences as texts."""
        return tuple(sentence.text for sentence in self.sentences)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRank:
    """A configuration over several tasks: its mean rank (1 is the best), with wins, ties and losses against the others.

    A win is a pair and task in which it is decidedly better. ``imputed`` counts tasks on which it has no mean and was
    given the worst rank.
    """

    configuration: str
    mean_rank: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    imputed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSummary:
    """Configurations over the tasks of a sweep, the best mean rank first.

    Attributes:
        ranks: one a configuration.
        tasks: names of the tasks.
        critical_difference: of mean ranks (Nemenyi: the studentised range over the root of 2); None with too few tasks.
        cliques: groups of configurations that the critical difference does not tell apart, each of two or more.
        friedman_p: of the test that all have the same mean rank; None with too few tasks.
        note: why there is no critical difference; empty where there is one.
    """

    ranks: tuple[TaskRank, ...]
    tasks: tuple[str, ...]
    critical_difference: float | None
    cliques: tuple[tuple[str, ...], ...]
    friedman_p: float | None
    note: str


# Cross-validation: the accuracy of a recipe from networks that each saw all but one part of the images.


FOLDS_METHOD: Final = "t over folds"


def folds_accuracy(errors: Sequence[float], images: Sequence[int]) -> Estimate:
    """The share of all images that is read right, with its 95 % interval over folds, of which n is the number.

    Each fold is one draw of tracks and of a network together, so that both are in the interval: that of Student's t for
    a ratio of sums, on the logarithm of the share of errors, which few tracks make skew. One fold, and folds without
    any error, have no interval. That all networks share images to learn from is not in it, nor can be: no estimate of
    the variance of cross-validation is unbiased (Bengio and Grandvalet 2004). ``test_promises.py`` measures how often
    it holds.

    Args:
        errors: images read wrongly in each fold, a mean where it has several networks.
        images: how many images each fold has.
    Raises: SpecError for no fold at all.
    """
    folds, total = len(images), sum(images)
    if not total:
        raise SpecError("the accuracy over no folds was asked for", remedy="give at least one")
    share = math.fsum(errors) / total
    if folds == 1 or share == 0:
        return Estimate(n=folds, mean=1 - share, low=None, high=None, method=FOLDS_METHOD)
    residuals = [wrong - share * count for wrong, count in zip(errors, images, strict=True)]
    deviation = math.sqrt(folds / (folds - 1) * math.fsum(residual**2 for residual in residuals)) / total
    factor = math.exp(t_quantile(folds - 1) * deviation / share)
    low = 1 - share * factor
    return Estimate(
        n=folds, mean=1 - share, low=max(low, 0.0), high=1 - share / factor, method=FOLDS_METHOD, clipped=low < 0
    )
