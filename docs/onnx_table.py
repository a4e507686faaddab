"""Export every family with every sampler, and every network, to ONNX, and write what onnxruntime makes of the files.

``python docs/onnx_table.py`` makes the exports that are not in ``docs/onnx_rows.jsonl`` yet (a few seconds each; all of
them, about ten minutes of one core, where that file is deleted) and writes ``docs/reference/onnx.md``. With another
file and names of samplers, ``variants`` or ``networks``, it makes those alone and writes no page.
"""

import itertools
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, get_args

import torch
from torch import nn

from stnbench.core.errors import ExportError
from stnbench.models.classifiers import build_network
from stnbench.nn import SpatialTransformer
from stnbench.nn.onnx import TOLERANCE, export_onnx
from stnbench.spec.data import SignsSpec
from stnbench.spec.network import NETWORKS
from stnbench.spec.registry import Registry
from stnbench.spec.transformer import (
    TRANSFORMERS,
    DenseLocnetSpec,
    Padding,
    PlacedTransformerSpec,
    Posterior,
    Sampler,
)
from stnbench.spec.trial import TrialSpec
from stnbench.testing.parts import MENUS

ROWS: Final = Path(__file__).parent / "onnx_rows.jsonl"
PAGE: Final = Path(__file__).parent / "reference" / "onnx.md"
SIZE: Final = (16, 20)
NETWORK_SIDE: Final = 48
VARIANTS_NAME, NETWORKS_NAME = "variants", "networks"
TOP: Final = """\
<!-- Written by docs/onnx_table.py, which takes minutes; do not edit. -->

# Export to ONNX

`stnbench.nn.onnx.export_onnx` compares every file with torch before it is written, on the example and on random images
in batches of 1 and 3, and writes nothing if they differ by more than {tolerance:g}. The numbers are the largest
absolute differences on the CPU, between {versions}.

## Families and samplers

Layers for images of {height} x {width} in [0, 1], with parameters drawn at random for every image.
"""
SAMPLERS: Final[tuple[str, ...]] = get_args(Sampler)
SMALL: Final[dict[str, dict[str, Any]]] = {
    "timm": {"name": "test_resnet"},
    "torchvision": {"name": "shufflenet_v2_x0_5"},
    "deformable": {"sizes": [6, 8]},
}
"""Keys of networks that need some, or are slow without."""

PLACES: Final = {
    "alone": (),
    "affine before it": (PlacedTransformerSpec(place=1, locnet=DenseLocnetSpec(sizes=(8,))),),
}
"""Transformers of the networks that are exported."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one export: the largest difference from torch, or why it was refused; and the files it left."""

    subject: str
    way: str
    versions: str
    difference: float | None = None
    refused: str = ""
    files: tuple[str, ...] = ()


def main(place: str = str(ROWS), *asked: str) -> int:
    """Export what is asked for; everything, and write the page, if nothing is."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path = Path(place)
    path.touch()
    known = {(row.subject, row.way): row for row in map(read_row, path.read_text(encoding="utf-8").splitlines())}
    rows = []
    with path.open("a", encoding="utf-8") as file:
        for subject, way, make, images in exports(asked or (*SAMPLERS, VARIANTS_NAME, NETWORKS_NAME)):
            row = known.get((subject, way))
            if row is None:
                row = attempt(subject, way, make, images)
                print(json.dumps(asdict(row)), file=file, flush=True)
            rows.append(row)
    if not asked:
        PAGE.write_text(page(rows), encoding="utf-8")
    return 0


def read_row(line: str) -> Row:
    """Return a row that was written as JSON."""
    return Row(**json.loads(line))


def exports(asked: Iterable[str]) -> Iterator[tuple[str, str, Callable[[], nn.Module], torch.Tensor]]:
    """Yield subject, way, what makes the module, and images, for samplers, the variants or the networks."""
    small, large = (
        torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(9)) for size in (SIZE, (NETWORK_SIDE,) * 2)
    )
    for name in asked:
        if name == NETWORKS_NAME:
            for network, (way, placed) in itertools.product(shipped(NETWORKS), PLACES.items()):
                yield network, way, partial(classifier, network, placed), large
        elif name == VARIANTS_NAME:
            for family, keys in variants():
                way = ", ".join(f"{key}: {json.dumps(value)}" for key, value in keys.items())
                yield family, way, partial(layer, family, **keys), small
        else:
            for family in shipped(TRANSFORMERS):
                yield family, name, partial(layer, family, sampler=name), small


def shipped(registry: Registry) -> list[str]:
    """Return the names of the parts of stnbench in a registry."""
    return [name for name in registry.names() if registry.source(name) is None]


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield families with keys that change which operations are exported."""
    for sampler in SAMPLERS:
        yield "saliency", {"separable": True, "sampler": sampler}
        yield "affine", {"output_size": 6, "sampler": sampler}
        yield "tps", {"iterations": 2, "scale_min": 0.5, "output_size": 9, "sampler": sampler}
        for padding in get_args(Padding):
            for corners in (True, False):
                if (padding, corners) != ("zeros", True):
                    yield "affine", {"padding": padding, "align_corners": corners, "sampler": sampler}
    for posterior in get_args(Posterior):
        yield "affine", {"posterior": posterior}
        yield "diffeomorphic", {"posterior": posterior}


