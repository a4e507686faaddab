"""Leaderboards in every format."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.analysis.effects import Estimate
from stnbench.analysis.verdicts import (
    Answer,
    Comparison,
    Decision,
    Effect,
    Failures,
    Sentence,
    TaskRank,
    TaskSummary,
    Topic,
    Verdict,
)
from stnbench.core.errors import UnknownNameError
from stnbench.core.text import printable
from stnbench.report import output
from stnbench.report import table as text
from stnbench.report.board import Counted, FailureGroup, HealthCounts, Leaderboard, Provenance, Row, StateCounts
from stnbench.report.columns import leaderboard_table
from stnbench.report.findings import (
    Agreement,
    AgreementRow,
    Claim,
    ClaimVerdict,
    Findings,
    FoldsFinding,
    GainFinding,
    Importance,
    Interaction,
    MainEffect,
    PairFinding,
    ParetoFront,
)
from stnbench.report.output import Format
from stnbench.report.render import text as latex
from stnbench.report.render.text import fitting_columns, to_terminal
from stnbench.report.sections import board_sections

NASTY = "=cmd|'/c calc'!A1 <script>alert(1)</script> & | \\ % $ # _ { } ~ ^ `x` [a](b)\n\x1b[31m\u202e\"quoted\""
FORMATS = ("md", "latex", "html", "csv", "json", "terminal")


def write(kind: str, board: Leaderboard) -> str:
    """A leaderboard in one format."""
    if kind == "terminal":
        return render_terminal(board)
    return output.render([board], cast("Format", kind))


def render_terminal(board: Leaderboard, *, width: int | None = None, color: bool = False) -> str:
    """A leaderboard as lines."""
    return to_terminal(board.sweep, board.question, board_sections(board), width=width, color=color)


def headings(board: Leaderboard) -> list[str]:
    """The columns that people get."""
    return [column.heading for column in leaderboard_table(board).people_columns()]


def estimate(mean: float, low: float | None, high: float | None, *, n: int = 2) -> Estimate:
    """An interval over seeds."""
    return Estimate(n=n, mean=mean, low=low, high=high, method="t over seeds", spread=0.01)


def make_row(label: str = "20,20,20", *, scored: bool = True) -> Row:
    """The only configuration of a leaderboard."""
    return Row(
        group="",
        rank_first=1 if scored else None,
        rank_last=1 if scored else None,
        standing=Verdict.BEST if scored else None,
        label=label,
        config_id="0123456789abcdef",
        axes=(("locnet1.sizes", label),),
        is_baseline=False,
        seeds=(1, 2) if scored else (),
        states=StateCounts(complete=2) if scored else StateCounts(failed=2),
        score=estimate(0.98451, 0.9712, 0.99784) if scored else None,
        test=None,
        behind=None,
        st_gain=estimate(0.0123, -0.0051, 0.0297) if scored else None,
        parameters=1_240_000 if scored else None,
        flops=38_200_000 if scored else None,
        activation_bytes=4096 if scored else None,
        epoch_duration_s=2.345 if scored else None,
        peak_memory_mib=512.0 if scored else None,
        notes=() if scored else ("2 failed",),
    )


def make_board(*rows: Row, name: str = "sizes", question: str = "How large?", message: str = "") -> Leaderboard:
    """A leaderboard with these rows."""
    failures = (FailureGroup(kind="bug", message=message, trial_ids=("ab",)),) if message else ()
    return Leaderboard(
        sweep=name,
        question=question,
        split="validation",
        axes=("locnet1.sizes",),
        within="",
        rows=rows or (make_row(), make_row("30,30,30", scored=False)),
        states=StateCounts(complete=2, failed=2),
        failures=failures,
        provenance=Provenance(
            command="python -m stnbench.sweep sizes",
            seeds=(1, 2),
            commits=(Counted(value="c0ffee", trials=2),),
            devices=(Counted(value="cpu", trials=2), Counted(value="NVIDIA H200", trials=1)),
            platforms=(),
            versions=(Counted(value="torch 2.7", trials=2),),
            datasets=(Counted(value="train abcd", trials=2),),
            images=(Counted(value="2000", trials=2),),
        ),
        notes=("2 of 4 trials are complete (2 failed).",),
    )


class Document(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Note a tag."""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.words.append(data)


