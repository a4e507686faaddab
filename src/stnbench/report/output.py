"""From the store to files and to the terminal: what commands call."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO
from urllib.parse import quote

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import writable_folder, write_atomic
from stnbench.core.identity import Json
from stnbench.core.paths import RunsLayout, data_root
from stnbench.core.text import short_name
from stnbench.report.board import Leaderboard
from stnbench.report.runs import read_runs, sized_label
from stnbench.report.sections import board_sections
from stnbench.report.table import Section
from stnbench.spec.data import Split
from stnbench.store.queries import StoreReader

if TYPE_CHECKING:  # pandas, which only who writes a page pays
    import pandas as pd

    from stnbench.analysis.frames import SweepFrames
    from stnbench.report.html.material import Material

Format = Literal["md", "csv", "json", "html", "latex"]

REPORTS = Path("reports")
"""One folder a sweep, in the working directory."""

SUMMARY: Final = ("answer", "failures", "leaderboard")
"""Sections that the end of a sweep prints; ``stnbench report`` prints all."""

FILES: dict[str, Format] = {"leaderboard.md": "md", "leaderboard.csv": "csv", "index.html": "html"}
"""What is written for every sweep."""


FINDINGS: Final = ("folds", "differences", "gains", "main_effects", "interactions", "importances", "pareto")
"""Tables that JSON also has under one key."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Report:
    """A sweep that was read once: its leaderboard, and the frames that this and its page are made of.

    Some of the frames are read when they are asked for: the store must be open until the report is written.
    """

    board: Leaderboard
    frames: "SweepFrames"


def read_report(store: StoreReader, sweep: str, *, split: Split = "validation") -> Report:
    """One sweep with its leaderboard and all that its page shows.

    Raises: UnknownNameError when the store has no such sweep; StoreError.
    """
    return read_reports(store, [sweep], split=split)[0]


def read_reports(
    store: StoreReader, sweeps: Iterable[str] | None = None, *, split: Split = "validation"
) -> list[Report]:
    """These sweeps, all of them by name where none are given. Raises: as ``read_report``."""
    return [_read_report(store, name, split) for name in _names(store, sweeps)]


def read_leaderboard(
    store: StoreReader, sweep: str, *, split: Split = "validation", findings: bool = True
) -> Leaderboard:
    """The leaderboard of one sweep, with its findings unless only the ranking is wanted, which is quicker.

    Raises: as ``read_report``.
    """
    return read_leaderboards(store, [sweep], split=split, findings=findings)[0]


def read_leaderboards(
    store: StoreReader, sweeps: Iterable[str] | None = None, *, split: Split = "validation", findings: bool = True
) -> list[Leaderboard]:
    """The leaderboards of these sweeps, of all of them by name where none are given.

    Raises: as ``read_report``.
    """
    if findings:
        return [report.board for report in read_reports(store, sweeps, split=split)]
    from stnbench.analysis.frames import read_specs, read_trials  # pandas, which only who asks for a leaderboard pays
    from stnbench.report.leaderboard import build_leaderboard

    names, specs = _names(store, sweeps), read_specs(store)
    return [build_leaderboard(specs[name], read_trials(name, store=store), split=split) for name in names]


def write_reports(store: StoreReader, sweeps: Iterable[str], out: Path = REPORTS) -> list[Path]:
    """Write ``out/<sweep>/`` for each sweep: Markdown, CSV and a page; the files written, in order.

    Raises: as ``read_report``; FolderError where the folder cannot be written; SpecError for a sweep whose name is no
        folder's name.
    """
    return [path for report in read_reports(store, sweeps) for path in write_report(report, out)]


def write_report(report: Report, out: Path = REPORTS) -> list[Path]:
    """As ``write_reports``, for one that has been read."""
    folder = open_folder(out, report.board.sweep)
    material = read_material([report], out)
    for name, kind in FILES.items():
        write_atomic(folder / name, render([report.board], kind, material).encode())
    return [folder / name for name in FILES]


def publish_reports(reports: Sequence[Report], out: Path) -> list[Path]:
    """Write ``out/<sweep>/`` for each report and ``out/index.html``, which lists them; the files written, in order.

    The folder can be served as it is, by any web server of files.
    Raises: as ``write_report``.
    """
    from stnbench.report.html import page

    written = [path for report in reports for path in write_report(report, out)]
    folders = {report.board.sweep: open_folder(out, report.board.sweep).name for report in reports}
    entries = [(report.board, f"{quote(folders[report.board.sweep])}/index.html") for report in reports]
    write_atomic(out / "index.html", page.to_index(entries).encode())
    return [*written, out / "index.html"]


