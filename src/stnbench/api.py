"""What the package offers to programs, beside layers and frames; ``import stnbench`` finds these names when asked."""

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

    Nothing that is stored is executed, and an export is read only after its digests were compared.

    Args:
        trial: of the store, as every command takes it (``SWEEP:LABEL#SEED``, ``SWEEP:best``, an id or its beginning);
            or the folder of an export; or ``pretrained:NAME``.
        device: where it computes.
        runs: the runs folder; ``$STNBENCH_RUNS``, or ``runs/`` here, where it is None.

    Returns:
        A ``torch.nn.Module`` in evaluation mode, preprocessing included: from images in [0, 255] to logits.
        ``predict`` gives names and probabilities, ``class_names`` the classes, ``spec`` the trial.

    Raises:
        StnbenchError: where there is no such trial, it is not complete, or what was stored cannot be used.

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
    """Export a complete trial: its weights (safetensors), an ONNX file and a card that says what it is.

    Args:
        trial: of the store, as every command takes it.
        folder: to write; ``exports/<trial id>`` where it is None. An export that is there is replaced.
        with_onnx: whether an ONNX file is written, which is compared with torch first.
        runs: the runs folder; ``$STNBENCH_RUNS``, or ``runs/`` here, where it is None.

    Returns:
        Where it lies, its accuracy, and the files.

    Raises:
        StnbenchError: where the trial is not complete or cannot be exported; nothing is written then.
    """
    layout = _layout(runs)
    with Store.open(layout.store, writable=False) as store:
        return export_trial(store, layout, trial, None if folder is None else Path(folder), with_onnx=with_onnx)


def load_sweep(sweep: str, *overrides: str) -> "SweepSpec":
    """Read a sweep file: its question, axes and seeds, as ``stnbench sweep`` reads them.

    Args:
        sweep: a name, or the path of a file.
        overrides: as on the command line: ``"scale=smoke"``, ``"seeds=[1,2]"``.

    Raises:
        SpecError: for what cannot be meant, naming the file and the key.

    Example:
        >>> sweep = stnbench.load_sweep("locnet_sizes", "scale=smoke")
        >>> sweep.name
        'locnet_sizes-smoke'
    """
    return _ask(sweep, overrides)[0]


def plan(sweep: str, *overrides: str, runs: str | os.PathLike[str] | None = None) -> "SweepPlan":
    """Plan a sweep: its configurations with cost, what is complete, what cannot be built; nothing is trained.

    Args:
        sweep: a name, or the path of a file.
        overrides: as on the command line.
        runs: the runs folder; ``$STNBENCH_RUNS``, or ``runs/`` here, where it is None.

    Raises:
        SpecError: for what cannot be meant.
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
    """Run every trial of a sweep that is not complete; ``read_results`` reads what came of it.

    It may be stopped at any moment, and goes on where it was; no report is written.

    Args:
        sweep: a name, or the path of a file.
        overrides: as on the command line.
        engine: where attempts run: ``local`` (worker processes) or ``inline`` (this process), for example.
        slots: how many trials run at once; one a GPU, or one a core, where it is None.
        mlflow: whether MLflow is shown what happens.
        runs: the runs folder; ``$STNBENCH_RUNS``, or ``runs/`` here, where it is None.

    Returns:
        How many trials are complete, failed and pruned.

    Raises:
        StnbenchError: where the sweep cannot start.
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
    """Return a sweep as overrides change it, what composes its points, and the folder that ``dataset.root`` names."""
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
