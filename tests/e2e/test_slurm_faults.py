"""Faults at random under the slurm engine alone, with trials that train nothing: each attempt and trial ends once."""

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from commands import patient
from fake_slurm import FakeSlurm
from fake_trials import Task, fake_spec

from stnbench.engines import Ending, Finished, Launch, Lost, Stopped
from stnbench.engines.slurm import SlurmEngine
from stnbench.engines.spool import Spool
from stnbench.spec.slurm import SlurmOptions
from stnbench.trials.files import load_result

pytestmark = [pytest.mark.slow, pytest.mark.scheduler, pytest.mark.timeout(patient(600)), pytest.mark.thorough]

FAKE_WORKER = (sys.executable, str(Path(__file__).parents[1] / "support" / "fake_worker.py"))
TRIALS = int(os.environ.get("CHAOS_TRIALS", "24"))
OPTIONS = SlurmOptions(
    jobs=3,
    trials_per_job=2,
    cpus=2,
    heartbeat="0.5s",
    lost_after="4s",
    ask_every="1s",
    answer_within="2s",
    orphaned_after="20s",
)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    """A scheduler whose programs come first on PATH."""
    slurm = FakeSlurm(tmp_path / "scheduler")
    monkeypatch.setenv("PATH", slurm.path)
    yield slurm
    slurm.close()


