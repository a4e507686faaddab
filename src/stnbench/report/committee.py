"""A committee of trials: chosen from the store, read from their folders, and scored."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from stnbench.analysis.ensembles import CommitteeScore, score_committee
from stnbench.analysis.frames_rows import trials_frame
from stnbench.analysis.inference import Estimate, wilson_estimate
from stnbench.core.errors import SpecError
from stnbench.core.paths import RunsLayout
from stnbench.report.board import Provenance
from stnbench.report.committee_choice import Candidate, Choice, Everyone, Named, OfCell, Top, choose, parse_choice
from stnbench.report.committee_votes import ScoredSplit, Vote, VoteReader, as_votes, name_of
from stnbench.report.provenance import differences, provenance
from stnbench.spec.data import NO_SCORE
from stnbench.spec.states import TrialState
from stnbench.store.queries import StoreReader
from stnbench.store.records import TrialRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One trial of a committee: its accuracy on the validation split, and on the split of the committee.

    ``validation`` is None where the trial was trained on those images.
    """

    trial_id: str
    cell_id: str
    label: str
    seed: int
    validation: Estimate | None
    score: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Committee:
    """A committee on one split, ready to be written in any format. Accuracies are shares in [0, 1].

    ``command`` makes this report again, ``made_with`` says how the members were trained.
    """

    sweep: str
    choice: str
    split: ScoredSplit
    command: str
    members: tuple[Member, ...]
    score: CommitteeScore
    made_with: Provenance
    notes: tuple[str, ...]


def read_committee(
    store: StoreReader,
    layout: RunsLayout,
    sweep: str,
    text: str,
    *,
    split: ScoredSplit = "validation",
    recompute: bool = False,
) -> Committee:
    """The committee of the trials that ``text`` chooses (``committee_choice.FORMS``), scored on a split.

    With ``recompute``, probabilities that were not kept are computed from the members' checkpoints, on the CPU; nothing
    is written.
    Raises: UnknownNameError for an unknown sweep, cell or trial; SpecError where the choice cannot be a committee, or
    its members were not scored on the same images; FolderError where probabilities cannot be read.
    """
    choice = parse_choice(text)
    trials = store.sweep_trials(sweep)
    members = _find_members(store, sweep, choice, trials)
    if len(members) < 2:
        problem = f"the committee '{text}' has {len(members)} {'member' if len(members) == 1 else 'members'}"
        raise SpecError(problem, remedy="it takes two complete trials")
    _require_same_images(members, split)
    if split == "validation" and not all(member.trial.spec.has_held_out_images for member in members):
        raise SpecError(f"the committee '{text}' has no score: {NO_SCORE}", remedy="score it with --split test")
    reader = VoteReader(store=store, layout=layout, split=split, recompute=recompute)
    votes = [reader.read(member) for member in members]
    score = score_committee(as_votes(votes))
    (spec,) = (record.spec for record in store.sweeps() if record.spec.name == sweep)
    frame = trials_frame([one.trial for one in members], {one.trial.trial_id: one.outcome for one in members})
    made_with = provenance(spec, frame, split)
    notes = [*_choice_notes(choice, trials, split), *_recomputed_notes(votes), *differences(made_with)]
    return Committee(
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
    """Trials of this sweep are called as it calls them; others as the sweep does that ran last."""
    own = {trial.trial_id: trial for trial in trials}
    members: dict[str, Candidate] = {}
    for prefix in choice.trials:
        found = store.find_trial(prefix)
        trial = own.get(found.trial_id, found)
        outcome = store.outcome(trial.trial_id)
        if outcome is None:
            raise SpecError(f"trial {trial.trial_id} is {trial.state}", remedy="only complete trials can be members")
        members[trial.trial_id] = Candidate(trial=trial, outcome=outcome)
    return list(members.values())


def _require_same_images(members: Sequence[Candidate], split: ScoredSplit) -> None:
    """Held-out images must be the same whatever the committee is scored on: members are compared by them."""
    first, *others = members
    halves: tuple[ScoredSplit, ...] = ("validation", "test") if split == "test" else ("validation",)
    for other in others:
        is_split = first.trial.spec.split == other.trial.spec.split
        digests = [{_digest(member, half) for member in (first, other)} - {""} for half in halves]
        if not is_split or any(len(found) > 1 for found in digests):
            what = "images of different data" if is_split else "different images, by another split"
            problem = f"{name_of(first)} and {name_of(other)} were scored on {what}"
            raise SpecError(problem, remedy="choose trials of one data set and split, for example with cell:")


def _digest(member: Candidate, split: ScoredSplit) -> str:
    """Of the half of the data set that a split is of (``trials.run`` writes them so); empty where it was not there."""
    training, _, test = member.outcome.environment.dataset_digest.partition(", test ")
    return test if split == "test" else training


def _member(candidate: Candidate, score: Estimate) -> Member:
    trial, score_held_out = candidate.trial, candidate.outcome.validation
    is_held_out = trial.spec.has_held_out_images
    return Member(
        trial_id=trial.trial_id,
        cell_id=trial.cell_id,
        label=trial.label,
        seed=trial.seed,
        validation=wilson_estimate(score_held_out.correct, score_held_out.images) if is_held_out else None,
        score=score,
    )


def _command(sweep: str, text: str, split: ScoredSplit, *, recompute: bool) -> str:
    options = [*(("--split", split) if split != "validation" else ()), *(("--recompute",) if recompute else ())]
    return shlex.join(["python", "-m", "stnbench.report", sweep, "--committee", text, *options])


def _choice_notes(choice: Choice, trials: Sequence[TrialRecord], split: ScoredSplit) -> Iterator[str]:
    """How the members were chosen, and what that does to the accuracy."""
    match choice:
        case Top(count=count):
            complete = sum(trial.state is TrialState.COMPLETE for trial in trials)
            how = f"The members are the {count} of {complete} complete trials that are best on the validation split"
            if split == "test":
                yield f"{how}; the test split had no part in the choice."
            else:
                yield (
                    f"{how}. Warning: the committee is scored on the same images, so its accuracy is too high by "
                    "selection; --split test scores it on images that had no part in the choice."
                )
        case Everyone():
            yield "The members are all complete trials of the sweep: no score had a part in the choice."
        case OfCell():
            yield f"The members are the seeds of one cell. {_picked(split)}"
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
