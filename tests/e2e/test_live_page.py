"""The live page in a real browser, beside a real sweep: it shows what happens, and does what it is asked alone."""

import http.client
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import chromium, needs_chromium
from commands import TINY, Workplace, kill_tree
from playwright.sync_api import Browser, Page, expect

from stnbench.spec.control import Pause, Resume, Stop
from stnbench.spec.result import AttemptState, TrialState
from stnbench.store.store import Store
from stnbench.store.tables import TrialRecord

expect.set_options(timeout=60_000)  # machines that test are busy

pytestmark = [pytest.mark.slow, needs_chromium, pytest.mark.timeout(480), pytest.mark.thorough]

SWEEP = TINY.replace("scale: smoke", "scale: smoke\n  training.epochs: 5").replace("seeds: [1, 2]", "seeds: [1]")
STOPPED = "scale_translation"
"""The configuration planned last: it has not begun when a slow machine gets around to the pause."""
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser."""
    with chromium() as browser:
        yield browser


def trials(place: Workplace) -> list[TrialRecord]:
    """The trials of the sweep."""
    with Store.open(place.runs / "stnbench.db", writable=False) as store:
        return store.sweep_trials("live")


def send(address: str, method: str, path: str, headers: dict[str, str], body: str = "") -> int:
    """One request as another program or page may send it; its status."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": urlsplit(address).netloc} | headers | {"Content-Length": str(len(body))}).items():
            connection.putheader(name, value)
        connection.endheaders(body.encode())
        return connection.getresponse().status
    finally:
        connection.close()


def refuse_strangers(address: str, form: str, runs: Path) -> None:
    """Requests that are not our page's own change nothing and read nothing."""
    split = urlsplit(address)
    origin, token = f"http://{split.netloc}", split.query.removeprefix("token=")
    cookie = {"Cookie": f"stnbench_{split.port}={token}"}
    ask, body = "/sweep/live/ask", f"action=pause&value=&form={form}"
    ours = cookie | {"Origin": origin, "Content-Type": FORM}
    strangers = [
        {"Host": "evil.example"} | ours,
        {"Host": f"evil.example:{split.port}"} | ours | {"Origin": f"http://evil.example:{split.port}"},
        ours | {"Origin": "http://evil.example"},
        ours | {"Origin": "null"},
        ours | {"Origin": f"https://{split.netloc}"},
        {name: value for name, value in ours.items() if name != "Origin"},
        {name: value for name, value in ours.items() if name != "Cookie"},
        ours | {"Cookie": f"stnbench_{split.port}=x"},
        ours | {"Sec-Fetch-Site": "cross-site"},
    ]
    for headers in strangers:
        assert send(address, "POST", ask, headers, body) in {403, 421}, headers
    for wrong in ("action=pause&value=", "action=pause&value=&form=x", "x" * 20_000, "\x00"):
        assert send(address, "POST", ask, ours, wrong) == 403
    for path in ("/", "/sweep/live/", "/sweep/live/events", "/sweep/live/report"):
        assert send(address, "GET", path, {}) == 403
        assert send(address, "GET", path, cookie | {"Host": "evil.example"}) == 421
    assert send(address, "GET", ask, cookie) == 405
    assert list((runs / "control").glob("*")) == []


def pause_stop_and_resume(page: Page, address: str, workplace: Workplace) -> None:
    """Pause: nothing begins and strangers change nothing; stop and resume do just that; no serious hurdle stands."""
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#answer")).to_contain_text("paused")
    expect(page.locator("#state .mark")).to_have_text("paused")
    expect(page.locator("#running")).to_contain_text("No trial runs", timeout=120_000)
    expect(page.locator("#board")).to_contain_text("provisional")
    started = {trial.trial_id for trial in trials(workplace) if trial.attempts}
    refuse_strangers(address, page.locator("input[name=form]").first.input_value(), workplace.runs)
    time.sleep(2)
    assert {trial.trial_id for trial in trials(workplace) if trial.attempts} == started

    page.locator("#board").get_by_role("button", name=f"Stop {STOPPED}", exact=True).click()
    expect(page.locator("#answer")).to_contain_text(f"given up: 1 trial of {STOPPED}")
    serious = {"serious", "critical"}
    assert [item["id"] for item in Axe().run(page).response["violations"] if item["impact"] in serious] == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(page.locator("#state .mark")).to_have_text("running")


def test_a_person_follows_and_controls_a_sweep_on_its_page(workplace: Workplace, browser: Browser) -> None:
    """An epoch arrives without a reload; pause, resume and the stop of one configuration do just that, in the store."""
    (workplace.folder / "sweeps" / "live.yaml").write_text(SWEEP)
    process = workplace.start("sweep", "live", "--serve", "--slots", "1", "--no-mlflow")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        workplace.wait_for("live page: ", timeout_s=120)
        address = re.findall(r"http://127\.0\.0\.1:\S+", workplace.log())[0]
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(address)
        assert "token" not in page.url
        page.evaluate("window.isSamePage = true")
        progress = page.locator("#running progress")
        expect(progress).to_have_count(1, timeout=120_000)
        expect(progress).to_have_attribute("value", re.compile(r"[1-9]\d*"))

        pause_stop_and_resume(page, address, workplace)
        assert page.evaluate("window.isSamePage")
        page.get_by_role("link", name="full report").click()
        expect(page.locator("h1")).to_have_text("Does it run?")
        page.go_back()
        expect(page.locator("#state .mark")).to_have_text(re.compile("running|ended"))
        assert process.wait(timeout=180) == 0
        expect(page.locator("#connection")).to_be_visible()
        assert [text for text in complaints if "ERR_CONNECTION" not in text and "net::" not in text] == []
    finally:
        context.close()
        if process.poll() is None:
            kill_tree(process)
    with Store.open(workplace.runs / "stnbench.db", writable=False) as store:
        asked = [record.request.action for record in store.controls("live")]
        attempts = [attempt.state for attempt in store.attempts_of_sweep("live")]
    assert asked == [Pause(), Stop(target=STOPPED), Resume()]
    states = {trial.trial_id: trial.state for trial in trials(workplace) if trial.label == STOPPED}
    assert set(states.values()) == {TrialState.PRUNED}
    others = [trial.state for trial in trials(workplace) if trial.label != STOPPED]
    assert others == [TrialState.COMPLETE] * 2
    assert attempts == [AttemptState.COMPLETE] * 2
