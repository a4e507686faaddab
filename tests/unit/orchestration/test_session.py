"""A session holds the lock of its runs folder, and shows in the end what a broken tracker missed."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_trials import Task, fake_result, fake_spec
from typing_extensions import override

from stnbench.core.errors import EngineError, StnbenchError, StoreBusyError, UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.engines.calibrate import SlotChoice, remember_choice
from stnbench.orchestration import session
from stnbench.orchestration.asking import RunOptions
from stnbench.orchestration.claims import ProcessIdentity
from stnbench.orchestration.plan import ImageDigests
from stnbench.orchestration.session import Session, SessionOptions, find_digests, open_session, remembered_slots
from stnbench.spec.data import DistortionSpec, GtsrbSpec
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptStart, PlannedTrial
from stnbench.tracking import AttemptView, ConfigurationView, Picture, Tracker

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SWEEP = SweepSpec(name="test", question="Is it shown?")


def test_digests_are_found_without_making_anything(
    tmp_path: Path, fake_gtsrb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the halves that have a cache; of a damaged one a warning tells."""
    fake_gtsrb.write_train(tmp_path)
    fake_gtsrb.write_test(tmp_path)
    spec = GtsrbSpec(image_size=8)
    data = tmp_path / "data"
    assert find_digests([spec, spec], data_root=data, source=tmp_path)[0] == {spec: {}}
    assert not data.exists()

    digests = session.prepare_datasets([spec], data_root=data, source=tmp_path)
    assert find_digests([spec], data_root=data, source=tmp_path) == (digests, {})
    for labels in data.glob("cache/gtsrb-test-*/labels.npy"):
        labels.write_bytes(b"x")
    assert find_digests([spec], data_root=data, source=tmp_path)[0] == {spec: {"train": digests[spec]["train"]}}
    assert "labels.npy has changed" in capsys.readouterr().err


