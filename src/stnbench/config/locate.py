"""Lookup of configuration groups and sweeps in a checkout, an installed wheel, and the working folder."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import stnbench
from stnbench.core.errors import FolderError, SpecError, UnknownNameError
from stnbench.core.files import is_left_behind, require_decoded, user_path
from stnbench.spec.sweep import Override

# The only override that is a path: the folder of GTSRB. Paths are never part of a trial.


ROOT_KEY = "dataset.root"


def take_dataset_root(overrides: Iterable[Override]) -> tuple[Path | None, tuple[Override, ...]]:
    """Return the folder named by ``dataset.root=...`` (None without it) and the other overrides.

    Raises:
        SpecError: if the value is no path.
    """
    root: Path | None = None
    others = []
    for override in overrides:
        if override.key != ROOT_KEY:
            others.append(override)
        elif isinstance(override.value, str) and override.value:
            root = user_path(override.value, ROOT_KEY)
        else:
            raise SpecError(f"{ROOT_KEY} is {override.value!r}", remedy="give the folder that holds GTSRB")
    return root, tuple(others)


_PACKAGE = Path(stnbench.__file__).parent
_CHECKOUT = _PACKAGE.parent.parent

SUFFIXES: Final = (".yaml", ".yml")
"""Suffixes of sweep files."""

HYDRA_SUFFIXES: Final = (".yaml",)
"""Suffixes of the files of ``conf/``; Hydra finds no others."""


def conf_folder() -> Path:
    """Return the folder of the Hydra groups: those of stnbench, overlaid by ``conf/`` of the working folder.

    A user's file hides a shipped one of the same name. Files outside the known groups are ignored. If there are no
    user's files, the result is the shipped folder, otherwise a temporary one.

    Raises:
        FolderError: if the installation is broken.
    """
    shipped = _shipped("conf")
    own = Path.cwd() / "conf"
    if not own.is_dir() or own.samefile(shipped):
        return shipped
    groups = [folder.name for folder in shipped.iterdir() if folder.is_dir()]
    added = tuple(path for group in groups for path in yaml_files(own / group, HYDRA_SUFFIXES))
    return _merged(shipped, added, tuple(path.stat().st_mtime_ns for path in added)) if added else shipped


@functools.cache
def _merged(shipped: Path, added: tuple[Path, ...], _changed_ns: tuple[int, ...]) -> Path:
    """Make a temporary folder with the shipped and the added files, since Hydra reads a single folder."""
    temporary = tempfile.TemporaryDirectory(prefix="stnbench-conf-")
    atexit.register(temporary.cleanup)
    folder = Path(temporary.name)
    shutil.copytree(
        shipped, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"), ignore_dangling_symlinks=True
    )
    for path in added:
        target = folder / path.parent.name / path.name
        shutil.copyfile(path, target)
        _ORIGINALS[target] = path
    _ORIGINALS[folder] = shipped
    return folder


_ORIGINALS: dict[Path, Path] = {}
"""Originals of merged folders and of their files, for messages."""


def published_folder() -> Path:
    """Return the folder of published results.

    Raises:
        FolderError: if the installation is broken.
    """
    return _shipped("reports/published")


def sweep_files(working_folder: Path) -> dict[str, Path]:
    """Return the files of all sweeps by name: the shipped ones and those in ``sweeps/`` of the working folder.

    A user's sweep hides a shipped one of the same name.

    Raises:
        SpecError: if two files of one folder have the same name.
    """
    files: dict[str, Path] = {}
    for folder in (_shipped("sweeps"), working_folder / "sweeps"):
        own: dict[str, Path] = {}
        for path in yaml_files(folder):
            if path.stem in own:
                problem = f"{shown(own[path.stem])} and {shown(path)} have one name"
                raise SpecError(problem, remedy="rename one of them")
            own[path.stem] = path
        files |= own
    return files


def yaml_files(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Return the YAML files of a folder, sorted, without leftovers of editors and file systems.

    Names that begin with a dot (Emacs' ``.#sgd.yaml``, macOS' ``._sgd.yaml``), dangling links and folders are left out.
    """
    found = (path for path in folder.glob("*") if path.suffix in suffixes and not is_left_behind(path.name))
    return sorted(path for path in found if path.is_file())


def find_sweep(name: str, working_folder: Path) -> Path:
    """Return the file of a sweep, given its name or the path of its file.

    Raises:
        UnknownNameError: if there is none; the message suggests the most similar names.
        SpecError: if the name is no text in the encoding of the locale.
    """
    require_decoded(name, "the name of the sweep")
    files = sweep_files(working_folder)
    if name in files:
        return files[name]
    path = user_path(name, "the sweep") if name else working_folder
    if path.suffix in SUFFIXES or "/" in name:
        if path.is_file() and path.suffix in SUFFIXES:
            return path
        beside = [str(Path(name).with_name(found.name)) for found in yaml_files(path.parent)]
        raise UnknownNameError("sweep file", name, beside if "/" in name else [*beside, *files])
    raise UnknownNameError("sweep", name, files, where=str(working_folder / "sweeps"))


def find_pretrained(name: str, working_folder: Path) -> Path:
    """Return the folder of an export, by its name in ``pretrained/`` of the working folder or of stnbench's checkout.

    Raises:
        UnknownNameError: if there is none; the message suggests the most similar names.
    """
    found = {
        path.name: path
        for root in (_CHECKOUT, working_folder)
        for path in (root / "pretrained").glob("*/")
        if path.is_dir() and not path.name.startswith(".")
    }
    if name not in found:
        raise UnknownNameError("pretrained network", name, found, where=str(working_folder / "pretrained"))
    return found[name]


def shown(path: Path) -> str:
    """Return a path for messages: relative to the checkout, the package or the working folder if it lies in one."""
    path = _ORIGINALS.get(path, path)
    for merged, shipped in _ORIGINALS.items():
        if path.is_relative_to(merged):
            path = shipped / path.relative_to(merged)
    for root in (_CHECKOUT, _PACKAGE, Path.cwd()):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def _shipped(name: str) -> Path:
    candidates = (_PACKAGE / name, _CHECKOUT / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FolderError(f"the folder {name}/ of stnbench is missing below {_PACKAGE}", remedy="install stnbench again")
