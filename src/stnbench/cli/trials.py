"""``stnbench trials``: every trial of a sweep by name, with its state, accuracy, health, times and id."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from stnbench.cli.parser import CommandParser
from stnbench.core.command import DONE
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.report import render
from stnbench.report.output import print_sections
from stnbench.report.runs import TrialRow, find_trial, read_runs
from stnbench.report.table import Section
from stnbench.report.trials import difference_sections, read_side, trial_table
from stnbench.spec.result import TrialState
from stnbench.store.store import Store

SORTS: Final = ("plan", "accuracy", "started", "duration")


def main(arguments: Sequence[str]) -> int:
    """Print the trials of a sweep and return the exit code.

    Raises:
        UnknownNameError: if the store has no such sweep.
        StoreError: if the store cannot be used.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.diff is not None:
        return _print_difference(options)
    if options.sweep is None:
        parser.error("name a sweep, or two trials with --diff")
    with Store.open(RunsLayout.from_environment().store, writable=False) as store:
        specs = {record.spec.name: record.spec for record in store.sweeps()}
        if options.sweep not in specs:
            raise UnknownNameError("sweep", options.sweep, specs, where="the store")
        rows, run = read_runs(store, specs[options.sweep])
    shown = sorted_rows([row for row in rows if options.state in {None, row.state.value}], options.sort)
    table = trial_table(shown, f"Trials of {options.sweep}")
    if options.format == "json":
        plain = {"sweep": options.sweep, "trials": [*render.records(table)]}
        sys.stdout.write(render.to_json(plain))
    elif options.format == "csv":
        sys.stdout.write(render.to_csv([table], [{"sweep": options.sweep}]))
    else:
        lines = (f"{len(shown)} of {len(rows)} trials. {run.reason}",)
        section = Section(key="answer", heading="Trials", text=lines, tables=(table,) if shown else ())
        print_sections(options.sweep, specs[options.sweep].question, [section], sys.stdout)
    return DONE


def _print_difference(options: argparse.Namespace) -> int:
    if options.sweep is not None or options.state is not None:
        raise SpecError("--diff takes two trials and no sweep", remedy="stnbench trials --diff SWEEP:best SWEEP:best:2")
    with Store.open(RunsLayout.from_environment().store, writable=False) as store:
        sides = [read_side(store, find_trial(store, name)) for name in options.diff]
        sections = difference_sections(sides[0], sides[1])
    named = {"first": sides[0].name, "second": sides[1].name}
    if options.format == "json":
        sys.stdout.write(render.to_json({**named, "sections": [render.section_json(section) for section in sections]}))
    elif options.format == "csv":
        rows = [{**named, "section": section.key} for section in sections if section.tables]
        sys.stdout.write(render.to_csv([section.tables[0] for section in sections if section.tables], rows))
    else:
        titles = [f"{side.name} ({side.record.trial_id}, {side.record.state.value})" for side in sides]
        facts = (("first", titles[0]), ("second", titles[1]))
        head = Section(key="trials", heading="Trials", facts=facts)
        print_sections("The difference of two trials", "", [head, *sections], sys.stdout)
    return DONE


def sorted_rows(rows: Sequence[TrialRow], order: str) -> list[TrialRow]:
    """Sort the rows in one of the orders of ``SORTS``; rows without a value come last."""
    match order:
        case "accuracy":
            return sorted(rows, key=lambda row: (row.accuracy is None, -(row.accuracy or 0.0)))
        case "started":
            known = [row for row in rows if row.started_at is not None]
            dated = sorted(known, key=lambda row: row.started_at.timestamp() if row.started_at else 0.0)
            return [*dated, *(row for row in rows if row.started_at is None)]
        case "duration":
            return sorted(rows, key=lambda row: -row.busy_s)
        case _:
            return list(rows)


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench trials",
        description="Lists the trials of a sweep, or compares two.",
        epilog="Other commands take a trial by its id, its beginning, SWEEP:LABEL#SEED, SWEEP:best or SWEEP:best:2. "
        "Exit codes: 0 done, 2 cannot start.",
    )
    parser.add_argument("sweep", metavar="SWEEP", nargs="?", help="a sweep of the store")
    two = "what two trials differ in: specification, results, curves, environment"
    parser.add_argument("--diff", nargs=2, metavar=("FIRST", "SECOND"), help=two)
    parser.add_argument("--state", choices=[state.value for state in TrialState], help="trials in this state alone")
    parser.add_argument("--sort", choices=SORTS, default="plan", help="by what (default: the order of the plan)")
    parser.add_argument("--format", choices=("csv", "json"), help="print this format instead of a table")
    json_help = "the same as --format json"
    parser.add_argument("--json", dest="format", action="store_const", const="json", help=json_help)
    return parser
