"""Entry points of commands that read reports from the store and write or print them."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO
from urllib.parse import quote

from typing_extensions import override

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import RunsLayout, data_root, writable_folder, write_atomic
from stnbench.core.identity import Json
from stnbench.core.text import short_name
from stnbench.orchestration.observer import EndedAttempt, Observer, RunningAttempt
from stnbench.report.board import Leaderboard
from stnbench.report.runs import read_runs
from stnbench.report.sections import board_sections
from stnbench.report.table import Section
from stnbench.spec.data import Split
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import sized_label
from stnbench.store.queries import StoreReader
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial

if TYPE_CHECKING:  # imports pandas, which only reports need
    import pandas as pd

    from stnbench.analysis.frames import SweepFrames
    from stnbench.report.html.material import Material

Format = Literal["md", "csv", "json", "html", "latex"]

REPORTS = Path("reports")
"""The default folder of reports, in the working directory, with one folder for each sweep."""

SUMMARY: Final = ("answer", "failures", "leaderboard")
"""The sections printed at the end of a sweep; ``stnbench report`` prints all."""

FILES: dict[str, Format] = {"leaderboard.md": "md", "leaderboard.csv": "csv", "index.html": "html"}
"""The files written for every sweep, with their formats."""


FINDINGS: Final = ("folds", "differences", "gains", "main_effects", "interactions", "importances", "pareto")
"""The tables that JSON also has together under the key ``findings``."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Report:
    """The report of a sweep: its leaderboard, and the frames that this and its page are made of.

    Some of the frames are read on first access: the store must be open until the report is written.
    """

    board: Leaderboard
    frames: "SweepFrames"


def read_report(store: StoreReader, sweep: str, *, split: Split = "validation") -> Report:
    """Read one sweep with its leaderboard and everything that its page shows.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be read.
    """
    return read_reports(store, [sweep], split=split)[0]


def read_reports(
    store: StoreReader, sweeps: Iterable[str] | None = None, *, split: Split = "validation"
) -> list[Report]:
    """Read the reports of sweeps.

    Args:
        store: the open store.
        sweeps: the names, in the order of the result; None for all, sorted.
        split: the split whose accuracies rank the configurations.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be read.
    """
    return [_read_report(store, name, split) for name in _names(store, sweeps)]


def read_leaderboard(
    store: StoreReader, sweep: str, *, split: Split = "validation", findings: bool = True
) -> Leaderboard:
    """Read the leaderboard of one sweep, with its findings, or only the ranking, which is quicker.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be read.
    """
    return read_leaderboards(store, [sweep], split=split, findings=findings)[0]


def read_leaderboards(
    store: StoreReader, sweeps: Iterable[str] | None = None, *, split: Split = "validation", findings: bool = True
) -> list[Leaderboard]:
    """Read the leaderboards of sweeps, by default of all in alphabetical order.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be read.
    """
    if findings:
        return [report.board for report in read_reports(store, sweeps, split=split)]
    from stnbench.analysis.frames import read_specs, read_trials  # imports pandas, which only leaderboards need
    from stnbench.report.leaderboard import build_leaderboard

    names, specs = _names(store, sweeps), read_specs(store)
    return [build_leaderboard(specs[name], read_trials(name, store=store), split=split) for name in names]


def write_reports(store: StoreReader, sweeps: Iterable[str], out: Path = REPORTS) -> list[Path]:
    """Write ``out/<sweep>/`` for each sweep: Markdown, CSV and a page.

    Returns:
        The files written, in order.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be read.
        FolderError: if the folder cannot be written.
        SpecError: if the name of a sweep cannot name a folder.
    """
    return [path for report in read_reports(store, sweeps) for path in write_report(report, out)]


def write_report(report: Report, out: Path = REPORTS) -> list[Path]:
    """Write ``out/<sweep>/`` for a report that has been read, and return the files written, in order.

    Raises:
        FolderError: if the folder cannot be written.
        SpecError: if the name of the sweep cannot name a folder.
    """
    folder = open_folder(out, report.board.sweep)
    material = read_material([report], out)
    for name, kind in FILES.items():
        write_atomic(folder / name, render([report.board], kind, material).encode())
    return [folder / name for name in FILES]


