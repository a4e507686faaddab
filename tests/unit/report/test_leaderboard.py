"""From frames to a leaderboard."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from made_up_results import ENVIRONMENT, IMAGES, NOW, Filler, planned, result, transformed

from stnbench.analysis.frames import read_trials, trials_frame
from stnbench.analysis.verdicts import Verdict
from stnbench.core.text import Price
from stnbench.report.board import Leaderboard, Row, configuration_views
from stnbench.report.columns import leaderboard_table
from stnbench.report.leaderboard import build_leaderboard
from stnbench.report.runs import RunSummary
from stnbench.report.sections import answer_section, run_section
from stnbench.spec.data import AllSplitSpec, Split
from stnbench.spec.planner import UntilDecidedPlannerSpec
from stnbench.spec.result import AttemptState, Environment, Failure, FailureKind, TrialState
from stnbench.spec.result import Verdict as HealthVerdict
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptRecord, Outcome, TrialRecord

SWEEP = SweepSpec(name="sizes", question="How large?", seeds=(1, 2, 3))


class Made:
    """A sweep's records, made by hand."""

    def __init__(self) -> None:
        self.trials: list[TrialRecord] = []
        self.outcomes: dict[str, Outcome] = {}

    def add(
        self,
        spec: TrialSpec,
        state: TrialState = TrialState.PLANNED,
        *,
        failure: Failure | None = None,
        label: str = "",
    ) -> None:
        """A trial that has no score."""
        wanted = planned(spec, label)
        attempt = (
            None
            if failure is None
            else AttemptRecord(
                trial_id=spec.trial_id,
                number=1,
                token="t",
                state=AttemptState.FAILED,
                slot="gpu0",
                host="box",
                pid=1,
                boot_id="b",
                started_at=NOW,
                finished_at=NOW,
                failure=failure,
            )
        )
        self.trials.append(
            TrialRecord(
                sweep="sizes",
                position=len(self.trials),
                trial_id=spec.trial_id,
                config_id=spec.config_id,
                point=wanted.point,
                label=wanted.label,
                is_baseline=wanted.is_baseline,
                seed=spec.seed,
                state=state,
                attempts=1 if attempt else 0,
                last_attempt=attempt,
                spec=spec,
            )
        )

    def score(
        self, spec: TrialSpec, *correct: int, test: int | None = None, environment: Environment = ENVIRONMENT
    ) -> None:
        """A configuration, with the images of one seed after the other that it classified correctly."""
        for seed, right in enumerate(correct, 1):
            own = spec.with_seed(seed)
            self.add(own, TrialState.COMPLETE)
            made = result(own, "t", right, test=test, environment=environment)
            self.outcomes[own.trial_id] = Outcome(
                attempt=1,
                validation=made.validation,
                test=made.test,
                cost=made.cost,
                environment=environment,
                train_duration_s=made.train_duration_s,
                peak_memory_mib=made.peak_memory_mib,
            )

    def frame(self) -> pd.DataFrame:
        """The frame."""
        return trials_frame(self.trials, self.outcomes)

    def board(self, sweep: SweepSpec = SWEEP) -> Leaderboard:
        """The leaderboard."""
        return build_leaderboard(sweep, self.frame())

    def move(self, label: str, axis: str, choice: str) -> None:
        """Give the configuration of a label one more label on an axis."""
        for index, trial in enumerate(self.trials):
            if trial.label == label:
                labels = (*trial.point.labels, (axis, choice))
                self.trials[index] = replace(trial, point=Point(labels=labels))


def row_of(board: Leaderboard, label: str) -> Row:
    """The row of a configuration."""
    return next(row for row in board.rows if row.label == label)


def test_configurations_are_sorted_by_mean_and_configurations_without_a_score_come_last() -> None:
    """The best comes first; a configuration whose trials all failed is there, without a number."""
    made = Made()
    made.add(transformed(9), TrialState.FAILED, failure=Failure(kind=FailureKind.BUG, message="x"))
    made.score(transformed(1), 1700, 1702)
    made.score(transformed(2), 1800, 1802)
    rows = made.board().rows
    assert [row.label for row in rows] == ["2,2,2", "1,1,1", "9,9,9"]
    assert rows[0].score is not None
    assert rows[0].score.mean == pytest.approx(1801 / IMAGES)
    assert (rows[2].score, rows[2].rank, rows[2].standing) == (None, "", None)


