"""The Python API: functions to plan, run, load and export, which ``import stnbench`` imports on first use."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stnbench.core.paths import RunsLayout, user_path
from stnbench.report.exports import PRETRAINED, Exported, ExportOptions, export_trial, locate_network
from stnbench.store.store import Store

if TYPE_CHECKING:  # torch
    import torch

    from stnbench.orchestration.asking import RunSummary
    from stnbench.orchestration.plan import SweepPlan
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
    from stnbench.orchestration.question import read_question

    return read_question(sweep, overrides).sweep


def plan(sweep: str, *overrides: str, runs: str | os.PathLike[str] | None = None) -> "SweepPlan":
    """Plan a sweep without training: its configurations and their costs, what is complete, what cannot be built.

    Args:
        sweep: a name, or the path of a file.
        overrides: as on the command line.
        runs: the runs folder; if None, ``$STNBENCH_RUNS``, or ``runs/`` in the working directory.

    Raises:
        SpecError: if the sweep is not valid.

    Example:
        >>> stnbench.plan("locnet_sizes", "scale=smoke", runs="nowhere").trials
        34
    """
    from stnbench.orchestration.question import plan_question, read_question

    question = read_question(sweep, overrides)
    slots = question.slots("local")
    return plan_question(question, question.planner(slots), _layout(runs), slots=slots)


def run_sweep(
    sweep: str,
    *overrides: str,
    engine: "EngineName" = "local",
    slots: int | None = None,
    mlflow: bool = False,
    runs: str | os.PathLike[str] | None = None,
) -> "RunSummary":
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
        (34, 34)
    """
    from stnbench.core.paths import data_root
    from stnbench.orchestration.asking import RunOptions
    from stnbench.orchestration.question import read_question, run_question
    from stnbench.orchestration.session import SessionOptions, open_session, tracking_uri

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
