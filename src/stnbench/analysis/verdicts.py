"""Results of a comparison of configurations, as plain values. This module does not import numpy.

Accuracies are shares in [0, 1], and so are their differences. Intervals are at 95 %; *simultaneous* ones hold all
differences of their family at once with that confidence, and ``p_adjusted`` is adjusted for the same family.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from stnbench.analysis.effects import Estimate, t_quantile
from stnbench.core.errors import SpecError

SEEDS_METHOD: Final = "over seeds, moderated"
"""The method of the single interval of a mean."""

DEFAULT_MARGIN: Final = 0.005
"""The difference in accuracy, as a share, below which two configurations count as equivalent."""


class Verdict(StrEnum):
    """The relation of a configuration to the best one of its group.

    ``best``: the highest adjusted mean. ``lower``: the simultaneous interval of its difference to the best lies below
    0. ``equivalent``: that interval holds 0 and lies within plus or minus the margin. ``undecided``: neither;
    ``seeds_needed`` is the number of seeds that would decide it.
    """

    BEST = "best"
    LOWER = "lower"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """A difference in accuracy with its simultaneous 95 % interval.

    Attributes:
        n: the number of common seeds of the two sides that were scored.
        mean: the difference, adjusted for the seeds that each side has.
        low: lower end of the interval, None if there is none.
        high: upper end of the interval, None if there is none.
        p_adjusted: two-sided p-value, adjusted for the family; None if there is no test.
        method: how the interval was computed.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    p_adjusted: float | None
    method: str

    @property
    def is_told(self) -> bool:
        """Return whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def turned(self) -> "Effect":
        """Return the effect with its sides exchanged."""
        return replace(
            self,
            mean=-self.mean,
            low=None if self.high is None else -self.high,
            high=None if self.low is None else -self.low,
        )

    def is_within(self, margin: float) -> bool:
        """Check whether the interval lies within plus or minus ``margin`` (a share)."""
        return self.low is not None and self.high is not None and -margin <= self.low and self.high <= margin


@dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """The number and rate of failed runs of a configuration, which are not part of its mean.

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
        """Return the number of runs that diverged or collapsed."""
        return self.diverged + self.collapsed

    @property
    def rate(self) -> float:
        """Return the share of runs that failed, in [0, 1]."""
        return self.failed / self.runs if self.runs else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One configuration and the decisions about it.

    Attributes:
        configuration: its name or id.
        seeds: those whose runs are in the mean.
        mean: mean accuracy, adjusted to the seeds of the whole group; None without a scored run.
        low: lower end of a single (not simultaneous) 95 % interval of the mean over all possible seeds.
        high: upper end of that interval.
        method: of that interval.
        rank_low: best rank that the decided pairs leave open, from 1; None without a mean.
        rank_high: worst rank that the decided pairs leave open; None without a mean.
        verdict: None without a mean.
        delta: the difference to the best of the group; None for the best itself.
        gain: the difference to the baseline; None for the baseline, or without one.
        gain_equal_parameters: the difference to the baseline with as many parameters; None without one.
        seeds_needed: for an undecided verdict, the number of seeds that would decide it with a probability of 80 % if
            difference and spread are as estimated; None otherwise, and if it cannot be computed.
        failures: None if no run has ended.
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
        """Return the number of runs in the mean."""
        return len(self.seeds)

    @property
    def rank(self) -> str:
        """Return the rank as text, such as ``3-9`` or ``18``; empty without a rank."""
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
        decisions: one for each configuration.
        margin: of equivalence, a share.
        seeds: all seeds of the group, in order.
        is_provisional: whether runs are missing, so that the verdicts may change.
        run_deviation: the median standard deviation of a run about its configuration and seed, a share; None if it
            cannot be estimated.
        prior_freedom: the degrees of freedom of the prior towards which a configuration's variance is drawn; infinite
            if all variances are taken as equal, None without degrees of freedom.
        notes: sentences for the reader.
        pairs: all pairs, if they were requested.
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
        """Return the decision about the best configuration, or None if no configuration has a mean."""
        return self.decisions[0] if self.decisions and self.decisions[0].verdict is Verdict.BEST else None

    @property
    def decided(self) -> int:
        """Return the number of configurations with a verdict other than undecided, without the best."""
        return sum(item.verdict in {Verdict.LOWER, Verdict.EQUIVALENT} for item in self.decisions)


class Topic(StrEnum):
    """The subject of a sentence of an answer."""

    CAUTION = "caution"
    TRANSFORMER = "transformer"
    BEST = "best"
    AXIS = "axis"
    TREND = "trend"
    TASKS = "tasks"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """One plain sentence of an answer, with the numbers in it.

    Attributes:
        topic: its subject.
        text: the sentence, with percentage points as ``pp``.
        axis: the axis that it is about; empty for none.
        is_decided: whether it states an effect (or that it is smaller than the margin), not only a bound.
        effects: the differences in it, each with a name.
    """

    topic: Topic
    text: str
    axis: str = ""
    is_decided: bool = False
    effects: tuple[tuple[str, Effect], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer of a sweep to its question: two to five sentences, the most important first."""

    sentences: tuple[Sentence, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the sentences as texts."""
        return tuple(sentence.text for sentence in self.sentences)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRank:
    """A configuration over several tasks: its mean rank (1 is the best), with wins, ties and losses against the others.

    A win is a pair and task in which it is decidedly better. ``imputed`` is the number of tasks on which it has no mean
    and was given the worst rank.
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
        ranks: one for each configuration.
        tasks: names of the tasks.
        critical_difference: of mean ranks (Nemenyi: the studentised range over the root of 2); None with too few tasks.
        cliques: groups of configurations that the critical difference does not separate, each of two or more.
        friedman_p: of the test that all have the same mean rank; None with too few tasks.
        note: why there is no critical difference; empty if there is one.
    """

    ranks: tuple[TaskRank, ...]
    tasks: tuple[str, ...]
    critical_difference: float | None
    cliques: tuple[tuple[str, ...], ...]
    friedman_p: float | None
    note: str


# Cross-validation: the accuracy of a recipe from networks that were each trained on all but one part of the images.


FOLDS_METHOD: Final = "t over folds"


def folds_accuracy(errors: Sequence[float], images: Sequence[int]) -> Estimate:
    """Return the share of all images that is classified correctly, with its 95 % interval over folds.

    The n of the estimate is the number of folds. Each fold is one draw of tracks and of a network together, so that
    both are in the interval: that of Student's t for a ratio of sums, on the logarithm of the share of errors, which is
    skewed with few tracks. One fold, and folds without any error, have no interval. The interval does not cover that
    the networks share training images, nor can it: no estimate of the variance of cross-validation is unbiased (Bengio
    and Grandvalet 2004). ``test_promises.py`` measures its coverage.

    Args:
        errors: images classified wrongly in each fold, a mean if it has several networks.
        images: the number of images of each fold.

    Raises:
        SpecError: if there is no fold.
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
