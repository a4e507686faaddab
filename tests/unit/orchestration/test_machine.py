"""The machine: events in, commands out; no trial is lost, and none runs twice at once."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from narrowed import only

from stnbench.core.errors import TransitionError
from stnbench.engines import Slot
from stnbench.orchestration.machine import Machine
from stnbench.orchestration.messages import (
    BREAKER_THRESHOLD,
    RETRIES,
    AttemptFailed,
    AttemptFinished,
    AttemptStopped,
    AttemptTaken,
    Command,
    DropTrial,
    ElsewhereChanged,
    EpochEnded,
    Event,
    ForgetAttempt,
    GiveUpAsked,
    KillAttempt,
    LaunchRefused,
    LaunchTrial,
    Patience,
    PauseChanged,
    PeakMemoryLearnt,
    PruneAsked,
    RecordComplete,
    RecordEnd,
    RetryAsked,
    SlotsChanged,
    StopAsked,
    StopAttempt,
    ThawAsked,
    TimePassed,
    TrialsPlanned,
    WorkDone,
    signature,
)
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState

TWO_GPUS = (
    Slot(name="gpu0.0", device="0", threads=1),
    Slot(name="gpu1.0", device="1", threads=1),
    Slot(name="gpu0.1", device="0", threads=1),
)


def machine(slots: int = 2, **options: Any) -> Machine:
    """A machine with CPU slots."""
    made = [Slot(name=f"cpu{index}", device=f"cpu{index}", threads=1) for index in range(slots)]
    return Machine(made, session="s", **options)


def launches(commands: tuple[Command, ...]) -> list[tuple[str, str]]:
    """Trial and slot of every launch."""
    return [(command.trial_id, command.slot.name) for command in commands if isinstance(command, LaunchTrial)]


def failure(kind: FailureKind, place: str = 'File "a.py", line 1') -> Failure:
    """A failure of a kind, at a place in the code."""
    return Failure(kind=kind, message=f"Error: {kind}", traceback=f"Traceback\n  {place}\n")


def test_free_slots_get_trials_in_order_at_once() -> None:
    """No batch barrier: every ending makes room for the next trial in the same answer."""
    it = machine()
    assert launches(it.handle(TrialsPlanned(trial_ids=("a", "b", "c")))) == [("a", "cpu0"), ("b", "cpu1")]

    assert it.handle(AttemptFinished(token="s-2"))[0] == RecordComplete(token="s-2")
    assert it.running == {"s-1": "a", "s-3": "c"}
    it.handle(AttemptFinished(token="s-1"))
    it.handle(AttemptFinished(token="s-3"))
    assert it.is_idle
    assert it.state_of("a") is TrialState.COMPLETE


@pytest.mark.parametrize("kind", list(FailureKind))
def test_each_kind_of_failure_has_its_own_retries(kind: FailureKind) -> None:
    """A trial is tried again as often as its policy says and then failed; no attempt is overwritten."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    for number in itertools.count(1):
        commands = it.handle(AttemptFailed(token=f"s-{number}", failure=failure(kind)))
        assert isinstance(commands[0], RecordEnd)
        if not launches(commands) and not launches(it.handle(TimePassed(now_s=1000.0 * number))):
            break

    # Of the infrastructure the machine is the cause as long as nothing gets on, and then the sweep ends.
    is_machine = kind is FailureKind.INFRASTRUCTURE
    assert number == RETRIES[kind].retries + (2 if is_machine else 1)
    assert ("no trial got on" in it.stop_reason) == is_machine
    no_fault_of_its_own = is_machine or kind in {FailureKind.NO_DEVICE, FailureKind.DATA}
    assert it.state_of("a") is (TrialState.PLANNED if no_fault_of_its_own else TrialState.FAILED)
    lost = kind is FailureKind.KILLED
    assert only(RecordEnd, commands[0]).attempt_state is (AttemptState.LOST if lost else AttemptState.FAILED)


def test_a_trial_that_ran_out_of_memory_gets_its_device_alone() -> None:
    """It waits until its device is empty, nothing joins it there, and other devices go on."""
    it = Machine(TWO_GPUS, session="s")
    it.handle(TrialsPlanned(trial_ids=("a", "b", "c", "d", "e")))
    after_failure = it.handle(AttemptFailed(token="s-1", failure=failure(FailureKind.OUT_OF_MEMORY)))
    assert launches(after_failure) == []

    assert launches(it.handle(AttemptFinished(token="s-3"))) == [("a", "gpu0.0")]
    assert launches(it.handle(AttemptFinished(token="s-2"))) == [("d", "gpu1.0")]
    assert set(launches(it.handle(AttemptFinished(token="s-4")))) == {("e", "gpu0.0")}