@pytest.mark.parametrize("kind", FORMATS)
def test_same_leaderboard_gives_the_same_bytes(kind: str) -> None:
    """Nothing of the moment or the machine is in a report."""
    assert write(kind, make_board()) == write(kind, make_board())


@pytest.mark.parametrize("kind", FORMATS)
def test_head_says_how_the_numbers_were_made(kind: str) -> None:
    """Every format but CSV says the command, the commit, both devices, the versions and the data."""
    if kind == "csv":
        assert "stnbench.sweep" not in write(kind, make_board())
        return
    written = write(kind, make_board())
    for said in ("python -m stnbench.sweep sizes", "c0ffee", "cpu", "NVIDIA H200", "torch 2.7", "train abcd"):
        assert said in written


@pytest.mark.parametrize("kind", FORMATS)
def test_no_control_character_of_a_message_gets_through(kind: str) -> None:
    """Neither the terminal nor the direction of writing can be steered by a label, a question or an error message."""
    written = write(kind, make_board(make_row(NASTY), question=NASTY, message=NASTY))
    assert "\x1b" not in written
    assert "\u202e" not in written or kind == "json"  # JSON is data, and keeps it


def test_markdown_is_one_table_with_all_cells() -> None:
    """Heading, rule and rows have the same number of columns, and a configuration without a score has dashes."""
    lines = [line for line in write("md", make_board()).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| 20,20,20 | 98.45 [97.12, 99.78] t | 1 | best | +1.23 [-0.51, +2.97] | 2 |  |"
    assert lines[3] == "| 30,30,30 |  | \u2013 | \u2013 | \u2013 | 0/2 | 2 failed |"


def test_markdown_has_at_most_seven_columns() -> None:
    """What GitHub would cut is left out, the least important columns first."""
    board = sick_board()
    assert len(headings(board)) > 7
    heading = next(line for line in write("md", board).splitlines() if line.startswith("| configuration"))
    assert heading.count("|") == 8
    assert "FLOPs" not in heading


@given(st.text())
def test_markdown_cell_stays_in_its_cell(label: str) -> None:
    """Whatever a label is, it adds no column, no line and no tag."""
    written = write("md", make_board(make_row(label)))
    lines = [line for line in written.split("\n") if line.startswith("|")]
    assert len(lines) == 3
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1
    assert "<" not in written


@given(st.text())
def test_page_has_the_same_tags_whatever_it_says(said: str) -> None:
    """A label, a question or a message adds no tag to the page."""
    plain = Document(write("html", make_board(make_row("x"), question="x", message="x")))
    other = Document(write("html", make_board(make_row(said), question=said, message=f"m{said}")))
    assert [tag for tag in other.tags if tag != "wbr"] == plain.tags  # where a long name may be broken


def test_page_shows_text_as_it_is() -> None:
    """Escaped text reads as it was written, on one line, and nothing is fetched."""
    written = write("html", make_board(make_row("<b>&\n\"x'")))
    assert "<b>& \"x'" in Document(written).words
    assert "default-src 'none'" in written
    assert not {"link", "img", "iframe"} & set(Document(written).tags)


@given(st.text())
def test_csv_comes_back_as_it_was(label: str) -> None:
    """A label stays one field; what a spreadsheet would run begins with an apostrophe."""
    (line,) = csv.DictReader(io.StringIO(write("csv", make_board(make_row(label))), newline=""))
    plain = printable(label)
    assert line["cell"].replace("'", "") == plain.replace("'", "")
    assert not re.search("(^|;)\\s*[-=+@\uff0d\uff1d\uff0b\uff20]", line["cell"])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("-0.5", "'-0.5"),
        ("\tcmd", "'cmd"),
        ("x;=cmd", "x;'=cmd"),
        ("a; @sum", "a; '@sum"),
        ("\uff1dcmd", "'\uff1dcmd"),
        ("1-17", "1-17"),
    ],
)
def test_no_spreadsheet_takes_a_label_for_a_formula(label: str, expected: str) -> None:
    """At the start of a configuration, and behind the semicolon that some locales separate configurations by."""
    (line,) = csv.DictReader(io.StringIO(write("csv", make_board(make_row(label))), newline=""))
    assert (line["cell"], line["axis:locnet1.sizes"]) == (expected, expected)


