"""Which number of slots is faster on this machine."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_trials import Task, fake_spec
from typing_extensions import override

from stnbench.core.errors import EngineError
from stnbench.engines import Engine, EngineEvent, Failed, Finished, Launch, Slot
from stnbench.engines.calibrate import SlotChoice, measure_choice, measure_gpu_choice, recall_choice, remember_choice
from stnbench.spec.result import Failure, FailureKind


class Clocked(Engine):
    """Trials take as long as ``duration_s`` says for so many slots, on a clock of their own."""

    def __init__(self, slots: Sequence[Slot], durations_s: dict[int, float], now: list[float], *, fails: bool) -> None:
        self._slots = slots
        self._duration_s = durations_s[len(slots)]
        self._now = now
        self._fails = fails
        self._slower = 10.0  # the first round, which imports torch
        self._running: list[Launch] = []
        self.closed = False

    @property
    @override
    def slots(self) -> Sequence[Slot]:
        return self._slots

    @override
    def submit(self, slot: Slot, launch: Launch) -> None:
        assert launch.spec.training.epochs == 1
        self._running.append(launch)

    @override
    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        self._now[0] += self._duration_s * self._slower
        self._slower = 1.0
        done, self._running = self._running, []
        if self._fails:
            failure = Failure(kind=FailureKind.BUG, message="no such luck")
            return [Failed(token=launch.token, failure=failure) for launch in done]
        return [Finished(token=launch.token) for launch in done]

    @override
    def stop(self, token: str) -> None:
        del token

    @override
    def kill(self, token: str) -> None:
        del token

    @override
    def close(self) -> None:
        self.closed = True


def measure(tmp_path: Path, durations_s: dict[int, float], *, fails: bool = False) -> tuple[SlotChoice, list[Clocked]]:
    """The choice on a machine of four cores, and the engines that were used."""
    now, engines = [0.0], []

    def open_engine(slots: Sequence[Slot]) -> Engine:
        engines.append(Clocked(slots, durations_s, now, fails=fails))
        return engines[-1]

    spec = fake_spec(Task.FINISH)
    choice = measure_choice(
        spec,
        cores=4,
        open_engine=open_engine,
        scratch=tmp_path / "scratch",
        data_root=tmp_path,
        clock_s=lambda: now[0],
    )
    return choice, engines


@pytest.mark.parametrize(("alone_s", "together_s", "slots"), [(1.0, 3.0, 4), (1.0, 5.0, 1)])
def test_more_trials_a_second_win(tmp_path: Path, alone_s: float, together_s: float, slots: int) -> None:
    """Four trials in 3 s beat one a second, and lose in 5 s; engines are closed and nothing is left on the disk."""
    choice, engines = measure(tmp_path, {1: alone_s, 4: together_s})
    assert choice.slots == slots
    assert dict(choice.trials_per_s) == pytest.approx({1: 1 / alone_s, 4: 4 / together_s})
    assert [engine.closed for engine in engines] == [True, True]
    assert [len(engine.slots) for engine in engines] == [1, 4]
    assert [slot.threads for slot in itertools.chain(*(engine.slots for engine in engines))] == [4, 1, 1, 1, 1]
    assert not (tmp_path / "scratch").exists()


def test_a_trial_that_fails_is_no_measurement(tmp_path: Path) -> None:
    """The error says what happened and how to do without."""
    with pytest.raises(EngineError, match=r"no such luck.*--slots"):
        measure(tmp_path, {1: 1.0, 4: 1.0}, fails=True)


def test_a_choice_is_remembered_for_the_machine_it_was_measured_on(tmp_path: Path) -> None:
    """Another number of cores, or a file that cannot be read, means measuring anew."""
    path = tmp_path / "machines" / "host.json"
    choice = SlotChoice(cores=4, slots=1, trials_per_s=((1, 2.0), (4, 1.5)))
    assert recall_choice(path, cores=4) is None
    remember_choice(path, choice)
    assert recall_choice(path, cores=4) == choice
    assert recall_choice(path, cores=8) is None
    path.write_text("{")
    assert recall_choice(path, cores=4) is None


@pytest.mark.parametrize(
    ("durations_s", "memory_mib", "slots", "tried"),
    [
        ({1: 1.0, 2: 1.2, 4: 1.6, 8: 3.9}, 80_000.0, 4, [1, 2, 4, 8]),
        ({1: 1.0, 2: 1.95}, 80_000.0, 1, [1, 2]),
        ({1: 1.0, 2: 1.1}, 5_000.0, 2, [1, 2]),
        ({1: 1.0}, 2_000.0, 1, [1]),
    ],
    ids=["four", "no gain", "memory for two", "memory for one"],
)
def test_a_gpu_gets_as_many_slots_as_gain(
    tmp_path: Path, durations_s: dict[int, float], memory_mib: float, slots: int, tried: list[int]
) -> None:
    """Each doubling must get a tenth more trials done, and fit into the memory beside the contexts; one always does."""
    now, engines = [0.0], list[Clocked]()

    def open_engine(given: Sequence[Slot]) -> Engine:
        engines.append(Clocked(given, durations_s, now, fails=False))
        return engines[-1]

    choice = measure_gpu_choice(
        fake_spec(Task.FINISH),
        gpus=("0", "1"),
        cores=8,
        needed_mib=1500.0,
        memory_mib={"0": memory_mib, "1": memory_mib},
        compute="cuda_graphs",
        open_engine=open_engine,
        scratch=tmp_path / "scratch",
        data_root=tmp_path,
        clock_s=lambda: now[0],
    )
    assert (choice.slots, choice.gpus, choice.compute) == (slots, ("0", "1"), "cuda_graphs")
    assert [len(engine.slots) for engine in engines] == tried
    assert {slot.device for engine in engines for slot in engine.slots} == {"0"}
    path = tmp_path / "host.json"
    remember_choice(path, choice)
    assert recall_choice(path, cores=8, gpus=("0", "1"), compute="cuda_graphs") == choice
    assert recall_choice(path, cores=8, gpus=("0",), compute="cuda_graphs") is None
    assert recall_choice(path, cores=8, gpus=("0", "1")) is None
