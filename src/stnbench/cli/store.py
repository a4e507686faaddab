"""``stnbench store``: make a store again, copy it, and bring stores together."""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from stnbench.cli.parser import CommandParser
from stnbench.core.command import DONE
from stnbench.core.errors import FolderError, StnbenchError, StoreError
from stnbench.core.paths import RunsLayout
from stnbench.orchestration.host import ProcessIdentity
from stnbench.orchestration.lock import orchestrator_lock
from stnbench.orchestration.restore import SERVER_REMEDY, Restored, restore_store
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Run the sub-command; its exit code.

    Raises: StnbenchError where there is nothing to do it with.
    """
    options = _parser().parse_args(arguments)
    layout = RunsLayout.from_environment()
    if not layout.root.is_dir():
        raise FolderError(f"there is no runs folder {layout.root}", remedy="set STNBENCH_RUNS, or run a sweep first")
    action: Callable[[RunsLayout, argparse.Namespace], int] = options.action
    return action(layout, options)


def _rebuild(layout: RunsLayout, options: argparse.Namespace) -> int:
    with orchestrator_lock(layout, ProcessIdentity.current()):
        if not options.force:
            _refuse_whole(layout)
        restored = restore_store(layout, now=datetime.now(UTC))
    _say(layout, restored)
    return DONE


def _refuse_whole(layout: RunsLayout) -> None:
    """Raise StoreError where the store is there and nothing is wrong with it."""
    if not isinstance(layout.store, Path):
        raise StoreError("the store is on a server", remedy=SERVER_REMEDY)
    if not layout.store.exists():
        return
    try:
        with Store.open(layout.store, writable=False) as store:
            store.check_whole()
            count = len(store.sweeps())
    except StnbenchError:
        return
    if count:
        problem = f"the store {layout.store} is whole"
        raise StoreError(problem, remedy="nothing needs to be done; --force makes it again all the same")


def _say(layout: RunsLayout, restored: Restored) -> None:
    for problem in restored.problems:
        print(f"warning: {problem}", file=sys.stderr)
    if restored.aside is not None:
        print(f"the store before was moved to {restored.aside}", file=sys.stderr)
    if restored.missing:
        print(f"{restored.missing} complete trials have lost their result and are planned again", file=sys.stderr)
    if not restored.sweeps:
        print("no sweep is known any more: run its command again, its results are there", file=sys.stderr)
    print(f"{layout.store}: {restored.summary}")


def _back_up(layout: RunsLayout, options: argparse.Namespace) -> int:
    del options
    with Store.open(layout.store, writable=False) as store:
        copy = store.back_up(layout.backups)
    if copy is None:
        raise StoreError("the store is on a server", remedy="copy it with the server's own means, as pg_dump")
    print(copy)
    return DONE


DESCRIPTION: Final = "Looks after the store of a runs folder (STNBENCH_RUNS, or runs/)."


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="stnbench store", description=DESCRIPTION, epilog="Exit codes: 0 done, 2 cannot start.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rebuild = commands.add_parser("rebuild", help="make a damaged or lost store again from trials/ and its history")
    rebuild.add_argument("--force", action="store_true", help="also where nothing is wrong with it")
    rebuild.set_defaults(action=_rebuild)
    backup = commands.add_parser("backup", help="copy the store to backups/ while it is used")
    backup.set_defaults(action=_back_up)
    return parser
