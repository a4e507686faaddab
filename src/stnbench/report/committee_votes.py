"""What the members of a committee said of every image of a split: from the store, and from the trials' folders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stnbench.analysis.ensembles import Votes
from stnbench.core.cores import available_cores
from stnbench.core.errors import SpecError, StnbenchError
from stnbench.core.paths import AttemptLayout, RunsLayout, data_root
from stnbench.report.committee_choice import Candidate
from stnbench.spec.result import ScoredImages
from stnbench.store.queries import StoreReader
from stnbench.store.records import ImageSets
from stnbench.trials.probability_file import Probabilities, read_probabilities

ScoredSplit = Literal["validation", "test"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Vote:
    """What one member said, and of which images.

    ``changed`` counts predictions that are others than the stored ones, where they were computed anew; else it is None.
    """

    predictions: tuple[int, ...]
    probabilities: Probabilities
    images: ScoredImages
    changed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class VoteReader:
    """Reads what members said on one split; with ``recompute``, what was not kept is computed from checkpoints."""

    store: StoreReader
    layout: RunsLayout
    split: ScoredSplit
    recompute: bool
    _sets: dict[str, ImageSets] = field(default_factory=dict)

    def read(self, member: Candidate) -> Vote:
        """What a member said.

        Raises: SpecError where it was not kept or cannot be computed; FolderError where it cannot be read.
        """
        predictions = self.store.predictions(member.trial.trial_id, self.split)
        if predictions is None:
            problem = f"{name_of(member)} was not scored on the {self.split} split"
            raise SpecError(
                problem, remedy="there were no such images where it ran; choose other trials or another split"
            )
        layout = AttemptLayout(self.layout.attempt(member.trial.trial_id, member.outcome.attempt))
        path, images = layout.probabilities(self.split), self._images(member)
        if images is None or not path.exists():
            if self.recompute:
                return self._compute(member, layout, predictions, images)
            remedy = (
                "add --recompute to compute them from its checkpoint"
                if layout.checkpoint.exists()
                else "its checkpoint is gone as well; leave it out, or train it in another STNBENCH_RUNS"
            )
            raise SpecError(f"{name_of(member)} kept no probabilities on the {self.split} split", remedy=remedy)
        probabilities = read_probabilities(layout.folder, self.split, images=len(predictions))
        if (probabilities[np.arange(len(predictions)), predictions] != probabilities.max(axis=1)).any():
            problem = f"the probabilities {path} are not those of the predictions of {name_of(member)}"
            raise SpecError(problem, remedy="remove the file; --recompute computes them from the checkpoint")
        return Vote(predictions=predictions, probabilities=probabilities, images=images)

    def _images(self, member: Candidate) -> ScoredImages | None:
        """Which images a member was scored on; None where older versions did not say."""
        sweep = member.trial.sweep
        if sweep not in self._sets:
            self._sets[sweep] = self.store.image_sets(sweep, self.split)
        return self._sets[sweep].sets.get(self._sets[sweep].of_trial.get(member.trial.trial_id, ""))

    def _compute(
        self, member: Candidate, layout: AttemptLayout, predictions: tuple[int, ...], images: ScoredImages | None
    ) -> Vote:
        from stnbench.trials.score import rescore_trial  # torch, which only who asks for it pays

        try:
            found = rescore_trial(
                layout.folder, self.split, data_root=data_root(), device="cpu", threads=available_cores()
            )
        except StnbenchError as error:
            problem = f"{name_of(member)} cannot be computed anew ({error.problem})"
            raise SpecError(problem, remedy=error.remedy) from error
        said, now = found.score.predictions, found.score.scored
        if now is None or len(said) != len(predictions) or (images is not None and now != images):
            problem = f"the {self.split} images here are not those that {name_of(member)} was scored on"
            raise SpecError(problem, remedy="set STNBENCH_DATA to the data that it was trained on")
        changed = sum(one != other for one, other in zip(said, predictions, strict=True))
        return Vote(predictions=said, probabilities=found.probabilities, images=now, changed=changed)


def name_of(member: Candidate) -> str:
    """``trial 0123456789abcdef (20,20,20, seed 1)``."""
    trial = member.trial
    return f"trial {trial.trial_id} ({trial.label}, seed {trial.seed})"


def as_votes(votes: Sequence[Vote]) -> Votes:
    """The votes of members on the same images, as arrays. Raises: SpecError where the images are not the same."""
    images = votes[0].images
    if any(vote.images != images for vote in votes):
        problem = "the members of the committee were scored on different images"
        raise SpecError(problem, remedy="choose trials of one data set and split, for example with cell:")
    if images.tracks:
        _, tracks = np.unique(np.array(images.tracks), return_inverse=True)
    else:
        tracks = np.arange(len(images.labels))
    return Votes(
        probabilities=[vote.probabilities for vote in votes],
        predictions=np.array([vote.predictions for vote in votes], np.int64),
        labels=np.array(images.labels, np.int64),
        tracks=tracks.astype(np.int64),
        is_tracked=bool(images.tracks),
    )
