"""Export of modules that read images to ONNX files, compared with torch before they are written."""

import importlib.util
import os
import tempfile
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from stnbench.core.errors import ExportError, ShapeError

TOLERANCE: Final = 1e-4
"""Largest absolute difference between torch and onnxruntime that an export may have."""

_BATCHES: Final = (1, 3)
"""Batch sizes with which an export is compared, besides that of the example."""

_NEEDED: Final = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(module: nn.Module, images: Tensor, path: Path, *, tolerance: float = TOLERANCE) -> float:
    """Export a module to an ONNX file with the input ``images``, the output ``output`` and any batch size.

    The module is exported in evaluation mode. The outputs of onnxruntime are compared with those of torch on the given
    images and on random ones of the same range, and nothing is written unless they agree.

    Args:
        module: a module from images alone to one tensor.
        images: an example, (batch, channels, height, width), float32.
        path: the path of the file; an existing file is replaced at once, at the end.
        tolerance: the largest absolute difference allowed.

    Returns:
        The largest absolute difference that was found.

    Raises:
        ExportError: where an operation has no counterpart in ONNX, the results differ by more than the tolerance, or a
            library for the export is not installed.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX export needs {', '.join(missing)}", remedy="pip install 'stnbench[export]'")
    was_training = module.training
    module.eval()
    try:
        _require_images_alone(module, images)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder, torch.no_grad():
            written = Path(folder) / "model.onnx"
            _convert(module, images, written)
            worst = max(_difference(module, batch, written) for batch in _batches(images))
            if not worst <= tolerance:  # also where it is not a number
                problem = f"the ONNX export of {_name(module)} differs from torch by {worst:.2g}"
                raise ExportError(problem, remedy=f"at most {tolerance:g} is allowed, so nothing was written")
            os.replace(written, path)  # noqa: PTH105 - the rename is the point
    finally:
        module.train(was_training)
    return worst


def _require_images_alone(module: nn.Module, images: Tensor) -> None:
    """Raise ExportError if a module needs more than images, as the control ``roi`` needs boxes."""
    try:
        with torch.no_grad():
            module(images)
    except ShapeError as error:
        problem = f"{_name(module)} cannot be exported to ONNX, since it reads more than images ({error})"
        raise ExportError(problem, remedy="nothing was written") from error


def _convert(module: nn.Module, images: Tensor, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    example = images if images.shape[0] > 1 else images.expand(2, -1, -1, -1)  # one image would fix the batch to one
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the internals of torch.onnx, which cannot be changed here
            torch.onnx.export(
                module,
                (example.contiguous(),),
                str(path),
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=["images"],
                output_names=["output"],
                dynamic_shapes=({0: batch},),
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        problem = f"{_name(module)} cannot be exported to ONNX ({str(cause).splitlines()[0]})"
        raise ExportError(problem, remedy="an operation of it has no counterpart there; nothing was written") from error


def _batches(images: Tensor) -> list[Tensor]:
    """Return the example, and random images of its range in other batch sizes."""
    generator = torch.Generator().manual_seed(0)
    low, high = float(images.min()), float(images.max())
    drawn = [torch.rand(count, *images.shape[1:], generator=generator) * (high - low) + low for count in _BATCHES]
    return [images, *(batch.to(images.device, images.dtype) for batch in drawn)]


def _difference(module: nn.Module, images: Tensor, path: Path) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (computed,) = session.run(None, {"images": images.cpu().numpy()})
    expected: Tensor = module(images)
    return float(np.abs(np.asarray(computed) - expected.cpu().numpy()).max(initial=0.0))


def _name(module: nn.Module) -> str:
    return type(module).__name__
