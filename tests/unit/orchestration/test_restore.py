"""A store is made again from its history, results and copies; nothing is called complete that is not there."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_trials import Task, fake_spec
from tiny_sweeps import SWEEP, TRIALS, all_rows, opened, run_tiny, scores_of, without_training

from stnbench.cli.store import main
from stnbench.core.errors import StoreError
from stnbench.core.files import RunsLayout
from stnbench.orchestration import recovery
from stnbench.orchestration.recovery import Backups, restore_store
from stnbench.report.output import read_report, render
from stnbench.spec.result import AttemptState, FailureKind, TrialState
from stnbench.store.store import Store

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OTHER = replace(SWEEP, name="other", question="Does it run as well?")
BROKEN = fake_spec(Task.FAIL, config=7)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with two sweeps that share trials, made once; one trial has failed."""
    folder = tmp_path_factory.mktemp("restore") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        without_training(patch)
        patch.delenv("STNBENCH_STORE", raising=False)
        run_tiny(RunsLayout(folder))
        run_tiny(RunsLayout(folder), (*TRIALS[1:], BROKEN), sweep=OTHER)
    return folder


@pytest.fixture
def layout(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsLayout:
    """A copy of that runs folder."""
    without_training(monkeypatch)
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path / "runs"))
    return RunsLayout(Path(shutil.copytree(made, tmp_path / "runs")))


def reports(layout: RunsLayout) -> list[str]:
    """The report of every sweep, as JSON and Markdown."""
    with opened(layout) as store:
        boards = [read_report(store, name).board for name in ("tiny", "other")]
    return [render(boards, "json"), render(boards, "md")]


def damage_head(file: Path) -> None:
    """Overwrite the first page."""
    file.write_bytes(b"\xa5" * 4096 + file.read_bytes()[4096:])


def damage_middle(file: Path) -> None:
    """Overwrite everything but the first page."""
    data = bytearray(file.read_bytes())
    data[4096:] = random.Random(1).randbytes(len(data) - 4096)
    file.write_bytes(data)


