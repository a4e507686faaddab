"""Execution of a trial, from its specification to its result; the only entry to torch."""

import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

import stnbench
from stnbench.core.errors import CheckpointError, DataCorruptError, DataMissingError
from stnbench.core.files import AttemptLayout, writable_folder
from stnbench.core.identity import code_version, library_version
from stnbench.data import SplitRows
from stnbench.data.build import dataset_info
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.data.resident import DeviceImages
from stnbench.models.scored_network import build_model, measure_cost
from stnbench.spec.data import Split
from stnbench.spec.metrics import measure
from stnbench.spec.result import Environment, EpochRecord, ScoredImages, SplitScore, TrialResult, show_digests
from stnbench.spec.trial import ComputeOptions, Precision, TrialSpec
from stnbench.training.device import (
    DeviceSpec,
    MemoryMeter,
    device_name,
    gpu_driver,
    numerics,
    prepare_device,
    process_settings_kept,
)
from stnbench.training.energy import EnergyMeter
from stnbench.training.evaluate import Evaluation, evaluate
from stnbench.training.loop import (
    Checkpoint,
    CheckpointKeeper,
    Hooks,
    Progress,
    TrainingOutcome,
    read_checkpoint,
    train,
    write_checkpoint,
)
from stnbench.training.optim import WeightAverage, build_optimizer, optimizer_state
from stnbench.training.step import WARM_UP_STEPS, TrainingRun, build_step
from stnbench.trials.files import write_probabilities, write_result, write_spec
from stnbench.trials.score import (
    DataSource,
    TrainingData,
    open_test_images,
    open_training_data,
    require_unchanged,
    scored_test_images,
)
from stnbench.trials.watch import SnapshotRecorder

# The environment of a result: code, libraries, machine, data.


LIBRARIES = ("numpy", "stnbench", "torch", "torchvision")


_NO_OPTIONS = ComputeOptions()


def describe_environment(
    device: DeviceSpec,
    *,
    dataset_digest: str,
    parts: int = 1,
    precision: Precision = "float32",
    compute: ComputeOptions = _NO_OPTIONS,
) -> Environment:
    """Return the environment of this process as recorded with a result; ``parts`` is the number of micro-batches."""
    code = code_version(Path(stnbench.__file__).parent)
    return Environment(
        commit=code.commit,
        dirty=code.dirty,
        python=platform.python_version(),
        platform=platform.platform(),
        host=platform.node(),
        device=device_name(device),
        threads=device.threads,
        versions=_versions(device),
        dataset_digest=dataset_digest,
        micro_batches=parts,
        compute=str(compute),
        driver=gpu_driver() if device.kind == "cuda" else "",
        numerics=numerics(device, precision),
    )


def _versions(device: DeviceSpec) -> tuple[tuple[str, str], ...]:
    versions = [(name, version) for name in LIBRARIES if (version := library_version(name))]
    if device.kind == "cuda":
        versions += [("cuda", str(torch.version.cuda)), ("cudnn", str(torch.backends.cudnn.version()))]
    return tuple(versions)


