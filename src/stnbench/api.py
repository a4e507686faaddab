"""The Python API: functions to plan, run, load and export, which ``import stnbench`` imports on first use."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stnbench.core.paths import RunsLayout, user_path
from stnbench.report.exports import Exported, export_trial, locate_network
from stnbench.store.store import Store

if TYPE_CHECKING:  # torch
    import torch

    from stnbench.config.axes import PointComposer
    from stnbench.orchestration.plan import SweepPlan
    from stnbench.orchestration.runner import RunSummary
    from stnbench.orchestration.session import EngineName
    from stnbench.spec.sweep import SweepSpec
    from stnbench.trials.export import TrainedClassifier


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


def export(
    trial: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    with_onnx: bool = True,
    runs: str | os.PathLike[str] | None = None,
) -> Exported:
    """Export a complete trial: its weights (safetensors), an ONNX file and a model card.

    Args:
        trial: a trial of the store, as in every command.
        folder: the folder to write; ``exports/<trial id>`` if None. An existing export is replaced.
        with_onnx: whether to write an ONNX file, whose outputs are first compared with torch.
        runs: the runs folder; if None, ``$STNBENCH_RUNS``, or ``runs/`` in the working directory.

    Returns:
        The folder, the accuracy, and the files.

    Raises:
        StnbenchError: if the trial is not complete or cannot be exported; nothing is written then.
    """
    layout = _layout(runs)
    with Store.open(layout.store, writable=False) as store:
        return export_trial(store, layout, trial, None if folder is None else Path(folder), with_onnx=with_onnx)


def load_sweep(sweep: str, *overrides: str) -> "SweepSpec":
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
    return _ask(sweep, overrides)[0]


def plan(sweep: str, *overrides: str, runs: str | os.PathLike[str] | None = None) -> "SweepPlan":
    """Plan a sweep without training: its configurations and their costs, what is complete, what cannot be built.

    Args:
        sweep: a name, or the path of a file.
        overrides: as on the command line.
        runs: the runs folder; if None, ``$STNBENCH_RUNS``, or ``runs/`` in the working directory.

    Raises:
        SpecError: if the sweep is not valid.
    """
    from stnbench.config.sweeps import require_same_sweep
    from stnbench.core.process import available_cores
    from stnbench.engines.slots import plan_slots, visible_gpus
    from stnbench.orchestration.plan import plan_sweep, read_experience
    from stnbench.planning.build import build_planner
    from stnbench.spec.planner import SAMPLERS
    from stnbench.trials.assess import assess_cost

    spec, compose, _ = _ask(sweep, overrides)
    slots = len(plan_slots(visible_gpus(), available_cores()))
    planned = build_planner(spec, compose, slots=slots).ask()
    layout = _layout(runs)
    states, experience = {}, []
    if Store.exists(layout.store):
        with Store.open(layout.store, writable=False) as store:
            require_same_sweep(spec, [record.spec for record in store.sweeps()])
            states = store.trial_states([trial.spec.trial_id for trial in planned], sweep=spec.name)
            experience = read_experience(store)
    drawn = len({trial.spec.cell_id for trial in planned if not trial.is_twin})
    return plan_sweep(
        spec,
        planned,
        states=states,
        assess=assess_cost,
        experience=experience,
        slots=slots,
        points=drawn if spec.planner.kind in SAMPLERS else sum(1 for _ in spec.points()),
        notes=compose.notes,
    )


def run_sweep(
    sweep: str,
    *overrides: str,
    engine: "EngineName" = "local",
    slots: int | None = None,
    mlflow: bool = False,
    runs: str | os.PathLike[str] | None = None,
) -> "RunSummary":
    """Run every trial of a sweep that is not complete; ``read_results`` reads the results.

    It may be stopped at any moment, and continues from there when it is called again; no report is written.

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
    """
    from stnbench.config.sweeps import require_same_sweep
    from stnbench.core.paths import data_root
    from stnbench.core.process import available_cores
    from stnbench.engines.slots import plan_slots, visible_gpus
    from stnbench.orchestration.runner import RunOptions
    from stnbench.orchestration.session import SessionOptions, open_session, prepare_datasets, tracking_uri
    from stnbench.planning.build import build_planner
    from stnbench.planning.cells import survey

    spec, compose, source = _ask(sweep, overrides)
    layout = _layout(runs)
    count = len(plan_slots(visible_gpus(), available_cores(), slots=slots))
    planner = build_planner(spec, compose, slots=count)
    datasets = dict.fromkeys(trial.dataset for trial in survey(spec, compose))
    options = SessionOptions(engine=engine, slots=slots, tracking_uri=tracking_uri(layout) if mlflow else None)
    with open_session(layout, options) as session:
        require_same_sweep(spec, [record.spec for record in session.store.sweeps()])
        digests = prepare_datasets(datasets, data_root=data_root(), source=source)
        return session.run(spec, planner, RunOptions(data_root=data_root(), source=source, digests=digests))


def _ask(sweep: str, overrides: Sequence[str]) -> "tuple[SweepSpec, PointComposer, Path | None]":
    """Return a sweep with its overrides, the composer of its points, and the folder that ``dataset.root`` names."""
    from stnbench.config.axes import PointComposer, require_effects
    from stnbench.config.compose import Composer
    from stnbench.config.locate import conf_folder, find_sweep, sweep_files, take_dataset_root
    from stnbench.config.overrides import parse_overrides
    from stnbench.config.sweeps import read_sweep, with_own_name

    composer = Composer(conf_folder())
    source, others = take_dataset_root(parse_overrides(list(overrides)))
    spec = with_own_name(read_sweep(find_sweep(sweep, Path.cwd()), composer, others), sweep_files(Path.cwd()))
    require_effects(spec, composer)
    return spec, PointComposer(spec, composer), source


def _layout(runs: str | os.PathLike[str] | None) -> RunsLayout:
    layout = RunsLayout.from_environment()
    return layout if runs is None else RunsLayout(user_path(os.fspath(runs), "runs"))
