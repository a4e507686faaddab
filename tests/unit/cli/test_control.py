"""``stnbench control``: what a person types becomes one request, and its answer is shown."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_up_results import NOW

from stnbench.cli.control import main
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.files import RunsLayout
from stnbench.orchestration.claims import ProcessIdentity, orchestrator_lock
from stnbench.orchestration.control import Inbox, parse_action, send_request, wait_for
from stnbench.spec.control import Action, AddSeeds, ControlRecord, Effect, Pause, Resume, Retry, SetSlots, Stop
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store


@pytest.fixture(autouse=True)
def in_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands work in the runs folder of the test."""
    monkeypatch.setenv("STNBENCH_RUNS", str(runs))


def waiting(runs: Path) -> list[Action]:
    """What was asked of the sweep."""
    return [request.action for request in Inbox(RunsLayout(runs).control, warn=pytest.fail).waiting("sizes")]


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (["pause"], Pause()),
        (["resume"], Resume()),
        (["stop", "10,10,10"], Stop(target="10,10,10")),
        (["stop", "10,10,10#2"], Stop(target="10,10,10#2")),
        (["retry", "all"], Retry(target="all")),
        (["retry", "30,30,30"], Retry(target="30,30,30")),
        (["slots", "4"], SetSlots(count=4)),
        (["seeds", "+2"], AddSeeds(count=2)),
        (["seeds", "2"], AddSeeds(count=2)),
    ],
)
def test_what_is_typed_is_asked(
    store: Store, sizes: list[TrialSpec], runs: Path, words: Sequence[str], action: Action
) -> None:
    """One file, whole, for the sweep that was named."""
    assert main(["sizes", *words]) == 0
    assert waiting(runs) == [action]


@pytest.mark.parametrize(
    "words",
    [
        ["stop"],
        ["pause", "now"],
        ["slots"],
        ["slots", "0"],
        ["slots", "-1"],
        ["slots", "many"],
        ["slots", "10001"],
        ["seeds", "+"],
        ["seeds", "+0"],
        ["seeds", "++2"],
        ["stop", "10,10,1"],
        ["stop", "10,10,10#7"],
        ["stop", ""],
        ["retry", "\x1b[2J"],
        ["start"],
    ],
)
def test_what_cannot_be_meant_asks_nothing(
    store: Store, sizes: list[TrialSpec], runs: Path, words: Sequence[str]
) -> None:
    """It is one line with a remedy."""
    with pytest.raises(SpecError):
        main(["sizes", *words])
    assert not (runs / "control").exists()


def test_a_sweep_that_is_not_there_offers_the_nearest(store: Store, sizes: list[TrialSpec], runs: Path) -> None:
    """And nothing is asked."""
    with pytest.raises(UnknownNameError, match="sizes"):
        main(["size", "pause"])
    assert not (runs / "control").exists()


def test_without_an_orchestrator_it_is_left_for_the_next(
    store: Store, sizes: list[TrialSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    """And the command says so instead of waiting."""
    assert main(["sizes", "pause"]) == 0
    assert "when sizes is started" in capsys.readouterr().out


@pytest.mark.parametrize("refused", [False, True])
def test_the_answer_of_the_orchestrator_is_shown(
    store: Store,
    sizes: list[TrialSpec],
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    refused: bool,
) -> None:
    """Exit code 1 where it was refused."""

    def answer(_: float) -> None:
        [request] = Inbox(RunsLayout(runs).control, warn=pytest.fail).waiting("sizes")
        store.add_control(
            ControlRecord(request=request, applied_at=NOW, is_refused=refused, outcome="so \x1b it is", effect=Effect())
        )

    monkeypatch.setattr(time, "sleep", answer)
    with orchestrator_lock(RunsLayout(runs), ProcessIdentity.current()):
        assert main(["sizes", "pause"]) == int(refused)
    assert capsys.readouterr().out == ("refused: " if refused else "") + "so \\x1b it is\n"
    assert main(["sizes", "list"]) == 0
    assert "so \\x1b it is" in capsys.readouterr().out


def test_an_orchestrator_that_does_not_answer_is_not_waited_for_for_ever(store: Store, runs: Path) -> None:
    """After the limit there is no answer."""
    request = send_request(runs / "control", "sizes", Pause(), at=datetime.now(UTC), program="test")
    times = iter([0.0, 5.0, 11.0])
    assert wait_for(store, request, sleep=lambda _: None, clock_s=lambda: next(times)) is None


def test_an_action_that_is_not_there_is_refused() -> None:
    """Also where the parser has let it through."""
    with pytest.raises(UnknownNameError, match="pause"):
        parse_action("paus", None, [], "sizes")
