"""The page of a report: escaped, self-contained, the same for the same store, and limited in size."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_pages import SWEEP, make_page

from stnbench.report import output
from stnbench.report.board import Leaderboard
from stnbench.report.html import answers, document
from stnbench.report.html.document import (
    DARK,
    LIGHT,
    Figure,
    Theme,
    View,
    document_lines,
    figure_label,
    figure_lines,
    figure_text,
    json_block,
)
from stnbench.report.html.material import Material, Places, read_material
from stnbench.report.html.page import to_page
from stnbench.store.store import Store

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "__proto__",
    '" onmouseover="alert(1)',
    "<!-- \u2028 -->",
)


PLOTLY_SHA256 = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
"""Of plotly-cartesian.min.js in the npm package plotly.js-cartesian-dist-min, version 4.1.1."""


class Document(HTMLParser):
    """Elements with their attributes, and the texts of scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._is_script = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._is_script = tag == "script"
        if self._is_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        """Note that a script has ended."""
        self._is_script = self._is_script and tag != "script"

    def handle_data(self, data: str) -> None:
        """Note a text."""
        if self._is_script:
            self.scripts[-1] += data
        else:
            self.words.append(data)

    def attributes(self, name: str) -> list[str]:
        """Every value that an attribute has."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(autouse=True)
def small_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a megabyte of script that is read again and again would make these tests slow."""
    monkeypatch.setattr(document, "_plotly", lambda: "packed-plotly")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Leaderboard, Material]:
    """A sweep with three configurations, their baseline and a failure, and all that its page shows."""
    return read_made_up(tmp_path_factory.mktemp("page"))


def read_made_up(folder: Path, labels: tuple[str, ...] = (), question: str = "") -> tuple[Leaderboard, Material]:
    """Make up a sweep and read it."""
    page = make_page(folder, labels=labels, question=question)
    places = Places(layout=page.layout, data_root=page.data_root, reports=page.reports)
    with Store.open(page.layout.store, writable=False) as store:
        report = output.read_report(store, SWEEP)
        return report.board, read_material(report.board, report.frames, places)


def test_page_is_one_file_that_fetches_nothing(made: tuple[Leaderboard, Material]) -> None:
    """Every address is a data URI or a place on the page, and the policy allows nothing else."""
    board, material = made
    read = Document(to_page([board], {SWEEP: material}))
    (policy,) = [value for value in read.attributes("content") if value.startswith("default-src")]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert all(address.startswith("data:image/") for address in read.attributes("src"))
    assert all(address.startswith("#") for address in read.attributes("href"))
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in read.elements}


