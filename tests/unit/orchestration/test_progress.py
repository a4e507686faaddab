"""Progress: live on a terminal, plain lines elsewhere."""

import dataclasses
import errno
import io
import logging
import os
from datetime import UTC, datetime

import pytest
from fake_trials import Task, fake_result, fake_spec
from made_up_spaces import health
from rich.console import Console
from typing_extensions import override

from stnbench.engines import Slot
from stnbench.orchestration.asking import Budget
from stnbench.orchestration.observer import EndedAttempt, LogObserver, Observer, RunningAttempt
from stnbench.orchestration.progress import (
    About,
    LiveProgress,
    Picture,
    PlainProgress,
    Progress,
    duration,
    open_progress,
)
from stnbench.spec.data import AllSplitSpec
from stnbench.spec.planner import RacingPlannerSpec, TpePlannerSpec
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState, Verdict
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.store.tables import AttemptRecord, PlannedTrial

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def attempt(number: int = 1, epochs: int = 0, label: str = "20,20,20 · affine") -> RunningAttempt:
    """A running attempt."""
    spec = fake_spec(Task.FINISH)
    record = AttemptRecord(
        trial_id=spec.trial_id,
        number=number,
        token=f"t-{number}",
        state=AttemptState.RUNNING,
        slot="cpu0",
        host="h",
        pid=1,
        boot_id="b",
        started_at=NOW,
        finished_at=None,
        failure=None,
    )
    trial = PlannedTrial(spec=spec, point=Point(labels=()), label=label)
    done = fake_result(spec, "t").epochs[:epochs]
    return RunningAttempt(trial=trial, record=record, slot=Slot(name="cpu0", device="cpu", threads=1), epochs=done)


def play(progress: Observer) -> None:
    """Three trials: one complete already, one that completes, one that fails twice."""
    one = attempt()
    progress.planned([one.trial] * 3, [TrialState.COMPLETE, TrialState.PLANNED, TrialState.PLANNED])
    progress.launched(one)
    progress.epoch_ended(attempt(epochs=1))
    result = fake_result(one.trial.spec, "t")
    complete = {"state": AttemptState.COMPLETE, "trial_state": TrialState.COMPLETE, "finished_at": NOW}
    progress.ended(EndedAttempt(attempt=one, result=result, **complete))  # type: ignore[arg-type]
    for number, trial_state in ((2, TrialState.PLANNED), (3, TrialState.FAILED)):
        failed = attempt(number, label="[red]x[/red] · affine")
        progress.launched(failed)
        failure = Failure(kind=FailureKind.KILLED, message="SIGKILL")
        end = EndedAttempt(
            attempt=failed, state=AttemptState.LOST, trial_state=trial_state, finished_at=NOW, failure=failure
        )
        progress.ended(end)


def test_plain_progress_is_one_line_an_event() -> None:
    """A log of a sweep reads without a terminal."""
    out = io.StringIO()
    play(PlainProgress(2, out))
    lines = out.getvalue().splitlines()

    assert lines[0] == "3 trials, 1 complete already, 2 slots"
    assert lines[1] == "start  20,20,20 · affine · seed 1 in cpu0"
    assert lines[2].startswith("done   [2/3] 20,20,20 · affine · seed 1: validation ")
    assert lines[4].endswith("killed, SIGKILL, will be tried again")
    assert lines[5].endswith("in cpu0, attempt 3")
    assert lines[6].startswith("failed [3/3]")
    assert lines[6].endswith("killed, SIGKILL")


def test_a_single_trial_is_followed_by_its_epochs() -> None:
    """A training of hours says something after each epoch."""
    out = io.StringIO()
    progress = PlainProgress(1, out)
    progress.planned([attempt().trial], [TrialState.PLANNED])
    progress.epoch_ended(attempt(epochs=1))

    assert out.getvalue().splitlines()[-1].startswith("epoch  1/2 train loss 1.0000, validation ")


def test_images_trained_on_are_not_called_validation() -> None:
    """With ``split=all`` nothing is held out; an accuracy of 100 % is then no news, and never the best."""
    out = io.StringIO()
    progress = PlainProgress(1, out)
    one = attempt(epochs=1)
    trial = dataclasses.replace(one.trial, spec=dataclasses.replace(one.trial.spec, split=AllSplitSpec()))
    one = dataclasses.replace(one, trial=trial)
    progress.planned([trial], [TrialState.PLANNED])
    progress.epoch_ended(one)
    result = fake_result(trial.spec, "t-1")
    complete = {"state": AttemptState.COMPLETE, "trial_state": TrialState.COMPLETE, "finished_at": NOW}
    progress.ended(EndedAttempt(attempt=one, result=result, **complete))  # type: ignore[arg-type]

    *_, epoch, done = out.getvalue().splitlines()
    assert ", images trained on " in epoch
    assert ": images trained on " in done
    assert "validation" not in epoch + done
    assert progress.picture.best_label == ""


