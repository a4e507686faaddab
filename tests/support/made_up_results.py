"""Results made up for tests of what is read from a store: a store filled through its write API."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from stnbench.spec.network import LecunSpec
from stnbench.spec.result import (
    AttemptState,
    Cost,
    Environment,
    EpochRecord,
    Failure,
    SplitScore,
    TransformerHealth,
    TrialResult,
    TrialState,
    Verdict,
)
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import AttemptStart, PlannedTrial

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
IMAGES = 2000
ENVIRONMENT = Environment(
    commit="c0ffee" + "0" * 34,
    dirty=False,
    python="3.11.2",
    platform="Linux-6.1",
    host="box",
    device="NVIDIA H200",
    threads=4,
    versions=(("torch", "2.7.0"), ("numpy", "2.1.0")),
    dataset_digest="train abcd, test ef01",
)


def transformed(size: int, *, seed: int = 1) -> TrialSpec:
    """A trial with one transformer, whose localisation network is told apart by its size."""
    placed = PlacedTransformerSpec(place=1, locnet=ConvLocnetSpec(sizes=(size, size, size)))
    return TrialSpec(network=LecunSpec(sizes=(8, 9, 10)), transformers=(placed,), seed=seed)


def locnet_sizes(spec: TrialSpec) -> tuple[int, ...]:
    """Return the sizes of the convolutional localisation network of the first transformer."""
    locnet = spec.transformers[0].locnet
    assert isinstance(locnet, ConvLocnetSpec)
    return locnet.sizes


def planned(spec: TrialSpec, label: str = "", *, axis: str = "locnet1.sizes") -> PlannedTrial:
    """The trial as a sweep of one axis wants it; one without transformers is a baseline."""
    if not spec.transformers:
        return PlannedTrial(spec=spec, point=Point(labels=()), label=label or "no ST", is_baseline=True)
    label = label or ",".join(str(size) for size in locnet_sizes(spec))
    return PlannedTrial(spec=spec, point=Point(labels=((axis, label),)), label=label)


def result(
    spec: TrialSpec,
    token: str,
    correct: int,
    *,
    test: int | None = None,
    images: int = IMAGES,
    environment: Environment = ENVIRONMENT,
    verdict: Verdict | None = None,
) -> TrialResult:
    """What a trial reports that classified so many images correctly, on validation and on test.

    The verdict is that of its last epoch; before it, all was healthy.
    """

    def score(split: Literal["validation", "test"], right: int) -> SplitScore:
        return SplitScore(split=split, images=images, correct=right, loss=0.5, predictions=(7,) * images)

    health = TransformerHealth(
        place=1,
        theta_mean=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        theta_std=(0.0,) * 6,
        outside_share=0.25,
        identity_distance=0.5,
        determinant_mean=0.9,
    )
    epochs = tuple(
        EpochRecord(
            epoch=epoch,
            step=100 * epoch,
            train_loss=1.0,
            validation_loss=0.5,
            validation_accuracy=correct / images,
            learning_rate=0.01,
            train_duration_s=2.0,
            evaluate_duration_s=0.5,
            health=(replace(health, verdict=_verdict_after(epoch, spec, verdict)),) if spec.transformers else (),
        )
        for epoch in range(1, spec.training.epochs + 1)
    )
    return TrialResult(
        trial_id=spec.trial_id,
        token=token,
        epochs=epochs,
        validation=score("validation", correct),
        test=None if test is None else score("test", test),
        cost=Cost(parameters=1_240_000, flops=38_200_000, activation_bytes=4096),
        environment=environment,
        train_duration_s=2.0 * spec.training.epochs,
        peak_memory_mib=512.0,
    )


def _verdict_after(epoch: int, spec: TrialSpec, last: Verdict | None) -> Verdict | None:
    return last if last is None or epoch == spec.training.epochs else Verdict.HEALTHY


@dataclass(slots=True)
class Filler:
    """Fills a sweep of a store, trial by trial; ``save`` comes first."""

    store: Store
    name: str = "sizes"
    host: str = "box"
    pid: int = 1
    boot_id: str = "boot"
    started_at: datetime = NOW
    trials: list[PlannedTrial] = field(default_factory=list)

    def save(
        self, trials: list[PlannedTrial], *, question: str = "How large must it be?", sweep: SweepSpec | None = None
    ) -> "Filler":
        """Write the sweep, by default one without axes, and its trials."""
        self.trials = trials
        seeds = tuple(dict.fromkeys(trial.spec.seed for trial in trials)) or (1,)
        sweep = sweep or SweepSpec(name=self.name, question=question, seeds=seeds)
        self.store.save_sweep(sweep, trials, self.started_at)
        return self

    def start(self, spec: TrialSpec) -> str:
        """Begin an attempt; its token."""
        token = f"{self.name} {spec.trial_id} {len(self.store.attempts_of_trial(spec.trial_id))}"
        self.store.start_attempt(
            AttemptStart(
                trial_id=spec.trial_id,
                token=token,
                slot="gpu0",
                host=self.host,
                pid=self.pid,
                boot_id=self.boot_id,
                started_at=self.started_at,
            )
        )
        return token

    def complete(
        self,
        spec: TrialSpec,
        correct: int,
        *,
        test: int | None = None,
        commit: str = "",
        verdict: Verdict | None = None,
    ) -> None:
        """Run a trial to its result."""
        environment = replace(ENVIRONMENT, commit=commit) if commit else ENVIRONMENT
        token = self.start(spec)
        made = result(spec, token, correct, test=test, environment=environment, verdict=verdict)
        self.store.complete_attempt(token, made, self.started_at + timedelta(seconds=30))

    def prune(self, spec: TrialSpec, verdict: Verdict) -> None:
        """Run a trial to the epoch after which it is pruned."""
        token = self.start(spec)
        self.store.add_epoch(token, result(spec, token, 1000, verdict=verdict).epochs[-1])
        end = self.started_at + timedelta(seconds=5)
        self.store.end_attempt(token, AttemptState.PRUNED, None, end, trial_state=TrialState.PRUNED, sweep=self.name)

    def fail(self, spec: TrialSpec, failure: Failure, *, state: TrialState = TrialState.FAILED) -> None:
        """Run a trial to a failure."""
        end = self.started_at + timedelta(seconds=5)
        self.store.end_attempt(self.start(spec), AttemptState.FAILED, failure, end, trial_state=state)
