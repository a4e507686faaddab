"""A made-up sweep with everything that a page shows: curves, health, answers, images, snapshots, failures."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from made_up_results import ENVIRONMENT, Filler, locnet_sizes, planned, result, transformed
from numpy.typing import NDArray

from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.data.cache import CacheArrays, Layout, Recipe, open_or_build
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.planner import FloatSpan, MedianPrunerSpec, TpePlannerSpec
from stnbench.spec.result import (
    AttemptState,
    EpochRecord,
    Failure,
    FailureKind,
    ScoredImages,
    SplitScore,
    TrialResult,
    TrialState,
    Verdict,
)
from stnbench.spec.sweep import Axis, Choice, Override, Point, SweepSpec, Value, label_of
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial

SWEEP = "sizes"
IMAGES = 120
CLASSES = 43
SIZES = (10, 20, 30)
SEEDS = (1, 2, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUpPage:
    """Where the parts of the page lie."""

    layout: RunsLayout
    data_root: Path
    reports: Path


def make_page(folder: Path, *, question: str = "How large must it be?", labels: tuple[str, ...] = ()) -> MadeUpPage:
    """Fill a store, a data cache and the folder of an attempt; ``labels`` name the configs instead of their sizes."""
    layout = RunsLayout(folder / "runs")
    digest = _make_images(folder / "data")
    specs = [transformed(size, seed=seed) for seed in SEEDS for size in SIZES]
    baselines = [spec.baseline() for spec in specs[:: len(SIZES)]]
    with Store.open(layout.root / "stnbench.db", writable=True) as store:
        filler = Filler(store, SWEEP)
        names = dict(zip(SIZES, labels or map(str, SIZES), strict=True))
        filler.save([*map(planned, baselines), *(_planned(spec, names) for spec in specs)], question=question)
        rng = np.random.default_rng(1)
        for skill, spec in [
            *((0.5, baseline) for baseline in baselines),
            *zip((0.6, 0.7, 0.8) * len(SEEDS), specs, strict=True),
        ]:
            if spec is specs[-1]:
                traceback = 'Traceback (most recent call last):\n  File "x.py", line 1\n    <b>boom</b>\nError: boom'
                filler.fail(spec, Failure(kind=FailureKind.BUG, message="<b>boom</b> & more", traceback=traceback))
            else:
                token = filler.start(spec)
                store.complete_attempt(token, _result(spec, token, skill, rng, digest), filler.started_at)
    for spec in specs[:-1]:
        _snapshots(layout.attempt(spec.trial_id, 1))
    return MadeUpPage(layout=layout, data_root=folder / "data", reports=folder / "reports")


def _planned(spec: TrialSpec, names: dict[int, str]) -> PlannedTrial:
    size = locnet_sizes(spec)[0]
    return PlannedTrial(spec=spec, point=Point(labels=(("locnet1.sizes", names[size]),)), label=names[size])


def _result(spec: TrialSpec, token: str, skill: float, rng: np.random.Generator, digest: str) -> TrialResult:
    made = result(spec, token, 0, environment=replace(ENVIRONMENT, dataset_digest=f"train {digest}"))
    labels = true_labels()
    is_wrong = rng.random(IMAGES) > skill
    said = np.where(is_wrong, (labels + 1) % CLASSES, labels)
    scored = ScoredImages(labels=tuple(labels.tolist()), tracks=tuple(range(IMAGES)), rows=tuple(range(IMAGES)))
    score = SplitScore(
        split="validation",
        images=IMAGES,
        correct=int((~is_wrong).sum()),
        loss=0.5,
        predictions=tuple(said.tolist()),
        scored=scored,
    )
    return replace(made, validation=score, epochs=tuple(_epoch(epoch, score.accuracy) for epoch in made.epochs))


def _epoch(epoch: EpochRecord, accuracy: float) -> EpochRecord:
    """An epoch of a curve that rises to the accuracy, healthy but for the first epoch."""
    verdict = Verdict.IDENTITY if epoch.epoch == 1 else Verdict.HEALTHY
    return replace(
        epoch,
        validation_accuracy=accuracy * (1 - 0.5**epoch.epoch),
        health=tuple(replace(health, verdict=verdict, movement=0.1 * epoch.epoch) for health in epoch.health),
    )


def true_labels() -> NDArray[np.int64]:
    """Of the made-up images."""
    return np.arange(IMAGES, dtype=np.int64) % CLASSES


def _make_images(data_root: Path) -> str:
    def fill(arrays: CacheArrays) -> None:
        arrays.images[:] = np.random.default_rng(0).integers(0, 256, arrays.images.shape, np.uint8)
        arrays.labels[:] = true_labels()

    layout = Layout(count=IMAGES, image_size=16, has_pose=False)
    folder = data_root / "cache" / "made-up"
    return open_or_build(folder, identity={"set": "made up"}, recipe=lambda: Recipe(layout=layout, fill=fill)).digest


def _snapshots(folder: Path) -> None:
    """Two images, watched at three moments by one transformer that shrinks what it reads."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(2).integers(0, 256, (2, 3, 16, 16), np.uint8)
    side = 9
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    lattice = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    numbers: list[tuple[str, str]] = [("step", "<i8"), ("epoch", "<i8"), ("fill", "<f4")]
    kind = np.dtype([*numbers, ("places", "<i8", (1, 2)), ("points", "<f4", (1, 2, side**2, 2))])
    records = np.zeros(3, kind)
    records["step"], records["epoch"], records["fill"], records["places"] = (0, 10, 20), (0, 1, 2), 128, (1, 1)
    for index, scale in enumerate((1.0, 0.8, 0.6)):
        records["points"][index] = scale * lattice
    with AttemptLayout(folder).snapshots.open("wb") as file:
        np.save(file, images, allow_pickle=False)
        np.save(file, records, allow_pickle=False)


