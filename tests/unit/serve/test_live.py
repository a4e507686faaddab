"""What the live page shows and does, without a browser: every text escaped, every stranger refused."""

import asyncio
import dataclasses
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_up_results import Filler, planned, transformed
from stored_sweeps import runs, sizes, store

from stnbench.core.errors import SpecError
from stnbench.core.files import RunsLayout
from stnbench.orchestration.claims import ProcessIdentity, orchestrator_lock
from stnbench.serve.app import Secrets, Sweeps, make_app
from stnbench.serve.live import expected_left_s, fragments, read_snapshot
from stnbench.serve.server import open_socket
from stnbench.spec.control import ControlRecord, ControlRequest, Effect, Pause
from stnbench.spec.result import Failure, FailureKind, TrialState
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store

__all__ = ["runs", "sizes", "store"]

PORT = 8321
KNOWN = Secrets(token="the-token", form="the-form")
OURS = {"host": f"127.0.0.1:{PORT}", "cookie": f"stnbench_{PORT}=the-token", "origin": f"http://127.0.0.1:{PORT}"}
EVIL = "<img src=x onerror=alert(1)>\"'&\u202e"


class Answer:
    """A response of the application."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in messages[0]["headers"]}
        self.text = b"".join(message.get("body", b"") for message in messages[1:]).decode()


def ask(app: Any, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """One request, as a browser sends it."""
    path, _, query = path.partition("?")
    lines = [(name.encode(), value.encode()) for name, value in (OURS if headers is None else headers).items()]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": lines,
        "scheme": "http",
        "server": ("127.0.0.1", PORT),
        "client": ("127.0.0.1", 1),
        "root_path": "",
        "http_version": "1.1",
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return Answer(sent)


@pytest.fixture
def app(store: Store, sizes: list[TrialSpec], runs: Path) -> Any:
    """The application over the made-up sweep ``sizes``."""
    return make_app(RunsLayout(runs), PORT, KNOWN, sweep="sizes")


def asked(runs: Path) -> list[Path]:
    """The requests that were left."""
    return sorted((runs / "control").glob("*")) if (runs / "control").exists() else []


STRANGERS = [
    {},
    {"host": "evil.example"},
    OURS | {"host": "evil.example"},
    OURS | {"host": f"evil.example:{PORT}", "origin": f"http://evil.example:{PORT}"},
    OURS | {"host": f"127.0.0.1:{PORT + 1}", "origin": f"http://127.0.0.1:{PORT + 1}"},
    OURS | {"host": f"127.0.0.1:{PORT}.evil.example"},
    OURS | {"host": "127.0.0.1"},
    OURS | {"origin": "http://evil.example"},
    OURS | {"origin": "null"},
    OURS | {"origin": f"https://127.0.0.1:{PORT}"},
    OURS | {"origin": f"http://127.0.0.1:{PORT + 1}"},
    OURS | {"origin": f"http://localhost:{PORT}"},
    OURS | {"cookie": f"stnbench_{PORT}=other"},
    OURS | {"cookie": f"stnbench_{PORT + 1}=the-token"},
    {name: value for name, value in OURS.items() if name != "cookie"},
]


@pytest.mark.parametrize("headers", STRANGERS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_stranger_reads_and_changes_nothing(app: Any, runs: Path, headers: dict[str, str], method: str) -> None:
    """Another host, another origin, or no secret: refused before anything is read."""
    for path in ("/", "/live.js", "/sweep/sizes/", "/sweep/sizes/ask", "/sweep/sizes/events"):
        answer = ask(app, method, path, headers, b"action=pause&value=&form=the-form")
        assert answer.status in {403, 421}
        assert "Does it" not in answer.text
        assert "How large" not in answer.text
    assert asked(runs) == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({name: value for name, value in OURS.items() if name != "origin"}, b"action=pause&value=&form=the-form"),
        (OURS | {"sec-fetch-site": "cross-site"}, b"action=pause&value=&form=the-form"),
        (OURS | {"sec-fetch-site": "same-site"}, b"action=pause&value=&form=the-form"),
        (OURS, b"action=pause&value="),
        (OURS, b"action=pause&value=&form=another"),
        (OURS, b"action=pause&value=&form=the-form" + b"&x=" + b"x" * 20_000),
        (OURS, b'{"action": "pause", "form": "the-form"}'),
        (OURS, b"\xff\xfe=\xff"),
        (OURS, b""),
    ],
)
def test_only_a_form_of_the_page_asks_something(app: Any, runs: Path, headers: dict[str, str], body: bytes) -> None:
    """A page elsewhere cannot know the form's field, and a browser says where a request comes from."""
    assert ask(app, "POST", "/sweep/sizes/ask", headers, body).status == 403
    assert asked(runs) == []