def run_trial(  # noqa: PLR0913 - plain arguments, since engines pass them across a process border
    spec: TrialSpec,
    *,
    token: str,
    folder: Path,
    data_root: Path,
    device: str,
    threads: int,
    report: Callable[[EpochRecord], None],
    should_stop: Callable[[], bool],
    resume_from: Sequence[Path] = (),
    micro_batches: int = 1,
    warn: Callable[[str], None] = lambda _: None,
    source: Path | None = None,
    energy: EnergyMeter | None = None,
) -> TrialResult | None:
    """Train and score one trial, and write ``spec.json``, ``checkpoint.pt`` and ``result.json`` to its folder.

    The class probabilities of every scored split are written as well. If the trial has spatial transformers,
    ``snapshots.npy`` records their effect on images during the training.

    A run resumes from the checkpoint in its folder, or else from the first in ``resume_from`` that can be read; without
    one it starts from the beginning. Test images are scored once, after training, and never reported.

    Args:
        spec: the trial.
        token: identifier of the attempt in its result.
        folder: folder of the attempt; created if it is missing.
        data_root: the data folder.
        source: the folder that ``dataset.root`` names; the data folder if it is None.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of CPU threads.
        report: called after every epoch; its checkpoint is on the disk by then, or half a minute later if writing
            checkpoints is slow.
        should_stop: called before every step.
        resume_from: the folders of earlier attempts of the same trial, the latest first.
        micro_batches: number of parts in which each batch is computed, where memory is short. Gradients are
            accumulated, so the result is the same except for rounding, and for batch normalisation, which sees smaller
            batches.
        warn: receives a warning for each checkpoint that cannot be read or does not fit, and if the commit of the code
            cannot be determined.
        energy: meter of the attempt; without one, no energy is recorded.

    Returns:
        The result, as written; None if ``should_stop`` ended the run.

    Raises:
        SpecError, DataError, EngineError, DivergedError, FolderError, torch.OutOfMemoryError: as classified by
            ``failures.classify``.
        OSError: if the disk is full.
    """
    where = DeviceSpec.parse(device, threads=threads)
    target = prepare_device(where, spec.training.precision)
    images = DataSource(dataset=spec.dataset, root=data_root, workers=threads, device=target, source=source)
    memory, meter = MemoryMeter(target), energy or EnergyMeter()
    _begin(folder, spec, warn)
    data = open_training_data(images, spec.split, spec.preprocess.contrast)
    run, progress, earlier = _start(lambda: _prepare(spec, data, target, micro_batches), (folder, *resume_from), warn)
    snapshots = SnapshotRecorder(run, folder, earlier=earlier, step=progress.step)
    saving = _Saving(run=run, data=data, memory=memory, snapshots=snapshots, folder=folder, warn=warn)
    outcome = saving.train(progress, report=report, should_stop=should_stop, measured=meter.of_epoch)
    if outcome.validation is None:
        return None
    test = _score_test(run, images)
    require_unchanged(data.images, *(() if test is None else (test.images,)))
    records = outcome.progress.records
    result = TrialResult(
        trial_id=spec.trial_id,
        token=token,
        epochs=records,
        validation=_measured(outcome.validation, "validation", data.validation_images(), warn, meter.of_trial(records)),
        test=None if test is None else _measured(test.evaluation, "test", test.scored, warn),
        cost=measure_cost(spec, classes=data.classes),
        environment=_environment(where, run, _digests(data.images, test)),
        train_duration_s=sum(record.train_duration_s for record in records),
        peak_memory_mib=memory.peak_mib,
    )
    _write(folder, result, outcome.validation, test)
    saving.require_kept()
    return result


def _begin(folder: Path, spec: TrialSpec, warn: Callable[[str], None]) -> None:
    """Warn if the version of the code is uncertain, and write the specification of an attempt to its folder."""
    code = code_version(Path(stnbench.__file__).parent)
    if code.problem:
        warn(f"the commit is recorded as {code.commit}, with changes: {code.problem}")
    write_spec(writable_folder(folder, "an attempt", remedy="set STNBENCH_RUNS to a folder that can be written"), spec)


@dataclass(kw_only=True, slots=True)
class _Saving:
    """Writer of the checkpoints and snapshots of a run to the folder of its attempt."""

    run: TrainingRun
    data: TrainingData
    memory: MemoryMeter
    snapshots: SnapshotRecorder
    folder: Path
    warn: Callable[[str], None]
    keeper: CheckpointKeeper = field(init=False)
    _is_on_disk: bool = False

    def __post_init__(self) -> None:
        self.keeper = CheckpointKeeper(self._write)

    def save(self, progress: Progress) -> None:
        """Keep the state after an epoch; the last one is written at once, and so is one whose file was removed."""
        self.memory.sample()
        is_last = progress.epochs == self.run.spec.training.epochs
        is_gone = self.is_gone()
        if is_gone:
            self.warn(f"the checkpoint {self._path} was removed while the attempt used it; it is written again")
        self.keeper.keep(_snapshot(self.run, self.data, progress), at_once=is_last or is_gone)

    @property
    def _path(self) -> Path:
        return AttemptLayout(self.folder).checkpoint

    def is_gone(self) -> bool:
        """Check whether the checkpoint that this attempt has written is no longer there."""
        return self._is_on_disk and not self._path.exists()

    def require_kept(self) -> None:
        """Warn if the last checkpoint was removed after the last epoch; the result holds without it."""
        if self.is_gone():
            self.warn(
                f"the checkpoint {self._path} was removed while the attempt used it; without it the trained network "
                "cannot be evaluated or exported"
            )

    def train(
        self,
        progress: Progress,
        *,
        report: Callable[[EpochRecord], None],
        should_stop: Callable[[], bool],
        measured: Callable[[], dict[str, float]],
    ) -> TrainingOutcome:
        """Train; if that ends early, the checkpoint of the last whole epoch is written nevertheless."""
        snapshot = self.snapshots.take
        hooks = Hooks(save=self.save, report=report, should_stop=should_stop, snapshot=snapshot, measured=measured)
        try:
            outcome = train(self.run, hooks, progress)
        except Exception:
            # The error of the training has priority: without a disk or a device there is nothing to save.
            with contextlib.suppress(OSError, RuntimeError, DataCorruptError):
                self.keeper.flush()
            raise
        self.keeper.flush()
        is_whole = outcome.validation is not None
        if (
            is_whole and progress.epochs and outcome.progress == progress
        ):  # nothing was left to train: the folder still gets a checkpoint
            self.save(progress)
        return outcome

    def _write(self, checkpoint: Checkpoint) -> None:
        require_unchanged(self.data.images)  # an attempt that goes on from here has seen the images of its data set
        self.snapshots.save()
        write_checkpoint(self._path, checkpoint)
        self._is_on_disk = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Tested:
    evaluation: Evaluation
    scored: ScoredImages
    images: DeviceImages