def test_a_timeout_does_not_count_the_time_before_an_attempt_begins() -> None:
    """Where a cluster has no room for it yet, its clock starts when there is."""
    it = machine(slots=1, timeout_s=10.0)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    assert it.handle(TimePassed(now_s=100.0, waiting=frozenset({"s-1"}))) == ()
    assert it.handle(TimePassed(now_s=110.0)) == ()
    assert it.handle(TimePassed(now_s=110.5)) == (KillAttempt(token="s-1"),)


@pytest.mark.parametrize("trials", ["abcde", "a"])
def test_a_full_disk_holds_every_trial_back_and_then_stops_the_sweep(trials: str) -> None:
    """Where a second attempt fails of it as well, it is the machine: nothing begins while it lasts, and no trial fails.

    After a minute the sweep ends. A person who has made room goes on with every trial, also where only one is left.
    """
    it = machine(slots=2)
    it.handle(TrialsPlanned(trial_ids=tuple(trials)))
    now_s, pauses_s = 0.0, []
    while not it.stop_reason:
        for token in list(it.running):
            it.handle(AttemptFailed(token=token, failure=failure(FailureKind.INFRASTRUCTURE)))
        began_s = now_s
        while not it.running and not it.stop_reason:
            now_s += 0.5
            it.handle(TimePassed(now_s=now_s))
        pauses_s.append(now_s - began_s)

    waits_s = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert [pause_s for pause_s in pauses_s if pause_s] == (waits_s if len(trials) > 1 else [*waits_s, 32.0])
    assert "Error: infrastructure" in it.stop_reason
    for token in list(it.running):
        it.handle(AttemptStopped(token=token))
    assert {it.state_of(trial) for trial in trials} == {TrialState.PLANNED}


def test_a_trial_that_alone_is_in_trouble_fails_of_it() -> None:
    """Others get on meanwhile, so it is not the machine: its own retries are counted, and the sweep goes on."""
    it = machine(slots=2)
    it.handle(TrialsPlanned(trial_ids=("bad", "good")))
    now_s = 0.0
    while it.state_of("bad") is not TrialState.FAILED:
        it.handle(EpochEnded(token="s-2", epoch=int(now_s) + 1))
        token = next((token for token, trial in it.running.items() if trial == "bad"), None)
        if token is not None:
            it.handle(AttemptFailed(token=token, failure=failure(FailureKind.INFRASTRUCTURE)))
        now_s += 40.0
        it.handle(TimePassed(now_s=now_s))

    assert it.stop_reason == ""
    assert it.state_of("good") is TrialState.RUNNING


def test_the_breaker_stops_a_sweep_whose_trials_die_of_the_same_bug() -> None:
    """The third trial that dies at the same place stops the sweep; the rest stays planned."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=tuple("abcde")))
    for number in range(1, BREAKER_THRESHOLD + 1):
        commands = it.handle(AttemptFailed(token=f"s-{number}", failure=failure(FailureKind.BUG)))

    assert "same bug" in it.stop_reason
    assert launches(commands) == []
    assert [it.state_of(trial) for trial in "abcde"].count(TrialState.PLANNED) == 5 - BREAKER_THRESHOLD


def test_different_bugs_and_successes_do_not_trip_the_breaker() -> None:
    """Bugs at different places are different bugs, and a trial that completes clears the count."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=tuple(str(number) for number in range(8))))
    for number in range(1, 5):
        it.handle(AttemptFailed(token=f"s-{number}", failure=failure(FailureKind.BUG, f'File "{number}.py"')))
    it.handle(AttemptFailed(token="s-5", failure=failure(FailureKind.BUG, 'File "4.py"')))
    it.handle(AttemptFinished(token="s-6"))
    it.handle(AttemptFailed(token="s-7", failure=failure(FailureKind.BUG, 'File "4.py"')))

    assert it.stop_reason == ""


def test_the_signature_of_a_bug_is_its_place_and_its_kind() -> None:
    """Values in the message do not make another bug of it."""
    one = Failure(kind=FailureKind.BUG, message="ValueError: 3 of trial a", traceback='File "x.py", line 3\n')
    same = Failure(kind=FailureKind.BUG, message="ValueError: 4 of trial b", traceback='File "x.py", line 3\n')
    other = Failure(kind=FailureKind.BUG, message="KeyError: 4", traceback='File "x.py", line 3\n')

    assert signature(one) == signature(same) != signature(other)


def test_a_trial_beyond_its_time_is_killed_once_and_timed_out() -> None:
    """The worker's death is then the timeout's doing, with its own policy: no retry."""
    it = machine(slots=1, timeout_s=10.0)
    it.handle(TimePassed(now_s=100.0))
    it.handle(TrialsPlanned(trial_ids=("a",)))

    assert it.handle(TimePassed(now_s=109.0)) == ()
    assert it.handle(TimePassed(now_s=111.0)) == (KillAttempt(token="s-1"),)
    assert it.handle(TimePassed(now_s=112.0)) == ()
    record = it.handle(AttemptFailed(token="s-1", failure=failure(FailureKind.KILLED)))[0]
    assert isinstance(record, RecordEnd)
    assert record.failure is not None
    assert record.failure.kind is FailureKind.TIMEOUT
    assert it.state_of("a") is TrialState.FAILED