def layer(family: str, **keys: Any) -> nn.Module:  # noqa: ANN401 - of a specification
    """Return a layer for small images whose parameters are far from the identity, and others for every image."""
    torch.manual_seed(3)
    made = SpatialTransformer(family, in_channels=3, size=SIZE, locnet=(4, 4, 8), **keys)
    if made.localization is not None:
        nn.init.normal_(made.localization.parameters_layer.weight, std=0.3)
    return made


def classifier(network: str, transformers: tuple[PlacedTransformerSpec, ...]) -> nn.Module:
    """Return a network with drawn weights, with transformers that move every image."""
    spec = MENUS["network"].specify(network, SMALL.get(network, {}))
    trial = TrialSpec(dataset=SignsSpec(image_size=NETWORK_SIDE), network=spec, transformers=transformers)
    made = build_network(trial, classes=7, seed=1)
    for module in made.modules():
        if isinstance(module, SpatialTransformer) and module.localization is not None:
            nn.init.normal_(module.localization.parameters_layer.weight, std=0.1)
    return made


def attempt(subject: str, way: str, make: Callable[[], nn.Module], images: torch.Tensor) -> Row:
    """Export a module into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        difference, refused = None, ""
        try:
            difference = export_onnx(make(), images, Path(folder) / "module.onnx")
        except ExportError as error:
            refused = str(error)
        files = tuple(path.name for path in Path(folder).iterdir())
    versions = f"torch {version('torch').partition('+')[0]} and onnxruntime {version('onnxruntime')}"
    return Row(subject=subject, way=way, versions=versions, difference=difference, refused=refused, files=files)


def page(rows: list[Row]) -> str:
    """Return the page of all rows."""
    cells = {(row.subject, row.way): row for row in rows}
    families = list(dict.fromkeys(row.subject for row in rows if row.way in SAMPLERS))
    networks = list(dict.fromkeys(row.subject for row in rows if (row.subject, "alone") in cells))
    others = [row for row in rows if row.way not in SAMPLERS and row.subject not in networks]
    heads, lines = ["family", *SAMPLERS], [[name, *(shown(cells[name, way]) for way in SAMPLERS)] for name in families]
    refused = {row.subject: row.refused for row in rows if row.refused}
    placed = [[name, *(shown(cells[name, way]) for way in PLACES)] for name in networks]
    parts = [
        TOP.format(
            tolerance=TOLERANCE,
            versions=", or ".join(sorted({row.versions for row in rows})),
            height=SIZE[0],
            width=SIZE[1],
        ),
        table(heads, lines),
        "".join(f"`{subject}`: {reason}.\n" for subject, reason in refused.items()),
        "## Other keys\n",
        table(["family", "keys", "difference"], [[row.subject, f"`{row.way}`", shown(row)] for row in others]),
        f"## Networks\n\nLogits for images of {NETWORK_SIDE} x {NETWORK_SIDE}, with drawn weights.\n",
        table(["network", *PLACES], placed),
    ]
    return "\n".join(parts)


def table(heads: list[str], lines: list[list[str]]) -> str:
    """Return a table of Markdown."""
    listed = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in listed)


def shown(row: Row) -> str:
    """Return a cell: the difference, if there is one."""
    return "refused" if row.difference is None else f"{row.difference:.1e}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
