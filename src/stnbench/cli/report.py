"""``python -m stnbench.report``: leaderboards from the store."""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from stnbench.cli.parser import CommandParser, FormerOption, path
from stnbench.core.command import DONE
from stnbench.core.errors import SpecError
from stnbench.core.files import RunsLayout, write_atomic
from stnbench.report.output import (
    REPORTS,
    Format,
    choose_sections,
    open_folder,
    print_leaderboard,
    print_sections,
    publish_reports,
    read_material,
    read_reports,
    render,
    render_sections,
    write_report,
)
from stnbench.report.render import to_json
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Print and write reports or an ensemble, and return the exit code.

    The errors for an ensemble are those of ``ensemble.read_ensemble``.

    Raises:
        UnknownNameError: for a sweep or another name that does not exist.
        StoreError: if the store cannot be used.
        FolderError: if there is no store or a folder cannot be used.
    """
    options = make_parser().parse_intermixed_args(arguments)
    if options.ensemble is not None:
        return _ensemble(options)
    if options.against is not None:
        return _against(options)
    if options.recompute:
        raise SpecError("--recompute is for an ensemble", remedy="add --ensemble, for example top:5")
    with Store.open(RunsLayout.from_environment().store, writable=False) as store:
        if options.publish is not None:
            found = read_reports(store, dict.fromkeys(options.sweeps) or None, split=options.split)
            print("\n".join(f"wrote {path}" for path in publish_reports(found, options.publish)))
            return DONE
        reports = read_reports(store, dict.fromkeys(options.sweeps) or None, split=options.split)
        kind: Format | None = options.format
        if kind is not None:
            material = read_material(reports, options.out or REPORTS) if kind == "html" else None
            boards = [report.board for report in reports]
            sys.stdout.write(render(boards, kind, material, wanted=options.section))
        for report in reports if kind is None else ():
            print_leaderboard(report.board, wanted=options.section)
            print()
        if (kind is None and not options.section) or options.out is not None:
            written = [path for report in reports for path in write_report(report, options.out or REPORTS)]
            where = sys.stdout if kind is None else sys.stderr
            print("\n".join(f"wrote {path}" for path in written) or "the store has no sweeps yet", file=where)
    return DONE


def _against(options: argparse.Namespace) -> int:
    """Print how the results of one sweep compare with others', and write against.md where a folder is given."""
    from stnbench.report import against

    if len(options.sweeps) != 1:
        problem = f"--against with {len(options.sweeps)} sweeps"
        raise SpecError(problem, remedy="name one sweep: stnbench report locnet_sizes --against /mnt/other/runs")
    (sweep,), layout = options.sweeps, RunsLayout.from_environment()
    rows, there = against.read_against(layout, sweep, options.against, split=options.split)
    sections = against.against_sections(rows, here=sweep, there=there, split=options.split)
    title = f"{sweep} against {there}"
    sections = list(choose_sections(sections, options.section))
    if options.format is None:
        print_sections(title, "", sections, sys.stdout)
    else:
        sys.stdout.write(render_sections(title, "", sections, options.format))
    if options.out is not None:
        path = open_folder(options.out, sweep) / "against.md"
        write_atomic(path, render_sections(title, "", sections, "md").encode())
        print(f"wrote {path}", file=sys.stdout if options.format is None else sys.stderr)
    return DONE


def _ensemble(options: argparse.Namespace) -> int:
    from stnbench.report import ensemble, ensemble_sections  # imports numpy and pandas, which only this option needs

    if len(options.sweeps) != 1:
        problem = f"an ensemble of {len(options.sweeps)} sweeps was requested"
        raise SpecError(problem, remedy="name one sweep, for example: locnet_sizes --ensemble top:5")
    layout, (sweep,) = RunsLayout.from_environment(), options.sweeps
    with Store.open(layout.store, writable=False) as store:
        found = ensemble.read_ensemble(
            store, layout, sweep, options.ensemble, split=options.split, recompute=options.recompute
        )
    title, sections = ensemble_sections.title(found), ensemble_sections.ensemble_sections(found)
    if options.format == "json":
        sys.stdout.write(to_json(ensemble_sections.ensemble_json(found)))
    elif options.format is None:
        print_sections(title, "", sections, sys.stdout)
    else:
        sys.stdout.write(render_sections(title, "", sections, options.format))
    if options.format is None or options.out is not None:
        path = open_folder(options.out or REPORTS, sweep) / "ensemble.md"
        write_atomic(path, render_sections(title, "", sections, "md").encode())
        print(f"wrote {path}", file=sys.stdout if options.format is None else sys.stderr)
    return DONE


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench report",
        description="Prints leaderboards and writes them to reports/<sweep>/ (Markdown, CSV and a page).",
        epilog="Reads the store in STNBENCH_RUNS, or runs/; a sweep may run meanwhile. "
        "Exit codes: 0 done, 2 cannot start.",
    )
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="sweeps of the store (default: all)")
    parser.add_argument("--format", choices=get_args(Format), help="print this format alone, and write no file")
    json_help = "the same as --format json"
    parser.add_argument("--json", dest="format", action="store_const", const="json", help=json_help)
    parser.add_argument("--out", type=path, metavar="DIR", help=f"where to write (default: {REPORTS}/)")
    parser.add_argument(
        "--split",
        choices=("validation", "test"),
        default="validation",
        help="rank by this split (default: %(default)s)",
    )
    parser.add_argument(
        "--publish", type=path, metavar="DIR", help="write the pages of all these sweeps and an index of them"
    )
    parser.add_argument(
        "--section",
        action="append",
        default=[],
        metavar="KEY",
        help="print this section alone (answer, leaderboard, failures, differences, ...); may be repeated; "
        "for csv it chooses the table",
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="compare one sweep's trials with those of another sweep, runs folder, archive (.stnb), store's URL or "
        "commit: equal, changed, new or gone",
    )
    _add_ensemble(parser)
    return parser


def _add_ensemble(parser: CommandParser) -> None:
    """Add the options of ensembles."""
    parser.add_argument(
        "--ensemble",
        metavar="WHICH",
        help="average the probabilities of trials of one sweep, and write ensemble.md: "
        "top:K of the validation split, all, configuration:LABEL, or TRIAL,TRIAL,...",
    )
    parser.add_argument(
        "--committee", dest="ensemble", action=FormerOption, metavar="WHICH", help="the former name of --ensemble"
    )
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="of an ensemble: compute from checkpoints what members did not keep",
    )
