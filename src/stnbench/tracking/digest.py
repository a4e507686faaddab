"""When two views show the same."""

from pydantic import TypeAdapter

from stnbench.core.identity import digest
from stnbench.tracking.base import AttemptView, CellView


def view_digest(view: AttemptView | CellView) -> str:
    """The identity of what a view shows: equal views have equal digests, so what was shown need not be shown again."""
    plain = TypeAdapter(type(view)).dump_python(view, mode="json")
    return digest({"kind": type(view).__name__, "view": plain})
