"""A sweep from the command line: what a user sees, what the store holds, what MLflow shows."""

import json
import re
import shutil
import signal
import sqlite3
from contextlib import closing

import pytest
from commands import Workplace, kill_orchestrator, kill_tree

pytestmark = pytest.mark.slow


def query(workplace: Workplace, database: str, sql: str) -> list[tuple[object, ...]]:
    """Rows of a database in the runs folder, as the sqlite3 tool would show them."""
    with closing(sqlite3.connect(workplace.runs / database)) as connection:
        return connection.execute(sql).fetchall()


def mlflow_accuracies(workplace: Workplace) -> dict[object, object]:
    """The final validation accuracy of every finished run of an attempt in MLflow, by trial."""
    rows = query(
        workplace,
        "mlflow.db",
        "select t.value, m.value from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'trial' "
        "join latest_metrics m on m.run_uuid = r.run_uuid and m.key = 'accuracy/validation_final' "
        "where r.status = 'FINISHED' and r.lifecycle_stage = 'active'",
    )
    return dict(rows)  # type: ignore[arg-type]


def store_accuracies(workplace: Workplace) -> dict[object, object]:
    """The validation accuracy of every complete trial in the store."""
    sql = (
        "select t.id, 1.0 * s.correct / s.images from trials t join scores s on s.trial_id = t.id "
        "where t.state = 'complete' and s.split = 'validation'"
    )
    return dict(query(workplace, "stnbench.db", sql))  # type: ignore[arg-type]


def assert_settled(workplace: Workplace) -> None:
    """Six trials complete once each, the same in MLflow, and nothing shown as running."""
    complete = query(workplace, "stnbench.db", "select trial_id, count(*) from outcomes group by trial_id")
    assert [count for _, count in complete] == [1] * 6
    assert query(workplace, "stnbench.db", "select count(*) from attempts where state = 'running'") == [(0,)]
    assert mlflow_accuracies(workplace) == pytest.approx(store_accuracies(workplace))
    assert query(workplace, "mlflow.db", "select count(*) from runs where status = 'RUNNING'") == [(0,)]


def test_a_sweep_runs_once_and_says_the_same_again(workplace: Workplace) -> None:
    """All trials complete, the reports are written, and the second run trains nothing and prints the same table."""
    first = workplace.run("sweep", "tiny")
    assert first.returncode == 0, first.stderr
    assert_settled(workplace)

    second = workplace.run("sweep", "tiny")
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "start" not in second.stderr
    assert "6 complete already" in second.stderr

    written = {path.name for path in (workplace.folder / "reports" / "tiny").iterdir()}
    assert {"leaderboard.md", "leaderboard.csv", "index.html"} <= written
    report = json.loads(workplace.run("report", "tiny", "--format", "json").stdout)
    assert report["sweep"] == "tiny"
    assert sorted(row["cell"] for row in report["rows"]) == ["affine", "no ST", "scale_translation"]
    assert all(row["n"] == 2 and row["split"] == "validation" for row in report["rows"])
    assert all(row["low"] <= row["mean"] <= row["high"] for row in report["rows"])

    status = json.loads(workplace.run("status", "--json").stdout)
    assert status["sweeps"][0]["sweep"] == "tiny"
    assert (status["sweeps"][0]["trials"], status["sweeps"][0]["complete"]) == (6, 6)

    members = json.loads(workplace.run("report", "tiny", "--committee", "top:2", "--format", "json").stdout)["members"]
    best = sorted((float(str(score)) for score in store_accuracies(workplace).values()), reverse=True)[:2]
    assert [member["mean"] for member in members] == pytest.approx(best, abs=1e-6)
    committee = workplace.run("report", "tiny", "--committee", "cell:affine", "--split", "test")
    assert committee.returncode == 0, committee.stderr
    assert "tiny: an ensemble of 2 (cell:affine)" in committee.stdout
    assert (workplace.folder / "reports" / "tiny" / "ensemble.md").exists()

    trial = str(query(workplace, "stnbench.db", "select id from trials limit 1")[0][0])
    again = json.loads(workplace.run("evaluate", trial[:6], "--json").stdout)
    assert again["accuracy"] == pytest.approx(store_accuracies(workplace)[trial])


