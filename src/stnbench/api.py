"""What the package offers to programs, beside layers and frames; ``import stnbench`` finds these names when asked."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stnbench.core.paths import RunsLayout, user_path
from stnbench.report.exports import Exported, export_trial, locate_network
from stnbench.store.store import Store

if TYPE_CHECKING:  # torch
    import torch

    from stnbench.trials.trained import TrainedClassifier


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

    from stnbench.trials.trained import TrainedClassifier

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


def _layout(runs: str | os.PathLike[str] | None) -> RunsLayout:
    layout = RunsLayout.from_environment()
    return layout if runs is None else RunsLayout(user_path(os.fspath(runs), "runs"))
