"""The far end of a slot: what a node of a cluster runs to execute the attempts of one slot.

It knows nothing of the cluster. Requests and answers are bytes and text, so that whatever carries them needs to know
none of our classes.
"""

import dataclasses
import io
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args
from zipfile import ZipFile

from stnbench.core.errors import EngineError, ProtocolError
from stnbench.core.files import write_atomic
from stnbench.core.identity import RESULTS_VERSION, Json
from stnbench.core.paths import DATA_VARIABLE, AttemptLayout
from stnbench.engines.base import Ending, Epoch, Launch, Slot
from stnbench.engines.local import LocalEngine
from stnbench.engines.protocol import decode, encode
from stnbench.engines.slots import device_memory_mib, visible_gpus
from stnbench.spec.data import Split

REPLY_S = 0.5
"""How long an answer may wait for something to happen; a request to stop or to kill waits as long at most."""

CHECKPOINT_PERIOD_S = 30.0
"""How often a running attempt's checkpoint is sent along, so that a lost node costs no more than this."""

Parcel = tuple[list[bytes], dict[str, bytes]]
"""Events in order, one encoded message each, and files of the attempt by name, of which all come with its end."""


class SlotHost:
    """A slot on this node: a local engine of one slot that works in a scratch folder of its own.

    The attempt's folder and the earlier one to resume from exist where the orchestrator is; here they are scratch, and
    their files travel. The data folder is this node's ``STNBENCH_DATA``, or else of the same path as the
    orchestrator's.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        is_cuda: bool,
        command: Sequence[str] | None = None,
        reply_s: float = REPLY_S,
        checkpoint_period_s: float = CHECKPOINT_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        gpus = visible_gpus() if is_cuda else ()
        if is_cuda and not gpus:
            raise EngineError(f"slot {name} was given a GPU that it cannot see", remedy="see `nvidia-smi` on its node")
        self._slot = Slot(name=name, device=gpus[0] if gpus else "cpu", threads=threads)
        self._scratch = Path(tempfile.mkdtemp(prefix="stnbench-slot-"))
        self._engine = LocalEngine([self._slot], self._scratch / "logs", command=command)
        self._engine.warm_up()
        self._reply_s = reply_s
        self._checkpoint_period_s = checkpoint_period_s
        self._clock = clock
        self._sent_s = 0.0
        self._token = ""
        self._has_news = False

    def describe(self) -> str:
        """Where this is, as a JSON object: ``host``, ``pid``, ``device``, ``memory_mib`` and ``results_version``.

        The memory is that of the device, null where it is not known.
        """
        device = self._slot.device
        described: dict[str, Json] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
            "memory_mib": device_memory_mib([device]).get(device),
            "results_version": RESULTS_VERSION,
        }
        return json.dumps(described)

    def begin(self, launch: bytes, earlier: dict[str, bytes]) -> Parcel:
        """Begin an attempt, from the files of an earlier one if there are any; what happened first.

        Raises: EngineError where an attempt runs already; OSError where the scratch folder cannot be written.
        """
        message = decode(launch)
        if not isinstance(message, Launch):
            raise ProtocolError("a slot was asked to begin what is no attempt", remedy="this is a bug of the engine")
        if self._token:
            raise ProtocolError(f"slot {self._slot.name} already runs attempt {self._token}", remedy="wait for its end")
        self._engine.poll(0.0)  # a worker that died in the meantime must not cost this attempt
        self._clear()
        self._folder.mkdir()
        if earlier:
            self._earlier.mkdir()
            write_files(self._earlier, earlier)
        here = dataclasses.replace(
            message,
            folder=str(self._folder),
            data_root=os.environ.get(DATA_VARIABLE) or message.data_root,
            resume_from=(str(self._earlier),) if earlier else (),
            source=message.source if Path(message.source).is_dir() else "",
        )
        self._token, self._sent_s, self._has_news = message.token, self._clock(), False
        self._engine.submit(self._slot, here)
        return self.poll()

    def poll(self) -> Parcel:
        """What has happened since the last answer; waits a moment for something to happen."""
        events = self._engine.poll(self._reply_s)
        files: dict[str, bytes] = {}
        self._has_news |= any(isinstance(event, Epoch) for event in events)
        if any(isinstance(event, Ending) for event in events):
            files = _read_files(AttemptLayout(self._folder), only_checkpoint=False)
            self._clear()
            self._token = ""
        elif self._has_news and self._clock() - self._sent_s >= self._checkpoint_period_s:
            files = _read_files(AttemptLayout(self._folder), only_checkpoint=True)
            self._sent_s, self._has_news = self._clock(), False
        return [encode(event) for event in events], files

    def stop(self, token: str) -> None:
        """Ask the attempt to stop at its next step."""
        self._engine.stop(token)

    def kill(self, token: str) -> None:
        """End the attempt's process now."""
        self._engine.kill(token)

    def release(self) -> None:
        """End the worker where it is idle, so that its memory is free."""
        self._engine.release(self._slot)

    def close(self) -> None:
        """End the worker and remove the scratch folder."""
        self._engine.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return self._scratch / "attempt"

    @property
    def _earlier(self) -> Path:
        return self._scratch / "earlier"

    def _clear(self) -> None:
        for folder in (self._folder, self._earlier):
            shutil.rmtree(folder, ignore_errors=True)


def earlier_files(launch: Launch) -> tuple[dict[str, bytes], list[Path]]:
    """The files to go on from, where the orchestrator is: the latest whole checkpoint, and the snapshots up to it.

    None of them, to begin anew, where no attempt left one.
    Returns: the files by name, and the checkpoints that are damaged.
    """
    damaged: list[Path] = []
    for layout in map(AttemptLayout, map(Path, launch.resume_from)):
        try:
            files = _read_files(layout, only_checkpoint=True)
        except OSError:
            continue
        if layout.checkpoint.name in files:
            if _is_whole(files[layout.checkpoint.name]):
                return files, damaged
            damaged.append(layout.checkpoint)
    return {}, damaged


def _is_whole(checkpoint: bytes) -> bool:
    """Whether every part of an archive is what it was when it was written; more the far end finds out, with torch."""
    try:
        with ZipFile(io.BytesIO(checkpoint)) as parts:
            return parts.testzip() is None
    except Exception:  # noqa: BLE001 - a damaged archive makes zipfile fail in any way
        return False


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files of a parcel into an attempt's folder, its result last: where that is, all is.

    Raises: OSError, for example when the disk is full; EngineError for a file that no attempt has.
    """
    layout = AttemptLayout(folder)
    known = {path.name: path for path in _paths(layout)}
    strange = sorted(files.keys() - known.keys())
    if strange:
        raise EngineError(f"a slot sent files that no attempt has: {strange}", remedy="run one version on all nodes")
    for name, path in known.items():
        if name in files:
            write_atomic(path, files[name])


def _read_files(layout: AttemptLayout, *, only_checkpoint: bool) -> dict[str, bytes]:
    paths = _going_on(layout) if only_checkpoint else _paths(layout)
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _going_on(layout: AttemptLayout) -> tuple[Path, ...]:
    return (layout.checkpoint, layout.snapshots)


def _paths(layout: AttemptLayout) -> tuple[Path, ...]:
    """Every file that an attempt may have, the result last."""
    return (layout.spec, layout.log, *_going_on(layout), *map(layout.probabilities, get_args(Split)), layout.result)
