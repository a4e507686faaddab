"""The session of a process on a runs folder, which connects lock, store, engine, MLflow and signals."""

import contextlib
import functools
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Literal, assert_never

import stnbench
from stnbench.core.errors import CacheMissingError, DataError, DataMissingError, EngineError
from stnbench.core.files import RUNS_VARIABLE, RunsLayout, sqlite_uri, writable_folder
from stnbench.core.process import Interrupted, available_cores, handling, listening
from stnbench.core.text import counted, hide_passwords
from stnbench.engines import Engine, Slot
from stnbench.engines.calibrate import SlotChoice, measure_choice, measure_gpu_choice, recall_choice, remember_choice
from stnbench.engines.local import LocalEngine
from stnbench.engines.slots import (
    device_memory_mib,
    mps_daemon,
    plan_slots,
    require_computable,
    require_mps,
    visible_gpus,
)
from stnbench.engines.slurm import SlurmEngine
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration.asking import RunOptions, RunSummary
from stnbench.orchestration.claims import HeldLock, ProcessIdentity, orchestrator_lock
from stnbench.orchestration.observer import LogObserver, Observer, TrackerSync, open_notifiers
from stnbench.orchestration.patience import BUSY_TIMEOUT_S, PatientStore, StoreWait, open_patiently
from stnbench.orchestration.progress import About, DataProgress, open_progress
from stnbench.orchestration.recovery import Backups, is_worth_restoring, restore_store
from stnbench.orchestration.runner import Runner
from stnbench.orchestration.sources import keep_sources
from stnbench.planning import Planner
from stnbench.spec.data import DatasetSpec
from stnbench.spec.slurm import SlurmOptions
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import ComputeOptions, TrialSpec
from stnbench.store.file import Holder
from stnbench.tracking import ConfigurationView, Tracker
from stnbench.tracking.mlflow_server import set_aside_damaged

EngineName = Literal["local", "inline", "ray", "slurm"]
SYNC_TIMEOUT_S = 120.0
"""Seconds that the end of a sweep may wait for the tracker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionOptions:
    """Options for the execution of attempts and their display in a tracker."""

    engine: EngineName = "local"
    slots: int | None = None
    measure_slots_with: TrialSpec | None = None
    """A trial for measuring the fastest number of slots; None for no measurement."""
    slots_per_gpu: int = 1
    mps: bool = False
    """Whether processes that share a GPU run on it at the same time, by NVIDIA's MPS daemon."""
    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    """Options of the Slurm engine."""
    tracking_uri: str | None = None
    """URI of MLflow's tracking store; None for no synchronisation."""
    sweep: str = ""
    """The sweep that is to run; on a server's store, sessions of other sweeps may be open at the same time. If it is
    empty, the session is the only one."""


