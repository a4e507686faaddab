"""``stnbench new``: write a commented skeleton of a part or a sweep, which works without changes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stnbench.cli.parser import CommandParser, add_json, print_result
from stnbench.config.sweep_schema import FILE_NAME, MODELINE, is_schema, schema_text
from stnbench.core.command import DONE
from stnbench.core.errors import FolderError, SpecError

SWEEP: Final = "sweep"

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")

_TRANSFORMER: Final = '''\
"""Rotations by a bounded angle, as a family of transformations to change."""

from dataclasses import dataclass

import torch
from torch import Tensor

import stnbench
from stnbench.nn import AffineTransformation  # or Transformation, for a family that is not affine


@stnbench.register("transformer", "{name}")
class {title}(AffineTransformation):
    """Rotation of the sampling points by at most ``bound`` radians."""

    @dataclass(frozen=True, kw_only=True)
    class Spec:
        """Its keys of the configuration, each with a default (transformer.bound=0.5)."""

        bound: float = 1.0

    def __init__(self, spec: "{title}.Spec") -> None:
        self.bound = spec.bound

    parameter_names = ("turn",)  # what the localisation network emits for an image

    def identity_parameters(self) -> tuple[float, ...]:
        """Return the parameters with which every point stays where it is; training starts there."""
        return (0.0,)

    def theta_out_to_in(self, parameters: Tensor) -> Tensor:
        """Return [[a, b, tx], [c, d, ty]] of every image, from output to input coordinates (x, y) in [-1, 1]."""
        angle = self.bound * self.checked(parameters)[:, 0].tanh()
        zero = torch.zeros_like(angle)
        rows = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero]
        return torch.stack(rows, dim=1).reshape(-1, 2, 3)
'''

_NETWORK: Final = '''\
"""A network of convolution stages to change."""

from dataclasses import dataclass

from torch import nn

import stnbench


@stnbench.register("network", "{name}")
class {title}:
    """Two stages of convolution, ReLU and pooling; the logits, a linear layer behind the last one, are added."""

    @dataclass(frozen=True, kw_only=True)
    class Spec:
        """Its keys of the configuration, each with a default (network.channels=32)."""

        channels: int = 16
        stages = 2  # before each of them a transformer may stand

    def __init__(self, spec: "{title}.Spec") -> None:
        self.channels = spec.channels

    def stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return a stage (from 1) for maps of this size, which returns maps, or features (batch, numbers)."""
        del height, width
        return nn.Sequential(
            nn.Conv2d(channels, number * self.channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
'''

_DATASET: Final = '''\
"""Bright bars, upright and level, on noise, as a data set to change."""

from dataclasses import dataclass

import numpy as np

import stnbench
from stnbench.data import DataPlaces, Dataset, ImageSet, images_digest


@stnbench.register("dataset", "{name}")
class {title}(Dataset):
    """Images with a bar at a random place; its class is its direction."""

    @dataclass(frozen=True, kw_only=True)
    class Spec:
        """All that decides the images: keys of the configuration (dataset.images=200)."""

        image_size: int = 32
        images: int = 600
        channels = 3  # 1: grey

    def __init__(self, spec: "{title}.Spec", places: DataPlaces) -> None:
        self.spec = spec  # places.root is the data folder, places.cache its caches

    @property
    def class_names(self) -> list[str]:
        """Return one readable name for each class, in the order of labels."""
        return ["upright", "level"]

    def train(self) -> ImageSet:
        """Return the training half; parts of it are held out for validation."""
        return self._half(self.spec.images, seed=1)

    def test(self) -> ImageSet:
        """Return the test half, which no planner sees."""
        return self._half(self.spec.images // 4, seed=2)

    def _half(self, count: int, seed: int) -> ImageSet:
        side, random = self.spec.image_size, np.random.default_rng(seed)
        labels = np.arange(count) % len(self.class_names)
        images = random.integers(0, 100, (count, 3, side, side), np.uint8)
        starts = random.integers(0, side - 4, count)
        for image, label, start in zip(images, labels, starts, strict=True):
            bar = image[:, :, start : start + 4] if label == 0 else image[:, start : start + 4]
            bar += 120
        return ImageSet(
            images=images,
            labels=labels,
            tracks=np.arange(count),  # images of one track are never in both training and validation
            frames=np.zeros(count, np.int64),
            roi=np.tile(np.array([-1, -1, 1, 1], np.float32), (count, 1)),  # the box of the object, here all
            original_size=np.full((count, 2), side),
            pose=None,
            digest=images_digest(images, labels),
        )
'''

_TEST: Final = '''\
"""The contract of {name}; run with: STNBENCH_PARTS=parts pytest parts"""

from stnbench.testing import check_part


def test_{name}_keeps_its_promises() -> None:
    """{promises}"""
    check_part("{kind}", "{name}")
'''


@dataclass(frozen=True, kw_only=True, slots=True)
class _Skeleton:
    """The files of a new part.

    Attributes:
        text: its code.
        promises: the property that its test checks, in a sentence.
        key: key of the choice in ``conf/`` that names the part.
    """

    text: str
    promises: str
    key: str = "kind"


_SKELETONS: Final[Mapping[str, _Skeleton]] = {
    "transformer": _Skeleton(
        text=_TRANSFORMER,
        promises="Identity at the start, shapes, gradients, half precision, determinism, the compiler.",
        key="family",
    ),
    "network": _Skeleton(
        text=_NETWORK,
        promises="Weights of the seed, logits of any batch, transformers before every stage, gradients; it learns.",
    ),
    "dataset": _Skeleton(
        text=_DATASET,
        promises="Types and shapes of every array, names of classes, tracks that can be split, halves apart.",
    ),
}
"""Skeletons by kind of part."""

_SWEEP: Final = """\
{modeline}
# Run with: stnbench sweep {name}   (stnbench sweep {name} --plan lists what it would train)
question: Which transformation helps most?
{parts}base:
{dataset}  scale: quick
  locnet@locnet1: conv # a transformer before the first stage, with this localisation network
  locnet1.sizes: [50, 100, 100]
axes:
{axes}seeds: 3
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code.

    Raises:
        SpecError: for an invalid name.
        FolderError: if a file exists already.
    """
    options = make_parser().parse_args(arguments)
    name = str(options.name)
    if not _NAME.fullmatch(name):
        raise SpecError(f"the name is '{name}'", remedy="use lower-case letters, digits and _, a letter first")
    files, then = _sweep(name) if options.kind == SWEEP else _part(options.kind, name)
    for path in files:
        if path.exists() and not _is_generated(path):
            raise FolderError(f"{path} is there already", remedy="choose another name, or move it away")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    written = [str(path) for path in files]
    facts = {"kind": options.kind, "name": name, "files": written, "next": then.partition(": ")[2]}
    print_result(options, "\n".join([*written, then]), facts)
    return DONE


def _part(kind: str, name: str) -> tuple[Mapping[Path, str], str]:
    skeleton, title = _SKELETONS[kind], "".join(word.capitalize() for word in name.split("_"))
    files = {
        Path("parts", f"{name}.py"): skeleton.text.format(name=name, title=title),
        Path("parts", f"test_{name}.py"): _TEST.format(name=name, kind=kind, promises=skeleton.promises),
        Path("conf", kind, f"{name}.yaml"): f"{skeleton.key}: {name}\n",
    }
    return files, f"check it: STNBENCH_PARTS=parts stnbench check-part {name}"


def _sweep(name: str) -> tuple[Mapping[Path, str], str]:
    own = {kind: sorted(path.stem for path in Path("conf", kind).glob("*.yaml")) for kind in _SKELETONS}
    parts = "parts: parts # the folder with parts of your own\n" if any(own.values()) and _is_here("parts") else ""
    families = ["affine", *own["transformer"]] if own["transformer"] else ["affine", "rotation_scale_translation"]
    networks = ["lecun", *own["network"]] if own["network"] else []
    axes = {"transformer": families} | ({"network": networks} if networks else {})
    listed = "".join(f"  {axis}: [{', '.join(choices)}]\n" for axis, choices in axes.items())
    dataset = f"  dataset: {own['dataset'][0]}\n" if own["dataset"] else ""
    text = _SWEEP.format(modeline=MODELINE, name=name, parts=parts, dataset=dataset, axes=listed)
    # The schema lies beside the sweep, as it is in this version and with the parts that are installed: an address on
    # the web would need a connection, and a path into the package ends with the environment.
    files = {Path("sweeps", f"{name}.yaml"): text, Path("sweeps", FILE_NAME): schema_text(own=True)}
    return files, f"look at its plan: stnbench sweep {name} --plan"


def _is_here(folder: str) -> bool:
    return Path(folder).is_dir()


def _is_generated(path: Path) -> bool:
    """Return whether a file is a schema of ours, perhaps of another version, which is written anew."""
    return path.name == FILE_NAME and is_schema(path.read_text(encoding="utf-8", errors="replace"))


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench new",
        description="Writes the skeleton of a part or a sweep into the folder you work in: parts/, conf/ and sweeps/.",
        epilog="Nothing is overwritten but sweeps/schema.json, by which editors check sweeps. "
        "Exit codes: 0 written, 2 a file is there already.",
    )
    parser.add_argument("kind", choices=(*_SKELETONS, SWEEP), help="what to write")
    parser.add_argument("name", help="its name: lower-case letters, digits and underscores")
    add_json(parser)
    return parser
