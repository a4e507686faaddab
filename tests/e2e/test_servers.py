"""A sweep whose store, or whose MLflow, is on a server."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from browser import CHROMIUM, MISSING, chromium
from commands import Workplace, kill_tree
from playwright.sync_api import ConsoleMessage, Page, Request, Response, expect
from postgres import database, needs_postgres
from sqlalchemy import make_url

from stnbench.spec.result import TrialState
from stnbench.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@dataclass(frozen=True, slots=True)
class ServedWorkplace(Workplace):
    """A user's folder, with variables of the environment that name servers."""

    servers: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The environment of every command."""
        return Workplace.environment(self) | self.servers


def outcomes(where: str, sweep: str = "tiny") -> dict[str, tuple[int, float]]:
    """Which attempt completed each complete trial of a sweep, and its validation accuracy."""
    with Store.open(where, writable=False) as store:
        found = store.outcomes(sweep)
    return {trial: (outcome.attempt, outcome.validation.accuracy) for trial, outcome in found.items()}


def files_with(text: str, folder: Path) -> list[Path]:
    """Every file below a folder that holds a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@needs_postgres
def test_a_sweep_on_postgresql_is_killed_and_goes_on(workplace: Workplace) -> None:
    """Others look on, a second orchestrator is refused, kill -9 costs what ran, and each trial is complete once."""
    with database() as url:
        here = ServedWorkplace(workplace.folder, workplace.data, {"STNBENCH_STORE": url})
        running = here.start("sweep", "tiny", "--no-mlflow")
        here.wait_for("done ", count=2)
        running.send_signal(signal.SIGSTOP)  # it lives, and gets no further while others look on
        there = dataclasses.replace(here, folder=here.folder / "another host")
        shutil.copytree(here.folder / "sweeps", there.folder / "sweeps")
        refused = there.run("sweep", "tiny", "--no-mlflow")
        said = there.run("status", "--json")
        kill_tree(running)
        assert refused.returncode == 2
        assert f"(process {running.pid} on {socket.gethostname()})" in refused.stderr
        assert json.loads(said.stdout)["sweeps"][0]["complete"] >= 2

        before = outcomes(url)
        assert 2 <= len(before) < 6
        resumed = here.run("sweep", "tiny", "--no-mlflow")
        assert resumed.returncode == 0, resumed.stderr
        assert resumed.stderr.count("start  ") <= 6 - len(before)  # less where a result that was there was adopted
        assert before.items() <= outcomes(url).items()
        with Store.open(url, writable=False) as store:
            assert store.running_attempts() == []
            assert store.sweeps()[0].counts == {TrialState.COMPLETE: 6}

        reported = there.run("report", "tiny", "--format", "json")
        assert json.loads(reported.stdout)["sweep"] == "tiny"
        assert not (here.runs / "stnbench.db").exists()
        printed = (refused, said, resumed, reported)
        password = str(make_url(url).password)
        assert [one for one in printed if password in one.stdout + one.stderr] == []
        assert files_with(password, here.folder) == []


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """MLflow's own server on this machine: its address, and the database behind it."""
    folder = tmp_path / "server"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *where,
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--workers",
        "1",
    ]
    with (folder / "log").open("w") as log:
        quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        server = subprocess.Popen(command, cwd=folder, env=quiet, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", server, folder / "log")
        yield f"http://127.0.0.1:{port}", folder / "mlflow.db"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_until_healthy(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310 - ours, on this machine
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"MLflow's server does not answer:\n{log.read_text()}") from None
            time.sleep(0.1)


@dataclass
class Visitor:
    """A person who browses MLflow's pages, and what there was to complain of. Playwright adds attributes to it."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen to the page."""
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self.note_message)
        self.page.on("request", self.note_request)
        self.page.on("response", self.note_response)

    def note_message(self, message: ConsoleMessage) -> None:
        """Note an error; of a resource that is not there, the response tells more."""
        harmless = ("Failed to load resource", "ResizeObserver loop")
        if message.type == "error" and not any(text in message.text for text in harmless):
            self.complaints.append(message.text)

    def note_request(self, request: Request) -> None:
        """Note what leaves this machine."""
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.complaints.append(request.url)

    def note_response(self, response: Response) -> None:
        """Note what failed; that nobody is logged in is no failure."""
        if response.status >= 400 and not response.url.endswith("/users/current"):
            self.complaints.append(f"{response.status} {response.url}")

    def open(self, path: str) -> None:
        """Go to a page."""
        self.page.goto(f"{self.address}/{path}")

    def sees(self, *texts: str) -> None:
        """Wait until each text is there."""
        for text in texts:
            expect(self.page.get_by_text(text).first).to_be_visible(timeout=60_000)