@pytest.mark.parametrize("victims", ["the orchestrator", pytest.param("the whole tree", marks=pytest.mark.thorough)])
def test_a_killed_sweep_goes_on_where_it_was(workplace: Workplace, victims: str) -> None:
    """After kill -9 no worker is left, no complete trial runs again, and none is lost."""
    running = workplace.start("sweep", "tiny")
    workplace.wait_for("done ", count=2)
    workplace.wait_for("start ", count=4)
    if victims == "the orchestrator":
        assert kill_orchestrator(running) == []
    else:
        kill_tree(running)
    before = store_accuracies(workplace)
    assert 2 <= len(before) < 6

    resumed = workplace.run("sweep", "tiny")
    assert resumed.returncode == 0, resumed.stderr
    adopted = re.search(r"(\d+) results adopted", resumed.stderr)  # results that reached the disk and not the store
    assert adopted is not None
    assert resumed.stderr.count("start ") == 6 - len(before) - int(adopted[1])
    assert_settled(workplace)
    attempts: dict[object, object] = dict(
        query(workplace, "stnbench.db", "select trial_id, count(*) from attempts group by trial_id")  # type: ignore[arg-type]
    )
    assert all(attempts[trial] == 1 for trial in before)


@pytest.mark.thorough
def test_ctrl_c_stops_a_sweep_cleanly(workplace: Workplace) -> None:
    """One interrupt ends what runs, reports what is there and exits 1; a second sweep is refused meanwhile."""
    running = workplace.start("sweep", "tiny", "training.epochs=40")
    workplace.wait_for("start ", count=2)
    refused = workplace.run("sweep", "tiny")
    assert refused.returncode == 2
    assert f"process {running.pid}" in refused.stderr

    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 1
    assert "SIGINT" in workplace.log()
    states = {state for (state,) in query(workplace, "stnbench.db", "select state from attempts")}
    assert states == {"stopped"}
    assert query(workplace, "mlflow.db", "select count(*) from runs where status = 'RUNNING'") == [(0,)]


def test_a_plan_trains_nothing(workplace: Workplace) -> None:
    """The plan counts configs and trials, prices each network, names what cannot be built, and writes nothing."""
    done = workplace.run("sweep", "tiny", "--plan", "--json", "locnet@locnet2=conv", "dataset.image_size=12")
    plan = json.loads(done.stdout)

    assert (plan["cells"], plan["trials"], plan["complete"]) == (3, 6, 0)
    assert [entry["cell"] for entry in plan["infeasible"]] == ["affine", "scale_translation"]
    assert "pools" in plan["infeasible"][0]["reason"]
    assert next(config for config in plan["cell_list"] if config["baseline"])["parameters"] > 0
    assert not workplace.runs.exists()


@pytest.mark.thorough
def test_the_inline_engine_gives_the_same_numbers(workplace: Workplace) -> None:
    """Where a trial runs does not change its result."""
    narrow = ("transformer=affine", "seeds=[1]", "baselines=false")
    assert workplace.run("sweep", "tiny", *narrow, "--engine", "inline", "--no-mlflow").returncode == 0
    inline = store_accuracies(workplace)
    shutil.rmtree(workplace.runs)  # of a store alone that is gone, the results would be adopted
    assert workplace.run("sweep", "tiny", *narrow, "--slots", "1", "--no-mlflow").returncode == 0

    assert store_accuracies(workplace) == inline
    assert not (workplace.runs / "mlflow.db").exists()
    replayed = workplace.run("mirror")
    assert replayed.returncode == 0, replayed.stderr
    assert mlflow_accuracies(workplace) == pytest.approx(inline)
