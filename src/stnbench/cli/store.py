"""``stnbench store``: rebuild, back up, export, import and merge stores, and compute missing metrics."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from stnbench.cli.parser import CommandParser, add_json, path, print_result, whole
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import FolderError, StnbenchError, StoreError
from stnbench.core.files import RunsLayout, data_root
from stnbench.core.process import available_cores
from stnbench.orchestration.claims import ProcessIdentity, orchestrator_lock
from stnbench.orchestration.exchange import ArchiveSource, FolderSource, Source, export_sweeps, merge_source
from stnbench.orchestration.recovery import SERVER_REMEDY, Restored, restore_store
from stnbench.orchestration.session import SessionOptions, open_session
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Run the sub-command and return its exit code.

    Raises:
        StnbenchError: if the store or the source is missing or cannot be used.
    """
    options = make_parser().parse_args(arguments)
    layout = RunsLayout.from_environment()
    if not layout.root.is_dir() and options.action not in {_import, _merge}:
        raise FolderError(f"there is no runs folder {layout.root}", remedy="set STNBENCH_RUNS, or run a sweep first")
    action: Callable[[RunsLayout, argparse.Namespace], int] = options.action
    return action(layout, options)


def _rebuild(layout: RunsLayout, options: argparse.Namespace) -> int:
    with orchestrator_lock(layout, ProcessIdentity.current()):
        if not options.force:
            _refuse_whole(layout)
        restored = restore_store(layout, now=datetime.now(UTC))
    _say(layout, restored, options)
    return DONE


def _refuse_whole(layout: RunsLayout) -> None:
    """Raise StoreError if the store exists and is intact."""
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


def _say(layout: RunsLayout, restored: Restored, options: argparse.Namespace) -> None:
    for problem in restored.problems:
        print(f"warning: {problem}", file=sys.stderr)
    if restored.aside is not None:
        print(f"the store before was moved to {restored.aside}", file=sys.stderr)
    if restored.missing:
        print(f"{restored.missing} complete trials have lost their result and are planned again", file=sys.stderr)
    if not restored.sweeps:
        print("no sweep is known any more: run its command again, its results are there", file=sys.stderr)
    facts = {
        "store": str(layout.store),
        "sweeps": restored.sweeps,
        "missing": restored.missing,
        "problems": [str(problem) for problem in restored.problems],
        "aside": None if restored.aside is None else str(restored.aside),
        "summary": restored.summary,
    }
    print_result(options, f"{layout.store}: {restored.summary}", facts)


def _back_up(layout: RunsLayout, options: argparse.Namespace) -> int:
    with Store.open(layout.store, writable=False) as store:
        copy = store.back_up(layout.backups)
    if copy is None:
        raise StoreError("the store is on a server", remedy="copy it with the server's own means, as pg_dump")
    print_result(options, str(copy), {"backup": str(copy)})
    return DONE


def _export(layout: RunsLayout, options: argparse.Namespace) -> int:
    out: Path = options.out
    trials, files = export_sweeps(
        layout, [options.sweep], out, checkpoints=CHECKPOINTS in options.extras, now=datetime.now(UTC)
    )
    facts = {"archive": str(out), "trials": trials, "files": files}
    print_result(options, f"{out}: {trials} trials, {files} files", facts)
    return DONE


def _import(layout: RunsLayout, options: argparse.Namespace) -> int:
    source = ArchiveSource(options.archive)
    with contextlib.closing(source):
        return _bring(layout, source, options)


def _merge(layout: RunsLayout, options: argparse.Namespace) -> int:
    other = RunsLayout(Path(options.runs).absolute())
    if other.root.resolve() == layout.root.resolve():
        raise StoreError(f"{other.root} is the same runs folder", remedy="name another one")
    checkpoints = CHECKPOINTS in options.extras
    return _bring(layout, FolderSource(other, None, checkpoints=checkpoints, now=datetime.now(UTC)), options)


