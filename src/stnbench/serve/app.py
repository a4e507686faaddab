"""The live page as a web application for a single user who has its address.

Every request must name this machine as its host, against DNS rebinding; must carry the secret of this process, which is
first in the address and then in a cookie; and requests to a sweep must come from the page itself, as verified by the
Origin and a field of the form. So neither another page in the same browser nor another user of the machine can read or
send anything.
"""

import asyncio
import hmac
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from stnbench.core.errors import SpecError, StnbenchError
from stnbench.core.files import RunsLayout
from stnbench.orchestration.claims import is_held
from stnbench.orchestration.control import parse_action, send_request, wait_for
from stnbench.report import output
from stnbench.report.board import Leaderboard
from stnbench.report.html.document import escape, style_sheet
from stnbench.serve.live import fragments, read_snapshot
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_MAX_BYTES: Final = 16_384
LOOK_S: Final = 1.0
"""Seconds between two checks for changes by an open page."""

ALIVE_S: Final = 10.0
"""Seconds between two signs of life to a page when nothing has changed."""

BOARD_SHARE: Final = 0.1
"""Maximum share of the time for computing leaderboards."""

ANSWER_S: Final = 8.0
"""Seconds to wait for the answer of the process that runs the sweep."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FIELD: Final = "form"


@dataclass(kw_only=True, slots=True)
class Secrets:
    """Secrets that a request must carry, drawn at random by every process."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    form: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class Guard:
    """Middleware that admits only requests from the application's own page, and adds security headers.

    Args:
        app: the application.
        port: port on which it is served.
        known: the secrets that requests must carry.
    """

    def __init__(self, app: App, port: int, known: Secrets) -> None:
        self._app = app
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        self._cookie = f"stnbench_{port}"
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is None and self._is_known(request.query_params.get("token", "")):
            refusal = self._welcome(request)
        elif refusal is None and not self._is_known(request.cookies.get(self._cookie, "")):
            refusal = _plain("This page opens with the address that stnbench printed, its token included.", 403)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                if not any(name.lower() == b"content-security-policy" for name, _ in message["headers"]):
                    message["headers"].append((b"content-security-policy", POLICY.encode()))
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _plain("This server answers to 127.0.0.1 and localhost alone.", 421)
        origins = request.headers.getlist("origin")
        is_ours = origins == [f"http://{hosts[0].lower()}"]
        if origins and not is_ours:
            return _plain("Another page cannot use this one.", 403)
        site = request.headers.get("sec-fetch-site", "same-origin")
        if request.method == "POST" and not (is_ours and site == "same-origin"):
            return _plain("Requests come from this page's own forms alone.", 403)
        return None

    def _is_known(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._known.token.encode())

    def _welcome(self, request: Request) -> Response:
        """Move the token from the address, which appears in histories and screenshots, into a cookie."""
        response = RedirectResponse(request.url.path, status_code=303)
        response.set_cookie(self._cookie, self._known.token, httponly=True, samesite="strict", path="/")
        return response


_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Sweeps:
    """Contents of the pages, read from the store when it has changed; safe to use from several threads."""

    def __init__(self, layout: RunsLayout, known: Secrets) -> None:
        self.layout = layout
        self._form = f'<input type="hidden" name="{_FIELD}" value="{escape(known.form)}">'
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._parts: dict[str, tuple[str, dict[str, str]]] = {}
        self._boards: dict[str, tuple[str, Leaderboard, float]] = {}
        self._reports: dict[str, tuple[str, str]] = {}

    def store(self) -> Store:
        """Return the store, opened for reading.

        Raises:
            StoreError: if it does not exist yet, or cannot be read.
        """
        if self._store is None:
            self._store = Store.open(self.layout.store, writable=False)
        return self._store

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def specs(self) -> dict[str, SweepSpec]:
        """Return every sweep by name, the last run first; an empty dictionary if there is no store yet."""
        if not Store.exists(self.layout.store):
            return {}
        return {record.spec.name: record.spec for record in self.store().sweeps()}

    def parts(self, sweep: str) -> dict[str, str] | None:
        """Return the fragments of a sweep's page, or None if the store does not have the sweep."""
        with self._lock:
            spec = self.specs().get(sweep)
            if spec is None:
                return None
            held = is_held(self.layout, sweep)
            stamp = self.store().version(sweep)
            board, is_new = self._board(spec, stamp)
            version = f"{stamp} {held} {is_new}"
            if version != self._parts.get(sweep, ("", {}))[0]:
                snapshot = read_snapshot(self.store(), spec, is_held=held)
                self._parts[sweep] = version, fragments(snapshot, board, self._form)
            return self._parts[sweep][1]

    def report(self, sweep: str) -> str | None:
        """Return the report of the present state as a page, or None if the store does not have the sweep."""
        with self._lock:
            if sweep not in self.specs():
                return None
            stamp = self.store().version(sweep)
            if self._reports.get(sweep, ("", ""))[0] != stamp:
                report = output.read_report(self.store(), sweep)
                page = output.render([report.board], "html", output.read_material([report]))
                self._reports = {sweep: (stamp, page)}
            return self._reports[sweep][1]

    def _board(self, spec: SweepSpec, stamp: str) -> tuple[Leaderboard | None, str]:
        """Return the leaderboard and its version, recomputed at most as often as its duration allows."""
        began_s = time.monotonic()
        known = self._boards.get(spec.name)
        if known is not None and (known[0] == stamp or began_s < known[2]):
            return known[1], known[0]
        board = output.read_leaderboard(self.store(), spec.name, findings=False)
        ended_s = time.monotonic()
        self._boards[spec.name] = stamp, board, ended_s + (ended_s - began_s) / BOARD_SHARE
        return board, stamp


