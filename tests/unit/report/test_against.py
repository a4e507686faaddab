"""Results beside earlier ones: equal, changed, new or gone, and by how much."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_results import Filler, planned, transformed
from narrowed import sizes_of
from scipy import stats

from stnbench.cli.report import main
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.report.against import Pair, Run, Status, against_sections, compare_pairs, pair_runs
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store


def run(
    label: str, seed: int, correct: int = 900, *, trial_id: str = "", loss: float = 0.5, predicted: str = "AA"
) -> Run:
    """A complete trial of 1,000 images."""
    return Run(
        trial_id=trial_id or f"{label}{seed}",
        label=label,
        seed=seed,
        correct=correct,
        images=1000,
        loss=loss,
        predicted=predicted,
        commit="c" * 40,
        where="here",
    )


def statuses(pairs: list[Pair]) -> list[tuple[str, int, str]]:
    """Label, seed and status of each pair."""
    return [(pair.some.label, pair.some.seed, pair.status.value) for pair in pairs]


def test_every_trial_of_either_side_has_one_status() -> None:
    """By identity first, whatever it is called there; then by configuration and seed."""
    here = [run("a", 1), run("a", 2, 901), run("b", 1), run("renamed", 1, trial_id="same")]
    there = [run("a", 1), run("a", 2, 899, trial_id="older"), run("c", 1), run("before", 1, trial_id="same")]
    assert statuses(pair_runs(here, there)) == [
        ("a", 1, "equal"),
        ("a", 2, "changed"),
        ("b", 1, "new"),
        ("c", 1, "gone"),
        ("renamed", 1, "equal"),
    ]


@pytest.mark.parametrize("change", [{"loss": 0.5000001}, {"predicted": "AB"}, {"correct": 901}])
def test_the_smallest_difference_is_a_change(change: dict[str, object]) -> None:
    """An equal accuracy of other predictions, or of another loss, is not the same result; it is named."""
    (pair,) = pair_runs([run("a", 1)], [replace(run("a", 1), **change)])  # type: ignore[arg-type]
    assert pair.status is Status.CHANGED
    assert len(pair.differs) == 1


def test_one_configuration_is_compared_by_t_over_its_seeds() -> None:
    """By hand: 1, 2 and 3 images more of 1,000: 0.2 points, and t with 2 degrees of freedom: 4.303 * 0.1 / sqrt(3)."""
    here = [run("a", seed, 900 + seed) for seed in (1, 2, 3, 4)]
    there = [run("a", seed, 900) for seed in (1, 2, 3)]
    (row,) = compare_pairs(pair_runs(here, there))
    found = row.difference
    assert found is not None
    assert found.n == 3
    assert found.mean == pytest.approx(0.002)
    assert found.low == pytest.approx(0.002 - 4.3027 * 0.001 / 3**0.5, abs=1e-6)
    assert found.p_adjusted == pytest.approx(2 * stats.t.sf(2 * 3**0.5, 2), rel=1e-3)


def made_up(rng: np.random.Generator, *, lost: int = 0, seed_effect: float = 0.0) -> list[Pair]:
    """Seventeen configurations and two seeds on two sides, the first of which loses images of 4,000 here.

    What the seeds do to all configurations differs between the sides by as many standard deviations of a run.
    """
    sides = 3800 + 12 * rng.standard_normal((2, 17, 2)) + 12 * seed_effect * rng.standard_normal((2, 1, 2))
    sides[0, 0] -= lost
    here, there = (
        [replace(run(f"c{at}", seed, round(right)), images=4000) for (at, seed), right in np.ndenumerate(side)]
        for side in sides
    )
    return pair_runs(here, [replace(one, loss=0.4) for one in there])


@pytest.mark.parametrize("seed_effect", [0.0, 2.0])
def test_equal_sides_are_seldom_told_apart(seed_effect: float) -> None:
    """In at most 5 % (and sampling error) of 30 sweeps, also where the sides draw seeds of their own."""
    rng = np.random.default_rng(18)
    found = [compare_pairs(made_up(rng, seed_effect=seed_effect)) for _ in range(30)]
    wrong = sum(any(row.difference.p_adjusted <= 0.05 for row in rows) for rows in found)  # type: ignore[union-attr, operator]
    assert wrong / len(found) <= 0.05 + 2 * (0.05 * 0.95 / len(found)) ** 0.5


def test_others_say_how_much_runs_scatter() -> None:
    """Two seeds find what lost ten standard deviations of a run, in 9 of 10 sweeps; paired t by itself cannot."""
    rng = np.random.default_rng(13)
    found = [compare_pairs(made_up(rng, lost=120)) for _ in range(10)]
    told = [
        {row.label for row in rows if row.difference and (row.difference.p_adjusted or 0) <= 0.05} for rows in found
    ]
    assert sum("c0" in labels for labels in told) >= 9
    assert sum(len(labels - {"c0"}) for labels in told) <= 1


def test_trials_that_are_equal_are_no_evidence_of_how_much_runs_scatter() -> None:
    """A configuration of equal trials has the difference 0 without an interval, and does not narrow the others'."""
    here = [run(label, seed, 900 + seed * (label == "a")) for label in "abc" for seed in (1, 2, 3)]
    there = [run(label, seed, 900) for label in "abc" for seed in (1, 2, 3)]
    by_label = {row.label: row.difference for row in compare_pairs(pair_runs(here, there))}
    (alone,) = compare_pairs(pair_runs(here[:3], there[:3]))
    assert by_label["a"] == alone.difference
    assert by_label["b"] is not None
    assert (by_label["b"].n, by_label["b"].mean, by_label["b"].low) == (3, 0.0, None)


