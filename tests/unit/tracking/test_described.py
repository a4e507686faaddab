"""What MLflow's pages say in words."""

import dataclasses
import html
import re

import pytest
from markdown_it import MarkdownIt

from stnbench.analysis.effects import Estimate
from stnbench.core.text import printable
from stnbench.spec.result import Failure, FailureKind
from stnbench.spec.sweep import Override, SweepSpec
from stnbench.tracking import AttemptView, ConfigurationView
from stnbench.tracking.shown import attempt_note, configuration_note, sweep_note


def test_a_sweep_links_to_its_views_and_its_report() -> None:
    """First the question, which a list of experiments shows alone; then where to look, and what is the same in all."""
    base = (Override(key="network.sizes", value=(1, 2, 3)),)
    said = sweep_note(
        SweepSpec(name="sizes", question="How large?", base=base), {"Configurations": "#/c", "Runs": "#/r"}
    )
    first, links, report, same = said.split("\n\n")
    assert (first, links) == ("How large?", "[Configurations](#/c) · [Runs](#/r)")
    assert "`reports/sizes/index.html`" in report
    assert "`network.sizes=[1,2,3]`" in same


def test_an_attempt_says_where_the_rest_is(attempt: AttemptView) -> None:
    """The trial, its files and commands that can be typed; a baseline has no transformer to look at."""
    said = attempt_note(dataclasses.replace(attempt, failure=None))
    assert said.startswith(f"Trial `{attempt.trial_id}` of the sweep `sizes`, attempt 1.")
    assert f"`runs/trials/{attempt.trial_id}/001`" in said
    assert f"`python -m stnbench.show transform {attempt.trial_id}`" in said
    assert "stnbench.show" not in attempt_note(dataclasses.replace(attempt, spec=attempt.spec.baseline()))


def test_a_traceback_with_a_fence_stays_in_its_own(attempt: AttemptView) -> None:
    """What a program printed cannot end the block that it is shown in."""
    failure = Failure(kind=FailureKind.BUG, message="m", traceback="```\n# not a heading")
    assert "\n````\n```\n# not a heading\n````\n" in attempt_note(dataclasses.replace(attempt, failure=failure))


def test_a_configuration_says_its_number_whole(config: ConfigurationView) -> None:
    """n, interval, method and split beside every number, and how to find the runs."""
    said = configuration_note(config)
    assert (
        "**50.00 %** on validation, mean of 1 seed; 95 % interval 40.00 to 60.00 (t), rank 1-3, underpowered." in said
    )
    assert "ST gain +1.00 points (-2.00 to +4.00, n = 2, paired t)." in said
    assert "`tags.cell = 'c1'`" in said


def test_a_configuration_without_an_interval_says_so(config: ConfigurationView) -> None:
    """Nothing is made up for one seed."""
    gain = Estimate(n=1, mean=0.01, low=None, high=None, method="none")
    bare = dataclasses.replace(config, low=None, high=None, rank_text="", standing="", st_gain=gain)
    said = configuration_note(bare)
    assert "mean of 1 seed; no interval. ST gain +1.00 points (no interval, n = 1, none)." in said
    assert "ST gain" not in configuration_note(dataclasses.replace(bare, st_gain=None))


HOSTILE = [
    "![x](http://evil.example/a.png)",
    "<img src=http://evil.example/a.png>",
    "see http://evil.example/a or www.evil.example",
    "# heading",
    "1. a list",
    "- a list",
    "[click](javascript:alert(1))",
    "```\ncode",
    "a | b\n--- | ---",
    "\x1b[31mred\u202e",
    "&lt;img&gt; &#33;",
    "mail me@evil.example",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_words_from_outside_are_shown_as_they_are(text: str, attempt: AttemptView, config: ConfigurationView) -> None:
    """A question, a name, a label or a message makes no picture, link, heading or list, and fetches nothing."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    note = sweep_note(SweepSpec(name="sizes", question=text), {})
    question = note.split("\n\n")[0]
    shown = markdown.render(question)
    assert shown.startswith("<p>")
    assert re.findall(r"<(?!/?p>)", shown) == []
    assert html.unescape(shown.removeprefix("<p>").removesuffix("</p>\n")) == printable(text)
    assert not any(part in question for part in ("://", "www.", "@"))  # which GitHub makes links of
    failure = Failure(kind=FailureKind.BUG, message=text)
    for name in ("sizes", f"`{text}", f"``{text}`"):
        said = attempt_note(dataclasses.replace(attempt, failure=failure, label=f"`{text}`", sweep=name))
        said += "\n\n" + configuration_note(dataclasses.replace(config, sweep=name))
        assert re.findall(r"<(img|a|h\d)\b", markdown.render(said)) == []
