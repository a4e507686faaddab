"""``python -m stnbench.report`` and what it is made of, against a real store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_results import Filler, planned, transformed

from stnbench.cli.report import main
from stnbench.core.errors import FolderError, SpecError, StoreError, UnknownNameError
from stnbench.report.output import FILES, read_leaderboard, write_reports
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store


@pytest.fixture
def command(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs folder and the working directory of the command; the folder it writes to by default."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "reports"


def test_prints_the_table_and_writes_the_files(
    sizes: list[TrialSpec], command: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without options every sweep is printed in plain lines and written to reports/."""
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "How large must it be?" in printed
    assert "20,20,20" in printed
    assert "wrote reports/sizes/leaderboard.md" in printed
    assert sorted(path.name for path in (command / "sizes").iterdir()) == sorted(FILES)


def test_numbers_of_the_leaderboard_are_those_of_the_store(store: Store, sizes: list[TrialSpec]) -> None:
    """By hand: 20,20,20 scored 1900 and 1908 of 2000, its baseline 1800 and 1810: a gain of 4.95 points."""
    board = read_leaderboard(store, "sizes")
    labels = [row.label for row in board.rows]
    assert labels == ["20,20,20", "10,10,10", "no ST", "30,30,30"]
    best = board.rows[0]
    assert best.score is not None
    assert best.score.n == 2
    assert best.score.mean == pytest.approx(0.952)
    assert best.st_gain is not None
    assert best.st_gain.mean == pytest.approx(0.0495)
    assert board.images == 2000
    assert (board.states.complete, board.states.failed) == (7, 1)
    assert board.failures[0].trial_ids == (sizes[-1].trial_id,)


@pytest.mark.parametrize("kind", ["md", "csv", "html", "latex"])
def test_one_format_alone_writes_no_file(
    sizes: list[TrialSpec], command: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """``--format`` prints that format alone."""
    assert main(["sizes", "--format", kind]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith({"md": "# sizes", "csv": "sweep,", "html": "<!doctype", "latex": "% "}[kind])
    assert (captured.err, command.exists()) == ("", False)


def test_json_is_one_object_and_nothing_else(
    sizes: list[TrialSpec], command: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is JSON even where files are written as well."""
    assert main(["--format", "json", "--out", str(command)]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["sweep"], len(plain["rows"]), plain["rows"][0]["split"]) == ("sizes", 4, "validation")
    assert (command / "sizes" / "index.html").exists()


def test_same_store_gives_the_same_bytes(store: Store, sizes: list[TrialSpec], tmp_path: Path) -> None:
    """A report that is written twice is the same file twice."""
    first = [path.read_bytes() for path in write_reports(store, ["sizes"], tmp_path / "a")]
    second = [path.read_bytes() for path in write_reports(store, ["sizes"], tmp_path / "b")]
    assert first == second


def test_ranking_by_test_split(sizes: list[TrialSpec], command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--split test`` ranks by test and says which split its numbers are from."""
    assert main(["--format", "json", "--split", "test"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert {row["split"] for row in plain["rows"]} == {"test"}
    assert plain["rows"][0]["mean"] == pytest.approx(1795 / 2000)


def test_unknown_sweep_offers_the_nearest(sizes: list[TrialSpec], command: Path) -> None:
    """A wrong name is an error that names what there is, and nothing is written."""
    with pytest.raises(UnknownNameError, match="did you mean sizes"):
        main(["size"])
    assert not command.exists()


def test_missing_store_is_an_error(command: Path) -> None:
    """Without a store there is nothing to report, and the remedy is said."""
    with pytest.raises(StoreError, match="run a sweep first"):
        main([])


@pytest.mark.parametrize("extra", [[], ["--format", "json"]])
def test_store_without_sweeps(
    store: Store, command: Path, capsys: pytest.CaptureFixture[str], extra: list[str]
) -> None:
    """An empty store has no report, which is no error."""
    assert main(extra) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"sweeps": []} if extra else printed == "the store has no sweeps yet\n"


def test_sweep_without_trials(store: Store, command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that has planned nothing yet is reported as such."""
    Filler(store, "empty").save([])
    assert main([]) == 0
    assert "The sweep has no trials yet." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", ""])
def test_name_from_the_store_cannot_leave_the_folder(store: Store, tmp_path: Path, name: str) -> None:
    """A sweep's name is data: it names a folder of the reports or nothing."""
    Filler(store, name).save([planned(transformed(1))])
    with pytest.raises(SpecError, match="cannot name a folder"):
        write_reports(store, [name], tmp_path / "reports")
    assert not (tmp_path / "escape").exists()


def test_folder_that_cannot_be_written_is_named(store: Store, sizes: list[TrialSpec], tmp_path: Path) -> None:
    """A file where the folder should be: the error says so."""
    (tmp_path / "reports").write_text("")
    with pytest.raises(FolderError, match="--out"):
        write_reports(store, ["sizes"], tmp_path / "reports")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"), [(["nothing"], "unknown sweep 'nothing'"), ([], "there is no store at")]
)
def test_command_ends_with_one_line_and_code_2(store: Store, runs: Path, arguments: list[str], said: str) -> None:
    """An unknown sweep, or no store: one line on standard error, no traceback."""
    if not arguments:
        runs = runs / "elsewhere"
    done = subprocess.run(
        [sys.executable, "-m", "stnbench.report", *arguments],
        env={"STNBENCH_RUNS": str(runs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_who_only_imports_the_report_does_not_pay_for_pandas() -> None:
    """The sweep command imports ``output`` and ``board`` at its start: no pandas, scipy, torch or MLflow with them."""
    code = (
        "import sys, stnbench.report.output, stnbench.report.board, stnbench.cli.report\n"
        "print(sorted({'pandas', 'scipy', 'torch', 'mlflow', 'hydra', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_pages_can_be_published(
    store: Store, sizes: list[TrialSpec], command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with a page a sweep, and an index that links to each and says its question and answer."""
    Filler(store, "a <b>").save([planned(transformed(77))], question="What <i>?")
    assert main(["--publish", str(tmp_path / "site")]) == 0
    index = (tmp_path / "site" / "index.html").read_text()
    assert f"wrote {tmp_path / 'site' / 'index.html'}" in capsys.readouterr().out
    assert '<a href="sizes/index.html">sizes</a>' in index
    assert '<a href="a%20%3Cb%3E/index.html">a &lt;b&gt;</a>' in index
    assert "What &lt;i&gt;?" in index
    assert "20,20,20 scores highest" in index
    assert (tmp_path / "site" / "sizes" / "index.html").exists()
