"""Ending trials whose spatial transformer has gone wrong."""

from typing_extensions import override

from stnbench.planning.base import Progress
from stnbench.planning.pruning import Judge
from stnbench.spec.planner import HealthPrunerSpec


class HealthJudge(Judge):
    """Looks at the verdicts on each trial's transformers, by itself."""

    def __init__(self, spec: HealthPrunerSpec) -> None:
        self._spec = spec

    @override
    def expect(self, trial_id: str, group: str, epochs: int) -> None:
        del trial_id, group, epochs

    @override
    def is_hopeless(self, progress: Progress) -> bool:
        if progress.epoch <= self._spec.warmup_epochs:
            return False
        return any(health.verdict in self._spec.verdicts for health in progress.health)
