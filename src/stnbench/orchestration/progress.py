"""Live progress of a sweep: a table of slots on a terminal, plain lines elsewhere, both from one ``Picture``."""

import contextlib
import sys
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from stnbench.core.process import Advance
from stnbench.core.text import counted, printable
from stnbench.orchestration.asking import Budget
from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.spec.planner import SamplerSpec
from stnbench.spec.result import Failure, TrialState, Verdict, judge_attempt
from stnbench.spec.sweep import SweepSpec
from stnbench.store.tables import PlannedTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """Facts about a run that are known before it begins.

    Attributes:
        name: name of the sweep.
        budget: budget of this run.
        trials: total number of trials that a search requests, without baselines; None if the planner decides.
        may_add: whether the planner adds trials depending on the results.
    """

    name: str = ""
    budget: Budget = field(default_factory=Budget)
    trials: int | None = None
    may_add: bool = False

    @classmethod
    def of(cls, sweep: SweepSpec, budget: Budget) -> "About":
        """Return the facts about a sweep and its budget."""
        planner = sweep.planner
        if isinstance(planner, SamplerSpec):
            seeds = len(sweep.seeds)
            return cls(name=sweep.name, budget=budget, trials=max(1, planner.trials // seeds) * seeds)
        return cls(name=sweep.name, budget=budget, may_add=not planner.is_grid)


@dataclass(slots=True)
class Picture:
    """Counts and times of a running sweep, kept up to date by events. Times are in seconds.

    Counts with ``before`` are those when this run began; ``expected`` is the total number of trials of a search.
    """

    trials: int = 0
    expected: int = 0
    complete_before: int = 0
    failed_before: int = 0
    pruned_before: int = 0
    complete: int = 0
    failed: int = 0
    pruned: int = 0
    best_accuracy: float = 0.0
    best_label: str = ""
    started_s: float = 0.0

    @property
    def total(self) -> int:
        """Return the number of requested trials, or for a search the number that will be requested."""
        return max(self.trials, self.expected)

    @property
    def ended(self) -> int:
        """Return the number of trials that have ended in this run."""
        return self.complete + self.failed + self.pruned

    @property
    def done(self) -> int:
        """Return the number of trials that need no further attempt."""
        return self.complete_before + self.failed_before + self.pruned_before + self.ended

    def time_left_s(self, now_s: float, slots: int) -> float | None:
        """Return the expected seconds to the end, from the pace of this run, or None before the first trial has ended.

        The pace includes start-up, so that early estimates are too long rather than too short.
        """
        left = self.total - self.done
        if self.ended == 0:
            return None
        rounds = max(left / self.ended, 1 / max(self.ended, slots) if left else 0.0)
        return (now_s - self.started_s) * rounds

    def add(self, state: TrialState, count: int, *, before: bool = False) -> None:
        """Add ``count``, which may be negative, to the number of trials in a final state."""
        name = f"{state.value}{'_before' if before else ''}"
        setattr(self, name, max(0, getattr(self, name) + count))


class Progress(Observer):
    """Observer that keeps the picture up to date; a subclass shows it."""

    def __init__(
        self, slots: int, clock_s: Callable[[], float] = time.monotonic, *, about: About | None = None
    ) -> None:
        self.picture = Picture(started_s=clock_s())
        self.running: dict[str, RunningAttempt] = {}
        self.parts: dict[str, int] = {}
        self.begun_s: dict[str, float] = {}
        self.health: dict[str, Verdict] = {}
        self.slots = slots
        self.clock_s = clock_s
        self.about = about or About()
        self._ends: dict[str, tuple[TrialState, bool]] = {}
        self._baselines = 0

    @override
    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        self.picture.trials += len(trials)
        self._baselines += sum(trial.is_baseline for trial in trials)
        if self.about.trials is not None:
            self.picture.expected = self.about.trials + self._baselines
        for trial, state in zip(trials, states, strict=True):
            if state.is_final:
                self.picture.add(state, 1, before=True)
                self._ends[trial.spec.trial_id] = state, True

    @override
    def launched(self, attempt: RunningAttempt) -> None:
        token = attempt.record.token
        self.running[token] = attempt
        self.begun_s[token] = self.clock_s()

    @override
    def worked(self, attempt: RunningAttempt, parts: int) -> None:
        token = attempt.record.token
        self.parts[token] = self.parts.get(token, 0) + parts

    @override
    def epoch_ended(self, attempt: RunningAttempt) -> None:
        self.running[attempt.record.token] = attempt
        self.parts[attempt.record.token] = 0
        self._judge(attempt)

    @override
    def ended(self, end: EndedAttempt) -> None:
        token = end.attempt.record.token
        for known in (self.running, self.parts, self.begun_s):
            known.pop(token, None)
        picture = self.picture
        if end.result is not None:
            accuracy = end.result.validation.accuracy
            if accuracy > picture.best_accuracy and end.attempt.trial.spec.has_held_out_images:
                picture.best_accuracy, picture.best_label = accuracy, _name(end.attempt)
        if end.trial_state.is_final:
            picture.add(end.trial_state, 1)
            self._ends[end.attempt.record.trial_id] = end.trial_state, False
        self._judge(end.attempt, end.failure)

    @override
    def changed(self, trial_ids: Sequence[str], state: TrialState) -> None:
        for trial_id in trial_ids:
            if state.is_final:
                self.picture.add(state, 1)
                self._ends[trial_id] = state, False
            elif trial_id in self._ends:
                ended, before = self._ends.pop(trial_id)
                self.picture.add(ended, -1, before=before)

    @override
    def resized(self, slots: int) -> None:
        self.slots = slots

    def _judge(self, attempt: RunningAttempt, failure: Failure | None = None) -> None:
        verdict = judge_attempt(attempt.trial.spec, attempt.epochs[-1:], failure)
        if verdict is not None:
            self.health[attempt.record.trial_id] = verdict

    @abstractmethod
    def close(self) -> None:
        """Restore the terminal."""


class PlainProgress(Progress):
    """Progress with one line per event, for logs."""

    def __init__(self, slots: int, out: TextIO, *, about: About | None = None) -> None:
        super().__init__(slots, about=about)
        self._out = out

    @override
    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        super().planned(trials, states)
        picture = self.picture
        asked, room = counted(picture.trials, "trial"), counted(self.slots, "slot")
        self._print(f"{asked}, {picture.complete_before} complete already, {room}")

    @override
    def launched(self, attempt: RunningAttempt) -> None:
        super().launched(attempt)
        again = f", attempt {attempt.record.number}" if attempt.record.number > 1 else ""
        self._print(f"start  {_name(attempt)} in {attempt.slot.name}{again}")

    @override
    def epoch_ended(self, attempt: RunningAttempt) -> None:
        super().epoch_ended(attempt)
        if self.picture.trials == 1:  # with many trials only their ends are printed
            last, epochs = attempt.epochs[-1], attempt.trial.spec.training.epochs
            accuracy = _accuracy(attempt.trial, last.validation_accuracy)
            pace = f"{last.train_duration_s:.1f} s"
            ill = f", {last.verdict}" if last.verdict not in {None, Verdict.HEALTHY} else ""
            self._print(f"epoch  {last.epoch}/{epochs} train loss {last.train_loss:.4f}, {accuracy}, {pace}{ill}")

    @override
    def ended(self, end: EndedAttempt) -> None:
        super().ended(end)
        picture = self.picture
        position = f"[{picture.done}/{picture.total}]"
        if end.result is not None:
            accuracy = _accuracy(end.attempt.trial, end.result.validation.accuracy)
            left = f", {_left(picture, self)} left" if picture.done < picture.total else ""
            self._print(f"done   {position} {_name(end.attempt)}: {accuracy}{left}")
        elif end.failure is not None:
            again = "" if end.trial_state is TrialState.FAILED else ", will be tried again"
            self._print(
                f"failed {position} {_name(end.attempt)}: {end.failure.kind}, {printable(end.failure.message)}{again}"
            )
        else:
            self._print(f"stop   {position} {_name(end.attempt)}")

    @override
    def noted(self, attempt: RunningAttempt, message: str) -> None:
        self._print(f"note   {_name(attempt)}: {printable(message)}")

    @override
    def told(self, message: str) -> None:
        self._print(f"control {printable(message)}")

    @override
    def stopping(self, reason: str) -> None:
        self._print(f"stopping: {printable(reason)}")

    @override
    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._out.flush()

    def _print(self, line: str) -> None:
        """Print a line; ignore a log that cannot be written or has no reader any more."""
        with contextlib.suppress(OSError):
            print(line, file=self._out, flush=True)


class LiveProgress(Progress):
    """Progress with a bar and a table of slots, redrawn in place."""

    def __init__(self, slots: int, console: Console, *, about: About | None = None) -> None:
        super().__init__(slots, about=about)
        self._reason = ""
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self.render, transient=True)
        self._live.start()

    @override
    def ended(self, end: EndedAttempt) -> None:
        super().ended(end)
        if end.failure is not None:
            line = f"{_name(end.attempt)}: {end.failure.kind}, {printable(end.failure.message)}"
            self._live.console.print(Text(line, style="red"))

    @override
    def noted(self, attempt: RunningAttempt, message: str) -> None:
        self._live.console.print(Text(f"{_name(attempt)}: {printable(message)}", style="yellow"))

    @override
    def told(self, message: str) -> None:
        self._live.console.print(Text(printable(message), style="cyan"))

    @override
    def stopping(self, reason: str) -> None:
        self._reason = printable(reason)

    @override
    def close(self) -> None:
        self._live.stop()

    def render(self) -> RenderableType:
        """Return the present picture."""
        picture = self.picture
        parts: list[RenderableType] = [self._title()]
        head = Table.grid(padding=(0, 1))
        counts = f"{picture.done}/{picture.total} trials{' so far' if self.about.may_add else ''}"
        failed = picture.failed + picture.failed_before
        pruned = picture.pruned + picture.pruned_before
        ends = [Text(f"{failed} failed", style="red")] if failed else []
        ends += [Text(f"{pruned} pruned", style="dim")] if pruned else []
        bar = ProgressBar(total=max(picture.total, 1), completed=picture.done, width=30)
        head.add_row(bar, counts, *ends, Text(f"{_left(picture, self)} left"))
        parts.append(head)
        if picture.best_label:
            parts.append(Text(f"best so far {100 * picture.best_accuracy:.2f} % {picture.best_label}", style="green"))
        ill = Counter(verdict for verdict in self.health.values() if verdict is not Verdict.HEALTHY)
        if ill:
            shown = ", ".join(f"{count} {verdict.value}" for verdict, count in ill.most_common())
            parts.append(Text(f"transformers: {shown}, {len(self.health) - ill.total()} healthy", style="yellow"))
        if self._reason:
            parts.append(Text(f"stopping: {self._reason}", style="yellow"))
        return Group(*parts, self._slot_table())

    def _title(self) -> Text:
        """Return the name, the elapsed time and the budget."""
        elapsed_s = self.clock_s() - self.picture.started_s
        title = Text(printable(self.about.name), style="bold")
        title.append(f"  {duration(elapsed_s)}", style="not bold")
        budget = self.about.budget
        if budget.wall_s is not None:
            title.append(f" of a budget of {duration(budget.wall_s)}", style="not bold")
        if budget.device_hours is not None:
            title.append(f", at most {budget.device_hours:g} device hours", style="not bold")
        if budget.max_trials is not None:
            title.append(f", at most {counted(budget.max_trials, 'trial')} more", style="not bold")
        return title

    def _slot_table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("slot", "trial", "epoch", "train loss", "validation", "health"):
            table.add_column(heading, no_wrap=heading == "slot", overflow="ellipsis")
        for attempt in sorted(self.running.values(), key=lambda item: item.slot.name):
            last = attempt.epochs[-1] if attempt.epochs else None
            loss = f"{last.train_loss:.3f}" if last else "-"
            accuracy = f"{100 * last.validation_accuracy:.2f} %" if last else "-"
            health = self.health.get(attempt.record.trial_id) if last else None
            shown = health.value if health else "-"
            table.add_row(attempt.slot.name, Text(_name(attempt)), self._epoch(attempt), loss, accuracy, shown)
        return table

    def _epoch(self, attempt: RunningAttempt) -> str:
        """Return the position of an attempt; before its first step, its present activity."""
        token, epochs = attempt.record.token, attempt.trial.spec.training.epochs
        position = f"{attempt.epochs[-1].epoch if attempt.epochs else 0}/{epochs}"
        parts = self.parts.get(token, 0)
        if parts and attempt.epochs and attempt.epochs[-1].epoch >= epochs:
            return f"{position}, scoring"
        if parts:
            return f"{position}, {counted(parts, 'step')}"
        if not attempt.epochs:
            waited_s = self.clock_s() - self.begun_s.get(token, self.clock_s())
            return f"{position}, imports and data, {duration(waited_s)}"
        return position


def _accuracy(trial: PlannedTrial, accuracy: float) -> str:
    """Return the accuracy on the validation images of a trial, named as what they are: some trials train on them."""
    images = "validation" if trial.spec.has_held_out_images else "images trained on"
    return f"{images} {100 * accuracy:.2f} %"


def open_progress(slots: int, out: TextIO | None = None, *, about: About | None = None) -> Progress:
    """Return live progress if standard error is a terminal, and plain lines otherwise."""
    stream = out or sys.stderr
    console = Console(file=stream)
    # FORCE_COLOR makes rich treat a log as a terminal, and fill it with cursor movements.
    is_live = stream.isatty() and console.is_terminal and not console.is_dumb_terminal
    if is_live:
        return LiveProgress(slots, console, about=about)
    return PlainProgress(slots, stream, about=about)


class DataProgress:
    """Callback that periodically prints the progress of preparing a data set; it prints nothing if that is quick.

    Args:
        name: name of the data set.
        say: prints a line.
        clock_s: returns seconds from any origin.
    """

    FIRST_S = 1.0
    PERIOD_S = 5.0

    def __init__(self, name: str, say: Callable[[str], None], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._say = say
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._next_s = self._began_s + self.FIRST_S

    def __call__(self, advance: Advance) -> None:
        """Print the progress if the period has passed."""
        now_s = self._clock_s()
        if now_s >= self._next_s:
            self._next_s = now_s + self.PERIOD_S
            share = f" {advance.done:,} of {advance.total:,}" if advance.total else ""
            self._say(f"data   {self._name}: {advance.work}{share}, {duration(now_s - self._began_s)} so far")


def duration(seconds: float | None) -> str:
    """Format seconds for display: 42 s, 3 min, 2 h 05 min."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _name(attempt: RunningAttempt) -> str:
    return f"{printable(attempt.trial.label)} · seed {attempt.trial.spec.seed}"


def _left(picture: Picture, progress: Progress) -> str:
    return duration(picture.time_left_s(progress.clock_s(), progress.slots))
