"""``stnbench evaluate``: score trained networks from the store or from exports on a split, alone or as an ensemble."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from stnbench.analysis.effects import wilson_estimate
from stnbench.analysis.ensembles import mean_corruption_error, mean_probabilities, relative_corruption_error
from stnbench.cli.parser import CommandParser, FormerOption, add_json, whole
from stnbench.core.command import DONE
from stnbench.core.errors import SpecError
from stnbench.core.files import RunsLayout, data_root
from stnbench.core.process import available_cores
from stnbench.report.exports import NETWORK_HELP, Located, locate_network
from stnbench.spec.data import NO_SCORE
from stnbench.spec.metrics import PERCENT, current, describe
from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.result import SplitScore
from stnbench.spec.sweep import Override

if TYPE_CHECKING:  # imports torch, or scipy
    from stnbench.data.quality import DuplicateKind
    from stnbench.trials.export import StoredNetwork
    from stnbench.trials.score import Rescored

_OVERRIDE: Final = re.compile(r"[\w.@+~]+=")


def main(arguments: Sequence[str]) -> int:
    """Score trained networks and return the exit code; the store is only read.

    Raises:
        StnbenchError: if a network or the data are missing.
    """
    options = make_parser().parse_intermixed_args(arguments)
    layout = RunsLayout.from_environment()
    if options.reference is not None and not options.corruptions:
        raise SpecError("--reference is given without --corruptions", remedy="give both")
    names, overrides = _names_and_overrides([options.trial, *options.more])
    source = only_root(overrides)
    located = [locate_network(name, layout) for name in names]
    stored = [network.read() for network in located]
    tta = None if options.tta is None else _tta(options.tta)
    if options.corruptions:
        return _print_corruptions(located, stored, options, layout, source)
    kept = None if options.without_duplicates is None else _without_duplicates(stored, options, source)
    found = [_score(network, options, source, tta) for network in stored]
    if len(found) > 1:
        _print_ensemble(located, stored, found, options, kept)
    else:
        _print_score(located[0], stored[0], found[0].score, options, kept)
    return DONE


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Kept:
    """Mask of the images of a split that repeat no training image, and the kind of repeats it excludes."""

    kind: "DuplicateKind"
    mask: NDArray[np.bool_]

    def score(self, right: NDArray[np.bool_]) -> dict[str, float | str | None]:
        """Return the accuracy without the others, None if none is left, from whether each image was recognised."""
        images, correct = int(self.mask.sum()), int(right[self.mask].sum())
        counts = {"images": images, "correct": correct, "errors": images - correct}
        accuracy = correct / images if images else None
        return {"kind": self.kind, "left_out": len(self.mask) - images, "accuracy": accuracy, **counts}

    def line(self, split: str, right: NDArray[np.bool_]) -> str:
        """Return the score without the others as text."""
        said = self.score(right)
        what = "equal or nearly equal to" if self.kind == "near" else "equal to"
        without = f"{split} without the {said['left_out']:,} images that are {what} one trained on: "
        if not said["images"]:
            return without + "none is left"
        percent = 100 * int(right[self.mask].sum()) / int(self.mask.sum())
        return without + f"{percent:.3f} % of {said['images']:,} images ({said['errors']} errors)"


def _without_duplicates(stored: "Sequence[StoredNetwork]", options: argparse.Namespace, source: Path | None) -> _Kept:
    """Find the images of the split that repeat no image on which one of the networks was trained."""
    from stnbench.trials.score import repeated_images

    different = {
        (one.spec.dataset, one.spec.split, one.spec.training.train_images, one.spec.seed): one for one in stored
    }
    masks = [
        repeated_images(
            network, options.split, options.without_duplicates, data_root=data_root(), source=source,
            workers=options.threads,
        )
        for network in different.values()
    ]  # fmt: skip
    return _Kept(kind=options.without_duplicates, mask=~np.any(masks, axis=0))


def _score(
    network: "StoredNetwork", options: argparse.Namespace, source: Path | None, tta: TtaSpec | None
) -> "Rescored":
    from stnbench.trials.score import score_network

    return score_network(
        network, options.split, data_root=data_root(), source=source, device=options.device, threads=options.threads,
        tta=tta,
    )  # fmt: skip


def _print_score(
    located: Located, stored: "StoredNetwork", score: SplitScore, options: argparse.Namespace, kept: _Kept | None
) -> None:
    wrong = score.images - score.correct
    right = np.zeros(0, bool)
    if kept is not None and score.scored is not None:
        right = np.array(score.predictions) == np.array(score.scored.labels)
    if options.json:
        counts = {"images": score.images, "correct": score.correct, "errors": wrong}
        said = {"trial": located.trial_id, "split": score.split, "accuracy": score.accuracy, **counts}
        said |= {"metrics": current(score.metrics)} | {"loss": score.loss, "label": located.label, "seed": located.seed}
        print(json.dumps(said if kept is None else said | {"without_duplicates": kept.score(right)}))
        return
    print(f"{located.name}, trial {located.trial_id}")
    if score.split == "validation" and not stored.spec.has_held_out_images:
        print(NO_SCORE)
    percent = 100 * score.accuracy
    print(f"{score.split}: {percent:.3f} % of {score.images:,} images ({wrong} errors), loss {score.loss:.4f}")
    for name, value in current(score.metrics).items():
        known = describe(name)
        shown = f"{100 * value:.3f} %" if known.unit == PERCENT else f"{value:.4g} {known.unit}".rstrip()
        print(f"{known.heading}: {shown}")
    if kept is not None:
        print(kept.line(score.split, right))


def _print_ensemble(
    located: Sequence[Located],
    stored: Sequence["StoredNetwork"],
    found: Sequence["Rescored"],
    options: argparse.Namespace,
    kept: _Kept | None,
) -> None:
    """Print the score of the averaged probabilities, and that of each network alone.

    Raises:
        SpecError: if the networks differ in classes or images.
    """
    from stnbench.trials.export import require_same_classes

    require_same_classes(stored)
    images = [one.score.scored for one in found]
    if any(other is None or other != images[0] for other in images) or images[0] is None:
        problem = f"the networks were not scored on the same {options.split} images"
        raise SpecError(problem, remedy="an ensemble takes one data set and split, and not the images trained on")
    labels = np.array(images[0].labels)
    right = mean_probabilities([one.probabilities for one in found]).argmax(axis=1) == labels
    accuracy = wilson_estimate(int(right.sum()), len(labels))
    wrong = len(labels) - int(right.sum())
    members = [
        {"trial": network.trial_id, "name": network.name, "accuracy": one.score.accuracy}
        for network, one in zip(located, found, strict=True)
    ]
    if options.json:
        counts = {"images": len(labels), "correct": len(labels) - wrong, "errors": wrong}
        interval = {"low": accuracy.low, "high": accuracy.high}
        said = {"ensemble": members, "split": options.split, "accuracy": accuracy.mean, **interval, **counts}
        print(json.dumps(said if kept is None else said | {"without_duplicates": kept.score(right)}))
        return
    for network, one in zip(located, found, strict=True):
        print(f"{network.name}, trial {network.trial_id}: {100 * one.score.accuracy:.3f} %")
    if options.split == "validation" and not all(network.spec.has_held_out_images for network in stored):
        print(NO_SCORE)
    interval_text = f"[{100 * (accuracy.low or 0):.3f}, {100 * (accuracy.high or 0):.3f}], {accuracy.method}"
    print(
        f"ensemble of {len(found)}, {options.split}: {100 * accuracy.mean:.3f} % {interval_text}, "
        f"of {len(labels):,} images ({wrong} errors)"
    )
    if kept is not None:
        print(kept.line(f"ensemble of {len(found)}, {options.split}", right))


def _print_corruptions(
    located: Sequence[Located],
    stored: Sequence["StoredNetwork"],
    options: argparse.Namespace,
    layout: RunsLayout,
    source: Path | None,
) -> int:
    """Print the errors of a network on corrupted images, alone and over those of a reference network.

    Raises:
        SpecError: if there are several networks, or the reference was scored on other images.
    """
    from stnbench.data.corruptions import corruption_errors, keeping_corruptions
    from stnbench.trials.score import Classifier

    if len(stored) > 1 or options.tta is not None or options.without_duplicates is not None:
        problem = "--corruptions goes with one network as its trial says"
        raise SpecError(problem, remedy="leave out further networks, --tta and --without-duplicates")

    def of(network: "StoredNetwork") -> Classifier:
        return Classifier.of(
            network, options.split, data_root=data_root(), source=source, device=options.device,
            threads=options.threads,
        )  # fmt: skip

    def errors_of(network: Classifier) -> dict[str, tuple[float, ...]]:
        clean = float((network.classify(network.images).argmax(axis=1) != network.labels).mean())
        with keeping_corruptions(network.cache):
            return {CLEAN: (clean,)} | corruption_errors(network.classify, network.images, network.labels)

    own = of(stored[0])
    found = {located[0].name: errors_of(own)}
    if options.reference is not None:
        base = locate_network(options.reference, layout)
        other = of(base.read())
        if not np.array_equal(other.images, own.images) or not np.array_equal(other.labels, own.labels):
            problem = f"{base.name} is scored on other {options.split} images"
            raise SpecError(problem, remedy="a reference takes the same data set, size and split")
        found[f"reference: {base.name}"] = errors_of(other)
    said = corruption_json(list(found.values())) | {"trial": located[0].trial_id, "split": options.split}
    said["images"] = len(own.labels)
    lines = [f"{located[0].name}, trial {located[0].trial_id}, {options.split}, {len(own.labels):,} images"]
    print(json.dumps(said) if options.json else "\n".join([*lines, *corruption_lines(found)]))
    return DONE


CLEAN: Final = "clean"


def corruption_json(errors: Sequence[dict[str, tuple[float, ...]]]) -> dict[str, Any]:
    """Return errors by corruption, the clean one among them, and their means; over a reference if there is a second."""
    own, *others = ({kind: one for kind, one in each.items() if kind != CLEAN} for each in errors)
    said: dict[str, Any] = {
        "clean_error": errors[0][CLEAN][0],
        "corruption_errors": own,
        "mean_corruption_error_unnormalised": mean_corruption_error(own),
    }
    for reference in others:
        clean = (errors[0][CLEAN][0], errors[1][CLEAN][0])
        said |= {
            "reference_errors": reference,
            "reference_clean_error": clean[1],
            "mean_corruption_error": mean_corruption_error(own, reference),
            "relative_mean_corruption_error": relative_corruption_error(own, clean[0], reference, clean[1]),
        }
    return said


def corruption_lines(found: dict[str, dict[str, tuple[float, ...]]]) -> list[str]:
    """Return tables of errors by corruption and severity, and the means, as text."""
    lines = []
    for name, errors in found.items():
        lines += [f"errors of {name} in percent, by severity from 1 to 5"]
        for kind, own in errors.items():
            lines.append(f"  {kind:18}" + "".join(f"{100 * one:7.2f}" for one in own))
    said = corruption_json(list(found.values()))
    lines.append(f"mean corruption error, unnormalised: {100 * said['mean_corruption_error_unnormalised']:.2f} %")
    if "mean_corruption_error" in said:
        over, relative = said["mean_corruption_error"], said["relative_mean_corruption_error"]
        lines.append(
            f"over the reference: mean corruption error {100 * over:.1f} %, "
            f"relative mean corruption error {100 * relative:.1f} %"
        )
    return lines


def _names_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate names of networks from overrides (``key=value``); the first word is always a name."""
    overrides = [word for word in words[1:] if _OVERRIDE.match(word) and "#" not in word]
    return [words[0], *(word for word in words[1:] if word not in overrides)], overrides


