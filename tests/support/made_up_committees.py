"""Complete trials with predictions in a made-up store and probabilities in their folders."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from made_up_results import NOW, Filler, planned, result

from stnbench.core.files import RunsLayout
from stnbench.spec.data import Split
from stnbench.spec.result import ScoredImages, SplitScore
from stnbench.spec.sweep import Point
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial
from stnbench.trials.files import Probabilities, write_probabilities

CLASSES = 4
IMAGES = 60

VALIDATION = ScoredImages(
    labels=tuple(image // 5 % CLASSES for image in range(IMAGES)),
    tracks=tuple(image // 5 for image in range(IMAGES)),
    rows=tuple(range(100, 100 + IMAGES)),
)
"""Twelve tracks of five images."""

TEST = ScoredImages(labels=tuple(image % CLASSES for image in range(IMAGES)))
"""Other images, whose tracks are not known."""


def member(scored: ScoredImages, correct: int, seed: int) -> Probabilities:
    """The probabilities of a network that has so many images right, sure of some and unsure of others."""
    generator = np.random.default_rng(seed)
    count = len(scored.labels)
    said = np.array(scored.labels)
    wrong = generator.permutation(count)[correct:]
    said[wrong] = (said[wrong] + generator.integers(1, CLASSES, len(wrong))) % CLASSES
    top = generator.uniform(0.4, 0.99, count)
    shares = np.repeat((1 - top)[:, None] / (CLASSES - 1), CLASSES, axis=1)
    shares[np.arange(count), said] = top
    return shares.astype(np.float16)


@dataclass(slots=True)
class Committees:
    """A sweep of a store, filled trial by trial."""

    store: Store
    runs: Path
    name: str = "sizes"
    probabilities: dict[tuple[str, str], Probabilities] = field(default_factory=dict)

    def plan(self, specs: list[TrialSpec]) -> Filler:
        """The sweep with its trials, none of them complete."""
        return Filler(self.store, self.name).save([_planned(spec) for spec in specs])

    def complete(
        self,
        filler: Filler,
        spec: TrialSpec,
        correct: int,
        *,
        test: int | None = None,
        digest: str = "train abcd, test ef01",
        validation: ScoredImages | None = VALIDATION,
        is_kept: bool = True,
    ) -> None:
        """Run a trial to its result, so many of 60 images right; its folder has its probabilities if ``is_kept``."""
        token = filler.start(spec)
        made = result(spec, token, correct, images=IMAGES)
        scores = {"validation": (validation or VALIDATION, correct)} | (
            {"test": (TEST, test)} if test is not None else {}
        )
        kept = {
            split: self._score(spec, split, images, right, is_kept=is_kept)  # type: ignore[arg-type]
            for split, (images, right) in scores.items()
        }
        if validation is None:
            kept["validation"] = replace(kept["validation"], scored=None)
        environment = replace(made.environment, dataset_digest=digest)
        made = replace(made, validation=kept["validation"], test=kept.get("test"), environment=environment)
        self.store.complete_attempt(token, made, NOW + timedelta(seconds=30))

    def _score(self, spec: TrialSpec, split: Split, images: ScoredImages, correct: int, *, is_kept: bool) -> SplitScore:
        shares = member(images, correct, seed=int(spec.trial_id[:6], 16) + len(split))
        folder = RunsLayout(self.runs).attempt(spec.trial_id, 1)
        folder.mkdir(parents=True, exist_ok=True)
        if is_kept:
            write_probabilities(folder, split, shares)
        self.probabilities[spec.trial_id, split] = shares
        said = tuple(shares.argmax(axis=1).tolist())
        return SplitScore(
            split=split, images=len(said), correct=correct, loss=1 - correct / IMAGES, predictions=said, scored=images
        )


def _planned(spec: TrialSpec) -> PlannedTrial:
    made = planned(spec)
    return made if spec.transformers else replace(made, point=Point(labels=()))