@contextlib.contextmanager
def visit(address: str, width_px: int = 1280) -> Iterator[Visitor]:
    """Headless Chromium in front of MLflow's pages."""
    with chromium() as browser:
        visitor = Visitor(browser.new_page(viewport={"width": width_px, "height": 900}), address)
        yield visitor
    assert visitor.complaints == []


def browse(address: str, experiment: str, run: str) -> None:
    """From the list of sweeps by way of the description to the configurations, their runs, one run and its gallery."""
    with visit(address) as visitor:
        visitor.open("#/experiments?workflowType=machine_learning")
        visitor.sees("tiny-affine", "Does it run?")
        visitor.open(f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=cells")
        visitor.sees("affine · mean of 1 seed", "accuracy/validation_mean", "1 matching run")
        visitor.open(f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=runs")
        visitor.sees("affine · seed 1", "signs train", "accuracy/validation_final", "1 matching run")
        visitor.open(f"#/experiments/{experiment}/runs/{run}?workflowType=machine_learning")
        visitor.sees("affine · seed 1", "Finished", "reports/tiny-affine/index.html", "axis.transformer")
        visitor.open(f"#/experiments/{experiment}/runs/{run}/model-metrics?workflowType=machine_learning")
        visitor.page.get_by_placeholder("Search metric charts").fill("transformers$")
        picture = visitor.page.get_by_role("img").and_(visitor.page.locator("[src*=transformers]")).first
        expect(picture).to_be_visible(timeout=60_000)


def test_a_sweep_is_shown_by_a_remote_mlflow(workplace: Workplace, mlflow_server: tuple[str, Path]) -> None:
    """``MLFLOW_TRACKING_URI`` moves what is shown to a server, artifacts too, and nothing of it is kept here.

    A person who looks at it with a browser finds the sweep, its configuration, its run and the gallery, and nothing
    broken.
    """
    address, behind = mlflow_server
    here = ServedWorkplace(workplace.folder, workplace.data, {"MLFLOW_TRACKING_URI": address})
    done = here.run("sweep", "tiny", "transformer=affine", "seeds=[1]", "baselines=false")
    assert done.returncode == 0, done.stderr
    assert f"MLflow: {address}" in done.stderr
    assert not (here.runs / "mlflow.db").exists()

    with closing(sqlite3.connect(behind)) as connection:
        [run] = connection.execute(
            "select r.status, m.value from runs r join latest_metrics m on m.run_uuid = r.run_uuid "
            "and m.key = 'accuracy/validation_final'"
        ).fetchall()
        locations = dict(connection.execute("select name, artifact_location from experiments").fetchall())
    [(_, accuracy)] = outcomes(str(here.runs / "stnbench.db"), "tiny-affine").values()
    assert run == ("FINISHED", pytest.approx(accuracy))
    assert locations["tiny-affine"].startswith("mlflow-artifacts:")

    pictured = here.run("mirror", "--pictures")
    assert pictured.returncode == 0, pictured.stderr
    with closing(sqlite3.connect(behind)) as connection:
        [(experiment, shown)] = connection.execute(
            "select experiment_id, run_uuid from runs where name = 'affine · seed 1' and lifecycle_stage = 'active'"
        ).fetchall()
    if CHROMIUM is None:
        pytest.skip(f"shown, but not looked at: {MISSING}")
    browse(address, str(experiment), shown)
