"""From the store to files and to the terminal: what commands call."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TextIO

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import writable_folder, write_atomic
from stnbench.core.identity import Json
from stnbench.report import tabular
from stnbench.report.board import Leaderboard
from stnbench.spec.data import Split
from stnbench.spec.sweep import SweepSpec
from stnbench.store.queries import StoreReader

Format = Literal["md", "csv", "json", "html", "latex"]

REPORTS = Path("reports")
"""One folder a sweep, in the working directory."""

FILES: dict[str, Format] = {"leaderboard.md": "md", "leaderboard.csv": "csv", "index.html": "html"}
"""What is written for every sweep."""


def read_leaderboard(store: StoreReader, sweep: str, *, split: Split = "validation") -> Leaderboard:
    """The leaderboard of one sweep.

    Raises: UnknownNameError when the store has no such sweep; StoreError.
    """
    return read_leaderboards(store, [sweep], split=split)[0]


def read_leaderboards(
    store: StoreReader, sweeps: Iterable[str] | None = None, *, split: Split = "validation"
) -> list[Leaderboard]:
    """The leaderboards of these sweeps, of all of them by name where none are given.

    Raises: as ``read_leaderboard``.
    """
    from stnbench.report.frames import read_trials  # pandas, which only who asks for a leaderboard pays
    from stnbench.report.leaderboard import build_leaderboard

    known = {record.spec.name: record.spec for record in store.sweeps()}
    names = sorted(known) if sweeps is None else list(sweeps)
    specs = [_spec(name, known) for name in names]
    return [build_leaderboard(spec, read_trials(store, spec.name), split=split) for spec in specs]


def write_reports(store: StoreReader, sweeps: Iterable[str], out: Path = REPORTS) -> list[Path]:
    """Write ``out/<sweep>/`` for each sweep: Markdown, CSV and a page; the files written, in order.

    Raises: as ``read_leaderboard``; FolderError where the folder cannot be written; SpecError for a sweep whose name is
        no folder's name.
    """
    return write_boards(read_leaderboards(store, sweeps), out)


def write_boards(boards: Iterable[Leaderboard], out: Path = REPORTS) -> list[Path]:
    """As ``write_reports``, for leaderboards that have been read."""
    written = []
    for board in boards:
        folder = writable_folder(_folder(out, board.sweep), "reports", remedy="give another one with --out")
        for name, kind in FILES.items():
            write_atomic(folder / name, render([board], kind).encode())
            written.append(folder / name)
    return written


def render(boards: Sequence[Leaderboard], kind: Format) -> str:
    """Leaderboards in one format. The same leaderboards give the same bytes."""
    from stnbench.report import latex, markdown, page

    writers = {
        "md": markdown.to_markdown,
        "csv": tabular.to_csv,
        "json": tabular.to_json,
        "html": page.to_page,
        "latex": latex.to_latex,
    }
    return writers[kind](boards)


def leaderboard_json(board: Leaderboard) -> dict[str, Json]:
    """As JSON values: ``{"sweep", "rows": [{"cell", "n", "mean", "low", "high", "split", ...}], ...}``."""
    return tabular.leaderboard_json(board)


def print_leaderboard(board: Leaderboard, out: TextIO | None = None) -> None:
    """Print a leaderboard for people, as wide and as coloured as the stream is; standard output by default."""
    from stnbench.report.terminal import print_terminal

    print_terminal([board], out or sys.stdout)


def _folder(out: Path, sweep: str) -> Path:
    if Path(sweep).name != sweep or sweep in {"", ".."}:  # a name from the store must not lead out of the folder
        raise SpecError(f"the sweep '{sweep}' cannot name a folder", remedy="rename its file and run it again")
    return out / sweep


def _spec(name: str, known: dict[str, SweepSpec]) -> SweepSpec:
    if name not in known:
        raise UnknownNameError("sweep", name, known, where="the store")
    return known[name]
