"""Limits of cost: configurations beyond them are left out when they are planned, each with its reason."""

from collections.abc import Callable
from dataclasses import dataclass, field

from stnbench.core.errors import BeyondLimitsError, InfeasibleError
from stnbench.planning.base import ComposePoint
from stnbench.spec.sweep import LimitsSpec, Point
from stnbench.spec.trial import TrialSpec

Measure = Callable[[TrialSpec], dict[str, float]]
"""A function that returns costs by the names of ``LimitsSpec``; raises InfeasibleError if no network can be built."""


@dataclass(kw_only=True, slots=True)
class LimitedCompose:
    """A composer of points that refuses those beyond the limits; ``refused`` holds their labels and reasons.

    Configurations that cannot be built pass, because they are reported when they are planned.
    """

    compose: ComposePoint
    limits: LimitsSpec
    measure: Measure
    refused: dict[str, str] = field(default_factory=dict)
    _reasons: dict[str, str] = field(default_factory=dict)

    def __call__(self, point: Point) -> TrialSpec:
        """Return the trial of a point. Errors of composing are passed on.

        Raises:
            BeyondLimitsError: if the configuration costs too much.
        """
        spec = self.compose(point)
        if spec.cell_id not in self._reasons:
            try:
                self._reasons[spec.cell_id] = self.limits.exceeded_by(**self.measure(spec))
            except InfeasibleError:
                self._reasons[spec.cell_id] = ""
        reason = self._reasons[spec.cell_id]
        if reason:
            self.refused[point.label] = reason
            raise BeyondLimitsError(f"{point.label}: {reason}", remedy="raise the limits of the sweep")
        return spec


def measure_trial(spec: TrialSpec) -> dict[str, float]:
    """Return the exact costs of a trial's network, computed before it runs, and its estimated GPU memory in MiB.

    Raises:
        InfeasibleError: if no network can be built.
    """
    from stnbench.trials.assess import assess_cost, estimate_gpu_mib  # imports torch

    cost = assess_cost(spec)
    return {"parameters": cost.parameters, "flops": cost.flops, "memory_mib": estimate_gpu_mib(spec)}
