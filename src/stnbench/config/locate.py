"""Where configuration groups and sweeps lie: in a checkout, inside an installed wheel, and in the user's folder."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import stnbench
from stnbench.core.errors import FolderError, UnknownNameError

_PACKAGE = Path(stnbench.__file__).parent
_CHECKOUT = _PACKAGE.parent.parent


def conf_folder() -> Path:
    """The folder of the Hydra groups: those of stnbench, with the choices of ``conf/`` in the working folder over them.

    A user's file hides a shipped one of the same name. Other files of that folder are left alone, and where there are
    none, the folder is the shipped one.
    Raises: FolderError for a broken installation.
    """
    shipped = _shipped("conf")
    own = Path.cwd() / "conf"
    if not own.is_dir() or own.samefile(shipped):
        return shipped
    groups = [folder.name for folder in shipped.iterdir() if folder.is_dir()]
    added = tuple(path for group in groups for path in yaml_files(own / group))
    return _merged(shipped, added, tuple(path.stat().st_mtime_ns for path in added)) if added else shipped


@functools.cache
def _merged(shipped: Path, added: tuple[Path, ...], _changed_ns: tuple[int, ...]) -> Path:
    """A folder for this process alone with both; Hydra reads one."""
    temporary = tempfile.TemporaryDirectory(prefix="stnbench-conf-")
    atexit.register(temporary.cleanup)
    folder = Path(temporary.name)
    shutil.copytree(shipped, folder, dirs_exist_ok=True)
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

    Raises: FolderError for a broken installation.
    """
    return _shipped("reports/published")


def sweep_files(working_folder: Path) -> dict[str, Path]:
    """Every sweep by name: those that ship with stnbench, and the user's own in ``sweeps/`` of the working folder.

    A user's sweep hides a shipped one of the same name.
    """
    folders = (_shipped("sweeps"), working_folder / "sweeps")
    return {path.stem: path for folder in folders for path in yaml_files(folder)}


def yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder, sorted, without what editors and file systems leave beside them.

    Names that begin with a dot (Emacs' ``.#sgd.yaml``, macOS' ``._sgd.yaml``), links that lead nowhere and folders are
    no choices.
    """
    found = (path for path in folder.glob("*.yaml") if not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def find_sweep(name: str, working_folder: Path) -> Path:
    """The file of one sweep.

    Raises: UnknownNameError with the nearest names.
    """
    files = sweep_files(working_folder)
    if name not in files:
        raise UnknownNameError("sweep", name, files, where=str(working_folder / "sweeps"))
    return files[name]


def shown(path: Path) -> str:
    """A path as messages show it: relative to the checkout or the package where it lies inside one."""
    path = _ORIGINALS.get(path, path)
    for merged, shipped in _ORIGINALS.items():
        if path.is_relative_to(merged):
            path = shipped / path.relative_to(merged)
    for root in (_CHECKOUT, _PACKAGE):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def _shipped(name: str) -> Path:
    candidates = (_PACKAGE / name, _CHECKOUT / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FolderError(f"the folder {name}/ of stnbench is missing below {_PACKAGE}", remedy="install stnbench again")