DAMAGES: list[Callable[[Path], object]] = [
    Path.unlink,
    damage_head,
    damage_middle,
    lambda file: file.write_bytes(b""),
    lambda file: file.write_bytes(file.read_bytes()[:10_000]),
    lambda file: file.write_text("remember the milk\n" * 1000),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_made_again_with_the_same_rows(layout: RunsLayout, damage: Callable[[Path], object]) -> None:
    """Removed, cut, emptied or overwritten: after the rebuild every row is as before, and so is every report."""
    rows, before = all_rows(layout), reports(layout)
    damage(layout.root / "stnbench.db")

    assert main(["rebuild"]) == 0

    assert all_rows(layout) == rows
    assert reports(layout) == before
    again = run_tiny(layout)
    assert (again.complete, again.launched) == (4, 0)


def test_the_damaged_store_is_kept(layout: RunsLayout) -> None:
    """What was there is moved aside, not removed."""
    damage_middle(layout.root / "stnbench.db")
    data = (layout.root / "stnbench.db").read_bytes()

    restored = restore_store(layout, now=NOW)

    assert restored.aside is not None
    assert restored.aside.read_bytes() == data


def test_results_alone_make_the_same_scores(layout: RunsLayout) -> None:
    """Without history and copies, results are adopted; the sweep's command finds them, and trains nothing again."""
    before = scores_of(layout)
    layout.history.unlink()
    (layout.root / "stnbench.db").unlink()

    restored = restore_store(layout, now=NOW)
    assert (restored.source, restored.sweeps, restored.complete) == ("", 0, 4)
    assert run_tiny(layout).launched == 0
    assert run_tiny(layout, (*TRIALS[1:], BROKEN), sweep=OTHER).launched == 1  # the one that failed left no result

    assert scores_of(layout) == before


def test_a_missing_store_is_made_again_by_the_same_command(
    layout: RunsLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep whose store was removed goes on with all results, and says so."""
    before = reports(layout)
    (layout.root / "stnbench.db").unlink()

    assert run_tiny(layout).launched == 0

    assert reports(layout)[1] == before[1]
    assert "there was no store" in capsys.readouterr().err


def test_a_whole_store_is_left_alone(layout: RunsLayout) -> None:
    """The command refuses to make a store again that nothing is wrong with, unless it is told to."""
    rows = all_rows(layout)
    with pytest.raises(StoreError, match="is whole"):
        main(["rebuild"])
    assert main(["rebuild", "--force"]) == 0
    assert all_rows(layout) == rows


@pytest.mark.parametrize("trial", TRIALS[:2])
def test_a_trial_whose_result_is_gone_is_planned_again(layout: RunsLayout, trial: object) -> None:
    """Nothing is called complete that is not on the disk."""
    trial_id = TRIALS[0].trial_id
    (layout.attempt(trial_id, 1) / "result.json").write_text("{")

    restored = restore_store(layout, now=NOW)

    assert restored.missing == 1
    with opened(layout) as store:
        assert store.trial_states([trial_id]) == {trial_id: TrialState.PLANNED}
        (attempt,) = store.attempts_of_trial(trial_id)
    assert attempt.state is AttemptState.LOST
    assert attempt.failure is not None
    assert attempt.failure.kind is FailureKind.KILLED
    assert run_tiny(layout).complete == 4


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_history_gives_what_is_whole_in_it(layout: RunsLayout, seed: int) -> None:
    """Bits flipped, lines cut or doubled: the rest is used, and the same commands end with the same scores."""
    before = scores_of(layout)
    draw = random.Random(seed)
    data = bytearray(layout.history.read_bytes())
    for _ in range(seed % 4 + 1):
        place = draw.randrange(len(data))
        match seed % 3:
            case 0:
                data[place] ^= 1 << draw.randrange(8)
            case 1:
                del data[place:]
                break
            case _:
                data[place:place] = data[: draw.randrange(len(data))]
    layout.history.write_bytes(data)
    (layout.root / "stnbench.db").unlink()

    run_tiny(layout)
    run_tiny(layout, (*TRIALS[1:], BROKEN), sweep=OTHER)

    assert scores_of(layout) == before


def test_copies_are_made_every_hour_and_the_newest_are_kept(layout: RunsLayout) -> None:
    """A copy is a whole store; a lost history is made up for by it. The clock has no say in which is the newest."""
    now_s = [0.0]
    assert isinstance(layout.store, Path)
    with Store.open(layout.store, writable=True) as store:
        backups = Backups(store, layout.backups, pytest.fail, clock_s=lambda: now_s[0])
        for _ in range(6 * 10):
            now_s[0] += 600
            backups.ticked()
        for copy in layout.backups.iterdir():  # made before the clock was set back by years
            copy.rename(copy.with_name(copy.name.replace("-20", "-29")))
        now_s[0] += 3600
        backups.ticked()
    copies = sorted(layout.backups.iterdir())
    assert len(copies) == 3
    assert max(copies, key=lambda copy: copy.stat().st_ctime_ns) == copies[-1]
    rows = all_rows(layout)
    layout.history.unlink()
    layout.store.unlink()
    assert restore_store(layout, now=NOW).source == copies[-1].name
    assert all_rows(layout) == rows


def test_a_copy_that_fails_costs_a_warning(layout: RunsLayout) -> None:
    """A folder that cannot be written is no reason to end a sweep."""
    warnings: list[str] = []
    layout.backups.write_text("a file")
    assert isinstance(layout.store, Path)
    with Store.open(layout.store, writable=True) as store:
        Backups(store, layout.backups, warnings.append, every_s=0.0).ticked()
    assert len(warnings) == 1
    assert "backups" in warnings[0]


def test_nothing_is_made_of_nothing(tmp_path: Path) -> None:
    """An empty folder is no store."""
    (tmp_path / "runs").mkdir()
    with pytest.raises(StoreError, match="nothing below"):
        restore_store(RunsLayout(tmp_path / "runs"), now=NOW)


def test_a_store_on_a_server_is_not_made_again_here(tmp_path: Path) -> None:
    """The message says who keeps copies of it."""
    with pytest.raises(StoreError, match="on a server"):
        restore_store(RunsLayout(tmp_path, store_url="postgresql://me@host/db"), now=NOW)


def test_a_rebuild_that_fails_leaves_everything(layout: RunsLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new store cannot take its place, the one before stands."""
    rows = all_rows(layout)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recovery, "_set_aside", fail)
    with pytest.raises(Exception, match="No space left"):
        restore_store(layout, now=NOW)
    assert all_rows(layout) == rows
    shutil.rmtree(layout.backups, ignore_errors=True)
    assert not list(layout.root.glob(".stnbench.db.new*"))
