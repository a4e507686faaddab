"""What to think of a spatial transformer, in one word."""

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """From good to bad; ``spec/health.py`` says when each is given.

    ``healthy``: it treats images differently, and that helps. ``unhelpful``: it treats them differently, and no help of
    it can be seen. ``identity``: it does nothing. ``constant``: it does the same to every image. ``collapsed``: it
    shows the classifier next to nothing of the image. ``diverged``: what it does is no finite number.
    """

    HEALTHY = "healthy"
    UNHELPFUL = "unhelpful"
    IDENTITY = "identity"
    CONSTANT = "constant"
    COLLAPSED = "collapsed"
    DIVERGED = "diverged"

    @property
    def severity(self) -> int:
        """From 0 for healthy to 5 for diverged, for where only numbers can be shown."""
        return list(Verdict).index(self)


def worst(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """The worst of several verdicts; None where there is none, as without a transformer that learns."""
    return max((verdict for verdict in verdicts if verdict is not None), key=lambda it: it.severity, default=None)
