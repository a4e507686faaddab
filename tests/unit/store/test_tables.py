"""What must not be is refused by the database itself, whatever program writes it."""

import re
from typing import get_args

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from stnbench.spec.data import Split
from stnbench.spec.result import AttemptState, TrialState
from stnbench.store import tables
from stnbench.store.store import Store

SWEEP = "INSERT INTO sweeps VALUES ('s', '{}', '2026-03-01 12:00:00', '2026-03-01 12:00:00')"
TRIAL = "INSERT INTO trials VALUES ('t', 'c', 1, '{}', 'running', '2026-03-01 12:00:00')"
LINK = "INSERT INTO sweep_trials VALUES ('s', 't', 0, 'l', '{}', false, true, false)"
ATTEMPT = (
    "INSERT INTO attempts (id, trial_id, number, token, state, slot, host, pid, boot_id, started_at)"
    " VALUES (1, 't', 1, 'a', 'running', 'cpu0', 'box', 1, 'b', '2026-03-01 12:00:00')"
)
SECOND = ATTEMPT.replace("(1, 't', 1, 'a'", "(2, 't', 2, 'b'")
END = "UPDATE attempts SET finished_at = '2026-03-01 12:00:00', state = "
FAILURE = ", failure_kind = 'bug', failure_message = 'm', failure_traceback = '', failure_last_output = ''"
ENVIRONMENT = "INSERT INTO environments VALUES ('e', '{}')"
OUTCOME = "INSERT INTO outcomes VALUES ('t', 1, 1, 1, 1, 1.0, 1.0, 'e')"
SCORE = "INSERT INTO scores VALUES ('t', 'test', 2, 1, 0.5, '{}')"
EPOCH = "INSERT INTO epochs VALUES (1, 1, 10, 0.5, 0.5, 0.5, 0.1, 1.0, 1.0, '[]', '{}')"
IMAGES = "INSERT INTO image_sets VALUES ('i', 2, 'uint8', x'0001', x'', x'0000000001000000')"
SCORED = "INSERT INTO scored_images VALUES ('t', 'test', 'i')"
GOOD = (
    SWEEP,
    TRIAL,
    LINK,
    ATTEMPT,
    EPOCH,
    f"{END} 'complete'",
    ENVIRONMENT,
    OUTCOME,
    SCORE,
    "INSERT INTO predictions VALUES ('t', 'test', 'uint16', 2, x'00000100')",
)


def run(store: Store, *statements: str) -> None:
    """All statements in one transaction."""
    with store._database.transaction() as connection:
        for statement in statements:
            if connection.dialect.name == "postgresql":
                statement = re.sub("x('[0-9]*')", r"decode(\1, 'hex')", statement)  # noqa: PLW2901 - its way to say so
            connection.execute(text(statement))


def test_what_may_be_is_accepted(any_store: Store) -> None:
    """The statements from which the refusals below differ are fine themselves."""
    run(any_store, *GOOD, IMAGES, SCORED, SECOND, f"{END} 'failed' {FAILURE} WHERE id = 2")


@pytest.mark.parametrize(
    ("name", "statements"),
    [
        ("a trial of no known state", [TRIAL.replace("running", "happy")]),
        ("a negative seed", [TRIAL.replace("'c', 1", "'c', -1")]),
        ("a sweep of an unknown trial", [SWEEP, LINK]),
        ("a trial of an unknown sweep", [TRIAL, LINK]),
        (
            "two trials at one position",
            [SWEEP, TRIAL, LINK, TRIAL.replace("'t'", "'u'"), LINK.replace("'t'", "'u'")],
        ),
        ("an attempt of an unknown trial", [ATTEMPT]),
        ("an attempt of no known state", [TRIAL, ATTEMPT, f"{END} 'tired'"]),
        ("two attempts of one number", [TRIAL, ATTEMPT, f"{END} 'lost'", SECOND.replace("'t', 2", "'t', 1")]),
        (
            "two attempts of one token",
            [TRIAL, ATTEMPT, f"{END} 'lost'", SECOND.replace("'b', 'running'", "'a', 'running'")],
        ),
        ("two attempts at work", [TRIAL, ATTEMPT, SECOND]),
        ("two complete attempts", [TRIAL, ATTEMPT, f"{END} 'complete'", SECOND, f"{END} 'complete'"]),
        ("an attempt that ended and runs", [TRIAL, ATTEMPT, f"{END} 'running'"]),
        ("an attempt that ended at no time", [TRIAL, ATTEMPT, "UPDATE attempts SET state = 'lost'"]),
        ("a failure that does not say why", [TRIAL, ATTEMPT, f"{END} 'failed'"]),
        ("a failure of no kind", [TRIAL, ATTEMPT, f"{END} 'failed' {FAILURE.replace('bug', '')}"]),
        ("half a failure", [TRIAL, ATTEMPT, f"{END} 'failed' {FAILURE.replace(chr(39) + 'm' + chr(39), 'NULL')}"]),
        ("a complete attempt with a failure", [TRIAL, ATTEMPT, f"{END} 'complete' {FAILURE}"]),
        ("an epoch of an unknown attempt", [EPOCH]),
        ("an accuracy above one", [TRIAL, ATTEMPT, EPOCH.replace("0.5, 0.5, 0.5", "0.5, 0.5, 1.5")]),
        ("an outcome in an unknown environment", [TRIAL, ATTEMPT, OUTCOME]),
        ("a second outcome of one trial", [*GOOD, OUTCOME]),
        ("more correct than there are images", [*GOOD, SCORE.replace("'test', 2, 1", "'validation', 2, 3")]),
        ("a score on the training images", [*GOOD, SCORE.replace("test", "train")]),
        ("a label too few", [*GOOD[:-1], "INSERT INTO predictions VALUES ('t', 'test', 'uint16', 2, x'0000')"]),
        ("labels of floats", [*GOOD[:-1], "INSERT INTO predictions VALUES ('t', 'test', 'float', 2, x'00000100')"]),
        ("labels without a score", [*GOOD[:-2], "INSERT INTO predictions VALUES ('t', 'test', 'uint8', 1, x'00')"]),
        ("a true label too few", [IMAGES.replace("x'0001'", "x'00'")]),
        ("a track too many", [IMAGES.replace("x''", "x'000000000100000002000000'")]),
        ("a score of unknown images", [*GOOD, SCORED]),
        ("images of an unknown score", [*GOOD[:-2], IMAGES, SCORED]),
        ("nothing where something must be", [TRIAL.replace("'{}'", "NULL")]),
        ("removing a trial that has attempts", [TRIAL, ATTEMPT, "DELETE FROM trials"]),
    ],
)
def test_what_must_not_be_is_refused(any_store: Store, name: str, statements: list[str]) -> None:
    """Each of these breaks one promise of the tables, at its last statement."""
    with pytest.raises(IntegrityError):
        run(any_store, *statements)
    run(any_store, *statements[:-1])


@pytest.mark.parametrize(
    ("listed", "kinds"),
    [
        (tables.TRIAL_STATES, [state.value for state in TrialState]),
        (tables.ATTEMPT_STATES, [state.value for state in AttemptState]),
    ],
)
def test_the_checks_list_every_state(listed: str, kinds: list[str]) -> None:
    """A state added to the specification without a migration is found here, not by a user's sweep."""
    assert listed == ", ".join(f"'{kind}'" for kind in kinds)


def test_the_splits_are_those_that_are_scored() -> None:
    """The training split is never scored; every other one can be."""
    assert set(get_args(Split)) - {"train"} == {"validation", "test"}