def test_scripts_are_allowed_by_their_hash_alone(made: tuple[Leaderboard, Material]) -> None:
    """The policy names the SHA-256 of each script as it stands in the page, and no other."""
    board, material = made
    written = to_page([board], {SWEEP: material})
    scripts = re.findall(r"<script>(.*?)</script>", written, flags=re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert set(re.findall(r"sha256-([^']+)'", written)) == hashes
    assert len(scripts) == 1
    assert "'unsafe-inline'" not in written.partition("style-src")[0]


def test_same_store_gives_the_same_bytes(tmp_path: Path, made: tuple[Leaderboard, Material]) -> None:
    """The page of a store that was filled again alike is the same to the byte."""
    board, material = made
    again, same = read_made_up(tmp_path)
    assert to_page([again], {SWEEP: same}) == to_page([replace(board, question=again.question)], {SWEEP: material})


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Names of configurations, the question and messages add no element, no attribute and no script to a page."""
    plain_board, plain_material = read_made_up(tmp_path / "plain", labels=("one", "other", "third"))
    board, material = read_made_up(tmp_path / "hostile", labels=HOSTILE[:3], question=HOSTILE[3])
    plain = Document(to_page([plain_board], {SWEEP: plain_material}))
    read = Document(to_page([board], {SWEEP: material}))
    assert len(read.scripts) == len(plain.scripts)
    assert {tag for tag, _ in read.elements} - {"wbr"} == {tag for tag, _ in plain.elements} - {"wbr"}
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert HOSTILE[0] in read.words
    assert all(ord(letter) < 128 for script in read.scripts if script.startswith("[") for letter in script)


@given(st.text() | st.sampled_from(HOSTILE))
def test_json_block_comes_back_as_it_was(said: str) -> None:
    """Whatever a text says, it ends neither the block nor the line, and a parser reads it unchanged."""
    block = json_block("x", {said: [said, 1.5, None]})
    assert not set(block.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")) & set(
        "<>&\u2028"
    )
    assert json.loads(Document(block).scripts[0]) == {said: [said, 1.5, None]}


@given(st.text() | st.sampled_from(HOSTILE))
def test_text_of_a_figure_has_no_markup(said: str) -> None:
    """Plotly takes tags in texts for markup: there are none."""
    assert not set(figure_text(said, 30)) & set("<>")


def test_long_labels_keep_what_differs() -> None:
    """A label that is too long loses the names of its axes first, and only then its middle: its ends differ most."""
    label = "learning_rate=0.014 \u00b7 locnet_learning_rate_factor=0.12 \u00b7 20,20,20 \u00b7 affine"
    assert figure_label(label, 80) == label
    assert figure_label(label, 42) == "0.014 \u00b7 0.12 \u00b7 20,20,20 \u00b7 affine"
    assert figure_label(label, 17) == "0.014 \u00b7\u2026\u00b7 affine"
    assert figure_label("<b>" * 20, 9) == "&lt;b&gt;&lt;\u2026&gt;&lt;b&gt;"


def test_cells_sort_by_value(made: tuple[Leaderboard, Material]) -> None:
    """A cell carries the number that it is sorted by, not the one that its text begins with; nothing where it lacks."""
    written = to_page([made[0]])
    row = made[0].rows[0]
    assert row.score is not None
    assert f'data-sort="{row.score.mean:.10g}"' in written
    assert f'data-sort="{row.parameters}">1.24 M</td>' in written
    assert 'data-sort="">\u2013</td>' in written


def test_headings_are_in_order_and_names_are_unique(made: tuple[Leaderboard, Material]) -> None:
    """One h1, no level is skipped, and no two elements have one id."""
    board, material = made
    read = Document(to_page([board], {SWEEP: material}))
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = read.attributes("id")
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in read.attributes("href")} <= set(ids)


def test_several_sweeps_share_one_page_and_one_plotly(made: tuple[Leaderboard, Material]) -> None:
    """Names stay unique, and the script is there once."""
    board, material = made
    other = replace(board, sweep="other")
    written = to_page([board, other], {SWEEP: material, "other": material})
    ids = Document(written).attributes("id")
    assert len(ids) == len(set(ids))
    assert written.count("packed-plotly") == 1


def test_page_without_figures_does_without_plotly(made: tuple[Leaderboard, Material]) -> None:
    """A leaderboard alone is a small page."""
    assert len(to_page([made[0]])) < 80_000


def test_page_stays_small(made: tuple[Leaderboard, Material]) -> None:
    """What the page adds to Plotly's script is a few hundred kilobytes."""
    board, material = made
    assert len(to_page([board], {SWEEP: material})) < 600_000


def test_plotly_is_the_bundle_of_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page carries is plotly.js 4.1.1 as npm has it, unchanged, in letters that end no element."""
    monkeypatch.undo()
    packed = document._plotly()
    script = gzip.decompress(base64.b64decode(packed))
    assert hashlib.sha256(script).hexdigest() == PLOTLY_SHA256
    assert len(packed) < 700_000
    assert re.fullmatch("[A-Za-z0-9+/=]+", packed)


def test_a_leaderboard_of_thousands_is_cut_and_says_so(
    made: tuple[Leaderboard, Material], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many rows, and a sentence about the others."""
    monkeypatch.setattr(answers, "MOST_ROWS", 2)
    board = Document(to_page([made[0]]).partition('id="s0-rows-table"')[2].partition("</table>")[0])
    assert [tag for tag, _ in board.elements].count("tr") == 3
    assert "The first 2 of 4 rows; CSV and JSON have all." in to_page([made[0]])


def test_health_and_standing_are_words(made: tuple[Leaderboard, Material]) -> None:
    """Nothing is said by a colour alone."""
    written = to_page([made[0]])
    assert '<span class="mark best">best</span>' in written
    assert '<span class="mark good">healthy</span>' in written


def test_failures_have_their_message_and_last_lines(made: tuple[Leaderboard, Material]) -> None:
    """The kind, the message and the traceback with its indentation, all escaped."""
    board, material = made
    written = to_page([board], {SWEEP: material})
    assert "1 \u00d7 bug</span> &lt;b&gt;boom&lt;/b&gt; &amp; more" in written
    assert "\n  File &quot;x.py&quot;, line 1\n    &lt;b&gt;boom" in written


def test_what_holds_for_no_script_is_shown_by_the_script(made: tuple[Leaderboard, Material]) -> None:
    """Filters and buttons that need the script are hidden until it runs."""
    board, material = made
    read = Document(to_page([board], {SWEEP: material}))
    needy = [attributes for _, attributes in read.elements if {"data-needs-script", "data-switch"} & set(attributes)]
    assert needy
    assert all("hidden" in attributes for attributes in needy)


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_enough(theme: Theme) -> None:
    """AA: 4.5 for text on the page and on panels, 3 for lines of figures."""
    for ground in (theme.page, theme.panel):
        assert (
            min(contrast(text, ground) for text in (theme.ink, theme.faint, theme.accent, theme.good, theme.bad)) >= 4.5
        )
        assert min(contrast(line, ground) for line in theme.lines) >= 3
    assert contrast(theme.page, theme.accent) >= 4.5


@settings(max_examples=20)
@given(st.text(min_size=1))
def test_document_says_its_title_escaped(title: str) -> None:
    """A title adds no element."""
    tags = [tag for tag, _ in Document("\n".join(document_lines(title, [], has_figures=False))).elements]
    assert tags == ["html", "head", "meta", "meta", "meta", "meta", "title", "style", "body", "script", "script"]


def test_a_figure_with_one_view_has_no_switch() -> None:
    """Buttons are there to choose between several views."""
    view = View(label="a", traces=[], layout={})
    one = "\n".join(figure_lines(Figure(key="k", title="t", caption="c", views=[view]), "s0"))
    two = "\n".join(figure_lines(Figure(key="k", title="t", caption="c", views=[view, view]), "s0"))
    assert (one.count("<button"), two.count("<button")) == (0, 2)