def _prepare(spec: TrialSpec, data: TrainingData, device: torch.device, micro_batches: int) -> TrainingRun:
    compute = ComputeOptions.for_trial(spec, is_on_gpu=device.type == "cuda")
    model = build_model(spec, data.statistics, classes=data.classes, device=device, compute=compute)
    network = model.network
    optimizer = build_optimizer(
        spec.optimizer,
        classifier=network.classifier_parameters(),
        localization=network.localization_parameters(),
        outputs=network.output_parameters(),
    )
    return TrainingRun(
        spec=spec,
        model=model,
        optimizer=optimizer,
        images=data.images_for(spec.preprocess),
        train=data.training_rows(spec.training.train_images, seed=spec.seed),
        validation=data.validation_rows(),
        average=WeightAverage(network, spec.training.weight_average) if spec.training.weight_average else None,
        micro_batches=micro_batches,
    )


def _start(
    prepare: Callable[[], TrainingRun], folders: Sequence[Path], warn: Callable[[str], None]
) -> tuple[TrainingRun, Progress, Path | None]:
    """Prepare a run, and restore its network and optimiser from a checkpoint if there is one.

    A checkpoint that cannot be read, does not fit, or saw other images is skipped: the run resumes from the next one,
    or starts from the beginning.

    Returns:
        The run, its progress, and the folder of the checkpoint; None if there is none.
    """
    run = prepare()
    trial_id = run.spec.trained_as.trial_id
    for path in (AttemptLayout(folder).checkpoint for folder in folders):
        if not path.exists():
            if path.parent != folders[0]:  # the folder of this attempt has none unless it is run again by hand
                warn(f"the checkpoint {path} was removed before it was read; it is left out")
            continue
        try:
            checkpoint = read_checkpoint(path, trial_id=trial_id)
        except CheckpointError as error:
            warn(f"{error.problem}; it is left out")
            continue
        if checkpoint.images not in {"", run.images.digest}:
            warn(f"the checkpoint {path} is of other images (digest {checkpoint.images}); it is left out")
            continue
        try:
            checkpoint.restore(run.model.network, run.optimizer, run.average)
        except CheckpointError as error:
            warn(f"{error.problem} ({path}); it is left out")
            run = prepare()  # the network may hold a part of it
        else:
            return run, checkpoint.progress, path.parent
    return run, Progress(), None


def _snapshot(run: TrainingRun, data: TrainingData, progress: Progress) -> Checkpoint:
    return Checkpoint(
        trial_id=run.spec.trained_as.trial_id,
        classes=data.classes,
        statistics=data.statistics,
        progress=progress,
        network=run.model.network.state_dict(),
        optimizer=optimizer_state(run.optimizer),
        average={} if run.average is None else run.average.state(),
        images=data.images.digest,
    )


def _environment(device: DeviceSpec, run: TrainingRun, digests: str) -> Environment:
    """Return the environment of a run, with how it was computed."""
    return describe_environment(
        device,
        dataset_digest=digests,
        parts=run.micro_batches,
        precision=run.spec.training.precision,
        compute=run.model.compute,
    )


def _score_test(run: TrainingRun, source: DataSource) -> _Tested | None:
    """Score the test half; return None if there is none on this machine."""
    try:
        images = open_test_images(source)
    except DataMissingError:
        return None
    evaluation = evaluate(run.model, images, images.all_rows())
    return _Tested(evaluation=evaluation, scored=scored_test_images(images), images=images)


