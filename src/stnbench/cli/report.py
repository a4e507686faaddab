"""``python -m stnbench.report``: leaderboards from the store."""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from stnbench.cli.parser import CommandParser, path
from stnbench.core.command import DONE
from stnbench.core.errors import SpecError
from stnbench.core.files import write_atomic
from stnbench.core.paths import RunsLayout
from stnbench.report.output import (
    REPORTS,
    Format,
    open_folder,
    print_leaderboard,
    read_material,
    read_reports,
    render,
    write_report,
)
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Print and write leaderboards, or a committee; the exit code.

    Raises: UnknownNameError, StoreError or FolderError; for a committee, as ``committee.read_committee``.
    """
    options = _parser().parse_intermixed_args(arguments)
    if options.committee is not None:
        return _committee(options)
    if options.recompute:
        raise SpecError("--recompute is for a committee", remedy="add --committee, for example top:5")
    with Store.open(RunsLayout.from_environment().store, writable=False) as store:
        reports = read_reports(store, dict.fromkeys(options.sweeps) or None, split=options.split)
        kind: Format | None = options.format
        if kind is not None:
            material = read_material(reports, options.out or REPORTS) if kind == "html" else None
            sys.stdout.write(render([report.board for report in reports], kind, material))
        for report in reports if kind is None else ():
            print_leaderboard(report.board)
            print()
        if kind is None or options.out is not None:
            written = [path for report in reports for path in write_report(report, options.out or REPORTS)]
            where = sys.stdout if kind is None else sys.stderr
            print("\n".join(f"wrote {path}" for path in written) or "the store has no sweeps yet", file=where)
    return DONE


def _committee(options: argparse.Namespace) -> int:
    from stnbench.report import committee, committee_text  # numpy and pandas, which only who asks for one pays

    if len(options.sweeps) != 1:
        problem = f"a committee was asked for of {len(options.sweeps)} sweeps"
        raise SpecError(problem, remedy="name one sweep, for example: locnet_sizes --committee top:5")
    layout, (sweep,) = RunsLayout.from_environment(), options.sweeps
    with Store.open(layout.store, writable=False) as store:
        found = committee.read_committee(
            store, layout, sweep, options.committee, split=options.split, recompute=options.recompute
        )
    if options.format is None:
        print(committee_text.to_terminal(found))
    else:
        sys.stdout.write(committee_text.render_committee(found, options.format))
    if options.format is None or options.out is not None:
        path = open_folder(options.out or REPORTS, sweep) / "committee.md"
        write_atomic(path, committee_text.to_markdown(found).encode())
        print(f"wrote {path}", file=sys.stdout if options.format is None else sys.stderr)
    return DONE


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="stnbench report",
        description="Prints leaderboards and writes them to reports/<sweep>/ (Markdown, CSV and a page).",
        epilog="Reads the store in STNBENCH_RUNS, or runs/; a sweep may run meanwhile. "
        "Exit codes: 0 done, 2 cannot start.",
    )
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="sweeps of the store (default: all)")
    parser.add_argument("--format", choices=get_args(Format), help="print this format alone, and write no file")
    parser.add_argument("--out", type=path, metavar="DIR", help=f"where to write (default: {REPORTS}/)")
    parser.add_argument(
        "--split",
        choices=("validation", "test"),
        default="validation",
        help="rank by this split (default: %(default)s)",
    )
    parser.add_argument(
        "--committee",
        metavar="WHICH",
        help="average the probabilities of trials of one sweep, and write committee.md: "
        "top:K of the validation split, all, cell:CELL, or TRIAL,TRIAL,...",
    )
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="of a committee: compute from checkpoints what members did not keep",
    )
    return parser
