"""Planners that add seeds: racing, and until every comparison is decided."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from stnbench.analysis.comparison import compare_configurations
from stnbench.analysis.effects import LEVEL
from stnbench.analysis.fitted import ScoredRun
from stnbench.analysis.verdicts import Comparison, Decision, Verdict
from stnbench.planning import ComposePoint, Observation, Planner, grid_configurations, scored_run, with_seeds
from stnbench.spec.planner import RacingPlannerSpec, UntilDecidedPlannerSpec
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.tables import PlannedTrial


class AskedTrials:
    """Trials proposed in rounds, each of which ends with its last result."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, int]] = {}
        self._unanswered: set[str] = set()

    def __len__(self) -> int:
        """Return the number of trials of all rounds."""
        return len(self._places)

    @property
    def is_open(self) -> bool:
        """Return whether a trial of the last round is not answered."""
        return bool(self._unanswered)

    def add(self, trials: Sequence[PlannedTrial]) -> None:
        """Begin a round with these trials."""
        self._unanswered = {trial.spec.trial_id for trial in trials}
        self._places |= {trial.spec.trial_id: (trial.spec.config_id, trial.spec.seed) for trial in trials}

    def answer(self, observation: Observation) -> tuple[str, int] | None:
        """Take an answer, and return the configuration's id and the seed.

        It is None for a trial that goes on, that was not proposed, or that has a result already.
        """
        if observation.trial_id not in self._unanswered or not observation.state.is_final:
            return None
        self._unanswered.remove(observation.trial_id)
        return self._places[observation.trial_id]


# Racing: seeds are added only to configurations that may still be the best.


class RacingPlanner(Planner):
    """A planner that adds a seed in each round to the configurations that may still be the best.

    It begins with every configuration and the sweep's seeds. After each round every configuration is compared with the
    best as in the leaderboard (seeds as blocks, simultaneous for all pairs of configurations, within each choice of
    ``within``); a configuration that is ``lower`` leaves the race for good, and so does one that fails or is pruned. A
    baseline stays as long as one of the configurations whose gain is measured against it. The race is over when one
    configuration is left.

    There are at most as many comparisons as rounds after which seeds may be added. Each is made at 5 % over that number
    (Bonferroni), so that all of them together keep the error rate of one comparison, whatever their dependence.
    Boundaries that use this dependence (Pocock 1977; O'Brien and Fleming 1979) would decide slightly earlier, but are
    made for two arms and known variances.

    A round begins when the one before is answered, because configurations are compared on common seeds. The state
    depends only on the answers, so a race that receives them again continues from where it was.
    """

    def __init__(self, sweep: SweepSpec, spec: RacingPlannerSpec, compose: ComposePoint) -> None:
        self._sweep = sweep
        self._spec = spec
        self._compose = compose
        self._configs: dict[str, PlannedTrial] | None = None
        self._racing: dict[str, PlannedTrial] = {}
        self._scores: dict[str, dict[int, float]] = {}
        self._asked = AskedTrials()
        self._looks = max(spec.max_seeds - len(sweep.seeds), 1)
        self._rounds = self._seeds()
        self._is_over = False

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        if self._is_over or self._asked.is_open:
            return ()
        if self._configs is None:
            self._configs = {
                config.spec.config_id: config for config in grid_configurations(self._sweep, self._compose)
            }
            self._racing = dict(self._configs)
        else:
            self._drop_lower()
        seeds = next(self._rounds, ())
        asked = with_seeds(self._racing.values(), seeds)
        limit = self._spec.trials
        if not asked or (len(self._asked) and limit is not None and len(self._asked) + len(asked) > limit):
            self._is_over = True
            return ()
        self._asked.add(asked)
        return asked

    @override
    def tell(self, observation: Observation) -> None:
        place = self._asked.answer(observation)
        if place is None:
            return
        config_id, seed = place
        accuracy = observation.validation_accuracy
        if observation.state is TrialState.COMPLETE and accuracy is not None:
            self._scores.setdefault(config_id, {})[seed] = accuracy
        else:
            self._racing.pop(config_id, None)

    @property
    @override
    def is_exhausted(self) -> bool:
        return self._is_over

    def _seeds(self) -> Iterator[tuple[int, ...]]:
        """Yield the seeds of each round: the sweep's, then one at a time."""
        yield self._sweep.seeds
        first = max(self._sweep.seeds) + 1
        for seed in range(first, first + self._spec.max_seeds - len(self._sweep.seeds)):
            yield (seed,)

    def _drop_lower(self) -> None:
        """Drop the configurations that cannot be best, with their baselines, and groups with one configuration left."""
        groups: dict[str, dict[str, Mapping[int, float]]] = {}
        for config_id, scores in self._scores.items():
            groups.setdefault(self._group(config_id), {})[config_id] = scores
        staying: set[str] = set()
        for configs in groups.values():
            candidates = _may_be_best(configs, level=LEVEL / self._looks) & self._racing.keys()
            if len(candidates) > 1:
                staying |= candidates
        baselines = {self._racing[config_id].spec.baseline().config_id for config_id in staying}
        self._racing = {key: config for key, config in self._racing.items() if key in staying | baselines}

    def _group(self, config_id: str) -> str:
        configs = self._configs or {}
        return dict(configs[config_id].point.labels).get(self._sweep.within, "")