def _measured(
    evaluation: Evaluation,
    split: Split,
    scored: ScoredImages,
    warn: Callable[[str], None],
    energy: Mapping[str, float] | None = None,
) -> SplitScore:
    """Return the score of a split with its images and metrics, the energy of the trial among them."""
    metrics = measure(evaluation.probabilities, np.array(scored.labels, np.int64), warn=warn)
    return replace(evaluation.score(split), scored=scored, metrics={**metrics, **(energy or {})})


def _write(folder: Path, result: TrialResult, validation: Evaluation, test: _Tested | None) -> None:
    """Write the probabilities, then the result, so that they exist if it does."""
    write_probabilities(folder, "validation", validation.probabilities)
    if test is not None:
        write_probabilities(folder, "test", test.evaluation.probabilities)
    write_result(folder, result)


def _digests(train_half: DeviceImages, test: _Tested | None) -> str:
    return show_digests({"train": train_half.digest} | ({} if test is None else {"test": test.images.digest}))


# The time that a trial should take, measured before it runs.

_TIMED_STEPS = 3
_TIMED_IMAGES = 250
"""Number of images that are scored, a whole batch."""


def time_trial(
    spec: TrialSpec,
    *,
    device: str,
    threads: int,
    train_images: int,
    validation_images: int,
    clock_s: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the expected duration of a trial's training in seconds, from a few steps on random images.

    The network is built, some steps and one pass over images are timed (after others, which are slower), and multiplied
    by their numbers in the training; an image that is preprocessed once is counted once. Nothing is read or written.
    The start of a process, opening the data and scoring test images are left out, and no other trial runs beside it.

    Args:
        spec: the trial.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of CPU threads.
        train_images: number of images of an epoch.
        validation_images: number of images that are scored after every epoch.
        clock_s: returns seconds from any origin.

    Raises:
        InfeasibleError: if no network can be built.
    """
    batch, warm_up = spec.training.batch_size, WARM_UP_STEPS + 1
    with process_settings_kept():
        target = prepare_device(DeviceSpec.parse(device, threads=threads), spec.training.precision)
        data = _random_data(spec, batch * (warm_up + _TIMED_STEPS), target)
        short = replace(spec, training=replace(spec.training, train_images=None, drop_last="incomplete"))
        begins_s = clock_s()
        run = _prepare(short, data, target, 1)
        prepared_s = 0.0
        if run.images.prepared is not None:
            run.images.prepared.rows(run.images.all_rows())
            prepared_s = (clock_s() - begins_s) / len(run.images)
        step, durations_s = build_step(run), []
        try:
            step.begin_epoch(0, 0)
            for _ in range(warm_up + _TIMED_STEPS):
                begins_s = clock_s()
                step.take()
                float(step.losses[-1])  # waits for the device
                durations_s.append(clock_s() - begins_s)
        finally:
            step.close()
        evaluate(run.model, run.images, run.validation)
        begins_s = clock_s()
        evaluate(run.model, run.images, run.validation)
        scored_s = (clock_s() - begins_s) / len(run.validation)
    step_s = statistics.median(durations_s[warm_up:])
    epoch_s = train_images / batch * step_s + validation_images * scored_s
    return spec.training.epochs * epoch_s + (train_images + validation_images) * prepared_s


def _random_data(spec: TrialSpec, train_images: int, device: torch.device) -> TrainingData:
    """Return random images of the size and classes of a trial's data set; the validation images are further ones."""
    count, side, channels = train_images + _TIMED_IMAGES, spec.dataset.image_size, spec.dataset.channels
    classes = len(dataset_info(spec.dataset).class_names)
    drawn = torch.Generator().manual_seed(0)
    images = DeviceImages(
        images=torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=drawn).to(device),
        labels=torch.randint(0, classes, (count,), generator=drawn).to(device),
        boxes=torch.tensor([-1.0, -1.0, 1.0, 1.0]).repeat(count, 1).to(device),
        poses=torch.eye(3).repeat(count, 1, 1).to(device),
        digest="",
    )
    rows = np.arange(count)
    return TrainingData(
        images=images,
        split=SplitRows(train=rows[:train_images], validation=rows[train_images:]),
        tracks=np.zeros(count, np.int64),
        frames=np.zeros(count, np.int64),
        statistics=GlobalStatistics(mean=0.5, std=0.25),
        classes=classes,
    )
