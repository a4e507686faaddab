"""What a sweep says beyond its ranking: differences, gains, main effects, interactions, importance, Pareto fronts.

Plain values, no pandas: formats and pages are built on these. A ``Leaderboard`` carries them as ``findings``.
Accuracies are shares in [0, 1], and so are differences of them. A difference is the cell's less the other's: below 0
where the cell is behind. Every ``Estimate`` says its n, its interval at 95 % (None where there is none) and its method;
p-values are two-sided.
"""

from dataclasses import dataclass

from stnbench.analysis.inference import Estimate, McNemar
from stnbench.analysis.verdicts import Verdict
from stnbench.spec.data import Split


@dataclass(frozen=True, kw_only=True, slots=True)
class PairFinding:
    """A cell against the best one of its group.

    ``difference`` is over the common seeds, on these images; ``corrected_p`` its p-value after Holm's correction for
    all pairs of cells of the group, which decides about ``standing``. ``over_images`` is the same mean with an interval
    over seeds and images both (tracks of images, where they are known), ``over_images_corrected_p`` corrected likewise.
    ``improvement`` is the chance that a new run of the cell beats a new run of the best with the same seed, on other
    images where predictions are known. ``seeds_needed`` is with how many seeds a paired t test, at the corrected level,
    would tell a difference of this size with 80 % power; None where the difference is 0 or its spread is unknown.

    ``over_images`` and ``mcnemar`` are None where the predictions or labels of the images are not in the store, where
    the two were scored on other images, and in groups so large that only the best cells are looked at; ``over_images``
    also where they have one seed in common, which says nothing of others.
    """

    group: str
    cell_id: str
    label: str
    best_cell_id: str
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
    """What the transformers of a cell give over a twin without them.

    The twin is the same network, or (``is_equal_size``) one that is wider by so much that it has about as many
    parameters; ``parameter_ratio`` is the twin's number over the cell's, None where they are not known.
    """

    group: str
    cell_id: str
    label: str
    twin_cell_id: str
    is_equal_size: bool
    parameter_ratio: float | None
    difference: Estimate
    over_images: Estimate | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MainEffect:
    """One label of an axis: how far its mean is from the mean of the axis's labels, all else equal.

    ``effect`` is over seeds; ``mean`` is the accuracy that goes with it. ``cells`` is how many cells the axis's effects
    are from; ``method`` says how they were made comparable: by whole blocks, in which every label of the axis stands
    with the same labels of all other axes, or by least squares.
    """

    axis: str
    label: str
    mean: float
    effect: Estimate
    cells: int
    method: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Interaction:
    """Whether the effect of one axis depends on the label of another.

    ``means`` and ``residuals`` have a row for each of the ``first_labels`` and a column for each of the
    ``second_labels``: the mean accuracy over whole blocks, and what it is more than the two axes' effects added up.
    ``p_value`` is of an F test with seeds as blocks, None where there is one seed; ``corrected_p`` that after Holm's
    correction for all pairs of axes.
    """

    first: str
    second: str
    first_labels: tuple[str, ...]
    second_labels: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    residuals: tuple[tuple[float, ...], ...]
    seeds: int
    cells: int
    statistic: float | None
    p_value: float | None
    corrected_p: float | None

    @property
    def largest(self) -> float:
        """The residual farthest from 0, without its sign."""
        return max(abs(value) for row in self.residuals for value in row)


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """How much of what differs between cells goes with one axis.

    ``variance_explained`` is eta squared: the share of the variance between cells' mean accuracies that lies between
    the axis's labels. ``ped_anova`` and ``fanova`` are Optuna's, each normalised over the axes. None where it cannot be
    said.
    """

    axis: str
    cells: int
    variance_explained: float | None
    ped_anova: float | None
    fanova: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParetoFront:
    """The cells of a group that no other one beats in accuracy at the same cost or less, the cheapest first.

    ``cost`` is the name of a field of ``Row``: ``parameters``, ``flops`` or ``epoch_duration_s``.
    """

    group: str
    cost: str
    cell_ids: tuple[str, ...]
    labels: tuple[str, ...]
    costs: tuple[float, ...]
    means: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldsFinding:
    """One recipe over the folds of a cross-validation: cells that differ in nothing but the fold held out.

    ``scored_folds`` of the sweep's ``folds`` have a score, from so many ``networks`` in all. ``images`` are those of
    these folds together, each held out once; ``errors`` are on them, a mean where folds have several networks.
    ``difference`` is to the best recipe of the group, paired by fold; ``corrected_p`` its p-value after Holm's
    correction for all pairs of recipes, which decides about ``standing``. Both are None for the best itself.
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
    """All of it, on one split. ``notes`` say in sentences what was left out, and why."""

    split: Split
    folds: tuple[FoldsFinding, ...] = ()
    pairs: tuple[PairFinding, ...] = ()
    gains: tuple[GainFinding, ...] = ()
    main_effects: tuple[MainEffect, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    importances: tuple[Importance, ...] = ()
    pareto: tuple[ParetoFront, ...] = ()
    notes: tuple[str, ...] = ()