def test_configurations_not_told_from_the_best_share_its_rank() -> None:
    """On three seeds the second is undecided and shares ranks 1 to 2, the third is lower and has its own."""
    made = Made()
    made.score(transformed(1), 1900, 1910, 1905)
    made.score(transformed(2), 1904, 1903, 1890)
    made.score(transformed(3), 1800, 1811, 1804)
    board = made.board()
    assert [(row.rank, row.standing) for row in board.rows] == [
        ("1-2", Verdict.BEST),
        ("1-2", Verdict.UNDECIDED),
        ("3", Verdict.LOWER),
    ]
    assert board.answer is not None
    assert board.answer.lines[-1].startswith("1,1,1 scores highest")
    assert [name for name, _ in board.comparisons] == [""]


def test_a_diverged_trial_crowns_nobody() -> None:
    """A config that lost its hard seed to divergence is ranked on what its other seeds say, and its failure is told."""
    made = Made()
    for size in range(1, 6):
        made.score(transformed(size), 1900 + size, 1905 + size, 1700 + size)
    made.score(transformed(9), 1890, 1893)
    diverged = Failure(kind=FailureKind.DIVERGED, message="loss is nan")
    made.add(transformed(9).with_seed(3), TrialState.FAILED, failure=diverged)
    board = made.board()
    assert [row.label for row in board.rows][-1] == "9,9,9"
    row = board.rows[-1]
    assert row.score is not None
    assert row.score.mean < 1850 / IMAGES
    assert row.decision is not None
    assert row.decision.failures is not None
    assert (row.decision.failures.diverged, row.decision.failures.runs) == (1, 3)
    assert board.answer is not None
    assert "1 of 18 runs diverged" in board.answer.lines[0]


def test_gain_is_paired_with_the_baseline_by_seed() -> None:
    """Seeds differ by much, the gain of 50 images is the same for each: its interval is narrow."""
    made = Made()
    made.score(transformed(1).baseline(), 1000, 1400, 1800)
    made.score(transformed(1), 1050, 1449, 1851)
    gain = row_of(made.board(), "1,1,1").st_gain
    assert gain is not None
    assert gain.n == 3
    assert gain.mean == pytest.approx(50 / IMAGES)
    assert gain.high is not None
    assert gain.high - gain.mean < 60 / IMAGES


def test_gain_from_one_common_seed_decides_nothing_and_has_a_note() -> None:
    """Where the baseline has one seed only, the difference is shown and said to prove nothing."""
    made = Made()
    made.score(transformed(1).baseline(), 1000)
    made.score(transformed(1), 1050, 1450)
    board = made.board()
    row = row_of(board, "1,1,1")
    assert row.st_gain is not None
    assert row.st_gain.n == 1
    assert "gain from 1 seed" in row.notes
    assert row.standing is Verdict.BEST
    assert board.rows[1].standing is Verdict.UNDECIDED


def test_baseline_has_no_gain() -> None:
    """The base of the gain is compared with nothing."""
    made = Made()
    made.score(transformed(1).baseline(), 1000, 1001)
    assert row_of(made.board(), "no ST").st_gain is None


def test_incomplete_sweep_is_shown_as_it_is() -> None:
    """Counts, states and the seeds that are there are said, for the sweep and for the configuration."""
    made = Made()
    made.score(transformed(1), 1900, 1910)
    made.add(transformed(1, seed=3), TrialState.RUNNING)
    made.add(transformed(2, seed=1))
    board = made.board()
    row = row_of(board, "1,1,1")
    assert (row.seeds, row.states.trials, row.notes) == ((1, 2), 3, ("1 running",))
    assert board.notes[0] == "2 of 4 trials are complete (1 planned, 1 running)."
    assert row_of(board, "2,2,2").notes == ("1 planned",)


def test_failures_are_grouped_by_kind_and_first_line() -> None:
    """The largest group comes first; the rest of a message does not part a group."""
    made = Made()
    for seed in (1, 2):
        failure = Failure(kind=FailureKind.DIVERGED, message=f"the loss is nan\nat step {seed}")
        made.add(transformed(1, seed=seed), TrialState.FAILED, failure=failure)
    made.add(transformed(2), TrialState.FAILED, failure=Failure(kind=FailureKind.BUG, message=""))
    first, second = made.board().failures
    assert (first.kind, first.message, len(first.trial_ids)) == ("diverged", "the loss is nan", 2)
    assert (second.kind, second.message, second.trial_ids) == ("bug", "(no message)", (transformed(2).trial_id,))


