"""``python -m stnbench.mirror``: replay the store into MLflow, or serve MLflow's pages."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Final

from stnbench.cli.parser import CommandParser, add_json, print_result, whole
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import FolderError, SpecError, UnknownNameError
from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.core.text import hide_passwords
from stnbench.orchestration.observer import stored_views
from stnbench.orchestration.session import Session, SessionOptions, open_session, tracking_uri
from stnbench.report.board import configuration_views
from stnbench.report.output import read_leaderboard
from stnbench.spec.result import AttemptState
from stnbench.store.store import Store
from stnbench.store.tables import SweepRecord
from stnbench.tracking import AttemptView, ConfigurationView

_TIMEOUT_S: Final = 24 * 3600.0
"""The timeout of a replay in seconds; it writes some 10 runs per second."""

_MOST_SHOWN: Final = 3
"""The number of configurations with pictures by default, the best ones."""

_MOST_PICTURES: Final = 8

_REMOTE: Final = ("http://", "https://")


def main(arguments: Sequence[str]) -> int:
    """Replay or serve, and return the exit code: 1 if MLflow did not receive everything.

    Raises:
        StnbenchError: if there is no store, or another process is running sweeps on it.
    """
    options = make_parser().parse_args(arguments)
    layout = RunsLayout.from_environment()
    uri = tracking_uri(layout)
    if options.serve:
        return _serve(layout, uri, options)
    if not Store.exists(layout.store):
        Store.open(layout.store, writable=False).close()  # raises an error if it is missing, without making it
    with open_session(layout, SessionOptions(tracking_uri=uri)) as session:
        sweeps = _chosen(session.store.sweeps(), options.sweep)
        session.store.forget_mirrored(hide_passwords(uri))
        shown = [_show(session, record, uri, options) for record in sweeps]
    if options.json:
        print(json.dumps({"tracking_uri": hide_passwords(uri), "sweeps": shown}))
    return DONE if all(facts["shown"] for facts in shown) else SOME_FAILED


def _show(session: Session, record: SweepRecord, uri: str, options: argparse.Namespace) -> dict[str, object]:
    """Show one sweep in the tracker, and return its summary for JSON."""
    name, trials = record.spec.name, sum(record.counts.values())
    configs = configuration_views(read_leaderboard(session.store, name, findings=False))
    print(f"{name}: {trials} trials, {len(configs)} configurations with a score", file=sys.stderr)
    done = session.sync_tracker(record.spec, configs, timeout_s=_TIMEOUT_S)
    new = show_pictures(session.store, session.layout, uri, configs, is_all=options.pictures) if done else 0
    if not options.json:
        print(f"{name}: {'shown' if done else 'NOT shown whole'} in {hide_passwords(uri)}")
        print(f"{name}: {new} new pictures")
    return {"sweep": name, "trials": trials, "configurations": len(configs), "shown": done, "pictures": new}


def _chosen(sweeps: Sequence[SweepRecord], name: str | None) -> list[SweepRecord]:
    chosen = [record for record in sweeps if name in {None, record.spec.name}]
    if name is not None and not chosen:
        raise UnknownNameError("sweep", name, [record.spec.name for record in sweeps], where="the store")
    return chosen


def show_pictures(
    store: Store, layout: RunsLayout, uri: str, configs: Sequence[ConfigurationView], *, is_all: bool = False
) -> int:
    """Show the transformers' effect during training, as galleries with a slider of steps.

    The best configurations have a few pictures of their first seed, with their summary and with its run; with
    ``is_all`` every complete trial has all of its pictures as well.

    Returns:
        The number of new pictures.
    """
    views: dict[str, list[AttemptView]] = {}
    for view in stored_views(store, configs[0].sweep) if configs else ():
        folder = layout.attempt(view.trial_id, view.number)
        if view.state is AttemptState.COMPLETE and AttemptLayout(folder).snapshots.exists():
            views.setdefault(view.config_id, []).append(view)
    if not views:
        return 0
    from stnbench.show import training_gallery
    from stnbench.tracking.mlflow import MlflowTracker

    tracker = MlflowTracker(uri, None if uri.startswith(_REMOTE) else layout.mlflow_artifacts)
    new = 0
    try:
        for config in [config for config in configs if config.config_id in views][:_MOST_SHOWN]:
            first = min(views[config.config_id], key=lambda view: view.spec.seed)
            folder, title = layout.attempt(first.trial_id, first.number), f"{first.label}, seed {first.spec.seed}"
            pictures = list(training_gallery(folder, title=title, most=_MOST_PICTURES))
            new += sum(tracker.show_pictures(view, pictures) for view in (config, first))
        for view in (view for own in views.values() for view in own if is_all):
            folder = layout.attempt(view.trial_id, view.number)
            new += tracker.show_pictures(view, training_gallery(folder, title=view.label))
    except (FolderError, SpecError) as error:  # files of an attempt are damaged or were removed
        print(f"warning: no further pictures: {error}", file=sys.stderr)
    finally:
        tracker.close()
    return new


def _serve(layout: RunsLayout, uri: str, options: argparse.Namespace) -> int:
    """Run MLflow's server on the loopback interface until Ctrl-C, and return its exit code.

    Raises:
        SpecError: if the runs are on a remote server, which shows them already.
    """
    if uri.startswith(_REMOTE):
        raise SpecError(f"MLflow is served at {hide_passwords(uri)} already", remedy="open it there")
    from stnbench.tracking.mlflow import view_addresses
    from stnbench.tracking.mlflow_server import initialise, serve, set_aside_damaged

    layout.root.mkdir(parents=True, exist_ok=True)
    aside = set_aside_damaged(uri)
    if aside is not None:
        remedy = "show its runs again with: python -m stnbench.mirror"
        print(f"warning: MLflow's database was damaged, and was moved to {aside}; {remedy}", file=sys.stderr)
    initialise(uri)
    where = address(options.port)
    views = {name: where.partition("#")[0] + view for name, view in view_addresses(uri).items()}
    lines = [f"MLflow on {where} (Ctrl-C ends it)"]
    lines += [f"  {name}, best configurations first: {view}" for name, view in views.items()]
    print_result(options, "\n".join(lines), {"address": where, "sweeps": views})
    return serve(uri, layout.mlflow_artifacts, options.port)


def address(port: int) -> str:
    """Return the URL of MLflow's pages for training on this machine, which MLflow does not open by default."""
    return f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning"


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench mirror",
        description="Shows every attempt and configuration of the store in MLflow again; nothing is trained.",
        epilog="MLflow keeps its runs in runs/mlflow.db, or where MLFLOW_TRACKING_URI says. "
        "Exit codes: 0 done, 1 MLflow failed, 2 cannot start.",
    )
    parser.add_argument("sweep", nargs="?", help="one sweep of the store (default: all)")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="show pictures of every trial's transformers (default: of the three best configurations)",
    )
    parser.add_argument("--serve", action="store_true", help="serve MLflow's pages on 127.0.0.1 instead")
    parser.add_argument("--port", type=whole(1, 65_535), default=5000, help="port of the pages (default: %(default)s)")
    add_json(parser)
    return parser
