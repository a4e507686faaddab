"""From a point of a sweep to its trial."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from stnbench.config.compose import Composer
from stnbench.config.resolve import COMMAND_LINE, Resolved, resolve_trial
from stnbench.core.errors import SpecError
from stnbench.spec.planner import SAMPLERS
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

        Raises: SpecError (or a kind of it) that names the command line, or the sweep and the point.
        """
        resolved = self.resolve(point)
        for note in resolved.notes:
            self.notes[note] = self.notes.get(note, 0) + 1
        return resolved.spec

    def resolve(self, point: Point) -> Resolved:
        """As calling it, with the notes on what had no effect at the point."""
        try:
            return resolve_trial(self._composer, self.overrides(point), said_in="")
        except SpecError as error:
            error.problem = f"{self._blamed(point)}: {error.problem}"
            raise

    def _blamed(self, point: Point) -> str:
        """Where to look for what is wrong with a point: the command line, if the point is fine without it."""
        said = [override for override in self._sweep.overrides if override in self._sweep.base]
        if said:
            base = tuple(override for override in self._sweep.base if override not in said)
            without = PointComposer(dataclasses.replace(self._sweep, base=base), self._composer)
            with contextlib.suppress(SpecError):
                resolve_trial(self._composer, without.overrides(point))
                return COMMAND_LINE
        return f"sweep {self._sweep.name}, configuration {point.label}"


def require_effects(sweep: SweepSpec, composer: Composer) -> None:
    """Refuse overrides of the command line that change no configuration.

    A value that holds without being given changes nothing either, and is none of them: it asks for what is there.

    Raises:
        SpecError: naming the override and, where it is known, why it has no effect.
    """
    for override in sweep.overrides:
        if override in sweep.base:
            base = tuple(said for said in sweep.base if said != override)
            without = PointComposer(dataclasses.replace(sweep, base=base), composer)
            _require_effect(override, PointComposer(sweep, composer), without, composer, _points(sweep))


def require_effect(override: Override, overrides: Sequence[Override], composer: Composer) -> None:
    """As ``require_effects``, of one override of a trial."""
    sweep = SweepSpec(name="", question="", base=tuple(overrides), overrides=tuple(overrides))
    without = dataclasses.replace(sweep, base=tuple(said for said in overrides if said != override))
    points = PointComposer(sweep, composer), PointComposer(without, composer)
    _require_effect(override, *points, composer, [Point(labels=())])


def _require_effect(
    override: Override, asked: PointComposer, without: PointComposer, composer: Composer, points: Iterable[Point]
) -> None:
    notes: tuple[str, ...] = ()
    for point in points:
        with_it, without_it = asked.overrides(point), without.overrides(point)
        try:
            before = without.resolve(point)
        except SpecError:
            return  # it makes possible what is not without it
        after = asked.resolve(point)
        if after.spec != before.spec or composer.compose(with_it) == composer.compose(without_it):
            return
        notes = notes or tuple(note for note in after.notes if note not in before.notes)
    reason = notes[0] if notes else "nothing that is configured here reads it"
    raise SpecError(f"{COMMAND_LINE}: {override} has no effect", remedy=f"leave it out: {reason}")


def _points(sweep: SweepSpec) -> Iterator[Point]:
    """The points of a sweep, of a range that a search draws from its first value alone."""
    if sweep.planner.kind not in SAMPLERS:
        yield from sweep.points()
        return
    for grid in sweep.grids:
        firsts = [
            axis if axis.span is None else dataclasses.replace(axis, choices=axis.values[:1], span=None)
            for axis in grid
        ]
        yield from dataclasses.replace(sweep, axes=tuple(firsts), more_axes=()).points()
