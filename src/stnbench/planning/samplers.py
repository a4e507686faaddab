"""Optuna's samplers by name, with Optuna's messages and warnings silenced."""

import contextlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import derive_seed
from stnbench.spec.planner import SamplerSpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_SEED_LIMIT = 2**32
_PLAIN = {"int": int, "float": (int, float), "str": str, "bool": bool, "None": type(None)}
_QUIET = {name: {"warn_independent_sampling": False} for name in ("CmaEsSampler", "GPSampler", "QMCSampler")}
"""Options that silence warnings about axes that a sampler leaves to another one."""

_OUT_OF_PLACE = {
    "GridSampler": "planner: grid visits every point",
    "BruteForceSampler": "planner: grid visits every point",
    "PartialFixedSampler": "fix a value in base:",
}
_NEEDS_ITS_SEED = ("QMCSampler",)
"""Samplers that follow one sequence, which the seed determines."""

_PACKAGES = {"CmaEsSampler": "cmaes"}
"""Optional packages that a sampler imports only in the middle of a search."""

MakeSampler = Callable[[int], "BaseSampler"]
"""A function that returns a new sampler with a seed."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's messages below errors and its warnings about experimental features, for the block."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def sampler_maker(spec: SamplerSpec) -> MakeSampler:
    """Return the function that makes the samplers of a planner.

    Raises:
        UnknownNameError: for a sampler or an option that does not exist.
        SpecError: for a sampler or an option that cannot be used.
    """
    name, options = spec.optuna_sampler
    kind = _find(name)
    _check_options(name, kind, options)
    package = _PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise SpecError(f"Optuna's {name} needs the package {package}", remedy=f"pip install {package}")
    options = _QUIET.get(name, {}) | dict(options)

    def make(seed: int) -> "BaseSampler":
        own = derive_seed(spec.seed, name) if name in _NEEDS_ITS_SEED else seed
        try:
            with quiet():
                return kind(**options, seed=own % _SEED_LIMIT)
        except ValueError as error:
            raise SpecError(f"planner.options of {name}: {error}", remedy="change the option that it names") from error

    make(spec.seed)  # errors are raised before anything runs
    return make


def _find(name: str) -> Callable[..., "BaseSampler"]:
    from optuna import samplers

    known = {
        key: kind
        for key, kind in vars(samplers).items()
        if isinstance(kind, type) and issubclass(kind, samplers.BaseSampler) and not key.startswith("Base")
    }
    if name in _OUT_OF_PLACE:
        raise SpecError(f"planner.sampler is '{name}'", remedy=_OUT_OF_PLACE[name])
    if name not in known:
        raise UnknownNameError("planner.sampler", name, known.keys() - _OUT_OF_PLACE.keys(), where="Optuna")
    return known[name]


def _check_options(name: str, kind: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise an error unless every option is a plain value of the type in the sampler's signature.

    No value is looked up or executed.
    """
    known = {key: _annotation(parameter) for key, parameter in inspect.signature(kind).parameters.items()}
    plain = {key: types for key, types in known.items() if key != "seed" and _types(types)}
    for key, value in options.items():
        if key == "seed":
            raise SpecError(f"planner.options.seed is {value!r}", remedy="set planner.seed")
        if key not in plain:
            raise UnknownNameError(f"key of planner.options for {name}", key, plain)
        allowed = _types(plain[key])
        is_flag = isinstance(value, bool)
        if not isinstance(value, allowed) or (is_flag and bool not in allowed):
            raise SpecError(f"planner.options.{key} is {value!r}", remedy=f"{name} takes {plain[key]}")


def _annotation(parameter: inspect.Parameter) -> str:
    found = parameter.annotation
    return found.__name__ if isinstance(found, type) else str(found)


def _types(annotation: str) -> tuple[type, ...]:
    """Return the plain types of an annotation such as ``int | None``; none if it has any other type."""
    types: list[type] = []
    for part in annotation.replace("'", "").replace('"', "").split("|"):
        found = _PLAIN.get(part.strip())
        if found is None:
            return ()
        types.extend(found if isinstance(found, tuple) else (found,))
    return tuple(types)
