"""What MLflow's pages say in words of a sweep, an attempt or a cell: Markdown, and ways to what is not in MLflow."""

import re

from stnbench.core.text import plain_markdown, printable
from stnbench.spec.result import Failure
from stnbench.spec.sweep import SweepSpec
from stnbench.tracking.base import AttemptView, CellView

NOTE_LIMIT = 6000
QUESTION_LIMIT = 1000


def sweep_note(sweep: SweepSpec, views: dict[str, str]) -> str:
    """A sweep's question, and where to look: links by name to views of MLflow's own, and the report."""
    links = " · ".join(f"[{name}]({address})" for name, address in views.items())
    report = f"Report: `reports/{sweep.name}/index.html` where the sweep was run, written by `make report`."
    base = ", ".join(_code(str(override)) for override in (*sweep.base, *sweep.overrides))
    same = f"The same in all runs: {base}." if base else ""
    question = plain_markdown(sweep.question[:QUESTION_LIMIT])
    return "\n\n".join(filter(None, (question, links, report, same)))[:NOTE_LIMIT]


def attempt_note(view: AttemptView) -> str:
    """Why an attempt failed, where it did; which trial it is, and what can be asked of it on the command line."""
    failure = "" if view.failure is None else _failure(view.failure) + "\n\n"
    commands = [f"python -m stnbench.status {view.sweep}"]
    if view.spec.transformers:
        commands.append(f"python -m stnbench.show transform {view.trial_id}")
    lines = [
        f"Trial `{view.trial_id}` of the sweep `{view.sweep}`, attempt {view.number}.",
        f"- report: `reports/{view.sweep}/index.html`, cell {_code(view.label[:300])}",
        f"- files: `runs/trials/{view.trial_id}/{view.number:03d}`, whole specification: artifact `specification.json`",
        *(f"- `{command}`" for command in commands),
    ]
    return failure + "\n".join(lines)


def cell_note(view: CellView) -> str:
    """The number of a cell with everything that makes it one: n, interval, method, split, rank."""
    seeds = f"{view.seeds} seed{'' if view.seeds == 1 else 's'}"
    interval = "no interval"
    if view.low is not None and view.high is not None:
        interval = f"95 % interval {_percent(view.low)} to {_percent(view.high)} ({view.method})"
    rank = f", rank {view.rank_text}" if view.rank_text else ""
    standing = f", {view.standing}" if view.standing else ""
    number = f"**{_percent(view.mean)} %** on validation, mean of {seeds}; {interval}{rank}{standing}.{_gain(view)}"
    runs = f"Its runs: search for `tags.cell = '{view.cell_id}'`; report: `reports/{view.sweep}/index.html`."
    return f"{number}\n\n{runs}"


def _gain(view: CellView) -> str:
    gain = view.st_gain
    if gain is None:
        return ""
    ends = (
        "no interval" if gain.low is None or gain.high is None else f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
    )
    return f" ST gain {100 * gain.mean:+.2f} points ({ends}, n = {gain.n}, {gain.method})."


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _failure(failure: Failure) -> str:
    """The failure as a person reads it; the end of the traceback is what tells."""
    details = (failure.traceback or failure.last_output)[-NOTE_LIMIT:].strip()
    ticks = max((len(found) for found in re.findall(r"`{3,}", details)), default=2) + 1
    fence = "`" * min(ticks, 100)
    fenced = f"\n\n{fence}\n{details}\n{fence}" if details else ""
    return f"**{failure.kind.value}**: {plain_markdown(failure.message[:1000])}{fenced}"


def _code(text: str) -> str:
    """Text from outside as code on one line, whatever ticks are in it."""
    shown = printable(text)
    ticks = "`" * (max((len(found) for found in re.findall(r"`+", shown)), default=0) + 1)
    space = " " if ticks != "`" else ""
    return f"{ticks}{space}{shown}{space}{ticks}"
