"""The runner: what the store holds after a sweep, whatever happened to its attempts."""

import dataclasses
import errno
import itertools
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fake_trials
import pytest
from fake_trials import Task, fake_accuracy, fake_result, fake_spec, run_fake_trial
from typing_extensions import override

from stnbench.core.errors import DataError, StoreError
from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.engines import Engine, Launch, Slot
from stnbench.engines.local import LocalEngine
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration.asking import Budget, RunOptions, RunSummary
from stnbench.orchestration.claims import ProcessIdentity
from stnbench.orchestration.messages import RETRIES
from stnbench.orchestration.observer import EndedAttempt, Observer
from stnbench.orchestration.recovery import drop_checkpoints
from stnbench.orchestration.runner import Runner
from stnbench.planning import Known, Observation, Planner, Progress
from stnbench.planning.build import FreezeThawJudge, PruningPlanner
from stnbench.spec.data import AllSplitSpec
from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.planner import FreezeThawPrunerSpec, MedianPrunerSpec
from stnbench.spec.result import AttemptState, FailureKind, TrialState
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptStart, PlannedTrial
from stnbench.trials.files import write_result

pytestmark = pytest.mark.slow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SWEEP = SweepSpec(name="test", question="Does it run?")
PRUNED_SWEEP = SweepSpec(name="pruned", question="Does it run soon?", pruner=MedianPrunerSpec())
IDENTITY = ProcessIdentity(host="h", pid=1, boot_id="b", session="one")


SLOT = Slot(name="cpu0", device="cpu", threads=1)
FAKE_WORKER = (sys.executable, str(Path(fake_trials.__file__).parent / "fake_worker.py"))


class ListPlanner(Planner):
    """Asks for a list, and remembers what it was told."""

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self.waiting = list(specs)
        self.told: list[Observation] = []

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        asked, self.waiting = self.waiting, []
        return [PlannedTrial(spec=spec, point=Point(labels=()), label=spec.trial_id) for spec in asked]

    @override
    def tell(self, observation: Observation) -> None:
        self.told.append(observation)

    @property
    @override
    def is_exhausted(self) -> bool:
        return not self.waiting


class NotingEngine(InlineEngine):
    """Remembers what it was given to run."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self.launches: list[Launch] = []

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        self.launches.append(launch)
        super().submit(slot, launch)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "runs" / "stnbench.db", writable=True) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts run in this process and train nothing."""
    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = run_fake_trial  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stnbench.trials.run", stand_in)


def run(
    store: Store,
    tmp_path: Path,
    planner: Planner,
    *observers: Observer,
    engine: Engine | None = None,
    sweep: SweepSpec = SWEEP,
    clock_s: Callable[[], float] = time.monotonic,
    **options: object,
) -> RunSummary:
    """One run of the sweep, in this process unless an engine is given."""
    runner = Runner(
        sweep=sweep,
        planner=planner,
        store=store,
        engine=engine or InlineEngine(SLOT),
        layout=RunsLayout(tmp_path / "runs"),
        identity=ProcessIdentity.current(),
        options=RunOptions(data_root=tmp_path, **options),  # type: ignore[arg-type]
        observers=observers,
        now=lambda: NOW,
        clock_s=clock_s,
    )
    return runner.run()


def start(store: Store, spec: TrialSpec, token: str) -> None:
    """An attempt begun by an orchestrator that has since died."""
    store.save_sweep(SWEEP, [PlannedTrial(spec=spec, point=Point(labels=()), label="x")], NOW)
    beginning = AttemptStart(
        trial_id=spec.trial_id, token=token, slot="cpu0", host="h", pid=1, boot_id="b", started_at=NOW
    )
    store.start_attempt(beginning)


SAME_DATA = [{}, {"train": "fake1"}, {"test": "fake2"}, {"train": "fake1", "test": "fake2"}]
OTHER_DATA = [{"train": "other"}, {"test": "other"}, {"train": "fake1", "test": "other"}]


@pytest.mark.parametrize("digests", SAME_DATA)
def test_a_complete_trial_of_the_same_images_is_taken_over(
    store: Store, tmp_path: Path, digests: dict[str, str]
) -> None:
    """Also where a half is not there any more, or nothing is known of the images."""
    spec = fake_spec(Task.FINISH)
    run(store, tmp_path, ListPlanner([spec]))
    again = run(store, tmp_path, ListPlanner([spec]), digests={spec.dataset: digests})
    assert (again.complete, again.launched) == (1, 0)