def _may_be_best(configs: Mapping[str, Mapping[int, float]], *, level: float) -> set[str]:
    """Return the configurations that are not lower than the best, by tests at this level for all pairs together."""
    runs = [
        scored_run(config_id, seed, share) for config_id, scores in configs.items() for seed, share in scores.items()
    ]
    decisions = compare_configurations(runs, level=level).decisions
    return {item.configuration for item in decisions if item.verdict is not Verdict.LOWER}


# Until decided: seeds are added to configurations without a verdict, the cheapest verdicts first.


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A configuration that gets further seeds; ``cost`` is the expected cost of its verdict (inf if out of reach)."""

    configuration: str
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The configurations that get further seeds, the cheapest verdict first; if there are none, ``reason`` says why."""

    wanted: tuple[Wanted, ...] = ()
    reason: str = ""


def choose(
    comparison: Comparison, *, seeds_run: Mapping[str, int], trial_cost: Mapping[str, float], max_seeds: int
) -> Choice:
    """Choose the configurations that get further seeds after a comparison. The choice is deterministic.

    A configuration is decided against the best one, so both need seeds: the cost of a verdict is that of the trials
    that either lacks to the number of seeds that decides it with a probability of 80 % (``seeds_needed``). Verdicts out
    of reach of ``max_seeds`` come last.

    Args:
        comparison: at the level of one look.
        seeds_run: the number of seeds that each configuration has run.
        trial_cost: the device time or other cost of one trial of each configuration, in any unit.
        max_seeds: the largest number of seeds of a configuration.
    """
    best = comparison.best
    undecided = [item for item in comparison.decisions if item.verdict is Verdict.UNDECIDED]
    if best is None:
        return Choice(reason="no configuration has a score")
    if not undecided:
        return Choice(reason="every configuration has a verdict")

    def lacks(name: str) -> bool:
        return seeds_run[name] < max_seeds

    def cost(item: Decision) -> float:
        needed = item.seeds_needed
        if needed is None or needed > max_seeds:
            return math.inf
        names = (item.configuration, best.configuration)
        return sum(max(needed - seeds_run[name], 0) * trial_cost[name] for name in names)

    costs = {item.configuration: cost(item) for item in undecided}
    costs[best.configuration] = min(costs.values())
    # At equal cost (such as out of reach) the best goes first, which all need, and then the cheaper trial.
    order = sorted(costs, key=lambda name: (costs[name], name != best.configuration, trial_cost[name], name))
    wanted = tuple(Wanted(configuration=name, cost=costs[name]) for name in order if lacks(name))
    if not wanted:
        return Choice(reason=f"{len(undecided)} configurations are undecided with {max_seeds} seeds, the most allowed")
    return Choice(wanted=wanted)


