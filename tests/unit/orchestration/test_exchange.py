"""Stores meet: by identity, in either order with the same reports, twice without a change, and nothing on trust."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_trials import Task, fake_result, fake_spec, run_fake_trial
from tiny_sweeps import SWEEP, TRIALS, all_rows, opened, run_tiny, scores_of, without_training

from stnbench.cli.store import main
from stnbench.core.errors import StnbenchError, StoreError, UnknownNameError
from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.core.identity import RESULTS_VERSION
from stnbench.orchestration.exchange import FORMAT
from stnbench.orchestration.sources import SourceRecord, diff_digest, find_source
from stnbench.report.output import read_report, render
from stnbench.spec.codec import to_json
from stnbench.spec.result import TrialResult
from stnbench.spec.sweep import Axis, Choice, Override
from stnbench.spec.trial import TrialSpec
from stnbench.store.merge import plan_merge
from stnbench.store.portable import KEYS
from stnbench.trials.files import write_result

pytestmark = pytest.mark.slow

OTHER = replace(SWEEP, name="other", question="Does it run as well?")
MORE = tuple(fake_spec(Task.FINISH, seed=seed, epochs=1, config=7) for seed in (1, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both runs folders, made once and copied for each test, with an archive of the sweep tiny."""
    folder = tmp_path_factory.mktemp("exchange")
    with pytest.MonkeyPatch.context() as patch:
        without_training(patch)
        patch.delenv("STNBENCH_STORE", raising=False)
        here, there = RunsLayout(folder / "here"), RunsLayout(folder / "there")
        run_tiny(here)
        run_tiny(here, (*TRIALS[2:], fake_spec(Task.FAIL, config=3)), sweep=OTHER)
        run_tiny(there, (*MORE, *TRIALS[1:]))
        run_tiny(there, MORE[:1], sweep=replace(SWEEP, name="third"))
        use(here, patch)
        assert main(["export", "tiny", str(folder / "good.stnb")]) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsLayout:
    """A runs folder with two sweeps; a trial of one has failed."""
    without_training(monkeypatch)
    layout = RunsLayout(Path(shutil.copytree(made / "here", tmp_path / "here")))
    use(layout, monkeypatch)
    return layout


@pytest.fixture
def there(made: Path, tmp_path: Path) -> RunsLayout:
    """Another one, in which one of the sweeps ran in part and with more configurations, and a third one."""
    return RunsLayout(Path(shutil.copytree(made / "there", tmp_path / "there")))