class Session:
    """A writing session on a runs folder: the only one, or on a server's store the only one of its sweep."""

    def __init__(
        self,
        layout: RunsLayout,
        store: PatientStore,
        identity: ProcessIdentity,
        options: SessionOptions,
        lock: HeldLock,
    ) -> None:
        self._lock = lock
        self.layout = layout
        self.store = store
        # Sessions that share the folder keep what is named by slots or jobs apart, in folders named by their sweep.
        own = options.sweep if store.is_shared else ""
        self._logs, self._spool = layout.logs / own, layout.slurm_spool / own
        self._identity = identity
        self._options = options
        self._syncs: dict[str, TrackerSync] = {}

    def run(
        self, sweep: SweepSpec, planner: Planner, options: RunOptions, observers: Sequence[Observer] = ()
    ) -> RunSummary:
        """Run a sweep to its end, or until Ctrl-C, SIGTERM or a budget stops it; ``observers`` are notified as well.

        Raises:
            StnbenchError: if it cannot start or go on.
            ValueError: if the session was opened for another sweep.
        """
        if self.store.is_shared and sweep.name != self._options.sweep:
            raise ValueError(f"the session is open for the sweep {self._options.sweep}, not {sweep.name}")
        with mps_daemon() if self._options.mps else contextlib.nullcontext():
            return self._run(sweep, planner, options, observers)

    def _run(self, sweep: SweepSpec, planner: Planner, options: RunOptions, more: Sequence[Observer]) -> RunSummary:
        started = datetime.now(UTC)
        package, session = Path(stnbench.__file__).parent, self._identity.session
        keep_sources(self.layout, session=session, sweep=sweep.name, at=started, package=package, warn=_warn)
        engine = self._open_engine(options)
        progress = open_progress(len(engine.slots), about=About.of(sweep, options.budget))
        is_mirrored = self._options.tracking_uri is not None
        backups = Backups(self.store, self.layout.backups, warn=_warn)
        syncs = [self._sync_of(sweep)] if is_mirrored else []
        notifiers = open_notifiers(sweep.name, warn=_warn)
        observers = [progress, backups, LogObserver(), *syncs, *notifiers, *more]
        runner = Runner(
            sweep=sweep,
            planner=planner,
            store=self.store,
            engine=engine,
            layout=self.layout,
            identity=self._identity,
            options=options,
            observers=observers,
            keep_alone=self.keep_lock,
        )
        self.store.wait.is_asked_to_stop = lambda: runner.is_asked_to_stop
        try:
            with _signals(runner):
                summary = runner.run()
            self.store.check_whole()
        except BaseException as error:
            for notifier in notifiers:
                notifier.tell(f"ended by {type(error).__name__}: {error}")
            raise
        else:
            for notifier in notifiers:
                notifier.tell(_end_told(summary))
            return summary
        finally:
            engine.close()
            progress.close()
            for notifier in notifiers:
                notifier.close()

    def sync_tracker(
        self, sweep: SweepSpec, configs: Iterable[ConfigurationView], *, timeout_s: float = SYNC_TIMEOUT_S
    ) -> bool:
        """Show the attempts and configurations of a sweep that the tracker lacks; return False on failure or timeout.

        A synchronisation that failed while the sweep ran, for example because of a full disk, is tried once more.
        """
        uri = self._options.tracking_uri
        if uri is None:
            return True
        self._see_to_local_database()
        return self._sync_of(sweep).sync(self.store, hide_passwords(uri), configs, timeout_s)

    def keep_lock(self) -> None:
        """Lock the runs folder again, with a warning, if the file of its lock was removed or replaced.

        Raises:
            StoreBusyError: if another process has locked it meanwhile.
            FolderError: if the folder cannot be written.
        """
        if self._lock.keep():
            _warn(f"the lock {self._lock.path} was removed or replaced while the sweep ran: it was locked again")

    def close(self) -> None:
        """End the threads that show sweeps in MLflow."""
        for sync in self._syncs.values():
            sync.close()

    def _see_to_local_database(self) -> None:
        """Set a damaged local MLflow database aside; if there is none, mark everything to be shown again."""
        uri = self._options.tracking_uri
        if uri is None or uri != local_tracking_uri(self.layout):
            return
        try:
            aside = set_aside_damaged(uri)
        except OSError as error:
            _warn(f"MLflow's database is damaged, and cannot be moved ({error})")
            return
        if aside is not None:
            _warn(f"MLflow's database was damaged: it was moved to {aside}, and is made again from the store")
        if not self.layout.mlflow_store.exists():
            self.store.forget_mirrored(uri)

    def _sync_of(self, sweep: SweepSpec) -> TrackerSync:
        if sweep.name in self._syncs and self._syncs[sweep.name].has_failed:
            self._syncs.pop(sweep.name).close()
        if not self._syncs:
            self._see_to_local_database()
        return self._syncs.setdefault(sweep.name, TrackerSync(sweep, self._open_tracker, warn=_warn))

    def _open_engine(self, options: RunOptions) -> Engine:
        match self._options.engine:
            case "ray":
                return self._open_ray_engine()
            case "slurm":
                return self._open_slurm_engine()
            case "inline":
                return InlineEngine(plan_slots(visible_gpus(), available_cores(), slots=1)[0])
            case "local":
                return self._open_local_engine(options)
            case _:
                assert_never(self._options.engine)

    def _open_local_engine(self, options: RunOptions) -> Engine:
        gpus, cores = visible_gpus(), available_cores()
        count, spec = self._options.slots, self._options.measure_slots_with
        if spec is not None and not gpus:
            count = self._measure_slots(spec, cores, options)
        per_gpu, memory_mib = self._options.slots_per_gpu, device_memory_mib(gpus)
        if spec is not None and gpus:
            per_gpu = self._measure_per_gpu(spec, gpus, cores, memory_mib, options)
        slots = plan_slots(gpus, cores, slots=count, per_gpu=per_gpu, memory_mib=memory_mib)

        def more(wanted: int) -> Sequence[Slot]:
            shares = math.ceil(wanted / len(gpus)) if gpus else 1
            return plan_slots(gpus, cores, slots=wanted, per_gpu=shares, memory_mib=memory_mib)

        return LocalEngine(slots, self._logs, more=more)

    def _measure_slots(self, spec: TrialSpec, cores: int, options: RunOptions) -> int:
        """Return the fastest number of CPU slots of this machine, measured once and stored."""
        remembered = self.layout.slot_choice(self._identity.host)
        known = recall_choice(remembered, cores=cores)
        if known is not None:
            return known.slots
        _say_auto("measuring this machine once, with short trials")
        choice = self._measured(functools.partial(measure_choice, spec, cores=cores), options)
        return _remembered(remembered, choice, counted(choice.slots, "slot"))

    def _measure_per_gpu(
        self, spec: TrialSpec, gpus: Sequence[str], cores: int, memory_mib: Mapping[str, float], options: RunOptions
    ) -> int:
        """Return the fastest number of trials per GPU of this machine, measured once and stored."""
        from stnbench.models.scored_network import estimate_gpu_mib  # torch, which no other decision here needs

        remembered, compute = gpu_slot_choice(self.layout), str(ComputeOptions.for_trial(spec, is_on_gpu=True))
        compute = ",".join(part for part in (compute, "mps" if self._options.mps else "") if part)
        known = recall_choice(remembered, cores=cores, gpus=gpus, compute=compute)
        if known is not None:
            return known.slots
        _say_auto("measuring a GPU of this machine once, with short trials")
        measure = functools.partial(
            measure_gpu_choice,
            spec,
            gpus=gpus,
            cores=cores,
            needed_mib=estimate_gpu_mib(spec),
            memory_mib=memory_mib,
            compute=compute,
        )
        choice = self._measured(measure, options)
        return _remembered(remembered, choice, f"{choice.slots} a GPU")

    def _measured(self, measure: Callable[..., SlotChoice], options: RunOptions) -> SlotChoice:
        """Measure a choice of slots with local engines, in a scratch folder and with the data of the run."""
        return measure(
            open_engine=lambda slots: LocalEngine(slots, self._logs),
            scratch=self.layout.root / "calibration",
            data_root=options.data_root,
            source=options.source,
        )

    def _open_ray_engine(self) -> Engine:
        from stnbench.engines.ray import RayEngine

        options = self._options
        return RayEngine(
            os.environ.get("RAY_ADDRESS"), slots=options.slots, slots_per_gpu=options.slots_per_gpu, warn=_warn
        )

    def _open_slurm_engine(self) -> Engine:
        options = self._options
        return SlurmEngine(
            self._spool,
            options.slurm,
            session=self._identity.session,
            slots=options.slots,
            slots_per_gpu=options.slots_per_gpu,
            warn=_warn,
        )

    def _open_tracker(self) -> Tracker:
        from stnbench.tracking.mlflow import MlflowTracker

        uri = str(self._options.tracking_uri)
        is_remote = uri.startswith(("http://", "https://"))  # a server decides on the location of artifacts
        return MlflowTracker(uri, None if is_remote else self.layout.mlflow_artifacts)


