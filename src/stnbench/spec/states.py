"""The states of trials and attempts."""

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