def only_root(overrides: Sequence[str]) -> Path | None:
    """Return the folder that ``dataset.root=...`` names.

    Raises:
        SpecError: for any other key.
    """
    from stnbench.config.locate import take_dataset_root
    from stnbench.config.resolve import parse_overrides

    source, others = take_dataset_root(parse_overrides(overrides))
    if others:
        raise SpecError(f"a stored trial has its own {others[0].key}", remedy="only dataset.root=... can be given")
    return source


def _tta(choice: str) -> TtaSpec:
    """Return the views of a choice in conf/tta.

    Raises:
        UnknownNameError: if there is no such choice.
    """
    from stnbench.config.compose import Composer
    from stnbench.config.locate import conf_folder
    from stnbench.config.resolve import resolve_trial

    spec = resolve_trial(Composer(conf_folder()), (Override(key="tta", value=choice),)).spec
    return spec.tta or TtaSpec()


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench evaluate",
        description="Scores a trained network on a split; several as an ensemble, their probabilities averaged.",
        epilog="Exit codes: 0 done, 2 cannot start.",
    )
    parser.add_argument("trial", help=NETWORK_HELP)
    more = "further networks, which makes an ensemble; dataset.root=DIR: the folder with the official files"
    parser.add_argument("more", nargs="*", metavar="TRIAL|dataset.root=DIR", help=more)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    tta = "a choice of conf/tta, over whose views probabilities are averaged (default: as the trial says)"
    parser.add_argument("--tta", metavar="NAME", help=tta)
    parser.add_argument("--views", dest="tta", action=FormerOption, metavar="NAME", help="the former name of --tta")
    without = "score also without the images of the split that an image trained on is equal to, or nearly equal to"
    parser.add_argument("--without-duplicates", choices=("equal", "near"), metavar="equal|near", help=without)
    corruptions = "score on images corrupted in 12 ways at 5 severities (Hendrycks & Dietterich 2019): 61 passes"
    parser.add_argument("--corruptions", action="store_true", help=corruptions)
    reference = "with --corruptions, the network whose errors they are divided by, as AlexNet's are in the paper"
    parser.add_argument("--reference", metavar="TRIAL", help=reference)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=whole(), default=available_cores(), help="CPU threads (default: %(default)s)")
    add_json(parser)
    return parser
