"""Exports of trained networks with their cards."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from stnbench.analysis.effects import Estimate, accuracy_estimate, wilson_estimate
from stnbench.config.locate import find_pretrained
from stnbench.core.errors import ExportError, SpecError
from stnbench.core.files import RunsLayout, data_root, user_path
from stnbench.core.process import available_cores
from stnbench.report.runs import TRIAL_HELP, find_trial, sweep_command
from stnbench.spec.codec import to_plain
from stnbench.spec.data import DatasetSpec, Split
from stnbench.spec.result import SplitScore
from stnbench.spec.sweep import SweepSpec
from stnbench.store.queries import StoreReader
from stnbench.store.store import Store
from stnbench.store.tables import Outcome, TrialRecord

# Exports of trials from the store, and their cards, which describe the network, its accuracy and its training.

if TYPE_CHECKING:  # imports torch
    from stnbench.trials.export import ExportRecord, HalfCheck, StoredNetwork

PRETRAINED: Final = "pretrained:"
"""The prefix of the name of an export in ``pretrained/``."""

NETWORK_HELP: Final = f"{TRIAL_HELP}; or the folder of an export, or {PRETRAINED}NAME"

FOLDER: Final = Path("exports")
"""The default folder of exports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A trial that was exported.

    Attributes:
        folder: the folder of the export.
        trial_id: the identity of the trial.
        name: its name for people.
        validation: its accuracy on held-out images; None where it was trained on all images.
        test: its accuracy on the test half; None where there was none.
        onnx_difference: the largest difference between the logits of torch and of the ONNX file; None without one.
        files: the size of each file in bytes, by name.
    """

    folder: Path
    trial_id: str
    name: str
    validation: Estimate | None
    test: Estimate | None
    onnx_difference: float | None
    files: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        with_onnx: whether an ONNX file is written as well.
        half: whether weights are stored in half precision, if that makes no image of the training half right or wrong.
        note: text of the card beside the scores, in Markdown.
        source: the folder with the files of the data set, which ``half`` reads; if None, the data folder.
    """

    with_onnx: bool = True
    half: bool = False
    note: str = ""
    source: Path | None = None