FAMILIES = ("affine", "scale_translation", "attention", "projective", "tps")
KINDS = (
    FailureKind.OUT_OF_MEMORY,
    FailureKind.DIVERGED,
    FailureKind.TIMEOUT,
    FailureKind.KILLED,
    FailureKind.BUG,
)


def make_many(folder: Path, *, sizes: int = 30, name: str = "many") -> MadeUpPage:
    """Fill a store with 150 configurations of two seeds, half done, with failures of five kinds.

    Args:
        folder: where runs, data and reports lie.
        sizes: of localisation networks; there are as many configurations as sizes times families.
        name: of the sweep.
    """
    layout = RunsLayout(folder / "runs")
    rng = np.random.default_rng(3)
    items = [_in_grid(size, family, seed) for seed in (1, 2) for size in range(sizes) for family in FAMILIES]
    with Store.open(layout.root / "stnbench.db", writable=True) as store:
        filler = Filler(store, name).save(items, question="Which of many configurations is best, and why?")
        for place, item in enumerate(items[: len(items) // 2 + 1]):
            family = item.point.labels[1][1]
            filler.started_at += timedelta(seconds=31)
            if family == "tps" and place % 2:
                filler.fail(item.spec, Failure(kind=FailureKind.DIVERGED, message="the loss is nan"))
            elif place % 19 == 7:
                kind = KINDS[place // 19 % len(KINDS)]
                filler.fail(item.spec, Failure(kind=kind, message=f"what {kind.value} says, in trial {place % 3}"))
            else:
                verdict = Verdict.COLLAPSED if place % 23 == 3 else Verdict.HEALTHY
                correct = round(1500 + 3 * (place % 150) + 60 * FAMILIES.index(family) + rng.normal(0, 12))
                filler.complete(item.spec, min(correct, 1990), verdict=verdict)
        filler.start(items[len(items) // 2 + 1].spec)
    return MadeUpPage(layout=layout, data_root=folder / "data", reports=folder / "reports")


def _in_grid(size: int, family: str, seed: int) -> PlannedTrial:
    index = FAMILIES.index(family)
    spec = transformed(10 + size + 200 * index, seed=seed)
    label = f"size {10 * (1 + size)}"
    point = Point(labels=(("locnet1.sizes", label), ("transformer", family)))
    return PlannedTrial(spec=spec, point=point, label=f"{label} · {family}")


def search_spec(name: str) -> SweepSpec:
    """A search by TPE over two ranges and two axes of choices, with a pruner."""

    def choices(key: str, *values: Value) -> tuple[Choice, ...]:
        return tuple(
            Choice(label=label_of(key, value), overrides=(Override(key=key, value=value),)) for value in values
        )

    return SweepSpec(
        name=name,
        question="Which learning rates suit the classifier and its localisation network?",
        axes=(
            Axis(name="optimizer.learning_rate", span=FloatSpan(low=0.001, high=0.3, log=True)),
            Axis(name="optimizer.locnet_learning_rate_factor", span=FloatSpan(low=0.01, high=3, log=True)),
            Axis(name="locnet1.sizes", choices=choices("locnet1.sizes", (20, 20, 20), (50, 100, 50), (100, 200, 100))),
            Axis(name="transformer", choices=choices("transformer", *FAMILIES[:3])),
        ),
        seeds=(1,),
        baselines=False,
        planner=TpePlannerSpec(trials=SEARCHED),
        pruner=MedianPrunerSpec(),
        file=name,
    )


SEARCHED = 60
PRUNED = 20


def make_search(folder: Path, *, name: str = "search") -> MadeUpPage:
    """Fill a store with a search by TPE of 60 trials, of which 20 were pruned and two failed."""
    layout = RunsLayout(folder / "runs")
    rng = np.random.default_rng(5)
    sweep = search_spec(name)
    rates, factors, sizes, families = sweep.axes
    items, skills = [], []
    for place in range(SEARCHED):
        spread = 500 if place < 12 else 160  # later proposals are near the best place
        rate = int(np.clip(rng.normal(520, spread), 0, 1000))
        factor = int(np.clip(rng.normal(400, spread), 0, 1000))
        size, family = (int(number) for number in rng.integers(0, 3, 2))
        picked = (rates.values[rate], factors.values[factor], sizes.values[size], families.values[family])
        labels = tuple((axis.name, choice.label) for axis, choice in zip(sweep.axes, picked, strict=True))
        numbers = [choice.overrides[0].value for choice in picked[:2]]
        spec = transformed(10 + 10 * size + family)
        optimizer = SgdSpec(learning_rate=float(str(numbers[0])), locnet_learning_rate_factor=float(str(numbers[1])))
        point = Point(labels=labels)
        items.append(PlannedTrial(spec=replace(spec, optimizer=optimizer), point=point, label=point.label))
        far = ((rate - 520) / 400) ** 2 + ((factor - 400) / 600) ** 2
        skills.append(round(1930 - 260 * min(far, 3) + 25 * size + 12 * family + rng.normal(0, 10)))
    worst = sorted(range(12, SEARCHED), key=lambda place: skills[place])[:PRUNED]
    with Store.open(layout.root / "stnbench.db", writable=True) as store:
        filler = Filler(store, name).save(items, sweep=sweep)
        for place, item in enumerate(items):
            filler.started_at += timedelta(seconds=31)
            if place in (3, 7):
                filler.fail(item.spec, Failure(kind=FailureKind.DIVERGED, message="the loss is nan"))
                continue
            token = filler.start(item.spec)
            made = result(item.spec, token, min(skills[place], 1990), verdict=Verdict.HEALTHY)
            made = replace(made, epochs=tuple(_epoch(epoch, made.validation.accuracy) for epoch in made.epochs))
            end = filler.started_at + timedelta(seconds=30)
            if place in worst:
                for epoch in made.epochs[: 1 + place % 3]:
                    store.add_epoch(token, epoch)
                store.end_attempt(token, AttemptState.PRUNED, None, end, trial_state=TrialState.PRUNED, sweep=name)
            else:
                store.complete_attempt(token, made, end)
    return MadeUpPage(layout=layout, data_root=folder / "data", reports=folder / "reports")
