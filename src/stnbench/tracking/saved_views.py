"""Views that MLflow's pages offer of an experiment: which runs, in which order, with which columns.

By themselves these pages show names and times alone. A view is a tag of the experiment (MLflow 3.17; older versions do
not list it), and its link opens it. Pure; no MLflow here.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stnbench.spec.sweep import SweepSpec
from stnbench.tracking import shown

TAG_PREFIX = "mlflow.sharedViewState."
_NAME = "attributes.`Run Name`"
_NAME_WIDTH_PX, _WIDTH_PX = 300, 190
_MOST_AXES = 12
"""Columns of a view; more do not fit on a screen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedView:
    """A view by its ``key``; ``order_by`` is a column, ``columns`` those shown beside the name."""

    key: str
    name: str
    search: str
    order_by: str
    is_ascending: bool
    columns: tuple[str, ...]

    @property
    def tag(self) -> str:
        """The tag's key."""
        return TAG_PREFIX + self.key

    def value(self, place: int) -> str:
        """The tag's value; views of a higher place are listed first."""
        widths = dict.fromkeys(self.columns, _WIDTH_PX) | {_NAME: _NAME_WIDTH_PX}
        state = {
            "searchFilter": self.search,
            "orderByKey": self.order_by,
            "orderByAsc": self.is_ascending,
            "selectedColumns": list(self.columns),
            "columnOrder": [_NAME, *self.columns],
            "columnWidths": widths,
        }
        text = json.dumps(state, sort_keys=True)
        return json.dumps({"name": self.name, "createdAt": place, "updatedAt": place, "state": text})

    def address(self, experiment_id: str) -> str:
        """Where it opens, within MLflow's pages."""
        return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={self.key}"


def saved_views(sweep: SweepSpec) -> list[SavedView]:
    """The cells of a sweep by their means, and its runs with what differs between them."""
    names = dict.fromkeys(axis.name for grid in sweep.grids for axis in grid)
    axes = [_column("params", shown.axis_key(name)) for name in list(names)[:_MOST_AXES]]
    mean = _column("metrics", shown.CELL_MEAN)
    intervals = ("validation_accuracy_low", "validation_accuracy_high", "seeds", "rank", "st_gain", "parameters")
    cells = SavedView(
        key="cells",
        name="Cells, the best first",
        search="tags.summary = 'true'",
        order_by=mean,
        is_ascending=False,
        columns=(mean, *_columns("metrics", intervals), *axes, *_columns("tags", ("rank", "vs_best", "health"))),
    )
    final = _column("metrics", "validation_accuracy_final")
    runs = SavedView(
        key="runs",
        name="Runs, with what differs",
        search="tags.attempt != ''",
        order_by=final,
        is_ascending=False,
        columns=(
            *_columns("attributes", ("Dataset",)),
            *_columns("metrics", ("validation_accuracy_final", "validation_loss", "train_loss")),
            *axes,
            *_columns("params", ("seed",)),
            *_columns("tags", ("status", "health", "failure", "failure_message")),
        ),
    )
    return [cells, runs]


def _columns(kind: str, names: Sequence[str] | Iterable[str]) -> tuple[str, ...]:
    return tuple(_column(kind, name) for name in names)


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"
