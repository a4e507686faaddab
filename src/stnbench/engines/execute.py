"""Executing one attempt in this process: the only road from an engine to torch, taken inside the worker."""

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
        send(Failed(token=launch.token, failure=classify(error)))
    else:
        send(Stopped(token=launch.token) if result is None else Finished(token=launch.token))