def test_live_progress_shows_slots_epochs_and_the_best() -> None:
    """The picture has the bar's numbers, the best so far and one row a slot; labels are no markup."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = LiveProgress(1, console)
    play(progress)
    progress.epoch_ended(attempt(4, epochs=2, label="[b]odd[/b]"))
    progress.stopping("Ctrl-C")
    with console.capture() as captured:
        console.print(progress.render())
    progress.close()
    text = captured.get()

    for expected in ("3/3 trials", "1 failed", "best so far", "[b]odd[/b]", "2/2", "stopping: Ctrl-C"):
        assert expected in text


def test_live_progress_says_of_what_it_is_and_what_it_does_before_the_first_epoch() -> None:
    """Name, elapsed time, budget, what a worker does, steps, health: a person sees that it lives."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    about = About(name="sizes", budget=Budget(wall_s=7200.0, device_hours=3.0, max_trials=4), trials=20)
    progress = LiveProgress(1, console, about=about)
    progress.planned([attempt().trial], [TrialState.PLANNED])
    progress.launched(attempt())

    def shown() -> str:
        with console.capture() as captured:
            console.print(progress.render())
        return captured.get()

    first = shown()
    for expected in ("sizes", "0 s of a budget of 2 h 00 min", "3 device hours", "4 trials more", "0/20 trials"):
        assert expected in first
    assert "imports and data" in first
    progress.worked(attempt(), 3)
    assert "0/2, 3 steps" in shown()
    ill = dataclasses.replace(
        attempt(epochs=1).epochs[0], health=(dataclasses.replace(health(0.9), verdict=Verdict.COLLAPSED),)
    )
    progress.epoch_ended(dataclasses.replace(attempt(), epochs=(ill,)))
    progress.close()
    assert "1 collapsed" in shown()


def test_the_total_of_a_search_is_known() -> None:
    """So many trials as it asks for in all, baselines on top; a planner that decides by the answers says so far."""
    search = SweepSpec(name="s", question="?", planner=TpePlannerSpec(trials=9), seeds=(1, 2))
    assert About.of(search, Budget()).trials == 8
    progress = PlainProgress(2, io.StringIO(), about=About.of(search, Budget()))
    baseline = dataclasses.replace(attempt().trial, is_baseline=True)
    progress.planned([attempt().trial, baseline], [TrialState.PLANNED] * 2)
    assert (progress.picture.trials, progress.picture.total) == (2, 9)
    assert About.of(SweepSpec(name="s", question="?", planner=RacingPlannerSpec()), Budget()).may_add
    assert About.of(SweepSpec(name="s", question="?"), Budget()).trials is None


def test_what_a_person_gives_up_and_wants_again_is_counted() -> None:
    """A trial that is given up is done, one that is wanted again is not."""
    progress = PlainProgress(2, io.StringIO())
    trial = attempt().trial
    progress.planned([trial], [TrialState.FAILED])
    assert (progress.picture.done, progress.picture.ended) == (1, 0)
    progress.changed((trial.spec.trial_id,), TrialState.PLANNED)
    assert progress.picture.done == 0
    progress.changed((trial.spec.trial_id,), TrialState.PRUNED)
    assert (progress.picture.done, progress.picture.pruned) == (1, 1)
    progress.resized(5)
    assert progress.slots == 5


def test_without_a_terminal_progress_is_plain() -> None:
    """A pipe gets lines."""
    assert isinstance(open_progress(1, io.StringIO()), PlainProgress)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """As terminals do."""
        return True


VARIABLES = [
    ({"FORCE_COLOR": "1"}, io.StringIO, PlainProgress),
    ({"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}, io.StringIO, PlainProgress),
    ({"TERM": "dumb"}, Terminal, PlainProgress),
    ({"TERM": "unknown"}, Terminal, PlainProgress),
    ({"TERM": "xterm"}, Terminal, LiveProgress),
    ({"TERM": "xterm", "FORCE_COLOR": "1"}, Terminal, LiveProgress),
    ({"TERM": "xterm", "NO_COLOR": "1"}, Terminal, LiveProgress),
]


@pytest.mark.parametrize(("variables", "stream", "kind"), VARIABLES)
def test_forced_colours_make_no_terminal_of_a_log(
    variables: dict[str, str], stream: type[io.StringIO], kind: type[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log has lines, and no movements of a cursor, whatever the variables of CI and shells say."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    progress = open_progress(1, stream())
    progress.close()
    assert isinstance(progress, kind)


def test_the_time_left_follows_the_pace_of_this_run() -> None:
    """After 4 of 10 trials in 40 s, 60 s are left; before the first there is no telling."""
    picture = Picture(trials=10, started_s=100.0)
    assert picture.time_left_s(140.0, 2) is None
    picture.complete = 4

    assert picture.time_left_s(140.0, 2) == 60.0


def test_durations_read_as_people_say_them() -> None:
    """Seconds below a hundred, then minutes, then hours."""
    assert [duration(value) for value in (None, 42.4, 180, 7500)] == ["?", "42 s", "3 min", "2 h 05 min"]


class BrokenLog(io.StringIO):
    """A log that cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @override
    def write(self, text: str, /) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_a_log_on_a_full_disk_does_not_end_a_sweep(number: int) -> None:
    """What cannot be printed is left out, and the picture goes on."""
    progress = PlainProgress(2, BrokenLog(number))
    play(progress)

    assert progress.picture.done == 3


def test_a_reader_that_has_gone_does_not_end_a_sweep() -> None:
    """``| head`` wants no more lines; the trials are still wanted."""
    progress = PlainProgress(2, BrokenLog(errno.EPIPE))
    play(progress)

    assert progress.picture.done == 3


def test_the_log_of_commands_has_what_ran_and_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    """A line a beginning and an end, with the trial, its place and the failure; epochs at level debug."""
    with caplog.at_level(logging.INFO, logger="stnbench"):
        play(LogObserver())
    said = [record.getMessage() for record in caplog.records]
    trial = fake_spec(Task.FINISH).trial_id

    assert said[0] == "planned 3 trials, 1 complete already"
    assert said[1] == f"begin {trial}/001 (20,20,20 \xb7 affine, seed 1) in cpu0"
    assert said[2] == f"end {trial}/001 (20,20,20 \xb7 affine, seed 1): complete"
    assert said[-1].endswith("lost (killed: SIGKILL)")
    assert not any(text.startswith("epoch") for text in said)
