"""Ensembles of trials: their choice from the store, their predictions and their scores.

No test score is used in the choice of the members.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, assert_never

import numpy as np

from stnbench.analysis.effects import Estimate, wilson_estimate
from stnbench.analysis.ensembles import CommitteeScore, Votes, score_committee
from stnbench.analysis.frames import trials_frame
from stnbench.core.errors import SpecError, StnbenchError, UnknownNameError
from stnbench.core.files import AttemptLayout, RunsLayout, data_root
from stnbench.core.process import available_cores
from stnbench.report.board import Provenance
from stnbench.report.leaderboard import differences, provenance
from stnbench.report.runs import find_trial
from stnbench.spec.data import NO_SCORE
from stnbench.spec.result import ScoredImages, TrialState
from stnbench.store.queries import StoreReader
from stnbench.store.tables import ImageSets, Outcome, TrialRecord
from stnbench.trials.files import Probabilities, read_probabilities

FORMS: Final = "top:K, all, configuration:LABEL or TRIAL,TRIAL,..."
_TRIAL: Final = re.compile(r"[0-9a-fA-F]+|[^#]+#-?\d+|([^:]+:)?best(:\d+)?")
_SEPARATOR: Final = re.compile(r"(?<=#\d),|(?<=#\d\d),|,(?=[^,]*[#:])|,(?=\s*[0-9a-fA-F]{4,})")
"""The commas between trials, as opposed to those within a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A complete trial with its outcome, which may be chosen as a member."""

    trial: TrialRecord
    outcome: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Top:
    """The choice of the ``count`` trials that are best on the validation split."""

    count: int


@dataclass(frozen=True, slots=True)
class Everyone:
    """The choice of all complete trials of the sweep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OfConfiguration:
    """The choice of all complete trials of one configuration, given by its label or the start of its identity."""

    config: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """The choice of named trials, of any sweep, each given by the start of its identity."""

    trials: tuple[str, ...]


Choice = Top | Everyone | OfConfiguration | Named


def parse_choice(text: str) -> Choice:
    """Parse the value of ``--ensemble``.

    Raises:
        SpecError: if the text has none of the ``FORMS``, which the message names.
    """
    kind, colon, rest = text.strip().partition(":")
    names = tuple(dict.fromkeys(name.strip() for name in _SEPARATOR.split(text)))
    if kind == "top" and rest.isdecimal():
        return Top(count=int(rest))
    if kind == "all" and not colon:
        return Everyone()
    if kind in {"configuration", "cell"} and rest.strip():  # "cell" until 0.2
        return OfConfiguration(config=rest.strip())
    if all(_TRIAL.fullmatch(name) for name in names):
        return Named(trials=names)
    raise SpecError(f"the ensemble '{text}' cannot be chosen", remedy=f"write {FORMS}")


def choose(
    choice: Top | Everyone | OfConfiguration, trials: Sequence[TrialRecord], candidates: Sequence[Candidate]
) -> list[str]:
    """Return the identities of the members: the best one first for ``Top``, else in the order of the sweep.

    Ties of the validation accuracy are broken by the validation loss, then by the order of the sweep.

    Args:
        choice: the requested members.
        trials: the trials of the sweep, in its order.
        candidates: the complete ones among them, in the same order.

    Raises:
        SpecError: if there are fewer trials than requested, if the best are requested and some were trained on the
            validation images, or if the name matches several configurations.
        UnknownNameError: if the name matches no configuration.
    """
    match choice:
        case Top(count=count):
            chosen = _best(count, candidates)
        case OfConfiguration(config=config):
            config_id = _find_configuration(config, trials)
            chosen = [candidate for candidate in candidates if candidate.trial.config_id == config_id]
        case Everyone():
            chosen = list(candidates)
        case _:
            assert_never(choice)
    return [candidate.trial.trial_id for candidate in chosen]


def _best(count: int, candidates: Sequence[Candidate]) -> list[Candidate]:
    if count > len(candidates):
        problem = f"an ensemble of the top {count} was requested"
        raise SpecError(problem, remedy=f"{len(candidates)} trials of the sweep are complete")
    if not all(candidate.trial.spec.has_held_out_images for candidate in candidates):
        problem = "the best on the validation split were requested, and split=all trains on its images"
        raise SpecError(problem, remedy="choose the members by configuration: or their ids")
    return sorted(candidates, key=_by_validation)[:count]


def _by_validation(candidate: Candidate) -> tuple[float, float]:
    score = candidate.outcome.validation
    return -score.accuracy, score.loss


def _find_configuration(text: str, trials: Sequence[TrialRecord]) -> str:
    """Return the identity of the one configuration with this label, or else of the one whose identity starts so."""
    labels = {trial.config_id: trial.label for trial in trials}
    found = [config_id for config_id, label in labels.items() if label == text]
    found = found or [config_id for config_id in labels if config_id.startswith(text.lower())]
    if not found:
        raise UnknownNameError("configuration", text, labels.values(), where="the sweep")
    if len(found) > 1:
        shown = ", ".join(f"{config_id[:8]} ({labels[config_id]})" for config_id in found[:3])
        more = ", ..." if len(found) > 3 else ""
        raise SpecError(
            f"several configurations are meant by '{text}': {shown}{more}", remedy="give more of its identity"
        )
    return found[0]