def test_stopping_stops_what_runs_and_starts_nothing() -> None:
    """Stopped trials stay planned, so that the next run takes them up; the first reason is kept."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a", "b")))
    assert it.handle(StopAsked(reason="Ctrl-C")) == (StopAttempt(token="s-1"),)
    commands = it.handle(AttemptStopped(token="s-1"))

    assert launches(commands) == []
    assert it.state_of("a") is it.state_of("b") is TrialState.PLANNED
    it.handle(StopAsked(reason="later"))
    assert (it.is_idle, it.stop_reason) == (True, "Ctrl-C")


def test_a_worker_killed_while_stopping_costs_no_retry() -> None:
    """A second Ctrl-C kills workers; their trials stay planned however often that happened before."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    for number in range(1, RETRIES[FailureKind.KILLED].retries + 1):
        it.handle(AttemptFailed(token=f"s-{number}", failure=failure(FailureKind.KILLED)))
    it.handle(StopAsked(reason="Ctrl-C"))
    last = RETRIES[FailureKind.KILLED].retries + 1
    it.handle(AttemptFailed(token=f"s-{last}", failure=failure(FailureKind.KILLED)))

    assert it.state_of("a") is TrialState.PLANNED


def test_a_trial_that_gets_further_starts_counting_anew() -> None:
    """Kills are counted since the last epoch: a trial that is killed once an epoch completes all the same."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    for number in range(1, 3 * RETRIES[FailureKind.KILLED].retries):
        it.handle(EpochEnded(token=f"s-{number}", epoch=number))
        it.handle(AttemptFailed(token=f"s-{number}", failure=failure(FailureKind.KILLED)))

    assert it.state_of("a") is TrialState.RUNNING


def test_a_trial_that_repeats_epochs_gets_no_further() -> None:
    """Killed before its checkpoint was due, it ends the first epoch again each time: its retries come to an end."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    for number in range(1, RETRIES[FailureKind.KILLED].retries + 3):
        it.handle(EpochEnded(token=f"s-{number}", epoch=1))
        it.handle(AttemptFailed(token=f"s-{number}", failure=failure(FailureKind.KILLED)))
        if it.state_of("a") is TrialState.FAILED:
            break

    assert number == RETRIES[FailureKind.KILLED].retries + 1


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_gpu_that_is_gone_fails_no_trial(slots: int) -> None:
    """One trial after another meets it: the sweep waits, ends after a minute, and the same command goes on."""
    it = machine(slots=slots)
    names = tuple(f"t{number}" for number in range(20))
    it.handle(TrialsPlanned(trial_ids=names))
    now_s = 0.0
    while not it.stop_reason and now_s < 500:
        for token in list(it.running):
            it.handle(AttemptFailed(token=token, failure=failure(FailureKind.DEVICE)))
        now_s += 0.5
        it.handle(TimePassed(now_s=now_s))

    assert "Error: device" in it.stop_reason
    for token in list(it.running):
        it.handle(AttemptStopped(token=token))
    assert {it.state_of(name) for name in names} == {TrialState.PLANNED}


@pytest.mark.parametrize("kind", [FailureKind.NO_DEVICE, FailureKind.DATA])
@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("trials", [1, 2, 20])
def test_where_torch_sees_no_gpu_or_the_data_are_damaged_the_sweep_ends_at_once(
    kind: FailureKind, slots: int, trials: int
) -> None:
    """Two fresh processes a slot, no pause, no trial failed, and the remedy is the reason of the end."""
    it = machine(slots=slots)
    names = tuple(f"t{number}" for number in range(trials))
    it.handle(TrialsPlanned(trial_ids=names))
    attempts = 0
    while not it.stop_reason:
        attempts += 1
        it.handle(AttemptFailed(token=next(iter(it.running)), failure=failure(kind)))

    assert attempts == 2 * slots
    assert it.stop_reason == f"Error: {kind}"
    assert it.is_idle
    assert {it.state_of(name) for name in names} == {TrialState.PLANNED}


def test_a_slot_without_its_gpu_is_left_and_the_others_go_on() -> None:
    """One of two GPUs is gone for good: every trial completes on the other; progress in a slot makes it whole."""
    it = Machine(TWO_GPUS[:2], session="s")
    it.handle(TrialsPlanned(trial_ids=("a", "b", "c", "d")))
    ended = 0
    while not it.is_idle:
        for token, attempt in list(it._running.items()):
            if attempt.slot.name == "gpu0.0":
                ended += 1
                it.handle(AttemptFailed(token=token, failure=failure(FailureKind.NO_DEVICE)))
            else:
                it.handle(AttemptFinished(token=token))

    assert ended == 2
    assert it.stop_reason == ""
    assert {it.state_of(name) for name in "abcd"} == {TrialState.COMPLETE}


