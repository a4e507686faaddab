"""A store with something in it, for tests of its parts."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from postgres import database, needs_postgres

from stnbench.spec.network import LecunSpec
from stnbench.spec.result import Cost, Environment, EpochRecord, SplitScore, TrialResult
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptStart, PlannedTrial

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def planned(count: int) -> list[PlannedTrial]:
    """As many trials, each of its own configuration."""
    return [
        PlannedTrial(
            spec=TrialSpec(network=LecunSpec(sizes=(size, 20, 30))),
            point=Point(labels=(("size", str(size)),)),
            label=f"size {size}",
        )
        for size in range(1, count + 1)
    ]


def result(trial_id: str, token: str) -> TrialResult:
    """What an attempt reports."""
    return TrialResult(
        trial_id=trial_id,
        token=token,
        epochs=(
            EpochRecord(
                epoch=1,
                step=100,
                train_loss=1.5,
                validation_loss=1.0,
                validation_accuracy=0.75,
                learning_rate=0.01,
                train_duration_s=2.0,
                evaluate_duration_s=0.5,
            ),
        ),
        validation=SplitScore(split="validation", images=4, correct=3, loss=0.25, predictions=(0, 42, 7, 255)),
        test=SplitScore(split="test", images=2, correct=1, loss=1.5, predictions=(1, 300)),
        cost=Cost(parameters=10, flops=20, activation_bytes=30),
        environment=Environment(
            commit="c" * 40,
            dirty=False,
            python="3.11",
            platform="Linux",
            host="box",
            device="cpu",
            threads=2,
            versions=(("torch", "2.7"),),
            dataset_digest="d",
        ),
        train_duration_s=2.0,
        peak_memory_mib=100.0,
    )


def complete(store: Store, trials: list[PlannedTrial]) -> None:
    """Run each of these trials to its result."""
    for trial in trials:
        trial_id = trial.spec.trial_id
        start = AttemptStart(
            trial_id=trial_id, token=f"of {trial_id}", slot="cpu0", host="box", pid=1, boot_id="boot", started_at=NOW
        )
        store.start_attempt(start)
        store.complete_attempt(start.token, result(trial_id, start.token), NOW)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the store of a test is."""
    return tmp_path / "runs" / "stnbench.db"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, made once: migrations take longer than most tests."""
    file = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(file, writable=True).close()
    return file


@pytest.fixture
def store(file: Path, template: Path) -> Iterator[Store]:
    """An empty store, open to write."""
    file.parent.mkdir()
    shutil.copy(template, file)
    with Store.open(file, writable=True) as store:
        yield store


@pytest.fixture
def fill(store: Store) -> Callable[[str, int], list[PlannedTrial]]:
    """Save a sweep of so many trials, and complete all of them."""

    def fill(sweep: str, count: int) -> list[PlannedTrial]:
        trials = planned(count)
        store.save_sweep(SweepSpec(name=sweep, question="?"), trials, NOW)
        complete(store, trials)
        return trials

    return fill


@pytest.fixture(scope="session")
def server_template() -> Iterator[str]:
    """An empty store on a PostgreSQL server, made once."""
    with database() as url:
        Store.open(url, writable=True).close()
        yield url


@pytest.fixture
def url(server_template: str) -> Iterator[str]:
    """The URL of an empty store on a server, of its own for each test."""
    with database(server_template) as url:
        yield url


@pytest.fixture(params=["SQLite", pytest.param("PostgreSQL", marks=needs_postgres)])
def any_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store of either kind, open to write."""
    if request.param == "SQLite":
        yield request.getfixturevalue("store")
        return
    with Store.open(request.getfixturevalue("url"), writable=True) as store:
        yield store
