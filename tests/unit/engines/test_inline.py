"""The inline engine leaves the process as its owner had it."""

import sys
import types
from pathlib import Path

import pytest
import torch
from fake_trials import Task, fake_spec

from stnbench.engines.base import Finished, Launch, Slot
from stnbench.engines.inline import InlineEngine
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
