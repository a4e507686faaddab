"""Reading many trials takes as many statements as reading few, and a row that cannot be read is told."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, text

from stnbench.core.errors import SpecError
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial

QUESTIONS: dict[str, Callable[[Store, str], object]] = {
    "sweeps": lambda store, _: store.sweeps(),
    "sweep_trials": lambda store, sweep: store.sweep_trials(sweep),
    "attempts_of_sweep": lambda store, sweep: store.attempts_of_sweep(sweep),
    "epochs_of_sweep": lambda store, sweep: store.epochs_of_sweep(sweep),
    "outcomes": lambda store, sweep: store.outcomes(sweep),
    "outcomes with predictions": lambda store, sweep: store.outcomes(sweep, predictions=True),
    "predictions_of_sweep": lambda store, sweep: store.predictions_of_sweep(sweep, "validation"),
    "image_sets": lambda store, sweep: store.image_sets(sweep, "validation"),
    "running_attempts": lambda store, _: store.running_attempts(),
}


def count_statements(store: Store, ask: Callable[[Store, str], object], sweep: str) -> int:
    """How many statements a question takes, without its BEGIN."""
    said: list[str] = []

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(store._database.backend.reader, "before_cursor_execute", listen)
    ask(store, sweep)
    event.remove(store._database.backend.reader, "before_cursor_execute", listen)
    return len([statement for statement in said if not statement.startswith("BEGIN")])


@pytest.mark.parametrize("question", QUESTIONS)
def test_statements_do_not_grow_with_trials(
    store: Store, fill: Callable[[str, int], list[PlannedTrial]], question: str
) -> None:
    """One trial or eight: the number of statements is the same, and small."""
    trials = fill("many", 8)
    store.save_sweep(SweepSpec(name="few", question="?"), trials[:1], datetime(2026, 3, 1, tzinfo=UTC))
    few, many = (count_statements(store, QUESTIONS[question], sweep) for sweep in ("few", "many"))
    assert few == many
    assert few <= 5


def test_a_specification_that_cannot_be_read_is_named(
    store: Store, fill: Callable[[str, int], list[PlannedTrial]]
) -> None:
    """A stored specification is decoded as strictly as a file: an unknown key is told, nothing is executed."""
    fill("one", 1)
    with store._database.transaction() as connection:
        connection.execute(text("""UPDATE trials SET spec = '{"network": {"kind": "!!python/object"}}'"""))
    with pytest.raises(SpecError, match="the store"):
        store.sweep_trials("one")
