"""``stnbench list``."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from stnbench.cli.list_sweeps import ListedSweep, main, sweep_lines
from stnbench.config.locate import sweep_files
from stnbench.core.errors import InfeasibleError, UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.orchestration.plan import Experience
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store

MINE = (
    "question: Which of two?\nbase: {scale: smoke}\naxes: {optimizer: [sgd, momentum]}\nseeds: [1, 2]\n"
    "baselines: false\n"
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two sweeps of its own, and no store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STNBENCH_RUNS", str(tmp_path / "runs"))
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(MINE)
    (tmp_path / "sweeps" / "broken.yaml").write_text("question: [\n")
    return tmp_path


def test_a_sweep_is_listed_with_its_question_and_size(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines; without a store nothing is made, and nothing said of states."""
    assert main(["mine"]) == 0
    assert capsys.readouterr().out == "mine  2 configurations, 4 trials\n    Which of two?\n"
    assert not (place / "runs").exists()


def test_sizes_of_grids_races_and_searches_are_told_apart() -> None:
    """A search ends after a known number of trials, a race goes on from its first; one of anything has no plural."""
    plain = ListedSweep(sweep="s", question="Which of two?", configurations=1, trials=1, states={})
    told = [
        next(sweep_lines([one])).split("  ")[1]
        for one in (plain, replace(plain, trials=2, is_open=True), replace(plain, is_open=True, trials_max=24))
    ]
    assert told == ["1 configuration, 1 trial", "1 configuration, 2 trials at first", "a search of 24 trials"]
    assert [*sweep_lines([replace(plain, question="Which of " + "two " * 9)], 30)][1:] == [
        "    Which of two two two two",
        "    two two two two two",
    ]


@pytest.mark.slow
def test_one_that_cannot_be_read_hides_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed with what is wrong; the shipped ones are there as well, of which one is planned here."""
    files = sweep_files(Path.cwd())
    assert main(["--names", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"] == sorted(files)

    few = {name: files[name] for name in ("mine", "broken", "locnet_sizes")}
    monkeypatch.setattr("stnbench.cli.list_sweeps.sweep_files", lambda _: few)
    assert main(["--json"]) == 0
    listed = {item["sweep"]: item for item in json.loads(capsys.readouterr().out)["sweeps"]}

    assert set(listed) == set(few)
    assert "sweeps/broken.yaml" in listed["broken"]["error"]
    assert listed["broken"]["configurations"] is None
    assert (listed["locnet_sizes"]["configurations"], listed["locnet_sizes"]["trials"]) == (9, 27)
    assert not any(item["error"] for name, item in listed.items() if name != "broken")


def test_an_unknown_sweep_is_refused_with_the_nearest() -> None:
    """As by every command."""
    with pytest.raises(UnknownNameError, match="did you mean mine"):
        main(["mien"])


@pytest.mark.slow
def test_the_time_of_a_sweep_is_that_of_its_trials_at_the_usual_pace(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --cost: the median of complete trials counts, not their outlier, and what cannot be built takes no time."""
    paces = [1e9, 2e9, 90e9]  # FLOPs a second
    infeasible = 0

    def assess(spec: TrialSpec) -> SimpleNamespace:
        if spec.seed == infeasible:
            raise InfeasibleError("nothing is left of the image")
        return SimpleNamespace(flops=1e6)

    def device_s() -> float:
        assert main(["mine", "--cost", "--json"]) == 0
        (listed,) = json.loads(capsys.readouterr().out)["sweeps"]
        return float(listed["device_s"])

    layout = RunsLayout(place / "runs")
    with Store.open(layout.store, writable=True):
        pass
    monkeypatch.setitem(sys.modules, "stnbench.models.scored_network", SimpleNamespace(assess_cost=assess))
    monkeypatch.setattr(
        "stnbench.cli.list_sweeps.read_experience",
        lambda _: [Experience(work_flops=10 * pace, duration_s=10.0) for pace in paces],
    )
    usual = device_s()
    paces = [4e9, 4e9, 4e9]
    assert device_s() == pytest.approx(usual / 2)
    infeasible = 1
    assert device_s() == pytest.approx(usual / 4)
    paces = []
    assert main(["mine", "--cost"]) == 0
    assert "on one slot" not in capsys.readouterr().out
