"""Verification of complete trials: they are trained again and compared with the store, which is only read.

Bitwise equality is required where the same device should reproduce it: on CPUs, and on GPUs as long as no transformer
reads feature maps (their gradient is summed in nondeterministic order there). Elsewhere accuracies may differ by a
tolerance.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from stnbench.core.errors import FolderError, SpecError, StnbenchError
from stnbench.core.files import AttemptLayout, RunsLayout
from stnbench.core.identity import Json, derive_seed
from stnbench.core.text import counted
from stnbench.engines import Ending, Engine, Failed, Finished, Launch, Lost, Slot
from stnbench.spec.codec import to_plain
from stnbench.spec.data import Split
from stnbench.spec.result import Environment, TrialResult, TrialState, other_half
from stnbench.spec.trial import TrialSpec
from stnbench.store.queries import StoreReader
from stnbench.store.tables import TrialRecord
from stnbench.trials.files import load_result, read_probabilities

TOLERANCE_PP: Final = 2.0
"""Default tolerance on accuracies in percentage points where bitwise equality cannot be required."""

NOT_COMPARED: Final = frozenset(
    {
        "token",
        "environment",
        "peak_memory_mib",
        "train_duration_s",
        "evaluate_duration_s",
        "scored",
        "metrics",
        "sha256",
    }
)
"""Keys of a result that depend on the run, not on the trial; ``sha256`` is the digest of the file with all of them."""

FACTS: Final = ("commit", "dirty", "python", "platform", "host", "device", "driver", "threads", "micro_batches")
_SHOWN_MAX: Final = 4
_POLL_S: Final = 0.2

Status = Literal["equal", "close", "different", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """A complete trial as the store knows it: its result, and the folder that may hold its probabilities."""

    record: TrialRecord
    result: TrialResult
    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Outcome of training one trial again.

    Attributes:
        recorded: the trial with its recorded result.
        status: ``equal`` bit for bit, ``close`` within the tolerance, ``different``, or ``failed`` to train.
        differences: descriptions of the differences, also if the status is ``close``.
        compared: description of the compared data.
        now: the environment of the new run; None if there was none.
    """

    recorded: Recorded
    status: Status
    differences: tuple[str, ...]
    compared: str
    now: Environment | None

    @property
    def name(self) -> str:
        """Return the id, label and seed of the trial for display."""
        record = self.recorded.record
        return f"{record.trial_id} ({record.label} #{record.seed})"


def read_recorded(store: StoreReader, sweep: str, layout: RunsLayout) -> tuple[list[Recorded], int]:
    """Read the complete trials of a sweep, and the number of those that this version cannot train again.

    Raises:
        UnknownNameError: if the store has no such sweep.
    """
    outcomes, epochs = store.outcomes(sweep, predictions=True), store.epochs_of_sweep(sweep)
    found, foreign = [], 0
    for record in store.sweep_trials(sweep):
        outcome = outcomes.get(record.trial_id)
        if record.state is not TrialState.COMPLETE or outcome is None:
            continue
        if record.spec.trial_id != record.trial_id:  # of another results version: the same words mean another trial
            foreign += 1
            continue
        own = [item.record for item in epochs.get(record.trial_id, []) if item.attempt == outcome.attempt]
        result = TrialResult(
            trial_id=record.trial_id,
            token="",
            epochs=tuple(own),
            validation=outcome.validation,
            test=outcome.test,
            cost=outcome.cost,
            environment=outcome.environment,
            train_duration_s=outcome.train_duration_s,
            peak_memory_mib=outcome.peak_memory_mib,
        )
        folder = layout.attempt(record.trial_id, outcome.attempt)
        found.append(Recorded(record=record, result=result, folder=folder))
    return found, foreign