def read_material(reports: Iterable[Report], out: Path = REPORTS) -> "dict[str, Material]":
    """What pages show beside the leaderboards, by sweep: curves, pictures, failures. Nothing is made for it.

    Runs and data are looked for where ``STNBENCH_RUNS`` and ``STNBENCH_DATA`` say, pictures in ``out/<sweep>/``.
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
    """Leaderboards in one format. The same leaderboards, and for a page the same material, give the same bytes.

    Args:
        boards: one a sweep.
        kind: the format.
        material: what pages show beside them.
        wanted: the keys of the sections to render; all where there are none. CSV is one table: that of the section
            ``leaderboard`` unless another is wanted.
    Raises: UnknownNameError for a section that no board has.
    """
    from stnbench.report.html import page  # a light import, unlike what it imports for its figures
    from stnbench.report.render import data

    if kind == "html":
        return page.to_page(boards, material)
    if kind == "json":
        return data.to_json(report_json(boards[0]) if len(boards) == 1 else {"sweeps": [*map(report_json, boards)]})
    chosen = [(board, choose_sections(board_sections(board), wanted)) for board in boards]
    if kind == "csv":
        key = wanted[0] if wanted else "leaderboard"
        tables = [
            (board, table) for board, own in chosen for section in own if section.key == key for table in section.tables
        ]
        return data.to_csv([table for _, table in tables], [{"sweep": board.sweep} for board, _ in tables])
    return "\n".join(render_sections(board.sweep, board.question, own, kind) for board, own in chosen)


def render_sections(title: str, subtitle: str, sections: Sequence[Section], kind: Format) -> str:
    """Sections in one format; CSV has the tables one after the other. Raises: SpecError for a page."""
    from stnbench.report.render import data, latex, markdown

    if kind == "md":
        return markdown.to_markdown(title, subtitle, sections)
    if kind == "latex":
        return latex.to_latex(title, subtitle, sections)
    if kind == "json":
        return data.to_json({"title": title, "sections": [*map(data.section_json, sections)]})
    if kind == "csv":
        return "\n".join(data.to_csv([table], [{}]) for section in sections for table in section.tables)
    raise SpecError(f"{title} cannot be printed as {kind}", remedy="give --format md, csv, json or latex")


def print_sections(title: str, subtitle: str, sections: Sequence[Section], out: TextIO) -> None:
    """Print sections for people, as wide and as coloured as the stream is."""
    from stnbench.report.render import terminal

    terminal.print_sections(title, subtitle, sections, out)


def choose_sections(sections: Sequence[Section], wanted: Sequence[str]) -> Sequence[Section]:
    """The wanted sections, in their order; all where none is named. Raises: UnknownNameError."""
    known = [section.key for section in sections]
    for key in wanted:
        if key not in known:
            raise UnknownNameError("section", key, known, where="the report")
    return [section for section in sections if not wanted or section.key in wanted]


def report_json(board: Leaderboard) -> dict[str, Json]:
    """As JSON values: ``{"sweep", "answer", "rows": [{"cell", "n", "mean", "low", "high", "split", ...}], ...}``.

    ``sections`` holds every section with its tables.
    """
    from stnbench.report.render import data

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
        "rows": [*data.records(tables["rows"])] if "rows" in tables else [],
        "failures": [*data.records(tables["failures"])] if "failures" in tables else [],
        "notes": list(board.notes),
        "findings": {
            **{key: [*data.records(tables[key])] if key in tables else [] for key in FINDINGS},
            "notes": list(board.findings.notes),
        }
        if board.findings
        else None,
        "provenance": data.plain(known["provenance"].data),
        "sections": [data.section_json(section) for section in sections if section.key != "leaderboard"],
    }


def print_leaderboard(board: Leaderboard, out: TextIO | None = None, *, wanted: Sequence[str] = ()) -> None:
    """Print a report for people, as wide and as coloured as the stream is; standard output by default.

    Raises: UnknownNameError for a wanted section that the report does not have.
    """
    print_sections(board.sweep, board.question, choose_sections(board_sections(board), wanted), out or sys.stdout)


def print_summary(board: Leaderboard, out: TextIO | None = None) -> None:
    """Print what a sweep's end shows: the answer, the failures and the leaderboard, so that they fit on a screen."""
    stream = out or sys.stdout
    sections = board_sections(board)
    print_sections(board.sweep, board.question, [item for item in sections if item.key in SUMMARY], stream)
    print(f"All sections: stnbench report {board.sweep}", file=stream)


def open_folder(out: Path, sweep: str) -> Path:
    """The folder of a sweep's reports, made where it is missing.

    Raises: FolderError where it cannot be written; SpecError for a sweep whose name is no folder's name.
    """
    if Path(sweep).name != sweep or sweep in {"", ".."}:  # a name from the store must not lead out of the folder
        raise SpecError(f"the sweep '{sweep}' cannot name a folder", remedy="rename its file and run it again")
    return writable_folder(out / short_name(sweep), "reports", remedy="give another one with --out")


def _read_report(store: StoreReader, sweep: str, split: Split) -> Report:
    from stnbench.analysis.frames import read_sweep
    from stnbench.report.finding import find  # pandas, as above
    from stnbench.report.leaderboard import build_leaderboard

    frames = _with_sizes(read_sweep(sweep, store=store))
    board = build_leaderboard(frames.spec, frames.trials, split=split)

    def predictions(trial_ids: Sequence[str]) -> "pd.DataFrame":
        return frames.predictions(split, trial_ids)

    trials, run = read_runs(store, frames.spec)
    findings = find(frames.spec, frames.trials, frames.images, predictions, split=split)
    return Report(board=replace(board, findings=findings, trials=trials, run=run), frames=frames)


def _with_sizes(frames: "SweepFrames") -> "SweepFrames":
    """The same frames, with labels that name the sizes that ran."""
    from stnbench.analysis.frames_rows import AXIS_PREFIX

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
    """These sweeps, or all of them by name. Raises: UnknownNameError for one that is not there."""
    from stnbench.analysis.frames import read_specs  # pandas, as above

    known = list(read_specs(store))
    names = sorted(known) if sweeps is None else list(sweeps)
    for name in names:
        if name not in known:
            raise UnknownNameError("sweep", name, known, where="the store")
    return names