class Campaign:
    """Trials on a slurm engine that is broken at random; what ends without a result is submitted again."""

    def __init__(self, slurm: FakeSlurm, folder: Path, seed: int) -> None:
        self.slurm = slurm
        self.folder = folder
        self.spool = Spool(folder / "spool")
        self.dice = random.Random(seed)
        self.sessions = 0
        self.attempts = 0
        self.trials = TRIALS
        self.open = list(range(TRIALS))
        self.running: dict[str, int] = {}
        self.ended: Counter[str] = Counter()
        self.done: dict[int, str] = {}
        self.faults: Counter[str] = Counter()
        self.halted: list[psutil.Process] = []
        self.kinds: dict[str, Callable[[], bool]] = {
            "worker killed": self.kill_worker,
            "host killed": lambda: self.signal_host(signal.SIGKILL),
            "host told USR1": lambda: self.signal_host(signal.SIGUSR1),
            "host told TERM": lambda: self.signal_host(signal.SIGTERM),
            "host halted": self.halt_host,
            "node gone": lambda: self.kill_node(is_noticed=True),
            "node gone unnoticed": lambda: self.kill_node(is_noticed=False),
            "spool cleared": self.clear_spool,
            "events garbled": self.garble_events,
            "orchestrator killed": self.restart,
            **{f"scheduler: {mode}": partial(self.say, mode) for mode in ("silent", "garbage", "down", "refuse")},
        }
        self.engine = self.start()

    def start(self) -> SlurmEngine:
        """An orchestrator on the spool."""
        self.sessions += 1
        return SlurmEngine(
            self.spool.root, OPTIONS, session=f"s{self.sessions}", command=FAKE_WORKER, warn=lambda _: None
        )

    def run(self, timeout_s: float) -> None:
        """Break something every second or so until every trial is done, and every kind of fault has come."""
        deadline = time.monotonic() + timeout_s
        next_fault_s = time.monotonic() + 4
        while len(self.done) < self.trials:
            assert time.monotonic() < deadline, f"{len(self.done)} of {self.trials} done; {self.faults}; {self.running}"
            if len(self.open) < 2 and self.faults.keys() < self.kinds.keys():
                self.open.append(self.trials)
                self.trials += 1
            self.submit()
            for event in self.engine.poll(0.1):
                if isinstance(event, Ending):
                    self.end(event)
            if time.monotonic() > next_fault_s:
                self.mend()
                if self.faults.total() < 2 * len(self.kinds):
                    self.break_something()
                next_fault_s = time.monotonic() + self.dice.uniform(0.5, 2.0)

    def submit(self) -> None:
        """Fill free slots."""
        taken = {attempt.slot.name for attempt in self.engine._attempts.values()}
        for slot in self.engine.slots:
            if slot.name not in taken and self.open:
                trial = self.open.pop(0)
                self.attempts += 1
                token = f"s{self.sessions}-{self.attempts}"
                folder = self.folder / token
                folder.mkdir()
                spec = fake_spec(Task.SLOW_EPOCHS, seed=trial + 1, epochs=6)
                self.engine.submit(slot, Launch(spec=spec, token=token, folder=str(folder), data_root=str(self.folder)))
                self.running[token] = trial

    def end(self, event: Ending) -> None:
        """One ending an attempt, and one result a trial."""
        self.ended[event.token] += 1
        assert event.token in self.running, f"{event} ends an attempt a second time"
        trial = self.running.pop(event.token)
        if isinstance(event, Finished):
            assert trial not in self.done
            assert load_result(self.folder / event.token / "result.json").token == event.token
            self.done[trial] = event.token
        else:
            assert isinstance(event, Lost | Stopped), event
            self.open.append(trial)

    def mend(self) -> None:
        """Let the scheduler answer, and what was halted go on."""
        self.say("well")
        for process in self.halted:
            if process.is_running():
                process.send_signal(signal.SIGCONT)

    def break_something(self) -> None:
        """Each kind of fault once before any comes twice."""
        fewest = min(self.faults[kind] for kind in self.kinds)
        kind = self.dice.choice([kind for kind in self.kinds if self.faults[kind] == fewest])
        if self.kinds[kind]():
            self.faults[kind] += 1

    def hosts(self) -> list[tuple[str, psutil.Process]]:
        """Jobs that run, with the process of each."""
        found = []
        for name, job in self.slurm.jobs().items():
            with suppress(psutil.NoSuchProcess):
                if job["state"] == "RUNNING":
                    found.append((name, psutil.Process(job["pid"])))
        return found

    def signal_host(self, number: signal.Signals) -> bool:
        """Tell a job that has its handlers already."""
        ready = {seen.hello.pid for seen in self.spool.hosts().values() if not seen.hello.has_left}
        hosts = [process for _, process in self.hosts() if process.pid in ready]
        if hosts:
            self.dice.choice(hosts).send_signal(number)
        return bool(hosts)

    def halt_host(self) -> bool:
        """Halt a job's host until it is believed dead; it goes on with the fault that comes next but one or so."""
        before = {process.pid for process in self.halted}
        hosts = [process for _, process in self.hosts() if process.pid not in before]
        if hosts:
            self.halted.append(self.dice.choice(hosts))
            self.halted[-1].send_signal(signal.SIGSTOP)
            deadline = time.monotonic() + 6  # longer than lost_after
            while time.monotonic() < deadline:
                for event in self.engine.poll(0.1):
                    if isinstance(event, Ending):
                        self.end(event)
        return bool(hosts)

    def kill_worker(self) -> bool:
        """Kill -9 a worker of a job."""
        with suppress(psutil.NoSuchProcess):
            workers = [child for _, host in self.hosts() for child in host.children()]
            if workers:
                self.dice.choice(workers).kill()
                return True
        return False

    def kill_node(self, *, is_noticed: bool) -> bool:
        """Kill -9 everything of a job."""
        hosts = self.hosts()
        if hosts:
            self.slurm.kill_node(self.dice.choice(hosts)[0], is_noticed=is_noticed)
        return bool(hosts)

    def clear_spool(self) -> bool:
        """Remove what belongs to an attempt, as somebody who tidies up does."""
        if not self.running:
            return False
        token = self.dice.choice(sorted(self.running))
        shutil.rmtree(self.spool.attempt(token), ignore_errors=True)
        for name in ("queue", "claims"):
            for path in (self.spool.root / name).glob(f"*{token}*"):
                path.unlink(missing_ok=True)
        return True

    def garble_events(self) -> bool:
        """Write a line that is no message where a host reports."""
        if not self.running:
            return False
        path = self.spool.attempt(self.dice.choice(sorted(self.running))) / "events"
        if path.exists():
            with path.open("ab") as file:
                file.write(b"\x00garbage\n")
        return path.exists()

    def say(self, mode: str) -> bool:
        """Let the scheduler behave so."""
        self.slurm.say(mode)
        return True

    def restart(self) -> bool:
        """Forget the engine as a killed orchestrator does, and start another; results on the disk are adopted."""
        before, self.engine = self.engine, self.start()
        before._scheduler.drop()
        for token, trial in list(self.running.items()):
            del self.running[token]
            self.ended[token] += 1
            result = self.folder / token / "result.json"
            if result.exists() and load_result(result).token == token:
                assert trial not in self.done
                self.done[trial] = token
            else:
                self.open.append(trial)
        return True


@pytest.mark.parametrize("seed", [int(os.environ.get("CHAOS_SEED", "1"))])
def test_under_faults_at_random_each_trial_is_done_once(slurm: FakeSlurm, tmp_path: Path, seed: int) -> None:
    """Fourteen kinds of faults, each at least once; then nothing is left, neither in the queue nor of processes."""
    campaign = Campaign(slurm, tmp_path, seed)
    campaign.run(timeout_s=patient(400))
    left = [process for _, host in campaign.hosts() for process in (host, *host.children(recursive=True))]
    campaign.mend()
    campaign.engine.close()
    print(f"\n{campaign.attempts} attempts, {campaign.sessions} orchestrators: {dict(campaign.faults)}")

    assert campaign.faults.keys() == campaign.kinds.keys()
    assert sorted(campaign.done) == list(range(campaign.trials))
    assert set(campaign.ended.values()) == {1}
    assert campaign.spool.queued() == {}
    assert slurm.running() == []
    gone, alive = psutil.wait_procs(left, timeout=10)
    assert alive == [], gone
