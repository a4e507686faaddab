"""Executing one attempt in this process: the only road from an engine to torch, taken inside the worker."""

import sys
from collections.abc import Callable
from pathlib import Path

from stnbench.engines.base import EngineEvent, Epoch, Failed, Finished, Launch, Stopped


def execute(
    launch: Launch, *, device: str, threads: int, send: Callable[[EngineEvent], None], should_stop: Callable[[], bool]
) -> None:
    """Run the attempt and send its events; whatever goes wrong becomes Failed.

    Raises: KeyboardInterrupt and SystemExit only.
    """
    from stnbench.trials.failures import classify
    from stnbench.trials.run import run_trial

    try:
        result = run_trial(
            launch.spec,
            token=launch.token,
            folder=Path(launch.folder),
            data_root=Path(launch.data_root),
            device=device,
            threads=threads,
            resume_from=Path(launch.resume_from) if launch.resume_from else None,
            micro_batches=launch.micro_batches,
            report=lambda record: send(Epoch(token=launch.token, record=record)),
            should_stop=should_stop,
        )
    except Exception as error:  # noqa: BLE001 - every failure of a trial is a row, of whatever kind
        ended: EngineEvent = Failed(token=launch.token, failure=classify(error))
    else:
        ended = Stopped(token=launch.token) if result is None else Finished(token=launch.token)
    # Before anybody hears of the end: the trial that comes next, here or beside, finds the memory free.
    if "torch" in sys.modules:
        from stnbench.training.device import release_memory

        release_memory(device)
    send(ended)