@pytest.mark.parametrize("digests", OTHER_DATA)
def test_the_score_of_other_images_is_no_answer(store: Store, tmp_path: Path, digests: dict[str, str]) -> None:
    """The refusal names the half and both digests, and the store stays as it was."""
    spec = fake_spec(Task.FINISH)
    run(store, tmp_path, ListPlanner([spec]))
    new = dataclasses.replace(SWEEP, name="new")
    half = next(half for half, digest in digests.items() if digest == "other")
    expected = f"its {half} images were others: their digest was {'fake1' if half == 'train' else 'fake2'}.*other"
    with pytest.raises(DataError, match=expected):
        run(store, tmp_path, ListPlanner([spec]), sweep=new, digests={spec.dataset: digests})
    assert [record.spec.name for record in store.sweeps()] == [SWEEP.name]


def test_every_trial_ends_complete_once(store: Store, tmp_path: Path) -> None:
    """The store has each trial complete, with its accuracy and its epochs; the planner was told validation only."""
    specs = [fake_spec(Task.FINISH, config=config) for config in range(3)]
    planner = ListPlanner(specs)
    summary = run(store, tmp_path, planner)

    assert (summary.trials, summary.complete, summary.failed, summary.launched) == (3, 3, 0, 3)
    for spec in specs:
        outcome = store.outcome(spec.trial_id)
        assert outcome is not None
        assert outcome.validation.accuracy == pytest.approx(fake_accuracy(spec))
        assert [item.record.epoch for item in store.epochs_of_trial(spec.trial_id)] == [1, 2]
    told = {observation.trial_id: observation.validation_accuracy for observation in planner.told}
    assert told == {spec.trial_id: pytest.approx(fake_accuracy(spec)) for spec in specs}


def test_a_second_run_trains_nothing(store: Store, tmp_path: Path) -> None:
    """Complete trials are told to the planner from the store and never launched again."""
    specs = [fake_spec(Task.FINISH, config=config) for config in range(2)]
    run(store, tmp_path, ListPlanner(specs))
    planner = ListPlanner(specs)
    summary = run(store, tmp_path, planner)

    assert (summary.launched, summary.complete) == (0, 2)
    assert [observation.validation_accuracy for observation in planner.told] == [
        pytest.approx(fake_accuracy(spec)) for spec in specs
    ]


def test_an_edited_sweep_runs_only_what_is_new(store: Store, tmp_path: Path) -> None:
    """Adding a configuration keeps what is done; taking one away hides it and keeps it."""
    one, two, three = (fake_spec(Task.FINISH, config=config) for config in range(3))
    run(store, tmp_path, ListPlanner([one, two]))
    summary = run(store, tmp_path, ListPlanner([two, three]))

    assert (summary.launched, summary.trials) == (1, 2)
    assert store.outcome(one.trial_id) is not None


def test_a_failure_is_a_row_and_the_others_go_on(store: Store, tmp_path: Path) -> None:
    """A bug fails its trial with message and traceback; asked to, the next run tries it again."""
    bad, good = fake_spec(Task.FAIL), fake_spec(Task.FINISH)
    summary = run(store, tmp_path, ListPlanner([bad, good]))
    assert (summary.complete, summary.failed) == (1, 1)
    attempt = store.attempts_of_trial(bad.trial_id)[0]
    assert attempt.failure is not None
    assert attempt.failure.kind is FailureKind.BUG
    assert "ZeroDivisionError" in attempt.failure.traceback

    assert run(store, tmp_path, ListPlanner([bad, good])).launched == 0
    again = run(store, tmp_path, ListPlanner([bad, good]), retry_failed=True)
    assert (again.launched, len(store.attempts_of_trial(bad.trial_id))) == (1, 2)


def test_out_of_memory_is_tried_alone_and_in_ever_smaller_parts(store: Store, tmp_path: Path) -> None:
    """Each retry is an attempt of its own, in a folder of its own; where nothing helps the trial fails."""
    spec = fake_spec(Task.OUT_OF_MEMORY)
    run(store, tmp_path, ListPlanner([spec]))
    attempts = store.attempts_of_trial(spec.trial_id)

    assert [attempt.state for attempt in attempts] == [AttemptState.FAILED] * 6
    folders = RunsLayout(tmp_path / "runs").trial(spec.trial_id).iterdir()
    assert sorted(folder.name for folder in folders) == [f"{number:03}" for number in range(1, 7)]


