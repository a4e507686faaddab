"""The exchange between planner and store: requested trials, their known outcomes, and reports to the planner."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from stnbench.core.errors import DataError, TransitionError
from stnbench.engines import Slot
from stnbench.orchestration.messages import Patience
from stnbench.orchestration.observer import RunningAttempt
from stnbench.planning import Known, Observation, Planner, Progress
from stnbench.spec.control import Controls, controls_after, further_seeds
from stnbench.spec.data import DatasetSpec
from stnbench.spec.result import Environment, TrialResult, TrialState, other_half
from stnbench.spec.sweep import SweepSpec
from stnbench.store.store import Store
from stnbench.store.tables import Outcome, PlannedTrial

# The options of one run of a sweep, with its budget, the resources spent so far, and its summary. Without I/O.


_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """Resources spent in this run: wall time, the summed time of attempts on their share of a device, ended trials."""

    wall_s: float = 0.0
    device_s: float = 0.0
    trials: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Limits of one run; None is no limit."""

    wall_s: float | None = None
    device_hours: float | None = None
    max_trials: int | None = None

    def exceeded_by(self, spent: Spent) -> str:
        """Return the reason why the run must end; empty if it may continue."""
        if self.wall_s is not None and spent.wall_s > self.wall_s:
            return f"the budget of {self.wall_s:g} s is spent"
        if self.device_hours is not None and spent.device_s > self.device_hours * _HOUR_S:
            return f"the budget of {self.device_hours:g} device hours is spent"
        if self.max_trials is not None and spent.trials >= self.max_trials:
            return f"{spent.trials} trials have ended, as many as were asked for"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Options of one run of a sweep.

    Attributes:
        data_root: the data folder.
        source: the folder that ``dataset.root`` names.
        digests: digests of the images found there, by data set and half: a complete trial is reused only if it read the
            same images.
        retry_failed: whether failed trials are run again.
        budget: limits of the run.
        trial_timeout_s: seconds after which a trial is ended; None for no limit.
        patience: limits for attempts that hang.
        keep_checkpoints: number of best configurations whose checkpoints are kept; None for all.
    """

    data_root: Path
    source: Path | None = None
    digests: Mapping[DatasetSpec, Mapping[str, str]] = field(default_factory=dict)
    retry_failed: bool = False
    budget: Budget = field(default_factory=Budget)
    trial_timeout_s: float | None = None
    patience: Patience = field(default_factory=Patience)
    keep_checkpoints: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """Summary of a run: counts of the sweep's trials over all runs; ``launched`` counts the attempts of this run."""

    trials: int
    complete: int
    failed: int
    pruned: int
    launched: int
    adopted: int
    lost: int
    stop_reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Trials that the planner requests now, and the state of each."""

    trials: Sequence[PlannedTrial]
    states: Sequence[TrialState]

    @property
    def open_ids(self) -> tuple[str, ...]:
        """Return the ids of the trials that are to run."""
        pairs = zip(self.trials, self.states, strict=True)
        return tuple(trial.spec.trial_id for trial, state in pairs if not state.is_final)


class Asking:
    """Mediator that asks a planner for trials, keeps the store up to date, and reports outcomes to the planner.

    A trial that is final is never run again, in whichever sweep it ran; the planner receives its outcome at once.
    """

    def __init__(
        self,
        *,
        sweep: SweepSpec,
        planner: Planner,
        store: Store,
        retry_failed: bool,
        now: Callable[[], datetime],
        digests: Mapping[DatasetSpec, Mapping[str, str]] | None = None,
    ) -> None:
        self._sweep = sweep
        self._planner = planner
        self._store = store
        self._retry_failed = retry_failed
        self._now = now
        self._digests = digests or {}
        self._configs: dict[str, str] = {}
        self.trials: dict[str, PlannedTrial] = {}
        self.controls = Controls()

    @property
    def is_exhausted(self) -> bool:
        """Return whether the planner will request no more trials."""
        return self._planner.is_exhausted

    def resume(self) -> None:
        """Report the trials of earlier runs of the sweep to the planner, and read the requests of users."""
        name = self._sweep.name
        self.read_controls()
        if self._sweep.start_from:
            self._planner.learn(self._known(self._sweep.start_from))
        if any(record.spec.name == name for record in self._store.sweeps()):
            self._planner.resume(self._known(name))

    def _known(self, name: str) -> list[Known]:
        """Return the known trials of a sweep with their validation accuracies; test scores are not included.

        Raises:
            UnknownNameError: if the store has no such sweep.
        """
        outcomes, epochs = self._store.outcomes(name), self._store.epochs_of_sweep(name)
        known = []
        for trial in self._store.sweep_trials(name):
            seen = epochs.get(trial.trial_id, [])
            # An attempt that goes on from a checkpoint has no epochs from before it; those of the latest attempt count.
            by_epoch = {item.record.epoch: item.record.validation_accuracy for item in seen}
            accuracies = tuple(by_epoch[epoch] for epoch in sorted(by_epoch))
            outcome = outcomes.get(trial.trial_id)
            planned = PlannedTrial(spec=trial.spec, point=trial.point, label=trial.label, is_baseline=trial.is_baseline)
            accuracy = _accuracy(trial.state, outcome, accuracies)
            flops = None if outcome is None else outcome.cost.flops
            again = (self._retry_failed and trial.state is TrialState.FAILED) or trial.state is TrialState.RUNNING
            known.append(
                Known(
                    planned=planned,
                    state=TrialState.PLANNED if again else trial.state,
                    validation_accuracy=accuracy,
                    epochs=accuracies,
                    flops=flops,
                )
            )
        return known

    def read_controls(self) -> None:
        """Read the recorded requests of users for the sweep again."""
        self.controls = controls_after(self._store.controls(self._sweep.name))

    def ask(self) -> Asked | None:
        """Ask the planner for trials; return None if it requests nothing new.

        Raises:
            SpecError: if the sweep is not valid.
            DataError: if a complete trial read other images than those found now.
            StoreError: if the store fails.
        """
        asked_by_planner = [] if self._planner.is_exhausted else self._planner.ask()
        trials = [trial for trial in asked_by_planner if trial.spec.trial_id not in self.trials]
        trials += self._further([*self.trials.values(), *trials])
        if not trials and (self.trials or self._planner.is_exhausted):
            return None
        self._require_same_data(trials)
        self.trials |= {trial.spec.trial_id: trial for trial in trials}
        self._configs |= {trial.spec.trial_id: trial.spec.config_id for trial in trials}
        given_up = {name for name, config in self._configs.items() if self.controls.gives_up(name, config)}
        self._store.save_sweep(self._sweep, list(self.trials.values()), self._now(), given_up=given_up)
        asked = Asked(trials=trials, states=self._states(trials))
        for trial, state in zip(asked.trials, asked.states, strict=True):
            if state.is_final:
                self._tell_known(trial.spec.trial_id, state)
        return asked

    def _further(self, asked: Sequence[PlannedTrial]) -> list[PlannedTrial]:
        """Return the trials of the seeds that a user has added, for all configurations requested so far."""
        if not self.controls.further_seeds:
            return []
        known = {trial.spec.trial_id for trial in asked}
        configs = {trial.spec.config_id: trial for trial in asked}
        seeds = further_seeds(self._sweep.seeds, self.controls.further_seeds)
        seeded = [replace(config, spec=config.spec.with_seed(seed)) for seed in seeds for config in configs.values()]
        return [trial for trial in seeded if trial.spec.trial_id not in known]

    def tell_ended(self, trial_id: str, state: TrialState) -> None:
        """Report to the planner how a trial ended without an attempt of this run.

        Raises:
            DataError: if it is complete and read other images than those found now.
        """
        if state is TrialState.COMPLETE:
            self._require_same_data([self.trials[trial_id]])
        self._tell_known(trial_id, state)

    def tell(self, attempt: RunningAttempt, state: TrialState, result: TrialResult | None) -> None:
        """Report the end of a requested trial to the planner."""
        accuracy = attempt.epochs[-1].validation_accuracy if attempt.epochs else None
        self._planner.tell(
            Observation(
                trial_id=attempt.record.trial_id,
                state=state,
                validation_accuracy=result.validation.accuracy if result else accuracy,
                flops=result.cost.flops if result else None,
            )
        )

    def should_prune(self, attempt: RunningAttempt) -> bool:
        """Ask the planner, after the last epoch of an attempt, whether to prune it."""
        record = attempt.epochs[-1]
        spec = attempt.trial.spec
        return self._planner.should_prune(
            Progress(
                trial_id=spec.trial_id,
                epoch=record.epoch,
                epochs=spec.training.epochs,
                validation_accuracy=record.validation_accuracy,
                health=record.health,
            )
        )

    def thawed(self, *, is_idle: bool) -> tuple[str, ...]:
        """Plan the pruned trials again that the planner lets go on, unless a user gave them up, and return them."""
        going = tuple(
            trial_id
            for trial_id in self._planner.thawed(is_idle=is_idle)
            if trial_id in self.trials and not self.controls.gives_up(trial_id, self._configs[trial_id])
        )
        if going:
            self._store.replan(going, paused_by=self._sweep.name)
        return going

    def known_peaks_mib(self) -> dict[str, float]:
        """Return the peak memory in MiB of every trial whose configuration has a complete trial."""
        outcomes = self._store.outcomes(self._sweep.name)
        return self.peaks_alike_mib({trial_id: outcome.peak_memory_mib for trial_id, outcome in outcomes.items()})

    def expected_peaks_mib(self, trial_ids: Sequence[str], slots: Sequence[Slot]) -> dict[str, float]:
        """Return the estimated GPU memory of trials in MiB, if several slots share a GPU whose memory is known."""
        devices = Counter(slot.device for slot in slots if slot.is_cuda and slot.memory_mib is not None)
        if max(devices.values(), default=0) < 2:
            return {}
        from stnbench.models.scored_network import estimate_gpu_mib  # imports torch, needed only here

        return {trial_id: estimate_gpu_mib(self.trials[trial_id].spec) for trial_id in trial_ids}

    def peaks_alike_mib(self, peak_mib: Mapping[str, float]) -> dict[str, float]:
        """Return the peak memory in MiB of all trials of the same configurations, which need the same memory."""
        by_config: dict[str, float] = {}
        for trial_id, peak in peak_mib.items():
            config = self._configs.get(trial_id, "")
            by_config[config] = max(peak, by_config.get(config, 0.0))
        return {trial_id: by_config[config] for trial_id, config in self._configs.items() if config in by_config}

    def _require_same_data(self, trials: Sequence[PlannedTrial]) -> None:
        """Raise DataError for the first complete trial that read other images than those found now."""
        environments = self._store.environments(trial.spec.trial_id for trial in trials) if self._digests else {}
        for trial in trials:
            environment = environments.get(trial.spec.trial_id)
            found = self._digests.get(trial.spec.dataset, {})
            half = None if environment is None else other_half(environment.digests, found)
            if environment is not None and half is not None:
                raise DataError(
                    f"trial {trial.spec.trial_id} ({trial.label}) is complete, and its {half} images were others: "
                    f"their digest was {environment.digests[half]}, and that of the images found now is {found[half]}",
                    remedy="give the same data (dataset.root), or set STNBENCH_RUNS to a folder for results of these",
                )

    def changed_images(self, dataset: DatasetSpec, environment: Environment) -> str:
        """Return why the images of a finished trial are not those found when the sweep began; empty if they are."""
        found = self._digests.get(dataset, {})
        half = other_half(environment.digests, found)
        if half is None:
            return ""
        return (
            f"the {half} images of {dataset.kind} changed during the sweep: their digest was "
            f"{found[half]} when it began, and this trial read {environment.digests[half]}"
        )

    def _states(self, asked: Sequence[PlannedTrial]) -> list[TrialState]:
        """Return the states of the trials; plan failed ones again if ``retry_failed`` is set."""
        ids = [trial.spec.trial_id for trial in asked]
        states = self._store.trial_states(ids, sweep=self._sweep.name)
        failed = [trial_id for trial_id in ids if states[trial_id] is TrialState.FAILED]
        for trial_id in failed if self._retry_failed else ():
            try:
                self._store.replan([trial_id])
            except TransitionError:
                if not self._store.is_shared:
                    raise  # otherwise another sweep has planned it again, which is all that is wanted
            states[trial_id] = TrialState.PLANNED
        return [states[trial_id] for trial_id in ids]

    def _tell_known(self, trial_id: str, state: TrialState) -> None:
        outcome = self._store.outcome(trial_id) if state is TrialState.COMPLETE else None
        epochs = self._store.epochs_of_trial(trial_id) if state is TrialState.PRUNED else []
        accuracies = tuple(item.record.validation_accuracy for item in epochs)
        self._planner.tell(
            Observation(
                trial_id=trial_id,
                state=state,
                validation_accuracy=_accuracy(state, outcome, accuracies),
                flops=outcome.cost.flops if outcome else None,
            )
        )


def _accuracy(state: TrialState, outcome: Outcome | None, epochs: Sequence[float]) -> float | None:
    """Return the accuracy that a planner may know: the score of a complete trial, the last epoch's of a pruned one."""
    if state is TrialState.COMPLETE and outcome is not None:
        return outcome.validation.accuracy
    return epochs[-1] if state is TrialState.PRUNED and epochs else None
