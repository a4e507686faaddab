"""Numbers for programs: rounded, so that the same store gives the same bytes."""

from stnbench.analysis.inference import Estimate
from stnbench.core.identity import Json

DIGITS = 6
"""Decimals of a share or a time: far below what one image of a million weighs."""

Scalar = None | bool | int | float | str


def rounded(value: float | None) -> float | None:
    """To ``DIGITS`` decimals."""
    return None if value is None else round(value, DIGITS)


def estimate_json(estimate: Estimate | None) -> dict[str, Json]:
    """An estimate as JSON values, null where there is none."""
    return {
        "n": estimate.n if estimate else 0,
        "mean": rounded(estimate.mean) if estimate else None,
        "low": rounded(estimate.low) if estimate else None,
        "high": rounded(estimate.high) if estimate else None,
        "method": estimate.method if estimate else None,
        "clipped": estimate.clipped if estimate else None,
    }


def estimate_fields(prefix: str, estimate: Estimate | None) -> dict[str, Scalar]:
    """An estimate as columns, empty where there is none."""
    return {
        f"{prefix}n": estimate.n if estimate else None,
        f"{prefix}mean": rounded(estimate.mean) if estimate else None,
        f"{prefix}low": rounded(estimate.low) if estimate else None,
        f"{prefix}high": rounded(estimate.high) if estimate else None,
        f"{prefix}method": estimate.method if estimate else None,
    }
