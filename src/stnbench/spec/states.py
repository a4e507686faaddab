"""The states of trials and attempts."""

from collections.abc import Iterable
from enum import StrEnum


class TrialState(StrEnum):
    """State of a trial, as given by its attempts."""

    PLANNED = "planned"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    PRUNED = "pruned"

    @property
    def is_final(self) -> bool:
        """Return whether no further attempt follows unless a user asks for one."""
        return self in {TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED}


class AttemptState(StrEnum):
    """State of one execution of a trial.

    ``lost``: its process died or stopped responding without a report. ``stopped``: a user or a budget ended the sweep.
    """

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    PRUNED = "pruned"
    LOST = "lost"
    STOPPED = "stopped"


# Verdicts on spatial transformers.


class Verdict(StrEnum):
    """Verdict on a spatial transformer, from good to bad; ``spec/result.py`` defines when each is given.

    ``healthy``: it transforms images differently, and that helps. ``unhelpful``: it transforms them differently, and no
    benefit is measurable. ``identity``: it does nothing. ``constant``: it does the same to every image. ``collapsed``:
    it shows the classifier almost nothing of the image. ``diverged``: its output is not finite.
    """

    HEALTHY = "healthy"
    UNHELPFUL = "unhelpful"
    IDENTITY = "identity"
    CONSTANT = "constant"
    COLLAPSED = "collapsed"
    DIVERGED = "diverged"

    @property
    def severity(self) -> int:
        """Return the severity from 0 for healthy to 5 for diverged, for plots and tables that need numbers."""
        return list(Verdict).index(self)


def worst(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """Return the worst of several verdicts; None if there is none, as without a transformer that learns."""
    return max((verdict for verdict in verdicts if verdict is not None), key=lambda it: it.severity, default=None)