def make_app(layout: RunsLayout, port: int, known: Secrets, *, sweep: str | None = None) -> App:
    """Return the application.

    Args:
        layout: layout of the runs folder.
        port: port on which it is served.
        known: the secrets that requests must carry.
        sweep: the sweep whose page is the start page; without it, that is the list of all sweeps.
    """
    pages = _Pages(Sweeps(layout, known), known, first=sweep)
    routes = [
        Route("/", pages.index),
        Route("/favicon.ico", pages.icon),
        Route("/live.css", pages.style),
        Route("/live.js", pages.script),
        Route("/sweep/{sweep}/events", pages.events),
        Route("/sweep/{sweep}/report", pages.report),
        Route("/sweep/{sweep}/ask", pages.ask, methods=["POST"]),
        Route("/sweep/{sweep}/", pages.live),
    ]
    return Guard(Starlette(routes=routes, exception_handlers={StnbenchError: _said}), port, known)


class _Pages:
    """Handlers of the pages, one method each."""

    def __init__(self, sweeps: Sweeps, known: Secrets, *, first: str | None) -> None:
        self._sweeps = sweeps
        self._known = known
        self._first = first

    async def index(self, request: Request) -> Response:
        """Answer with the list of sweeps, or redirect to the start page's sweep."""
        del request
        if self._first is not None:
            return RedirectResponse(_address(self._first), status_code=303)
        specs = await run_in_threadpool(self._sweeps.specs)
        items = [
            f'<li><a href="{escape(_address(name))}">{escape(name)}</a>: {escape(spec.question)}</li>'
            for name, spec in specs.items()
        ]
        body = f"<h1>Sweeps</h1><ul>{''.join(items) or '<li>There are none yet.</li>'}</ul>"
        return HTMLResponse(_document("Sweeps", f"<main>{body}</main>"))

    async def icon(self, request: Request) -> Response:
        """Answer that there is no icon, which browsers request by default."""
        del request
        return Response(status_code=204)

    async def style(self, request: Request) -> Response:
        """Answer with the style sheet."""
        del request
        return Response(f"{style_sheet()}\n{_asset('live.css')}", media_type="text/css")

    async def script(self, request: Request) -> Response:
        """Answer with the script."""
        del request
        return Response(_asset("live.js"), media_type="text/javascript")

    async def live(self, request: Request) -> Response:
        """Answer with the page of a sweep in its present state, which is readable without the script."""
        name = request.path_params["sweep"]
        parts = await run_in_threadpool(self._sweeps.parts, name)
        specs = await run_in_threadpool(self._sweeps.specs)
        if parts is None and name != self._first:
            return _plain(f"The store has no sweep '{name}'.", 404)
        question = specs[name].question if name in specs else ""
        return HTMLResponse(_document(f"{name} - live", _live_body(name, question, parts or {}), events=True))

    async def events(self, request: Request) -> Response:
        """Answer with a stream of fragments: all at first, then those that change."""
        name = request.path_params["sweep"]
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._changes(request, name), media_type="text/event-stream", headers=headers)

    async def _changes(self, request: Request, name: str) -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        told_s = time.monotonic()
        while not await request.is_disconnected():
            try:
                parts = await run_in_threadpool(self._sweeps.parts, name) or {}
            except StnbenchError as error:  # the store may be unavailable for a moment
                parts = {"state": f'<p class="status"><span class="mark bad">no data</span> {escape(str(error))}</p>'}
            new = {part: html for part, html in parts.items() if sent.get(part) != html}
            if new:
                sent |= new
                yield f"event: parts\ndata: {json.dumps(new)}\n\n"
                told_s = time.monotonic()
            elif time.monotonic() - told_s > ALIVE_S:
                yield "event: alive\ndata: 1\n\n"
                told_s = time.monotonic()
            await asyncio.sleep(LOOK_S)

    async def report(self, request: Request) -> Response:
        """Answer with the report's page for the present state of the store."""
        page = await run_in_threadpool(self._sweeps.report, request.path_params["sweep"])
        if page is None:
            return _plain("The store has no such sweep.", 404)
        # The page has its own policy: only its script, by its digest, and no external requests.
        return HTMLResponse(page, headers={"Content-Security-Policy": "frame-ancestors 'none'"})

    async def ask(self, request: Request) -> Response:
        """Accept a request for the sweep and answer with its outcome."""
        name = request.path_params["sweep"]
        fields = await _fields(request)
        if fields is None or not hmac.compare_digest(fields.get(_FIELD, "").encode(), self._known.form.encode()):
            return _plain("The form is not of this page; load it again.", 403)
        said, is_refused = await run_in_threadpool(self._ask, name, fields)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"outcome": said, "refused": is_refused}, status_code=400 if is_refused else 200)
        if is_refused:
            return _plain(said, 400)
        return RedirectResponse(_address(name), status_code=303)

    def _ask(self, name: str, fields: dict[str, str]) -> tuple[str, bool]:
        store = self._sweeps.store()
        value = fields.get("value", "")
        try:
            trials = store.sweep_trials(name)
            action = parse_action(fields.get("action", ""), value or None, trials, name)
        except SpecError as error:
            return str(error), True
        layout = self._sweeps.layout
        request = send_request(layout.control, name, action, at=datetime.now(UTC), program="live page")
        if not is_held(layout, name):
            return f"Carried out when {name} is started again.", False
        record = wait_for(store, request, sleep=time.sleep, clock_s=time.monotonic, wait_s=ANSWER_S)
        if record is None:
            return "Asked; the process that runs the sweep has not answered yet.", False
        return record.outcome, record.is_refused


