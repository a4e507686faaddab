"""What pausing trials and going on from their checkpoints finds, beside ASHA, in simulated searches.

All searches have equal device time. Run ``python benchmarks/multi_fidelity.py``; it trains nothing and writes
``benchmarks/multi_fidelity.md``. A search draws configurations with learning curves and trains them on four slots, an
epoch of each slot at a time, until its device time is spent. All ways see the same curves in the same order, with the
same noise. They are:

- *to the end*: every configuration is trained for all epochs.
- *ASHA, ends*: ``pruner: asha``, which is Optuna's: what is not among the best third of those that reached a rung so
  far ends there, and never goes on. In some searches each decision is also asked of ``stnbench.planning.build``.
- *ASHA, pauses*: asynchronous successive halving as published (Li et al. 2020): every trial pauses at its rung, and a
  free slot takes the best paused one that is now among the best third of its rung, from the highest rung down, or else
  a new configuration. A trial goes on from its checkpoint.
- *`pruner: freeze_thaw`*: the shipped judge, whose trials do not pause where they may go on at once.
- *ASHA, starts again*: the same, without checkpoints: a trial that goes on trains its first epochs again.
"""

import argparse
import bisect
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.planning import Observation, Progress
from stnbench.planning.build import Judge, asha, freeze_thaw
from stnbench.spec.planner import AshaPrunerSpec, FreezeThawPrunerSpec
from stnbench.spec.result import TrialState

OUT: Final = Path(__file__).parent / "multi_fidelity.md"
EPOCHS: Final = 27
FACTOR: Final = 3
SLOTS: Final = 4
POOL: Final = 400
BUDGETS: Final = (4, 10, 30)
"""Device time, in trainings of all epochs."""

LOADING: Final = 1
"""Epochs that a slot loses when a trial goes on from its checkpoint; on the safe side."""

CHECKED: Final = 5
"""Searches in which the decisions to end are compared with those of ``stnbench.planning.build``."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Accuracies seen after each epoch (configurations, epochs); those at the end, without noise (configurations,)."""

    seen: Floats
    final: Floats


def draw_curves(rng: np.random.Generator, *, crossing: bool) -> Curves:
    """Draw power laws that end in 80 to 98 %; where they cross, what ends high may begin slowly."""
    end = 0.98 - 0.18 * rng.beta(1.2, 2.5, POOL)
    rate = rng.uniform(0.3, 1.3, POOL)
    if crossing:
        rate = np.clip(1.6 - 12 * (end - 0.85) + rng.normal(0, 0.25, POOL), 0.25, 1.6)
    epochs = np.arange(1, EPOCHS + 1)
    curves = end[:, None] - rng.uniform(0.2, 0.5, POOL)[:, None] * epochs ** -rate[:, None]
    noise = 0.004 * rng.standard_normal((POOL, EPOCHS))
    return Curves(seen=curves + noise, final=curves[:, -1])