def test_the_address_opens_the_page_once_and_hides_its_secret(app: Any) -> None:
    """The token goes into a cookie that no script reads and no other site sends."""
    headers = {"host": f"localhost:{PORT}"}
    answer = ask(app, "GET", "/?token=the-token", headers)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("the-token", "HttpOnly", "SameSite=strict"))
    assert ask(app, "GET", "/?token=other", headers).status == 403
    page = ask(app, "GET", "/sweep/sizes/", headers | {"cookie": cookie.partition(";")[0]})
    assert page.status == 200
    assert "the-token" not in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"


def test_a_form_of_the_page_leaves_one_request(app: Any, runs: Path) -> None:
    """Without a script it leads back to the page; the answer is JSON for the script."""
    body = b"action=stop&value=10%2C10%2C10&form=the-form"
    answer = ask(app, "POST", "/sweep/sizes/ask", OURS, body)
    assert (answer.status, answer.headers["location"]) == (303, "/sweep/sizes/")
    assert len(asked(runs)) == 1
    answer = ask(app, "POST", "/sweep/sizes/ask", OURS | {"accept": "application/json"}, body)
    assert (answer.status, "started again" in answer.text) == (200, True)
    answer = ask(app, "POST", "/sweep/sizes/ask", OURS, b"action=stop&value=10%2C10&form=the-form")
    assert (answer.status, "did you mean" in answer.text) == (400, True)
    assert len(asked(runs)) == 2


def test_what_is_not_there_is_said_so(app: Any) -> None:
    """Of sweeps and pages."""
    for path in ("/sweep/none/", "/sweep/none/report", "/sweep/sizes/none", "/../etc/passwd"):
        assert ask(app, "GET", path).status == 404
    assert ask(app, "GET", "/sweep/sizes/ask").status == 405


