"""Views have equal digests exactly when they show the same."""

import dataclasses
from typing import Any, TypeVar

import pytest

from stnbench.core.errors import SpecError
from stnbench.spec.result import AttemptState
from stnbench.spec.trial import TrialSpec
from stnbench.tracking import AttemptView, ConfigurationView, view_digest

OTHERS = {
    str: "other",
    bool: False,
    int: 99,
    float: 0.125,
}


def changed(value: object) -> object:
    """Another value of the same kind."""
    match value:
        case AttemptState():
            return AttemptState.LOST
        case TrialSpec():
            return value.with_seed(value.seed + 1)
        case tuple():
            return value[:-1]
        case bool():
            return not value
        case str() | int() | float():
            return OTHERS[type(value)]
        case _:
            return None


V = TypeVar("V", AttemptView, ConfigurationView)


def with_changed(view: V, name: str) -> V:
    """A view with another value of one field."""
    changes: dict[str, Any] = {name: changed(getattr(view, name))}
    return dataclasses.replace(view, **changes)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AttemptView)])
def test_every_field_of_an_attempt_counts(attempt: AttemptView, name: str) -> None:
    """No change of an attempt goes unseen."""
    other = with_changed(attempt, name)
    assert view_digest(other) != view_digest(attempt)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ConfigurationView)])
def test_every_field_of_a_configuration_counts(config: ConfigurationView, name: str) -> None:
    """No change of a configuration goes unseen."""
    other = with_changed(config, name)
    assert view_digest(other) != view_digest(config)


def test_equal_views_have_equal_digests(attempt: AttemptView, config: ConfigurationView) -> None:
    """A view made again is the same view, in this process or the next: the digests are pinned."""
    assert view_digest(dataclasses.replace(attempt)) == view_digest(attempt)
    assert view_digest(dataclasses.replace(config)) == view_digest(config) == "2d508cc84634e145"


def test_what_json_cannot_say_is_refused(attempt: AttemptView) -> None:
    """A number that is not finite has no digest."""
    epochs = (dataclasses.replace(attempt.epochs[0], train_loss=float("nan")),)
    with pytest.raises(SpecError, match="not a finite number"):
        view_digest(dataclasses.replace(attempt, epochs=epochs))
