"""Sweeps on a real Ray cluster of several nodes, and what is left of them when nodes or the orchestrator die."""

import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from commands import Workplace, kill_orchestrator
from fake_trials import Task, fake_spec
from ray_clusters import RayCluster, ray_cluster

from stnbench.core.errors import EngineError
from stnbench.engines import Ending, Engine, EngineEvent, Finished, Launch, Lost, Stopped

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

ROOT = Path(__file__).parents[2]
FAKE_WORKER = (sys.executable, str(ROOT / "tests" / "support" / "fake_worker.py"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster whose head runs no trials."""
    with ray_cluster() as made:
        yield made


def query(workplace: Workplace, sql: str) -> list[tuple[object, ...]]:
    """Rows of the store."""
    with closing(sqlite3.connect(workplace.runs / "stnbench.db")) as connection:
        return connection.execute(sql).fetchall()


def endings(engine: Engine, count: int, timeout_s: float = 40.0) -> dict[str, EngineEvent]:
    """The endings of so many attempts, by token."""
    found: dict[str, EngineEvent] = {}
    deadline = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline:
        for event in engine.poll(0.1):
            if isinstance(event, Ending):
                assert event.token not in found, "an attempt ended twice"
                found[event.token] = event
    return found


def launch(tmp_path: Path, task: Task, token: str) -> Launch:
    """An attempt in a folder of its own."""
    folder = tmp_path / token
    folder.mkdir()
    return Launch(spec=fake_spec(task), token=token, folder=str(folder), data_root=str(tmp_path))


@pytest.mark.timeout(600)  # two cores may be shared with a second worker
def test_a_sweep_goes_on_when_a_node_is_lost(
    cluster: RayCluster, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial is complete exactly once on the node that is left, and the lost attempt says why it was lost."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    nodes = [cluster.add_node(name, cpus=1) for name in ("one", "two")]
    sweep = workplace.start("sweep", "tiny", "--engine", "ray", "--no-mlflow", "--json")
    workplace.wait_for("done ", count=2, timeout_s=240)
    workplace.wait_for("start ", count=4)
    cluster.kill_node(nodes[0])
    code = sweep.wait(timeout=240)
    cluster.kill_node(nodes[1])

    assert code == 0, workplace.log()
    assert query(workplace, "select count(*), count(distinct trial_id) from outcomes") == [(6, 6)]
    assert query(workplace, "select count(*) from attempts where state = 'complete'") == [(6,)]
    assert query(workplace, "select slot from attempts where state = 'lost'") == [("one-cpu0",)]
    assert "slot one-cpu0 was lost" in workplace.log()
    assert "raylet" not in workplace.log()
    results = [path for path in workplace.runs.glob("trials/*/*/*") if path.name in {"result.json", "checkpoint.pt"}]
    assert len(results) >= 12


def test_a_lost_slot_uses_what_is_left_until_there_is_room_again(cluster: RayCluster, tmp_path: Path) -> None:
    """Its attempt is lost; the next one waits for the other slot's host; a node that joins takes its place."""
    from stnbench.engines.ray import RayEngine

    nodes = {name: cluster.add_node(name, cpus=1) for name in ("a", "b")}
    told: list[str] = []
    engine = RayEngine(cluster.address, command=FAKE_WORKER, warn=told.append)
    one, two = engine.slots
    assert [(slot.name, slot.device) for slot in (one, two)] == [("a-cpu0", "a:cpu"), ("b-cpu0", "b:cpu")]
    assert all(slot.memory_mib is not None and slot.memory_mib > 0 for slot in (one, two))
    engine.submit(one, launch(tmp_path, Task.WAIT, "lost"))
    engine.submit(two, launch(tmp_path, Task.WAIT, "runs"))
    endings(engine, 1, timeout_s=0.5)
    cluster.kill_node(nodes["a"])
    lost = endings(engine, 1)["lost"]

    assert isinstance(lost, Lost)
    assert "node has died" in lost.reason
    assert len(told) == 1
    engine.submit(one, launch(tmp_path, Task.FINISH, "withdrawn"))
    assert list(engine.waiting) == ["withdrawn"]
    engine.kill("withdrawn")
    assert endings(engine, 1) == {"withdrawn": Stopped(token="withdrawn")}
    engine.submit(one, launch(tmp_path, Task.FINISH, "waits"))
    engine.stop("runs")
    assert endings(engine, 2) == {"runs": Stopped(token="runs"), "waits": Finished(token="waits")}

    nodes["c"] = cluster.add_node("c", cpus=1)
    engine.submit(one, launch(tmp_path, Task.SLEEP, "x"))
    engine.submit(two, launch(tmp_path, Task.WAIT, "y"))
    assert endings(engine, 1) == {"x": Finished(token="x")}
    engine.close()
    cluster.kill_node(nodes["b"])
    cluster.kill_node(nodes["c"])


def test_a_slot_that_cannot_be_opened_says_what_is_wrong_there(cluster: RayCluster, tmp_path: Path) -> None:
    """What a node lacks is said in one line, and nothing is left of the attempt to start."""
    from stnbench.engines.ray import RayEngine

    node = cluster.add_node("bare", cpus=1)
    with pytest.raises(EngineError, match=r"(?s)slot bare-cpu0 cannot be opened: .*No such file") as caught:
        RayEngine(cluster.address, command=["/no/such/python"])
    cluster.kill_node(node)

    assert "\n" not in str(caught.value)


def test_no_process_outlives_a_killed_sweep_on_a_cluster_of_its_own(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without RAY_ADDRESS the engine starts a cluster, runs trials on it, and takes it along when it is killed.

    Trials have the priority of the command: Ray's default would let them stand still beside other work.
    """
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sweep = workplace.start("sweep", "tiny", "--engine", "ray", "--no-mlflow", "--slots", "1")
    workplace.wait_for("done ", timeout_s=90)
    members = psutil.Process(sweep.pid).children(recursive=True)

    workers = [member for member in members if "stnbench.engines.worker" in member.cmdline()]
    assert [worker.nice() for worker in workers] == [psutil.Process().nice()]
    assert kill_orchestrator(sweep) == []


def test_the_documented_way_without_a_cluster_runs_to_its_end(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--engine ray`` without RAY_ADDRESS completes every trial, prints the leaderboard, writes the page, exits 0."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shown = (ROOT / "docs" / "cluster.md").read_text()
    assert "stnbench sweep locnet_sizes --engine ray" in shown.replace("python -m stnbench.sweep", "stnbench sweep")
    done = workplace.run("sweep", "tiny", "--engine", "ray", "--no-mlflow", "seeds=[1]", timeout_s=200)

    assert done.returncode == 0, done.stderr
    assert "affine" in done.stdout
    assert query(workplace, "select count(*) from attempts where state = 'complete'") == [(3,)]
    assert (workplace.folder / "reports" / "tiny" / "index.html").exists()


def test_an_address_without_a_cluster_is_one_line(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that cannot start says why and exits 2."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a port where nothing listens
    refused = workplace.run("sweep", "tiny", "--engine", "ray", "--no-mlflow")

    assert refused.returncode == 2
    assert re.search(r"Ray cluster at '127.0.0.1:1' cannot be used", refused.stderr)
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        ("ray start", ["ray", "start"]),
        ("resources=", ["ray", "start"]),
        ("get-auth-token", ["ray", "get-auth-token"]),
        ("stnbench.sweep", [sys.executable, "-m", "stnbench.sweep"]),
    ],
)
def test_every_option_of_the_document_exists(command: str, tool: list[str]) -> None:
    """A reader of docs/cluster.md can type what is written."""
    text = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    typed = [line.partition(command)[2] for line in text.splitlines() if command in line]
    named = {option for line in typed for option in re.findall(r"--[a-z-]+", line)}
    scripts = Path(sys.executable).parent
    tool = [str(scripts / tool[0]) if tool[0] == "ray" else tool[0], *tool[1:]]
    shown = subprocess.run([*tool, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout

    assert named
    assert named <= set(re.findall(r"--[a-z-]+", shown))
