"""The Python API: functions to plan, run, load and export, which ``import stnbench`` imports on first use."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stnbench.config.axes import PointComposer, require_effects
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder, find_sweep, sweep_files, take_dataset_root
from stnbench.config.resolve import SLURM, parse_only, parse_overrides, take_engine_options
from stnbench.config.sweeps import UNTIL, read_sweep, require_same_sweep, with_own_name
from stnbench.core.command import tell_doing
from stnbench.core.files import RunsLayout, data_root, user_path
from stnbench.core.process import available_cores
from stnbench.engines import Slot
from stnbench.engines.slots import VISIBLE_VARIABLE, plan_slots, visible_gpus
from stnbench.engines.slurm_submission import plan_slurm_slots
from stnbench.orchestration.asking import RunOptions, RunSummary
from stnbench.orchestration.observer import Observer
from stnbench.orchestration.plan import (
    Experience,
    ImageDigests,
    Measure,
    SweepPlan,
    plan_sweep,
    read_experience,
    training_images,
    validation_images,
)
from stnbench.orchestration.session import (
    EngineName,
    Session,
    SessionOptions,
    find_digests,
    open_session,
    prepare_datasets,
    tracking_uri,
)
from stnbench.planning import ComposePoint, LimitedCompose, Planner, measure_trial, survey
from stnbench.planning.build import build_planner
from stnbench.report.exports import PRETRAINED, Exported, ExportOptions, export_trial, locate_network
from stnbench.spec.planner import SamplerSpec
from stnbench.spec.result import TrialState
from stnbench.spec.slurm import SlurmOptions
from stnbench.spec.sweep import Override, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial

if TYPE_CHECKING:  # torch
    import torch

    from stnbench.trials.export import TrainedClassifier

# A sweep as requested, on the command line or from Python: read, planned and run in one way.


@dataclass(frozen=True, slots=True)
class Question:
    """A sweep with its overrides, and the function that composes its trials.

    Attributes:
        sweep: the sweep.
        compose: composes trials from points of the axes.
        source: the folder that ``dataset.root`` names; None for the usual ones.
        slurm: options of the slurm engine.
        limited: ``compose`` within the limits of the sweep; None if it has none.
    """

    sweep: SweepSpec
    compose: PointComposer
    source: Path | None
    slurm: SlurmOptions
    limited: LimitedCompose | None

    @property
    def composer(self) -> ComposePoint:
        """Return the composer of trials from points, within the limits if the sweep has some."""
        return self.limited or self.compose

    def planner(self, slots: int) -> Planner:
        """Return the planner of the sweep for a number of trials that run at once."""
        return build_planner(self.sweep, self.composer, slots=slots)

    def slots(self, engine: EngineName, count: int | None = None, *, per_gpu: int = 1) -> int:
        """Return the number of trials that run at once; see ``places``."""
        return len(self.places(engine, count, per_gpu=per_gpu))

    def places(self, engine: EngineName, count: int | None = None, *, per_gpu: int = 1) -> tuple[Slot, ...]:
        """Return the slots in which trials run.

        Args:
            engine: the engine.
            count: the number of slots; if None, one for each GPU or core, or the number in the slurm options.
            per_gpu: the number of trials on one GPU.

        Raises:
            SpecError: if a number is below 1, or a GPU is not known.
            EngineError: if the driver does not answer.
        """
        if engine == SLURM:
            return plan_slurm_slots(self.slurm, slots=count, slots_per_gpu=per_gpu)
        return plan_slots(visible_gpus(), available_cores(), slots=count, per_gpu=per_gpu)

    def trials(self) -> list[TrialSpec]:
        """Return a trial of every configuration.

        Raises:
            SpecError: if a configuration is not valid.
        """
        return list(survey(self.sweep, self.composer))


def read_question(
    name: str,
    overrides: Sequence[str],
    *,
    engine: EngineName = "local",
    only: Sequence[str] = (),
    until: str | None = None,
) -> Question:
    """Read a sweep with its overrides, from the working directory and the package.

    Args:
        name: the name of a sweep, or the path of its file.
        overrides: ``key=value`` in Hydra's grammar.
        engine: the engine, whose options may be among the overrides (``engine.KEY=VALUE``).
        only: values to which axes are narrowed, ``AXIS=VALUES``.
        until: ``decided`` to add seeds until all verdicts are in.

    Raises:
        SpecError: if the sweep or an override is not valid, or an override has no effect.
    """
    composer = Composer(conf_folder())
    source, parsed = take_dataset_root(parse_overrides(list(overrides)))
    slurm, parsed = take_engine_options(parsed, engine, composer.folder)
    if until is not None:
        parsed = (Override(key=UNTIL, value=until), *parsed)
    sweep = read_sweep(find_sweep(name, Path.cwd()), composer, parsed, only=parse_only(list(only)))
    sweep = with_own_name(sweep, sweep_files(Path.cwd()))
    require_effects(sweep, composer)
    compose = PointComposer(sweep, composer)
    limits = sweep.limits
    limited = LimitedCompose(compose=compose, limits=limits, measure=measure_trial) if limits else None
    return Question(sweep=sweep, compose=compose, source=source, slurm=slurm, limited=limited)


def plan_question(
    question: Question, planner: Planner, layout: RunsLayout, *, slots: int, measure_in: Slot | None = None
) -> SweepPlan:
    """Plan a sweep from its planner's first proposals and the store, if there is one; nothing is written.

    Args:
        question: the sweep.
        planner: its planner.
        layout: the runs folder.
        slots: number of trials that run at once.
        measure_in: a slot of this machine in which a few steps of each configuration are timed; None to take the
            expected time from complete trials.

    Raises:
        SpecError: if the store has another sweep of this name.
    """
    from stnbench.models.scored_network import assess_cost  # imports torch, to build networks without memory

    planned = planner.ask()
    states: dict[str, TrialState] = {}
    experience: list[Experience] = []
    images = ImageDigests()
    if Store.exists(layout.store):
        with Store.open(layout.store, writable=False) as store:
            require_same_sweep(question.sweep, [record.spec for record in store.sweeps()])
            ids = [trial.spec.trial_id for trial in planned]
            states = store.trial_states(ids, sweep=question.sweep.name)
            experience = read_experience(store)
            recorded = {trial_id: found.digests for trial_id, found in store.environments(ids).items()}
        complete = {trial.spec.dataset for trial in planned if trial.spec.trial_id in recorded}
        found, superseded = find_digests(complete, data_root=data_root(), source=question.source)
        images = ImageDigests(found=found, recorded=recorded, superseded=superseded)
    return plan_sweep(
        question.sweep,
        planned,
        states=states,
        assess=assess_cost,
        experience=experience,
        slots=slots,
        points=_points(question.sweep, planned),
        notes=question.compose.notes,
        images=images,
        beyond=question.limited.refused if question.limited else None,
        measure=None if measure_in is None else _measure_in(measure_in),
    )


def _measure_in(slot: Slot) -> Measure:
    """Return the function that times a trial in a slot of this machine."""
    if slot.is_cuda:
        os.environ[VISIBLE_VARIABLE] = slot.device  # before CUDA starts in this process
    from stnbench.trials.run import time_trial  # imports torch

    asked = itertools.count(1)

    def measure(spec: TrialSpec) -> float:
        tell_doing(f"timing a few steps of configuration {next(asked)}")
        return time_trial(
            spec,
            device="cuda:0" if slot.is_cuda else "cpu",
            threads=slot.threads,
            train_images=training_images(spec),
            validation_images=validation_images(spec),
        )

    return measure


def run_question(
    session: Session,
    question: Question,
    trials: Sequence[TrialSpec],
    planner: Planner,
    options: RunOptions,
    observers: Sequence[Observer] = (),
) -> RunSummary:
    """Prepare the data sets of a sweep and run its trials in an open session.

    Args:
        session: the session.
        question: the sweep.
        trials: a trial of every configuration, as ``Question.trials`` returns them.
        planner: its planner.
        options: of the run; the folder of ``dataset.root`` and the data sets' digests are added.
        observers: receive the events of the run.

    Raises:
        SpecError: if the store has another sweep of this name.
        DataError: if a data set cannot be used.
    """
    require_same_sweep(question.sweep, [record.spec for record in session.store.sweeps()])
    datasets = dict.fromkeys(trial.dataset for trial in trials)
    tell_doing(f"reading {', '.join(dict.fromkeys(spec.kind for spec in datasets))}")
    digests = prepare_datasets(datasets, data_root=options.data_root, source=question.source)
    options = replace(options, source=question.source, digests=digests)
    return session.run(question.sweep, planner, options, observers)


def _points(sweep: SweepSpec, planned: Sequence[PlannedTrial]) -> int:
    """Return the number of points that the axes span; of a sampled space, the number of points drawn."""
    if isinstance(sweep.planner, SamplerSpec):
        return len({trial.spec.config_id for trial in planned if not trial.is_baseline})
    return sum(1 for _ in sweep.points())


# The functions of ``import stnbench``.


def load_trial(
    trial: str | os.PathLike[str],
    *,
    device: "str | torch.device" = "cpu",
    runs: str | os.PathLike[str] | None = None,
) -> "TrainedClassifier":
    """Load a trained network, ready for use.

    Nothing that is stored is executed, and an export is read only after its digests have been compared.

    Args:
        trial: a trial of the store, as in every command (``SWEEP:LABEL#SEED``, ``SWEEP:best``, an id or its beginning),
            the folder of an export, or ``pretrained:NAME``.
        device: the device of the network.
        runs: the runs folder; if None, ``$STNBENCH_RUNS``, or ``runs/`` in the working directory.

    Returns:
        A ``torch.nn.Module`` in evaluation mode that includes preprocessing, from images in [0, 255] to logits.
        ``predict`` returns names and probabilities; ``class_names`` are the classes and ``spec`` is the trial.

    Raises:
        StnbenchError: if there is no such trial, it is not complete, or its files cannot be used.

    Example:
        >>> network = stnbench.load_trial("locnet_sizes:best")  # doctest: +SKIP
        >>> network.predict(images).names  # doctest: +SKIP
        ('Speed limit (30km/h)', 'Yield')
    """
    import torch

    from stnbench.trials.export import TrainedClassifier

    located = locate_network(os.fspath(trial), _layout(runs))
    return TrainedClassifier(located.read(), torch.device(device))


def load_pretrained(name: str, *, device: "str | torch.device" = "cpu") -> "TrainedClassifier":
    """Load a network that was published with stnbench, from ``pretrained/`` of the working folder or of its repository.

    An installed stnbench holds no weights: copy the folder ``pretrained/NAME`` of the repository to where you work.

    Args:
        name: the name of its folder.
        device: the device of the network.

    Returns:
        The network, as from ``load_trial``. Its folder has a card with its accuracy, data and recipe.

    Raises:
        UnknownNameError: if there is no such folder; the message suggests the most similar names.
        ExportError: if its files are not as they were written.

    Example:
        >>> network = stnbench.load_pretrained("gtsrb-record-1")  # doctest: +SKIP
    """
    return load_trial(PRETRAINED + name, device=device)


def export(
    trial: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    with_onnx: bool = True,
    half: bool = False,
    note: str = "",
    dataset_root: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] | None = None,
) -> Exported:
    """Export a complete trial: its weights (safetensors), an ONNX file and a model card.

    Args:
        trial: a trial of the store, as in every command.
        folder: the folder to write; ``exports/<trial id>`` if None. An existing export is replaced.
        with_onnx: whether to write an ONNX file, whose outputs are first compared with torch.
        half: whether to store weights in half precision, which is refused if the network then errs on other images of
            the training half.
        note: a paragraph for the card.
        dataset_root: the folder with the files of the data set, which ``half`` reads; the data folder if None.
        runs: the runs folder; if None, ``$STNBENCH_RUNS``, or ``runs/`` in the working directory.

    Returns:
        The folder, the accuracy, and the files.

    Raises:
        StnbenchError: if the trial is not complete or cannot be exported; nothing is written then.
    """
    layout = _layout(runs)
    source = None if dataset_root is None else user_path(os.fspath(dataset_root), "dataset_root")
    options = ExportOptions(with_onnx=with_onnx, half=half, note=note, source=source)
    with Store.open(layout.store, writable=False) as store:
        return export_trial(store, layout, trial, None if folder is None else Path(folder), options)


def load_sweep(sweep: str, *overrides: str) -> SweepSpec:
    """Read a sweep file: its question, axes and seeds, as in ``stnbench sweep``.

    Args:
        sweep: a name, or the path of a file.
        overrides: as on the command line: ``"scale=smoke"``, ``"seeds=[1,2]"``.

    Raises:
        SpecError: if the sweep is not valid, with the file and the key.

    Example:
        >>> sweep = stnbench.load_sweep("locnet_sizes", "scale=smoke")
        >>> sweep.name
        'locnet_sizes-smoke'
    """
    return read_question(sweep, overrides).sweep


def plan(sweep: str, *overrides: str, runs: str | os.PathLike[str] | None = None) -> SweepPlan:
    """Plan a sweep without training: its configurations, their costs and states, and those that cannot be built.

    Args:
        sweep: a name, or the path of a file.
        overrides: as on the command line.
        runs: the runs folder; if None, ``$STNBENCH_RUNS``, or ``runs/`` in the working directory.

    Raises:
        SpecError: if the sweep is not valid.

    Example:
        >>> stnbench.plan("locnet_sizes", "scale=smoke", runs="nowhere").trials
        27
    """
    question = read_question(sweep, overrides)
    slots = question.slots("local")
    return plan_question(question, question.planner(slots), _layout(runs), slots=slots)


def run_sweep(
    sweep: str,
    *overrides: str,
    engine: EngineName = "local",
    slots: int | None = None,
    mlflow: bool = False,
    runs: str | os.PathLike[str] | None = None,
) -> RunSummary:
    """Run every trial of a sweep that is not complete; ``read_results`` reads the results.

    It can be stopped at any moment: called again, it continues from there. It writes no report.

    Args:
        sweep: a name, or the path of a file.
        overrides: as on the command line.
        engine: where attempts run, such as ``local`` (worker processes) or ``inline`` (this process).
        slots: the number of trials that run at once; if None, one for each GPU, or one for each core.
        mlflow: whether to log to MLflow.
        runs: the runs folder; if None, ``$STNBENCH_RUNS``, or ``runs/`` in the working directory.

    Returns:
        The numbers of trials that are complete, failed and pruned.

    Raises:
        StnbenchError: if the sweep cannot start.

    Example:
        >>> summary = stnbench.run_sweep("locnet_sizes", "scale=smoke", slots=2)  # doctest: +SKIP
        >>> summary.complete, summary.trials  # doctest: +SKIP
        (27, 27)
    """
    question = read_question(sweep, overrides, engine=engine)
    layout = _layout(runs)
    planner = question.planner(question.slots(engine, slots))
    trials = question.trials()
    uri = tracking_uri(layout) if mlflow else None
    options = SessionOptions(
        engine=engine, slots=slots, slurm=question.slurm, tracking_uri=uri, sweep=question.sweep.name
    )
    with open_session(layout, options) as session:
        return run_question(session, question, trials, planner, RunOptions(data_root=data_root()))


def _layout(runs: str | os.PathLike[str] | None) -> RunsLayout:
    layout = RunsLayout.from_environment()
    return layout if runs is None else RunsLayout(user_path(os.fspath(runs), "runs"))
