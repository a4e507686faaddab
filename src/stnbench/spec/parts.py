"""External parts, such as a user's families of transformations, registered like those of stnbench.

They come from three sources: folders, files or modules named by ``STNBENCH_PARTS`` or by ``parts:`` of a sweep, and
installed packages with entry points of the group ``stnbench.parts``. Loading a part runs its code, so nothing else is
ever loaded: a store, a checkpoint or a result only names the parts of its trials. Workers inherit the variable.
"""

import ast
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import DIGEST_LENGTH
from stnbench.spec.metrics import KIND as METRIC
from stnbench.spec.metrics import Better, Metric, Needs, add_metric
from stnbench.spec.registry import REGISTRIES, Part, PartSource, Registry

VARIABLE: Final = "STNBENCH_PARTS"
"""Environment variable that names folders, files and modules with parts, separated as in PATH."""

GROUP: Final = "stnbench.parts"
"""Group of entry points, each of which names a module that registers parts."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")

T = TypeVar("T", bound=Callable[..., Any])

_loaded: set[str] = set()
"""Places and entry points for which loading was tried."""

_INSTALLED: Final = "installed"


def register(
    kind: str,
    name: str,
    *,
    traits: Iterable[str] = (),
    heading: str = "",
    unit: str = "",
    better: Better = "lower",
    needs: Needs = "probabilities",
    text: str = "",
) -> Callable[[T], T]:
    """Return a decorator that registers a class as a part, or a function as a metric.

    A dataclass ``Spec`` inside the class holds the parameters of the part, each with a default. They become keys of the
    configuration in addition to those of every part of the kind, whose defaults ``Spec`` may change. The class is
    called with the specification when the part is built; an optimizer's class gets its parameter groups first.

    Args:
        kind: kind of part, for example ``transformer`` or ``optimizer``.
        name: name in configurations: lower-case letters, digits and underscores.
        traits: properties of the part that other code checks; ``control`` marks a transformer without a localisation
            network.
        heading: heading of a metric's column; by default its name.
        unit: unit of a metric; ``%`` for a share in [0, 1], which is shown in percent.
        better: whether ``lower`` or ``higher`` values of a metric are better.
        needs: the input of a metric: ``probabilities``, or the ``network``.
        text: description of a metric in a sentence; by default the first line of its docstring.

    Raises:
        UnknownNameError: if the kind does not exist.
        SpecError: if the name is taken or malformed, or if a parameter has no default or the name of a key that every
            part has.

    Example:
        >>> import stnbench
        >>> from stnbench.nn import AffineTransformation
        >>> @stnbench.register("transformer", "doubled")
        ... class Doubled(AffineTransformation):
        ...     parameter_names = ("tx", "ty")

        A metric is a function of class probabilities (images, classes) and true labels (images,), NumPy arrays:

        >>> @stnbench.register("metric", "brier")
        ... def brier(probabilities, labels):
        ...     "Brier score"
        ...     return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1).mean()
    """
    registry = None if kind == METRIC else _registry(kind)
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"the {kind} is called '{name}'", remedy="use lower-case letters, digits and _, a letter first, up to 40"
        )

    def add(made: T) -> T:
        if registry is None:
            about = text or (inspect.getdoc(made) or name).partition("\n")[0]
            digest = _source(kind, name, made).digest
            add_metric(
                Metric(
                    name=name, heading=heading or name, unit=unit, better=better, text=about, compute=made,
                    needs=needs, digest=digest,
                )
            )  # fmt: skip
            return made
        own, namespace, check = _own_fields(registry, name, getattr(made, "Spec", None))
        spec = registry.extended(name, own, namespace, check)
        registry.add(
            Part(
                name=name,
                spec=spec,
                implementation=made if _takes_a_specification(made) else lambda _spec: made(),
                traits=frozenset(traits) | _repeated(registry, own),
                source=_source(kind, name, made),
            )
        )
        return made

    return add


def add_places(places: Iterable[str], *, base: Path) -> None:
    """Load parts from places, in this process and in every process started from it.

    Args:
        places: folders or files, relative to ``base``, or names of modules.
        base: folder of the sweep that names them.

    Raises:
        SpecError: if a place cannot be loaded.
    """
    known = [place for place in os.environ.get(VARIABLE, "").split(os.pathsep) if place]
    for place in places:
        path = base / Path(place).expanduser()
        absolute = str(path.resolve()) if path.exists() else place
        if absolute not in known:
            known.append(absolute)
        _load(absolute)
    os.environ[VARIABLE] = os.pathsep.join(known)


def load_parts() -> None:
    """Load the parts that ``STNBENCH_PARTS`` names and those that are installed, each once.

    Raises:
        SpecError: if a part cannot be loaded.
    """
    for place in os.environ.get(VARIABLE, "").split(os.pathsep):
        if place:
            _load(place)
    if _INSTALLED not in _loaded:
        _loaded.add(_INSTALLED)
        for entry in importlib.metadata.entry_points(group=GROUP):
            with _blaming(f"the entry point {entry.name} of {GROUP} ({entry.value})"):
                entry.load()


def require_same_parts(sources: Iterable[PartSource]) -> None:
    """Check that the parts of a trial are those that it was planned with.

    Raises:
        SpecError: if a part is absent or has changed; the message names it.
    """
    for source in sources:
        registry = _registry(source.kind)
        if registry.is_absent(source.name):
            raise SpecError(
                f"the {source.kind} {source.name} of this trial ({source.distribution}) is not here",
                remedy=f"name its folder in {VARIABLE}, or install it",
            )
        if registry.source(source.name) != source:
            raise SpecError(
                f"the {source.kind} {source.name} has changed since this trial was planned ({source.distribution})",
                remedy="plan the sweep again: an edited part makes new trials",
            )


def _load(place: str) -> None:
    if place in _loaded:
        return
    _loaded.add(place)
    path = Path(place).expanduser()
    if path.is_dir():
        for file in sorted(path.glob("*.py")):
            if not file.name.startswith(("_", ".", "test_")):
                _load_file(file.resolve())
    elif path.suffix == ".py" and path.is_file():
        _load_file(path.resolve())
    else:
        if os.sep in place or place.endswith(".py"):
            raise SpecError(f"the parts {place} are not there", remedy="name a folder, a file or an installed module")
        with _blaming(f"the module {place} with parts"):
            importlib.import_module(place)


def _load_file(file: Path) -> None:
    """Import a file as a module; files of the same folder can import each other."""
    name = f"stnbench_part_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}_{file.stem}"
    if name in sys.modules:
        return
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise SpecError(f"{file} is no Python module", remedy="give it the ending .py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        with _blaming(str(file)):
            found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


@contextlib.contextmanager
def _blaming(where: str) -> Iterator[None]:
    """Convert exceptions of the user's code in the block to SpecError; a SpecError is passed on."""
    try:
        yield
    except SpecError:
        raise
    except Exception as error:
        line = _last_line(error)
        problem = f"{where} cannot be loaded ({type(error).__name__}: {error}{line})"
        raise SpecError(problem, remedy="mend it; --debug shows the whole traceback") from error


