"""Which complete trials become a committee: pure. No test score is looked at."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.store.records import Outcome, TrialRecord

FORMS: Final = "top:K, all, cell:CELL or TRIAL,TRIAL,..."
_TRIAL: Final = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A complete trial."""

    trial: TrialRecord
    outcome: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Top:
    """The ``count`` trials that are best on the validation split."""

    count: int


@dataclass(frozen=True, slots=True)
class Everyone:
    """All complete trials of the sweep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OfCell:
    """All complete trials of one cell, given by its label or the beginning of its identity."""

    cell: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """These trials, of whatever sweep, each given by the beginning of its identity."""

    trials: tuple[str, ...]


Choice = Top | Everyone | OfCell | Named


def parse_choice(text: str) -> Choice:
    """What ``--committee`` says. Raises: SpecError naming the forms there are."""
    kind, colon, rest = text.strip().partition(":")
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    if kind == "top" and rest.isdecimal():
        return Top(count=int(rest))
    if kind == "all" and not colon:
        return Everyone()
    if kind == "cell" and rest.strip():
        return OfCell(cell=rest.strip())
    if all(_TRIAL.fullmatch(name) for name in names):
        return Named(trials=names)
    raise SpecError(f"the committee '{text}' is none that can be chosen", remedy=f"write {FORMS}")


def choose(
    choice: Top | Everyone | OfCell, trials: Sequence[TrialRecord], candidates: Sequence[Candidate]
) -> list[str]:
    """The identities of the members: the best one first for ``Top``, else in the order of the sweep.

    Equal validation accuracies are told apart by the validation loss, then by the order of the sweep.

    Args:
        choice: what was asked for.
        trials: of the sweep, in its order.
        candidates: the complete ones among them, in the same order.
    Raises: SpecError where there are fewer than asked for, where the best are asked for and some were trained on the
        images that would tell, or where several cells are meant; UnknownNameError for no cell.
    """
    match choice:
        case Top(count=count):
            chosen = _best(count, candidates)
        case OfCell(cell=cell):
            cell_id = _find_cell(cell, trials)
            chosen = [candidate for candidate in candidates if candidate.trial.cell_id == cell_id]
        case Everyone():
            chosen = list(candidates)
        case _:
            assert_never(choice)
    return [candidate.trial.trial_id for candidate in chosen]


def _best(count: int, candidates: Sequence[Candidate]) -> list[Candidate]:
    if count > len(candidates):
        problem = f"a committee of the top {count} was asked for"
        raise SpecError(problem, remedy=f"{len(candidates)} trials of the sweep are complete")
    if not all(candidate.trial.spec.has_held_out_images for candidate in candidates):
        problem = "the best on the validation split were asked for, and split=all trains on its images"
        raise SpecError(problem, remedy="choose the members by their cell or their identities")
    return sorted(candidates, key=_by_validation)[:count]


def _by_validation(candidate: Candidate) -> tuple[float, float]:
    score = candidate.outcome.validation
    return -score.accuracy, score.loss


def _find_cell(text: str, trials: Sequence[TrialRecord]) -> str:
    """The one cell of this label, or else of an identity that begins so."""
    labels = {trial.cell_id: trial.label for trial in trials}
    found = [cell_id for cell_id, label in labels.items() if label == text]
    found = found or [cell_id for cell_id in labels if cell_id.startswith(text.lower())]
    if not found:
        raise UnknownNameError("cell", text, labels.values(), where="the sweep")
    if len(found) > 1:
        shown = ", ".join(f"{cell_id[:8]} ({labels[cell_id]})" for cell_id in found[:3])
        more = ", ..." if len(found) > 3 else ""
        raise SpecError(f"several cells are meant by '{text}': {shown}{more}", remedy="give more of its identity")
    return found[0]