def publish_reports(reports: Sequence[Report], out: Path) -> list[Path]:
    """Write ``out/<sweep>/`` for each report and ``out/index.html``, which lists them.

    The folder can be served as it is, by any web server of files.

    Returns:
        The files written, in order.

    Raises:
        FolderError: if the folder cannot be written.
        SpecError: if the name of a sweep cannot name a folder.
    """
    from stnbench.report.html import page

    written = [path for report in reports for path in write_report(report, out)]
    folders = {report.board.sweep: open_folder(out, report.board.sweep).name for report in reports}
    entries = [(report.board, f"{quote(folders[report.board.sweep])}/index.html") for report in reports]
    write_atomic(out / "index.html", page.to_index(entries).encode())
    return [*written, out / "index.html"]


def read_material(reports: Iterable[Report], out: Path = REPORTS) -> "dict[str, Material]":
    """Read the content that pages show beside the leaderboards, by sweep: curves, pictures, failures.

    Nothing is computed for it. Runs and data are read from the folders in ``STNBENCH_RUNS`` and ``STNBENCH_DATA``,
    pictures from ``out/<sweep>/``.
    """
    from stnbench.report.html import material as reading

    places = reading.Places(layout=RunsLayout.from_environment(), data_root=data_root(), reports=out)
    return {report.board.sweep: reading.read_material(report.board, report.frames, places) for report in reports}


def render(
    boards: Sequence[Leaderboard],
    kind: Format,
    material: "Mapping[str, Material] | None" = None,
    *,
    wanted: Sequence[str] = (),
) -> str:
    """Render leaderboards in one format.

    The same leaderboards, and for a page the same material, give the same bytes.

    Args:
        boards: one for each sweep.
        kind: the format.
        material: the content that pages show beside the leaderboards, by sweep.
        wanted: the keys of the sections to render; all where it is empty. CSV has the tables of one section, the first
            wanted one or ``leaderboard``.

    Raises:
        UnknownNameError: if a board does not have a wanted section.
    """
    from stnbench.report import render
    from stnbench.report.html import page  # a light import, unlike what it imports for its figures

    if kind == "html":
        return page.to_page(boards, material)
    if kind == "json":
        return render.to_json(report_json(boards[0]) if len(boards) == 1 else {"sweeps": [*map(report_json, boards)]})
    chosen = [(board, choose_sections(board_sections(board), wanted)) for board in boards]
    if kind == "csv":
        key = wanted[0] if wanted else "leaderboard"
        tables = [
            (board, table) for board, own in chosen for section in own if section.key == key for table in section.tables
        ]
        return render.to_csv([table for _, table in tables], [{"sweep": board.sweep} for board, _ in tables])
    return "\n".join(render_sections(board.sweep, board.question, own, kind) for board, own in chosen)


def render_sections(title: str, subtitle: str, sections: Sequence[Section], kind: Format) -> str:
    """Render sections in one format; CSV has the tables one after the other."""
    from stnbench.report import render
    from stnbench.report.html import page
    from stnbench.report.render import text

    if kind == "md":
        return text.to_markdown(title, subtitle, sections)
    if kind == "latex":
        return text.to_latex(title, subtitle, sections)
    if kind == "json":
        return render.to_json({"title": title, "sections": [*map(render.section_json, sections)]})
    if kind == "csv":
        return "\n".join(render.to_csv([table], [{}]) for section in sections for table in section.tables)
    return page.to_plain_page(title, subtitle, sections)


def print_sections(title: str, subtitle: str, sections: Sequence[Section], out: TextIO) -> None:
    """Print sections for people, with the width and the colours of the stream."""
    from stnbench.report.render import text

    text.print_sections(title, subtitle, sections, out)


