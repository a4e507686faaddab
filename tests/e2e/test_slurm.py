"""Sweeps on a Slurm, and what becomes of them when workers, jobs, nodes, the scheduler or the orchestrator die.

The scheduler runs jobs as processes (``fake_slurm``); where a real Slurm is installed, a sweep runs on that as well.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from commands import Workplace, is_alive, kill_orchestrator, patient
from fake_slurm import FakeSlurm
from real_slurm import real_slurm, why_not

pytestmark = [pytest.mark.slow, pytest.mark.timeout(patient(600)), pytest.mark.thorough]

SWEEP = """\
question: Does it survive?
base:
  scale: smoke
  dataset.tracks_per_class: 2
  dataset.test_tracks_per_class: 1
  split.tracks_per_class: 1
  training.epochs: 12
  locnet@locnet1: conv
  locnet1.sizes: [100, 100, 50]
axes:
  transformer: [affine, scale_translation]
seeds: [1]
"""
"""Three trials of some seconds each."""

QUICK = (
    *("engine.cpus=1", "engine.heartbeat=0.5s", "engine.lost_after=6s", "engine.ask_every=1s"),
    *("engine.answer_within=3s", "engine.idle=60s"),
)
"""Jobs and a scheduler that are watched closely."""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    """A scheduler whose programs come first on PATH."""
    slurm = FakeSlurm(tmp_path / "scheduler")
    monkeypatch.setenv("PATH", slurm.path)
    yield slurm
    slurm.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> dict[object, tuple[object, ...]]:
    """What the trials come to in one process that nothing disturbs."""
    place = Workplace(tmp_path_factory.mktemp("calm"), shared_data)
    write_sweep(place)
    # One core, one thread, as the jobs have: sums of other lengths are rounded otherwise.
    command = [sys.executable, "-m", "stnbench.sweep", "survive", "--engine", "inline", "--no-mlflow"]
    core = str(min(os.sched_getaffinity(0)))
    subprocess.run(
        ["taskset", "-c", core, *command], cwd=place.folder, env=place.environment(), check=True, timeout=patient(200)
    )
    return outcomes(place)


def write_sweep(place: Workplace) -> None:
    """The sweep ``survive``."""
    (place.folder / "sweeps").mkdir(exist_ok=True)
    (place.folder / "sweeps" / "survive.yaml").write_text(SWEEP)


def query(place: Workplace, sql: str) -> list[tuple[object, ...]]:
    """Rows of the store."""
    with closing(sqlite3.connect(place.runs / "stnbench.db")) as connection:
        return connection.execute(sql).fetchall()


def outcomes(place: Workplace) -> dict[object, tuple[object, ...]]:
    """Of every trial its state, how many results it has, and its validation score and loss to the last bit."""
    sql = (
        "select t.id, t.state, (select count(*) from outcomes o where o.trial_id = t.id), s.correct, s.images, s.loss "
        "from trials t left join scores s on s.trial_id = t.id and s.split = 'validation'"
    )
    return {row[0]: row[1:] for row in query(place, sql)}


def wait_until(holds: Callable[[], object], place: Workplace, timeout_s: float = 90.0) -> None:
    """Wait until something holds; what the command has printed is in the error otherwise."""
    deadline = time.monotonic() + patient(timeout_s)
    while not holds():
        assert time.monotonic() < deadline, place.log()
        assert "error: " not in place.log(), place.log()
        time.sleep(0.05)


def begun(place: Workplace) -> int:
    """How many epochs the store knows."""
    try:
        return int(str(query(place, "select count(*) from epochs")[0][0]))
    except sqlite3.OperationalError:
        return 0


def job_at_work(slurm: FakeSlurm, place: Workplace) -> tuple[str, psutil.Process]:
    """A job that runs a trial, and the host's process."""
    claims = [path.name for path in (place.runs / "slurm" / "claims").iterdir()]
    for name in slurm.running():
        if any(f"@{name}-" in claim for claim in claims):
            return name, psutil.Process(slurm.jobs()[name]["pid"])
    raise AssertionError(f"no job of {slurm.running()} is at work: {claims}")


def start(place: Workplace, *more: str, jobs: int = 2) -> "subprocess.Popen[str]":
    """Begin the sweep on the scheduler."""
    write_sweep(place)
    return place.start("sweep", "survive", "--engine", "slurm", "--no-mlflow", *QUICK, f"engine.jobs={jobs}", *more)


def processes_of(slurm: FakeSlurm) -> list[psutil.Process]:
    """Every process of every job."""
    hosts = [psutil.Process(slurm.jobs()[name]["pid"]) for name in slurm.running()]
    return [process for host in hosts for process in (host, *host.children(recursive=True))]