async def _fields(request: Request) -> dict[str, str] | None:
    """Return the fields of a form, or None if the body is invalid or too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_MAX_BYTES:
            return None
    try:
        read = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=10)
    except ValueError:
        return None
    return {name: values[-1] for name, values in read.items()}


async def _said(request: Request, error: Exception) -> Response:
    """Answer with the message of an expected error, as one line."""
    del request
    return _plain(str(error), 503)


def _plain(text: str, status: int) -> Response:
    return Response(f"{text}\n", status_code=status, media_type="text/plain; charset=utf-8")


def _address(sweep: str) -> str:
    return f"/sweep/{quote(sweep, safe='')}/"


def _live_body(name: str, question: str, parts: dict[str, str]) -> str:
    def part(key: str, heading: str = "") -> str:
        inner = parts.get(key, "")
        if not heading:
            return f'<div id="{key}">{inner}</div>'
        title = f'<h2 id="{key}-title">{heading}</h2>'
        return f'<section aria-labelledby="{key}-title">{title}<div id="{key}">{inner}</div></section>'

    waiting = (
        "" if parts else '<p class="note">The sweep is being prepared; it shows here once its trials are planned.</p>'
    )
    return "\n".join(
        [
            '<p id="connection" hidden>No connection to stnbench: what is shown may be old.</p>',
            "<main><header>",
            f'<p class="eyebrow">stnbench, live, sweep <code>{escape(name)}</code> \u00b7 ',
            '<a href="report">full report</a></p>',
            f"<h1>{escape(question) or escape(name)}</h1>{waiting}",
            part("state"),
            part("controls"),
            '<p id="answer" role="status" aria-live="polite"></p>',
            "</header>",
            part("running", "Running now"),
            part("failures", "Failures"),
            part("board", "Leaderboard so far"),
            part("asked", "Requests"),
            "</main>",
        ]
    )


def _document(title: str, body: str, *, events: bool = False) -> str:
    script = '<script src="/live.js" defer></script>' if events else ""
    refresh = '<noscript><meta http-equiv="refresh" content="10"></noscript>' if events else ""
    attribute = ' data-events="events"' if events else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - stnbench</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><link rel="stylesheet" href="/live.css">{refresh}{script}'
        f'</head><body class="live"{attribute}>{body}</body></html>\n'
    )


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
