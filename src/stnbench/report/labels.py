"""Labels that name the sizes that ran: ``19,19,13 (150,150,100 / 8)`` where a width divided the channel counts."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Final

from stnbench.spec.sweep import LABEL_SEPARATOR, Labels
from stnbench.spec.trial import TrialSpec

Sizes = tuple[int, ...]

_SIZES: Final = re.compile(r"\d+(?:,\d+)+")
_PLACE: Final = re.compile(r"locnet(\d)")
_DIVISORS: Final = (2, 4, 8, 16, 32, 64, *(number for number in range(3, 64) if number & (number - 1)))
"""What a width may divide by; powers of two first, for small sizes fit several: 20 / 8 and 20 / 7 both round to 3."""

_FACTORS: Final = (1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)


def sized_label(label: str, axes: Labels, spec: TrialSpec) -> str:
    """A configuration's label with the sizes that its networks have, beside those that its sweep names.

    Args:
        label: as the sweep has it.
        axes: the names of its axes with the labels there.
        spec: what ran.
    """
    names = {own: axis for axis, own in axes}
    parts = [_sized(part, names.get(part, ""), spec) for part in label.split(LABEL_SEPARATOR)]
    return LABEL_SEPARATOR.join(parts)


def _sized(part: str, axis: str, spec: TrialSpec) -> str:
    if not _SIZES.fullmatch(part):
        return part
    named = tuple(map(int, part.split(",")))
    found = list(_sizes_of(axis, spec))
    if named in found:
        return part
    scaled = next((text for real in found if (text := _scaled(named, real))), "")
    return f"{scaled[0]} ({part} {scaled[1]})" if scaled else part


def _sizes_of(axis: str, spec: TrialSpec) -> Iterator[Sizes]:
    """The sizes that an axis may have set: those of a place it names, or of all networks."""
    place = _PLACE.search(axis)
    for placed in spec.transformers:
        sizes = getattr(placed.locnet, "sizes", None)
        if sizes and (place is None or placed.place == int(place[1])):
            yield tuple(sizes)
    if place is None:
        yield tuple(getattr(spec.network, "sizes", ()))


def _scaled(named: Sizes, real: Sizes) -> tuple[str, str] | None:
    """The sizes as text and what made them of the named ones; None where no width did."""
    if len(named) != len(real):
        return None
    text = ",".join(map(str, real))
    for divisor in _DIVISORS:
        if _times(named, 1 / divisor) == real:
            return text, f"/ {divisor}"
    ratio = max(real) / max(named)
    for factor in (*_FACTORS, round(ratio, 2)):
        if factor > 0 and _times(named, factor) == real:
            return text, f"x {factor:g}"
    return None


def _times(sizes: Iterable[int], width: float) -> Sizes:
    """As a width multiplies channel counts when a trial is composed."""
    return tuple(max(1, math.floor(size * width + 0.5)) for size in sizes)
