"""Comparison of configurations over seeds: the fit, families of simultaneous intervals, verdicts and ranks."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypedDict

import pandas as pd
from scipy import special
from typing_extensions import Unpack

from stnbench.analysis.effects import LEVEL, NO_METHOD, wilson_estimate
from stnbench.analysis.fitted import Fitted, ScoredRun, Seed, seed_order
from stnbench.analysis.verdicts import (
    DEFAULT_MARGIN,
    Comparison,
    Decision,
    Effect,
    Failures,
    Verdict,
)
from stnbench.core.errors import SpecError

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


def compare_paired(pairs: Sequence[tuple[ScoredRun, ScoredRun]]) -> dict[str, Effect]:
    """Compare the same configurations on two sides, such as before and after a change of the code.

    The differences of a configuration's runs, paired by seed, are the data: configurations and seeds are fitted to them
    as to accuracies, with moderated variances, and each mean difference is compared with 0 over all possible seeds. The
    intervals are simultaneous for all configurations.

    Args:
        pairs: of scored runs of one configuration and seed, at most one of each.

    Returns:
        For each configuration the accuracy of the first side less that of the second; without an interval if no
        configuration has two pairs.

    Raises:
        SpecError: if a configuration and seed have two pairs, or counts are not valid.
    """
    differences = []
    for first, second in pairs:
        _check([first, replace(second, configuration=f"{second.configuration} (second)")])
        if first.correct is None or second.correct is None:
            continue
        # (1 + difference) / 2 is the share of images right on the first side and wrong on the second, of both sides'.
        share = (1 + first.correct / first.images - second.correct / second.images) / 2
        images = first.images + second.images
        differences.append(replace(first, correct=share * images, images=images, has_collapsed=False))
    _check(differences)
    if not differences:
        return {}
    fitted = Fitted(differences)
    return {
        name: replace(
            half,
            mean=2 * half.mean,
            low=None if half.low is None else 2 * half.low,
            high=None if half.high is None else 2 * half.high,
        )
        for name, half in zip(fitted.names, fitted.means_against(0.5), strict=True)
    }


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
        found.append(f"{failed} runs diverged or collapsed: they are reported as a rate and are part of no mean.")
    if comparison.is_provisional:
        found.append("Provisional: runs are missing; means are adjusted for the seeds that each configuration has.")
    return found


# ``stnbench.compare``: a leaderboard of results in a pandas frame. This module does not import torch.


NEEDED: Final = ("configuration", "seed", "correct", "images")

COLUMNS: Final = {
    "configuration": "object",
    "n": "int64",
    "mean": "float64",
    "low": "float64",
    "high": "float64",
    "rank_low": "Int64",
    "rank_high": "Int64",
    "verdict": "object",
    "delta_mean": "float64",
    "delta_low": "float64",
    "delta_high": "float64",
    "delta_p_adjusted": "float64",
    "seeds_needed": "Int64",
}
GAIN_COLUMNS: Final = {
    "gain_mean": "float64",
    "gain_low": "float64",
    "gain_high": "float64",
    "gain_p_adjusted": "float64",
}


def compare(frame: pd.DataFrame, baseline: str | None = None, margin: float = DEFAULT_MARGIN) -> pd.DataFrame:
    """Compare configurations by their runs, with simultaneous 95 % intervals from moderated variances.

    Args:
        frame: one row for each run, with the columns ``configuration``, ``seed``, ``correct`` (images recognised) and
            ``images`` (images scored). A missing ``correct`` is a run that failed. With a column ``task``, each task is
            compared by itself; with a column ``track``, the rows of a run are its tracks, and their sums are compared.
        baseline: the configuration over which gains are computed.
        margin: the difference in accuracy, a share in [0, 1), within which two configurations are equivalent.

    Returns:
        One row for each configuration (and task), the best first. Accuracies and differences are shares. ``n`` is the
        number of runs in the mean, without failed ones; ``mean`` is adjusted to the seeds of all configurations,
        ``low`` and ``high`` are its interval over seeds; ``delta`` is the difference to the best configuration (missing
        for the best itself), simultaneous over all pairs; ``gain`` is the difference to the baseline, simultaneous over
        all configurations; ``seeds_needed`` is the number of seeds that would probably decide an ``undecided`` verdict.
        ``attrs["notes"]`` holds the notes of the comparison.

    Raises:
        SpecError: if a column is missing, the baseline is unknown, or counts or runs are not valid.

    Example:
        >>> import pandas as pd
        >>> import stnbench
        >>> rows = [("plain", 1, 912), ("plain", 2, 905), ("affine", 1, 961), ("affine", 2, 957)]
        >>> runs = pd.DataFrame(rows, columns=["configuration", "seed", "correct"]).assign(images=1000)
        >>> stnbench.compare(runs, baseline="plain")[["configuration", "verdict"]].values.tolist()
        [['affine', 'best'], ['plain', 'lower']]
    """
    if not isinstance(margin, int | float) or not 0 <= margin < 1:
        raise SpecError(f"the margin is {margin}", remedy="give a share from 0 on and below 1, such as 0.005")
    runs = _read(frame)
    comparisons = {}
    for task, own in runs.items():
        names = list(dict.fromkeys(run.configuration for run in own))
        base = None if baseline is None else str(baseline)
        if base is not None and base not in names:
            where = f" in the task {task}" if "task" in frame.columns else ""
            raise SpecError(
                f"the baseline '{base}' is no configuration{where}", remedy=f"give one of: {', '.join(names[:20])}"
            )
        baselines = {name: base for name in names if name != base} if base is not None else {}
        comparisons[task] = compare_configurations(own, margin=float(margin), baselines=baselines)
    return _frame(comparisons, has_task="task" in frame.columns, has_baseline=baseline is not None)


def _read(frame: pd.DataFrame) -> dict[str, list[ScoredRun]]:
    """Return the runs of a frame by task."""
    _check_columns(frame)
    keys = [name for name in ("task", "configuration", "seed") if name in frame.columns]
    table = frame.reset_index(drop=True)
    if "track" in frame.columns:
        twice = table.duplicated([*keys, "track"])
        if twice.any():
            raise SpecError(f"{_named(table, keys, twice)} has a track twice", remedy="give each track once")
        lacking = table["correct"].isna()
        partly = lacking & ~lacking.groupby([table[key] for key in keys], sort=False).transform("all")
        if partly.any():
            raise SpecError(
                f"{_named(table, [*keys, 'track'], partly)}: no number of correct images, unlike other tracks",
                remedy="give it for all tracks of a run, or for none if the run failed",
            )
        table = table.groupby(keys, sort=False, as_index=False)[["correct", "images"]].sum(min_count=1)
    twice = table.duplicated(keys)
    if twice.any():
        raise SpecError(
            f"{_named(table, keys, twice)} occurs twice", remedy="give one row for each configuration and seed"
        )
    _check_counts(table)
    found: dict[str, list[ScoredRun]] = {}
    for row in table.to_dict("records"):
        found.setdefault(str(row.get("task", "")), []).append(_run(row))
    return found


def _check_counts(table: pd.DataFrame) -> None:
    """Raise SpecError if the numbers of correct images are shares of them instead."""
    correct, images = (pd.to_numeric(table[name], errors="coerce") for name in ("correct", "images"))
    correct = correct.dropna()
    if correct.between(0, 1).all() and (correct % 1 != 0).any() and (images > 1).any():
        raise SpecError(
            f"the column correct holds shares, such as {correct[correct % 1 != 0].iloc[0]:g}",
            remedy="give numbers of images: multiply it by the column images",
        )


def _check_columns(frame: pd.DataFrame) -> None:
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise SpecError(f"the results have the column {twice[0]} twice", remedy="give each column once")
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing:
        raise SpecError(
            f"the results have no column {', '.join(missing)}", remedy=f"give the columns {', '.join(NEEDED)}"
        )
    if not len(frame):
        raise SpecError("the results have no rows", remedy="give one row a run")
    for name in ("task", "configuration", "seed"):
        if name in frame.columns and frame[name].isna().any():
            raise SpecError(f"the column {name} has missing values", remedy="name every run's")


def _named(table: pd.DataFrame, keys: list[str], which: "pd.Series[bool]") -> str:
    row = table[which].iloc[0]
    return ", ".join(f"{name} '{row[name]}'" for name in keys)


def _run(row: dict[Hashable, Any]) -> ScoredRun:
    name, seed = str(row["configuration"]), _seed(row["seed"])
    correct, images = _number(row, "correct", name, seed), _number(row, "images", name, seed)
    if correct is not None and images is None:
        raise SpecError(f"configuration '{name}', seed {seed}: no number of images", remedy="give how many were scored")
    if images is not None and images != math.floor(images):
        raise SpecError(f"configuration '{name}', seed {seed}: {images} images", remedy="give a whole number")
    return ScoredRun(configuration=name, seed=seed, correct=correct, images=int(images or 0))


def _seed(value: Any) -> int | str:  # noqa: ANN401 - whatever the frame holds
    """Convert whole numbers to integers, so that 1 and 1.0 are one seed, and everything else to text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return int(number) if number == math.floor(number) and not isinstance(value, str) else str(value)