def test_one_seed_is_a_wilson_interval_with_a_note() -> None:
    """One run has the interval of its images, and the note says what is not in it."""
    made = Made()
    made.score(transformed(1), 1900)
    board = made.board()
    score = board.rows[0].score
    assert score is not None
    assert (score.n, score.method) == (1, "Wilson, one run")
    assert any("another seed" in note for note in board.notes)


def test_equal_scores_of_all_seeds_have_an_interval() -> None:
    """Equal counts are not certainty: a count says what a network can to half an image."""
    made = Made()
    made.score(transformed(1), 1900, 1900)
    score = made.board().rows[0].score
    assert score is not None
    assert score.low is not None
    assert score.low < score.mean


def test_test_split_is_beside_and_never_ranks_unless_asked() -> None:
    """Validation ranks; ranking by test is possible and carries a warning."""
    made = Made()
    made.score(transformed(1), 1900, 1901, test=1500)
    made.score(transformed(2), 1800, 1801, test=1600)
    by_validation = made.board()
    by_test = build_leaderboard(SWEEP, made.frame(), split="test")
    assert [row.label for row in by_validation.rows] == ["1,1,1", "2,2,2"]
    assert by_validation.rows[0].test is not None
    assert by_validation.rows[0].test.mean == 0.75
    assert [row.label for row in by_test.rows] == ["2,2,2", "1,1,1"]
    assert any("by selection" in note for note in by_test.notes)
    assert not any("by selection" in note for note in by_validation.notes)


@pytest.mark.parametrize(
    ("split", "reason"),
    [("validation", "no images were held out (split=all)"), ("test", "there were no test images")],
)
def test_complete_trials_without_a_score_say_why(split: Split, reason: str) -> None:
    """They are complete: what is missing is the split, and no trial."""
    made = Made()
    made.score(replace(transformed(1), split=AllSplitSpec()), 1900)
    board = build_leaderboard(SWEEP, made.frame(), split=split)
    assert answer_section(board).text == (f"No trial has a score on the {split} split: {reason}.",)
    made.score(transformed(3), 1800)
    assert made.board().why_unscored == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"commit": "other"}, "2 different commits"),
        ({"dirty": True}, "2 different commits"),
        ({"device": "cpu"}, "2 different devices"),
        ({"dataset_digest": "other"}, "2 different data digests"),
        ({"versions": (("torch", "9"),)}, "2 different sets of libraries"),
    ],
)
def test_differences_between_trials_are_said(change: dict[str, Any], said: str) -> None:
    """What should be the same for all trials and is not is a note."""
    made = Made()
    made.score(transformed(1), 1900, 1901)
    assert not any("different" in note for note in made.board().notes)
    made.score(transformed(2), 1800, environment=replace(ENVIRONMENT, **change))
    board = made.board()
    assert any(note.startswith(said) for note in board.notes)


def test_local_changes_are_part_of_the_commit() -> None:
    """A dirty checkout is not its commit."""
    made = Made()
    made.score(transformed(1), 1900, environment=replace(ENVIRONMENT, dirty=True))
    assert made.board().provenance.commits[0].value == f"{ENVIRONMENT.commit} with local changes"


def test_same_records_give_the_same_leaderboard() -> None:
    """Equal means are ordered by label, whatever the order of the trials."""
    made = Made()
    made.score(transformed(2), 1900, 1901)
    made.score(transformed(1), 1900, 1901)
    forwards = made.board()
    made.trials.reverse()
    backwards = made.board()
    assert [row.label for row in forwards.rows] == ["1,1,1", "2,2,2"]
    assert backwards.rows == forwards.rows


def test_empty_sweep_has_a_leaderboard() -> None:
    """A sweep without trials has no rows and no images."""
    board = Made().board()
    assert (board.rows, board.images, board.states.trials) == ((), None, 0)
    assert board.notes == ("The sweep has no trials yet.",)


@pytest.mark.parametrize(
    ("file", "overrides", "command"),
    [
        ("sizes", (), "stnbench sweep sizes"),
        ("sizes", (Override(key="dataset", value="gtsrb"),), "stnbench sweep sizes dataset=gtsrb"),
        (
            "sizes",
            (Override(key="network.sizes", value=(1, 2, 3)), Override(key="seeds", value=3)),
            "stnbench sweep sizes 'network.sizes=[1,2,3]' seeds=3",
        ),
        ("", (Override(key="scale", value="smoke"),), "stnbench train scale=smoke"),
    ],
)
def test_command_reproduces_the_sweep(file: str, overrides: tuple[Override, ...], command: str) -> None:
    """A sweep is asked again by its file and what the command line changed; a single trial by its overrides."""
    sweep = SweepSpec(name="any", question="?", file=file, overrides=overrides)
    assert build_leaderboard(sweep, Made().frame()).provenance.command == command


