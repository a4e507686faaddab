"""The leaderboard of a sweep from its frames, as pure functions: rows, notes and provenance."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import pandas as pd

from stnbench.analysis.effects import LEVEL, WILSON_METHOD, Estimate
from stnbench.analysis.frames import AXIS_PREFIX
from stnbench.analysis.verdicts import SEEDS_METHOD, Decision
from stnbench.analysis.verdicts import Verdict as Decided
from stnbench.report.board import Counted, FailureGroup, HealthCounts, Leaderboard, Provenance, Row, StateCounts
from stnbench.report.claims import build_agreement
from stnbench.report.decided import decide, estimate_of_effect
from stnbench.report.runs import sweep_command
from stnbench.report.scored import (
    ScoredConfiguration,
    axis_columns,
    estimate_of,
    first_known,
    mean_of,
    metric_estimates,
    read_configurations,
)
from stnbench.spec.data import Split
from stnbench.spec.result import (
    FAR_MOVEMENT,
    HELP_Z,
    LARGEST_AREA,
    LOST_OUTSIDE,
    LOST_SHARE,
    NEGLIGIBLE_MOVEMENT,
    SMALLEST_AREA,
    Verdict,
)
from stnbench.spec.sweep import SweepSpec

# The provenance of a sweep's numbers, and the command that reproduces them.


def provenance(sweep: SweepSpec, trials: pd.DataFrame, split: Split) -> Provenance:
    """Return the provenance of the complete trials of a frame (``analysis.frames.TRIAL_COLUMNS``)."""
    done = trials[trials["state"] == "complete"]
    dirty = done["dirty"].fillna(value=False).map({True: " with local changes", False: ""})
    images = done[f"{split}_images"].dropna()
    return Provenance(
        command=sweep_command(sweep),
        seeds=tuple(sorted(int(seed) for seed in trials["seed"].unique())),
        commits=counted(done["commit"] + dirty),
        devices=counted(done["device"]),
        platforms=counted(done["platform"] + ", Python " + done["python"]),
        versions=counted(done["versions"]),
        datasets=counted(done["dataset_digest"]),
        images=counted(images),
    )


def counted(values: "pd.Series[Any]") -> tuple[Counted, ...]:
    """Count distinct values, the most frequent first, equally frequent ones in order."""
    found = [Counted(value=str(value), trials=int(count)) for value, count in values.value_counts().items()]
    return tuple(sorted(found, key=lambda item: (-item.trials, item.value)))


def differences(known: Provenance, tasks: int = 1) -> Iterator[str]:
    """Yield a note for each property that should be the same for all trials and is not.

    Args:
        known: the provenance of the trials.
        tasks: the number of groups of configurations that are compared separately, each with its data and its images.
    """
    worries = (
        ("commits", known.commits, "the code may have changed between them"),
        ("devices", known.devices, "times do not compare, and scores may differ in the last images"),
        ("sets of libraries", known.versions, "scores may differ between them"),
        ("data digests", known.datasets, "the trials did not see the same data, and their scores do not compare"),
        ("numbers of images", known.images, "the trials were not scored on the same images"),
    )
    of_tasks = (known.datasets, known.images)
    for what, values, worry in worries:
        if len(values) > (tasks if any(values is own for own in of_tasks) else 1):
            yield f"{len(values)} different {what} among the trials: {worry}."


# Notes on the numbers: a few words on a configuration, sentences on a leaderboard.


_MEANINGS: Final[Mapping[Verdict, str]] = {
    Verdict.DIVERGED: "losses, weights or sampling points are no finite numbers.",
    Verdict.COLLAPSED: (
        f"most sampling points lie outside the image; or for more than {LOST_SHARE:.0%} of the images "
        f"{LOST_OUTSIDE:.0%} do, or less than {SMALLEST_AREA:g} or more than {LARGEST_AREA:g} times the area is read; "
        f"or the network is at chance with sampling points more than {FAR_MOVEMENT:g} half sides from their places."
    ),
    Verdict.CONSTANT: (
        f"all images are moved in the same way: their sampling points differ by less than {NEGLIGIBLE_MOVEMENT:g} half "
        "sides of an image."
    ),
    Verdict.UNHELPFUL: (
        "images are moved differently, without a visible benefit: with the parameters replaced by their mean or "
        f"by the identity the network reads as many right, to within {HELP_Z:g} standard errors, or signs stand no "
        "stiller in the output than in the images."
    ),
    Verdict.IDENTITY: f"images are moved by less than {NEGLIGIBLE_MOVEMENT:g} half sides: the transformer is not used.",
}


def row_notes(states: StateCounts, score: Estimate | None, gain: Estimate | None) -> Iterator[str]:
    """Yield notes on missing runs of a configuration and on limits of its numbers."""
    if states.unfinished:
        yield states.unfinished
    if score is None and states.complete:
        yield "no score on this split"
    if score is not None and score.spread == 0:
        yield "all seeds scored the same"
    if gain is not None and gain.spread == 0:
        yield "all seeds gained the same"
    if score is not None and gain is not None and gain.n < score.n:
        yield f"gain from {_seeds(gain.n)}"


def board_notes(
    states: StateCounts, rows: Iterable[Row], split: Split, *, look_seeds: Sequence[int] = ()
) -> Iterator[str]:
    """Yield notes on missing runs of a leaderboard, the methods of its intervals, and the meaning of its words.

    Args:
        states: of all trials.
        rows: of the leaderboard.
        split: of the leaderboard.
        look_seeds: the numbers of seeds at which looks were planned; empty for a sweep with a single look.
    """
    rows = list(rows)
    health = {verdict for row in rows for verdict in row.health.verdicts}
    rows = [row for row in rows if row.score]
    yield _progress(states)
    if rows:
        yield from _method_notes([row.score for row in rows if row.score])
        yield from _look_notes(states, rows, look_seeds)
        yield from _standing_notes(rows, confidence=_confidence(look_seeds))
    yield from _health_notes(health)
    if any(row.st_gain for row in rows):
        yield (
            "ST gain: percentage points over the same network without its transformers, with intervals that hold for "
            "all configurations at once (Dunnett's)."
        )
    if split == "test" and len(rows) > 1:
        yield "Ranked on the test split: the score of the best of many is too high by selection."


def _progress(states: StateCounts) -> str:
    if not states.trials:
        return "The sweep has no trials yet."
    if not states.unfinished:
        return f"All {states.trials} trials are complete."
    return f"{states.complete} of {states.trials} trials are complete ({states.unfinished})."


def _method_notes(scores: Sequence[Estimate]) -> Iterator[str]:
    if any(score.method == SEEDS_METHOD for score in scores):
        yield (
            "m: mean over seeds with a 95 % interval over all seeds there might be: what a seed does to all "
            "configurations is in it, so that it is wide where few seeds differ by much. Differences have none of it."
        )
    if any(score.method == WILSON_METHOD for score in scores):
        yield "W: Wilson's 95 % interval of one run over its images; how much another seed changes is not in it."
    clipped = sum(score.clipped for score in scores)
    if clipped:
        were = "interval was" if clipped == 1 else "intervals were"
        yield f"{clipped} {were} clipped to what is possible, 0 to 100 %."


def _confidence(look_seeds: Sequence[int]) -> str:
    """Return the level of simultaneous intervals as text: ``95 %``, or more where several looks share the 5 %."""
    return f"{100 * (1 - LEVEL / max(len(look_seeds), 1)):.4g} %"


def _look_notes(states: StateCounts, rows: Sequence[Row], look_seeds: Sequence[int]) -> Iterator[str]:
    if not look_seeds:
        return
    most = max(row.states.trials for row in rows)
    is_open = states.planned + states.running > 0
    taken = sum(seeds < most if is_open else seeds <= most for seeds in look_seeds)
    yield (
        f"Seeds are added until all is decided: {len(look_seeds)} looks were planned (at "
        f"{', '.join(map(str, look_seeds))} seeds) and {taken} taken. Each is made at 5 % over {len(look_seeds)} "
        f"(Bonferroni), so that all together err in 5 % at most: differences have {_confidence(look_seeds)} intervals."
    )


def _standing_notes(rows: Sequence[Row], *, confidence: str) -> Iterator[str]:
    found = {row.standing for row in rows}
    groups = {row.group for row in rows}
    if len(rows) > len(groups):
        best = "the best" if len(groups) == 1 else "the best of its group"
        yield (
            f"Against {best}: differences on these images with simultaneous {confidence} intervals over all pairs, "
            "for the best was picked; variances are moderated across configurations, means adjusted for the seeds of "
            "each."
        )
    if Decided.LOWER in found:
        yield "lower: the interval of the difference lies below 0."
    if Decided.EQUIVALENT in found:
        yield "equivalent: the interval of the difference lies within the margin."
    if Decided.UNDECIDED in found:
        yield (
            "undecided: neither; the number of seeds is what would decide it with a chance of 80 %, were difference "
            "and spread as estimated."
        )
    yield "rank: the ranks that the decided pairs leave open."


def _health_notes(found: AbstractSet[Verdict]) -> Iterator[str]:
    if found:
        yield (
            "health: what the transformers do to the validation images after a trial's last epoch; of several, the "
            "worst one."
        )
        yield from (f"{verdict}: {meaning}" for verdict, meaning in _MEANINGS.items() if verdict in found)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


# The leaderboard itself.


NO_MESSAGE = "(no message)"


def build_leaderboard(sweep: SweepSpec, trials: pd.DataFrame, *, split: Split = "validation") -> Leaderboard:
    """Build the leaderboard of a sweep's trials (``frames.TRIAL_COLUMNS``), ranked by mean accuracy on one split.

    Where the sweep compares within an axis, each of the axis's labels is ranked separately, in the axis's order. The
    same frame gives the same leaderboard: equal means are ordered by label and identity.
    """
    decided = decide(sweep, read_configurations(trials, split))
    ranked = tuple(
        _row(group, config, decided.decisions.get(config.config_id)) for group, own in decided.groups for config in own
    )
    known = provenance(sweep, trials, split)
    states = _count_states(trials["state"])
    return Leaderboard(
        sweep=sweep.name,
        question=sweep.question,
        split=split,
        axes=tuple(name.removeprefix(AXIS_PREFIX) for name in axis_columns(trials)),
        within=sweep.within,
        columns=sweep.columns,
        rows=ranked,
        states=states,
        failures=tuple(_failures(trials)),
        provenance=known,
        notes=(
            *board_notes(states, ranked, split, look_seeds=sweep.look_seeds),
            *differences(known, tasks=len({row.group for row in ranked}) or 1),
        ),
        answer=decided.answer,
        tasks=decided.tasks,
        comparisons=decided.comparisons,
        agreement=build_agreement(sweep.published, trials, split=split) if sweep.published else None,
    )


def _row(group: str, config: ScoredConfiguration, decision: Decision | None) -> Row:
    runs, score = config.runs, config.score
    gain = estimate_of_effect(decision.gain if decision else None)
    states = _count_states(run.state for run in runs)
    return Row(
        group=group,
        rank_first=decision.rank_low if decision else None,
        rank_last=decision.rank_high if decision else None,
        standing=decision.verdict if decision else None,
        label=config.label,
        config_id=config.config_id,
        axes=config.axes,
        is_baseline=config.is_baseline,
        seeds=tuple(config.scores),
        states=states,
        score=score,
        test=estimate_of((run.test_correct, run.test_images) for run in runs),
        behind=estimate_of_effect(decision.delta if decision else None),
        st_gain=gain,
        parameters=first_known(run.parameters for run in runs),
        flops=first_known(run.flops for run in runs),
        activation_bytes=first_known(run.activation_bytes for run in runs),
        epoch_duration_s=mean_of(run.epoch_duration_s for run in runs),
        peak_memory_mib=mean_of(run.peak_memory_mib for run in runs),
        notes=tuple(row_notes(states, score, gain)),
        health=HealthCounts(**Counter(run.health for run in runs if run.health)),
        seeds_needed=decision.seeds_needed if decision else None,
        decision=decision,
        metrics=metric_estimates(runs),
    )


def _count_states(states: Iterable[str]) -> StateCounts:
    return StateCounts(**Counter(states))


def _failures(trials: pd.DataFrame) -> Iterator[FailureGroup]:
    """Yield the failed trials by kind and first line of their message, the largest group first."""
    groups: dict[tuple[str, str], list[str]] = {}
    failed = trials[trials["state"] == "failed"]
    columns = (failed["failure_kind"], failed["failure_message"], failed["trial_id"])
    for kind, message, trial_id in zip(*columns, strict=True):
        lines = str(message or "").strip().splitlines()
        groups.setdefault((str(kind or "unknown"), lines[0] if lines else NO_MESSAGE), []).append(str(trial_id))
    for (kind, message), trial_ids in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        yield FailureGroup(kind=kind, message=message, trial_ids=tuple(sorted(trial_ids)))
