"""Optuna's samplers by name and its evaluators of importance, with Optuna's messages and warnings silenced."""

import contextlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import derive_seed
from stnbench.spec.planner import SamplerSpec
from stnbench.spec.sweep import Labels, SweepSpec

# Optuna's samplers by name, with Optuna's messages and warnings silenced.


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


# Importances of the axes of a sweep, by Optuna's evaluators.


if TYPE_CHECKING:
    import optuna

FEWEST_CONFIGURATIONS: Final = 10
"""The smallest number of configurations: PED-ANOVA compares five good ones with as many others."""

_GOOD_CONFIGURATIONS: Final = 5
_GOOD_SHARE: Final = 0.1
_FANOVA_TREES: Final = 32
_FANOVA_CONFIGURATIONS_MAX: Final = 100
_FANOVA_LABELS_MAX: Final = 12
"""Labels of an unordered axis; fANOVA's time doubles with each, to 5 seconds for 12 and minutes for 16."""
"""The largest number of configurations for fANOVA, whose time grows with its square, to minutes for 1,000."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisImportance:
    """The importance of one axis; each number is normalised so that those of all axes add up to 1.

    ``ped_anova`` measures how much the best tenth of configurations (at least five of them) agree on the axis, and
    ``fanova`` the share of the variance of all that it explains. ``fanova`` is None for an axis that some
    configurations lack, which fANOVA cannot handle, and if the number of configurations or labels of an axis would make
    it take minutes.
    """

    ped_anova: float
    fanova: float | None


def axis_importances(sweep: SweepSpec, configs: Sequence[tuple[Labels, float]]) -> dict[str, AxisImportance]:
    """Compute the importance of every axis on which configurations differ, by name.

    The same configurations give the same numbers. The methods are PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)
    and fANOVA (Hutter et al. 2014).

    Args:
        sweep: the sweep of the axes.
        configs: labels and value of each configuration; higher values are better.

    Returns:
        The importances; empty for fewer than ``FEWEST_CONFIGURATIONS`` configurations, or if all are equally good.
    """
    if len(configs) < FEWEST_CONFIGURATIONS or len({value for _, value in configs}) == 1:
        return {}
    places = _places(sweep, configs)
    everywhere = [name for name in places if all(name in dict(labels) for labels, _ in configs)]
    if not places:
        return {}
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about axes that some configurations lack
        ped_anova = _ped_anova(_study(places, configs), list(places), configs=len(configs))
        fanova = _fanova(sweep, places, configs, everywhere)
    return {name: AxisImportance(ped_anova=ped_anova[name], fanova=fanova.get(name)) for name in places}


def _places(sweep: SweepSpec, configs: Sequence[tuple[Labels, float]]) -> dict[str, tuple[bool, dict[str, int]]]:
    """Return, for every axis with two labels or more, whether they are ordered numbers, and the index of each label."""
    found = dict.fromkeys(item for labels, _ in configs for item in labels)
    places: dict[str, tuple[bool, dict[str, int]]] = {}
    for axis in (axis for grid in sweep.grids for axis in grid if axis.name not in places):
        own = [label for name, label in found if name == axis.name]
        order = {choice.label: place for place, choice in enumerate(axis.values)}
        is_range = axis.span is not None and all(label in order for label in own)
        if len(own) > 1:
            ranked = order if is_range else {label: place for place, label in enumerate(sorted(own))}
            places[axis.name] = is_range, {label: ranked[label] for label in own}
    return places


def _study(
    places: Mapping[str, tuple[bool, dict[str, int]]], configs: Sequence[tuple[Labels, float]]
) -> "optuna.Study":
    """Build a study that minimises from configurations, because the evaluators agree on that direction."""
    import optuna

    kinds: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.IntDistribution(min(own.values()), max(own.values()))
        if is_range
        else optuna.distributions.CategoricalDistribution(range(len(own)))
        for name, (is_range, own) in places.items()
    }
    study = optuna.create_study(direction="minimize")
    trials = []
    for labels, value in configs:
        parameters = {name: places[name][1][label] for name, label in labels if name in places}
        own = {name: kinds[name] for name in parameters}
        trials.append(optuna.trial.create_trial(value=-value, params=parameters, distributions=own))
    study.add_trials(trials)
    return study


def _ped_anova(study: "optuna.Study", names: Sequence[str], *, configs: int) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator

    share = min(0.5, max(_GOOD_SHARE, _GOOD_CONFIGURATIONS / configs))
    found = PedAnovaImportanceEvaluator(target_quantile=share).evaluate(study, params=list(names))
    return _normalised(found)


def _fanova(
    sweep: SweepSpec,
    places: Mapping[str, tuple[bool, dict[str, int]]],
    configs: Sequence[tuple[Labels, float]],
    names: Sequence[str],
) -> dict[str, float]:
    most = max((len(own) for name, (is_range, own) in places.items() if name in names and not is_range), default=0)
    if not names or len(configs) > _FANOVA_CONFIGURATIONS_MAX or most > _FANOVA_LABELS_MAX:
        return {}
    from optuna.importance import FanovaImportanceEvaluator

    seed = derive_seed(0, "fanova", sweep.name) % 2**32
    study = _study({name: places[name] for name in names}, configs)
    return _normalised(FanovaImportanceEvaluator(seed=seed, n_trees=_FANOVA_TREES).evaluate(study, params=list(names)))


def _normalised(found: Mapping[str, float]) -> dict[str, float]:
    total = sum(found.values())
    return {name: float(value / total) if total > 0 else 0.0 for name, value in found.items()}
