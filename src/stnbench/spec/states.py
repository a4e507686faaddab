"""The states of trials and attempts."""

from collections.abc import Iterable
from enum import StrEnum


class TrialState(StrEnum):
    """Where a trial stands; it is its attempts that run."""

    PLANNED = "planned"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    PRUNED = "pruned"

    @property
    def is_final(self) -> bool:
        """Whether no further attempt follows, unless a person asks for one."""
        return self in {TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED}


class AttemptState(StrEnum):
    """Where one execution of a trial stands.

    ``lost``: its process died or fell silent without a word. ``stopped``: a person or a budget ended the sweep.
    """

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    PRUNED = "pruned"
    LOST = "lost"
    STOPPED = "stopped"


# What to think of a spatial transformer, in one word.


class Verdict(StrEnum):
    """From good to bad; ``spec/result.py`` says when each is given.

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