def test_a_trial_that_alone_spoils_its_context_fails_of_it() -> None:
    """Others get on in between, on the same slot: it is the trial, and it is tried as often as a killed one."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("bad", *(f"good{number}" for number in range(20)))))
    tries = 0
    while it.state_of("bad") is not TrialState.FAILED:
        ((token, trial),) = it.running.items()
        if trial == "bad":
            tries += 1
            it.handle(AttemptFailed(token=token, failure=failure(FailureKind.DEVICE)))
        else:
            it.handle(AttemptFinished(token=token))

    assert tries == RETRIES[FailureKind.DEVICE].retries + 1
    assert it.stop_reason == ""


def test_a_retry_alone_is_said_to_be_alone() -> None:
    """So that what idle workers of its device keep is freed first; other launches leave them warm."""
    it = Machine(TWO_GPUS, session="s")
    first = it.handle(TrialsPlanned(trial_ids=("a",)))
    again = it.handle(AttemptFailed(token="s-1", failure=failure(FailureKind.OUT_OF_MEMORY)))
    alone = [command.alone for command in (*first, *again) if isinstance(command, LaunchTrial)]
    assert alone == [False, True]


def test_each_time_memory_runs_out_batches_are_computed_in_more_parts() -> None:
    """First alone on the device, then in 2, 4, 8 and 16 parts, and what was learnt holds after another failure."""
    it = machine(slots=1)
    first = it.handle(TrialsPlanned(trial_ids=("a",)))
    parts = [command.micro_batches for command in first if isinstance(command, LaunchTrial)]
    kinds = [FailureKind.OUT_OF_MEMORY] * 3 + [FailureKind.KILLED] + [FailureKind.OUT_OF_MEMORY] * 2
    for number, kind in enumerate(kinds, start=1):
        commands = it.handle(AttemptFailed(token=f"s-{number}", failure=failure(kind)))
        parts += [command.micro_batches for command in commands if isinstance(command, LaunchTrial)]

    assert parts == [1, 1, 2, 4, 4, 8, 16]


def test_a_failing_machine_is_given_time() -> None:
    """After a full disk a trial waits 1 s, then 2 s; trials behind it in the queue do not."""
    it = machine(slots=1)
    it.handle(TimePassed(now_s=100.0))
    it.handle(TrialsPlanned(trial_ids=("a", "b")))
    after = it.handle(AttemptFailed(token="s-1", failure=failure(FailureKind.INFRASTRUCTURE)))
    assert launches(after) == [("b", "cpu0")]
    it.handle(AttemptFinished(token="s-2"))
    assert not it.is_idle
    assert launches(it.handle(TimePassed(now_s=100.9))) == []
    assert launches(it.handle(TimePassed(now_s=101.0))) == [("a", "cpu0")]
    it.handle(AttemptFailed(token="s-3", failure=failure(FailureKind.INFRASTRUCTURE)))
    assert launches(it.handle(TimePassed(now_s=102.9))) == []
    assert launches(it.handle(TimePassed(now_s=103.0))) == [("a", "cpu0")]


def test_trials_share_a_device_only_where_their_memory_fits() -> None:
    """Two that are known to need 6 of 10 GiB take turns on a GPU of two slots; one of 2 GiB joins at once."""
    gpu = [Slot(name=f"gpu0.{share}", device="0", threads=1, memory_mib=10_240) for share in range(2)]
    it = Machine(gpu, session="s")
    it.handle(PeakMemoryLearnt(peak_mib={"a": 6144, "b": 6144, "c": 2048}))
    assert launches(it.handle(TrialsPlanned(trial_ids=("a", "b", "c")))) == [("a", "gpu0.0")]
    assert launches(it.handle(AttemptFinished(token="s-1"))) == [("b", "gpu0.0"), ("c", "gpu0.1")]


def test_the_impossible_is_refused_with_the_history() -> None:
    """An ending of an attempt that does not run, and a trial planned twice, are errors."""
    it = machine()
    it.handle(TrialsPlanned(trial_ids=("a",)))
    with pytest.raises(TransitionError, match="s-9"):
        it.handle(AttemptFinished(token="s-9"))
    with pytest.raises(TransitionError, match="launched in cpu0 as s-1"):
        it.handle(TrialsPlanned(trial_ids=("a",)))


def run_until_killed(it: Machine, now_s: float, limit_s: float, tick_s: float = 0.5) -> float | None:
    """Let time pass until an attempt is killed; when that was, None where it is not within the limit."""
    end_s = now_s + limit_s
    while now_s < end_s:
        now_s += tick_s
        if any(isinstance(command, KillAttempt) for command in it.handle(TimePassed(now_s=now_s))):
            return now_s
    return None


def test_an_attempt_that_falls_silent_is_killed_and_tried_again() -> None:
    """After its steps came every second, a minute of silence is a hang, which is a kind of failure with retries."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    for second in range(1, 31):
        it.handle(TimePassed(now_s=float(second)))
        it.handle(WorkDone(token="s-1", parts=10))

    assert run_until_killed(it, 30.0, 100.0) == pytest.approx(90.5)
    assert it.handle(TimePassed(now_s=95.0)) == ()
    record, again = it.handle(AttemptFailed(token="s-1", failure=failure(FailureKind.KILLED)))
    assert isinstance(record, RecordEnd)
    assert record.failure is not None
    assert record.failure.kind is FailureKind.HUNG
    assert "no sign of life for 60 s" in record.failure.message
    assert isinstance(again, LaunchTrial)


