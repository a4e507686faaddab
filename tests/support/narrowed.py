"""Values whose type a test knows more precisely than mypy does: each helper checks it and returns the value."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from stnbench.core.identity import Json
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.trial import TrialSpec

if TYPE_CHECKING:  # torch and the page are loaded by the tests that use them
    from torch import nn

    from stnbench.report.html.document import View

T = TypeVar("T")


def known(value: T | None) -> T:
    """Return a value that is not missing."""
    assert value is not None
    return value


def only(kind: type[T], value: object) -> T:
    """Return a value of this type."""
    assert isinstance(value, kind), f"{value!r} is no {kind.__name__}"
    return value


def sgd_of(spec: TrialSpec) -> SgdSpec:
    """Return the optimizer of a trial that is trained by SGD."""
    return only(SgdSpec, spec.optimizer)


def sizes_of(spec: TrialSpec, branch: int = 0) -> tuple[int, ...]:
    """Return the sizes of a localisation network of 2015."""
    found = known(spec.transformers[branch].locnet)
    return cast("tuple[int, ...]", getattr(found, "sizes"))  # noqa: B009 - the kinds that have sizes share no base


def module_of(network: "nn.Module", name: str, kind: type[T]) -> T:
    """Return a submodule, such as ``stages.0``, of this type."""
    return only(kind, network.get_submodule(name))


def plain(value: Json) -> Any:
    """Return JSON values to be read without a check of every level."""
    return value


def traces_of(view: "View") -> Sequence[dict[str, Any]]:
    """Return the traces of a view of a figure, in Plotly's words."""
    return cast("Sequence[dict[str, Any]]", view.traces)
