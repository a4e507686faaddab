"""Where configuration groups and sweeps lie: in a checkout, inside an installed wheel, and in the user's folder."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import stnbench
from stnbench.core.errors import FolderError, SpecError, UnknownNameError
from stnbench.core.paths import user_path
from stnbench.spec.sweep import Override

# The one override that is a path: where GTSRB lies. Paths are never part of a trial.


ROOT_KEY = "dataset.root"


def take_dataset_root(overrides: Iterable[Override]) -> tuple[Path | None, tuple[Override, ...]]:
    """The folder that ``dataset.root=...`` names, if any, and the other overrides.

    Raises:
        SpecError: for a value that is no path.
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
"""How sweep files end."""

HYDRA_SUFFIXES: Final = (".yaml",)
"""How the files of ``conf/`` end: Hydra finds no other."""


def conf_folder() -> Path:
    """The folder of the Hydra groups: those of stnbench, with the choices of ``conf/`` in the working folder over them.

    A user's file hides a shipped one of the same name. Other files of that folder are left alone, and where there are
    none, the folder is the shipped one.

    Raises:
        FolderError: for a broken installation.
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
    """A folder for this process alone with both; Hydra reads one."""
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
"""Where the files of merged folders, and the folders themselves, come from, for messages."""


def published_folder() -> Path:
    """The folder of the results that were published elsewhere.

    Raises:
        FolderError: for a broken installation.
    """
    return _shipped("reports/published")


def sweep_files(working_folder: Path) -> dict[str, Path]:
    """Every sweep by name: those that ship with stnbench, and the user's own in ``sweeps/`` of the working folder.

    A user's sweep hides a shipped one of the same name.
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
    """Return the YAML files of a folder, sorted, without what editors and file systems leave beside them.

    Names that begin with a dot (Emacs' ``.#sgd.yaml``, macOS' ``._sgd.yaml``), links that lead nowhere and folders are
    no choices.
    """
    found = (path for path in folder.glob("*") if path.suffix in suffixes and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def find_sweep(name: str, working_folder: Path) -> Path:
    """The file of one sweep, by its name, or by the path of its file as a shell completes it.

    Raises:
        UnknownNameError: with the nearest names.
    """
    files = sweep_files(working_folder)
    if name in files:
        return files[name]
    path = user_path(name, "the sweep") if name else working_folder
    if path.suffix in SUFFIXES or "/" in name:
        if path.is_file() and path.suffix in SUFFIXES:
            return path
        beside = [str(Path(name).with_name(found.name)) for found in yaml_files(path.parent)]
        raise UnknownNameError("sweep file", name, beside)
    raise UnknownNameError("sweep", name, files, where=str(working_folder / "sweeps"))


def find_pretrained(name: str, working_folder: Path) -> Path:
    """Find an export by its name in ``pretrained/`` of the working folder, or of stnbench's own checkout.

    Raises:
        UnknownNameError: with the nearest names.
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
    """A path as messages show it: relative to the checkout, the package or the working folder where it lies in one."""
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
