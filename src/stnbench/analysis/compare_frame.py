"""``stnbench.compare``: a leaderboard of results in a pandas frame. This module does not import torch."""

import math
from collections.abc import Hashable
from typing import Any, Final

import pandas as pd

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.verdicts import DEFAULT_MARGIN, Comparison, Decision, Verdict
from stnbench.core.errors import SpecError

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
        table = table.groupby(keys, sort=False, as_index=False)[["correct", "images"]].sum(min_count=1)
    twice = table.duplicated(keys)
    if twice.any():
        raise SpecError(
            f"{_named(table, keys, twice)} occurs twice", remedy="give one row for each configuration and seed"
        )
    found: dict[str, list[ScoredRun]] = {}
    for row in table.to_dict("records"):
        found.setdefault(str(row.get("task", "")), []).append(_run(row))
    return found


def _check_columns(frame: pd.DataFrame) -> None:
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