class Neighboured(InlineEngine):
    """As inline, with idle slots beside it, one on the same device and one on another; notes what is released."""

    def __init__(self) -> None:
        super().__init__(SLOT)
        self.happened: list[str] = []

    @property
    @override
    def slots(self) -> Sequence[Slot]:
        return (SLOT, Slot(name="beside", device=SLOT.device, threads=1), Slot(name="apart", device="1", threads=1))

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        self.happened.append(f"submitted to {slot.name}")
        super().submit(slot, launch)

    @override
    def release(self, slot: Slot) -> None:
        self.happened.append(f"released {slot.name}")


def test_a_retry_alone_first_ends_the_idle_workers_of_its_device(store: Store, tmp_path: Path) -> None:
    """What they keep of its memory is free before the attempt begins; those of other devices stay warm."""
    engine = Neighboured()
    run(store, tmp_path, ListPlanner([fake_spec(Task.OUT_OF_MEMORY)]), engine=engine)
    attempt, begins = f"submitted to {SLOT.name}", engine.happened[:3]
    assert begins == [attempt, "released beside", attempt]
    assert engine.happened.count("released beside") == engine.happened.count(attempt) - 1
    assert "released apart" not in engine.happened


def test_a_result_that_can_never_be_read_fails_the_trial(store: Store, tmp_path: Path) -> None:
    """It is tried again as a lost attempt is, since a file may be damaged; then it has failed, and says why."""
    spec = fake_spec(Task.GARBLE_RESULT)
    summary = run(store, tmp_path, ListPlanner([spec]))

    attempts = store.attempts_of_trial(spec.trial_id)
    assert (summary.failed, len(attempts)) == (1, RETRIES[FailureKind.KILLED].retries + 1)
    assert attempts[0].failure is not None
    assert "result.json" in attempts[0].failure.message


def test_images_that_change_during_a_sweep_end_it(store: Store, tmp_path: Path) -> None:
    """A trial that read others than those found when it began is not complete, and both digests are named."""
    specs = [fake_spec(Task.FINISH, seed=seed) for seed in (1, 2)]
    asked = {specs[0].dataset: {"train": "before", "test": "fake2"}}
    summary = run(store, tmp_path, ListPlanner(specs), digests=asked)

    assert (summary.complete, summary.failed) == (0, 0)
    assert "train images" in summary.stop_reason
    assert "before" in summary.stop_reason
    assert "fake1" in summary.stop_reason
    same = {specs[0].dataset: {"train": "fake1", "test": "fake2"}}
    assert run(store, tmp_path, ListPlanner(specs), digests=same).complete == 2


def test_recovery_adopts_a_result_that_reached_the_disk(store: Store, tmp_path: Path) -> None:
    """The orchestrator died between the result and the store: nothing is trained again."""
    spec = fake_spec(Task.FINISH)
    start(store, spec, "dead-1")
    folder = RunsLayout(tmp_path / "runs").attempt(spec.trial_id, 1)
    folder.mkdir(parents=True)
    write_result(folder, fake_result(spec, "dead-1"))
    summary = run(store, tmp_path, ListPlanner([spec]))

    assert (summary.adopted, summary.lost, summary.launched, summary.complete) == (1, 0, 0, 1)


@pytest.mark.parametrize("left_behind", ["nothing", "garbage", "another attempt's result"])
def test_recovery_plans_again_what_was_lost(store: Store, tmp_path: Path, left_behind: str) -> None:
    """Without a whole result of its own an attempt is lost, and its trial runs again."""
    spec = fake_spec(Task.FINISH)
    start(store, spec, "dead-1")
    folder = RunsLayout(tmp_path / "runs").attempt(spec.trial_id, 1)
    folder.mkdir(parents=True)
    if left_behind == "garbage":
        (folder / "result.json").write_text('{"trial_id"')
    elif left_behind != "nothing":
        write_result(folder, fake_result(spec, "dead-2"))
    summary = run(store, tmp_path, ListPlanner([spec]))

    assert (summary.adopted, summary.lost, summary.launched, summary.complete) == (0, 1, 1, 1)
    states = [attempt.state for attempt in store.attempts_of_trial(spec.trial_id)]
    assert states == [AttemptState.LOST, AttemptState.COMPLETE]