def test_what_is_usual_for_an_attempt_decides_how_long_it_may_be_silent() -> None:
    """One whose batches take half a minute each has twenty times that."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    now_s = 0.0
    for _ in range(25):
        for _ in range(10):
            now_s += 3.0
            it.handle(TimePassed(now_s=now_s))
        it.handle(WorkDone(token="s-1", parts=1))

    assert run_until_killed(it, now_s, 599.0) is None
    assert run_until_killed(it, now_s + 599.0, 3.0) is not None


def test_an_attempt_that_begins_has_time_to_import_and_compile() -> None:
    """Ten minutes before the first twenty steps or batches, but a minute where the system has halted its process."""
    patience = Patience()
    assert patience.silence_s(parts=3, longest_pause_s=0.0, is_suspended=False) == 600.0
    assert patience.silence_s(parts=3, longest_pause_s=0.0, is_suspended=True) == 60.0
    assert patience.silence_s(parts=0, longest_pause_s=100.0, is_suspended=False) == 2000.0


@pytest.mark.parametrize("jump_s", [30.0, 3600.0, 1e6])
def test_time_in_which_nobody_looked_is_no_silence(jump_s: float) -> None:
    """An orchestrator that was stopped, or a machine that slept, and then hears everything at once, kills nothing."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    for second in range(1, 31):
        it.handle(TimePassed(now_s=float(second)))
        it.handle(WorkDone(token="s-1", parts=10))
    for leap in range(1, 11):
        assert it.handle(TimePassed(now_s=30.0 + leap * jump_s)) == ()


def test_an_attempt_that_waits_for_a_place_is_not_silent() -> None:
    """On a cluster without room an attempt that has not begun gives no sign of life."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    for tick in range(10_000):
        assert it.handle(TimePassed(now_s=float(tick), waiting=frozenset({"s-1"}))) == ()


def test_without_a_limit_nothing_hangs() -> None:
    """Who switches the watch off may attach a debugger."""
    it = Machine([Slot(name="cpu0", device="cpu", threads=1)], session="s", patience=Patience.fixed(None))
    it.handle(TrialsPlanned(trial_ids=("a",)))
    assert run_until_killed(it, 0.0, 5000.0) is None


def test_stopping_has_an_end() -> None:
    """An attempt that does not stop in ten seconds is killed once; its trial stays planned, and no retry is spent."""
    it = machine(slots=1)
    it.handle(TimePassed(now_s=100.0))
    it.handle(TrialsPlanned(trial_ids=("a",)))
    assert it.handle(StopAsked(reason="Ctrl-C")) == (StopAttempt(token="s-1"),)
    assert run_until_killed(it, 100.0, 60.0) == pytest.approx(110.5)
    assert run_until_killed(it, 110.5, 60.0) is None
    it.handle(AttemptFailed(token="s-1", failure=failure(FailureKind.KILLED)))

    assert it.state_of("a") is TrialState.PLANNED
    assert it.is_idle


def test_a_pruned_attempt_that_does_not_stop_is_pruned_all_the_same() -> None:
    """It hangs, is killed, and its trial is not tried again."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    it.handle(PruneAsked(token="s-1"))
    assert run_until_killed(it, 0.0, 700.0) is not None
    it.handle(AttemptFailed(token="s-1", failure=failure(FailureKind.KILLED)))

    assert it.state_of("a") is TrialState.PRUNED


