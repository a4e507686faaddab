"""The report of an ensemble, as sections and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from stnbench.analysis.effects import Estimate
from stnbench.analysis.ensembles import CommitteeGain
from stnbench.core.identity import Json
from stnbench.report import render, table
from stnbench.report.ensemble import Ensemble, Member
from stnbench.report.table import ESSENTIAL, Column, Section, Table


@dataclass(frozen=True, kw_only=True, slots=True)
class _Network:
    """A row of the accuracy table: the ensemble, its best member, or the mean of its members."""

    name: str
    score: Estimate
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gain:
    """A row of the table of gains: the ensemble against its best member or against the mean member."""

    name: str
    gain: CommitteeGain


def title(ensemble: Ensemble) -> str:
    """Return the title of an ensemble's report."""
    return f"{ensemble.sweep}: an ensemble of {len(ensemble.members)} ({ensemble.choice})"


def ensemble_sections(ensemble: Ensemble) -> tuple[Section, ...]:
    """Return the sections of an ensemble: answer, accuracy, gains over the members, the members, and provenance."""
    score, decimals = ensemble.score, table.decimals_for(ensemble.score.images)
    best = ensemble.members[score.best]
    best_name = f"best member ({best.label}, seed {best.seed})"
    estimates = {"ensemble": score.accuracy, best_name: score.members[score.best], "mean member": score.mean_member}
    networks = [_Network(name=name, score=estimate, images=score.images) for name, estimate in estimates.items()]
    gains = [_Gain(name=best_name, gain=score.over_best), _Gain(name="mean member", gain=score.over_mean)]
    over_best, over_mean = (table.points(gain.gain.difference, decimals) for gain in gains)
    answer = (
        f"The ensemble scores {table.score(score.accuracy, decimals)} % on the {ensemble.split} split "
        f"({score.images:,} images), {over_best} pp over its {best_name} and {over_mean} pp over the mean member."
    )
    accuracy = Table(key="accuracy", caption="Accuracy", columns=_networks(ensemble, decimals), items=networks)
    gained = Table(key="gains", caption="Gains of the ensemble", columns=_gains(decimals), items=gains)
    members = Table(key="members", caption="Members", columns=_members(ensemble, decimals), items=ensemble.members)
    (_, sweep), *others = table.provenance_lines(ensemble.made_with)
    return (
        Section(key="answer", heading="Answer", text=(answer,)),
        Section(
            key="accuracy",
            heading="Accuracy",
            text=(f"Accuracy on the {ensemble.split} split, {score.images:,} images.",),
            tables=(accuracy,),
        ),
        Section(key="gains", heading="Gains", tables=(gained,), notes=tuple(_notes(ensemble))),
        Section(key="members", heading="Members", tables=(members,)),
        Section(
            key="provenance",
            heading="How it was made",
            facts=[("Command", ensemble.command), ("Sweep", sweep), *others],
        ),
    )


def ensemble_json(ensemble: Ensemble) -> dict[str, Json]:
    """Return one object: ``{"sweep", "ensemble", "split", "images", "mean", "low", "high", "members": [...], ...}``."""
    score, made_with = ensemble.score, ensemble.made_with
    return {
        "sweep": ensemble.sweep,
        "ensemble": ensemble.choice,
        "committee": ensemble.choice,
        "command": ensemble.command,
        "split": ensemble.split,
        "images": score.images,
        "correct": score.correct,
        "errors": score.images - score.correct,
        **render.estimate_json(score.accuracy),
        "members": [_member_json(ensemble.split, member) for member in ensemble.members],
        "mean_member": render.estimate_json(score.mean_member),
        "best_member": ensemble.members[score.best].trial_id,
        "gain_over_mean_member": _gain_json(score.over_mean),
        "gain_over_best_member": _gain_json(score.over_best),
        "diversity": asdict(score.diversity),
        "notes": [*_notes(ensemble)],
        "provenance": {
            "command": made_with.command,
            "seeds": list(made_with.seeds),
            **{
                name: [asdict(item) for item in getattr(made_with, name)]
                for name in ("commits", "devices", "platforms", "versions", "datasets")
            },
        },
    }


