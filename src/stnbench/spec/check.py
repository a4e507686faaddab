"""Checks of values, with messages that name the key, the value and the remedy."""

from typing import Final

from stnbench.core.errors import SpecError

INTEGER_MAX: Final = 2**63 - 1
"""Largest whole number that databases can store; the smallest accepted one is its negative."""

_LIMITS: Final = ("at least", "at most", "above", "below", "from ", "between", "an odd")
_SHOWN_MAX: Final = 200


def require(condition: bool, key: str, value: object, remedy: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise SpecError naming the key and its value unless the condition holds.

    Args:
        condition: the condition.
        key: name of the value.
        value: the value found.
        remedy: what to write instead; or the limits alone ("at least 1"), which become a sentence.

    Raises:
        SpecError: if the condition does not hold.
    """
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN_MAX else f"{shown[:_SHOWN_MAX]}..."
        raise SpecError(f"{key} is {shown}", remedy=f"it must be {remedy}" if remedy.startswith(_LIMITS) else remedy)


def require_sizes(key: str, sizes: tuple[int, ...]) -> None:
    """Raise SpecError unless every size is at least 1."""
    require(all(size >= 1 for size in sizes), key, list(sizes), "every size is a whole number of at least 1")