def choose(recorded: Sequence[Recorded], count: int, *, seed: int) -> list[Recorded]:
    """Return ``count`` trials drawn by a seed, from as many configurations as possible, in the order of the sweep."""
    order = sorted(recorded, key=lambda item: item.record.trial_id)
    random.Random(derive_seed(seed, "verify")).shuffle(order)
    seen: dict[str, int] = {}
    turns: list[tuple[int, int]] = []
    for place, item in enumerate(order):
        turn = seen[item.record.config_id] = seen.get(item.record.config_id, -1) + 1
        turns.append((turn, place))
    chosen = [order[place] for _, place in sorted(turns)[:count]]
    return sorted(chosen, key=lambda item: item.record.position)


def train_again(
    chosen: Sequence[Recorded],
    *,
    open_engine: Callable[[Sequence[Slot]], Engine],
    gpus: Sequence[str],
    cores: int,
    scratch: Path,
    data_root: Path,
    source: Path | None,
) -> Iterator[tuple[Recorded, TrialResult | str]]:
    """Train trials again in a scratch folder and yield each with its result, or the reason why there is none.

    Each runs with the same number of threads and of parts per batch as before, because both affect rounding.
    """
    groups: dict[tuple[bool, int], list[Recorded]] = {}
    for item in chosen:
        environment = item.result.environment
        groups.setdefault((bool(environment.driver and gpus), environment.threads), []).append(item)
    for (on_gpu, threads), items in groups.items():
        devices = list(gpus) if on_gpu else ["cpu"] * max(1, min(len(items), cores // threads))
        slots = [Slot(name=f"verify{i}", device=device, threads=threads) for i, device in enumerate(devices)]
        engine = open_engine(slots)
        try:
            yield from _train(items, engine, scratch, data_root, source)
        finally:
            engine.close()


def _train(
    items: Sequence[Recorded], engine: Engine, scratch: Path, data_root: Path, source: Path | None
) -> Iterator[tuple[Recorded, TrialResult | str]]:
    waiting, free = list(reversed(items)), list(engine.slots)
    running: dict[str, tuple[Recorded, Slot, Path]] = {}
    while waiting or running:
        while waiting and free:
            item, slot = waiting.pop(), free.pop()
            folder = scratch_folder(scratch, item.record.trial_id)
            folder.mkdir()
            token = f"verify-{item.record.trial_id}"
            launch = Launch(
                spec=item.record.spec,
                token=token,
                folder=str(folder),
                data_root=str(data_root),
                source=str(source or ""),
                micro_batches=item.result.environment.micro_batches,
            )
            running[token] = (item, slot, folder)
            engine.submit(slot, launch)
        for event in engine.poll(_POLL_S):
            if isinstance(event, Ending):
                item, slot, folder = running.pop(event.token)
                free.append(slot)
                yield item, _result_of(event, folder)


def scratch_folder(scratch: Path, trial_id: str) -> Path:
    """Return the folder in which a trial is trained again."""
    return scratch / trial_id


def _result_of(event: Ending, folder: Path) -> TrialResult | str:
    match event:
        case Finished():
            try:
                return load_result(AttemptLayout(folder).result)
            except StnbenchError as error:
                return str(error)
        case Failed(failure=failure):
            return f"{failure.kind}: {failure.message}"
        case Lost(reason=reason):
            return reason
        case _:
            return "it was stopped"


def check(recorded: Recorded, again: TrialResult | str, folder: Path, *, tolerance_pp: float | None = None) -> Check:
    """Compare a trial with the result of training it again.

    Args:
        recorded: the trial as the store records it.
        again: the new result, or the reason why there is none.
        folder: the folder of its new probabilities.
        tolerance_pp: tolerance on accuracies in percentage points; with None it is zero where the bits should repeat,
            and ``TOLERANCE_PP`` elsewhere.
    """
    if isinstance(again, str):
        return Check(recorded=recorded, status="failed", differences=(again,), compared="nothing", now=None)
    before = recorded.result
    found = [str(difference) for difference in differences(to_plain(before), to_plain(again))]
    half = other_half(before.environment.digests, again.environment.digests)
    if half is not None:
        read, reads = before.environment.digests[half], again.environment.digests[half]
        found.insert(0, f"its {half} images were others (digest {read}, now {reads})")
    kept, unequal = _compare_probabilities(recorded, again, folder)
    found += unequal
    parts = [counted(len(before.epochs), "epoch")]
    parts += [f"{score.images:,} {score.split} images" for score in (before.validation, before.test) if score]
    parts += ["probabilities" if kept else "no probabilities (they were not kept)"]
    if tolerance_pp is None:
        tolerance_pp = 0.0 if repeats(recorded.record.spec, before.environment, again.environment) else TOLERANCE_PP
    status: Status = "equal" if not found else "different"
    if found and tolerance_pp > 0 and half is None and accuracy_gap_pp(before, again) <= tolerance_pp + 1e-9:
        status = "close"
        found.insert(0, f"accuracies within {tolerance_pp:g} pp")
    return Check(
        recorded=recorded, status=status, differences=tuple(found), compared=", ".join(parts), now=again.environment
    )


def repeats(spec: TrialSpec, before: Environment, now: Environment) -> bool:
    """Check whether bitwise equality can be required: the same device, and no nondeterministic sums on it."""
    on_features = any(placed.place > 1 for placed in spec.transformers)
    return before.device == now.device and not (before.driver and on_features)


def accuracy_gap_pp(before: TrialResult, after: TrialResult) -> float:
    """Return the largest difference in percentage points of two accuracies of one split.

    It is infinite if only one result has a test score.
    """
    if (before.test is None) != (after.test is None):
        return math.inf
    pairs = [(before.validation, after.validation), (before.test, after.test)]
    return max(100 * abs(one.accuracy - other.accuracy) for one, other in pairs if one and other)


def _compare_probabilities(recorded: Recorded, again: TrialResult, folder: Path) -> tuple[bool, list[str]]:
    """Return whether there were probabilities to compare, and descriptions of the differences."""
    found: list[str] = []
    compared = False
    for score in filter(None, (recorded.result.validation, recorded.result.test)):
        split: Split = score.split
        if not AttemptLayout(recorded.folder).probabilities(split).exists() or getattr(again, split) is None:
            continue
        try:
            before = read_probabilities(recorded.folder, split, images=score.images)
            now = read_probabilities(folder, split, images=score.images)
        except FolderError as error:
            found.append(error.problem)
            continue
        compared = True
        if before.shape != now.shape or before.tobytes() != now.tobytes():
            gap = float(np.max(np.abs(before.astype(np.float64) - now))) if before.shape == now.shape else math.nan
            found.append(f"{split} probabilities differ by up to {gap:.2g}")
    return compared, found


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A value that differs, or the number ``count`` of differing values in a list of ``of`` plain values."""

    where: str
    before: Json
    after: Json
    count: int = 1
    of: int = 1

    def __str__(self) -> str:
        if self.of > 1:
            return f"{self.where}: {self.count:,} of {self.of:,} are others"
        text = f"{self.where} {_shown(self.after)} was {_shown(self.before)}"
        if isinstance(self.before, float) and isinstance(self.after, float):
            text += f" ({self.after - self.before:+.2g})"
        return text


def differences(before: Json, after: Json, where: str = "") -> Iterator[Difference]:
    """Yield the differences between two results, compared as JSON values, bit for bit.

    Keys that depend on the run are ignored. So are keys that only one side has: newer versions add keys, and a value
    that was not recorded is not a change.

    Args:
        before: the first result, or a part of it.
        after: the same of the second result.
        where: dotted path of the part; empty for the whole result.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if key in after and key not in NOT_COMPARED:
                yield from differences(before[key], after[key], f"{where}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _list_differences(before, after, where)
    elif type(before) is not type(after) or before != after:
        yield Difference(where=where, before=before, after=after)


def _list_differences(before: list[Json], after: list[Json], where: str) -> Iterator[Difference]:
    if len(before) != len(after):
        yield Difference(where=f"number of {where}", before=len(before), after=len(after))
        return
    if any(isinstance(item, dict | list) for item in before):
        for place, (one, other) in enumerate(zip(before, after, strict=True), start=1):
            yield from differences(one, other, f"{where}[{place}]")
        return
    count = sum(one != other for one, other in zip(before, after, strict=True))
    if count:
        yield Difference(where=where, before=before, after=after, count=count, of=max(2, len(before)))


def _shown(value: Json) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def require_some(recorded: Sequence[Recorded], foreign: int, sweep: str) -> None:
    """Raise SpecError if no complete trial can be trained again."""
    if not recorded:
        other = f" ({counted(foreign, 'complete trial')} of another results version)" if foreign else ""
        raise SpecError(f"{sweep} has no complete trial to verify{other}", remedy="run the sweep first")


def report_lines(sweep: str, checks: Sequence[Check], *, of: int, seed: int, foreign: int) -> Iterator[str]:
    """Yield the report as plain lines: every trial, and both environments if something differs."""
    wrong = [item for item in checks if item.status in ("different", "failed")]
    verdict = f"{counted(len(wrong), 'trial')} NOT REPRODUCED" if wrong else "all reproduced"
    yield f"{sweep}: {len(checks)} of {counted(of, 'complete trial')}, chosen by seed {seed}, trained again: {verdict}"
    for item in checks:
        yield f"  {item.status.upper() if item in wrong else item.status:9}  {item.name}: compared {item.compared}"
        shown = item.differences[:_SHOWN_MAX]
        yield from (f"             {difference}" for difference in shown)
        if len(item.differences) > len(shown):
            yield f"             and {len(item.differences) - len(shown)} more differences"
    yield from _environment_lines(checks)
    if foreign:
        yield f"{counted(foreign, 'complete trial')} of another results version cannot be trained again by this one"


def _environment_lines(checks: Sequence[Check]) -> Iterator[str]:
    """Yield both environments of trials that differ, each pair once, and the differences between the two."""
    pairs = {(item.recorded.result.environment, item.now): item for item in checks if item.status != "equal"}
    for before, now in pairs:
        yield f"then: {show_environment(before)}"
        if now is not None:
            yield f"now:  {show_environment(now)}"
            changed = changed_facts(before, now)
            yield f"      different between the two: {', '.join(changed) or 'nothing that is recorded'}"


def show_environment(environment: Environment) -> str:
    """Return an environment as one line."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions)
    commit = f"commit {environment.commit[:12]}{' with changes' if environment.dirty else ''}"
    place = f"{environment.device} on {environment.host}, {counted(environment.threads, 'thread')}"
    extra = [environment.numerics, environment.compute, environment.driver and f"driver {environment.driver}"]
    return "; ".join(
        [commit, f"Python {environment.python}", versions, place, environment.platform, *filter(None, extra)]
    )


def changed_facts(before: Environment, now: Environment) -> tuple[str, ...]:
    """Return the differences between two environments, each as ``name before -> now``."""
    facts: list[tuple[str, Any, Any]] = [
        (name, getattr(before, name), getattr(now, name)) for name in (*FACTS, "compute", "numerics")
    ]
    old, new = dict(before.versions), dict(now.versions)
    facts += [(name, old.get(name, "none"), new.get(name, "none")) for name in sorted(old | new)]
    return tuple(f"{name} {one} -> {other}" for name, one, other in facts if one != other)


def report_json(sweep: str, checks: Sequence[Check], *, of: int, seed: int, foreign: int) -> dict[str, Json]:
    """Return the report as JSON values."""
    return {
        "sweep": sweep,
        "seed": seed,
        "complete": of,
        "not_of_this_version": foreign,
        "reproduced": all(item.status in ("equal", "close") for item in checks),
        "trials": [
            {
                "trial": item.recorded.record.trial_id,
                "configuration": item.recorded.record.label,
                "seed": item.recorded.record.seed,
                "status": item.status,
                "differences": list(item.differences),
                "then": to_plain(item.recorded.result.environment),
                "now": None if item.now is None else to_plain(item.now),
            }
            for item in checks
        ],
    }
