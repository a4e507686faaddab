"""A committee in Markdown, on a terminal, and as JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from stnbench.analysis.ensembles import CommitteeGain
from stnbench.analysis.inference import Estimate
from stnbench.core.errors import SpecError
from stnbench.core.identity import Json
from stnbench.report import text
from stnbench.report.committee import Committee, Member
from stnbench.report.markdown import code, escape, table_lines
from stnbench.report.rounded import estimate_json
from stnbench.report.table import Column
from stnbench.report.terminal import GAP, padded


def render_committee(committee: Committee, kind: str) -> str:
    """In one format. The same committee gives the same bytes. Raises: SpecError for a format that it does not have."""
    if kind == "md":
        return to_markdown(committee)
    if kind == "json":
        return to_json(committee)
    raise SpecError(f"a committee cannot be printed as {kind}", remedy="give --format md or json, or none")


def to_markdown(committee: Committee) -> str:
    """A document with the command at its head."""
    lines = [f"# {escape(committee.sweep)}: a committee of {len(committee.members)} ({escape(committee.choice)})", ""]
    lines += [f"- {name}: {code(value)}" for name, value in _provenance_lines(committee)]
    lines += ["", escape(_heading(committee)), ""]
    for table in _tables(committee):
        lines += [*table_lines(table), ""]
    lines += [f"- {escape(note)}" for note in _notes(committee)]
    return "\n".join([*lines, ""])


def to_terminal(committee: Committee) -> str:
    """Plain lines; tables are never wrapped."""
    lines = [text.clean(f"{committee.sweep}: a committee of {len(committee.members)} ({committee.choice})")]
    lines += [f"{name.lower()}: {text.clean(value)}" for name, value in _provenance_lines(committee)]
    lines += [_heading(committee)]
    for table in _tables(committee):
        lines += ["", *((" " * GAP).join(cells).rstrip() for cells in zip(*map(padded, table), strict=True))]
    lines += ["", *map(text.clean, _notes(committee))]
    return "".join(f"{line}\n" for line in lines)


def to_json(committee: Committee) -> str:
    """One object: ``{"sweep", "committee", "split", "images", "mean", "low", "high", "members": [...], ...}``."""
    score = committee.score
    made_with = committee.made_with
    plain: dict[str, Json] = {
        "sweep": committee.sweep,
        "committee": committee.choice,
        "command": committee.command,
        "split": committee.split,
        "images": score.images,
        "correct": score.correct,
        "errors": score.images - score.correct,
        **estimate_json(score.accuracy),
        "members": [_member_json(committee.split, member) for member in committee.members],
        "mean_member": estimate_json(score.mean_member),
        "best_member": committee.members[score.best].trial_id,
        "gain_over_mean_member": _gain_json(score.over_mean),
        "gain_over_best_member": _gain_json(score.over_best),
        "diversity": asdict(score.diversity),
        "notes": [*_notes(committee)],
        "provenance": {
            "command": made_with.command,
            "seeds": list(made_with.seeds),
            **{
                name: [asdict(item) for item in getattr(made_with, name)]
                for name in ("commits", "devices", "platforms", "versions", "datasets")
            },
        },
    }
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _provenance_lines(committee: Committee) -> list[tuple[str, str]]:
    (_, sweep), *others = text.provenance_lines(committee.made_with)
    return [("Command", committee.command), ("Sweep", sweep), *others]


def _heading(committee: Committee) -> str:
    return f"Accuracy on the {committee.split} split, {committee.score.images:,} images."


def _tables(committee: Committee) -> Iterator[list[Column]]:
    yield _accuracy_columns(committee)
    yield _gain_columns(committee)
    yield _member_columns(committee)


def _accuracy_columns(committee: Committee) -> list[Column]:
    score, decimals = committee.score, text.decimals_for(committee.score.images)
    best = score.members[score.best]
    estimates = (score.accuracy, best, score.mean_member)
    return [
        _column("network", ["committee", _best_name(committee), "mean member"], is_number=False),
        _column("n", [str(estimate.n) for estimate in estimates]),
        _column(f"{committee.split} %", [text.percent(estimate.mean, decimals) for estimate in estimates]),
        _column("95 % interval", [f"{text.interval(one, decimals)} {text.method(one)}" for one in estimates]),
        _column("errors", [f"{round((1 - one.mean) * score.images, 1):g}" for one in estimates]),
    ]


def _gain_columns(committee: Committee) -> list[Column]:
    gains, decimals = (committee.score.over_best, committee.score.over_mean), text.decimals_for(committee.score.images)
    return [
        _column("gain over", [_best_name(committee), "mean member"], is_number=False),
        _column("points", [text.points(gain.difference, decimals) for gain in gains]),
        _column("committee alone right", [f"{gain.test.only_cell:,}" for gain in gains]),
        _column("member alone right", [f"{gain.test.only_base:,}" for gain in gains]),
        _column("p", [_p_text(gain.test.p_value) for gain in gains]),
    ]


def _member_columns(committee: Committee) -> list[Column]:
    decimals = text.decimals_for(committee.score.images)

    def scores(estimates: Iterable[Estimate | None]) -> list[str]:
        return [f"{text.score(one, decimals)} {text.method(one)}" if one else text.MISSING for one in estimates]

    members = committee.members
    columns = [
        _column("member", [text.clean(member.label) for member in members], is_number=False),
        _column("seed", [str(member.seed) for member in members]),
        _column("trial", [member.trial_id for member in members], is_number=False),
    ]
    if committee.split != "validation":
        columns.append(_column("validation % [95 %]", scores(member.validation for member in members)))
    return [*columns, _column(f"{committee.split} % [95 %]", scores(member.score for member in members))]


def _column(heading: str, cells: Sequence[str], *, is_number: bool = True) -> Column:
    return Column(heading=heading, cells=tuple(cells), is_number=is_number, importance=9)


def _best_name(committee: Committee) -> str:
    best = committee.members[committee.score.best]
    return text.clean(f"best member ({best.label}, seed {best.seed})")


def _notes(committee: Committee) -> Iterator[str]:
    score = committee.score
    yield from committee.notes
    yield "The committee takes the class with the largest mean of its members' probabilities, kept as float16."
    yield (
        "W: Wilson's 95 % interval of one run, or of one committee, over its images, as if these were independent; how "
        "much other seeds change is not in it. t: mean over n members with the 95 % interval of Student's t."
    )
    methods = f"{score.over_best.difference.method}; for the mean member {score.over_mean.difference.method}"
    yield (
        f"Gains are in percentage points with a 95 % interval ({methods}). The best member is the best on these very "
        f"images, which favours it. p: {_tests(score.over_best, score.over_mean)}; for the mean member, of all members "
        "together."
    )
    if score.over_best.test.tracks == score.images:
        yield f"Tracks of the {committee.split} images are not known: each image counts as independent of the others."
    yield (
        "Diversity, means over all pairs of members (Kuncheva and Whitaker 2003): disagreement "
        f"{100 * score.diversity.disagreement:.2f} % (images that exactly one of the two has right), double fault "
        f"{100 * score.diversity.double_fault:.2f} % (images that both have wrong)."
    )


def _tests(*gains: CommitteeGain) -> str:
    return " and ".join(dict.fromkeys(gain.test.method for gain in gains))


def _p_text(p_value: float) -> str:
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _member_json(split: str, member: Member) -> dict[str, Json]:
    return {
        "trial_id": member.trial_id,
        "cell": member.label,
        "cell_id": member.cell_id,
        "seed": member.seed,
        "split": split,
        **estimate_json(member.score),
        "validation": estimate_json(member.validation),
    }


def _gain_json(gain: CommitteeGain) -> dict[str, Json]:
    return {**estimate_json(gain.difference), "mcnemar": asdict(gain.test)}