def choose_sections(sections: Sequence[Section], wanted: Sequence[str]) -> Sequence[Section]:
    """Return the wanted sections, in the order of the report; all where none is named.

    Raises:
        UnknownNameError: if the report does not have a wanted section.
    """
    known = [section.key for section in sections]
    for key in wanted:
        if key not in known:
            raise UnknownNameError("section", key, known, where="the report")
    return [section for section in sections if not wanted or section.key in wanted]


def report_json(board: Leaderboard) -> dict[str, Json]:
    """Return a leaderboard as JSON values.

    They are ``{"sweep", "answer", "rows": [{"config", "n", "mean", "low", "high", "split", ...}], ...}``; ``sections``
    holds every section but ``leaderboard`` with its tables.
    """
    from stnbench.report import render

    sections = board_sections(board)
    tables = {table.key: table for section in sections for table in section.tables}
    known = {section.key: section for section in sections}
    return {
        "sweep": board.sweep,
        "question": board.question,
        "answer": list(known["answer"].text),
        "split": board.split,
        "images": board.images,
        "within": board.within or None,
        "trials": board.states.trials,
        "states": asdict(board.states),
        "rows": [*render.records(tables["rows"])] if "rows" in tables else [],
        "failures": [*render.records(tables["failures"])] if "failures" in tables else [],
        "notes": list(board.notes),
        "findings": {
            **{key: [*render.records(tables[key])] if key in tables else [] for key in FINDINGS},
            "notes": list(board.findings.notes),
        }
        if board.findings
        else None,
        "provenance": render.plain(known["provenance"].data),
        "sections": [render.section_json(section) for section in sections if section.key != "leaderboard"],
    }


def print_leaderboard(board: Leaderboard, out: TextIO | None = None, *, wanted: Sequence[str] = ()) -> None:
    """Print a report for people, with the width and the colours of the stream, which is standard output by default.

    Raises:
        UnknownNameError: if the report does not have a wanted section.
    """
    print_sections(board.sweep, board.question, choose_sections(board_sections(board), wanted), out or sys.stdout)


def print_summary(board: Leaderboard, out: TextIO | None = None) -> None:
    """Print the summary at the end of a sweep: the answer, the failures and the leaderboard, to fit on a screen."""
    stream = out or sys.stdout
    sections = board_sections(board)
    print_sections(board.sweep, board.question, [item for item in sections if item.key in SUMMARY], stream)
    print(f"All sections: stnbench report {board.sweep}", file=stream)


def open_folder(out: Path, sweep: str) -> Path:
    """Return the folder of a sweep's reports, after creating it where it is missing.

    Raises:
        FolderError: if the folder cannot be written.
        SpecError: if the name of the sweep cannot name a folder.
    """
    if Path(sweep).name != sweep or sweep in {"", ".."}:  # a name from the store must not lead out of the folder
        raise SpecError(f"the sweep '{sweep}' cannot name a folder", remedy="rename its file and run it again")
    return writable_folder(out / short_name(sweep), "reports", remedy="give another one with --out")


def _read_report(store: StoreReader, sweep: str, split: Split) -> Report:
    from stnbench.analysis.frames import read_sweep
    from stnbench.report.finding import find  # imports pandas, as above
    from stnbench.report.leaderboard import build_leaderboard

    frames = _with_sizes(read_sweep(sweep, store=store))
    board = build_leaderboard(frames.spec, frames.trials, split=split)

    def predictions(trial_ids: Sequence[str]) -> "pd.DataFrame":
        return frames.predictions(split, trial_ids)

    trials, run = read_runs(store, frames.spec)
    findings = find(frames.spec, frames.trials, frames.images, predictions, split=split)
    return Report(board=replace(board, findings=findings, trials=trials, run=run), frames=frames)


