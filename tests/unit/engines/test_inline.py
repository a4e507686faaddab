"""The inline engine leaves the process as its owner had it."""

import sys
import types
from pathlib import Path

import pytest
import torch
from fake_trials import Task, fake_spec

from stnbench.core.errors import SpecError
from stnbench.engines import Failed, Finished, Launch, Slot
from stnbench.engines.worker import InlineEngine, execute
from stnbench.training import device
from stnbench.training.device import DeviceSpec, prepare_device


def test_settings_of_torch_are_the_owners_after_an_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial flushes denormals and wants deterministic algorithms; the notebook that ran it does not, after it."""
    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = lambda *_, **__: prepare_device(DeviceSpec.parse("cpu", threads=1))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stnbench.trials.run", stand_in)
    engine = InlineEngine(Slot(name="cpu0", device="cpu", threads=1))

    engine.submit(
        engine.slots[0],
        Launch(spec=fake_spec(Task.FINISH), token="a", folder=str(tmp_path), data_root=str(tmp_path)),
    )

    assert isinstance(engine.poll(0)[-1], Finished)
    assert float(torch.tensor([1e-30]) * torch.tensor([1e-10])) != 0.0
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("fails", "ending"), [(False, Finished), (True, Failed)])
def test_an_attempt_gives_its_memory_back_before_its_end_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool, ending: type[object]
) -> None:
    """However it ends: the next trial, of this process or another on the same device, finds the memory free."""
    happened: list[object] = []

    def train(*_: object, **__: object) -> object:
        happened.append("trained")
        if fails:
            raise SpecError("no such thing", remedy="another")
        return object()

    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stnbench.trials.run", stand_in)
    monkeypatch.setattr(device, "release_memory", lambda where: happened.append(f"released {where}"))
    launch = Launch(spec=fake_spec(Task.FINISH), token="a", folder=str(tmp_path), data_root=str(tmp_path))
    execute(launch, device="cpu", threads=1, send=lambda event: happened.append(type(event)), should_stop=lambda: False)
    assert happened[-3:] == ["trained", "released cpu", ending]
