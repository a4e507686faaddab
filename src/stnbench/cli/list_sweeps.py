"""``stnbench list``: all sweeps, with their questions, states and costs."""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stnbench.cli.parser import CommandParser, add_json, print_result
from stnbench.config.axes import PointComposer
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder, shown, sweep_files
from stnbench.config.sweeps import read_sweep
from stnbench.core.command import DONE
from stnbench.core.errors import InfeasibleError, SpecError, UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.core.text import counted, printable
from stnbench.orchestration.plan import Experience, read_experience, training_flops
from stnbench.orchestration.progress import duration
from stnbench.planning.build import build_planner
from stnbench.spec.result import TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSweep:
    """A sweep in the output of ``list``.

    Attributes:
        sweep: its name; a variant of a file (``locnet_sizes-gtsrb``) has a separate name.
        file: the file that describes it; empty for one that only the store has.
        question: its question.
        configurations: the number that a planner proposes at first, baselines included; None if it was not planned.
        trials: the number of those with their seeds; for a sweep that only the store has, its trials there.
        is_open: whether its planner proposes further trials by the results of these.
        trials_max: the number of trials after which it ends; None for a grid or race, which has no such number.
        states: the number of its trials in the store, by state.
        device_s: the device time in seconds of all its trials at the pace of this store, with ``--cost``; None if
            unknown.
        error: why it cannot be planned; empty if it can.
    """

    sweep: str
    file: str = ""
    question: str = ""
    configurations: int | None = None
    trials: int | None = None
    is_open: bool = False
    trials_max: int | None = None
    states: dict[str, int]
    device_s: float | None = None
    error: str = ""


def main(arguments: Sequence[str]) -> int:
    """List sweeps and return the exit code; the store is only read, and a missing store counts as empty.

    Raises:
        UnknownNameError: for a sweep that neither a file nor the store has.
        StoreError: for a store that cannot be used.
    """
    options = make_parser().parse_args(arguments)
    if options.names:
        names = sweep_names(Path.cwd(), RunsLayout.from_environment())
        print_result(options, "\n".join(names), {"names": names})
        return DONE
    sweeps = list(list_sweeps(Path.cwd(), RunsLayout.from_environment(), options))
    if options.json:
        sys.stdout.write(json.dumps({"sweeps": [asdict(sweep) for sweep in sweeps]}, indent=2) + "\n")
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n".join(sweep_lines(sweeps, width)))
    return DONE


def sweep_names(folder: Path, layout: RunsLayout) -> list[str]:
    """Return the names of the sweeps of the files and of the store, without reading the files."""
    names = {*sweep_files(folder)}
    if Store.exists(layout.store):
        with Store.open(layout.store, writable=False) as store:
            names |= {record.spec.name for record in store.sweeps()}
    return sorted(names)


def list_sweeps(folder: Path, layout: RunsLayout, options: argparse.Namespace) -> Iterator[ListedSweep]:
    """Yield the sweeps of the files first, by name, then those that only the store has."""
    files = sweep_files(folder)
    states: dict[str, dict[str, int]] = {}
    questions: dict[str, str] = {}
    experience: list[Experience] = []
    if Store.exists(layout.store):
        with Store.open(layout.store, writable=False) as store:
            for record in store.sweeps():
                states[record.spec.name] = {state.value: count for state, count in record.counts.items() if count}
                questions[record.spec.name] = record.spec.question
            experience = read_experience(store) if options.cost else []
    names = [*sorted(files), *sorted(name for name in states if name not in files and not name.startswith("train-"))]
    if options.sweep is not None and options.sweep not in names:
        raise UnknownNameError("sweep", options.sweep, names)
    composer = Composer(conf_folder())
    for name in names if options.sweep is None else [options.sweep]:
        if name in files:
            yield _of_file(files[name], composer, states.get(name, {}), experience, cost=options.cost)
        else:
            counts = states[name]
            yield ListedSweep(sweep=name, question=questions[name], trials=sum(counts.values()), states=counts)


def sweep_lines(sweeps: Sequence[ListedSweep], columns: int | None = None) -> Iterator[str]:
    """Yield two lines for each sweep: its name and size, and its question, which is wrapped to ``columns`` if given."""
    width = max((len(sweep.sweep) for sweep in sweeps), default=0)
    for sweep in sweeps:
        parts = [_size(sweep), ", ".join(f"{count} {state}" for state, count in sweep.states.items())]
        if sweep.device_s is not None:
            parts.append(f"about {duration(sweep.device_s)} on one slot")
        yield f"{sweep.sweep:<{width}}  {'; '.join(part for part in parts if part)}"
        said = f"    {printable(sweep.error or sweep.question)}"
        yield from (
            [said]
            if columns is None
            else textwrap.wrap(said, max(columns, 20), subsequent_indent="    ", break_on_hyphens=False)
        )


def _size(sweep: ListedSweep) -> str:
    if sweep.configurations is None:
        return counted(sweep.trials, "trial") if sweep.trials is not None else "cannot be asked"
    if sweep.trials_max is not None:
        return f"a search of {counted(sweep.trials_max, 'trial')}"
    first = " at first" if sweep.is_open else ""
    return f"{counted(sweep.configurations, 'configuration')}, {counted(sweep.trials or 0, 'trial')}{first}"


def _of_file(
    path: Path, composer: Composer, states: dict[str, int], experience: Sequence[Experience], *, cost: bool
) -> ListedSweep:
    try:
        sweep = read_sweep(path, composer)
        planned = build_planner(sweep, PointComposer(sweep, composer)).ask()
        device_s = _device_s(sweep, composer, experience) if cost else None
    except SpecError as error:  # the others are still listed
        return ListedSweep(sweep=path.stem, file=shown(path), states=states, error=str(error))
    return ListedSweep(
        sweep=sweep.name,
        file=shown(path),
        question=sweep.question,
        configurations=len({trial.spec.config_id for trial in planned}),
        trials=len(planned),
        is_open=not sweep.planner.is_grid,
        trials_max=sweep.planner.trials_max,
        states=states,
        device_s=device_s,
    )


def _device_s(sweep: SweepSpec, composer: Composer, experience: Sequence[Experience]) -> float | None:
    """Return the sequential device time of all trials, in seconds, at the median pace of complete ones.

    None if no trial is complete.
    """
    from statistics import median

    from stnbench.models.scored_network import assess_cost  # imports torch, to build networks without memory

    if not experience:
        return None
    pace = median(known.work_flops / known.duration_s for known in experience if known.duration_s > 0)
    total = 0.0
    for trial in build_planner(sweep, PointComposer(sweep, composer)).ask():
        try:
            total += training_flops(trial.spec, assess_cost(trial.spec))
        except InfeasibleError:
            continue
    return total / pace if pace > 0 else None


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    states = ", ".join(state.value for state in TrialState)
    parser = CommandParser(
        prog="stnbench list",
        description="Lists the sweeps that ship with stnbench, those in sweeps/ beside you and those of the store.",
        epilog=f"States are {states}. `stnbench sweep NAME --plan` has the configurations of one. "
        "Exit codes: 0 done, 2 cannot start.",
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="one sweep (default: all)")
    parser.add_argument("--cost", action="store_true", help="expected time at the pace of this store (takes a while)")
    parser.add_argument("--names", action="store_true", help="names alone, one a line, without planning anything")
    add_json(parser)
    return parser
