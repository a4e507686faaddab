"""Two sweeps that share a store on PostgreSQL and one trial, killed at random."""

import contextlib
import itertools
import json
import multiprocessing
import multiprocessing.context
import os
import random
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import fake_trials
import psutil
from fake_trials import Task, fake_spec
from postgres import connected
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from tiny_sweeps import ListPlanner
from typing_extensions import override

from stnbench.core.errors import StoreError
from stnbench.core.files import STORE_VARIABLE, RunsLayout
from stnbench.engines import Engine, Slot
from stnbench.engines.local import LocalEngine
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration.asking import Budget, RunOptions
from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.orchestration.runner import Runner
from stnbench.orchestration.session import SessionOptions, open_session
from stnbench.spec.result import AttemptState, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord

SIDES = ("left", "right")
KINDS = {"orchestrator killed": 3, "worker killed": 2, "connections ended": 1}
"""Every kind of fault, and how often it comes beside the others."""

FAKE_WORKER = (sys.executable, str(Path(fake_trials.__file__).parent / "fake_worker.py"))
OWN_TRIALS = 2
PATIENCE_S = 5.0
CANNOT_START = 2
CUT = ("was lost", "cannot be reached")
SHARED_EPOCHS, OWN_EPOCHS = 12, 5
"""Epochs of fake trials, 0.2 s each: the shared trial takes longest, so that most faults find it running."""


def specs_of(number: int, side: str) -> tuple[TrialSpec, ...]:
    """The trials of a sweep of a round: first the one that both sweeps have, then its own."""
    shared = fake_spec(Task.SLOW_EPOCHS, seed=number, epochs=SHARED_EPOCHS, config=0)
    config = 1 + SIDES.index(side)
    own = [
        fake_spec(Task.SLOW_EPOCHS, seed=100 * number + one, epochs=OWN_EPOCHS, config=config)
        for one in range(OWN_TRIALS)
    ]
    return (shared, *own)


class Printer(Observer):
    """Prints what happens, for the log of a failed test."""

    @override
    def launched(self, attempt: RunningAttempt) -> None:
        say(f"begin {attempt.record.token} of {attempt.record.trial_id[:8]}, attempt {attempt.record.number}")

    @override
    def ended(self, end: EndedAttempt) -> None:
        say(f"end {end.attempt.record.token}: {end.state}, {end.failure}")

    @override
    def changed(self, trial_ids: Sequence[str], state: TrialState) -> None:
        say(f"elsewhere: {', '.join(one[:8] for one in trial_ids)} {state}")


def say(line: str) -> None:
    """Print a line with the time."""
    print(f"{time.monotonic():.2f} {line}", flush=True)


def has_workers(number: int) -> bool:
    """Whether the trials of a round run in worker processes; in the others, in the orchestrator."""
    return number % 3 == 0


def without_training() -> None:
    """Let attempts in this process train nothing."""
    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = fake_trials.run_fake_trial  # type: ignore[attr-defined]
    sys.modules["stnbench.trials.run"] = stand_in


def run_side(number: int, side: str) -> int:
    """Run one sweep of a round to its end, and return the exit code: 0 if every trial is complete."""
    layout = RunsLayout.from_environment()
    sweep = SweepSpec(name=f"{side}-{number}", question="Does it survive beside another?", baselines=False)
    slots = [Slot(name=f"cpu{index}", device="cpu", threads=1) for index in range(2)]
    without_training()
    say(f"process {os.getpid()}")
    with open_session(layout, SessionOptions(sweep=sweep.name)) as session:
        engine: Engine = InlineEngine(slots[0])
        if has_workers(number):
            engine = LocalEngine(slots, layout.logs / sweep.name, command=FAKE_WORKER)
        try:
            runner = Runner(
                sweep=sweep,
                planner=ListPlanner(specs_of(number, side)),
                store=session.store,
                engine=engine,
                layout=layout,
                identity=session._identity,
                options=RunOptions(data_root=layout.root, budget=Budget(wall_s=120.0)),
                observers=[Printer()],
            )
            session.store.wait.is_asked_to_stop = lambda: runner.is_asked_to_stop
            summary = runner.run()
        finally:
            engine.close()
    return 0 if summary.complete == summary.trials else 1


