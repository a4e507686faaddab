"""A sweep that the version before began goes on with this one.

``tests/assets/before/sweep_f50ab20.zip`` is what that version left when it was killed in its second trial: a sweep of
three trials, of which one is complete, one was stopped once and was running again with a checkpoint, one is planned.
"""

import json
import sys
import types
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from commands import Workplace
from fake_trials import fake_result
from typing_extensions import override

from stnbench.cli import report, status
from stnbench.config.axes import PointComposer
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.config.sweeps import read_sweep
from stnbench.core.errors import CheckpointError
from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.core.identity import RESULTS_VERSION
from stnbench.engines import Launch, Slot
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration.asking import RunOptions
from stnbench.orchestration.claims import ProcessIdentity
from stnbench.orchestration.runner import Runner
from stnbench.planning.build import build_planner
from stnbench.spec.result import AttemptState, TrialState
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.training.loop import read_checkpoint
from stnbench.trials.files import write_result

ARCHIVE = Path(__file__).parents[2] / "assets" / "before" / "sweep_f50ab20.zip"
THEIR_RESULTS_VERSION = 1
COMPLETE, RUNNING = "534a1a92ae1375c3", "7910c645d608d4b1"


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the version before left it, and this program in it."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path / "runs"))
    return tmp_path


class NotingEngine(InlineEngine):
    """Takes note of what is launched."""

    def __init__(self) -> None:
        super().__init__(Slot(name="cpu0", device="cpu", threads=1))
        self.launches: list[Launch] = []

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        self.launches.append(launch)
        super().submit(slot, launch)


def run_made_up(spec: TrialSpec, *, token: str, folder: Path, **_options: object) -> object:
    """A made-up result in place of training."""
    result = fake_result(spec, token)
    write_result(folder, result)
    return result


def test_its_store_is_read_and_reported(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every trial is listed with its state, and the leaderboard has the complete one."""
    with Store.open(left / "runs" / "stnbench.db", writable=True):
        pass  # brings the schema up to date, as a sweep does
    assert status.main(["--json"]) == 0
    (sweep,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert (sweep["trials"], sweep["complete"], sweep["lost"], sweep["planned"]) == (3, 1, 1, 1)
    assert report.main(["tiny"]) == 0
    assert "no ST" in capsys.readouterr().out


def test_the_same_command_completes_it(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was running is lost, and what is asked for is complete; no row of the version before is gone.

    Where results mean something else by now, their trials are others: all of them are planned anew. Else the complete
    one is not run again, and the running one is given its checkpoint.
    """
    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = run_made_up  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stnbench.trials.run", stand_in)
    composer = Composer(conf_folder())
    sweep = read_sweep(left / "sweeps" / "tiny.yaml", composer, [])
    layout, engine = RunsLayout(left / "runs"), NotingEngine()
    with Store.open(layout.store, writable=True) as store:
        before = {COMPLETE: TrialState.COMPLETE, RUNNING: TrialState.RUNNING}
        assert store.trial_states(list(before)) == before
        runner = Runner(
            sweep=sweep,
            planner=build_planner(sweep, PointComposer(sweep, composer), slots=1),
            store=store,
            engine=engine,
            layout=layout,
            identity=ProcessIdentity.current(),
            options=RunOptions(data_root=left / "data"),
            now=lambda: datetime(2026, 12, 1, tzinfo=UTC),
        )
        summary = runner.run()
        states = [attempt.state for attempt in store.attempts_of_trial(RUNNING)]
        assert store.outcome(COMPLETE) is not None

    assert (summary.complete, summary.failed, summary.lost) == (3, 0, 1)
    if RESULTS_VERSION == THEIR_RESULTS_VERSION:
        resumed = {launch.spec.trial_id: launch.resume_from for launch in engine.launches}
        assert summary.launched == 2
        assert resumed[RUNNING] == (str(layout.attempt(RUNNING, 2)),)
        assert states == [AttemptState.STOPPED, AttemptState.LOST, AttemptState.COMPLETE]
    else:
        assert summary.launched == 3
        assert states == [AttemptState.STOPPED, AttemptState.LOST]


def test_its_checkpoints_are_read_or_left_out(left: Path) -> None:
    """One of another format, or whose records say less than is wanted now, is a CheckpointError and no crash."""
    path = AttemptLayout(RunsLayout(left / "runs").attempt(RUNNING, 2)).checkpoint
    said = ""
    try:
        read_checkpoint(path, trial_id=RUNNING)
    except CheckpointError as error:
        said = str(error)

    assert not said or str(path) in said
    with pytest.raises(CheckpointError, match="is of the trial"):
        read_checkpoint(path, trial_id=COMPLETE)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_itself_goes_on(left: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trained for real: exit code 0, and a leaderboard."""
    place = Workplace(left, tmp_path_factory.mktemp("data"))
    done = place.run("sweep", "tiny", "transformer=affine", "baselines=false", "--no-mlflow", timeout_s=500)

    assert done.returncode == 0, done.stderr
    assert "1 attempts lost" in done.stderr
    assert "affine" in done.stdout