def _with_sizes(frames: "SweepFrames") -> "SweepFrames":
    """Return the same frames, with labels that name the sizes that ran."""
    from stnbench.analysis.frames import AXIS_PREFIX

    trials = frames.trials
    names = [name for name in trials.columns if name.startswith(AXIS_PREFIX)]
    labels = [
        sized_label(
            str(label),
            tuple((name.removeprefix(AXIS_PREFIX), str(own)) for name, own in zip(names, values, strict=True)),
            frames.specs[trial_id],
        )
        for label, trial_id, *values in zip(
            trials["label"], trials["trial_id"], *(trials[name] for name in names), strict=True
        )
    ]
    return replace(frames, trials=trials.assign(label=labels)) if labels else frames


def _names(store: StoreReader, sweeps: Iterable[str] | None) -> list[str]:
    """Return the names of these sweeps; by default of all, sorted.

    Raises:
        UnknownNameError: if the store does not have one of them.
    """
    from stnbench.analysis.frames import read_specs  # imports pandas, as above

    known = list(read_specs(store))
    names = sorted(known) if sweeps is None else list(sweeps)
    for name in names:
        if name not in known:
            raise UnknownNameError("sweep", name, known, where="the store")
    return names


# Periodic updates of the report of a sweep while it runs, in a thread that does not delay the sweep.


EVERY_S: Final = 60.0
SHARE: Final = 0.05
"""The largest share of the time that writing may take, in [0, 1]."""

CLOSE_S: Final = 30.0
"""The longest time, in seconds, that the end of a sweep waits for a page that is being written."""


class ReportRefresher(Observer):
    """An observer that writes the report of a sweep in a thread when something has changed since the last time.

    Args:
        layout: of the runs folder, whose store is read.
        sweep: the name of the sweep.
        warn: called once, with a message, if a report cannot be written; the sweep continues, and its end writes the
            report again.
        out: the folder of reports.
        every_s: the least time between two reports, in seconds.
        clock_s: returns the time in seconds, from any origin.
        write: writes the report; replaced in tests.
    """

    def __init__(
        self,
        layout: RunsLayout,
        sweep: str,
        warn: Callable[[str], None],
        *,
        out: Path = REPORTS,
        every_s: float = EVERY_S,
        clock_s: Callable[[], float] = time.monotonic,
        write: Callable[[RunsLayout, str, Path], None] | None = None,
    ) -> None:
        self._layout = layout
        self._sweep = sweep
        self._warn = warn
        self._out = out
        self._every_s = every_s
        self._clock_s = clock_s
        self._write = write or write_now
        self._next_s = clock_s() + every_s
        self._is_stale = self._has_failed = False
        self._thread: threading.Thread | None = None

    @override
    def planned(self, trials: Sequence[PlannedTrial], states: Sequence[TrialState]) -> None:
        self._is_stale = True

    @override
    def epoch_ended(self, attempt: RunningAttempt) -> None:
        self._is_stale = True

    @override
    def ended(self, end: EndedAttempt) -> None:
        self._is_stale = True

    @override
    def changed(self, trial_ids: Sequence[str], state: TrialState) -> None:
        self._is_stale = True

    @override
    def ticked(self) -> None:
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or self._has_failed or not self._is_stale or self._clock_s() < self._next_s:
            return
        self._is_stale = False
        self._thread = threading.Thread(target=self._refresh, name="report", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the page that is being written, for ``CLOSE_S`` seconds at most."""
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _refresh(self) -> None:
        began_s = self._clock_s()
        try:
            self._write(self._layout, self._sweep, self._out)
        except Exception as error:  # noqa: BLE001 - a report may fail in any way, and the sweep goes on without it
            self._has_failed = True
            said = (str(error).splitlines() or [""])[0][:300]
            self._warn(f"the report is not written while the sweep runs ({type(error).__name__}: {said})")
        ended_s = self._clock_s()
        self._next_s = ended_s + max(self._every_s, (ended_s - began_s) / SHARE)


def write_now(layout: RunsLayout, sweep: str, out: Path) -> None:
    """Write the report of a sweep from the present content of the store.

    Raises:
        StnbenchError: as ``write_reports``, if there is no such sweep or a file cannot be read or written.
    """
    with Store.open(layout.store, writable=False) as store:
        write_report(read_report(store, sweep), out)