@contextlib.contextmanager
def open_session(layout: RunsLayout, options: SessionOptions) -> Iterator[Session]:
    """Open a session that may write this runs folder, for the block.

    It is the only one, unless the store is on a server and ``options`` name the sweep that is to run: then it is the
    only one of that sweep.

    Raises:
        FolderError: if the folder cannot be written.
        StoreBusyError: if another process holds the lock.
        StoreError, StoreVersionError: if the store cannot be opened.
        EngineError, SpecError: before anything is written, if the machine cannot compute as requested.
    """
    require_computable(() if options.engine in {"ray", "slurm"} else visible_gpus())
    if options.mps and options.engine == "slurm":
        problem = "--mps starts a daemon on this machine, and the jobs of --engine slurm run on others"
        raise EngineError(problem, remedy="start nvidia-cuda-mps-control in engine.setup")
    if options.mps:
        require_mps()
    writable_folder(layout.root, "runs", remedy=f"set {RUNS_VARIABLE} to a folder you can write")
    identity = ProcessIdentity.current()
    holder = Holder(title=identity.title, session=identity.session, sweep=options.sweep if layout.is_shared else "")
    with (
        orchestrator_lock(layout, identity, sweep=options.sweep) as lock,
        _open_store(layout, holder) as store,
    ):
        session = Session(layout, store, identity, options, lock)
        try:
            yield session
        finally:
            session.close()


def _open_store(layout: RunsLayout, holder: Holder) -> PatientStore:
    """Open the store with its history; restore it first if it is missing and there are files to restore it from.

    Raises:
        StnbenchError: as ``open_session``.
    """
    if is_worth_restoring(layout):
        restored = restore_store(layout, now=datetime.now(UTC))
        _warn(f"there was no store in {layout.root}; it was made again: {restored.summary}")
    history = layout.history if isinstance(layout.store, Path) else None

    def open_store() -> PatientStore:
        return PatientStore.open(
            layout.store,
            writable=True,
            busy_timeout_s=BUSY_TIMEOUT_S,
            holder=holder,
            history=history,
            backups=layout.backups,
        )

    return open_patiently(open_store, StoreWait(say=_say))


