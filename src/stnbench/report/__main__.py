"""``python -m stnbench.report``: leaderboards from the store."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from stnbench.core.command import DONE, run_command
from stnbench.core.paths import RunsLayout
from stnbench.report.output import REPORTS, Format, print_leaderboard, read_leaderboards, render, write_boards
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Print and write leaderboards; the exit code.

    Raises: UnknownNameError, StoreError or FolderError.
    """
    options = _parser().parse_intermixed_args(arguments)
    with Store.open(RunsLayout.from_environment().store, writable=False) as store:
        boards = read_leaderboards(store, dict.fromkeys(options.sweeps) or None, split=options.split)
    kind: Format | None = options.format
    if kind is not None:
        sys.stdout.write(render(boards, kind))
    for board in boards if kind is None else ():
        print_leaderboard(board)
        print()
    if kind is None or options.out is not None:
        written = write_boards(boards, options.out or REPORTS)
        where = sys.stdout if kind is None else sys.stderr
        print("\n".join(f"wrote {path}" for path in written) or "the store has no sweeps yet", file=where)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stnbench.report",
        description="Prints leaderboards and writes them to reports/<sweep>/ (Markdown, CSV and a page).",
        epilog="Reads the store in STNBENCH_RUNS, or runs/; a sweep may run meanwhile. "
        "Exit codes: 0 done, 2 cannot start.",
    )
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="sweeps of the store (default: all)")
    parser.add_argument("--format", choices=get_args(Format), help="print this format alone, and write no file")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where to write (default: {REPORTS}/)")
    parser.add_argument(
        "--split",
        choices=("validation", "test"),
        default="validation",
        help="rank by this split (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
