"""Records of a sweep's findings: differences, gains, main effects, interactions, importances, Pareto fronts.

Formats and pages are built on these plain values, which need no pandas. A ``Leaderboard`` has them as ``findings``.
Accuracies are shares in [0, 1], and so are differences of them. A difference is that of the configuration less that of
the other, below 0 where the configuration is behind. Every ``Estimate`` has its n, its interval at 95 % (None where
there is none) and its method; p-values are two-sided.
"""

from dataclasses import dataclass
from enum import StrEnum

from stnbench.analysis.effects import Estimate, McNemar, RankCorrelation
from stnbench.analysis.verdicts import Verdict
from stnbench.spec.data import Split
from stnbench.spec.sweep import PublishedSplit


@dataclass(frozen=True, kw_only=True, slots=True)
class PairFinding:
    """A comparison of a configuration with the best one of its group.

    ``difference`` is over the common seeds, on these images; ``corrected_p`` is its p-value after Holm's correction for
    all pairs of configurations of the group, which decides ``standing``. ``over_images`` is the same mean with an
    interval over both seeds and images (tracks of images, where they are known), and ``over_images_corrected_p`` its
    p-value after the same correction. ``improvement`` is the probability that a new run of the configuration beats a
    new run of the best with the same seed, on other images where predictions are known. ``seeds_needed`` is the number
    of seeds with which a paired t test, at the corrected level, would detect a difference of this size with 80 % power;
    None where the difference is 0 or its spread is unknown.

    ``over_images`` and ``mcnemar`` are None where the predictions or labels of the images are not in the store, where
    the two were scored on different images, and in groups so large that only the best configurations are compared image
    by image; ``over_images`` also where they have one seed in common, which says nothing about others.
    """

    group: str
    config_id: str
    label: str
    best_config_id: str
    best_label: str
    standing: Verdict
    difference: Estimate | None
    corrected_p: float
    over_images: Estimate | None = None
    over_images_corrected_p: float | None = None
    mcnemar: McNemar | None = None
    improvement: Estimate | None = None
    seeds_needed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GainFinding:
    """The gain of a configuration's transformers over a baseline without them.

    The baseline is the same network, or (``is_equal_size``) a wider one with about the same number of parameters;
    ``parameter_ratio`` is the baseline's number over the configuration's, None where they are not known.
    """

    group: str
    config_id: str
    label: str
    baseline_config_id: str
    is_equal_size: bool
    parameter_ratio: float | None
    difference: Estimate
    over_images: Estimate | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MainEffect:
    """The main effect of a label: the difference of its mean from the mean of its axis's labels, all else equal.

    ``effect`` is over seeds; ``mean`` is the corresponding accuracy. ``configs`` is the number of configurations that
    the axis's effects are estimated from. ``method`` says how these were made comparable: by whole blocks, in which
    every label of the axis occurs with the same labels of all other axes, or by least squares.
    """

    axis: str
    label: str
    mean: float
    effect: Estimate
    configs: int
    method: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Interaction:
    """The interaction of two axes: how far the effect of one depends on the label of the other.

    ``means`` and ``residuals`` have a row for each of the ``first_labels`` and a column for each of the
    ``second_labels``: the mean accuracy over whole blocks, and its excess over the sum of the two axes' effects.
    ``p_value`` is of an F test with seeds as blocks, None with one seed; ``corrected_p`` is the same after Holm's
    correction for all pairs of axes.
    """

    first: str
    second: str
    first_labels: tuple[str, ...]
    second_labels: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    residuals: tuple[tuple[float, ...], ...]
    seeds: int
    configs: int
    statistic: float | None
    p_value: float | None
    corrected_p: float | None

    @property
    def largest(self) -> float:
        """Return the largest absolute residual."""
        return max(abs(value) for row in self.residuals for value in row)


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """The importance of an axis: the share of the differences between configurations that it accounts for.

    ``variance_explained`` is eta squared: the share of the variance between configurations' mean accuracies that lies
    between the axis's labels. ``ped_anova`` and ``fanova`` are Optuna's, each normalised over the axes. A measure is
    None where it cannot be computed.
    """

    axis: str
    configs: int
    variance_explained: float | None
    ped_anova: float | None
    fanova: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParetoFront:
    """The configurations of a group that no other one beats in accuracy at the same cost or less, the cheapest first.

    ``cost`` is the name of a field of ``Row``: ``parameters``, ``flops`` or ``epoch_duration_s``.
    """

    group: str
    cost: str
    config_ids: tuple[str, ...]
    labels: tuple[str, ...]
    costs: tuple[float, ...]
    means: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldsFinding:
    """A recipe over the folds of a cross-validation: configurations that differ only in the fold held out.

    ``scored_folds`` of the sweep's ``folds`` have a score, and ``networks`` is the number of networks in all of them.
    ``images`` is the number of images in these folds, each held out once; ``errors`` is the number of errors on them, a
    mean where folds have several networks. ``difference`` is to the best recipe of the group, paired by fold;
    ``corrected_p`` is its p-value after Holm's correction for all pairs of recipes, which decides ``standing``. Both
    are None for the best itself.
    """

    group: str
    label: str
    folds: int
    scored_folds: int
    networks: int
    images: int
    errors: float
    accuracy: Estimate
    standing: Verdict
    difference: Estimate | None = None
    corrected_p: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """All findings of a sweep on one split. ``notes`` are sentences on omissions and their reasons."""

    split: Split
    folds: tuple[FoldsFinding, ...] = ()
    pairs: tuple[PairFinding, ...] = ()
    gains: tuple[GainFinding, ...] = ()
    main_effects: tuple[MainEffect, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    importances: tuple[Importance, ...] = ()
    pareto: tuple[ParetoFront, ...] = ()
    notes: tuple[str, ...] = ()


# Records that compare a sweep's configurations with published results. Free of pandas, as ``board`` is.
#
# Accuracies are shares in [0, 1], and so are effects, which are differences of accuracies.


class ClaimVerdict(StrEnum):
    """The verdict of our data on a claim, at the 5 % level; undecided where the data support neither answer."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of 2015, tested with our configurations.

    Attributes:
        name: the claim as a sentence.
        verdict: the answer of our data.
        effect: the quantity that the claim says is above 0, paired by seed, in accuracy ``unit``.
        unit: of the effect.
        comparisons: the number of pairs, gains or series of configurations that the effect is the mean of.
        configs: the number of configurations in these.
        method: how the claim was tested.
        detail: further facts for the reader.
        published_effect: the same effect from the published accuracies, one run each; None where not all of those it
            needs are published.
    """

    name: str
    verdict: ClaimVerdict
    effect: Estimate
    unit: str
    comparisons: int
    configs: int
    method: str
    detail: str
    published_effect: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementRow:
    """A configuration with our accuracy, the published one, and the ranks of both.

    ``published`` is one run, with Wilson's interval over its images. Ranks are among the configurations of the table, 1
    for the best; equal accuracies share the mean of their ranks.
    """

    config_id: str
    label: str
    ours: Estimate
    published: Estimate
    our_rank: float
    published_rank: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """The agreement of a sweep with published results.

    Attributes:
        published: the name of the published table.
        published_split: the split of the published accuracies.
        published_images: the number of images in that split.
        split: the split of our accuracies.
        seeds: the seeds that all of the configurations have.
        rows: the configurations with both accuracies, the best published ones first.
        tau: Kendall's rank correlation; None with fewer than three such configurations.
        rho: Spearman's rank correlation; None with fewer than three such configurations.
        claims: the claims that were tested.
        untested: the names of the claims for which the sweep has no configurations.
        left_out: the number of configurations with a published accuracy that lack one of these seeds.
    """

    published: str
    published_split: PublishedSplit
    published_images: int
    split: Split
    seeds: tuple[int, ...]
    rows: tuple[AgreementRow, ...]
    tau: RankCorrelation | None
    rho: RankCorrelation | None
    claims: tuple[Claim, ...]
    untested: tuple[str, ...]
    left_out: int