def prepare_datasets(
    specs: Iterable[DatasetSpec], *, data_root: Path, source: Path | None
) -> dict[DatasetSpec, dict[str, str]]:
    """Build the caches of both halves of these data sets once, with all cores, before any worker needs them.

    A missing test half is no error: trials then have no test score, and a warning is printed.

    Returns:
        The digest of each half that exists, by data set.

    Raises:
        DataError: if a training half is missing, or a half is wrong.
    """
    from stnbench.data.build import open_dataset  # imports torch, which commands for the store alone do not need

    digests: dict[DatasetSpec, dict[str, str]] = {}
    for spec in dict.fromkeys(specs):
        dataset = open_dataset(spec, root=data_root, source=source, workers=available_cores())
        with listening(DataProgress(spec.kind, _say)):
            digests[spec] = {"train": dataset.train().digest}
            try:
                digests[spec]["test"] = dataset.test().digest
            except DataMissingError as error:
                _warn(f"{error.problem}: trials will have no test score")
    return digests


def find_digests(
    specs: Iterable[DatasetSpec], *, data_root: Path, source: Path | None
) -> tuple[dict[DatasetSpec, dict[str, str]], dict[DatasetSpec, frozenset[str]]]:
    """Return the digest of each half of these data sets that has a cache; nothing is built.

    A damaged cache causes a warning and is left out.

    Returns:
        The digests of halves by data set, and the digests of images that its source no longer has, known from caches.
    """
    from stnbench.data.build import open_dataset  # as above

    digests: dict[DatasetSpec, dict[str, str]] = {}
    superseded: dict[DatasetSpec, frozenset[str]] = {}
    for spec in dict.fromkeys(specs):
        dataset = open_dataset(spec, root=data_root, source=source, workers=1, builds=False)
        digests[spec] = {}
        for half, open_half in (("train", dataset.train), ("test", dataset.test)):
            try:
                digests[spec][half] = open_half().digest
            except CacheMissingError as error:
                superseded[spec] = superseded.get(spec, frozenset()) | error.superseded
            except DataMissingError:
                continue
            except DataError as error:
                _warn(str(error))
    return digests, superseded


def _say_auto(said: str) -> None:
    print(f"slots=auto: {said}", file=sys.stderr)


def _remembered(path: Path, choice: SlotChoice, chosen: str) -> int:
    """Store a choice that was measured, say so, and return its number of slots."""
    remember_choice(path, choice)
    rates = ", ".join(f"{counted(count, 'slot')} {rate:.3f}" for count, rate in choice.trials_per_s)
    _say_auto(f"short trials a second with {rates}; {chosen} from now on")
    return choice.slots


def gpu_slot_choice(layout: RunsLayout) -> Path:
    """Return the path of the stored number of trials per GPU of this machine."""
    return layout.slot_choice(f"{ProcessIdentity.current().host}-gpu")


def remembered_slots(layout: RunsLayout) -> int | None:
    """Return the stored fastest number of CPU slots of this machine, or None if it was not measured."""
    choice = recall_choice(layout.slot_choice(ProcessIdentity.current().host), cores=available_cores())
    return None if choice is None else choice.slots


def tracking_uri(layout: RunsLayout) -> str:
    """Return the URI of MLflow's tracking store: ``MLFLOW_TRACKING_URI``, or a database in the runs folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_tracking_uri(layout)


def local_tracking_uri(layout: RunsLayout) -> str:
    """Return the URI of the MLflow database in the runs folder."""
    return sqlite_uri(layout.mlflow_store)


@contextlib.contextmanager
def _signals(runner: Runner) -> Iterator[None]:
    """Handle signals for the block: the first Ctrl-C, SIGTERM or SIGHUP stops the sweep cleanly, the second at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if runner.is_asked_to_stop:
            raise Interrupted(number)
        runner.ask_stop(f"{signal.Signals(number).name} received; again to stop at once")

    with handling(on_signal):
        try:
            yield
        except Interrupted:
            print("stopped at once; the same command goes on where it was", file=sys.stderr)
            raise


def _end_told(summary: RunSummary) -> str:
    """Return a line about the end of a run."""
    counts = f"{summary.complete} of {counted(summary.trials, 'trial')} complete, {summary.failed} failed"
    return f"ended: {counts}" + (f" ({summary.stop_reason})" if summary.stop_reason else "")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _warn(message: str) -> None:
    print(f"warning: {hide_passwords(message)}", file=sys.stderr)