def _last_line(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f", line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name}"


def _registry(kind: str) -> Registry:
    importlib.import_module("stnbench.spec.sweep")  # these two modules declare all registries
    importlib.import_module("stnbench.spec.trial")
    if kind not in REGISTRIES:
        raise UnknownNameError("kind of part", kind, [*REGISTRIES, METRIC])
    return REGISTRIES[kind]


def _own_fields(
    registry: Registry, name: str, inner: type | None
) -> tuple[list[tuple[str, Any, Any]], dict[str, object], Callable[[Any], None] | None]:
    """Return the parameters that a part adds, the methods of its specification, and its check."""
    if inner is None:
        return [], {}, None
    if not dataclasses.is_dataclass(inner):
        raise SpecError(f"Spec of the {registry.kind} {name} is no dataclass", remedy="write @dataclass above it")
    shared = {field.name for field in dataclasses.fields(registry.base)}
    hints, shared_hints = typing.get_type_hints(inner), typing.get_type_hints(registry.base)
    own = []
    for field in dataclasses.fields(inner):
        is_other = field.name in shared and hints[field.name] != shared_hints[field.name]
        if is_other or field.name in {"kind", registry.discriminator}:
            problem = f"the {registry.kind} {name} has a parameter {field.name}"
            remedy = f"every {registry.kind} has a key of this name: choose another, or give it the same type"
            raise SpecError(problem, remedy=remedy)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problem = f"the parameter {field.name} of the {registry.kind} {name} has no default"
            raise SpecError(problem, remedy="give it one, so that a configuration of one line is enough")
        fresh = dataclasses.field(default=field.default) if field.default_factory is dataclasses.MISSING else field
        own.append((field.name, hints[field.name], fresh))
    fields = {field.name for field in dataclasses.fields(inner)}
    kept = {key: value for key, value in vars(inner).items() if not key.startswith("__") and key not in fields}
    return own, kept, getattr(inner, "__post_init__", None)


def _repeated(registry: Registry, own: list[tuple[str, Any, Any]]) -> set[str]:
    """Return the keys of every part that a part repeats, because it uses them or has another default."""
    return {name for name, *_ in own} & {field.name for field in dataclasses.fields(registry.base)}


def _takes_a_specification(made: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(made).parameters
    except (TypeError, ValueError):
        return False
    return bool(parameters)


def _source(kind: str, name: str, made: Callable[..., Any]) -> PartSource:
    module = sys.modules.get(made.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None:  # typed in at a prompt, or in a notebook
        with contextlib.suppress(OSError, TypeError):
            return PartSource(kind=kind, name=name, distribution="", digest=_digest([inspect.getsource(made).encode()]))
        return PartSource(kind=kind, name=name, distribution="", digest=_digest([repr(made).encode()]))
    files = sorted(_files(module, Path(file)))
    return PartSource(
        kind=kind,
        name=name,
        distribution=_distribution(module) or Path(file).name,
        digest=_digest([path.read_bytes() for path in files]),
    )


def _files(module: ModuleType, file: Path) -> set[Path]:
    """Return the files with the code of a part: its package, or its file and the files beside it that it imports."""
    package = (module.__package__ or "").partition(".")[0]
    top = sys.modules.get(package) if package else None
    if top is not None and getattr(top, "__path__", None):
        return {path for folder in top.__path__ for path in Path(folder).rglob("*.py")}
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting.extend(path.parent / f"{imported}.py" for imported in _imports(path))
    return found


def _imports(path: Path) -> Iterator[str]:
    """Yield the first component of the name of every module that a file imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _distribution(module: ModuleType) -> str:
    """Return the installed distribution of a module with its version; empty if there is none."""
    top = module.__name__.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top, [])
    return f"{names[0]} {importlib.metadata.version(names[0])}" if names else ""


def _digest(contents: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for content in contents:
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()[:DIGEST_LENGTH]