def test_one_seed_has_a_difference_without_an_interval() -> None:
    """And no p: nothing is claimed of it."""
    (row,) = compare_pairs(pair_runs([run("a", 1, 901)], [run("a", 1)]))
    assert row.difference is not None
    assert row.difference.mean == pytest.approx(0.001)
    assert (row.difference.low, row.difference.p_adjusted) == (None, None)
    sections = against_sections([row], here="x", there="y", split="validation")
    assert "0 of 1 trial that both have are equal" in sections[0].text[0]
    assert "nothing is said of other seeds" in sections[0].text[1]


@pytest.fixture
def other(sizes: list[TrialSpec], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another runs folder, in which one trial of ``sizes`` came out otherwise and two never ran; ours is in use."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "other"
    specs = [transformed(size, seed=seed) for seed in (1, 2) for size in (10, 20, 30)]
    baselines = [spec.baseline() for spec in specs if sizes_of(spec) == (10, 10, 10)]
    with Store.open(folder / "stnbench.db", writable=True) as store:
        filler = Filler(store).save([planned(spec) for spec in (*baselines, *specs)])
        for spec, correct in zip(baselines, (1800, 1810), strict=True):
            filler.complete(spec, correct, test=1790)
        for spec, correct in zip(specs[:3], (1850, 1900, 1702), strict=True):
            filler.complete(spec, correct, test=1795)
    return folder


def test_a_sweep_beside_that_of_another_runs_folder(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four are equal, the one of 30,30,30 changed, two are new."""
    assert main(["sizes", "--against", str(other), "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "4 of 5 trials that both have are equal" in said["sections"][0]["text"][0]
    assert "1 changed, 2 new, 0 gone" in said["sections"][0]["text"][0]


@pytest.mark.parametrize("kind", ["md", "csv", "html", "latex", "json"])
def test_every_format_has_the_trial_that_changed(
    other: Path, capsys: pytest.CaptureFixture[str], kind: str, tmp_path: Path
) -> None:
    """With its status and both accuracies; a file is written only where a folder is given."""
    assert main(["sizes", "--against", str(other), "--format", kind, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "changed" in printed
    assert "30,30,30" in printed.replace("{,}", ",")
    assert (tmp_path / "out" / "sizes" / "against.md").exists()
    assert not (tmp_path / "reports").exists()


def test_people_get_plain_lines(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a format the sections are printed for the terminal."""
    assert main(["sizes", "--against", str(other)]) == 0
    assert "Trials that are not equal" in capsys.readouterr().out


def test_a_sweep_beside_itself_and_its_own_commit_is_equal(
    other: Path, store: Store, sizes: list[TrialSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another name in the store is a sweep; hexadecimal digits are a commit, whose trials are compared."""
    assert main(["sizes", "--against", "sizes", "--format", "json"]) == 0
    assert "7 of 7 trials" in capsys.readouterr().out
    outcome = store.outcome(sizes[0].trial_id)
    assert outcome is not None
    assert main(["sizes", "--against", outcome.environment.commit[:10], "--format", "json"]) == 0
    assert "7 of 7 trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (
            ["sizes", "--against", "nothing"],
            UnknownNameError,
            "unknown sweep, runs folder, .* 'nothing'",
        ),
        (["sizes", "--against", "fedcba9876543210"], SpecError, "commit fedcba9876543210 has no complete trial"),
        (["--against", "sizes"], SpecError, "--against with 0 sweeps"),
        (["elsewhere", "--against", "sizes"], UnknownNameError, "unknown sweep 'elsewhere'"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    other: Path, arguments: list[str], error: type[Exception], says: str
) -> None:
    """In one line that names it."""
    with pytest.raises(error, match=says):
        main(arguments)