def test_a_stopped_sweep_leaves_its_trials_planned(store: Store, tmp_path: Path) -> None:
    """Asked to stop after the first trial, the runner starts no other; the next run completes the sweep."""
    specs = [fake_spec(Task.FINISH, config=config) for config in range(3)]
    planner = ListPlanner(specs)

    class StopAfterFirst(Observer):
        """Asks the runner to stop when the first trial has ended."""

        @override
        def ended(self, end: EndedAttempt) -> None:
            runner.ask_stop("enough")

    runner = Runner(
        sweep=SWEEP,
        planner=planner,
        store=store,
        engine=InlineEngine(Slot(name="cpu0", device="cpu", threads=1)),
        layout=RunsLayout(tmp_path / "runs"),
        identity=IDENTITY,
        options=RunOptions(data_root=tmp_path),
        observers=[StopAfterFirst()],
    )
    summary = runner.run()

    assert summary.stop_reason == "enough"
    assert 1 <= summary.complete < 3
    states = store.trial_states([spec.trial_id for spec in specs])
    assert set(states.values()) == {TrialState.COMPLETE, TrialState.PLANNED}
    assert run(store, tmp_path, ListPlanner(specs)).complete == 3


def test_a_budget_ends_a_sweep(store: Store, tmp_path: Path) -> None:
    """A wall-clock budget that is already spent lets the first trial end and starts no more."""
    specs = [fake_spec(Task.SLEEP, config=config) for config in range(3)]
    summary = run(store, tmp_path, ListPlanner(specs), budget=Budget(wall_s=0.05))

    assert "budget" in summary.stop_reason
    assert summary.complete < 3


def test_so_many_trials_and_no_more(store: Store, tmp_path: Path) -> None:
    """The run ends when two trials have ended, and before the first if none is asked for; the rest runs later."""
    specs = [fake_spec(Task.FINISH, config=config) for config in range(4)]
    for count in (0, 2):
        summary = run(store, tmp_path, ListPlanner(specs), budget=Budget(max_trials=count))
        assert f"{count} trials have ended" in summary.stop_reason
        assert (summary.launched > 0, summary.trials) == (count > 0, 4)
        assert count <= summary.complete < count + 2
    assert run(store, tmp_path, ListPlanner(specs)).complete == 4


def failing_mkdir(number: int, refusals: float) -> Callable[..., None]:
    """Stands in for ``Path.mkdir``: folders of attempts can be made again after so many refusals."""
    refused, make = itertools.count(), Path.mkdir

    def mkdir(folder: Path, *arguments: Any, **options: Any) -> None:
        if folder.parent.parent.name == "trials" and next(refused) < refusals:
            raise OSError(number, os.strerror(number))
        make(folder, *arguments, **options)

    return mkdir


