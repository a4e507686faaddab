"""A made-up sweep with everything that a page shows: curves, health, answers, images, snapshots, failures."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from made_up_results import ENVIRONMENT, Filler, planned, result, transformed
from numpy.typing import NDArray

from stnbench.core.paths import AttemptLayout, RunsLayout
from stnbench.data.cache import CacheArrays, Layout, Recipe, open_or_build
from stnbench.spec.result import EpochRecord, Failure, FailureKind, ScoredImages, SplitScore, TrialResult
from stnbench.spec.states import Verdict
from stnbench.spec.sweep import Point
from stnbench.spec.trial import TrialSpec
from stnbench.store.records import PlannedTrial
from stnbench.store.store import Store

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
    """Fill a store, a data cache and the folder of an attempt; ``labels`` name the cells instead of their sizes."""
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
    size = spec.transformers[0].locnet.sizes[0]
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