def _number(row: dict[Hashable, Any], column: str, name: str, seed: int | str) -> float | None:
    """Return a count, or None if it is missing."""
    value = row[column]
    if pd.isna(value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SpecError(f"configuration '{name}', seed {seed}: {column} is {value!r}", remedy="give a number of images")
    return number


def _frame(comparisons: dict[str, Comparison], *, has_task: bool, has_baseline: bool) -> pd.DataFrame:
    types = ({"task": "object"} if has_task else {}) | COLUMNS | (GAIN_COLUMNS if has_baseline else {})
    rows = []
    for task, comparison in comparisons.items():
        rows += [{"task": task} | _row(decision) for decision in comparison.decisions]
    table = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in types.items()})
    notes = [note if not has_task else f"{task}: {note}" for task, own in comparisons.items() for note in own.notes]
    table.attrs["notes"] = list(dict.fromkeys(notes))
    return table


def _row(decision: Decision) -> dict[str, Any]:
    delta, gain = decision.delta, decision.gain
    return {
        "configuration": decision.configuration,
        "n": decision.n,
        "mean": decision.mean,
        "low": decision.low,
        "high": decision.high,
        "rank_low": decision.rank_low,
        "rank_high": decision.rank_high,
        "verdict": str(decision.verdict or Verdict.UNDECIDED),
        "delta_mean": delta.mean if delta else None,
        "delta_low": delta.low if delta else None,
        "delta_high": delta.high if delta else None,
        "delta_p_adjusted": delta.p_adjusted if delta else None,
        "seeds_needed": decision.seeds_needed,
        "gain_mean": gain.mean if gain else None,
        "gain_low": gain.low if gain else None,
        "gain_high": gain.high if gain else None,
        "gain_p_adjusted": gain.p_adjusted if gain else None,
    }