def export_trial(
    store: StoreReader,
    layout: RunsLayout,
    name: str,
    folder: Path | None = None,
    options: ExportOptions = ExportOptions(),
) -> Exported:
    """Export a complete trial of the store.

    Args:
        store: the store with the trial.
        layout: the runs folder with its checkpoint.
        name: the name of the trial, as every command takes it.
        folder: the folder to write; ``exports/<trial id>`` by default.
        options: the files to write and their precision.

    Raises:
        SpecError: if the trial is not complete.
        ExportError: if half precision makes an image right or wrong.
        StnbenchError: if its checkpoint is missing, or it cannot be exported.
    """
    from stnbench.trials.export import StoredNetwork, new_record, write_export

    trial = find_trial(store, name)
    outcome = complete_outcome(store, trial)
    stored = StoredNetwork.of_attempt(layout.attempt(trial.trial_id, outcome.attempt))
    label = f"{trial.sweep}: {trial.label}, seed {trial.seed}"
    half = None
    if options.half:
        rounded = stored.rounded_to_half()
        half = _check_half(stored, rounded, options.source)
        stored = rounded
    record = new_record(
        stored,
        name=label,
        validation=_plain(outcome.validation) if trial.spec.has_held_out_images else None,
        test=None if outcome.test is None else _plain(outcome.test),
        cost=outcome.cost,
        environment=outcome.environment,
        train_duration_s=outcome.train_duration_s,
        half=half,
        note=options.note,
    )
    facts = _Facts.of(store, trial, chosen_as=name)

    def card(sizes: Mapping[str, int], difference: float | None) -> str:
        return "\n".join(card_lines(record, facts, sizes, difference)) + "\n"

    folder = FOLDER / trial.trial_id if folder is None else folder
    difference = write_export(folder, stored, record, card, with_onnx=options.with_onnx)
    return Exported(
        folder=folder,
        trial_id=trial.trial_id,
        name=label,
        validation=_estimate(record.validation),
        test=_estimate(record.test),
        onnx_difference=difference,
        files={path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    )


def _check_half(stored: "StoredNetwork", rounded: "StoredNetwork", source: Path | None) -> "HalfCheck":
    """Compare a network with its rounded form on every image that it was trained on or held out.

    Raises:
        ExportError: if an image becomes right or wrong.
        DataError: if the images cannot be used.
    """
    from stnbench.trials.export import HalfCheck
    from stnbench.trials.score import compare_networks

    splits: tuple[Split, ...] = ("train", "validation") if stored.spec.has_held_out_images else ("train",)
    found = [
        compare_networks(stored, rounded, split, data_root=data_root(), source=source, threads=available_cores())
        for split in splits
    ]
    images, flipped = sum(one.images for one in found), sum(one.flipped for one in found)
    if flipped:
        problem = f"in half precision the trial {stored.spec.trial_id} errs on other images ({flipped} of {images:,})"
        raise ExportError(problem, remedy="export it without --half")
    return HalfCheck(images=images, changed=sum(one.changed for one in found))


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """A trained network that was found by name: a complete trial of the store, or an export.

    Attributes:
        name: its name for people.
        trial_id: the identity of its trial.
        folder: the folder of the attempt, or of the export.
        is_export: whether it is an export.
        label: the label of its configuration.
        seed: the seed of its trial.
    """

    name: str
    trial_id: str
    folder: Path
    is_export: bool
    label: str
    seed: int

    def read(self) -> "StoredNetwork":
        """Read the network.

        Raises:
            StnbenchError: if it is missing or damaged.
        """
        from stnbench.trials.export import StoredNetwork, read_export

        return read_export(self.folder) if self.is_export else StoredNetwork.of_attempt(self.folder)


def locate_network(name: str, layout: RunsLayout) -> Located:
    """Find a trained network.

    Args:
        name: the name of a complete trial, as every command takes it; or the folder of an export, or
            ``pretrained:NAME``.
        layout: the runs folder with the trials.

    Raises:
        StnbenchError: if there is no such network, or its trial is not complete.
    """
    folder = _export_folder(name)
    if folder is not None:
        from stnbench.trials.export import read_record

        record = read_record(folder)
        return Located(
            name=record.name, trial_id=record.trial_id, folder=folder, is_export=True, label=record.name,
            seed=record.spec.seed,
        )  # fmt: skip
    with Store.open(layout.store, writable=False) as store:
        trial = find_trial(store, name)
        outcome = complete_outcome(store, trial)
    return Located(
        name=f"{trial.label} \u00b7 seed {trial.seed}",
        trial_id=trial.trial_id,
        folder=layout.attempt(trial.trial_id, outcome.attempt),
        is_export=False,
        label=trial.label,
        seed=trial.seed,
    )


def _export_folder(name: str) -> Path | None:
    """Return the folder of the export that a name means, or None where it means a trial."""
    from stnbench.trials.export import is_export

    if name.startswith(PRETRAINED):
        return find_pretrained(name.removeprefix(PRETRAINED), Path.cwd())
    folder = user_path(name, "the export") if name else Path()
    is_path = os.sep in name and folder.is_dir()
    return folder if name and (is_path or is_export(folder)) else None


def complete_outcome(store: StoreReader, trial: TrialRecord) -> Outcome:
    """Return the outcome of a trial.

    Raises:
        SpecError: if it is not complete.
    """
    outcome = store.outcome(trial.trial_id)
    if outcome is None:
        raise SpecError(f"trial {trial.trial_id} is {trial.state}", remedy="name one that is complete")
    return outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    """Facts of a card from the store: the configuration over its seeds, and how the trial was chosen.

    ``candidates`` is the number of trials that the trial was chosen among for its score, 0 where it was not.
    """

    sweep: SweepSpec | None
    seeds: tuple[int, ...]
    validation: Estimate | None
    test: Estimate | None
    candidates: int

    @classmethod
    def of(cls, store: StoreReader, trial: TrialRecord, *, chosen_as: str) -> "_Facts":
        sweep = next((record.spec for record in store.sweeps() if record.spec.name == trial.sweep), None)
        trials, outcomes = store.sweep_trials(trial.sweep), store.outcomes(trial.sweep)
        own = [other for other in trials if other.config_id == trial.config_id and other.trial_id in outcomes]
        scores = [outcomes[other.trial_id] for other in own]
        tests = [score.test for score in scores if score.test is not None]
        is_held_out = trial.spec.has_held_out_images
        by_score = chosen_as.split(":")[-2:]
        return cls(
            sweep=sweep,
            seeds=tuple(other.seed for other in own),
            validation=_over_seeds([score.validation for score in scores]) if is_held_out else None,
            test=_over_seeds(tests),
            candidates=len(outcomes) if "best" in by_score else 0,
        )


def _over_seeds(scores: Sequence[SplitScore]) -> Estimate | None:
    if len(scores) < 2:
        return None
    return accuracy_estimate([score.correct for score in scores], [score.images for score in scores])


def _estimate(score: SplitScore | None) -> Estimate | None:
    return None if score is None else wilson_estimate(score.correct, score.images)


def _plain(score: SplitScore) -> SplitScore:
    return replace(score, predictions=(), scored=None)


def card_lines(
    record: "ExportRecord", facts: _Facts, sizes: Mapping[str, int], difference: float | None
) -> Iterator[str]:
    """Yield the lines of the card of an export, in Markdown.

    Args:
        record: the record of the export.
        facts: of its configuration, from the store.
        sizes: the size of each file in bytes, by name.
        difference: the largest difference between the logits of torch and of the ONNX file; None without one.
    """
    spec, environment = record.spec, record.environment
    channels, side = spec.dataset.channels, spec.dataset.image_size
    yield f"# {_escaped(record.name)}"
    yield ""
    yield (
        f"A classifier of {channels} x {side} x {side} images into {len(record.class_names)} classes, trained with "
        f"[stnbench](https://pypi.org/project/stnbench/) {record.stnbench} as the trial `{record.trial_id}`: "
        f"{record.cost.parameters:,} parameters, {record.cost.flops:,} FLOPs an image."
    )
    yield from _accuracy(record, facts)
    yield from ("", "## Use", "", "```python", "import stnbench", "")
    yield 'network = stnbench.load_trial("THIS/FOLDER")  # torch.nn.Module in evaluation mode'
    yield f"logits = network(images)  # (batch, {channels}, {side}, {side}), uint8 or floats in [0, 255]"
    yield from ("network.predict(images).names", "```", "")
    yield "Preprocessing is part of it. `stnbench evaluate THIS/FOLDER --split test` scores it."
    if difference is not None:
        yield ""
        yield (
            f"`network.onnx` takes `images`, float32 in [0, 255] of shape (batch, {channels}, {side}, {side}), "
            "preprocesses them and gives the logits as `output`. It differs from torch by at most "
            f"{difference:.1g} on the images it was compared on."
        )
        if spec.tta is not None:
            yield f"It evaluates each image once; the scores above are means over {spec.tta.count} views of each."
    yield from ("", "Classes, in the order of the logits: " + ", ".join(map(_escaped, record.class_names)) + ".")
    yield from ("", "## Data", "")
    digests = ", ".join(f"{half} half `{digest}`" for half, digest in environment.digests.items())
    yield f"Data set `{spec.dataset.kind}`; digest of what was read: {digests or 'not recorded'}."
    yield f"Licence: {data_licence(spec.dataset)}."
    yield from _recipe(record, facts)
    yield from _files(sizes)


def _files(sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the table of the files."""
    yield from ("", "## Files", "", "| file | bytes |", "|---|---|")
    yield from (f"| {name} | {size:,} |" for name, size in sizes.items())
    yield ""
    yield "`sha256sum -c SHA256SUMS` checks them; loading does so by itself. stnbench is under the MIT licence."


def _accuracy(record: "ExportRecord", facts: _Facts) -> Iterator[str]:
    """Yield the table of scores and the caveats on them."""
    yield from ("", "## Accuracy", "")
    if rows := [*_scores(record, facts)]:
        yield from ("| split | accuracy, % [95 % interval] | n | method |", "|---|---|---|---|", *rows, "")
    yield from _caveats(record, facts)


def _scores(record: "ExportRecord", facts: _Facts) -> Iterator[str]:
    """Yield the rows of the table of scores, none for a network without a score."""
    for score in (record.validation, record.test):
        if score is not None:
            wrong = score.images - score.correct
            n = f"{score.images:,} images, {wrong:,} errors"
            yield f"| {score.split} | {_percent(_estimate(score))} | {n} | this network, Wilson over images |"
    seeds = f"{len(facts.seeds)} seeds ({', '.join(map(str, facts.seeds))})"
    for split, estimate in (("validation", facts.validation), ("test", facts.test)):
        if estimate is not None:
            yield f"| {split} | {_percent(estimate)} | {seeds} | its configuration, {estimate.method} |"


def _recipe(record: "ExportRecord", facts: _Facts) -> Iterator[str]:
    """Yield how the network was trained: command, specification, code, machine and libraries."""
    spec, environment = record.spec, record.environment
    yield from ("", "## Recipe", "")
    if facts.sweep is not None:
        yield f"`{sweep_command(facts.sweep)}`, of which this is one trial; in full:"
        yield ""
    yield from ("```yaml", yaml.safe_dump(to_plain(spec), sort_keys=False, allow_unicode=True).rstrip(), "```", "")
    state = " with changes that are not committed" if environment.dirty else ""
    yield (
        f"Commit `{environment.commit}`{state}; Python {environment.python}, {environment.platform}, "
        f"on {environment.device} in {record.train_duration_s:,.0f} s; "
        + ", ".join(f"{name} {version}" for name, version in environment.versions)
        + "."
    )


def _caveats(record: "ExportRecord", facts: _Facts) -> Iterator[str]:
    if record.validation is None:
        yield "It was trained on all images of the training half, so there is no score on images held out of it."
    elif facts.candidates:
        yield (
            f"It was chosen as one of the best of {facts.candidates} by its accuracy on the validation images, which "
            "is therefore a little too high; the test images chose nothing."
        )
    if record.test is None:
        yield "It was not scored on test images: there were none where it was trained."
    if record.half is not None:
        yield (
            f"Weights are stored in half precision: of {record.half.images:,} images of the training half the network "
            f"classifies {record.half.images - record.half.changed:,} as before, and is right and wrong on the same."
        )
    if record.note:
        yield from ("", record.note, "")
    if len(facts.seeds) < 2:
        yield "One seed says nothing of how another would have done."


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.mean:.2f}"
    return f"{100 * estimate.mean:.2f} [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"


def _escaped(text: str) -> str:
    """Return text escaped for Markdown, on one line."""
    flat = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>()#|!" else letter for letter in flat)


def data_licence(spec: DatasetSpec) -> str:
    """Return the licence of a data set, escaped for Markdown."""
    return _escaped(spec.licence)