def left_of(processes: list[psutil.Process], timeout_s: float = 10.0) -> list[psutil.Process]:
    """Those that still run after so long."""
    deadline = time.monotonic() + patient(timeout_s)
    while (left := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.mark.scheduler
def test_a_sweep_survives_everything_that_dies(
    slurm: FakeSlurm, workplace: Workplace, calm: dict[object, tuple[object, ...]]
) -> None:
    """Each trial is complete exactly once with the results of an undisturbed run in one process.

    In turn a worker is killed, a job gets USR1, a node vanishes (noticed by its heartbeat alone), the scheduler hangs
    and prints garbage, and the orchestrator is killed and started again.
    """
    sweep = start(workplace)
    wait_until(lambda: begun(workplace) > 2, workplace)

    _, host = job_at_work(slurm, workplace)
    worker = next(child for child in host.children() if "stnbench.engines.worker" in " ".join(child.cmdline()))
    worker.kill()
    wait_until(lambda: query(workplace, "select 1 from attempts where state = 'lost'"), workplace)

    name, _ = job_at_work(slurm, workplace)
    slurm.preempt(name)
    wait_until(lambda: query(workplace, "select 1 from attempts where state = 'stopped'"), workplace)
    wait_until(lambda: slurm.jobs()[name]["restarts"] == 1, workplace)

    wait_until(lambda: len(list((workplace.runs / "slurm" / "claims").iterdir())) == 2, workplace)
    name, _ = job_at_work(slurm, workplace)
    slurm.kill_node(name, is_noticed=False)
    wait_until(lambda: len(query(workplace, "select 1 from attempts where state = 'lost'")) == 2, workplace)

    slurm.say("silent")
    workplace.wait_for("gives no answer")
    slurm.say("garbage")
    epochs = begun(workplace)
    wait_until(lambda: begun(workplace) > epochs, workplace)
    still_at_work = kill_orchestrator(sweep)
    slurm.say("well")
    assert not any("stnbench.engines.slurm_job" in " ".join(process.cmdline()) for process in still_at_work)
    adopted = set(slurm.running())
    assert adopted

    log = workplace.log()
    code = start(workplace).wait(timeout=patient(150))
    assert code == 0, log + workplace.log()
    assert outcomes(workplace) == calm
    assert {row[:2] for row in calm.values()} == {("complete", 1)}
    assert query(workplace, "select count(*) from attempts where state = 'complete'") == [(3,)]
    assert query(workplace, "select count(*) from attempts where state in ('running', 'failed')") == [(0,)]
    assert slurm.running() == []
    assert "Traceback" not in log + workplace.log()
    assert list((workplace.runs / "slurm" / "queue").iterdir()) == []


@pytest.mark.scheduler
def test_a_preempted_trial_goes_on_from_its_last_epoch(
    slurm: FakeSlurm, workplace: Workplace, calm: dict[object, tuple[object, ...]]
) -> None:
    """USR1 is no failure: the next attempt repeats no epoch, and the result is that of an undisturbed run."""
    sweep = start(workplace, "transformer=affine", jobs=1)
    wait_until(lambda: begun(workplace) > 5, workplace)
    name, _ = job_at_work(slurm, workplace)
    slurm.preempt(name)
    assert sweep.wait(timeout=patient(120)) == 0, workplace.log()

    assert slurm.jobs()[name]["restarts"] == 1
    assert query(workplace, "select state, count(*) from attempts group by 1 order by 1") == [
        ("complete", 2),
        ("stopped", 1),
    ]
    # The second attempt's result tells of all epochs; those of the first one took the time that they took there.
    sql = "select trial_id, epoch from epochs e join attempts a on a.id = e.attempt_id group by 1, 2"
    assert len(query(workplace, f"{sql} having count(*) > 1")) > 5
    assert query(workplace, f"{sql} having count(distinct train_duration_s) > 1") == []
    mine = outcomes(workplace)
    assert mine == {trial: calm[trial] for trial in mine}
    assert "SIGUSR1" in workplace.log()


@pytest.mark.scheduler
def test_jobs_of_a_killed_orchestrator_go_on_for_the_next_one(slurm: FakeSlurm, workplace: Workplace) -> None:
    """They are not submitted again, and end with the sweep; so does Ctrl-C's end them."""
    sweep = start(workplace)
    wait_until(lambda: begun(workplace) > 2, workplace)
    before = {name: slurm.jobs()[name]["pid"] for name in slurm.running()}
    kill_orchestrator(sweep)
    again = start(workplace)
    epochs = begun(workplace)
    wait_until(lambda: begun(workplace) > epochs, workplace)
    assert before.items() <= {name: slurm.jobs()[name]["pid"] for name in slurm.running()}.items()

    processes = processes_of(slurm)
    again.send_signal(signal.SIGINT)
    assert again.wait(timeout=patient(60)) == 1
    assert "the same command goes on" in workplace.log()
    assert left_of(processes) == []
    assert query(workplace, "select count(*) from attempts where state = 'running'") == [(0,)]


@pytest.mark.scheduler
def test_submissions_that_are_never_answered_cost_no_trial_and_no_extra_job(
    slurm: FakeSlurm, workplace: Workplace
) -> None:
    """Where sbatch submits and hangs, the jobs are found by their name, and none is submitted a second time."""
    slurm.say("accept and hang")
    sweep = start(workplace, "training.epochs=2")
    assert sweep.wait(timeout=patient(120)) == 0, workplace.log()

    assert query(workplace, "select count(*), count(distinct trial_id) from outcomes") == [(3, 3)]
    assert len(slurm.jobs()) <= 3


def test_an_allocation_without_its_gpu_ends_the_sweep_with_job_log_and_remedy(
    slurm: FakeSlurm, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trial fails of it; the reason names the job, where its log is and what to look at."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")
    sweep = start(workplace, "engine.gres=gpu:1")
    workplace.wait_for("cannot work", timeout_s=60)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(timeout=patient(60)) == 1

    assert "1 GPUs were asked for, and 0 can be seen" in workplace.log()
    assert "engine.gres" in workplace.log()
    assert query(workplace, "select count(*) from trials where state = 'failed'") == [(0,)]
    assert "Traceback" not in workplace.log()


@pytest.mark.parametrize("mode", ["refuse", "absent"])
def test_what_slurm_refuses_ends_the_sweep_before_it_begins(
    slurm: FakeSlurm, workplace: Workplace, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with Slurm's own words and the remedy, exit 2, and no attempt in the store."""
    slurm.say("refuse")
    if mode == "absent":
        monkeypatch.setenv("PATH", f"{Path(os.__file__).parent}")
    write_sweep(workplace)
    refused = workplace.run("sweep", "survive", "--engine", "slurm", "--no-mlflow", *QUICK)

    assert refused.returncode == 2, refused.stderr
    assert ("Invalid partition name" if mode == "refuse" else "needs sbatch, squeue, scancel") in refused.stderr
    assert "Traceback" not in refused.stderr
    assert query(workplace, "select count(*) from attempts") == [(0,)]


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real Slurm of this machine; the test is skipped where none is installed, and says so."""
    problem = why_not()
    if problem:
        pytest.skip(f"no Slurm here: {problem} (Debian: munge slurmctld slurmd slurm-client)")
    with real_slurm(tmp_path / "slurm") as configuration:
        monkeypatch.setenv("SLURM_CONF", str(configuration))
        yield


def slurm_says(*words: str) -> str:
    """What a program of Slurm prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=patient(30)).stdout.strip()


@pytest.mark.scheduler
@pytest.mark.usefixtures("real")
def test_on_a_real_slurm_a_preempted_job_is_queued_again_and_a_cancelled_one_replaced(
    workplace: Workplace, calm: dict[object, tuple[object, ...]]
) -> None:
    """Slurm's programs are understood as they are: each trial is complete once, with the results of a calm run."""
    sweep = start(workplace)
    wait_until(lambda: begun(workplace) > 2, workplace)
    claimed = next((workplace.runs / "slurm" / "claims").iterdir()).name.partition("@")[2]
    job = claimed.rpartition("-")[0]
    slurm_says("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: query(workplace, "select 1 from attempts where state = 'stopped'"), workplace)
    wait_until(lambda: "Restarts=1" in slurm_says("scontrol", "show", "job", job), workplace)

    wait_until(lambda: list((workplace.runs / "slurm" / "claims").iterdir()), workplace)
    claimed = next((workplace.runs / "slurm" / "claims").iterdir()).name.partition("@")[2]
    slurm_says("scancel", claimed.rpartition("-")[0])
    assert sweep.wait(timeout=patient(200)) == 0, workplace.log()

    assert outcomes(workplace) == calm
    assert query(workplace, "select count(*) from attempts where state = 'complete'") == [(3,)]
    assert slurm_says("squeue", "--noheader", "--format=%i", "--states=PENDING,RUNNING") == ""
    assert "Traceback" not in workplace.log()