class Tags(HTMLParser):
    """The tags of a page, and the buttons that ask something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str] = []
        self.scripted: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.append(tag)
        named = dict(attrs)
        self.scripted += [name for name in named if name.startswith("on") or name == "style"]
        if tag == "input" and named.get("name") == "value":
            self.values.append(named.get("value") or "")


@pytest.fixture
def evil(tmp_path: Path) -> RunsLayout:
    """A sweep whose labels, messages and requests are hostile."""
    layout = RunsLayout(tmp_path / "evil")
    specs = [transformed(size) for size in (10, 20, 30)]
    with Store.open(layout.root / "stnbench.db", writable=True) as made:
        filler = Filler(made, "sizes").save(
            [planned(spec, EVIL + str(n)) for n, spec in enumerate(specs)], question=EVIL
        )
        filler.complete(specs[0], 1800)
        filler.fail(specs[1], Failure(kind=FailureKind.BUG, message=EVIL))
        filler.start(specs[2])
        request = ControlRequest(request_id="1", sweep="sizes", action=Pause(), asked_at="", asked_by=EVIL)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        made.add_control(ControlRecord(request=request, applied_at=at, is_refused=True, outcome=EVIL, effect=Effect()))
    return layout


def test_texts_of_the_store_are_texts_on_the_page(evil: RunsLayout) -> None:
    """Labels come back as they are when a button asks for them, and no text becomes a tag."""
    page = ask(make_app(evil, PORT, KNOWN, sweep="sizes"), "GET", "/sweep/sizes/")
    read = Tags(page.text)
    assert page.status == 200
    assert "img" not in read.tags
    assert read.scripted == []
    assert f"{EVIL}2#1" in read.values
    assert "\u202e" not in page.text


def test_the_page_tells_of_every_state(store: Store, runs: Path) -> None:
    """Provisional as long as trials are open; what fails stands with what to do about it."""
    specs = [transformed(size) for size in (10, 20, 30, 40, 50)]
    filler = Filler(store).save([planned(spec) for spec in specs])
    filler.complete(specs[0], 1800)
    filler.complete(specs[1], 1810)
    filler.fail(specs[2], Failure(kind=FailureKind.DIVERGED, message="the loss is nan"))
    filler.start(specs[3])
    spec = next(record.spec for record in store.sweeps())
    page = fragments(read_snapshot(store, spec, is_held=False), Sweeps(RunsLayout(runs), KNOWN)._board(spec, "")[0], "")
    assert "not running" in page["state"]
    assert "provisional" in page["board"]
    assert "<details>" not in page["board"]
    assert "the loss is nan" in page["failures"]
    assert "Retry all that failed" in page["controls"]
    held = fragments(read_snapshot(store, spec, is_held=True), None, "")
    assert "running" in held["state"]
    assert "No trial is complete yet" in held["board"]
    with orchestrator_lock(RunsLayout(runs), ProcessIdentity.current()):
        parts = Sweeps(RunsLayout(runs), KNOWN).parts("sizes")
    assert parts is not None
    assert "not running" not in parts["state"]


def test_a_long_leaderboard_is_folded(store: Store, runs: Path) -> None:
    """The first 25 rows are seen, the others below a line that says how many; none is left out."""
    specs = [transformed(10 + size) for size in range(27)]
    filler = Filler(store).save([planned(spec) for spec in specs])
    filler.complete(specs[0], 1800)
    spec = next(record.spec for record in store.sweeps())
    board = fragments(
        read_snapshot(store, spec, is_held=False), Sweeps(RunsLayout(runs), KNOWN)._board(spec, "")[0], ""
    )["board"]
    first, others = board.split("<details>")
    assert "2 configurations below these" in others
    assert (first.count('<th scope="row"'), others.count('<th scope="row"')) == (25, 2)


def test_fragments_of_a_store_that_has_not_changed_are_the_same(
    store: Store, sizes: list[TrialSpec], runs: Path
) -> None:
    """So a page hears of what is new alone; an epoch is new, and a request."""
    sweeps = Sweeps(RunsLayout(runs), KNOWN)
    first = sweeps.parts("sizes")
    assert sweeps.parts("sizes") is first
    request = ControlRequest(request_id="1", sweep="sizes", action=Pause(), asked_at="", asked_by="me")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    store.add_control(ControlRecord(request=request, applied_at=at, is_refused=False, outcome="so", effect=Effect()))
    second = sweeps.parts("sizes")
    assert first is not None
    assert second is not None
    assert {name for name in first if first[name] != second[name]} == {"controls", "asked"}
    sweeps.close()


def test_no_store_yet_is_a_page_that_waits(tmp_path: Path) -> None:
    """The page is opened while the first sweep still prepares its data."""
    app = make_app(RunsLayout(tmp_path / "runs"), PORT, KNOWN, sweep="soon")
    answer = ask(app, "GET", "/sweep/soon/")
    assert (answer.status, "being prepared" in answer.text) == (200, True)


def test_what_is_left_is_worked_out_of_trials_that_ended(store: Store, sizes: list[TrialSpec]) -> None:
    """Nothing is expected where nothing runs."""
    spec = next(record.spec for record in store.sweeps())
    rows = read_snapshot(store, spec, is_held=True).rows
    assert expected_left_s(rows) is None
    done = [dataclasses.replace(row, busy_s=100.0) for row in rows if row.state is TrialState.COMPLETE]
    open_row = dataclasses.replace(done[0], state=TrialState.PLANNED)
    running = dataclasses.replace(done[0], state=TrialState.RUNNING, epoch=5, epochs=10)
    assert expected_left_s([*done, running]) == pytest.approx(50.0)
    assert expected_left_s([*done, running, open_row]) == pytest.approx(150.0)


def test_the_server_listens_on_this_machine_alone() -> None:
    """A port that is taken is told of; without a wish the next one is tried."""
    with open_socket(0) as first:
        assert first.getsockname()[0] == "127.0.0.1"
        first.listen()
        with pytest.raises(SpecError, match="cannot be used"):
            open_socket(first.getsockname()[1])
    with open_socket(None) as second:
        assert second.getsockname()[0] == "127.0.0.1"