def test_a_paused_trial_goes_on_before_all_that_waits() -> None:
    """Also one that an earlier run let pause; one that runs or is complete is left as it is."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a", "b", "c", "d")))
    it.handle(PruneAsked(token="s-1"))
    it.handle(AttemptStopped(token="s-1"))
    assert it.running == {"s-2": "b"}
    assert it.handle(ThawAsked(trial_ids=("a", "of before", "b"))) == ()
    assert launches(it.handle(AttemptFinished(token="s-2"))) == [("a", "cpu0")]
    assert it.handle(ThawAsked(trial_ids=("b",))) == ()
    assert launches(it.handle(AttemptFinished(token="s-3"))) == [("of before", "cpu0")]
    assert launches(it.handle(AttemptFinished(token="s-4"))) == [("c", "cpu0")]
    assert it.state_of("b") is TrialState.COMPLETE


def test_trials_that_hang_one_after_the_other_tell_of_the_machine() -> None:
    """A mount that is away makes all of them hang: nothing begins for a while, and in the end no trial has failed."""
    it = machine(slots=2)
    it.handle(TrialsPlanned(trial_ids=tuple("abcdef")))
    now_s = 0.0
    while not it.stop_reason:
        now_s += 1.0
        for command in it.handle(TimePassed(now_s=now_s)):
            if isinstance(command, KillAttempt):
                it.handle(AttemptFailed(token=command.token, failure=failure(FailureKind.KILLED)))
    for token in list(it.running):
        it.handle(AttemptStopped(token=token))

    assert "no sign of life" in it.stop_reason
    assert {it.state_of(trial) for trial in "abcdef"} == {TrialState.PLANNED}


@settings(max_examples=100, deadline=None)
@given(data=st.data(), trials=st.integers(0, 12), slots=st.integers(1, 4), per_device=st.integers(1, 2))
def test_whatever_happens_every_trial_ends_once(data: st.DataObject, trials: int, slots: int, per_device: int) -> None:
    """Under random endings in random order: slots are never shared, no trial runs twice at once, all reach an end."""
    made = [Slot(name=f"s{index}", device=str(index // per_device), threads=1) for index in range(slots)]
    it = Machine(made, session="s", timeout_s=50.0)
    running: dict[str, LaunchTrial] = {}
    ends: Counter[str] = Counter()
    commands = list(it.handle(TrialsPlanned(trial_ids=tuple(map(str, range(trials))))))
    may_stop = data.draw(st.booleans())
    for round_number in itertools.count():
        _check(commands, running, ends)
        if it.is_idle:
            break
        commands = []
        if round_number % 4 == 0 or not running:
            commands += it.handle(TimePassed(now_s=100.0 * round_number))
            _check(commands, running, ends)
        commands = list(it.handle(_random_ending(data, running))) if running else []
        if may_stop and data.draw(st.integers(0, 9)) == 0:
            commands.extend(it.handle(StopAsked(reason="drawn")))
        if trials and data.draw(st.integers(0, 4)) == 0:
            _check(commands, running, ends)
            commands = list(_asked_by_a_person(data, it, trials, ends, made))
    if any(it.state_of(trial) is TrialState.PLANNED for trial in map(str, range(trials))) and not it.stop_reason:
        raise AssertionError("idle with a trial that waits")

    assert it.is_idle
    assert not running
    for trial in map(str, range(trials)):
        state = it.state_of(trial)
        assert state.is_final or (it.stop_reason and state is TrialState.PLANNED)
        assert ends[trial] == int(state.is_final)


def _asked_by_a_person(
    data: st.DataObject, it: Machine, trials: int, ends: Counter[str], slots: list[Slot]
) -> tuple[Command, ...]:
    """What a person may ask at any time; a pause is taken back at once, so that the machine gets on."""
    trial = str(data.draw(st.integers(0, trials - 1)))
    match data.draw(st.sampled_from(["give up", "retry", "pause", "slots"])):
        case "give up":
            return it.handle(GiveUpAsked(trial_ids=(trial, "no such trial")))
        case "retry":
            if it.state_of(trial) in {TrialState.FAILED, TrialState.PRUNED}:
                ends[trial] = 0
            return it.handle(RetryAsked(trial_ids=(trial,)))
        case "slots":
            return it.handle(SlotsChanged(slots=tuple(slots[: data.draw(st.integers(1, len(slots)))])))
        case _:
            assert launches(it.handle(PauseChanged(is_paused=True))) == []
            return it.handle(PauseChanged(is_paused=False))


def _random_ending(data: st.DataObject, running: dict[str, LaunchTrial]) -> Event:
    token = data.draw(st.sampled_from(sorted(running)))
    del running[token]
    kind = data.draw(st.sampled_from(["finished", "stopped", *FailureKind]))
    if kind == "finished":
        return AttemptFinished(token=token)
    if kind == "stopped":
        # An engine reports Stopped only for what it was asked to stop; unasked, the trial is simply planned again.
        return AttemptStopped(token=token)
    return AttemptFailed(token=token, failure=failure(FailureKind(kind), f"File {token}"))


def _check(commands: list[Command], running: dict[str, LaunchTrial], ends: Counter[str]) -> None:
    for command in commands:
        match command:
            case LaunchTrial(trial_id=trial_id, token=token, slot=slot):
                assert all(other.slot != slot and other.trial_id != trial_id for other in running.values())
                assert ends[trial_id] == 0
                running[token] = command
                TOKENS[token] = trial_id
            case RecordComplete(token=token):
                ends[TOKENS[token]] += 1
            case RecordEnd(token=token, trial_state=state):
                ends[TOKENS[token]] += int(state.is_final)
            case DropTrial(trial_id=trial_id):
                assert all(other.trial_id != trial_id for other in running.values())
                ends[trial_id] += 1
            case _:
                assert command.token in running


TOKENS: dict[str, str] = {}


def test_trials_of_a_gpu_are_let_in_by_what_their_networks_should_need() -> None:
    """Before any has run: two of 3 GiB fit beside the contexts of three workers into 10 GiB, a third does not.

    What a trial of the configuration did need counts for more than what it should.
    """
    gpu = [Slot(name=f"gpu0.{share}", device="0", threads=1, memory_mib=10_240) for share in range(3)]
    it = Machine(gpu, session="s")
    expected = dict.fromkeys("abc", 3072.0)
    it.handle(PeakMemoryLearnt(peak_mib=expected, is_estimate=True))
    assert len(launches(it.handle(TrialsPlanned(trial_ids=tuple("abc"))))) == 2
    assert launches(it.handle(PeakMemoryLearnt(peak_mib={"c": 1024.0}))) == [("c", "gpu0.2")]


def test_a_trial_that_is_given_up_is_stopped_and_becomes_pruned() -> None:
    """Its attempt ends as stopped, its trial is final, and the slot goes to the next one."""
    it = machine(1)
    [launch] = it.handle(TrialsPlanned(trial_ids=("a", "b", "c")))
    assert isinstance(launch, LaunchTrial)
    commands = it.handle(GiveUpAsked(trial_ids=("a", "b", "unknown")))
    assert commands == (StopAttempt(token=launch.token), DropTrial(trial_id="b"))

    record, *more = it.handle(AttemptStopped(token=launch.token))
    assert record == RecordEnd(
        token=launch.token, attempt_state=AttemptState.STOPPED, trial_state=TrialState.PRUNED, failure=None
    )
    assert launches(tuple(more)) == [("c", "cpu0")]
    assert (it.state_of("a"), it.state_of("b")) == (TrialState.PRUNED, TrialState.PRUNED)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_trial_that_is_given_up_and_fails_is_not_tried_again(kind: FailureKind) -> None:
    """Whatever ends its attempt after it was asked to stop."""
    it = machine(1)
    [launch] = it.handle(TrialsPlanned(trial_ids=("a",)))
    assert isinstance(launch, LaunchTrial)
    it.handle(GiveUpAsked(trial_ids=("a",)))
    it.handle(AttemptFailed(token=launch.token, failure=failure(kind)))

    assert it.state_of("a") is TrialState.PRUNED
    assert it.is_idle


def test_a_trial_that_is_given_up_and_finishes_all_the_same_is_complete() -> None:
    """Its result was there before it heard that it should stop."""
    it = machine(1)
    [launch] = it.handle(TrialsPlanned(trial_ids=("a",)))
    assert isinstance(launch, LaunchTrial)
    it.handle(GiveUpAsked(trial_ids=("a",)))
    assert it.handle(AttemptFinished(token=launch.token)) == (RecordComplete(token=launch.token),)
    assert it.state_of("a") is TrialState.COMPLETE


def test_a_trial_that_is_given_up_and_does_not_stop_is_killed() -> None:
    """After the time that every attempt has that is asked to stop."""
    it = machine(1, patience=Patience(stop_s=10.0))
    [launch] = it.handle(TrialsPlanned(trial_ids=("a",)))
    assert isinstance(launch, LaunchTrial)
    it.handle(GiveUpAsked(trial_ids=("a",)))
    assert it.handle(TimePassed(now_s=9.0)) == ()
    assert it.handle(TimePassed(now_s=11.0)) == (KillAttempt(token=launch.token),)


def test_a_trial_that_is_wanted_again_while_it_stops_goes_on() -> None:
    """It was asked to stop, ends so, and begins again from its checkpoint."""
    it = machine(1)
    [launch] = it.handle(TrialsPlanned(trial_ids=("a",)))
    assert isinstance(launch, LaunchTrial)
    it.handle(GiveUpAsked(trial_ids=("a",)))
    it.handle(RetryAsked(trial_ids=("a",)))
    assert launches(it.handle(AttemptStopped(token=launch.token))) == [("a", "cpu0")]


def test_a_paused_machine_launches_nothing_and_waits() -> None:
    """It is not idle while trials wait, and goes on where it was."""
    it = machine(1)
    it.handle(PauseChanged(is_paused=True))
    assert it.handle(TrialsPlanned(trial_ids=("a", "b"))) == ()
    assert not it.is_idle
    assert launches(it.handle(PauseChanged(is_paused=False))) == [("a", "cpu0")]


def test_a_slot_that_goes_finishes_its_trial_and_gets_no_other() -> None:
    """One that comes gets a trial at once."""
    slots = tuple(Slot(name=f"cpu{index}", device="cpu", threads=1) for index in range(3))
    it = Machine(slots[:2], session="s")
    first, second, *_ = it.handle(TrialsPlanned(trial_ids=tuple("abcd")))
    assert isinstance(first, LaunchTrial)
    assert isinstance(second, LaunchTrial)
    assert it.handle(SlotsChanged(slots=slots[:1])) == ()
    assert launches(it.handle(AttemptFinished(token=second.token))) == []
    assert launches(it.handle(SlotsChanged(slots=slots))) == [("c", "cpu1"), ("d", "cpu2")]


def test_a_trial_that_another_orchestrator_has_claimed_is_waited_for() -> None:
    """Its slot takes the next trial at once; the sweep ends only when it is known what became of the other."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a", "b", "c")))
    assert launches(it.handle(LaunchRefused(token="s-1"))) == [("b", "cpu0")]
    assert it.elsewhere == {"a"}
    assert launches(it.handle(AttemptFinished(token="s-2"))) == [("c", "cpu0")]
    it.handle(AttemptFinished(token="s-3"))
    idle = [it.is_idle]
    assert it.handle(ElsewhereChanged(trial_id="a", state=TrialState.COMPLETE)) == ()
    idle.append(it.is_idle)
    assert idle == [False, True]
    assert it.state_of("a") is TrialState.COMPLETE


