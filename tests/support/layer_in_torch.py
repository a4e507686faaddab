"""What torch's compiler and its exporter make of every family and sampler, as JSON on standard output.

A program of its own, because the shapes that tests check at every call cannot be traced: one start for all of them.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from stnbench.core.errors import ExportError
from stnbench.nn import SpatialTransformer
from stnbench.nn.onnx import export_onnx
from stnbench.spec.transformer import TRANSFORMERS, Sampler

FAMILIES = [family for family in TRANSFORMERS.names() if family != "roi"]
_ALIKE = {
    *("scale", "translation", "rotation_scale", "rotation_translation", "scale_translation"),
    *("rotation_vector_scale", "rotation_vector_translation", "rotation_vector_scale_translation"),
}
"""Similarities, of whose combinations the first and the last stand for all, or the first for those of vectors."""

VARIANTS: dict[str, dict[str, Any]] = {
    "affine with a posterior": {"posterior": "student_t"},
    "saliency of marginals": {"separable": True},
}
"""Families with keys of their own; the first word is the family."""

WAYS = [
    *((family, "bilinear") for family in FAMILIES if family not in _ALIKE),
    *(("affine", name) for name in get_args(Sampler) if name != "bilinear"),
    *(((way, "bilinear")) for way in VARIANTS),
]
"""Every family, and every sampler."""


def layer(family: str, sampler: str) -> SpatialTransformer:
    """A small one for 3 x 16 x 20 images, whose last layer moves every image in another way."""
    torch.manual_seed(3)
    name, keys = family.split(maxsplit=1)[0], VARIANTS.get(family, {})
    made = SpatialTransformer(name, in_channels=3, size=(16, 20), locnet=(4, 4, 8), sampler=sampler, **keys)
    if made.localization is not None:
        nn.init.normal_(made.localization.parameters_layer.weight, std=0.3)
    return made.eval()


def images(batch: int = 2) -> Tensor:
    """Random images in [0, 1]."""
    return torch.rand(batch, 3, 16, 20, generator=torch.Generator().manual_seed(9))


def compiled(made: nn.Module) -> float:
    """The difference of a compiled layer, captured as one graph."""
    torch.compiler.reset()
    return difference(torch.compile(made, fullgraph=True, backend="eager"), made, images())


def exported(made: nn.Module) -> float:
    """That of an exported program, for a batch of another size."""
    program = torch.export.export(made, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    return difference(program.module(), made, images(5))


def difference(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], batch: Tensor) -> float:
    """The largest difference between two modules."""
    with torch.no_grad():
        return float((one(batch) - other(batch)).abs().max())


class OnlyInTorch(nn.Module):
    """Means something else while it is exported."""

    def forward(self, batch: Tensor) -> Tensor:
        """One more where it is exported."""
        return batch + 1 if torch.compiler.is_exporting() else batch * 1


class Unknown(nn.Module):
    """Uses an operation that ONNX has not."""

    def forward(self, batch: Tensor) -> Tensor:
        """A matrix exponential."""
        exponential: Tensor = torch.linalg.matrix_exp(batch[:, 0, :16, :16])
        return exponential


def refused(made: nn.Module) -> list[object]:
    """Why an export is refused, and what is left in its folder."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_onnx(made, images(), Path(folder) / "layer.onnx")
        except ExportError as error:
            return [str(error), [file.name for file in Path(folder).iterdir()]]
    return ["", []]


def main() -> None:
    """Print what was found."""
    warnings.simplefilter("ignore")
    found: dict[str, object] = {}
    for way in WAYS:
        for check in (compiled, exported):
            found[f"{check.__name__} {' '.join(way)}"] = check(layer(*way))
    for module in (OnlyInTorch(), Unknown()):
        found[type(module).__name__] = refused(module)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
