"""Numbers and names as people read them, the same in every format."""

import unicodedata

from stnbench.analysis.inference import T_METHOD, WILSON_METHOD, Estimate
from stnbench.core.command import one_line
from stnbench.report.board import Counted, Provenance

MISSING = "\u2013"
"""Stands where there is no number."""

METHOD_LETTERS = {T_METHOD: "t", WILSON_METHOD: "W"}
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def clean(text: str) -> str:
    """The text on one line, without characters that steer a terminal or turn the direction of writing."""
    if text.isprintable():  # most texts are, and pages have a hundred thousand
        return one_line(text)
    kept = "".join(" " if letter.isspace() else letter for letter in text)
    return one_line("".join(letter for letter in kept if unicodedata.category(letter)[0] != "C"))


def decimals_for(images: int | None) -> int:
    """Decimals of a percentage that so many images justify: one image in 1,000 weighs 0.1 points."""
    return 2 if images is None or images >= 1000 else 1


def percent(share: float | None, decimals: int) -> str:
    """A share in [0, 1] in percent, without the sign."""
    return MISSING if share is None else f"{100 * share:.{decimals}f}"


def interval(estimate: Estimate | None, decimals: int) -> str:
    """``[97.12, 99.78]`` in percent; missing where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return MISSING
    return f"[{percent(estimate.low, decimals)}, {percent(estimate.high, decimals)}]"


def score(estimate: Estimate | None, decimals: int) -> str:
    """``98.45 [97.12, 99.78]`` in percent."""
    return MISSING if estimate is None else f"{percent(estimate.mean, decimals)} {interval(estimate, decimals)}"


def points(difference: Estimate | None, decimals: int) -> str:
    """A difference of shares in percentage points, with signs: ``+1.23 [-0.51, +2.97]``."""
    if difference is None:
        return MISSING
    mean = _signed(difference.mean, decimals)
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} [{_signed(difference.low, decimals)}, {_signed(difference.high, decimals)}]"


def method(estimate: Estimate | None) -> str:
    """The method of an interval in one letter; the notes of a leaderboard say what it stands for."""
    return MISSING if estimate is None else METHOD_LETTERS.get(estimate.method, estimate.method)


def count(number: float | None) -> str:
    """A large number to three digits: ``1.24 M``."""
    if number is None:
        return MISSING
    rounded = float(f"{number:.3g}")
    for size, unit in _UNITS:
        if rounded >= size:
            scaled = rounded / size
            return f"{scaled:.{max(0, 2 - _digits_before(scaled))}f} {unit}"
    return f"{number:.0f}"


def seconds(duration_s: float | None) -> str:
    """Seconds to three digits."""
    if duration_s is None:
        return MISSING
    rounded = float(f"{duration_s:.3g}")
    return f"{rounded:.{max(0, 2 - _digits_before(rounded))}f}"


def provenance_lines(known: Provenance) -> list[tuple[str, str]]:
    """What the numbers were made with, as pairs of a heading and a text."""
    return [
        ("Command", known.command),
        ("Seeds", ", ".join(map(str, known.seeds)) or MISSING),
        ("Commit", _counted(known.commits)),
        ("Device", _counted(known.devices)),
        ("Platform", _counted(known.platforms)),
        ("Versions", _counted(known.versions)),
        ("Data", _counted(known.datasets)),
    ]


def _counted(values: tuple[Counted, ...]) -> str:
    if len(values) == 1:
        return values[0].value
    return (
        "; ".join(f"{item.value} ({item.trials} {'trial' if item.trials == 1 else 'trials'})" for item in values)
        or MISSING
    )


def _signed(share: float, decimals: int) -> str:
    text = f"{100 * share:+.{decimals}f}"
    return f"{0:.{decimals}f}" if float(text) == 0 else text


def _digits_before(number: float) -> int:
    """Digits before the decimal point beyond the first; none below ten."""
    return len(str(int(number))) - 1
