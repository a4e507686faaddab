"""``stnbench COMMAND``: one program with a sub-command for each module of this package.

A module is registered by one line in :data:`COMMANDS`. It defines ``main(arguments) -> exit code`` and is imported only
for its command, so that ``stnbench --help`` imports nothing heavy.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import stnbench
from stnbench.core.command import DONE, run_command, tell_doing
from stnbench.core.errors import UnknownNameError
from stnbench.core.process import handling, leave_at_once


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command.

    Attributes:
        module: the module of its ``main(arguments) -> int``.
        summary: one line for ``stnbench --help``.
    """

    module: str
    summary: str


COMMANDS: Final[Mapping[str, Command]] = {
    "list": Command("stnbench.cli.list_sweeps", "list the sweeps there are, with questions, states and costs"),
    "sweep": Command("stnbench.cli.sweep", "run every trial of a sweep that is not complete, print its leaderboard"),
    "train": Command("stnbench.cli.train", "train one trial"),
    "report": Command("stnbench.cli.report", "write leaderboards and pages from the store"),
    "compare": Command("stnbench.cli.compare", "make a leaderboard of any results, from a CSV file"),
    "status": Command("stnbench.cli.status", "show states, progress and failures"),
    "trials": Command("stnbench.cli.trials", "list the trials of a sweep with their names, states and accuracies"),
    "serve": Command("stnbench.cli.serve", "show sweeps as they run, on a page of this machine, with controls"),
    "control": Command("stnbench.cli.control", "pause, resume or stop parts of a sweep while it runs"),
    "sources": Command("stnbench.cli.sources", "print or write out the code that trained a trial"),
    "show": Command("stnbench.cli.show", "draw what the transformers of a trial do"),
    "evaluate": Command("stnbench.cli.evaluate", "score a stored network on a split"),
    "export": Command("stnbench.cli.export", "write a trained network for use elsewhere: weights, ONNX and a card"),
    "data": Command("stnbench.cli.data", "prepare or check the cache of a data set"),
    "new": Command("stnbench.cli.new", "write the skeleton of a part or a sweep of your own"),
    "check-part": Command("stnbench.cli.check_part", "check a part against its contract"),
    "mirror": Command("stnbench.cli.mirror", "replay the store into MLflow"),
    "store": Command("stnbench.cli.store", "rebuild, copy, export, import and merge stores"),
    "completion": Command("stnbench.cli.completion", "print a script with which bash, zsh or fish completes commands"),
}
"""Every sub-command, in the order of ``--help``."""


SLOW_TO_BEGIN: Final = frozenset({"sweep", "train"})
"""Sub-commands whose imports alone take more than a second."""


def main(arguments: Sequence[str]) -> int:
    """Run the sub-command that the first argument names, and return its exit code.

    Raises:
        UnknownNameError: for a sub-command that does not exist.
        StnbenchError: if the sub-command raises it.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return DONE
    if arguments[0] in ("-V", "--version"):
        print(f"stnbench {stnbench.__version__}")
        return DONE
    name, *rest = arguments
    if name not in COMMANDS:
        raise UnknownNameError("command", name, COMMANDS)
    if name in SLOW_TO_BEGIN and not {"-h", "--help"} & set(rest):
        tell_doing(f"loading stnbench {name}")
    try:
        return load_main(name)(rest)
    except UnknownNameError as error:
        file = Path("parts", f"{error.name}.py")
        if file.name in {path.name for path in file.parent.glob("*.py")}:  # the name may be no name of a file at all
            error.remedy += f"; {file} is loaded with STNBENCH_PARTS=parts, or by parts: parts in a sweep"
        raise


def load_main(name: str) -> Callable[[Sequence[str]], int]:
    """Import the module of a sub-command and return its ``main``."""
    with handling(leave_at_once):
        return cast("Callable[[Sequence[str]], int]", importlib.import_module(COMMANDS[name].module).main)


def help_text() -> str:
    """Return the usage and every sub-command with its summary."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    head = ["usage: stnbench COMMAND [arguments]", "", "Mass benchmarking of spatial transformer networks.", ""]
    tail = [
        "",
        "stnbench COMMAND --help describes a command, stnbench --version prints the version.",
        "Exit codes: 0 done, 1 some trials failed or are left, 2 cannot start, 130 interrupted.",
    ]
    return "\n".join([*head, "commands:", *lines, *tail])


def script(*first: str) -> None:
    """Run as the console script ``stnbench`` with the ``first`` arguments prepended, and exit with its code."""
    run_command(lambda arguments: main([*first, *arguments]))
