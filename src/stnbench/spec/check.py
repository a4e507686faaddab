"""Checks of values, with messages that name the key, the value and the remedy."""

from stnbench.core.errors import SpecError


def require(condition: bool, key: str, value: object, remedy: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise SpecError naming the key and its value unless the condition holds."""
    if not condition:
        raise SpecError(f"{key} is {value!r}", remedy=remedy)


def require_sizes(key: str, sizes: tuple[int, ...]) -> None:
    """Raise SpecError unless every size is at least 1."""
    require(all(size >= 1 for size in sizes), key, list(sizes), "every size is a whole number of at least 1")
