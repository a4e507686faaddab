"""``python -m stnbench.evaluate``: a stored trial's network on a split, or on another data set's."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from stnbench.cli.parser import CommandParser, whole
from stnbench.core.command import DONE
from stnbench.core.cores import available_cores
from stnbench.core.errors import SpecError
from stnbench.core.paths import RunsLayout, data_root
from stnbench.report.runs import TRIAL_HELP, find_trial
from stnbench.spec.data import NO_SCORE
from stnbench.spec.result import SplitScore
from stnbench.spec.sweep import Override
from stnbench.spec.views import ViewsSpec
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Score a complete trial's checkpoint; the store is only read.

    Raises: StnbenchError where the trial, its checkpoint or the data are not there.
    """
    options = _parser().parse_intermixed_args(arguments)
    layout = RunsLayout.from_environment()
    with Store.open(layout.store, writable=False) as store:
        trial = find_trial(store, options.trial)
        outcome = store.outcome(trial.trial_id)
    if outcome is None:
        raise SpecError(f"trial {trial.trial_id} is {trial.state}", remedy="only a complete trial can be evaluated")
    score = _score(layout.attempt(trial.trial_id, outcome.attempt), options)
    wrong = score.images - score.correct
    if options.json:
        counts = {"images": score.images, "correct": score.correct, "errors": wrong}
        said = {"trial": trial.trial_id, "split": score.split, "accuracy": score.accuracy, **counts}
        print(json.dumps({**said, "loss": score.loss, "label": trial.label, "seed": trial.seed}))
    else:
        percent = 100 * score.accuracy
        print(f"{trial.label} · seed {trial.seed}, trial {trial.trial_id}")
        if score.split == "validation" and not trial.spec.has_held_out_images:
            print(NO_SCORE)
        print(f"{score.split}: {percent:.3f} % of {score.images:,} images ({wrong} errors), loss {score.loss:.4f}")
    return DONE


def _score(folder: Path, options: argparse.Namespace) -> SplitScore:
    from stnbench.trials.score import rescore_trial

    return rescore_trial(
        folder,
        options.split,
        data_root=data_root(),
        source=_source(options.overrides),
        device=options.device,
        threads=options.threads,
        views=None if options.views is None else _views(options.views),
    ).score


def _source(overrides: Sequence[str]) -> Path | None:
    """The folder that ``dataset.root=...`` names. Raises: SpecError for any other key."""
    from stnbench.config.overrides import parse_overrides
    from stnbench.config.paths import take_dataset_root

    source, others = take_dataset_root(parse_overrides(overrides))
    if others:
        raise SpecError(f"a stored trial has its own {others[0].key}", remedy="only dataset.root=... can be given")
    return source


def _views(choice: str) -> ViewsSpec:
    """The views of a choice in conf/views. Raises: UnknownNameError."""
    from stnbench.config.compose import Composer
    from stnbench.config.locate import conf_folder
    from stnbench.config.resolve import resolve_trial

    spec = resolve_trial(Composer(conf_folder()), (Override(key="views", value=choice),)).spec
    return spec.views or ViewsSpec()


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="stnbench evaluate",
        description="Scores a complete trial's network on a split.",
        epilog="Exit codes: 0 done, 2 cannot start.",
    )
    parser.add_argument("trial", help=TRIAL_HELP)
    root = "dataset.root=DIR: the folder with the official files (default: the data folder)"
    parser.add_argument("overrides", nargs="*", metavar="dataset.root=DIR", help=root)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    views = "a choice of conf/views: in which ways every image is looked at (default: as the trial says)"
    parser.add_argument("--views", metavar="NAME", help=views)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=whole(), default=available_cores(), help="CPU threads (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