class UntilDecidedPlanner(Planner):
    """A planner that adds seeds, look by look, to the configurations without a verdict.

    It begins with every configuration and the first seeds. The looks are planned before the first trial: each has its
    number of seeds (``UntilDecidedPlannerSpec.look_seeds``). At each, all configurations are compared as in the
    leaderboard, at 5 % over the number of planned looks, so that all looks together keep the error rate of one
    comparison, whatever their dependence (Bonferroni). Pocock (1977) has equal levels as well, and spends less on them
    for two arms and equal steps. The undecided configurations, and the best one, run with the seeds of the next look.

    A look begins when all trials before it are answered. The state depends only on the answers, so a planner that
    receives them again continues from where it was. The cost of a trial is its FLOPs, because durations would change
    from run to run.
    """

    def __init__(self, sweep: SweepSpec, spec: UntilDecidedPlannerSpec, compose: ComposePoint) -> None:
        self._sweep = sweep
        self._spec = spec
        self._compose = compose
        self._looks = spec.look_seeds(len(sweep.seeds))
        further = range(max(sweep.seeds) + 1, max(sweep.seeds) + 1 + self._looks[-1])
        self._seeds = (*sweep.seeds, *further)[: self._looks[-1]]
        self._looked = 0
        self._configs: dict[str, PlannedTrial] = {}
        self._run: dict[str, int] = {}
        self._runs: dict[str, list[ScoredRun]] = {}
        self._cost: dict[str, float] = {}
        self._pruned: set[str] = set()
        self._asked = AskedTrials()
        self._is_over = False
        self.reason = ""
        """Why the planner ended; empty before."""

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        if self._is_over or self._asked.is_open:
            return ()
        if not self._configs:
            self._configs = {
                config.spec.config_id: config for config in grid_configurations(self._sweep, self._compose)
            }
            self._run = dict.fromkeys(self._configs, self._looks[0])
            # Seed by seed, so that a sweep that is stopped early has run every configuration.
            return self._ask([(name, seed) for seed in self._seeds[: self._looks[0]] for name in self._configs])
        asked = self._ask(self._further())
        self._is_over = not asked
        return asked

    @override
    def tell(self, observation: Observation) -> None:
        place = self._asked.answer(observation)
        if place is None:
            return
        config_id, seed = place
        accuracy = observation.validation_accuracy
        if observation.state is TrialState.PRUNED:
            self._pruned.add(config_id)
        if observation.state is not TrialState.COMPLETE or accuracy is None:
            return
        # The comparison detects collapsed runs, as for the leaderboard.
        self._runs.setdefault(config_id, []).append(scored_run(config_id, seed, accuracy))
        self._cost[config_id] = float((observation.flops or 1) * self._configs[config_id].spec.training.epochs)

    @property
    @override
    def is_exhausted(self) -> bool:
        return self._is_over

    def _ask(self, places: Sequence[tuple[str, int]]) -> list[PlannedTrial]:
        asked = [with_seeds([self._configs[config_id]], [seed])[0] for config_id, seed in places]
        self._asked.add(asked)
        return asked

    def _further(self) -> list[tuple[str, int]]:
        """Return the configurations and seeds to run before the next look, the cheapest verdict first."""
        choices = [self._look(names) for names in self._groups()]
        wanted = sorted((item for choice in choices for item in choice.wanted), key=lambda item: item.cost)
        self._looked += 1
        if not wanted or self._looked == len(self._looks):
            ends = dict.fromkeys(choice.reason for choice in choices if choice.reason)
            self.reason = "; ".join(ends) or "all planned looks are taken"
            return []
        found: list[tuple[str, int]] = []
        for item in wanted:
            own = self._seeds[self._run[item.configuration] : self._looks[self._looked]]
            if self._spec.trials is not None and len(self._asked) + len(found) + len(own) > self._spec.trials:
                self.reason = f"{self._spec.trials} trials are the most allowed"
                break
            if item.configuration not in self._pruned:
                found += [(item.configuration, seed) for seed in own]
                self._run[item.configuration] = self._looks[self._looked]
        return found

    def _look(self, names: Sequence[str]) -> Choice:
        comparison = compare_configurations(
            [run for name in names for run in self._runs.get(name, ())],
            margin=self._sweep.margin / 100,
            level=LEVEL / len(self._looks),
        )
        return choose(comparison, seeds_run=self._run, trial_cost=self._cost, max_seeds=self._looks[-1])

    def _groups(self) -> list[list[str]]:
        groups: dict[str, list[str]] = {}
        for name, config in self._configs.items():
            groups.setdefault(dict(config.point.labels).get(self._sweep.within, ""), []).append(name)
        return list(groups.values())