def _networks(ensemble: Ensemble, decimals: int) -> list[Column[_Network]]:
    return [
        Column(key="network", heading="network", value=lambda it: it.name, is_number=False, importance=ESSENTIAL),
        Column(key="", heading=f"{ensemble.split} % [95 %]", value=lambda it: it.score, importance=ESSENTIAL,
               text=lambda it: f"{table.score(it.score, decimals)} {table.method(it.score)}"),
        Column(key="errors", heading="errors", value=lambda it: round((1 - it.score.mean) * it.images, 1),
               text=lambda it: f"{round((1 - it.score.mean) * it.images, 1):g}"),
        Column(key="networks", heading="n", value=lambda it: it.score.n),
    ]  # fmt: skip


def _gains(decimals: int) -> list[Column[_Gain]]:
    return [
        Column(key="over", heading="gain over", value=lambda it: it.name, is_number=False, importance=ESSENTIAL),
        Column(key="difference", heading="gain (pp)", value=lambda it: it.gain.difference, importance=ESSENTIAL,
               is_estimate=True,
               text=lambda it: table.points(it.gain.difference, decimals)),
        Column(key="mcnemar", heading="discordant (b : c)", value=lambda it: asdict(it.gain.test),
               text=lambda it: f"{it.gain.test.only_config:,} : {it.gain.test.only_base:,}"),
        Column(key="p", heading="p", value=lambda it: it.gain.test.p_value, text=lambda it: _p(it.gain.test.p_value)),
    ]  # fmt: skip


def _members(ensemble: Ensemble, decimals: int) -> list[Column[Member]]:
    def score(estimate: Estimate | None) -> str:
        return f"{table.score(estimate, decimals)} {table.method(estimate)}" if estimate else table.MISSING

    is_test = ensemble.split != "validation"
    return [
        Column(key="cell", heading="configuration", value=lambda it: it.label, is_number=False, importance=ESSENTIAL),
        Column(key="cell_id", value=lambda it: it.config_id),
        Column(key="seed", heading="seed", value=lambda it: it.seed, importance=ESSENTIAL),
        Column(key="trial_id", heading="trial", value=lambda it: it.trial_id, is_number=False, importance=8),
        Column(key="validation", heading="validation % [95 %]" if is_test else "", value=lambda it: it.validation,
               is_estimate=True,
               text=lambda it: score(it.validation)),
        Column(key="", heading=f"{ensemble.split} % [95 %]", value=lambda it: it.score, importance=ESSENTIAL,
               text=lambda it: score(it.score)),
    ]  # fmt: skip


def _notes(ensemble: Ensemble) -> Iterator[str]:
    score = ensemble.score
    yield from ensemble.notes
    yield "The ensemble takes the class with the largest mean of its members' probabilities, stored as float16."
    yield (
        "W: Wilson's 95 % interval of one run, or of one ensemble, over its images, as if these were independent; it "
        "does not cover other seeds. t: mean over n members with the 95 % interval of Student's t."
    )
    methods = f"{score.over_best.difference.method}; for the mean member {score.over_mean.difference.method}"
    tests = " and ".join(dict.fromkeys(gain.test.method for gain in (score.over_best, score.over_mean)))
    yield (
        f"Gains are in percentage points with a 95 % interval ({methods}). The best member is the best on these very "
        f"images, which favours it. p: {tests}; for the mean member, of all members together. Discordant (b : c): "
        "images that only the ensemble (b) or only the member (c) classifies correctly."
    )
    if score.over_best.test.tracks == score.images:
        yield f"Tracks of the {ensemble.split} images are not known: each image counts as independent of the others."
    yield (
        "Diversity, means over all pairs of members (Kuncheva and Whitaker 2003): disagreement "
        f"{100 * score.diversity.disagreement:.2f} % (images that exactly one of the two classifies correctly), double "
        f"fault {100 * score.diversity.double_fault:.2f} % (images that both get wrong)."
    )


_SMALLEST_P: Final = 1e-4


def _p(p_value: float) -> str:
    return f"< {_SMALLEST_P:.4f}" if p_value < _SMALLEST_P else f"{p_value:.2g}"


def _member_json(split: str, member: Member) -> dict[str, Json]:
    return {
        "trial_id": member.trial_id,
        "cell": member.label,
        "cell_id": member.config_id,
        "seed": member.seed,
        "split": split,
        **render.estimate_json(member.score),
        "validation": render.estimate_json(member.validation),
    }


def _gain_json(gain: CommitteeGain) -> dict[str, Json]:
    return {**render.estimate_json(gain.difference), "mcnemar": asdict(gain.test)}