class Way(ABC):
    """A rule that gives free slots their work. A trial is a configuration and its number of trained epochs."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves
        self._fresh = iter(range(POOL))
        self.reached: dict[int, int] = {}

    def start(self) -> tuple[int, int] | None:
        """Return a configuration for a free slot and the epochs lost before it trains; None if none is left."""
        fresh = next(self._fresh, None)
        return None if fresh is None else (fresh, 0)

    def trained(self, configuration: int) -> bool:
        """Count an epoch, and return whether the slot goes on with the configuration."""
        epoch = self.reached[configuration] = self.reached.get(configuration, 0) + 1
        return epoch < EPOCHS and self._goes_on(
            configuration, epoch, float(self._curves.seen[configuration, epoch - 1])
        )

    @abstractmethod
    def _goes_on(self, configuration: int, epoch: int, accuracy: float) -> bool:
        """Return whether a configuration that is not at its end is trained further at once."""

    def found(self) -> float:
        """Return the final accuracy of the best seen at the highest epoch that any has reached."""
        most = max(self.reached.values())
        top = [one for one, epochs in self.reached.items() if epochs == most]
        return float(self._curves.final[max(top, key=lambda one: self._curves.seen[one, most - 1])])


class ToTheEnd(Way):
    """Every configuration is trained for all epochs."""

    def _goes_on(self, configuration: int, epoch: int, accuracy: float) -> bool:
        del configuration, epoch, accuracy
        return True


class Ends(Way):
    """``pruner: asha``: who is not among the best third at a rung ends."""

    def __init__(self, curves: Curves, judge: Judge | None = None) -> None:
        super().__init__(curves)
        self._rungs: dict[int, list[float]] = {}
        self._judge = judge
        self.differs = 0

    def start(self) -> tuple[int, int] | None:
        """Return a new configuration, of which the shipped judge is told."""
        found = super().start()
        if self._judge is not None and found is not None:
            self._judge.expect(str(found[0]), "", EPOCHS)
        return found

    def _goes_on(self, configuration: int, epoch: int, accuracy: float) -> bool:
        goes_on = True
        if epoch in _rungs():
            values = self._rungs.setdefault(epoch, [])
            bisect.insort(values, accuracy)
            goes_on = accuracy >= values[-max(len(values) // FACTOR, 1)]
        if self._judge is not None:
            progress = Progress(trial_id=str(configuration), epoch=epoch, epochs=EPOCHS, validation_accuracy=accuracy)
            self.differs += self._judge.is_hopeless(progress) == goes_on
        return goes_on


class Pauses(Way):
    """Trials pause at each rung, and the best third of a rung goes on, from a checkpoint or from the start."""

    def __init__(self, curves: Curves, *, from_checkpoint: bool) -> None:
        super().__init__(curves)
        self._from_checkpoint = from_checkpoint
        self._rungs: dict[int, list[tuple[float, int]]] = {rung: [] for rung in _rungs()}
        self._went_on: dict[int, set[int]] = {rung: set() for rung in _rungs()}

    def start(self) -> tuple[int, int] | None:
        """Return the best paused trial that may go on, from the highest rung down, or else a new configuration."""
        for rung in reversed(_rungs()):
            best = self._rungs[rung][::-1][: len(self._rungs[rung]) // FACTOR]
            for _, configuration in best:
                if configuration not in self._went_on[rung]:
                    self._went_on[rung].add(configuration)
                    return configuration, LOADING if self._from_checkpoint else rung
        return super().start()

    def _goes_on(self, configuration: int, epoch: int, accuracy: float) -> bool:
        if epoch not in _rungs():
            return True
        bisect.insort(self._rungs[epoch], (accuracy, configuration))
        return False


class Shipped(Way):
    """``pruner: freeze_thaw``, with the judge of ``stnbench.planning.build``."""

    def __init__(self, curves: Curves) -> None:
        super().__init__(curves)
        self._judge = freeze_thaw(FreezeThawPrunerSpec(min_epochs=1, reduction_factor=FACTOR), "search")
        self._going: deque[int] = deque()

    def start(self) -> tuple[int, int] | None:
        """Return the first paused trial that goes on, or else a new configuration."""
        self._going.extendleft(reversed([int(one) for one in self._judge.thawed(is_idle=False)]))
        if self._going:
            return self._going.popleft(), LOADING
        found = super().start()
        if found is not None:
            self._judge.expect(str(found[0]), "", EPOCHS)
        return found

    def _goes_on(self, configuration: int, epoch: int, accuracy: float) -> bool:
        trial_id = str(configuration)
        progress = Progress(trial_id=trial_id, epoch=epoch, epochs=EPOCHS, validation_accuracy=accuracy)
        pauses = self._judge.is_hopeless(progress)
        if pauses:
            pruned = Observation(trial_id=trial_id, state=TrialState.PRUNED, validation_accuracy=accuracy)
            self._judge.end(pruned)
        return not pauses


def _rungs() -> tuple[int, ...]:
    return (1, 3, 9)


def search(way: Way, budget: int) -> None:
    """Give a way four slots until their device time is spent; trainings that it cuts off count as far as they came."""
    slots: list[tuple[int, int] | None] = [None] * SLOTS
    for _ in range(budget * EPOCHS // SLOTS):
        for place, work in enumerate(slots):
            now = way.start() if work is None else work
            if now is None:
                continue
            configuration, lost = now
            if lost:
                slots[place] = (configuration, lost - 1)
            else:
                slots[place] = (configuration, 0) if way.trained(configuration) else None


WAYS: Final[dict[str, Callable[[Curves], Way]]] = {
    "to the end": ToTheEnd,
    "ASHA, ends": Ends,
    "ASHA, pauses": lambda curves: Pauses(curves, from_checkpoint=True),
    "`pruner: freeze_thaw`": Shipped,
    "ASHA, starts again": lambda curves: Pauses(curves, from_checkpoint=False),
}


def rows(draws: int, *, crossing: bool) -> Iterator[str]:
    """Yield a row of the table for each budget and way."""
    for budget in BUDGETS:
        lacking: dict[str, list[float]] = {name: [] for name in WAYS}
        counts: dict[str, list[tuple[int, int]]] = {name: [] for name in WAYS}
        for draw in range(draws):
            curves = draw_curves(np.random.default_rng([draw, crossing]), crossing=crossing)
            for name, make in WAYS.items():
                way = make(curves)
                search(way, budget)
                lacking[name].append(100 * (float(curves.final.max()) - way.found()))
                counts[name].append((len(way.reached), sum(epochs == EPOCHS for epochs in way.reached.values())))
        base = np.array(lacking["ASHA, ends"])
        for name, values in lacking.items():
            own, paired = np.array(values), np.array(values) - base
            tried, whole = np.mean(counts[name], axis=0)
            difference = "" if name == "ASHA, ends" else f"{paired.mean():+.2f} ± {_half(paired):.2f}"
            lacks = f"{own.mean():.2f} ± {_half(own):.2f}"
            yield f"| {budget} | {name} | {tried:.0f} | {whole:.1f} | {lacks} | {difference} |"


def _half(values: Floats) -> float:
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def differences(searches: int) -> int:
    """Return the number of decisions of ``pruner: asha`` that differ from those simulated."""
    found = 0
    for draw in range(searches):
        curves = draw_curves(np.random.default_rng([draw, True]), crossing=True)
        way = Ends(curves, asha(AshaPrunerSpec(min_epochs=1, reduction_factor=FACTOR), f"search {draw}"))
        search(way, BUDGETS[0])
        found += way.differs
    return found


def render(draws: int) -> Iterator[str]:
    """Yield the lines of the table, with how it was made."""
    yield "# Searches that pause and go on"
    yield ""
    yield (
        f"`python benchmarks/multi_fidelity.py`: {draws:,} simulated searches each, {EPOCHS} epochs, rungs at 1, 3, 9, "
        f"{SLOTS} slots; curves are power laws with noise of 0.4 pp; going on from a checkpoint costs {LOADING} epoch. "
        "Nothing is trained. *Budget*: device time, in trainings of all epochs. *Lacking*: the best final accuracy of "
        f"{POOL} configurations less that of the one found, the best "
        "seen at the highest epoch that any has reached, in percentage points, with a 95 % interval; *less ASHA's*: "
        "paired by search, below 0 is better than `pruner: asha`. Of that one's decisions in "
        f"{CHECKED} searches, {differences(CHECKED)} differ from those of `stnbench.planning.build`."
    )
    for crossing in (False, True):
        yield ""
        yield f"## {'Curves that cross: what ends high begins slowly' if crossing else 'Curves of any rate'}"
        yield ""
        yield "| budget | way | tried | trained to the end | lacking | less ASHA's |"
        yield "|---|---|---|---|---|---|"
        yield from rows(draws, crossing=crossing)


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    started_s = time.process_time()
    text = "\n".join(render(options.draws)) + "\n"
    print(text)
    print(f"{time.process_time() - started_s:.0f} s on one core")
    options.out.write_text(text)


if __name__ == "__main__":
    main()