ScoredSplit = Literal["validation", "test"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Vote:
    """The predictions of a member and the images that they are for.

    Attributes:
        predictions: the predicted class of each image.
        probabilities: (images, classes), in [0, 1].
        images: the images.
        changed: the number of predictions that differ from the stored ones, where they were recomputed; else None.
    """

    predictions: tuple[int, ...]
    probabilities: Probabilities
    images: ScoredImages
    changed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class VoteReader:
    """A reader of the members' predictions on one split.

    With ``recompute``, probabilities that were not kept are computed from checkpoints.
    """

    store: StoreReader
    layout: RunsLayout
    split: ScoredSplit
    recompute: bool
    _sets: dict[str, ImageSets] = field(default_factory=dict)

    def read(self, member: Candidate) -> Vote:
        """Read the predictions and probabilities of a member.

        Raises:
            SpecError: if they were not kept or cannot be computed.
            FolderError: if they cannot be read.
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
        """Return the images that a member was scored on, or None where an older version did not record them."""
        sweep = member.trial.sweep
        if sweep not in self._sets:
            self._sets[sweep] = self.store.image_sets(sweep, self.split)
        return self._sets[sweep].sets.get(self._sets[sweep].of_trial.get(member.trial.trial_id, ""))

    def _compute(
        self, member: Candidate, layout: AttemptLayout, predictions: tuple[int, ...], images: ScoredImages | None
    ) -> Vote:
        from stnbench.trials.score import rescore_trial  # imports torch, which only recomputing needs

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
    """Return the name of a member for messages, as in ``trial 0123456789abcdef (20,20,20, seed 1)``."""
    trial = member.trial
    return f"trial {trial.trial_id} ({trial.label}, seed {trial.seed})"


def as_votes(votes: Sequence[Vote]) -> Votes:
    """Return the votes of members on the same images as arrays; images without a known track have one each.

    Raises:
        SpecError: if the members were scored on different images.
    """
    images = votes[0].images
    if any(vote.images != images for vote in votes):
        problem = "the members of the ensemble were scored on different images"
        raise SpecError(problem, remedy="choose trials of one data set and split, for example with configuration:")
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A trial of an ensemble.

    ``validation`` is its accuracy on the validation split, None where it was trained on those images; ``score`` is that
    on the split of the ensemble.
    """

    trial_id: str
    config_id: str
    label: str
    seed: int
    validation: Estimate | None
    score: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """An ensemble on one split, ready to be written in any format. Accuracies are shares in [0, 1].

    ``command`` reproduces this report; ``made_with`` is the provenance of the members.
    """

    sweep: str
    choice: str
    split: ScoredSplit
    command: str
    members: tuple[Member, ...]
    score: CommitteeScore
    made_with: Provenance
    notes: tuple[str, ...]


def read_ensemble(
    store: StoreReader,
    layout: RunsLayout,
    sweep: str,
    text: str,
    *,
    split: ScoredSplit = "validation",
    recompute: bool = False,
) -> Ensemble:
    """Read the ensemble of the trials that ``text`` chooses and score it on a split. Nothing is written.

    Args:
        store: the store with the trials.
        layout: the runs folder with their probabilities and checkpoints.
        sweep: the name of the sweep.
        text: the choice of the members, in one of the ``FORMS``.
        split: the split that the ensemble is scored on.
        recompute: whether probabilities that were not kept are computed from the members' checkpoints, on the CPU.

    Raises:
        UnknownNameError: for an unknown sweep, configuration or trial.
        SpecError: if the choice cannot be an ensemble, or its members were not scored on the same images.
        FolderError: if probabilities cannot be read.
    """
    choice = parse_choice(text)
    trials = store.sweep_trials(sweep)
    members = _find_members(store, sweep, choice, trials)
    if len(members) < 2:
        problem = f"the ensemble '{text}' has {len(members)} {'member' if len(members) == 1 else 'members'}"
        raise SpecError(problem, remedy="it takes two complete trials")
    _require_same_images(members, split)
    if split == "validation" and not all(member.trial.spec.has_held_out_images for member in members):
        raise SpecError(f"the ensemble '{text}' has no score: {NO_SCORE}", remedy="score it with --split test")
    reader = VoteReader(store=store, layout=layout, split=split, recompute=recompute)
    votes = [reader.read(member) for member in members]
    score = score_committee(as_votes(votes))
    (spec,) = (record.spec for record in store.sweeps() if record.spec.name == sweep)
    frame = trials_frame([one.trial for one in members], {one.trial.trial_id: one.outcome for one in members})
    made_with = provenance(spec, frame, split)
    notes = [*_choice_notes(choice, trials, split), *_recomputed_notes(votes), *differences(made_with)]
    return Ensemble(
        sweep=sweep,
        choice=text,
        split=split,
        command=_command(sweep, text, split, recompute=recompute),
        members=tuple(map(_member, members, score.members)),
        score=score,
        made_with=made_with,
        notes=tuple(notes),
    )


def _find_members(store: StoreReader, sweep: str, choice: Choice, trials: Sequence[TrialRecord]) -> list[Candidate]:
    if isinstance(choice, Named):
        return _find_named(store, choice, trials)
    outcomes = store.outcomes(sweep)
    complete = [
        Candidate(trial=trial, outcome=outcomes[trial.trial_id]) for trial in trials if trial.trial_id in outcomes
    ]
    by_id = {candidate.trial.trial_id: candidate for candidate in complete}
    return [by_id[trial_id] for trial_id in choose(choice, trials, complete)]


def _find_named(store: StoreReader, choice: Named, trials: Sequence[TrialRecord]) -> list[Candidate]:
    """Return the named trials: those of this sweep with its labels, others with those of the sweep that ran last.

    Raises:
        SpecError: if one of them is not complete.
    """
    own = {trial.trial_id: trial for trial in trials}
    members: dict[str, Candidate] = {}
    for prefix in choice.trials:
        found = find_trial(store, prefix)
        trial = own.get(found.trial_id, found)
        outcome = store.outcome(trial.trial_id)
        if outcome is None:
            raise SpecError(f"trial {trial.trial_id} is {trial.state}", remedy="only complete trials can be members")
        members[trial.trial_id] = Candidate(trial=trial, outcome=outcome)
    return list(members.values())


def _require_same_images(members: Sequence[Candidate], split: ScoredSplit) -> None:
    """Check that all members have the same images on the split, and the same validation images in any case.

    Members are compared by their validation accuracies, whichever split the ensemble is scored on.

    Raises:
        SpecError: if two members have different images.
    """
    first, *others = members
    halves: tuple[ScoredSplit, ...] = ("validation", "test") if split == "test" else ("validation",)
    for other in others:
        is_split = first.trial.spec.split == other.trial.spec.split
        digests = [{_digest(member, half) for member in (first, other)} - {""} for half in halves]
        if not is_split or any(len(found) > 1 for found in digests):
            what = "images of different data" if is_split else "different images, by another split"
            problem = f"{name_of(first)} and {name_of(other)} were scored on {what}"
            raise SpecError(problem, remedy="choose trials of one data set and split, for example with configuration:")


def _digest(member: Candidate, split: ScoredSplit) -> str:
    """Return the digest of the half of the data set that a split belongs to; empty where the half was missing."""
    return member.outcome.environment.digests.get("test" if split == "test" else "train", "")


def _member(candidate: Candidate, score: Estimate) -> Member:
    trial, score_held_out = candidate.trial, candidate.outcome.validation
    is_held_out = trial.spec.has_held_out_images
    return Member(
        trial_id=trial.trial_id,
        config_id=trial.config_id,
        label=trial.label,
        seed=trial.seed,
        validation=wilson_estimate(score_held_out.correct, score_held_out.images) if is_held_out else None,
        score=score,
    )


def _command(sweep: str, text: str, split: ScoredSplit, *, recompute: bool) -> str:
    options = [*(("--split", split) if split != "validation" else ()), *(("--recompute",) if recompute else ())]
    return shlex.join(["stnbench", "report", sweep, "--ensemble", text, *options])


def _choice_notes(choice: Choice, trials: Sequence[TrialRecord], split: ScoredSplit) -> Iterator[str]:
    """Yield how the members were chosen, and how the choice affects the accuracy."""
    match choice:
        case Top(count=count):
            complete = sum(trial.state is TrialState.COMPLETE for trial in trials)
            how = f"The members are the {count} of {complete} complete trials that are best on the validation split"
            if split == "test":
                yield f"{how}; the test split had no part in the choice."
            else:
                yield (
                    f"{how}. Warning: the ensemble is scored on the same images, so its accuracy is too high by "
                    "selection; --split test scores it on images that had no part in the choice."
                )
        case Everyone():
            yield "The members are all complete trials of the sweep: no score had a part in the choice."
        case OfConfiguration():
            yield f"The members are the seeds of one configuration. {_picked(split)}"
        case Named():
            yield f"The members were named one by one. {_picked(split)}"
        case _:
            assert_never(choice)
    unfinished = sum(trial.state is not TrialState.COMPLETE for trial in trials)
    if unfinished and not isinstance(choice, Named):
        yield f"{unfinished} of {len(trials)} trials of the sweep are not complete and could not be chosen."


def _picked(split: ScoredSplit) -> str:
    return f"If they were picked for their {split} scores, the accuracy is too high by selection."


def _recomputed_notes(votes: Sequence[Vote]) -> Iterator[str]:
    changed = [vote.changed for vote in votes if vote.changed is not None]
    if changed:
        predictions = len(changed) * len(votes[0].predictions)
        yield (
            f"The probabilities of {len(changed)} of {len(votes)} members were computed anew from their checkpoints; "
            f"{sum(changed)} of their {predictions:,} predictions differ from those stored."
        )
