"""Studies in an Optuna storage: what they hold, that they are written again, and what is refused."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from made_up_pages import PRUNED, SEARCHED, make_search, search_spec
from made_up_results import Filler, planned, transformed

from stnbench.core.errors import SpecError
from stnbench.core.files import sqlite_uri
from stnbench.planning.study import require_storage, storage_url, study_trials, write_study
from stnbench.spec.planner import Nsga2PlannerSpec
from stnbench.spec.result import Failure, FailureKind, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a search by TPE of 60 trials, 20 of them pruned and two failed."""
    made = make_search(tmp_path_factory.mktemp("search"))
    assert isinstance(made.layout.store, Path)
    return made.layout.store


@pytest.fixture(scope="module")
def written(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of the search, written once; nothing that tests do changes it."""
    path = tmp_path_factory.mktemp("study") / "optuna.db"
    with Store.open(searched, writable=False) as store:
        assert write_study(store, search_spec("search"), sqlite_uri(path)) == SEARCHED
    return path


def trials_of(url: str, name: str = "search") -> list[optuna.trial.FrozenTrial]:
    """What the storage has."""
    return optuna.load_study(study_name=name, storage=url).get_trials()


def test_a_study_has_every_configuration_that_ended(searched: Path, written: Path) -> None:
    """States, values, parameters as numbers on their ranges, curves and times are those of the store."""
    url = sqlite_uri(written)
    spec = search_spec("search")
    with Store.open(searched, writable=False) as store:
        wanted = list(study_trials(store, spec))
        best = max(outcome.validation.accuracy for outcome in store.outcomes("search").values())
    found = trials_of(url)
    states = [trial.state.name for trial in found]
    assert (states.count("COMPLETE"), states.count("PRUNED"), states.count("FAIL")) == (38, PRUNED, 2)
    study = optuna.load_study(study_name="search", storage=url)
    assert study.best_value == pytest.approx(best)
    assert study.user_attrs["question"] == spec.question
    for one, trial in zip(wanted, found, strict=True):
        rate = one.labels["optimizer.learning_rate"].partition("=")[2]
        assert trial.params["optimizer.learning_rate"] == float(rate)
        assert trial.params["transformer"] == one.labels["transformer"]
        assert trial.intermediate_values == pytest.approx(dict(one.epochs))
        assert trial.datetime_start is not None
        assert trial.datetime_start.astimezone() == one.started_at
    kinds = found[0].distributions
    assert kinds["optimizer.learning_rate"] == optuna.distributions.FloatDistribution(0.001, 0.3, log=True)
    assert isinstance(kinds["locnet1.sizes"], optuna.distributions.CategoricalDistribution)


def test_what_is_written_is_not_written_twice(searched: Path, written: Path) -> None:
    """A second time adds nothing, and the numbers of trials stay; the file is a SQLite database of Optuna's tables."""
    before = [trial.user_attrs for trial in trials_of(sqlite_uri(written))]
    with Store.open(searched, writable=False) as store:
        write_study(store, search_spec("search"), sqlite_uri(written))
    assert [trial.user_attrs for trial in trials_of(sqlite_uri(written))] == before
    connection = sqlite3.connect(written)
    ((count,),) = connection.execute("select count(*) from trials")
    connection.close()
    assert count == SEARCHED


def fill(store: Store, *, is_retried: bool = False) -> SweepSpec:
    """A grid of two configurations of two seeds: the second failed with its second seed, unless it was tried again."""
    specs = [transformed(size, seed=seed) for size in (10, 20) for seed in (1, 2)]
    filler = Filler(store)
    if not is_retried:
        filler.save([planned(specs[0].baseline()), *map(planned, specs)])
        for spec in specs[:3]:
            filler.complete(spec, 1800)
        filler.fail(specs[3], Failure(kind=FailureKind.DIVERGED, message="nan"))
    else:
        store.replan([specs[3].trial_id])
        filler.complete(specs[3], 1900)
    return next(record.spec for record in store.sweeps())


def test_a_retried_configuration_replaces_the_failed_one(tmp_path: Path) -> None:
    """What was told as failed and is complete now makes the study anew; the value is the mean over seeds."""
    url = sqlite_uri(tmp_path / "optuna.db")
    with Store.open(tmp_path / "stnbench.db", writable=True) as store:
        spec = fill(store)
        assert write_study(store, spec, url) == 2  # baselines are no points of the axes
        assert [trial.state.name for trial in trials_of(url, "sizes")] == ["COMPLETE", "FAIL"]
        fill(store, is_retried=True)
        write_study(store, spec, url)
    found = trials_of(url, "sizes")
    assert [trial.values for trial in found] == [[0.9], [pytest.approx((0.9 + 0.95) / 2)]]
    assert found[1].user_attrs["validation_accuracy_by_seed"] == {"1": 0.9, "2": 0.95}


def test_two_objectives(tmp_path: Path) -> None:
    """NSGA-II has FLOPs as well, to be few."""
    url = sqlite_uri(tmp_path / "optuna.db")
    with Store.open(tmp_path / "stnbench.db", writable=True) as store:
        spec = replace(fill(store), planner=Nsga2PlannerSpec())
        write_study(store, spec, url)
    study = optuna.load_study(study_name="sizes", storage=url)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.get_trials()[0].values == [0.9, 38_200_000.0]


def test_trials_that_run_are_left_for_later(tmp_path: Path) -> None:
    """A configuration is written when all its seeds have ended."""
    with Store.open(tmp_path / "stnbench.db", writable=True) as store:
        specs = [transformed(10, seed=seed) for seed in (1, 2)]
        filler = Filler(store).save([*map(planned, specs)])
        filler.complete(specs[0], 1800)
        filler.start(specs[1])
        spec = next(record.spec for record in store.sweeps())
        assert list(study_trials(store, spec)) == []
        assert store.sweep_trials("sizes")[1].state is TrialState.RUNNING


def test_studies_of_others_are_left_alone(searched: Path, tmp_path: Path) -> None:
    """A study of the same name that another program wrote is refused, and is as it was."""
    url = sqlite_uri(tmp_path / "optuna.db")
    theirs = optuna.create_study(study_name="search", storage=url)
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(SpecError, match="did not write"):
        require_storage(url, "search")
    with Store.open(searched, writable=False) as store, pytest.raises(SpecError, match="did not write"):
        write_study(store, search_spec("search"), url)
    assert [trial.value for trial in trials_of(url)] == [1.0]
    require_storage(url, "other")


@pytest.mark.parametrize("kind", ["no database", "nowhere", "a folder", "unknown"])
def test_storages_that_cannot_be_used_are_named(kind: str, tmp_path: Path) -> None:
    """One clear error with the address, without its password."""
    (tmp_path / "text.db").write_text("no database, and longer than the header of one " * 9)
    urls = {
        "no database": sqlite_uri(tmp_path / "text.db"),
        "nowhere": sqlite_uri(tmp_path / "missing" / "optuna.db"),
        "a folder": sqlite_uri(tmp_path),
        "unknown": "oracool://me:secret@host/db",
    }
    with pytest.raises(SpecError, match="cannot be used") as raised:
        require_storage(urls[kind], "search")
    assert "secret" not in str(raised.value)


def test_addresses_of_storages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is the runs folder's file, a path is a SQLite file, a URL is itself, and an override is no address."""
    monkeypatch.chdir(tmp_path)
    default = tmp_path / "runs" / "optuna.db"
    assert storage_url("", default) == sqlite_uri(default)
    assert storage_url("mine.db", default) == sqlite_uri(tmp_path / "mine.db")
    assert storage_url("postgresql://host/db?x=1", default) == "postgresql://host/db?x=1"
    with pytest.raises(SpecError, match="behind the overrides"):
        storage_url("scale=smoke", default)
