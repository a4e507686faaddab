"""A store and sweeps of made-up results, for tests of the report."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_results import Filler, locnet_sizes, planned, transformed

from stnbench.spec.result import Failure, FailureKind
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The runs folder of a test."""
    return tmp_path / "runs"


@pytest.fixture
def store(runs: Path) -> Iterator[Store]:
    """An empty store, open to write."""
    with Store.open(runs / "stnbench.db", writable=True) as store:
        yield store


@pytest.fixture
def sizes(store: Store) -> list[TrialSpec]:
    """The sweep ``sizes``: three configs and a baseline with two seeds; one trial failed and one is still planned."""
    specs = [transformed(size, seed=seed) for seed in (1, 2) for size in (10, 20, 30)]
    baselines = [spec.baseline() for spec in specs if locnet_sizes(spec) == (10, 10, 10)]
    filler = Filler(store).save([planned(spec) for spec in (*baselines, *specs)])
    for spec, correct in zip(baselines, (1800, 1810), strict=True):
        filler.complete(spec, correct, test=1790)
    for spec, correct in zip(specs[:5], (1850, 1900, 1700, 1860, 1908), strict=True):
        filler.complete(spec, correct, test=1795)
    message = "the loss is nan\nat step 7"
    filler.fail(specs[5], Failure(kind=FailureKind.DIVERGED, message=message, traceback="Traceback\n  here"))
    return [*baselines, *specs]