@pytest.mark.parametrize("distortion", [None, DistortionSpec()], ids=["plain", "distorted"])
def test_a_plan_knows_images_that_changed_before_they_are_prepared(
    distortion: DistortionSpec | None, tmp_path: Path, fake_gtsrb: Any
) -> None:
    """The caches of the former images tell what trials read; those of another size say nothing."""
    images = fake_gtsrb.write_train(tmp_path)
    spec, other = (GtsrbSpec(image_size=size, distortion=distortion) for size in (8, 12))
    data = tmp_path / "data"
    (digests, others) = session.prepare_datasets([spec, other], data_root=data, source=tmp_path).values()
    path = next(images.rglob("*.ppm"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    found, superseded = find_digests([spec], data_root=data, source=tmp_path)
    assert found == {spec: {}}
    assert superseded == {spec: {digests["train"]}}
    trial = TrialSpec(dataset=spec)
    for recorded, says in ((digests, f"train digest {digests['train']}, now other images"), (others, "")):
        plan = ImageDigests(found=found, recorded={trial.trial_id: recorded}, superseded=superseded)
        assert says in plan.difference(trial)
        assert bool(plan.difference(trial)) == bool(says)


class FailingAtFirst(Tracker):
    """A tracker whose first opening of a sweep fails, as on a disk that is full; ``shown`` are tokens."""

    def __init__(self) -> None:
        self.openings = 0
        self.shown: list[str] = []

    @override
    def open_sweep(self, sweep: SweepSpec) -> None:
        self.openings += 1
        if self.openings == 1:
            raise OSError("no space is left")

    @override
    def show_attempt(self, view: AttemptView) -> None:
        self.shown.append(view.token)

    @override
    def show_configuration(self, view: ConfigurationView) -> None:
        raise AssertionError("no cell is shown")

    @override
    def show_pictures(self, view: AttemptView | ConfigurationView, pictures: Iterable[Picture]) -> int:
        return 0

    @override
    def close(self) -> None:
        return


def complete_one(store: Store) -> None:
    """A complete trial in the store."""
    spec = fake_spec(Task.FINISH)
    store.save_sweep(SWEEP, [PlannedTrial(spec=spec, point=Point(labels=()), label="a cell")], NOW)
    start = AttemptStart(trial_id=spec.trial_id, token="t-1", slot="cpu0", host="h", pid=1, boot_id="b", started_at=NOW)
    store.start_attempt(start)
    store.complete_attempt("t-1", fake_result(spec, "t-1"), NOW)


def test_a_tracker_that_failed_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it missed while the disk was full is shown by the next call, and once only."""
    tracker = FailingAtFirst()
    monkeypatch.setattr(Session, "_open_tracker", lambda _session: tracker)
    layout = RunsLayout(tmp_path / "runs")
    with open_session(layout, SessionOptions(tracking_uri="http://127.0.0.1:1")) as opened:
        complete_one(opened.store)
        assert not opened.sync_tracker(SWEEP, ())
        assert opened.sync_tracker(SWEEP, ())
        assert opened.sync_tracker(SWEEP, ())

    assert tracker.shown == ["t-1"]
    assert "the synchronisation with MLflow stopped" in capsys.readouterr().err


def test_a_full_disk_does_not_hide_that_a_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock holds although nobody can write down who holds it."""

    def refuse(_path: Path, _text: str, **_: object) -> int:
        raise OSError("no space is left")

    layout = RunsLayout(tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        with (
            open_session(layout, SessionOptions()),
            pytest.raises(StoreBusyError, match="another process"),
            open_session(layout, SessionOptions()),
        ):
            raise AssertionError("two sessions share a folder")


def test_what_was_measured_of_this_machine_is_known_to_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of slots that it works fastest with, until it has another number of cores."""
    layout = RunsLayout(tmp_path / "runs")
    monkeypatch.setattr(session, "available_cores", lambda: 4)
    assert remembered_slots(layout) is None
    choice = SlotChoice(cores=4, slots=1, trials_per_s=((1, 2.0), (4, 1.5)))
    remember_choice(layout.slot_choice(ProcessIdentity.current().host), choice)
    assert remembered_slots(layout) == 1
    monkeypatch.setattr(session, "available_cores", lambda: 8)
    assert remembered_slots(layout) is None


@pytest.mark.parametrize(("gpus", "slots"), [((), 2), (("0", "1"), 4)])
def test_a_machine_is_measured_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpus: tuple[str, ...],
    slots: int,
) -> None:
    """With --slots auto: the first sweep measures and says so, the next has as many slots, two on each GPU."""
    measured: list[int] = []

    def measure(_spec: TrialSpec, *, cores: int, compute: str = "", **_: object) -> SlotChoice:
        measured.append(cores)
        rates = ((1, 0.5), (2, 0.75))
        return SlotChoice(cores=cores, slots=2, trials_per_s=rates, gpus=gpus, compute=compute)

    monkeypatch.setattr(session, "available_cores", lambda: 8)
    monkeypatch.setattr(session, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(session, "device_memory_mib", lambda _: dict.fromkeys(gpus, 80_000.0))
    monkeypatch.setattr(session, "measure_choice", measure)
    monkeypatch.setattr(session, "measure_gpu_choice", measure)
    estimate = SimpleNamespace(estimate_gpu_mib=lambda _: 500.0)  # the module itself imports torch
    monkeypatch.setitem(sys.modules, "stnbench.models.scored_network", estimate)
    options = SessionOptions(measure_slots_with=fake_spec(Task.FINISH))
    with open_session(RunsLayout(tmp_path / "runs"), options) as opened:
        for _ in range(2):
            engine = opened._open_engine(RunOptions(data_root=tmp_path))
            assert len(engine.slots) == slots
            engine.close()

    assert measured == [8]
    said = capsys.readouterr().err
    assert said.count("slots=auto: measuring") == 1
    assert "1 slot 0.500, 2 slots 0.750; 2 " in said


@pytest.mark.parametrize(("named", "error"), [("chanels_last", UnknownNameError), ("cuda_graphs", EngineError)])
def test_how_to_compute_is_checked_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, error: type[StnbenchError]
) -> None:
    """A misspelt option, or CUDA graphs without a GPU, leaves no runs folder and no lock behind."""
    monkeypatch.setenv("STNBENCH_COMPUTE", named)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(error), open_session(RunsLayout(tmp_path / "runs"), SessionOptions()):
        pytest.fail("the session was opened")
    assert not (tmp_path / "runs").exists()


class Remembering(FailingAtFirst):
    """A tracker that shows everything, in a database of its own."""

    @override
    def open_sweep(self, sweep: SweepSpec) -> None:
        return


def test_a_damaged_database_of_mlflow_is_shown_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is set aside with a warning, and what it had shown is shown again from the store."""
    tracker = Remembering()
    monkeypatch.setattr(Session, "_open_tracker", lambda _session: tracker)
    layout = RunsLayout(tmp_path / "runs")
    options = SessionOptions(tracking_uri=session.local_tracking_uri(layout))
    with open_session(layout, options) as opened:
        complete_one(opened.store)
        assert opened.sync_tracker(SWEEP, ())
    layout.mlflow_store.write_bytes(b"\xa5" * 9000)
    with open_session(layout, options) as opened:
        assert opened.sync_tracker(SWEEP, ())
    assert tracker.shown == ["t-1", "t-1"]
    assert "MLflow's database was damaged" in capsys.readouterr().err
    assert [path.read_bytes() for path in layout.root.glob("mlflow.db.damaged-*")] == [b"\xa5" * 9000]
