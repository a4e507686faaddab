"""``python -m stnbench.show``: pictures of a stored trial's spatial transformers, and measures of their stability."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stnbench.cli.parser import CommandParser, add_json, path, print_result, whole
from stnbench.core.command import DONE
from stnbench.core.errors import FolderError, SpecError
from stnbench.core.files import RunsLayout, data_root, writable_folder, write_atomic
from stnbench.core.process import available_cores
from stnbench.report.output import REPORTS, open_folder
from stnbench.report.runs import TRIAL_HELP, find_trial
from stnbench.store.store import Store

if TYPE_CHECKING:
    from stnbench.trials.watch import TrainedNetwork

_SUFFIXES: Final = {"transform": "png", "training": "gif", "tracks": "gif"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    trial_id: str
    sweep: str
    title: str
    folder: Path


def main(arguments: Sequence[str]) -> int:
    """Draw or measure a complete trial and return the exit code; the store is only read.

    Raises:
        StnbenchError: if the trial, its network, its snapshots or the data are missing, or it has no spatial
            transformer.
    """
    options = make_parser().parse_args(arguments)
    trial = _find(options.trial)
    if options.command == "stability":
        _print_stability(trial, options)
        return DONE
    name = f"{trial.trial_id}-{options.command}.{_SUFFIXES[options.command]}"
    path = options.out or open_folder(REPORTS, trial.sweep) / name  # where the page of the sweep finds it
    picture = {"transform": _transform, "training": _training, "tracks": _tracks}[options.command](trial, options)
    writable_folder(path.absolute().parent, "the picture", remedy="name another file with --out")
    try:
        write_atomic(path, picture)
    except OSError as error:
        problem = f"the picture {path} cannot be written ({error.strerror or error})"
        raise FolderError(problem, remedy="name another file with --out") from error
    facts = {"trial": trial.trial_id, "title": trial.title, "file": str(path), "bytes": len(picture)}
    print_result(options, f"{trial.title}\n{path}, {len(picture) / 1e3:,.0f} kB", facts)
    return DONE


def _transform(trial: _Trial, options: argparse.Namespace) -> bytes:
    from stnbench.show import png_bytes, transform_sheet
    from stnbench.trials.watch import watch_images

    network = _open(trial, options)
    watched = watch_images(network, count=options.images, seed=options.seed)
    return png_bytes(transform_sheet(watched, network.class_names, side=options.side, title=trial.title))


def _training(trial: _Trial, options: argparse.Namespace) -> bytes:
    from stnbench.show import gif_bytes, training_frames
    from stnbench.trials.watch import watch_training

    frames = training_frames(watch_training(trial.folder), side=options.side, title=trial.title, images=options.images)
    return gif_bytes(frames, colours=options.colours)


def _tracks(trial: _Trial, options: argparse.Namespace) -> bytes:
    from stnbench.show import gif_bytes, track_frames
    from stnbench.trials.watch import watch_tracks

    network = _open(trial, options)
    watched = watch_tracks(network, count=options.tracks, seed=options.seed)
    frames = track_frames(watched, network.class_names, side=options.side, title=trial.title)
    return gif_bytes(frames, colours=options.colours)


def _print_stability(trial: _Trial, options: argparse.Namespace) -> None:
    from stnbench.show import stability_data, stability_text
    from stnbench.trials.stability import measure_stability

    stability = measure_stability(_open(trial, options), count=options.tracks, seed=options.seed)
    if options.json:
        print(json.dumps({"trial": trial.trial_id, **stability_data(stability)}))
    else:
        print(f"{trial.title}\n{stability_text(stability)}")


def _open(trial: _Trial, options: argparse.Namespace) -> "TrainedNetwork":
    from stnbench.trials.watch import WatchSetup, open_network

    setup = WatchSetup(data_root=data_root(), device=options.device, threads=options.threads)
    return open_network(trial.folder, setup)


def _find(prefix: str) -> _Trial:
    layout = RunsLayout.from_environment()
    with Store.open(layout.store, writable=False) as store:
        trial = find_trial(store, prefix, with_transformer=True)
        outcome = store.outcome(trial.trial_id)
    if not trial.spec.transformers:
        problem = f"the trial {trial.trial_id} has no spatial transformer"
        raise SpecError(problem, remedy="name one that has; without it there is nothing to see")
    if outcome is None:
        raise SpecError(f"trial {trial.trial_id} is {trial.state}", remedy="only a complete trial can be shown")
    return _Trial(
        trial_id=trial.trial_id,
        sweep=trial.sweep,
        title=f"trial {trial.trial_id} · {trial.label} · seed {trial.seed}",
        folder=layout.attempt(trial.trial_id, outcome.attempt),
    )


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench show",
        description="Shows what a complete trial's spatial transformers do to validation images.",
        epilog="Exit codes: 0 done, 2 cannot start.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    transform = _add(commands, "transform", "a PNG: images with the region that is read, and the transformed image")
    transform.add_argument("--images", type=whole(), default=8, help="how many (default: %(default)s)")
    training = _add(commands, "training", "an animated GIF: eight images from before training to its end")
    training.add_argument(
        "--images", type=whole(), help="how many, those that move most and can be seen (default: all eight)"
    )
    tracks = _add(commands, "tracks", "an animated GIF: the frames of some approaches to signs")
    tracks.add_argument("--tracks", type=whole(), default=5, help="how many (default: %(default)s)")
    stability = _add(commands, "stability", "a table: how still signs are along tracks, and under known warps")
    stability.add_argument(
        "--tracks", type=whole(), help="number of tracks to measure (default: all that are held out)"
    )
    for command, side in ((transform, 112), (training, 80), (tracks, 80)):
        command.add_argument(
            "--out",
            type=path,
            help="file to write (default: beside the page of its sweep; the next report shows it)",
        )
        command.add_argument("--side", type=whole(), default=side, help="pixels of an image (default: %(default)s)")
    for command in (training, tracks):
        command.add_argument("--colours", type=whole(2, 256), default=96, help="at most 256; fewer for a smaller file")
    for command in (transform, tracks, stability):
        command.add_argument("--seed", type=whole(0), default=1, help="seed of the drawing (default: %(default)s)")
        command.add_argument("--device", default="cpu", help="cpu or cuda:N (default: %(default)s)")
        command.add_argument(
            "--threads", type=whole(), default=available_cores(), help="CPU threads (default: %(default)s)"
        )
    return parser


def _add(commands: "argparse._SubParsersAction[CommandParser]", name: str, said: str) -> CommandParser:
    command = commands.add_parser(name, help=said, description=f"{said[0].upper()}{said[1:]}.")
    command.add_argument("trial", help=TRIAL_HELP)
    add_json(command)
    return command
