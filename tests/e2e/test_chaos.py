"""A sweep that is broken at random, again and again, ends as if nothing had happened.

``CHAOS_TRIALS=60 CHAOS_FAULTS=200 CHAOS_SEED=1`` in the environment make it the long version (``make chaos``).
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from chaos import KINDS, Chaos
from commands import Workplace
from disks import Disk, disk_in

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

TRIALS = int(os.environ.get("CHAOS_TRIALS", "3"))
FAULTS = int(os.environ.get("CHAOS_FAULTS", "6"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
TIMEOUT_S = 60 + 15 * (TRIALS + FAULTS)

SWEEP = """\
question: Does it survive?
base:
  scale: smoke
  dataset.tracks_per_class: 2
  dataset.test_tracks_per_class: 1
  split.tracks_per_class: 1
  training.epochs: {epochs}
  locnet@locnet1: conv
  locnet1.sizes: [100, 100, 50]
axes:
  transformer: [affine, scale_translation]
seeds: {seeds}
"""


@pytest.fixture
def calm(tmp_path: Path, shared_data: Path) -> Workplace:
    """Where the sweep ran to its end and nothing disturbed it."""
    calm = Workplace(tmp_path / "calm", shared_data)
    (calm.folder / "sweeps").mkdir(parents=True)
    write_sweep(calm)
    undisturbed = calm.run("sweep", "chaos", "--no-mlflow", timeout_s=TIMEOUT_S)
    assert undisturbed.returncode == 0, undisturbed.stderr
    return calm


@pytest.fixture
def disks(workplace: Workplace) -> Iterator[tuple[Disk, Disk]]:
    """The disks of the trials and of all else in the runs folder."""
    write_sweep(workplace)
    with disk_in(workplace.runs) as whole, disk_in(workplace.runs / "trials") as trials:
        yield trials, whole


def write_sweep(workplace: Workplace) -> None:
    """A sweep of three configurations (two and their baseline)."""
    text = SWEEP.format(epochs=40 if TRIALS > 3 else 12, seeds=TRIALS // 3)
    (workplace.folder / "sweeps" / "chaos.yaml").write_text(text)


def query(workplace: Workplace, sql: str, database: str = "stnbench.db") -> list[tuple[object, ...]]:
    """Rows of a database in the runs folder."""
    with closing(sqlite3.connect(workplace.runs / database)) as connection:
        return connection.execute(sql).fetchall()


def outcomes(workplace: Workplace) -> dict[object, tuple[object, ...]]:
    """What the store says of every trial: state, number of results, and scores, by trial."""
    sql = (
        "select t.id, t.state, (select count(*) from outcomes o where o.trial_id = t.id), s.correct, s.images, s.loss "
        "from trials t left join scores s on s.trial_id = t.id and s.split = 'validation'"
    )
    return {row[0]: row[1:] for row in query(workplace, sql)}


def epochs(workplace: Workplace) -> set[tuple[object, ...]]:
    """What attempts have reported of every epoch; those that went through the same one must have said the same."""
    sql = (
        "select a.trial_id, e.epoch, e.step, e.train_loss, e.validation_loss, e.validation_accuracy, e.learning_rate "
        "from epochs e join attempts a on a.id = e.attempt_id"
    )
    return set(query(workplace, sql))


@pytest.mark.timeout(2 * TIMEOUT_S)
def test_a_broken_sweep_ends_as_an_undisturbed_one(
    calm: Workplace, workplace: Workplace, disks: tuple[Disk, Disk]
) -> None:
    """Under random faults every trial ends complete exactly once, with the scores and epochs of a calm run.

    Workers and the orchestrator are killed (kill -9), pipes break and MLflow's database is locked. A full disk of the
    trials fails their attempts as infrastructure; that of the store is waited out: no sweep ends because of it. The
    same command follows each end. At last no process is left, and MLflow shows nothing as running.
    """
    chaos = Chaos(workplace, "chaos", SEED, pause_s=(1.0, 6.0) if TRIALS > 3 else (0.3, 1.0), disks=disks)
    chaos.run(FAULTS, timeout_s=TIMEOUT_S)
    print(f"\n{chaos.table()}")
    print("attempts:", query(workplace, "select state, failure_kind, count(*) from attempts group by 1, 2"))

    expected = outcomes(calm)
    assert len(expected) == TRIALS
    assert {row[:2] for row in expected.values()} == {("complete", 1)}
    assert outcomes(workplace) == expected
    assert epochs(workplace) == epochs(calm)
    assert chaos.faults.keys() == KINDS.keys()
    assert chaos.effects["trials' disk full", "attempt infrastructure"] > 0
    assert [effect for kind, effect in chaos.effects if kind == "whole disk full" and "orchestrator" in effect] == []
    assert "Traceback" not in workplace.log()
    assert chaos.survivors() == []
    assert query(workplace, "select count(*) from runs where status = 'RUNNING'", "mlflow.db") == [(0,)]


@pytest.mark.parametrize("may_mount", [True, False])
def test_a_full_disk_is_full(tmp_path: Path, may_mount: bool) -> None:
    """Whatever stands in for it, a process cannot write a checkpoint there, and can once there is room again."""
    program = "import sys; sys.stdin.readline(); open(sys.argv[1], 'wb').write(bytes(100_000))"
    with disk_in(tmp_path / "disk", may_mount=may_mount) as disk:
        codes = []
        for is_full in (True, False):
            command = [sys.executable, "-c", program, str(tmp_path / "disk" / "file")]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                if is_full:
                    disk.fill([psutil.Process(process.pid)])
                process.communicate("\n")
            disk.free()
            codes.append(process.returncode)

    assert codes == [1, 0]