def test_no_spreadsheet_takes_an_item_of_a_list_for_a_formula() -> None:
    """Lists become one configuration, whose items are as safe as configurations."""
    row = replace(make_row(), notes=("fine", "=cmd"))
    (line,) = csv.DictReader(io.StringIO(write("csv", make_board(row))))
    assert line["notes"] == "fine; '=cmd"


def test_csv_has_shares_and_units() -> None:
    """Numbers are not rounded for the eye; a configuration without a score has empty fields and its states."""
    first, second = csv.DictReader(io.StringIO(write("csv", make_board())))
    assert (first["mean"], first["low"], first["high"], first["n"]) == ("0.98451", "0.9712", "0.99784", "2")
    assert (first["split"], first["method"], first["epoch_duration_s"]) == ("validation", "t over seeds", "2.345")
    assert first["axis:locnet1.sizes"] == "20,20,20"
    assert (second["mean"], second["rank_first"], second["trials_failed"]) == ("", "", "2")


def test_json_has_the_documented_keys() -> None:
    """``sweep`` and rows with configuration, n, mean, low, high and split; what is not there is null, and n is 0."""
    plain = json.loads(write("json", make_board()))
    assert plain["sweep"] == "sizes"
    first, second = plain["rows"]
    assert {key: first[key] for key in ("cell", "n", "mean", "low", "high", "split")} == {
        "cell": "20,20,20",
        "n": 2,
        "mean": 0.98451,
        "low": 0.9712,
        "high": 0.99784,
        "split": "validation",
    }
    assert (second["n"], second["mean"], second["rank"], second["states"]["failed"]) == (0, None, None, 2)
    assert plain["provenance"]["devices"] == [{"value": "cpu", "trials": 2}, {"value": "NVIDIA H200", "trials": 1}]


@pytest.mark.parametrize("count", [0, 2])
def test_json_of_several_sweeps_is_one_object(count: int) -> None:
    """Several sweeps, or none, stand in a list."""
    plain = json.loads(output.render([make_board()] * count, "json"))
    assert [sweep["sweep"] for sweep in plain["sweeps"]] == ["sizes"] * count


def test_latex_escapes_what_is_special() -> None:
    """Every special character is set as it is, and a bracket never begins an optional argument."""
    written = latex.escape_latex(r"a&b%c$d#e_f{g}h~i^j\k[l]")
    expected = r"a\&b\%c\$d\#e\_f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k{[}l{]}"
    assert written == expected


