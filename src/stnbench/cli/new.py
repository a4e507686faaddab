"""``stnbench new``: write a commented skeleton of a part or a sweep, which works without changes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stnbench.cli.parser import CommandParser
from stnbench.config.sweep_schema import FILE_NAME, MODELINE, is_schema, schema_text
from stnbench.core.command import DONE
from stnbench.core.errors import FolderError, SpecError

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")

_TRANSFORMER: Final = '''\
"""A family of transformations: rotations by a bounded angle. Change what it does, and keep what it promises."""

from dataclasses import dataclass

import torch
from torch import Tensor

import stnbench
from stnbench.nn import AffineTransformation  # or Transformation, for a family that is not affine


@stnbench.register("transformer", "{name}")
class {title}(AffineTransformation):
    """Turns what is read by at most ``bound`` radians."""

    @dataclass(frozen=True, kw_only=True)
    class Spec:
        """The parameters of its own, each with a default: keys of the configuration (transformer.bound=0.5)."""

        bound: float = 1.0

    def __init__(self, spec: "{title}.Spec") -> None:
        self.bound = spec.bound

    parameter_names = ("turn",)  # what the localisation network emits for an image

    def identity_parameters(self) -> tuple[float, ...]:
        """With these, every point stays where it is: where training starts."""
        return (0.0,)

    def theta_out_to_in(self, parameters: Tensor) -> Tensor:
        """The matrix [[a, b, tx], [c, d, ty]] of every image, from output to input coordinates (x, y) in [-1, 1]."""
        angle = self.bound * self.checked(parameters)[:, 0].tanh()
        zero = torch.zeros_like(angle)
        rows = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero]
        return torch.stack(rows, dim=1).reshape(-1, 2, 3)
'''

_TRANSFORMER_TEST: Final = '''\
"""The contract of {name}; run with: STNBENCH_PARTS=parts pytest parts"""

from stnbench.testing import check_transformer


def test_{name}_keeps_its_promises() -> None:
    """Identity at the start, shapes, gradients, half precision, determinism, the compiler."""
    check_transformer("{name}")
'''

_SWEEP: Final = """\
{modeline}
# Run with: stnbench sweep {name}   (stnbench sweep {name} --plan lists what it would train)
question: Which transformation helps most?
{parts}base:
  scale: quick
  locnet@locnet1: conv # a transformer before the first stage, with this localisation network
  locnet1.sizes: [50, 100, 100]
axes:
  transformer: {families}
seeds: 3
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
    files, then = _sweep(name) if options.kind == "sweep" else _transformer(name)
    for path in files:
        if path.exists() and not _is_generated(path):
            raise FolderError(f"{path} is there already", remedy="choose another name, or move it away")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
    print(then)
    return DONE


def _transformer(name: str) -> tuple[Mapping[Path, str], str]:
    title = "".join(word.capitalize() for word in name.split("_"))
    files = {
        Path("parts", f"{name}.py"): _TRANSFORMER.format(name=name, title=title),
        Path("parts", f"test_{name}.py"): _TRANSFORMER_TEST.format(name=name),
        Path("conf", "transformer", f"{name}.yaml"): f"family: {name}\n",
    }
    return files, f"check it: STNBENCH_PARTS=parts stnbench check-part {name}"


def _sweep(name: str) -> tuple[Mapping[Path, str], str]:
    own = sorted(path.stem for path in Path("conf", "transformer").glob("*.yaml"))
    parts = "parts: parts # the folder with families of your own\n" if own and Path("parts").is_dir() else ""
    families = f"[{', '.join(['affine', *own])}]" if own else "[affine, rotation_scale_translation]"
    text = _SWEEP.format(modeline=MODELINE, name=name, parts=parts, families=families)
    # The schema lies beside the sweep, as it is in this version and with the parts that are installed: an address on
    # the web would need a connection, and a path into the package ends with the environment.
    files = {Path("sweeps", f"{name}.yaml"): text, Path("sweeps", FILE_NAME): schema_text(own=True)}
    return files, f"look at its plan: stnbench sweep {name} --plan"


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
    parser.add_argument("kind", choices=("transformer", "sweep"), help="what to write")
    parser.add_argument("name", help="its name: lower-case letters, digits and underscores")
    return parser
