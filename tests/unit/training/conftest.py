"""The toy task of ``toy_training``, parts of users, and weights without memory; torch is imported where it is used."""

import pytest
from own_parts import parts_forgotten
from toy_training import make_run, one_thread, toy_set, toy_spec

__all__ = ["make_run", "one_thread", "parts_forgotten", "toy_set", "toy_spec"]


@pytest.fixture
def fake_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that are made without memory get fake tensors: torch would swap them into real ones, and cannot."""
    import torch
    from torch import nn

    def to_empty(module: nn.Module, *, device: torch.device) -> nn.Module:
        for part in module.modules():
            for name, weight in part.named_parameters(recurse=False):
                part._parameters[name] = nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype, device=device))
            for name, buffer in part.named_buffers(recurse=False):
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
        return module

    monkeypatch.setattr(nn.Module, "to_empty", to_empty)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