def test_configurations_are_shown_to_trackers_with_n_interval_and_method() -> None:
    """Every configuration with a score becomes a view; one without does not."""
    made = Made()
    made.score(transformed(1), 1900, 1902)
    made.add(transformed(2))
    (view,) = configuration_views(made.board())
    assert (view.sweep, view.label, view.seeds, view.method) == ("sizes", "1,1,1", 2, "over seeds, moderated")
    assert view.mean == pytest.approx(1901 / IMAGES)
    assert view.low is not None
    assert view.low < view.mean
    assert view.cost is not None
    assert view.cost.flops == 38_200_000


def shown(board: Leaderboard, place: int) -> list[str]:
    """The configurations of a column."""
    table = leaderboard_table(board)
    return [table.people_columns()[place].show(row) for row in board.rows]


def test_configurations_of_different_tasks_are_not_compared() -> None:
    """Within an axis each choice has its own best, ranks and differences, in the axis's order."""
    made = Made()
    for size, correct in ((1, 1000), (2, 900), (3, 1900), (4, 1800)):
        made.score(transformed(size), correct, correct + size, correct - size)
    for label, task in (("1,1,1", "hard"), ("2,2,2", "hard"), ("3,3,3", "easy"), ("4,4,4", "easy")):
        made.move(label, "task", task)
    choices = tuple(Choice(label=label, overrides=()) for label in ("hard", "easy"))
    sweep = replace(SWEEP, axes=(Axis(name="task", choices=choices),), within="task")
    board = made.board(sweep)
    assert [(row.group, row.label, row.rank) for row in board.rows] == [
        ("hard", "1,1,1", "1"),
        ("hard", "2,2,2", "2"),
        ("easy", "3,3,3", "1"),
        ("easy", "4,4,4", "2"),
    ]
    assert [row.standing for row in board.rows] == [Verdict.BEST, Verdict.LOWER] * 2
    assert board.rows[3].behind is not None
    assert board.rows[3].behind.mean == pytest.approx(-100 / IMAGES)
    assert any("Against the best of its group" in note for note in board.notes)
    assert shown(board, 0) == ["hard", "hard", "easy", "easy"]
    named = replace(board, rows=tuple(replace(row, label=f"{row.group} · {row.label}") for row in board.rows))
    assert shown(named, 1) == ["1,1,1", "2,2,2", "3,3,3", "4,4,4"]


def test_tasks_may_have_data_of_their_own() -> None:
    """Two tasks with a data digest each are no reason for a note; a third digest is."""
    made = Made()
    for size, task in ((1, "hard"), (2, "easy")):
        digest = replace(ENVIRONMENT, dataset_digest=f"train {task}")
        made.score(transformed(size), 1000, 1001, environment=digest)
        made.move(f"{size},{size},{size}", "task", task)
    choices = tuple(Choice(label=label, overrides=()) for label in ("hard", "easy"))
    sweep = replace(SWEEP, axes=(Axis(name="task", choices=choices),), within="task")
    assert not any("data digests" in note for note in made.board(sweep).notes)
    made.score(transformed(3), 1000, environment=replace(ENVIRONMENT, dataset_digest="train other"))
    made.move("3,3,3", "task", "easy")
    assert any("3 different data digests" in note for note in made.board(sweep).notes)


def test_health_is_counted_over_seeds_and_explained(store: Store) -> None:
    """Pruned trials count, baselines have none, and every word found is explained, healthy apart."""
    configs = [[transformed(size, seed=seed) for seed in (1, 2, 3)] for size in (1, 2, 3)]
    baseline = configs[0][0].baseline()
    filler = Filler(store).save(
        [planned(spec) for spec in (baseline, *(spec for config in configs for spec in config))]
    )
    filler.complete(baseline, 1500)
    for spec, verdict in zip(
        configs[0], (HealthVerdict.HEALTHY, HealthVerdict.COLLAPSED, HealthVerdict.COLLAPSED), strict=True
    ):
        filler.complete(spec, 1800, verdict=verdict)
    for spec in configs[1]:
        filler.prune(spec, HealthVerdict.COLLAPSED)
    filler.complete(configs[2][0], 1700, verdict=HealthVerdict.HEALTHY)
    board = build_leaderboard(SWEEP, read_trials("sizes", store=store))
    found = {row.label: row.health.text for row in board.rows}
    assert found == {"1,1,1": "2 collapsed, 1 healthy", "2,2,2": "collapsed", "3,3,3": "healthy", "no ST": ""}
    assert row_of(board, "2,2,2").score is None
    assert {view.label: view.health for view in configuration_views(board)}["1,1,1"] == "2 collapsed, 1 healthy"
    explained = [note.partition(":")[0] for note in board.notes]
    assert [word for word in (*HealthVerdict, "health") if word in explained] == ["collapsed", "health"]


