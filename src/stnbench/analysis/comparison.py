"""Comparison of configurations over seeds: the fit, families of simultaneous intervals, verdicts and ranks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, TypedDict

from scipy import special
from typing_extensions import Unpack

from stnbench.analysis.fitted import Fitted, ScoredRun, Seed, seed_order
from stnbench.analysis.inference import LEVEL, wilson_estimate
from stnbench.analysis.verdicts import (
    DEFAULT_MARGIN,
    Comparison,
    Decision,
    Failures,
)
from stnbench.core.errors import SpecError

NO_METHOD: Final = "none"

COLLAPSED_SHARE: Final = 0.5
"""A run with less than this share of the accuracy of its configuration's best run has collapsed."""

_UNLIKELY: Final = 1e-3


class Question(TypedDict, total=False):
    """Options of a comparison; see ``fit_and_compare`` for each of them and its default."""

    margin: float
    baselines: Mapping[str, str] | None
    equal_parameter_baselines: Mapping[str, str] | None
    is_provisional: bool
    all_pairs: bool
    level: float


def compare_configurations(runs: Sequence[ScoredRun], **question: Unpack[Question]) -> Comparison:
    """Compare all configurations of one task; see ``fit_and_compare``."""
    return fit_and_compare(runs, **question)[0]


def fit_and_compare(
    runs: Sequence[ScoredRun],
    *,
    margin: float = DEFAULT_MARGIN,
    baselines: Mapping[str, str] | None = None,
    equal_parameter_baselines: Mapping[str, str] | None = None,
    is_provisional: bool = False,
    all_pairs: bool = False,
    level: float = LEVEL,
) -> tuple[Comparison, Fitted | None]:
    """Compare all configurations of one task, and return the fit for further questions.

    Args:
        runs: those that have ended, at most one for a configuration and seed.
        margin: of equivalence, a share in [0, 1].
        baselines: by configuration, the configuration without a transformer over which its gain is computed.
        equal_parameter_baselines: by configuration, the baseline with as many parameters.
        is_provisional: whether more runs are to come.
        all_pairs: whether to return the differences of all pairs.
        level: the error rate of each family; below 5 % if the same runs are compared repeatedly.

    Returns:
        The comparison, and the fit or None if no run has a score.

    Raises:
        SpecError: if a configuration and seed have two runs, or counts are not valid.
    """
    _check(runs)
    names = sorted(dict.fromkeys(run.configuration for run in runs))
    seeds = tuple(sorted(dict.fromkeys(run.seed for run in runs), key=seed_order))
    collapsed = _collapsed(runs)
    failures = {name: _failures(name, runs, collapsed) for name in names}
    sound = [run for run in runs if run.correct is not None and id(run) not in collapsed]
    expected = {name: sum(run.configuration == name for run in runs) for name in names}
    provisional = is_provisional or any(count < len(seeds) for count in expected.values())
    if not sound:
        decisions = tuple(_without_mean(name, failures[name]) for name in names)
        nothing = Comparison(
            decisions=decisions,
            margin=margin,
            seeds=seeds,
            is_provisional=provisional,
            run_deviation=None,
            prior_freedom=None,
            notes=("No run has a score.",) if runs else (),
        )
        return nothing, None
    fitted = Fitted(sound, level=level)
    comparison = fitted.compare(margin, baselines or {}, equal_parameter_baselines or {}, all_pairs=all_pairs)
    decisions = tuple(replace(item, failures=failures[item.configuration]) for item in comparison.decisions)
    missing = tuple(_without_mean(name, failures[name]) for name in names if name not in fitted.place)
    provisional = provisional and (fitted.model.has_blocks or is_provisional or len(seeds) == 1)
    found = replace(
        comparison, decisions=(*decisions, *missing), seeds=seeds, is_provisional=provisional, notes=comparison.notes
    )
    return replace(found, notes=(*_cautions(found), *found.notes)), fitted


def _check(runs: Sequence[ScoredRun]) -> None:
    seen: set[tuple[str, Seed]] = set()
    for run in runs:
        name = f"configuration '{run.configuration}', seed {run.seed}"
        if (run.configuration, run.seed) in seen:
            raise SpecError(f"{name} occurs twice", remedy="give one run for each configuration and seed")
        seen.add((run.configuration, run.seed))
        if run.correct is None:
            continue
        if run.images < 1:
            raise SpecError(f"{name}: {run.images} images", remedy="give at least one image")
        if not 0 <= run.correct <= run.images:
            raise SpecError(
                f"{name}: {run.correct:g} of {run.images} images are correct", remedy="give 0 <= correct <= images"
            )


def _collapsed(runs: Sequence[ScoredRun]) -> set[int]:
    """Return the ``id()`` of every run that has collapsed."""
    best: dict[str, float] = {}
    for run in runs:
        if run.correct is not None and not run.has_collapsed:
            best[run.configuration] = max(best.get(run.configuration, 0.0), run.correct / run.images)
    return {id(run) for run in runs if _has_collapsed(run, best.get(run.configuration, 0.0))}


def _has_collapsed(run: ScoredRun, best: float) -> bool:
    """Check whether a run is marked as collapsed, or scored far below the best run of its configuration."""
    if run.correct is None or run.has_collapsed is not None:
        return run.correct is not None and bool(run.has_collapsed)
    if run.correct / run.images >= COLLAPSED_SHARE * best:
        return False
    halfway = (1 + COLLAPSED_SHARE) / 2 * best
    return bool(special.bdtr(math.floor(run.correct), run.images, halfway) < _UNLIKELY)


def _failures(name: str, runs: Sequence[ScoredRun], collapsed: set[int]) -> Failures:
    own = [run for run in runs if run.configuration == name]
    lost = sum(run.correct is None for run in own)
    fallen = sum(id(run) in collapsed for run in own)
    rate = wilson_estimate(lost + fallen, len(own))
    return Failures(
        runs=len(own), diverged=lost, collapsed=fallen, low=float(rate.low or 0.0), high=float(rate.high or 0.0)
    )


def _without_mean(name: str, failures: Failures) -> Decision:
    return Decision(
        configuration=name,
        seeds=(),
        mean=None,
        low=None,
        high=None,
        method=NO_METHOD,
        rank_low=None,
        rank_high=None,
        verdict=None,
        failures=failures,
    )


def _cautions(comparison: Comparison) -> list[str]:
    """Return the notes that come before all others."""
    found = []
    best = comparison.best
    if best and best.failures and best.failures.failed:
        found.append(
            f"{best.configuration} has the highest mean, and {best.failures.failed} of its {best.failures.runs} runs "
            "failed: the mean is of the others."
        )
    failed = sum(item.failures.failed for item in comparison.decisions if item.failures)
    if failed:
        found.append(f"{failed} runs diverged or collapsed: they are a rate of their own and in no mean.")
    if comparison.is_provisional:
        found.append("Provisional: runs are missing; means are adjusted for the seeds that each configuration has.")
    return found