def test_latex_is_a_booktabs_table() -> None:
    """One table with a rule above, below and under the heading, and as many configurations a row as columns."""
    written = write("latex", make_board(make_row(NASTY)))
    (alignment,) = re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", written)
    rows = [line for line in written.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 2
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(alignment) - 1}
    assert "+1.23 {[}$-$0.51, +2.97{]}" in written
    assert all(rule in written for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_a_long_latex_table_goes_on_over_pages() -> None:
    """More rows than a page holds do not float: the heading is repeated, each row is there, groups stand apart."""
    rows = [replace(make_row(f"row{index}"), group="a" if index < 20 else "b") for index in range(40)]
    written = write("latex", make_board(*rows))
    assert r"\begin{table}" not in written
    assert written.count(r"\toprule") == 2
    (body,) = re.findall(r"\\endlastfoot\n(.+?)\\end\{longtable\}", written, re.DOTALL)
    assert re.findall(r"row\d+", body) == [f"row{index}" for index in range(40)]
    before, after = body.split(r"\addlinespace")
    assert ("row19" in before, "row20" in after) == (True, True)


def test_plain_lines_keep_every_column_on_one_line() -> None:
    """Without a terminal nothing is wrapped or cut, however long a label is."""
    label = "x" * 300
    written = render_terminal(make_board(make_row(label)))
    (line,) = [line for line in written.splitlines() if label in line and "  " in line]
    assert line.endswith("512")
    assert "\x1b" not in written


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_narrow_terminal_leaves_out_columns_and_says_which(width: int) -> None:
    """The table fits, the most important columns stay, the others are named."""
    written = render_terminal(make_board(), width=width)
    assert max(map(len, written.splitlines())) <= width
    assert "98.45 [97.12, 99.78] t" in written
    assert ("Columns that do not fit" in written) == (width < 200)
    if width == 80:
        assert "ST gain" in written
        assert "Columns that do not fit: parameters, FLOPs, s/epoch, memory, MiB, notes." in written


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_labels_leave_room_for_accuracies(width: int) -> None:
    """A label of a search loses the names of its axes, then its middle, since labels differ at both ends."""
    label = "learning_rate=0.01403 · locnet_learning_rate_factor=0.1244 · 100,200,100 · scale_translation"
    written = render_terminal(make_board(make_row(label)), width=width)
    row = next(line for line in written.splitlines() if line.startswith("0.01403 ·") and "98.45 [" in line)
    assert len(row) <= width
    middle = " 0.1244 · 100,200,100 · scale_" if width == 120 else ".*….*"
    assert re.match(rf"0\.01403 ·{middle}translation +98\.45 \[97\.12, 99\.78\] t", row)


def test_most_important_columns_stay_on_any_terminal() -> None:
    """The configuration and its accuracy with its interval are never left out."""
    kept = fitting_columns(leaderboard_table(make_board()), 10)
    assert [column.heading for column in kept] == ["configuration", "validation % [95 %]"]


def test_colours_are_written_when_asked() -> None:
    """The best row is green on a terminal that has colours."""
    assert "\x1b[1;32m" in render_terminal(make_board(), width=200, color=True)


def test_wide_letters_are_aligned() -> None:
    """Columns stand below each other where letters take two places."""
    rows = (make_row("\u6f22\u5b57"), make_row("wxyz"))
    lines = render_terminal(make_board(*rows)).splitlines()
    first, second = (
        next(line for line in lines if line.startswith(label) and "  " in line) for label in ("\u6f22", "wxyz")
    )
    assert len(second) - len(first) == 2


@pytest.mark.parametrize(
    ("number", "expected"),
    [(None, "\u2013"), (0, "0"), (999, "999"), (1_240_000, "1.24 M"), (38_200_000, "38.2 M"), (999_999, "1.00 M"),
     (123_456, "123 k"), (9_999_999_999, "10.0 G")],
)  # fmt: skip
def test_large_numbers_have_three_digits(number: int | None, expected: str) -> None:
    """Units change where rounding reaches the next one."""
    assert text.count(number) == expected


@pytest.mark.parametrize(
    ("duration_s", "expected"), [(None, "\u2013"), (2.345, "2.35"), (12.34, "12.3"), (1234.5, "1230"), (0.01, "0.01")]
)
def test_seconds_have_three_digits(duration_s: float | None, expected: str) -> None:
    """Three digits, at most two decimals."""
    assert text.seconds(duration_s) == expected


def test_decimals_follow_the_number_of_images() -> None:
    """258 images do not justify a hundredth of a percent."""
    assert [text.decimals_for(images) for images in (None, 258, 1000, 12_630)] == [2, 1, 2, 2]


def test_small_negative_difference_is_not_minus_zero() -> None:
    """A difference that rounds to nothing has no sign."""
    assert text.points(estimate(-0.000001, -0.01, 0.01), 2) == "0.00 [-1.00, +1.00]"


def test_difference_without_interval_is_a_number_alone() -> None:
    """One pair gives a difference and no interval."""
    assert text.points(estimate(0.02, None, None, n=1), 2) == "+2.00"


def test_columns_that_nobody_fills_are_left_out() -> None:
    """No gain and no notes: no such columns; a test score adds one."""
    row = replace(make_row(), st_gain=None)
    plain = headings(make_board(row))
    tested = headings(make_board(replace(row, test=estimate(0.5, 0.4, 0.6))))
    assert not {"ST gain (pp)", "notes", "test % [95 %]"} & set(plain)
    assert "test % [95 %]" in tested


SICK = HealthCounts(healthy=1, collapsed=2)


def sick_board() -> Leaderboard:
    """A healthy configuration, one with two collapsed trials, and one that nothing is known of."""
    healthy = replace(make_row("fine"), health=HealthCounts(healthy=3))
    return make_board(healthy, replace(make_row("sick"), health=SICK), make_row("old"))


def test_health_is_counted_worst_first() -> None:
    """One word where all are alike, the bad ones first where they are not, nothing where nothing is known."""
    assert SICK.text == "2 collapsed, 1 healthy"
    assert HealthCounts(healthy=1, identity=2, constant=3, collapsed=4, diverged=5).text == (
        "5 diverged, 4 collapsed, 3 constant, 2 identity, 1 healthy"
    )
    assert (HealthCounts(healthy=3).text, HealthCounts(identity=3).text, HealthCounts().text) == (
        "healthy",
        "identity",
        "",
    )
    assert [counts.is_bad for counts in (SICK, HealthCounts(healthy=1), HealthCounts())] == [True, False, False]


def test_the_health_column_is_there_where_something_is_known() -> None:
    """A board of old results has none."""
    assert "health" not in headings(make_board())
    table = leaderboard_table(sick_board())
    (column,) = (column for column in table.people_columns() if column.heading == "health")
    assert column.tone is not None
    assert [column.show(row) for row in table.items] == ["healthy", "2 collapsed, 1 healthy", ""]
    assert [column.tone(row) for row in table.items] == ["good", "bad", ""]


def test_what_is_not_healthy_stands_out() -> None:
    """In colour on the page and in the terminal, in bold elsewhere; what is healthy does not."""
    assert write("html", sick_board()).count('<span class="mark bad">2 collapsed, 1 healthy</span>') == 1
    assert 'class="mark bad"' not in write("html", make_board())
    assert "| **2 collapsed, 1 healthy** |" in write("md", sick_board())
    assert r"\textbf{2 collapsed, 1 healthy}" in write("latex", sick_board())
    (line,) = (line for line in render_terminal(sick_board(), color=True).splitlines() if "collapsed" in line)
    assert re.search(r"\x1b\[[\d;]*31m2 collapsed, 1 healthy", line)
    plain = render_terminal(sick_board())
    assert "2 collapsed, 1 healthy" in plain
    assert "\x1b" not in plain


def test_health_is_data_for_programs() -> None:
    """The words in one field, and a count for every verdict."""
    _, line, old = csv.DictReader(io.StringIO(write("csv", sick_board())))
    assert (line["health_healthy"], line["health_collapsed"], line["health_diverged"]) == ("1", "2", "0")
    assert old["health_healthy"] == "0"
    _, row, _ = json.loads(write("json", sick_board()))["rows"]
    assert row["health"] == {"healthy": 1, "unhelpful": 0, "identity": 0, "constant": 0, "collapsed": 2, "diverged": 0}


def full_board() -> Leaderboard:
    """A leaderboard with something in every section."""
    row = make_row()
    difference = estimate(-0.01, -0.02, -0.001)
    pair = PairFinding(
        group="",
        config_id="b",
        label="pair",
        best_config_id="a",
        best_label="best",
        standing=Verdict.LOWER,
        difference=difference,
        corrected_p=0.01,
        seeds_needed=4,
    )
    gain = GainFinding(
        group="",
        config_id="a",
        label="gain",
        baseline_config_id="t",
        is_equal_size=True,
        parameter_ratio=1.0,
        difference=estimate(0.02, 0.01, 0.03),
    )
    folds = FoldsFinding(
        group="",
        label="recipe",
        folds=5,
        scored_folds=4,
        networks=4,
        images=3000,
        errors=12.0,
        accuracy=estimate(0.996, 0.99, 0.998),
        standing=Verdict.BEST,
    )
    findings = Findings(
        split="validation",
        folds=(folds,),
        pairs=(pair,),
        gains=(gain,),
        main_effects=(
            MainEffect(axis="axis1", label="choice1", mean=0.9, effect=difference, configs=4, method="blocks"),
        ),
        interactions=(
            Interaction(
                first="axis1",
                second="axis2",
                first_labels=("a", "b"),
                second_labels=("c", "d"),
                means=((0.9, 0.8), (0.7, 0.6)),
                residuals=((0.01, -0.01), (-0.01, 0.01)),
                seeds=2,
                configs=4,
                statistic=3.0,
                p_value=0.04,
                corrected_p=0.04,
            ),
        ),
        importances=(Importance(axis="axis2", configs=4, variance_explained=0.5, ped_anova=0.4, fanova=None),),
        pareto=(
            ParetoFront(
                group="", cost="flops", config_ids=("a",), labels=("frontier",), costs=(38_200_000.0,), means=(0.98451,)
            ),
        ),
        notes=("Something was left out.",),
    )
    agreement = Agreement(
        published="moodstocks_2015",
        published_split="test",
        published_images=12_630,
        split="validation",
        seeds=(1, 2),
        rows=(
            AgreementRow(
                config_id="a",
                label="published1",
                ours=estimate(0.98, 0.97, 0.99),
                published=estimate(0.97, 0.96, 0.98),
                our_rank=1.0,
                published_rank=2.0,
            ),
        ),
        tau=None,
        rho=None,
        claims=(
            Claim(
                name="Larger is better",
                verdict=ClaimVerdict.HOLDS,
                effect=estimate(0.01, 0.005, 0.015),
                unit="in accuracy",
                comparisons=2,
                configs=4,
                method="t over seeds",
                detail="2 of 2",
                published_effect=0.004,
            ),
        ),
        untested=("Another claim",),
        left_out=1,
    )
    board = make_board(row, make_row("30,30,30", scored=False), message="the loss is nan")
    return replace(board, findings=findings, agreement=agreement)


SECTIONS = {
    "answer": "20,20,20 scores highest",
    "failures": "the loss is nan",
    "leaderboard": "30,30,30",
    "folds": "recipe",
    "differences": "pair",
    "gains": "equal-parameter baseline",
    "main_effects": "choice1",
    "interactions": "axis1",
    "importances": "axis2",
    "pareto": "frontier",
    "left_out": "Something was left out.",
    "published": "published1",
    "claims": "Larger is better",
    "provenance": "c0ffee",
}
"""A word of each section."""


def test_every_section_is_known_here() -> None:
    """The table of this test names all sections of a report that has everything."""
    assert {section.key for section in board_sections(full_board())} == set(SECTIONS)


@pytest.mark.parametrize("key", SECTIONS)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_every_section(kind: str, key: str) -> None:
    """Whatever the format, the section's words are in it; CSV is one table, which is asked for by its section."""
    word = SECTIONS[key]
    section = next(section for section in board_sections(full_board()) if section.key == key)
    if kind == "csv":
        written = output.render([full_board()], "csv", wanted=[key])
        if not section.tables:
            assert written.strip() == ""
            return
        word = {"gains": "t over seeds", "pareto": "frontier"}.get(key, word)
    else:
        written = write(kind, full_board())
        word = {"latex": latex.escape_latex(word), "html": word}.get(kind, word)
    if kind == "json" and key == "gains":
        word = '"equal_parameters": true'
    assert word in written
    if kind not in {"csv", "json"} and key != "answer":
        assert section.heading in written or any(table.caption in written for table in section.tables)


def test_one_section_can_be_printed() -> None:
    """The named one alone; one that the report lacks is an error that names those there are."""
    written = output.render([full_board()], "md", wanted=["claims"])
    assert "Larger is better" in written
    assert "frontier" not in written
    with pytest.raises(UnknownNameError, match="unknown section 'claim' in the report: did you mean claims"):
        output.render([full_board()], "md", wanted=["claim"])


@pytest.mark.parametrize("label", ["\x1b[31mred", "\x9b2J", "a\u202eb"])
@pytest.mark.parametrize("kind", FORMATS)
def test_escapes_of_a_label_are_shown(kind: str, label: str) -> None:
    """A label that would steer a terminal is shown escaped everywhere; JSON, as data, escapes what it must."""
    written = write(kind, make_board(make_row(label)))
    assert "\x1b" not in written
    if kind not in {"json", "latex"}:
        shown = printable(label)
        assert shown in written or shown.replace("\\", "\\\\") in written


def decided_board(*, is_provisional: bool = False) -> Leaderboard:
    """A best configuration of which a run collapsed, and one that is lower, with an answer and tasks."""
    effect = Effect(n=3, mean=-0.021, low=-0.03, high=-0.012, p_adjusted=0.0004, method="made up")
    failures = Failures(runs=5, diverged=1, collapsed=1, low=0.1, high=0.7)
    decision = Decision(
        configuration="a",
        seeds=(1, 2, 3),
        mean=0.98,
        low=0.97,
        high=0.99,
        method="made up",
        rank_low=1,
        rank_high=1,
        verdict=Verdict.BEST,
        gain=replace(effect, mean=0.05, low=0.04, high=0.06),
        failures=failures,
    )
    lower = replace(decision, rank_low=3, rank_high=9, verdict=Verdict.LOWER, delta=effect, gain=None, failures=None)
    unsure = replace(lower, verdict=Verdict.UNDECIDED, rank_low=2, rank_high=9, seeds_needed=12)
    comparison = Comparison(
        decisions=(decision, lower, unsure),
        margin=0.005,
        seeds=(1, 2, 3),
        is_provisional=is_provisional,
        run_deviation=0.01,
        prior_freedom=5.0,
        notes=("Seeds are blocks.",),
    )
    rows = [replace(make_row(label), decision=own) for label, own in (("a", decision), ("b", lower), ("c", unsure))]
    ranks = (TaskRank(configuration="a", mean_rank=1.5, low=1.0, high=2.0, wins=4, ties=1, losses=0, imputed=1),)
    answer = Answer(sentences=(Sentence(topic=Topic.TRANSFORMER, text="A transformer helps by 5.0 pp."),))
    tasks = TaskSummary(
        ranks=ranks, tasks=("R", "RTS"), critical_difference=1.2, cliques=(("a", "b"),), friedman_p=0.01, note=""
    )
    return replace(make_board(*rows), answer=answer, tasks=tasks, comparisons=(("", comparison),))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_answer_comes_first(kind: str) -> None:
    """Before the table, in every format that has sentences."""
    written = write(kind, decided_board())
    if kind == "csv":
        assert "transformer helps" not in written
        return
    table = {"latex": "tabular", "html": "<table", "json": '"rows"', "md": "| configuration", "terminal": "verdict"}
    assert 0 < written.index("A transformer helps by 5.0 pp.") < written.index(table[kind])


@pytest.mark.parametrize("kind", FORMATS)
def test_verdicts_ranks_and_failures_are_shown(kind: str) -> None:
    """The verdict with the seeds that would decide it, the rank interval, and the failed runs beside the mean."""
    written = write(kind, decided_board()).replace("--", "-")
    assert "3-9" in written
    assert "undecided" in written
    if kind in {"csv", "json"}:
        assert "0.0004" in written
        return
    assert "undecided (needs about 12 seeds)" in written
    assert "1 collapsed and 1 diverged of 5" in written
    assert "Mean ranks that differ by more than 1.20" in written


def test_a_partial_sweep_says_that_it_is_provisional() -> None:
    """In the heading of its leaderboard, with what is missing."""
    assert "provisional" not in write("md", decided_board()).lower()
    written = write("md", decided_board(is_provisional=True))
    assert "## Leaderboard (provisional)" in written
    running = replace(make_board(), states=StateCounts(complete=2, running=1, planned=3))
    assert "Provisional: 3 planned, 1 running; ranks and verdicts may change." in write("md", running)