def test_boards_without_health_explain_none() -> None:
    """Results of older versions have no verdict, and their board does not speak of it."""
    made = Made()
    made.score(transformed(1), 1900, 1902)
    assert not any(note.startswith("health") for note in made.board().notes)


def test_a_sweep_that_is_looked_at_again_is_held_to_the_level_of_one_look() -> None:
    """Its intervals are wider, a difference that 5 % would tell is not told, and a note says which looks there were."""
    made = Made()
    for size, base in ((1, 1700), (2, 1712), (3, 1708), (4, 1716)):
        made.score(transformed(size), base, base + 4 * size % 7, base + 3)
    sweep = replace(SWEEP, planner=UntilDecidedPlannerSpec(max_seeds=30, looks=60))
    once, again = made.board(), made.board(sweep)
    looks = len(sweep.look_seeds)

    for row in once.rows[1:]:
        other = row_of(again, row.label)
        assert row.decision is not None
        assert other.decision is not None
        one, strict = row.decision.delta, other.decision.delta
        assert one is not None
        assert strict is not None
        assert strict.p_adjusted == one.p_adjusted
        assert one.low is not None
        assert strict.low is not None
        assert strict.low < one.low
    verdicts = [[row.standing for row in board.rows].count(Verdict.LOWER) for board in (once, again)]
    assert verdicts[0] > verdicts[1]
    assert any(f"{looks} looks were planned (at 3, 4, 5" in note and "and 1 taken" in note for note in again.notes)
    assert not any("looks were planned" in note for note in once.notes)
    assert any(f"{100 * (1 - 0.05 / looks):.4g} % intervals over all pairs" in note for note in again.notes)


def test_a_look_is_taken_when_its_trials_have_ended() -> None:
    """While seeds of the next look are open, it is not counted."""
    made = Made()
    made.score(transformed(1), 1700, 1704, 1703)
    made.score(transformed(2), 1705, 1701, 1709)
    sweep = replace(SWEEP, planner=UntilDecidedPlannerSpec(max_seeds=12, looks=3))

    assert sweep.look_seeds == (3, 6, 12)
    assert any("and 1 taken" in note for note in made.board(sweep).notes)
    for seed in (4, 5, 6):
        made.add(transformed(1).with_seed(seed))
    assert any("and 1 taken" in note for note in made.board(sweep).notes)
    made.score(transformed(3), 1700, 1700, 1700, 1701, 1702, 1700)
    assert any("and 1 taken" in note for note in made.board(sweep).notes)


def test_the_run_states_decided_verdicts_per_device_hour() -> None:
    """Verdicts other than undecided, the best left out, over the hours of all attempts."""
    made = Made()
    made.score(transformed(1), 1500, 1502, 1501)
    made.score(transformed(2), 1800, 1802, 1801)
    made.score(transformed(3), 1801, 1800, 1803)
    board = made.board()
    run = RunSummary(
        started_at=NOW, ended_at=NOW, reason="Every trial has ended.", device_hours=0.5, slots=(), spans=(), failed=(),
        commands=(),
    )  # fmt: skip
    section = run_section(run, board.states, [found for _, found in board.comparisons])
    decided = sum(found.decided for _, found in board.comparisons)

    assert decided >= 1
    assert ("Decided", f"{decided} of 2 verdicts against the best, {2 * decided} per device hour") in section.facts
    assert isinstance(section.data, dict)
    assert section.data["decided_per_device_hour"] == 2 * decided
    assert "Price" not in dict(section.facts)
    priced = run_section(replace(run, price=Price(amount=3.0, unit="EUR")), board.states)
    assert ("Price", "1.50 EUR (0.50 device hours at 3.00 EUR)") in priced.facts
    idle = run_section(replace(run, device_hours=0.0), board.states, [found for _, found in board.comparisons])
    assert "Decided" not in dict(idle.facts)