def use(layout: RunsLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands work on this runs folder."""
    monkeypatch.setenv("STNBENCH_RUNS", str(layout.root))


def copied(layout: RunsLayout, name: str) -> RunsLayout:
    """A runs folder once more."""
    return RunsLayout(Path(shutil.copytree(layout.root, layout.root.with_name(name))))


def reports(layout: RunsLayout) -> list[str]:
    """The report of every sweep, in every format without pictures."""
    with opened(layout) as store:
        names = sorted(record.spec.name for record in store.sweeps())
        boards = [read_report(store, name).board for name in names]
    return [render(boards, kind) for kind in ("json", "md", "csv")]


def test_a_sweep_arrives_whole(here: RunsLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported and imported elsewhere: every row and file of the sweep; checkpoints only where they are asked for."""
    assert main(["export", "tiny", str(tmp_path / "tiny.stnb")]) == 0
    assert main(["export", "tiny", str(tmp_path / "whole.stnb"), "--with", "checkpoints"]) == 0
    for archive, has_checkpoint in (("tiny.stnb", False), ("whole.stnb", True)):
        layout = RunsLayout(tmp_path / archive.removesuffix(".stnb"))
        use(layout, monkeypatch)
        assert main(["import", str(tmp_path / archive)]) == 0
        mine, its = all_rows(here), all_rows(layout)
        ids = {spec.trial_id for spec in TRIALS}
        for table in ("attempts", "epochs", "outcomes", "scores", "predictions"):
            assert its[table] == [row for row in mine[table] if row["trial_id"] in ids]
        assert its["sweeps"] == [row for row in mine["sweeps"] if row["name"] == "tiny"]
        for spec in TRIALS:
            folder, origin = AttemptLayout(layout.attempt(spec.trial_id, 1)), here.attempt(spec.trial_id, 1)
            assert folder.result.read_bytes() == (origin / "result.json").read_bytes()
            assert folder.checkpoint.exists() is has_checkpoint
        assert run_tiny(layout).launched == 0


def test_equal_exports_are_equal_but_for_their_time(here: RunsLayout, tmp_path: Path) -> None:
    """The rows and files of an archive are the same bytes whenever it is made."""
    for name in ("a", "b"):
        main(["export", "tiny", str(tmp_path / name)])
    with zipfile.ZipFile(tmp_path / "a") as one, zipfile.ZipFile(tmp_path / "b") as other:
        assert one.namelist() == other.namelist()
        assert all(one.read(name) == other.read(name) for name in one.namelist() if name != "manifest.json")


def test_two_stores_merge_in_either_order(here: RunsLayout, there: RunsLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows and the same bytes of every report; what both had was reproduced; twice changes nothing."""
    one, other = copied(here, "one"), copied(there, "other")
    use(one, monkeypatch)
    assert main(["merge", str(there.root)]) == 0
    use(other, monkeypatch)
    assert main(["merge", str(here.root)]) == 0

    assert all_rows(one) == all_rows(other)
    assert reports(one) == reports(other)
    rows = all_rows(one)
    for layout, source in ((one, there), (other, here), (one, other)):
        use(layout, monkeypatch)
        assert main(["merge", str(source.root)]) == 0
        assert all_rows(layout) == rows
    for row in rows["outcomes"]:
        assert AttemptLayout(one.attempt(str(row["trial_id"]), int(str(row["number"])))).result.exists()


def test_a_trial_that_was_not_reproduced_is_told(
    here: RunsLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another result of the same trial: exit code 1, what differs, and both environments; either order keeps one.

    Another energy is not another result.
    """

    def run_elsewhere(spec: TrialSpec, *, token: str, folder: Path, **rest: Any) -> TrialResult:
        run_fake_trial(spec, token=token, folder=folder, **rest)
        result = fake_result(spec, token)
        worse = replace(result.validation, correct=result.validation.correct - (spec == TRIALS[0]))
        worse = replace(worse, metrics={**worse.metrics, "energy_kwh": 0.5})
        elsewhere = replace(result.environment, host="elsewhere", device="another GPU")
        write_result(folder, made := replace(result, validation=worse, environment=elsewhere))
        return made

    without_training(monkeypatch, run_elsewhere)
    there = RunsLayout(tmp_path / "there")
    run_tiny(there)
    one, other = copied(here, "one"), copied(there, "other")
    use(one, monkeypatch)
    assert main(["merge", str(there.root)]) == 1
    said = capsys.readouterr()
    assert "reproduced: 3 of 4" in said.out
    assert f"NOT REPRODUCED: trial {TRIALS[0].trial_id}" in said.err
    assert "correct" in said.err
    assert "metrics" not in said.err
    assert '"host":"test"' in said.err
    assert '"host":"elsewhere"' in said.err
    use(other, monkeypatch)
    assert main(["merge", str(here.root)]) == 1
    assert reports(one) == reports(other)
    assert scores_of(one) == scores_of(other)
    aside = list((other.root / "trials").glob("*/superseded-1/001/result.json"))
    assert len(aside) == len(TRIALS)  # nothing of ours was removed


def test_a_merged_store_can_be_made_again(here: RunsLayout, there: RunsLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history and the files of what was brought in are whole."""
    main(["merge", str(there.root)])
    rows = all_rows(here)
    (here.root / "stnbench.db").unlink()
    assert main(["rebuild"]) == 0
    assert all_rows(here) == rows


def test_two_questions_of_one_name_are_not_mixed(
    here: RunsLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep with other axes is refused, and nothing is changed."""
    axis = Axis(name="a", choices=(Choice(label="1", overrides=(Override(key="training.epochs", value=1),)),))
    there = RunsLayout(tmp_path / "there")
    run_tiny(there, MORE, sweep=replace(SWEEP, axes=(axis,)))
    rows = all_rows(here)
    with pytest.raises(StoreError, match="the sweep tiny has other axes"):
        main(["merge", str(there.root)])
    assert all_rows(here) == rows


def test_an_attempt_of_two_trials_is_refused(here: RunsLayout, there: RunsLayout) -> None:
    """Tokens are of one attempt each, also where somebody has edited a store: before anything is copied."""
    with opened(here) as one, opened(there) as other:
        ours, theirs = one.rows(KEYS), other.rows(KEYS)
    own = next(row for key, row in ours["attempts"].items() if key not in theirs["attempts"])
    new = next(key for key in theirs["attempts"] if key not in ours["attempts"])
    theirs["attempts"][new] = {**theirs["attempts"][new], "token": own["token"]}
    with pytest.raises(StoreError, match=f"the attempt {own['token']} is of the trial {new[0]} there"):
        plan_merge(ours, theirs)


def test_what_is_not_there_is_named(here: RunsLayout, tmp_path: Path) -> None:
    """A sweep, an archive or a runs folder that does not exist, and oneself."""
    with pytest.raises(UnknownNameError, match="tinny"):
        main(["export", "tinny", str(tmp_path / "x.stnb")])
    with pytest.raises(StoreError, match="there is no archive"):
        main(["import", str(tmp_path / "x.stnb")])
    with pytest.raises(StoreError, match="there is no store"):
        main(["merge", str(tmp_path / "nowhere")])
    with pytest.raises(StoreError, match="same runs folder"):
        main(["merge", str(here.root)])
    with pytest.raises(StnbenchError, match="cannot be written"):
        main(["export", "tiny", str(tmp_path / "no" / "x.stnb")])


Members = dict[str, bytes]


def sign(members: Members) -> Members:
    """The manifest made to fit the members, as one does who knows how."""
    manifest = json.loads(members["manifest.json"])
    rest = {name: data for name, data in members.items() if name != "manifest.json"}
    manifest["files"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in rest.items()
    }
    return rest | {"manifest.json": json.dumps(manifest).encode()}


def with_manifest(**changes: object) -> Callable[[Members], Members]:
    """What changes keys of the manifest."""
    return lambda members: (
        members | {"manifest.json": json.dumps(json.loads(members["manifest.json"]) | changes).encode()}
    )


def with_rows(old: str, new: str) -> Callable[[Members], Members]:
    """What replaces a text in the rows, and signs."""
    return lambda members: sign(members | {"rows.jsonl": members["rows.jsonl"].replace(old.encode(), new.encode(), 1)})


TAMPERED: dict[str, Callable[[Members], Members]] = {
    "a byte of the rows": lambda m: m | {"rows.jsonl": m["rows.jsonl"][:-2] + b" \n"},
    "a byte of a result": lambda m: {n: d[:-1] + b" " if n.endswith("result.json") else d for n, d in m.items()},
    "a member more": lambda m: m | {"trials/0123456789abcdef/001/spec.json": b"{}"},
    "a member less": lambda m: {n: d for n, d in m.items() if not n.endswith("spec.json")},
    "no manifest": lambda m: {n: d for n, d in m.items() if n != "manifest.json"},
    "a manifest that is none": lambda m: m | {"manifest.json": b"[1]"},
    "a deep manifest": lambda m: m | {"manifest.json": b"[" * 100_000},
    "a future format": with_manifest(format=FORMAT + 1),
    "a future revision": with_manifest(revision="9999"),
    "results of a future version": with_manifest(results_version=RESULTS_VERSION + 1),
    "a path that climbs": lambda m: sign(m | {"../evil.json": b"{}"}),
    "a path that climbs inside": lambda m: sign(m | {"trials/../../evil/001/spec.json": b"{}"}),
    "an absolute path": lambda m: sign(m | {"/evil.json": b"{}"}),
    "another file of a trial": lambda m: sign(m | {"trials/0123456789abcdef/001/run.py": b"import os"}),
    "the store itself": lambda m: sign(m | {"stnbench.db": b""}),
    "a table that is none": with_rows('["trials"', '["mirrored"'),
    "a column that is none": with_rows('"cell_id"', '"cell_di"'),
    "a trial by another name": with_rows(TRIALS[0].trial_id, "0123456789abcdef"),
    "a state that is none": with_rows('"state": "complete"', '"state": "excellent"'),
    "a seed that is another's": with_rows('"seed": 1', '"seed": 2'),
    "a configuration that is another's": with_rows('"cell_id": "', '"cell_id": "0'),
    "a number that is text": with_rows('"seed": 1', '"seed": "1"'),
    "a number that is huge": with_rows('"seed": 1', f'"seed": {10**30}'),
    "a time without a zone": with_rows("+00:00", ""),
    "labels that are no bytes": with_rows('"labels": "', '"labels": "%%'),
    "more correct than images": with_rows('"images": 1000', '"images": 1'),
    "an environment that is none": with_rows('\\"host\\"', '\\"hots\\"'),
    "health that is none": with_rows('"health": "[]"', '"health": "[1]"'),
    "two trials in one place": with_rows('"position": 1', '"position": 0'),
    "two complete attempts": with_rows('"number": 1, "token"', '"number": 2, "token"'),
    "no rows": lambda m: sign({n: d for n, d in m.items() if n != "rows.jsonl"}),
    "a row twice": lambda m: sign(m | {"rows.jsonl": m["rows.jsonl"] + m["rows.jsonl"].split(b"\n")[0] + b"\n"}),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_archive_is_refused_in_one_line(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nothing at all is written, whatever was changed, also by somebody who knows how to sign."""
    with zipfile.ZipFile(made / "good.stnb") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bad.stnb", "w") as archive:
        for name, data in TAMPERED[how](members).items():
            archive.writestr(name, data)
    layout = RunsLayout(tmp_path / "empty")
    use(layout, monkeypatch)
    with pytest.raises(StnbenchError) as caught:
        main(["import", str(tmp_path / "bad.stnb")])
    assert "bad.stnb" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not layout.trials.exists()
    assert not layout.root.exists()


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.99])
def test_a_damaged_archive_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: float
) -> None:
    """Cut anywhere, or overwritten anywhere, it is no archive any more."""
    data = (made / "good.stnb").read_bytes()
    start = int(place * len(data))
    use(RunsLayout(tmp_path / "empty"), monkeypatch)
    for damaged in (data[:start], data[:start] + b"\xa5" * 50 + data[start + 50 :]):
        (tmp_path / "bad.stnb").write_bytes(damaged)
        with pytest.raises(StoreError, match=r"bad\.stnb"):
            main(["import", str(tmp_path / "bad.stnb")])
    assert not (tmp_path / "empty").exists()


def with_code(layout: RunsLayout) -> str:
    """Keep a record of the code that trained the first trial, with a difference; the trial's token."""
    with opened(layout) as store:
        (attempt,) = store.attempts_of_trial(TRIALS[0].trial_id)
    session = attempt.token.rpartition("-")[0]
    changes = b"--- a\n+++ b\n"
    digest = diff_digest(changes)
    record = SourceRecord(sweep="tiny", started_at="2026-03-01T12:00:00", commit="c" * 40, dirty=True, diff=digest)
    layout.sources.mkdir(exist_ok=True)
    (layout.sources / f"{session}.json").write_text(to_json(record))
    (layout.sources / f"{digest}.diff").write_bytes(changes)
    return attempt.token


@pytest.mark.parametrize("way", ["archive", "merge"])
def test_the_code_of_trials_comes_along(
    way: str, here: RunsLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an archive or directly: ``stnbench sources`` finds commit and differences there as well."""
    token = with_code(here)
    layout = RunsLayout(tmp_path / "elsewhere")
    if way == "archive":
        assert main(["export", "tiny", str(tmp_path / "tiny.stnb")]) == 0
    use(layout, monkeypatch)
    arguments = ["import", str(tmp_path / "tiny.stnb")] if way == "archive" else ["merge", str(here.root)]
    assert [main(arguments), main(arguments)] == [0, 0]
    found = find_source(layout, token)
    assert (found.record.commit, found.diff) == ("c" * 40, "--- a\n+++ b\n")


def test_changed_code_is_refused(here: RunsLayout, tmp_path: Path) -> None:
    """Differences that do not have their digest are not passed on as what trained a trial."""
    with_code(here)
    for path in here.sources.glob("*.diff"):
        path.write_bytes(b"something else")
    with pytest.raises(StoreError, match="were changed"):
        main(["export", "tiny", str(tmp_path / "tiny.stnb")])
