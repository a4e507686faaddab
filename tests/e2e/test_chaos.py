"""A sweep that is broken at random, again and again, ends as if nothing had happened.

``CHAOS_TRIALS=60 CHAOS_FAULTS=200 CHAOS_SEED=1`` in the environment make it the long version (``make chaos``).
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from chaos import Chaos
from commands import Workplace

pytestmark = pytest.mark.slow

TRIALS = int(os.environ.get("CHAOS_TRIALS", "3"))
FAULTS = int(os.environ.get("CHAOS_FAULTS", "4"))
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


def write_sweep(workplace: Workplace, name: str) -> None:
    """A sweep of three cells (two and their twin)."""
    text = SWEEP.format(epochs=24 if TRIALS > 3 else 6, seeds=TRIALS // 3)
    (workplace.folder / "sweeps" / f"{name}.yaml").write_text(text)


def outcomes(workplace: Workplace) -> dict[str, tuple[object, ...]]:
    """What the store says of every trial: state, number of results, and scores, by trial."""
    sql = (
        "select t.id, t.state, (select count(*) from outcomes o where o.trial_id = t.id), s.correct, s.images, s.loss "
        "from trials t left join scores s on s.trial_id = t.id and s.split = 'validation'"
    )
    with closing(sqlite3.connect(workplace.runs / "stnbench.db")) as connection:
        return {row[0]: row[1:] for row in connection.execute(sql)}


@pytest.mark.timeout(2 * TIMEOUT_S)
def test_a_broken_sweep_ends_as_an_undisturbed_one(workplace: Workplace, tmp_path: Path) -> None:
    """Under random faults every trial ends complete exactly once, with the scores of a run that nothing disturbed.

    Workers and the orchestrator are killed (kill -9), pipes break, the disk is full and MLflow's database locked, with
    the same command after each end. In the end no process is left, and MLflow shows nothing as running.
    """
    write_sweep(workplace, "chaos")
    calm = Workplace(tmp_path / "calm", workplace.data)
    (calm.folder / "sweeps").mkdir(parents=True)
    write_sweep(calm, "chaos")
    undisturbed = calm.run("sweep", "chaos", timeout_s=TIMEOUT_S)
    assert undisturbed.returncode == 0, undisturbed.stderr

    chaos = Chaos(workplace, "chaos", SEED, pause_s=(1.0, 6.0))
    chaos.run(FAULTS, timeout_s=TIMEOUT_S)

    expected = outcomes(calm)
    assert len(expected) == TRIALS
    assert {row[:2] for row in expected.values()} == {("complete", 1)}
    assert outcomes(workplace) == expected
    assert chaos.survivors() == []
    with closing(sqlite3.connect(workplace.runs / "mlflow.db")) as connection:
        assert connection.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)
    print(f"\n{chaos.faults.total()} faults in {chaos.starts} runs: {dict(chaos.faults)}")