def test_a_claimed_trial_that_becomes_free_is_launched_here() -> None:
    """The other orchestrator stopped or died: the trial is planned again."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    it.handle(LaunchRefused(token="s-1"))
    assert launches(it.handle(ElsewhereChanged(trial_id="a", state=TrialState.PLANNED))) == [("a", "cpu0")]
    assert it.elsewhere == frozenset()


def test_a_sweep_that_is_asked_to_stop_waits_for_nobody() -> None:
    """Trials elsewhere are the other orchestrator's."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    it.handle(LaunchRefused(token="s-1"))
    it.handle(StopAsked(reason="enough"))
    assert it.is_idle


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_an_attempt_that_was_taken_over_is_killed_once_and_not_recorded(end: str) -> None:
    """Its slot is free only when it has ended; the store has its end from whoever took it over."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a", "b")))
    taken = AttemptTaken(token="s-1", trial_id="a")
    assert it.handle(taken) == (KillAttempt(token="s-1"),)
    assert it.handle(taken) == ()
    ended: dict[str, AttemptFailed | AttemptStopped] = {
        "killed": AttemptFailed(token="s-1", failure=failure(FailureKind.KILLED)),
        "stopped": AttemptStopped(token="s-1"),
    }
    commands = it.handle(ended[end])
    assert commands[0] == ForgetAttempt(token="s-1")
    assert launches(commands) == [("b", "cpu0")]
    assert it.elsewhere == {"a"}


def test_an_attempt_that_was_taken_over_may_still_deliver() -> None:
    """It finished before it could be killed: the store decides, and where it refuses the trial is elsewhere."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    it.handle(AttemptTaken(token="s-1", trial_id="a"))
    assert it.handle(AttemptFinished(token="s-1")) == (RecordComplete(token="s-1"),)
    assert it.is_idle
    assert it.handle(AttemptTaken(token="s-1", trial_id="a")) == ()
    assert it.elsewhere == {"a"}


def test_a_refused_end_does_not_take_a_later_attempt_along() -> None:
    """A retry that the store has granted meanwhile goes on, and one that waits is left to the other orchestrator."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    again = it.handle(AttemptFailed(token="s-1", failure=failure(FailureKind.KILLED)))
    assert launches(again) == [("a", "cpu0")]
    assert it.handle(AttemptTaken(token="s-1", trial_id="a")) == ()
    assert it.running == {"s-2": "a"}
    it.handle(LaunchRefused(token="s-2"))
    assert it.elsewhere == {"a"}


def test_a_trial_elsewhere_that_a_user_gives_up_is_dropped() -> None:
    """It is pruned for this sweep; the other one trains it on."""
    it = machine(slots=1)
    it.handle(TrialsPlanned(trial_ids=("a",)))
    it.handle(LaunchRefused(token="s-1"))
    assert it.handle(GiveUpAsked(trial_ids=("a",))) == (DropTrial(trial_id="a"),)
    assert it.is_idle
    assert it.state_of("a") is TrialState.PRUNED
