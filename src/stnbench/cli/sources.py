"""``stnbench sources``: print or write the code that trained a trial."""

import sys
from collections.abc import Sequence
from pathlib import Path

import stnbench
from stnbench.cli.parser import CommandParser, add_json, path, print_result
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import SpecError
from stnbench.core.files import RunsLayout
from stnbench.orchestration.sources import find_source, source_lines, write_sources
from stnbench.report.runs import TRIAL_HELP, find_trial
from stnbench.spec.result import AttemptState
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Print or write the code of a trial and return the exit code: 1 if the written code is not all that ran.

    Raises:
        StnbenchError: if there is no such trial, or its code was not kept.
    """
    options = make_parser().parse_args(arguments)
    layout = RunsLayout.from_environment()
    with Store.open(layout.store, writable=False) as store:
        trial = find_trial(store, options.trial)
        attempts = store.attempts_of_trial(trial.trial_id)
        outcome = store.outcome(trial.trial_id)
    if not attempts:
        raise SpecError(f"trial {trial.trial_id} was never started", remedy="run its sweep first")
    attempt = next((item for item in attempts if item.state is AttemptState.COMPLETE), attempts[-1])
    source = find_source(layout, attempt.token)
    said: list[str] = [f"trial {trial.trial_id} ({trial.label} #{trial.seed})", *source_lines(source)]
    facts: dict[str, object] = {"trial": trial.trial_id, "label": trial.label, "seed": trial.seed, "lines": said[1:]}
    facts |= {"commit": source.record.commit, "dirty": source.record.dirty, "diff": source.diff, "written": None}
    if outcome is not None and (outcome.environment.commit, outcome.environment.dirty) != (
        source.record.commit,
        source.record.dirty,
    ):
        then = f"commit {outcome.environment.commit}{', with changes' if outcome.environment.dirty else ''}"
        print(f"warning: the trial itself says {then}: the code changed while the sweep ran", file=sys.stderr)
    if options.out is None:
        diff = ["", source.diff.removesuffix("\n")] if source.diff else []
        print_result(options, "\n".join([*said, *diff]), facts)
        return DONE
    problems = write_sources(source, options.out, package=Path(stnbench.__file__).parent)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    facts |= {"written": str(options.out), "problems": [*map(str, problems)]}
    print_result(options, "\n".join([*said, f"wrote {options.out}"]), facts)
    return SOME_FAILED if problems else DONE


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench sources",
        description="Prints the commit that trained a trial, and what differed from it, or writes the files out.",
        epilog="Exit codes: 0 done, 1 not all of the code could be written, 2 cannot start.",
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="write the record, the diff and the commit's files with it, into a new folder",
    )
    add_json(parser)
    return parser
