"""Trials, their names, and how a run went."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from made_up_results import NOW, Filler, planned, result, transformed
from narrowed import sizes_of

from stnbench.cli.status import main as status
from stnbench.cli.trials import main as trials
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.report import output
from stnbench.report.runs import RunSummary, TrialRow, find_trial, read_runs
from stnbench.spec.result import AttemptState, Failure, FailureKind, TrialState, Verdict
from stnbench.spec.sweep import Point
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial

SPECS = [transformed(size, seed=seed) for size in (10, 20, 30) for seed in (1, 2)]
NAN = Failure(kind=FailureKind.DIVERGED, message="the loss is nan\nmore")
MEMORY = Failure(kind=FailureKind.OUT_OF_MEMORY, message="out of memory")


def in_grid(spec: TrialSpec, family: str) -> PlannedTrial:
    """A trial of a sweep with two axes."""
    size = ",".join(map(str, sizes_of(spec)))
    point = Point(labels=(("locnet1.sizes", size), ("transformer", family)))
    return PlannedTrial(spec=spec, point=point, label=f"{size} · {family}")


@pytest.fixture
def filler(store: Store) -> Filler:
    """A sweep of six trials and a baseline."""
    return Filler(store).save([planned(transformed(10).baseline()), *map(planned, SPECS)])


def read(store: Store, name: str = "sizes") -> tuple[tuple[TrialRow, ...], RunSummary]:
    """The trials and the summary of a sweep."""
    return read_runs(store, next(record.spec for record in store.sweeps() if record.spec.name == name))


def test_a_trial_has_a_row_with_all_that_is_known(store: Store, filler: Filler) -> None:
    """Label, seed, state, accuracy, health, attempts, slot and times; of one that never ran, what there is."""
    filler.fail(SPECS[0], MEMORY, state=TrialState.PLANNED)
    filler.complete(SPECS[0], 1900, verdict=Verdict.HEALTHY)
    filler.fail(SPECS[1], NAN)
    rows, _ = read(store)
    assert [row.label for row in rows[:3]] == ["no ST", "10,10,10", "10,10,10"]
    done, failed, never = rows[1], rows[2], rows[3]
    assert (done.state, done.accuracy, done.health, done.attempts) == (TrialState.COMPLETE, 0.95, "healthy", 2)
    assert (done.slot, done.trial_id, done.seed) == ("gpu0", SPECS[0].trial_id, 1)
    assert done.started_at is not None
    assert done.finished_at is not None
    assert (failed.failure_kind, failed.health) == ("diverged", "diverged")
    assert (never.state, never.accuracy, never.attempts, never.started_at) == (TrialState.PLANNED, None, 0, None)
    assert rows[0].is_baseline


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("sizes:20,20,20#2", 3),
        ("20,20,20#2", 3),
        ("sizes:best", 3),
        ("best", 3),
        ("sizes:best:2", 0),
        ("best:3", 1),
    ],
)
def test_trials_have_names(store: Store, filler: Filler, name: str, place: int) -> None:
    """By label and seed, or by rank on the validation split; the sweep last run where none is named."""
    for spec, correct in zip(SPECS[:4], (1900, 1850, 1700, 1950), strict=True):
        filler.complete(spec, correct)
    assert find_trial(store, name).trial_id == SPECS[place].trial_id


def test_ids_and_their_beginnings_are_names(store: Store, filler: Filler) -> None:
    """As before; capitals do not matter."""
    wanted = SPECS[2].trial_id
    assert find_trial(store, wanted).trial_id == find_trial(store, wanted[:10].upper()).trial_id == wanted


def test_best_with_a_transformer_is_no_baseline(store: Store, filler: Filler) -> None:
    """Where a picture of a transformer is wanted, trials without one are passed over."""
    filler.complete(transformed(10).baseline(), 1999)
    filler.complete(SPECS[0], 1000)
    assert find_trial(store, "best").trial_id == transformed(10).baseline().trial_id
    assert find_trial(store, "best", with_transformer=True).trial_id == SPECS[0].trial_id


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sizes:20,20,21#1", "unknown configuration '20,20,21' in sizes: did you mean 20,20,20"),
        ("sizes:20,20,20#7", "unknown seed '7' in sizes:20,20,20"),
        ("sizes:20,20,20", "has the seeds 1, 2: name one: sizes:20,20,20#1"),
        ("sizes:best:9", "best:9 was named"),
        ("nowhere:best", "unknown sweep 'nowhere' in the store"),
    ],
)
def test_a_name_of_nothing_is_an_error_with_what_there_is(store: Store, filler: Filler, name: str, said: str) -> None:
    """The nearest names, or the seeds."""
    with pytest.raises((UnknownNameError, SpecError), match=said):
        find_trial(store, name)


def test_failures_are_grouped_with_what_they_share(store: Store) -> None:
    """All three diverged trials are of one family, which others have as well; those out of memory share nothing."""
    items = [in_grid(spec, family) for spec, family in zip(SPECS, ("tps", "affine") * 3, strict=True)]
    filler = Filler(store).save(items)
    for item in items[::2]:
        filler.fail(item.spec, NAN)
    filler.fail(items[1].spec, MEMORY)
    _, run = read(store)
    assert [(kind.kind, kind.trials, kind.message) for kind in run.failed] == [
        ("diverged", 3, "the loss is nan"),
        ("out_of_memory", 1, "out of memory"),
    ]
    assert run.failed[0].shared == ("transformer=tps: 3 of these 3, and 3 of all 3 trials with it",)
    assert run.failed[1].shared == ()


def test_the_use_of_slots_is_by_hand(store: Store, filler: Filler) -> None:
    """Each attempt of the filler takes its time on one slot; shares are of the time from first start to last end."""
    filler.complete(SPECS[0], 1900)
    filler.complete(SPECS[1], 1900)
    _, run = read(store)
    (slot,) = run.slots
    assert (slot.slot, slot.attempts) == ("gpu0", 2)
    assert run.wall_s is not None
    assert slot.share == pytest.approx(slot.busy_s / run.wall_s)
    assert run.device_hours == pytest.approx(slot.busy_s / 3600)
    assert next(span.start_s for span in run.spans) == 0


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("none", "No trial has started yet."),
        ("running", "It has not ended: 1 of 7 trials is running"),
        ("failed", "It ended after a failure; 6 of 7 trials are still planned."),
        ("stopped", "A person or a budget stopped it; 7 of 7 trials are still planned."),
        ("complete", "It was stopped between trials (by a person, a budget or a limit); 6 of 7 trials"),
        ("all", "Every trial has ended; 1 failed."),
    ],
)
def test_a_run_says_why_it_ended(store: Store, filler: Filler, end: str, said: str) -> None:
    """As far as the states of trials and attempts tell."""
    if end == "running":
        filler.start(SPECS[0])
    elif end == "failed":
        filler.fail(SPECS[0], NAN)
    elif end == "stopped":
        token = filler.start(SPECS[0])
        at = NOW + timedelta(seconds=9)
        store.end_attempt(token, AttemptState.STOPPED, None, at, trial_state=TrialState.PLANNED)
    elif end == "complete":
        filler.complete(SPECS[0], 1900)
    elif end == "all":
        filler.complete(transformed(10).baseline(), 1800)
        for spec in SPECS[1:]:
            filler.complete(spec, 1900)
        filler.fail(SPECS[0], NAN)
    _, run = read(store)
    assert run.reason.startswith(said)


def test_next_commands_fit_the_state(store: Store, filler: Filler) -> None:
    """A sweep with failures and planned trials offers to go on and to retry; names are quoted."""
    filler.fail(SPECS[0], NAN)
    _, run = read(store)
    assert ("List the trials", "stnbench trials sizes") in run.commands


def test_the_command_lists_trials(
    store: Store, filler: Filler, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a table, sorted and filtered, as CSV and as JSON."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    filler.complete(SPECS[0], 1900)
    filler.complete(SPECS[3], 1950)
    filler.fail(SPECS[1], NAN)
    assert trials(["sizes", "--sort", "accuracy", "--state", "complete"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 of 7 trials." in lines[1]
    assert [line.split()[0] for line in lines[3:5]] == ["20,20,20", "10,10,10"]
    assert trials(["sizes", "--format", "json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [item["trial_id"] for item in plain["trials"]][1:] == [spec.trial_id for spec in SPECS]
    assert plain["trials"][2]["failure_kind"] == "diverged"
    assert trials(["sizes", "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 8
    with pytest.raises(UnknownNameError, match="did you mean sizes"):
        trials(["size"])


def test_status_of_a_sweep_says_how_its_run_went(
    store: Store, filler: Filler, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When, why it ended, the slots, and what to type next; all of it in JSON as well."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    filler.complete(SPECS[0], 1900)
    assert status(["sizes"]) == 0
    printed = capsys.readouterr().out
    assert "It was stopped between trials" in printed
    assert "slot gpu0: 1 attempt" in printed
    assert "list the trials: stnbench trials sizes" in printed
    assert status(["sizes", "--json"]) == 0
    (sweep,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert sweep["run"]["slots"][0]["slot"] == "gpu0"
    assert sweep["run"]["reason"].startswith("It was stopped")
    assert "energy: not measured" in printed
    assert sweep["run"]["energy"] == {"kwh": None, "measured": 0, "trials": 1}


def test_energy_is_that_of_results_and_of_epochs_so_far(store: Store, filler: Filler) -> None:
    """Its sum says of how many trials it is; leaderboards have a column of it, and tables of trials."""
    filler.complete(SPECS[0], 1900)
    store.set_metrics(SPECS[0].trial_id, "validation", {"energy_kwh": 0.5})
    filler.complete(SPECS[1], 1900)
    for spec, energies in ((SPECS[2], {"energy_kwh": 0.25}), (SPECS[3], {})):
        token = filler.start(spec)
        for number in (1, 2):
            record = result(spec, token, 1000).epochs[-1]
            store.add_epoch(token, replace(record, epoch=number, metrics=energies))
    rows, run = read(store)
    assert {row.trial_id: row.energy_kwh for row in rows if row.energy_kwh is not None} == {
        SPECS[0].trial_id: 0.5,
        SPECS[2].trial_id: 0.5,
    }
    assert str(run.energy) == "1 kWh (2 of 4 trials measured)"
    board = output.read_report(store, "sizes").board
    written = output.render([board], "html")
    assert "energy kWh [95 %]" in written
    assert "0.5 kWh" in written
    assert "1 kWh (2 of 4 trials measured)" in written


@pytest.mark.parametrize("kind", ["md", "json", "latex", "html"])
def test_reports_name_every_trial(store: Store, filler: Filler, kind: output.Format) -> None:
    """The trial table and the summary of the run are sections like others."""
    filler.complete(SPECS[0], 1900)
    board = output.read_report(store, "sizes").board
    written = output.render([board], kind)
    assert SPECS[0].trial_id in written
    assert "It was stopped between trials" in written
    assert SPECS[5].trial_id in output.render([board], "csv", wanted=["trials"])


def test_states_of_attempts_are_told_apart() -> None:
    """Every state of an attempt has a colour in the timeline."""
    from stnbench.report.html.scores import _STATE_COLOURS

    assert set(_STATE_COLOURS) == set(AttemptState)


def test_labels_name_the_sizes_that_ran(store: Store, runs: Path) -> None:
    """A sweep that names 80,80,80 and trains 10,10,10 shows both, and a trial is found by either."""
    item = PlannedTrial(spec=SPECS[0], point=Point(labels=(("locnet1.sizes", "80,80,80"),)), label="80,80,80")
    Filler(store).save([item]).complete(SPECS[0], 1900)
    report = output.read_report(store, "sizes")
    assert report.board.rows[0].label == report.board.trials[0].label == "10,10,10 (80,80,80 / 8)"
    for name in ("80,80,80#1", "10,10,10 (80,80,80 / 8)#1"):
        assert find_trial(store, name).trial_id == SPECS[0].trial_id
