"""The real worker with fake trials: a worker process that starts in a fraction of a second, for it needs no torch."""

import contextlib
import os
import stat
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fake_trials

from stnbench.engines import worker
from stnbench.spec.trial import TrialSpec


def run_trial(spec: TrialSpec, **options: object) -> object:
    """A fake trial; some of them break the worker's protocol or its pipes, which no trial should be able to do."""
    if spec.training.batch_size == fake_trials.Task.TALK_NONSENSE:
        for handle in range(3, 16):
            try:
                os.write(handle, b"nonsense\n")
            except OSError:
                continue
        fake_trials.kill_self()
    if spec.training.batch_size == fake_trials.Task.DROP_PIPES:
        for handle in range(256):
            with contextlib.suppress(OSError):
                if stat.S_ISFIFO(os.fstat(handle).st_mode):
                    os.close(handle)
    return fake_trials.run_fake_trial(spec, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    stand_in = types.ModuleType("stnbench.trials.run")
    stand_in.run_trial = run_trial  # type: ignore[attr-defined]
    sys.modules["stnbench.trials.run"] = stand_in
    worker.main(sys.argv[1:])
