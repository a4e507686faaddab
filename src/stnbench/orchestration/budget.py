"""What one run of a sweep may cost, and what it has cost so far: pure."""

from dataclasses import dataclass

_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """So far in this run: wall time, the sum over attempts of their time on a share of a device, and ended trials."""

    wall_s: float = 0.0
    device_s: float = 0.0
    trials: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The limits of one run; None is no limit."""

    wall_s: float | None = None
    device_hours: float | None = None
    max_trials: int | None = None

    def exceeded_by(self, spent: Spent) -> str:
        """Why the run must end; empty where it may go on."""
        if self.wall_s is not None and spent.wall_s > self.wall_s:
            return f"the budget of {self.wall_s:g} s is spent"
        if self.device_hours is not None and spent.device_s > self.device_hours * _HOUR_S:
            return f"the budget of {self.device_hours:g} device hours is spent"
        if self.max_trials is not None and spent.trials >= self.max_trials:
            return f"{spent.trials} trials have ended, as many as were asked for"
        return ""
