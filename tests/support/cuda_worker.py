"""The real worker, whose trials do to a real GPU what their task says: compute, take too much memory, or spoil it."""

import sys
import types
from pathlib import Path
from typing import no_type_check

sys.path.insert(0, str(Path(__file__).parent))

import fake_trials
import triton
import triton.language as tl

from stnbench.engines import worker
from stnbench.spec.trial import TrialSpec


@triton.jit
@no_type_check
def write_outside(pointer, offset):  # noqa: ANN001, ANN201 - triton's own types
    """Write one number."""
    tl.store(pointer + offset, 1.0)


def spoil_context() -> None:
    """Write far outside of all memory; the context of this process is lost with it."""
    import torch

    write_outside[(1,)](torch.zeros(1, device="cuda"), 1 << 44)
    torch.cuda.synchronize()


def run_trial(spec: TrialSpec, **options: object) -> object:
    """What the task says on the GPU, then the rest of a fake trial."""
    import torch

    if spec.training.batch_size == fake_trials.Task.SPOIL_DEVICE:
        spoil_context()
    if spec.training.batch_size == fake_trials.Task.OUT_OF_MEMORY:
        torch.empty(1 << 44, dtype=torch.uint8, device="cuda")
    assert float(torch.ones(1000, device="cuda").sum()) == 1000
    return fake_trials.run_fake_trial(spec, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = run_trial  # type: ignore[attr-defined]
    sys.modules["stnbench.trials.run"] = stand_in
    worker.main(sys.argv[1:])
