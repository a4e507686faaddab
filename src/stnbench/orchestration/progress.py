"""Live progress: a table of slots on a terminal, plain lines elsewhere. Both show one pure picture of the sweep."""

import contextlib
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from stnbench.core.activity import Advance
from stnbench.core.text import counted, printable
from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.spec.states import TrialState
from stnbench.spec.verdict import Verdict
from stnbench.store.records import PlannedTrial


@dataclass(slots=True)
class Picture:
    """What a person wants to know of a running sweep, kept up to date by events. Times in seconds."""

    trials: int = 0
    complete_before: int = 0
    complete: int = 0
    failed: int = 0
    best_accuracy: float = 0.0
    best_label: str = ""
    started_s: float = 0.0
    first_end_s: float | None = None

    @property
    def done(self) -> int:
        """Trials that need no further attempt."""
        return self.complete_before + self.complete + self.failed

    def time_left_s(self, now_s: float, slots: int) -> float | None:
        """Expected seconds to the end, from the pace of this run so far; None before the first trial has ended.

        The pace counts from the start, with start-up, so that early estimates are too long rather than too short.
        """
        ended = self.complete + self.failed
        left = self.trials - self.done
        if ended == 0:
            return None
        rounds = max(left / ended, 1 / max(ended, slots) if left else 0.0)
        return (now_s - self.started_s) * rounds


class Progress(Observer):
    """Keeps the picture; a subclass shows it."""

    def __init__(self, slots: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.picture = Picture(started_s=clock_s())
        self.running: dict[str, RunningAttempt] = {}
        self.slots = slots
        self.clock_s = clock_s

    @override
    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        self.picture.trials += len(trials)
        self.picture.complete_before += sum(state is TrialState.COMPLETE for state in states)
        self.picture.failed += sum(state is TrialState.FAILED for state in states)

    @override
    def launched(self, attempt: RunningAttempt) -> None:
        self.running[attempt.record.token] = attempt

    @override
    def epoch_ended(self, attempt: RunningAttempt) -> None:
        self.running[attempt.record.token] = attempt

    @override
    def ended(self, end: EndedAttempt) -> None:
        self.running.pop(end.attempt.record.token, None)
        picture = self.picture
        if end.result is not None:
            picture.complete += 1
            accuracy = end.result.validation.accuracy
            if accuracy > picture.best_accuracy:
                picture.best_accuracy, picture.best_label = accuracy, _name(end.attempt)
        elif end.trial_state is TrialState.FAILED:
            picture.failed += 1

    @abstractmethod
    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainProgress(Progress):
    """One line an event, for logs."""

    def __init__(self, slots: int, out: TextIO) -> None:
        super().__init__(slots)
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
        if self.picture.trials == 1:  # of many trials their ends are news enough
            last, epochs = attempt.epochs[-1], attempt.trial.spec.training.epochs
            accuracy = f"validation {100 * last.validation_accuracy:.2f} %"
            pace = f"{last.train_duration_s:.1f} s"
            ill = f", {last.verdict}" if last.verdict not in {None, Verdict.HEALTHY} else ""
            self._print(f"epoch  {last.epoch}/{epochs} train loss {last.train_loss:.4f}, {accuracy}, {pace}{ill}")

    @override
    def ended(self, end: EndedAttempt) -> None:
        super().ended(end)
        picture = self.picture
        position = f"[{picture.done}/{picture.trials}]"
        if end.result is not None:
            accuracy = f"validation {100 * end.result.validation.accuracy:.2f} %"
            left = f", {_left(picture, self)} left" if picture.done < picture.trials else ""
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
        """A log that cannot be written, or that nobody reads any more, is no reason to end."""
        with contextlib.suppress(OSError):
            print(line, file=self._out, flush=True)


class LiveProgress(Progress):
    """A bar and a table of slots, redrawn in place."""

    def __init__(self, slots: int, console: Console) -> None:
        super().__init__(slots)
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
        """The picture as it is now."""
        picture = self.picture
        head = Table.grid(padding=(0, 1))
        counts = f"{picture.done}/{picture.trials} trials"
        failed = Text(f"{picture.failed} failed", style="red") if picture.failed else Text()
        bar = ProgressBar(total=max(picture.trials, 1), completed=picture.done, width=30)
        head.add_row(bar, counts, failed, Text(f"{_left(picture, self)} left"))
        parts: list[RenderableType] = [head]
        if picture.best_label:
            parts.append(Text(f"best so far {100 * picture.best_accuracy:.2f} % {picture.best_label}", style="green"))
        if self._reason:
            parts.append(Text(f"stopping: {self._reason}", style="yellow"))
        return Group(*parts, self._slot_table())

    def _slot_table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("slot", "trial", "epoch", "train loss", "validation"):
            table.add_column(heading, no_wrap=heading == "slot", overflow="ellipsis")
        for attempt in sorted(self.running.values(), key=lambda item: item.slot.name):
            last = attempt.epochs[-1] if attempt.epochs else None
            epochs = f"{last.epoch if last else 0}/{attempt.trial.spec.training.epochs}"
            loss = f"{last.train_loss:.3f}" if last else "-"
            accuracy = f"{100 * last.validation_accuracy:.2f} %" if last else "-"
            table.add_row(attempt.slot.name, Text(_name(attempt)), epochs, loss, accuracy)
        return table


def open_progress(slots: int, out: TextIO | None = None) -> Progress:
    """Live progress where standard error is a terminal, plain lines on it elsewhere."""
    stream = out or sys.stderr
    console = Console(file=stream)
    # FORCE_COLOR makes rich take a log for a terminal, and fill it with the movements of a cursor.
    is_live = stream.isatty() and console.is_terminal and not console.is_dumb_terminal
    return LiveProgress(slots, console) if is_live else PlainProgress(slots, stream)


class DataProgress:
    """Says every now and then how far the preparation of a data set has come; nothing of one that is quick.

    Args:
        name: of the data set.
        say: prints a line.
        clock_s: seconds from any origin.
    """

    PERIOD_S = 5.0

    def __init__(self, name: str, say: Callable[[str], None], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._say = say
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._next_s = self._began_s + self.PERIOD_S

    def __call__(self, advance: Advance) -> None:
        """Take note of some progress."""
        now_s = self._clock_s()
        if now_s >= self._next_s:
            self._next_s = now_s + self.PERIOD_S
            share = f" {advance.done:,} of {advance.total:,}" if advance.total else ""
            self._say(f"data   {self._name}: {advance.work}{share}, {duration(now_s - self._began_s)} so far")


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 42 s, 3 min, 2 h 05 min."""
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
