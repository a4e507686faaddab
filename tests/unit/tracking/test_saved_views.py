"""Views of MLflow's pages show what differs within a sweep."""

import json

from stnbench.spec.sweep import Axis, Choice, Override, SweepSpec
from stnbench.tracking.mlflow import saved_views


def axis(name: str) -> Axis:
    """An axis of one choice."""
    return Axis(name=name, choices=(Choice(label="a", overrides=(Override(key=name, value="a"),)),))


SWEEP = SweepSpec(
    name="sizes",
    question="?",
    axes=(axis("transformer"), axis("locnet@locnet1")),
    more_axes=((axis("transformer"), axis("network")),),
)


def test_configurations_are_sorted_by_their_means() -> None:
    """Configurations alone, the best first, with interval, n, rank and every axis of every grid once."""
    configs = saved_views(SWEEP)[0]
    envelope = json.loads(configs.value(2))
    state = json.loads(envelope["state"])
    assert (envelope["name"], envelope["createdAt"]) == ("Configurations, the best first", 2)
    assert state["searchFilter"] == "tags.summary = 'true'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`accuracy/validation_mean`", False)
    assert state["selectedColumns"][:4] == [
        f"metrics.`{key}`"
        for key in ("accuracy/validation_mean", "accuracy/validation_low", "accuracy/validation_high", "seeds")
    ]
    axes = ["params.`axis.transformer`", "params.`axis.locnet_locnet1`", "params.`axis.network`"]
    assert [column for column in state["selectedColumns"] if column.startswith("params")] == axes


def test_runs_show_their_data_health_and_failures() -> None:
    """Attempts alone, with what differs between them and why one failed."""
    runs = saved_views(SWEEP)[1]
    state = json.loads(json.loads(runs.value(1))["state"])
    assert state["searchFilter"] == "tags.attempt != ''"
    wanted = {"attributes.`Dataset`", "params.`seed`", "tags.`health`", "tags.`failure`", "tags.`failure_message`"}
    assert wanted <= set(state["selectedColumns"])
    assert runs.address("7").startswith("#/experiments/7/runs?")
    assert runs.tag == "mlflow.sharedViewState.runs"


def test_a_view_of_many_axes_fits_into_a_tag() -> None:
    """MLflow before 3.17 takes 5,000 characters; whatever the axes are called, a view has fewer."""
    many = tuple(axis(f"a.rather.long.name.of.the.axis.number{index}") for index in range(60))
    assert max(len(view.value(1)) for view in saved_views(SweepSpec(name="m", question="?", axes=many))) < 5000
