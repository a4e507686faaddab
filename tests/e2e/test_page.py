"""The page of a report in a real browser: Debian's Chromium, headless, without a network."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import chromium, needs_chromium
from made_up_pages import SWEEP, MadeUpPage, make_many, make_page, make_search
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, expect

from stnbench.report import output
from stnbench.report.html.material import Places, read_material
from stnbench.report.html.page import to_page
from stnbench.store.store import Store

expect.set_options(timeout=20_000)  # machines that test are busy

pytestmark = [pytest.mark.slow, needs_chromium, pytest.mark.thorough]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this file."""
    with chromium() as browser:
        yield browser


def write_page(folder: Path, labels: tuple[str, ...] = (), question: str = "How large must it be?") -> Path:
    """The page of a made-up sweep as a file."""
    made = make_page(folder, labels=labels, question=question)
    places = Places(layout=made.layout, data_root=made.data_root, reports=made.reports)
    with Store.open(made.layout.store, writable=False) as store:
        report = output.read_report(store, SWEEP)
        material = read_material(report.board, report.frames, places)
    path = folder / "index.html"
    path.write_text(to_page([report.board], {SWEEP: material}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that most tests open."""
    return write_page(tmp_path_factory.mktemp("report"))


@dataclass
class Visit:
    """An open page, what it complained of, and what it asked the network for. Playwright adds attributes to it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def note_message(self, message: ConsoleMessage) -> None:
        """Note a warning or an error; nothing else is expected either."""
        self.complaints.append(f"{message.type}: {message.text}")

    def note_request(self, route: Route, request: Request) -> None:
        """Let the file itself through, and nothing else."""
        if request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.requests.append(request.url)
            route.abort()

    def scroll(self) -> None:
        """Read to the end, so that every figure is drawn."""
        figures = self.page.locator(".plot:visible")
        for index in range(figures.count()):
            figures.nth(index).scroll_into_view_if_needed()
            expect(figures.nth(index).locator("svg.main-svg").first).to_be_attached()


@pytest.fixture
def visit(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """The page in a window; a test may ask for a width, a colour scheme and another file by a parameter."""
    wanted = getattr(request, "param", {})
    context = browser.new_context(
        viewport={"width": wanted.get("width", 1280), "height": 900}, color_scheme=wanted.get("scheme", "light")
    )
    visit = Visit(context.new_page())
    visit.page.on("console", visit.note_message)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("dialog", lambda dialog: visit.complaints.append(f"dialog: {dialog.message}"))
    visit.page.route("**/*", visit.note_request)
    visit.page.goto(report.as_uri())
    yield visit
    assert visit.complaints == []
    assert visit.requests == []
    context.close()


WINDOWS = [{"width": width, "scheme": scheme} for width in (1280, 390) for scheme in ("light", "dark")]


@pytest.mark.parametrize("visit", WINDOWS, indirect=True, ids=lambda window: f"{window['width']}-{window['scheme']}")
def test_page_opens_without_a_complaint_on_any_screen(visit: Visit, request: pytest.FixtureRequest) -> None:
    """No warning, no error, no request; every figure is drawn; nothing makes the page scroll sideways."""
    visit.scroll()
    inner, scheme = (
        visit.page.evaluate("innerWidth"),
        visit.page.evaluate("getComputedStyle(document.body).colorScheme"),
    )
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= inner
    assert visit.page.locator("svg.main-svg").count() >= visit.page.locator(".plot:visible").count() >= 4
    assert "dark" in scheme
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = request.node.callspec.params["visit"]["scheme"] == "dark"
    assert ground == ("rgb(15, 18, 22)" if is_dark else "rgb(255, 255, 255)")


def configs(page: Page) -> list[str]:
    """The names of the configurations that are shown, in their order."""
    return [name.strip() for name in page.locator("#s0-rows-table tbody tr:not([hidden]) th").all_inner_texts()]


def test_columns_sort_by_mouse_and_by_keyboard(visit: Visit) -> None:
    """A click on a heading sorts, a second one the other way round; Enter and the space bar do the same.

    What is missing comes last whichever way: the baseline has no gain over itself.
    """
    page, board = visit.page, visit.page.locator("#s0-rows-table")
    assert configs(page) == ["30", "20", "10", "no ST"]
    heading = board.get_by_role("columnheader", name="configuration")
    heading.get_by_role("button").click()
    assert configs(page) == ["10", "20", "30", "no ST"]
    expect(heading).to_have_attribute("aria-sort", "ascending")
    heading.get_by_role("button").click()
    assert configs(page) == ["no ST", "30", "20", "10"]
    expect(heading).to_have_attribute("aria-sort", "descending")
    board.get_by_role("columnheader", name="validation %").get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert configs(page) == ["30", "20", "10", "no ST"]
    page.keyboard.press("Space")
    assert configs(page) == ["no ST", "10", "20", "30"]
    expect(heading).not_to_have_attribute("aria-sort", "descending")
    gain = board.get_by_role("columnheader", name="ST gain").get_by_role("button")
    for _ in range(2):
        gain.click()
        assert configs(page)[-1] == "no ST"


def test_rows_are_found_by_words_and_by_axes(visit: Visit) -> None:
    """Typing and choosing leave the rows that match, the count says how many, and one button brings all back.

    What the keyboard is on has an outline.
    """
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.get_by_role("searchbox").first.focus()
    page.keyboard.type("no st")
    assert configs(page) == ["no ST"]
    expect(page.locator("#s0-rows-table-filter output")).to_have_text("1 of 4 rows")
    page.get_by_role("button", name="Reset").first.click()
    expect(page.locator("#s0-rows-table-filter output")).to_have_text("4 rows")
    page.get_by_label("locnet1.sizes").first.select_option("20")
    assert configs(page) == ["20"]


def test_figures_and_film_follow_the_keyboard(visit: Visit) -> None:
    """A button shows the losses in place of the accuracies; arrow keys wind the film of a training, and it plays."""
    page = visit.page
    figure = page.locator("#s0-curves")
    figure.scroll_into_view_if_needed()
    expect(figure.locator(".ytitle")).to_have_text("validation accuracy, %")
    button = figure.get_by_role("button", name="Training loss")
    button.focus()
    page.keyboard.press("Enter")
    expect(figure.locator(".ytitle")).to_have_text("training loss, nats")
    expect(button).to_have_attribute("aria-pressed", "true")
    film = page.locator(".watch:visible")
    film.scroll_into_view_if_needed()
    expect(film.locator("output")).to_have_text("step 20 of 20, epoch 2 of 2")
    last = film.locator("canvas.output").first.evaluate("canvas => canvas.toDataURL()")
    film.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(film.locator("output")).to_have_text("before training, 0 of 20 steps")
    assert film.locator("canvas.output").first.evaluate("canvas => canvas.toDataURL()") != last
    film.get_by_role("button", name="Play").click()
    expect(film.locator("output")).to_have_text("step 20 of 20, epoch 2 of 2")
    expect(film.get_by_role("button")).to_have_text("Play")


def test_the_film_of_another_configuration_is_chosen(visit: Visit) -> None:
    """A list names the best configurations with snapshots; the chosen one is shown alone, ready to be played."""
    page = visit.page
    chooser = page.locator("[data-films] select")
    chooser.scroll_into_view_if_needed()
    names = chooser.locator("option").all_inner_texts()
    assert [name[:2] for name in names] == ["30", "20", "10"]
    film = page.locator(".watch:visible")
    for name in reversed(names):
        chooser.select_option(name)
        expect(film).to_have_count(1)
        expect(film.locator("h3")).to_have_text(name)
        expect(film.locator("canvas.output")).to_have_count(2)
        expect(film.locator("output")).to_have_text("step 20 of 20, epoch 2 of 2")


@pytest.mark.parametrize("visit", [{"scheme": "dark"}], indirect=True)
def test_paper_is_light_and_cuts_no_figure(visit: Visit) -> None:
    """Printed from a dark screen, the page is light, filters are gone, and figures fit a sheet."""
    page = visit.page
    expect(page.locator("svg.main-svg").first).to_be_attached()
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator(".filters").first).to_be_hidden()
    widths = page.locator("svg.main-svg").evaluate_all("all => all.map(svg => svg.getBoundingClientRect().width)")
    assert max(widths) <= 680
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    """Configs and a question that are markup are shown as they are, in tables and figures, and nothing of them runs."""
    names = ("</script><script>window.ran = 1</script>", "<img src=x onerror='window.ran = 1'>", "__proto__")
    path = write_page(tmp_path, labels=names, question="<svg onload='window.ran = 1'>")
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    expect(page.locator("h1")).to_have_text("<svg onload='window.ran = 1'>")
    assert names[2] in configs(page)
    for plot in page.locator(".plot:visible").all():
        plot.scroll_into_view_if_needed()
        expect(plot.locator("svg.main-svg").first).to_be_attached()
    assert names[1] in page.locator("#s0-curves .legendtext").all_text_contents()
    assert page.evaluate("window.ran") is None
    assert page.locator("main img[onerror]").count() == 0
    assert complaints == []
    page.close()


def written(made: MadeUpPage, name: str, folder: Path) -> Path:
    """The page of a made-up store as a file."""
    places = Places(layout=made.layout, data_root=made.data_root, reports=made.reports)
    with Store.open(made.layout.store, writable=False) as store:
        report = output.read_report(store, name)
        material = read_material(report.board, report.frames, places)
    path = folder / "index.html"
    path.write_text(to_page([report.board], {name: material}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 150 configurations, half done, with failures of five kinds."""
    folder = tmp_path_factory.mktemp("many")
    return written(make_many(folder), "many", folder)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a search by TPE of 60 trials, 20 of them pruned and two failed."""
    folder = tmp_path_factory.mktemp("search")
    return written(make_search(folder), "search", folder)


@pytest.fixture
def large(visit: Visit, many: Path) -> Page:
    """That page, open."""
    visit.page.goto(many.as_uri())
    return visit.page


@pytest.mark.parametrize("visit", [{"width": 1280}, {"width": 1920}, {"width": 390}], indirect=True)
def test_a_large_page_stays_usable(large: Page, many: Path, request: pytest.FixtureRequest) -> None:
    """The first 25 rows, then all; the page does not scroll sideways; configuration and accuracy are in sight.

    Failures stand above the table, one row a kind, and the page is at most 1.5 MB.
    """
    assert many.stat().st_size <= 1_500_000
    assert len(configs(large)) == 25
    expect(large.locator("#s0-failures tbody").first.locator("tr")).to_have_count(5)
    assert large.evaluate("document.documentElement.scrollWidth") <= large.evaluate("innerWidth")
    accuracy = large.locator("#s0-rows-table tbody td").first
    accuracy.scroll_into_view_if_needed()
    box = accuracy.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= large.evaluate("innerWidth")
    large.get_by_role("button", name="Show all 150 rows").click()
    assert len(configs(large)) == 150
    large.get_by_role("button", name="Show the first 25 rows").click()
    assert len(configs(large)) == 25


def test_columns_can_be_chosen_and_rows_lead_to_trials(large: Page) -> None:
    """A box hides a column and brings it back; the name of a configuration filters the table of trials."""
    board = large.locator("#s0-rows-table")
    expect(board.get_by_role("columnheader", name="health")).to_be_visible()
    large.locator("#s0-rows-table-filter .chooser summary").click()
    large.locator("#s0-rows-table-filter .chooser").get_by_label("health").uncheck()
    expect(board.get_by_role("columnheader", name="health")).to_be_hidden()
    large.locator("#s0-rows-table-filter .chooser").get_by_label("health").check()
    expect(board.get_by_role("columnheader", name="health")).to_be_visible()
    name = configs(large)[0]
    board.get_by_role("link", name=name, exact=True).click()
    trials = large.locator("#s0-trials-table tbody tr:not([hidden]) th")
    expect(trials).to_have_count(2)
    assert trials.all_inner_texts() == [name, name]


def lines_kept(page: Page) -> int:
    """The number of lines of the parallel coordinates that are in colour."""
    return int(
        page.evaluate(
            """() => {
              const { link } = JSON.parse(document.getElementById("s0-parallel-data").textContent)[0];
              const { data } = document.querySelector("#s0-parallel .plot");
              const kept = data.slice(-link.rows.length); // those behind the faint ones, where there are any
              return kept.reduce((sum, trace) => sum + trace.x.filter((x) => x === null).length, 0);
            }"""
        )
    )


def drag_along(page: Page, axis: int, low: float, high: float) -> None:
    """Choose a part of an axis of the parallel coordinates, from its share ``low`` to ``high``."""
    plot = page.locator("#s0-parallel .plot")
    plot.scroll_into_view_if_needed()
    expect(plot.locator("svg.main-svg").first).to_be_attached()
    place = page.evaluate(
        """([axis, low, high]) => {
          const plot = document.querySelector("#s0-parallel .plot");
          const { xaxis, yaxis } = plot._fullLayout;
          const box = plot.getBoundingClientRect();
          const at = (share) => box.top + yaxis._offset + yaxis.c2p(share);
          return [box.left + xaxis._offset + xaxis.c2p(axis), at(low), at(high)];
        }""",
        [axis, low, high],
    )
    page.mouse.move(place[0] - 10, place[1])
    page.mouse.down()
    page.mouse.move(place[0] + 10, place[2], steps=4)
    page.mouse.up()


def serious_findings(visit: Visit) -> list[tuple[str, list[str]]]:
    """What axe-core calls serious or critical, each with some places."""
    found = Axe().run(visit.page).response["violations"]
    return [
        (item["id"], [node["html"][:200] for node in item["nodes"][:3]])
        for item in found
        if item["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize("visit", [{"width": 1280}, {"width": 1920, "scheme": "dark"}], indirect=True)
def test_parallel_coordinates_and_the_table_filter_each_other(visit: Visit, searched: Path) -> None:
    """Half of an axis leaves the rows of the lines that cross there; a second axis narrows further; reset frees all.

    What the table's own filters leave is what is in colour.
    """
    page = visit.page
    page.goto(searched.as_uri())
    found = page.locator("#s0-rows-table-filter output")
    expect(found).to_have_text("25 of 60 rows")
    page.locator("#s0-parallel").scroll_into_view_if_needed()
    drag_along(page, 4, 0.5, 1.03)
    expect(found).not_to_have_text("25 of 60 rows")
    accuracies = page.evaluate(
        """() => {
          const view = JSON.parse(document.getElementById("s0-parallel-data").textContent)[0];
          const own = (trace, rows) => rows.map((row, place) => [row, trace.y[6 * place + 4]]);
          return view.data.flatMap((trace, index) => own(trace, view.link.rows[index]));
        }"""
    )
    expected = sorted(row for row, share in accuracies if share is not None and share >= 0.5)
    assert 0 < len(expected) < 60
    expect(found).to_have_text(f"{len(expected)} of 60 rows")
    rows = page.locator("#s0-rows-table tbody tr:not([hidden])")
    assert sorted(int(str(row.get_attribute("data-at"))) for row in rows.all()) == expected
    assert lines_kept(page) == len(expected)
    page.get_by_label("transformer").first.select_option("attention")
    expect(rows.first).to_be_visible()
    both = rows.count()
    assert 0 < both < len(expected)
    page.wait_for_function("document.querySelector('#s0-parallel .plot').data.length > 6")
    assert lines_kept(page) == both
    page.locator("#s0-rows-table-filter").get_by_role("button", name="Reset").click()
    expect(found).to_have_text("25 of 60 rows")
    assert lines_kept(page) == 60


def test_any_two_axes_are_chosen_from_a_list(visit: Visit, searched: Path) -> None:
    """The list shows the pair that it names; contours and heat maps are drawn without a complaint."""
    page = visit.page
    page.goto(searched.as_uri())
    figure = page.locator("#s0-pairs")
    figure.scroll_into_view_if_needed()
    expect(figure.locator("svg.main-svg").first).to_be_attached()
    pairs = figure.locator("option").all_inner_texts()
    assert len(pairs) == 6
    for pair in pairs:
        first, second = pair.split(" \u00d7 ")
        figure.locator("select").select_option(pair)
        expect(figure.locator(".ytitle")).to_have_text(first)
        expect(figure.locator(".xtitle")).to_have_text(second)


@pytest.mark.parametrize("visit", WINDOWS, indirect=True, ids=lambda window: f"{window['width']}-{window['scheme']}")
def test_a_search_is_drawn_on_any_screen(visit: Visit, searched: Path) -> None:
    """Every figure of the search is drawn, without sideways scrolling; axe finds nothing serious."""
    visit.page.goto(searched.as_uri())
    visit.scroll()
    keys = visit.page.locator(".figure").evaluate_all("all => all.map(one => one.id)")
    assert {f"s0-{key}" for key in ("history", "parallel", "slices", "pairs", "pruned", "importance")} <= {*keys}
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= visit.page.evaluate("innerWidth")
    assert serious_findings(visit) == []


def luminance(colour: str) -> float:
    """The relative luminance of ``#rrggbb`` or ``rgb(r, g, b)``, by WCAG."""
    whole = [int(colour[at : at + 2], 16) for at in (1, 3, 5)] if colour[0] == "#" else re.findall(r"[\d.]+", colour)
    parts = [float(part) / 255 for part in whole]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("visit", [{"width": 1280}, {"width": 1920, "scheme": "dark"}], indirect=True)
def test_a_large_page_has_no_serious_finding(visit: Visit, many: Path) -> None:
    """axe-core on 150 configurations with failures of five kinds, half done.

    The numbers in its heat map have a contrast of 4.5 to 1, which axe-core does not see in drawings.
    """
    visit.page.goto(many.as_uri())
    visit.scroll()
    assert serious_findings(visit) == []
    pairs = visit.page.evaluate(
        """() => [...document.querySelectorAll("#s0-pairs .heatmap-label text")].map((text) => {
          const [trace] = document.querySelector("#s0-pairs .plot")._fullData;
          const share = (text.__data__.z - trace.zmin) / (trace.zmax - trace.zmin);
          const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
          const ends = trace.colorscale.map(([, colour]) => parts(colour));
          const cell = ends[0].map((part, at) => part + share * (ends[1][at] - part));
          return [`rgb(${cell})`, getComputedStyle(text).fill];
        })"""
    )
    assert len(pairs) == 30
    for ground, ink in pairs:
        dark, light = sorted((luminance(ground), luminance(ink)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)


SAFE_BUTTONS = {"Zoom", "Pan", "Reset axes", "Download plot as a PNG", "Box Select"}


def test_no_button_sends_anything_away(visit: Visit, searched: Path) -> None:
    """The mode bars of figures have buttons that stay on the page; pressing every one asks for nothing.

    ``visit`` fails where anything was asked of the network.
    """
    visit.page.goto(searched.as_uri())
    visit.scroll()
    buttons = visit.page.locator(".modebar-btn")
    names = {button.get_attribute("data-title") or button.get_attribute("aria-label") for button in buttons.all()}
    assert buttons.count() >= 4
    assert all(any(str(name).startswith(safe) for safe in SAFE_BUTTONS) for name in names), names
    for figure in visit.page.locator(".plot:visible").all():
        figure.scroll_into_view_if_needed()
        figure.hover()
        for button in figure.locator(".modebar-btn").all():
            button.dispatch_event("click")
    visit.page.wait_for_timeout(300)
    assert visit.page.context.pages == [visit.page]


@pytest.mark.parametrize("visit", WINDOWS, indirect=True, ids=lambda window: f"{window['width']}-{window['scheme']}")
def test_axe_finds_nothing_serious(visit: Visit) -> None:
    """axe-core's rules for WCAG: no finding that is serious or critical, with every figure drawn and details open."""
    visit.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    visit.scroll()
    assert serious_findings(visit) == []


def test_without_scripts_figures_are_told_in_words(browser: Browser, report: Path) -> None:
    """Tables are whole, and each figure has its numbers as text in place of an empty frame."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    expect(page.locator("#s0-rows-table tbody tr")).to_have_count(4)
    expect(page.locator(".plot").first).to_be_hidden()
    page.locator("#s0-curves .in-words summary").click()
    expect(page.locator("#s0-curves .in-words li").first).to_contain_text("at 10")
    context.close()