def fast_clock() -> Callable[[], float]:
    """A clock that goes on by a second a look."""
    seconds = itertools.count(1.0)
    return lambda: next(seconds)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_folder_that_cannot_be_made_is_waited_for(
    number: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt fails of the infrastructure and is tried again; every trial is complete once there is room."""
    specs = [fake_spec(Task.FINISH, config=config) for config in range(2)]
    refusing = failing_mkdir(number, refusals=3)
    monkeypatch.setattr(Path, "mkdir", refusing)
    summary = run(store, tmp_path, ListPlanner(specs), clock_s=fast_clock())

    assert (summary.complete, summary.failed, summary.stop_reason) == (2, 0, "")
    kinds = [
        attempt.failure.kind for spec in specs for attempt in store.attempts_of_trial(spec.trial_id) if attempt.failure
    ]
    assert kinds == [FailureKind.INFRASTRUCTURE] * 3


def test_a_folder_that_can_never_be_made_ends_the_sweep_and_fails_no_trial(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names the folder and what is wrong; with room again the same command completes the sweep."""
    specs = [fake_spec(Task.FINISH, config=config) for config in range(3)]
    refusing = failing_mkdir(errno.ENOSPC, refusals=10**6)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", refusing)
        summary = run(store, tmp_path, ListPlanner(specs), clock_s=fast_clock())
    assert (summary.complete, summary.failed) == (0, 0)
    assert "No space left on device" in summary.stop_reason
    assert run(store, tmp_path, ListPlanner(specs)).complete == 3


def test_a_store_on_a_full_disk_ends_a_run_and_loses_nothing(tmp_path: Path) -> None:
    """The error says so in one line; with room again, the next run adopts what had reached the disk."""
    specs = [fake_spec(Task.FINISH, config=config) for config in range(4)]
    where = tmp_path / "runs" / "stnbench.db"

    class FillAfterFirst(Observer):
        """Lets the store grow no further when the first trial has ended."""

        def __init__(self, store: Store) -> None:
            self.store = store

        @override
        def ended(self, end: EndedAttempt) -> None:
            with self.store._database.reading() as connection:
                connection.exec_driver_sql("PRAGMA max_page_count = 1")

    with Store.open(where, writable=True) as store, pytest.raises(StoreError, match="no space is left"):
        run(store, tmp_path, ListPlanner(specs), FillAfterFirst(store))
    with Store.open(where, writable=True) as store:
        assert len(store.running_attempts()) == 1
        summary = run(store, tmp_path, ListPlanner(specs))
        attempts = [attempt for spec in specs for attempt in store.attempts_of_trial(spec.trial_id)]

    assert (summary.complete, summary.adopted + summary.lost) == (4, 1)
    assert sum(attempt.state is AttemptState.COMPLETE for attempt in attempts) == 4


class Pruning(ListPlanner):
    """Gives up a trial after its first epoch."""

    def __init__(self, specs: Sequence[TrialSpec], hopeless: str) -> None:
        super().__init__(specs)
        self.hopeless = hopeless
        self.known: Sequence[Known] = ()

    @override
    def resume(self, known: Sequence[Known]) -> None:
        self.known = known

    @override
    def should_prune(self, progress: Progress) -> bool:
        return progress.trial_id == self.hopeless


def test_a_hopeless_trial_is_pruned_for_good(store: Store, tmp_path: Path) -> None:
    """It stops at its next step and is not run again; the planner is told its last validation accuracy."""
    hopeless, fine = fake_spec(Task.SLOW_EPOCHS), fake_spec(Task.FINISH)
    planner = Pruning([hopeless, fine], hopeless.trial_id)
    engine = LocalEngine([SLOT], tmp_path / "logs", command=FAKE_WORKER)
    try:
        summary = run(store, tmp_path, planner, engine=engine, sweep=PRUNED_SWEEP)
    finally:
        engine.close()

    assert (summary.complete, summary.failed) == (1, 0)
    assert store.trial_states([hopeless.trial_id]) == {hopeless.trial_id: TrialState.PRUNED}
    told = {observation.trial_id: observation for observation in planner.told}
    assert told[hopeless.trial_id].state is TrialState.PRUNED
    assert told[hopeless.trial_id].validation_accuracy == pytest.approx(fake_accuracy(hopeless) / 2)
    again = Pruning([hopeless, fine], hopeless.trial_id)
    assert run(store, tmp_path, again, sweep=PRUNED_SWEEP).launched == 0
    assert {known.planned.spec.trial_id: known.state for known in again.known} == {
        hopeless.trial_id: TrialState.PRUNED,
        fine.trial_id: TrialState.COMPLETE,
    }
    assert len(again.told) == 2


@pytest.mark.thorough
def test_paused_trials_go_on_from_their_checkpoints(store: Store, tmp_path: Path) -> None:
    """Every pause is an attempt, and the next one has its checkpoint; a run that was stopped between goes on alike.

    In the end one of four is complete, of those that a rung let pass, and the others are paused for good.
    """
    specs = [fake_spec(Task.SLOW_EPOCHS, epochs=3, config=config) for config in range(4)]
    sweep = SweepSpec(name="frozen", question="?", pruner=FreezeThawPrunerSpec(reduction_factor=2))
    judged = [PruningPlanner(ListPlanner(specs), FreezeThawJudge(FreezeThawPrunerSpec(reduction_factor=2)), sweep)]
    judged += [PruningPlanner(ListPlanner(specs), FreezeThawJudge(FreezeThawPrunerSpec(reduction_factor=2)), sweep)]
    engine = LocalEngine([SLOT], tmp_path / "logs", command=FAKE_WORKER)
    try:
        first = run(store, tmp_path, judged[0], engine=engine, sweep=sweep, budget=Budget(max_trials=2))
        last = run(store, tmp_path, judged[1], engine=engine, sweep=sweep)
    finally:
        engine.close()

    assert "2 trials have ended" in first.stop_reason
    assert (last.complete + last.pruned, last.failed) == (4, 0)
    assert last.complete >= 1
    best = max(specs, key=fake_accuracy)
    attempts = store.attempts_of_trial(best.trial_id)
    assert attempts[-1].state is AttemptState.COMPLETE
    assert {attempt.state for attempt in attempts[:-1]} <= {AttemptState.PRUNED, AttemptState.STOPPED}
    earlier = [attempt.state for spec in specs for attempt in store.attempts_of_trial(spec.trial_id)[:-1]]
    assert AttemptState.PRUNED in earlier, "none was paused and went on"


def test_another_sweep_trains_a_pruned_trial_on(store: Store, tmp_path: Path) -> None:
    """From the checkpoint of the attempt that was pruned, to its end; the sweep that pruned it is not asked."""
    spec = fake_spec(Task.SLOW_EPOCHS)
    engine = LocalEngine([SLOT], tmp_path / "logs", command=FAKE_WORKER)
    try:
        pruned = run(store, tmp_path, Pruning([spec], spec.trial_id), engine=engine, sweep=PRUNED_SWEEP)
    finally:
        engine.close()
    folder = RunsLayout(tmp_path / "runs").attempt(spec.trial_id, 1)
    AttemptLayout(folder).checkpoint.write_bytes(b"weights of the first epoch")
    engine_of_other = NotingEngine(SLOT)
    other = run(store, tmp_path, ListPlanner([spec]), engine=engine_of_other)
    again = run(store, tmp_path, Pruning([spec], spec.trial_id), sweep=PRUNED_SWEEP)

    assert (pruned.pruned, pruned.complete) == (1, 0)
    assert (other.launched, other.complete) == (1, 1)
    assert [launch.resume_from for launch in engine_of_other.launches] == [(str(folder),)]
    assert (again.launched, again.complete, again.pruned) == (0, 1, 0)


def test_checkpoints_of_all_but_the_best_configurations_are_dropped(store: Store, tmp_path: Path) -> None:
    """With room for one configuration, the checkpoints of its trials stay and those of the other complete trials go.

    Their results and probabilities, which a committee is made of, stay.
    """
    specs = [fake_spec(Task.FINISH, config=config, seed=seed) for config in range(3) for seed in (1, 2)]
    means = {spec.config_id: fake_accuracy(spec.with_seed(1)) + fake_accuracy(spec.with_seed(2)) for spec in specs}
    best = max(means, key=lambda config: means[config])
    run(store, tmp_path, ListPlanner(specs), keep_checkpoints=1)
    layout = RunsLayout(tmp_path / "runs")
    folders = [AttemptLayout(layout.attempt(spec.trial_id, 1)) for spec in specs]
    for folder in folders:
        folder.probabilities("validation").write_bytes(b"shares")
    kept = {spec.config_id for spec, folder in zip(specs, folders, strict=True) if folder.checkpoint.exists()}
    assert kept == {best}

    drop_checkpoints(store, SWEEP.name, layout, keep=0)
    assert not any(folder.checkpoint.exists() for folder in folders)
    assert all(folder.result.exists() and folder.probabilities("validation").exists() for folder in folders)


def test_checkpoints_stay_where_no_score_says_which_are_best(store: Store, tmp_path: Path) -> None:
    """Trials that hold nothing out have no score to be chosen by: none of theirs is dropped."""
    specs = [dataclasses.replace(fake_spec(Task.FINISH, config=config), split=AllSplitSpec()) for config in range(2)]
    run(store, tmp_path, ListPlanner(specs), keep_checkpoints=1)
    layout = RunsLayout(tmp_path / "runs")
    assert all(AttemptLayout(layout.attempt(spec.trial_id, 1)).checkpoint.exists() for spec in specs)


def test_a_trial_with_views_starts_from_the_weights_of_the_one_without(store: Store, tmp_path: Path) -> None:
    """It is launched with the folder of the other's attempt; one that nobody trained before starts from nothing."""
    plain, other = (fake_spec(Task.FINISH, config=config) for config in (0, 1))
    run(store, tmp_path, ListPlanner([plain]))
    viewed = [dataclasses.replace(spec, tta=TtaSpec(shift=0.1)) for spec in (plain, other)]
    run(store, tmp_path, ListPlanner(viewed), engine=(engine := NotingEngine(SLOT)))
    folder = RunsLayout(tmp_path / "runs").attempt(plain.trial_id, 1)
    assert [launch.resume_from for launch in engine.launches] == [(str(folder),), ()]