def _bring(layout: RunsLayout, source: Source, options: argparse.Namespace) -> int:
    """Import a source, and return 1 if a trial has different results there and here."""
    with open_session(layout, SessionOptions()) as session:
        merged = merge_source(session.store, layout, source)
    counts = f"{merged.taken} trials are new, {merged.replaced} replace ours, {merged.known} were here already"
    lines = [f"{layout.root}: {counts}"]
    differing = [one for one in merged.reproduced if one.differs]
    same = len(merged.reproduced) - len(differing)
    if merged.reproduced:
        lines.append(f"reproduced: {same} of {len(merged.reproduced)} trials with two results are equal")
    facts = {"runs": str(layout.root), "new": merged.taken, "replaced": merged.replaced, "known": merged.known}
    facts |= {"reproduced": same, "differ": [one.trial_id for one in differing]}
    print_result(options, "\n".join(lines), facts)
    for one in differing:
        print(f"NOT REPRODUCED: trial {one.trial_id}: {'; '.join(one.differs[:5])}", file=sys.stderr)
        print(f"  here:  {one.ours}\n  there: {one.theirs}", file=sys.stderr)
    return SOME_FAILED if differing else DONE


def _metrics(layout: RunsLayout, options: argparse.Namespace) -> int:
    """Compute missing metrics, and return 1 if a score has nothing to compute them from."""
    from stnbench.report.scored import Networks, fill_metrics  # imports pandas, which the other commands do not need

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    networks = Networks(data_root=data_root(), device=options.device, threads=options.threads)
    with open_session(layout, SessionOptions()) as session:
        done = fill_metrics(session.store, layout, options.sweep, warn=tell, networks=networks, begins=tell)
    text = f"{done.written} scores have new metrics, {done.complete} had all, {done.without} kept nothing to compute by"
    print_result(options, text, {"written": done.written, "complete": done.complete, "without": done.without})
    return SOME_FAILED if done.without else DONE


DESCRIPTION: Final = "Looks after the store of a runs folder (STNBENCH_RUNS, or runs/)."

EPILOG: Final = "Exit codes: 0 done, 1 a trial with two results was not reproduced, 2 cannot start."
CHECKPOINTS: Final = "checkpoints"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = CommandParser(prog="stnbench store", description=DESCRIPTION, epilog=EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rebuild = commands.add_parser("rebuild", help="make a damaged or lost store again from trials/ and its history")
    rebuild.add_argument("--force", action="store_true", help="also where nothing is wrong with it")
    rebuild.set_defaults(action=_rebuild)
    backup = commands.add_parser("backup", help="copy the store to backups/ while it is used")
    backup.set_defaults(action=_back_up)
    export = commands.add_parser("export", help="write a sweep with its results into an archive")
    export.add_argument("sweep", help="a sweep of the store")
    export.add_argument("out", type=path, help="the archive, for example sizes.stnb")
    _add_with(export)
    export.set_defaults(action=_export)
    importing = commands.add_parser("import", help="bring in what an archive holds, after all of it was checked")
    importing.add_argument("archive", type=path, help="what export has written")
    importing.set_defaults(action=_import)
    merge = commands.add_parser("merge", help="bring in all sweeps of another runs folder")
    merge.add_argument("runs", type=path, metavar="OTHER_RUNS", help="the other runs folder, which is only read")
    _add_with(merge)
    merge.set_defaults(action=_merge)
    metrics = commands.add_parser(
        "metrics",
        help="compute metrics that scores lack: from the probabilities they kept, and, where columns: of a sweep names "
        "such a metric, by running the networks again",
    )
    metrics.add_argument("sweep", nargs="?", help="a sweep of the store (default: all)")
    metrics.add_argument("--device", default="cpu", help="where networks run: cpu or cuda:N (default: %(default)s)")
    metrics.add_argument(
        "--threads", type=whole(), default=available_cores(), help="CPU threads (default: %(default)s)"
    )
    metrics.set_defaults(action=_metrics)
    for command in (rebuild, backup, export, importing, merge, metrics):
        add_json(command)
    return parser


def _add_with(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with", dest="extras", action="append", default=[], choices=[CHECKPOINTS], help="bring checkpoints as well"
    )
