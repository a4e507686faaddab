"""From a point of a sweep to its trial."""

from stnbench.config.compose import Composer
from stnbench.config.resolve import Resolved, resolve_trial
from stnbench.core.errors import SpecError
from stnbench.spec.sweep import Override, Point, SweepSpec
from stnbench.spec.trial import TrialSpec


class PointComposer:
    """Composes the points of one sweep, and keeps the notes on what had no effect."""

    def __init__(self, sweep: SweepSpec, composer: Composer) -> None:
        self._sweep = sweep
        self._composer = composer
        axes = [axis for grid in sweep.grids for axis in grid]
        self._choices = {(axis.name, choice.label): choice for axis in axes for choice in axis.values}
        self.notes: dict[str, int] = {}

    def overrides(self, point: Point) -> tuple[Override, ...]:
        """The base of the sweep, then what each label of the point stands for."""
        chosen = [override for pair in point.labels for override in self._choices[pair].overrides]
        return (*self._sweep.base, *chosen)

    def __call__(self, point: Point) -> TrialSpec:
        """The trial of a point.

        Raises: SpecError (or a kind of it) that names the sweep and the point as well.
        """
        try:
            resolved: Resolved = resolve_trial(self._composer, self.overrides(point))
        except SpecError as error:
            error.problem = f"sweep {self._sweep.name}, cell {point.label}: {error.problem}"
            raise
        for note in resolved.notes:
            self.notes[note] = self.notes.get(note, 0) + 1
        return resolved.spec