def run_in_child(url: str, runs: Path, log: Path, number: int, side: str) -> None:
    """Run one sweep of a round in a process of its own that prints to a log."""
    with log.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ |= {STORE_VARIABLE: url, "STNBENCH_RUNS": str(runs)}
    try:
        code = run_side(number, side)
    except StoreError as error:  # as the command ends, with one line and code 2
        say(f"error: {error}")
        code = CANNOT_START
    sys.exit(code)


def forks() -> "multiprocessing.context.ForkServerContext":
    """Processes that start in a moment, since a server that has imported everything forks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shared_sweeps", "psycopg", "alembic.command", "sqlalchemy.dialects.postgresql"])
    return context


@dataclass(slots=True)
class Side:
    """One sweep of a round: its process, started again whenever it was killed."""

    url: str
    runs: Path
    number: int
    side: str
    context: "multiprocessing.context.ForkServerContext"
    process: "multiprocessing.context.ForkServerProcess | None" = None
    starts: int = 0
    is_done: bool = False

    @property
    def log(self) -> Path:
        """What its processes have printed."""
        return self.runs.parent / f"{self.side}-{self.number}.log"

    def look(self) -> None:
        """Start the process if it does not run and is not done.

        Raises: AssertionError where it ended otherwise than complete or killed.
        """
        if self.is_done:
            return
        if self.process is not None:
            code = self.process.exitcode
            if code is None:
                return
            # A connection that is ended while the store is opened ends the command; later ones are made again.
            is_cut = code == CANNOT_START and any(words in self.log.read_text() for words in CUT)
            assert is_cut or code in {0, -signal.SIGKILL}, (
                f"{self.side}-{self.number} ended with {code}:\n{self.log.read_text()}"
            )
            self.is_done = code == 0
        if not self.is_done:
            self.starts += 1
            given = (self.url, self.runs, self.log, self.number, self.side)
            self.process = self.context.Process(target=run_in_child, args=given)
            self.process.start()

    def kill(self) -> bool:
        """Kill the orchestrator; whether there was one."""
        if self.process is None or self.process.exitcode is not None:
            return False
        self.process.kill()
        self.process.join()
        return True

    def kill_worker(self, dice: random.Random) -> bool:
        """Kill one of its workers; whether there was one."""
        if self.process is None or self.process.exitcode is not None:
            return False
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
            workers = [child for child in children if any("fake_worker" in word for word in child.cmdline())]
            if workers:
                dice.choice(workers).kill()
                return True
        return False


@dataclass(slots=True)
class SharedChaos:
    """Rounds of two sweeps at once, under faults that are reproducible by seed up to the machine's timing."""

    url: str
    folder: Path
    seed: int
    pause_s: tuple[float, float] = (0.3, 2.0)
    faults: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    rounds: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    context: "multiprocessing.context.ForkServerContext" = field(default_factory=forks)
    changed_hands: int = 0
    """Rounds whose shared trial was begun by one sweep and completed by another process."""
    second_results: int = 0
    """Results that were written to the disk beside the one that the store took."""

    def run(self, kills: int, *, timeout_s: float) -> None:
        """Run rounds until there were so many faults, and check each round.

        Raises: TimeoutError; AssertionError where a trial is not complete exactly once.
        """
        dice = random.Random(self.seed)
        deadline = time.monotonic() + timeout_s
        while self.faults.total() < kills:
            self.rounds += 1
            self._run_round(self.rounds, kills, dice, deadline)
            say(f"round {self.rounds}: {self.faults.total()} faults so far, every trial complete exactly once")

    def _run_round(self, number: int, kills: int, dice: random.Random, deadline: float) -> None:
        # In every other round the two share a runs folder, as on one machine; else each has its own.
        names = ("both", "both") if number % 2 else SIDES
        for name in names:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        pairs = zip(names, SIDES, strict=True)
        sides = [Side(self.url, self.folder / name / "runs", number, side, self.context) for name, side in pairs]
        try:
            while not all(side.is_done for side in sides):
                assert time.monotonic() < deadline, f"late:\n{sides[0].log.read_text()}\n{sides[1].log.read_text()}"
                for side in sides:
                    side.look()
                time.sleep(dice.uniform(*self.pause_s))
                if self.faults.total() < kills:
                    wait_for_work(self.url, 1)
                    self._break(sides, dice)
        finally:
            for side in sides:
                side.kill()
        self.starts += sum(side.starts for side in sides)
        self._check(number, sides)

    def _break(self, sides: list[Side], dice: random.Random) -> None:
        kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
        side = dice.choice(sides)
        match kind:
            case "orchestrator killed":
                done = side.kill()
            case "worker killed":
                done = side.kill_worker(dice)
            case _:
                done = end_some_connections(self.url, dice) > 0
        self.faults[kind] += done

    def _check(self, number: int, sides: list[Side]) -> None:
        for side in sides:
            assert "Traceback" not in side.log.read_text(), side.log.read_text()
        layouts = {side.runs: RunsLayout(side.runs) for side in sides}
        with Store.open(self.url, writable=False) as store:
            assert store.running_attempts() == []
            for record in store.sweeps():
                assert set(record.counts) == {TrialState.COMPLETE}, (record.spec.name, record.counts)
            for spec in {spec for side in SIDES for spec in specs_of(number, side)}:
                attempts = store.attempts_of_trial(spec.trial_id)
                self._check_trial(attempts)
                outcome = store.outcome(spec.trial_id)
                assert outcome is not None
                assert outcome.validation.correct == fake_trials.fake_result(spec, "").validation.correct
                self.attempts.update(attempt.state.value for attempt in attempts)
                results = [
                    layout.attempt(spec.trial_id, attempt.number) / "result.json"
                    for layout in layouts.values()
                    for attempt in attempts
                ]
                self.second_results += sum(path.exists() for path in results) - 1
            shared = store.attempts_of_trial(specs_of(number, SIDES[0])[0].trial_id)
            self.changed_hands += shared[0].state is not AttemptState.COMPLETE

    @staticmethod
    def _check_trial(attempts: list[AttemptRecord]) -> None:
        """Complete exactly once, as the last attempt, and no two attempts at once."""
        assert [attempt.state for attempt in attempts].count(AttemptState.COMPLETE) == 1, attempts
        assert attempts[-1].state is AttemptState.COMPLETE, attempts
        for before, after in itertools.pairwise(attempts):
            assert before.finished_at is not None
            assert before.finished_at <= after.started_at, (before, after)

    def summary(self) -> str:
        """What happened, as lines for ``benchmarks/chaos.md``."""
        lines = [f"{kind}: {count}" for kind, count in sorted(self.faults.items())]
        lines += [
            f"{self.faults.total()} faults in {self.rounds} rounds of two sweeps, {self.starts} starts of a sweep"
        ]
        lines += [f"attempts: {json.dumps(dict(sorted(self.attempts.items())))}"]
        lines += [f"shared trials completed by another attempt than the first: {self.changed_hands}"]
        lines += [f"results on the disk that the store did not take: {self.second_results}"]
        return "\n".join(lines)


def end_some_connections(url: str, dice: random.Random) -> int:
    """End some connections to the database, as a network that fails; how many."""
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with connected(url) as connection:
        pids = sorted(connection.execute(text(others)).scalars().all())
        chosen = dice.sample(pids, dice.randint(1, len(pids))) if pids else []
        for pid in chosen:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    return len(chosen)


def wait_for_work(url: str, sides: int) -> None:
    """Wait, for a while at most, until so many orchestrators hold the store and a trial runs."""
    names = (
        "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE application_name LIKE 'stnbench process%'"
    )
    deadline = time.monotonic() + PATIENCE_S
    with connected(url) as connection:
        while time.monotonic() < deadline:
            with contextlib.suppress(ProgrammingError):  # there are no tables yet
                running = connection.execute(text("SELECT count(*) FROM attempts WHERE state = 'running'")).scalar_one()
                if running and connection.execute(text(names)).scalar_one() >= sides:
                    return
            time.sleep(0.05)
