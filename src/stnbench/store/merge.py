"""Plan for merging two stores, which does not depend on their order.

Trials are matched by their identity. If both stores contain a trial, all attempts of one side are kept, whichever store
is merged into the other: a complete trial is preferred to one that is not, then the one that ended first. Two results
of one trial are a check of reproducibility.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from stnbench.core.errors import StoreError
from stnbench.core.identity import Json
from stnbench.spec.metrics import of_the_trial
from stnbench.spec.result import AttemptState, FailureKind, TrialState
from stnbench.store.portable import KEYS, Row, Rows

STATES: Final = (TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED, TrialState.RUNNING, TrialState.PLANNED)
"""States of trials in order of preference, the preferred first."""

OF_TRIAL: Final = ("attempts", "epochs", "outcomes", "scores", "predictions", "scored_images")
"""Tables whose rows belong to a trial, parents before children."""

SHARED: Final = ("environments", "image_sets")
QUESTION: Final = ("base", "axes", "more_axes", "exclude", "within", "baselines")
"""Parts of a sweep that must agree between two stores for its name to mean the same."""

NOT_COMPARED: Final = (
    "train_duration_s",
    "evaluate_duration_s",
    "trial_id",
    "number",
    "environment",
    "peak_memory_mib",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """A trial with results in both stores: the differences (empty for none), and both environments as JSON."""

    trial_id: str
    differs: tuple[str, ...]
    ours: str
    theirs: str


@dataclass(kw_only=True, slots=True)
class MergePlan:
    """Changes of our store: rows to insert, trials whose rows are replaced, and new links of sweeps.

    ``taken`` are the trials whose attempts come from the other store, ``replaced`` those of them that our store also
    contains.
    """

    insert: Rows = field(default_factory=lambda: {table: {} for table in KEYS})
    update_sweeps: dict[str, Row] = field(default_factory=dict)
    update_trials: dict[str, Row] = field(default_factory=dict)
    links: dict[str, list[Row]] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    reproduced: list[Reproduction] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing changes."""
        return not (any(self.insert.values()) or self.update_sweeps or self.update_trials or self.links)


def of_sweeps(rows: Rows, names: Iterable[str]) -> Rows:
    """Return the rows of the named sweeps and of their trials."""
    wanted = set(names)
    links = {key: row for key, row in rows["sweep_trials"].items() if key[0] in wanted}
    trial_ids = {key[1] for key in links}
    chosen: Rows = {table: {} for table in KEYS}
    chosen["sweeps"] = {key: row for key, row in rows["sweeps"].items() if key[0] in wanted}
    chosen["trials"] = {key: row for key, row in rows["trials"].items() if key[0] in trial_ids}
    chosen["sweep_trials"] = links
    for table in OF_TRIAL:
        chosen[table] = {key: row for key, row in rows[table].items() if key[0] in trial_ids}
    chosen["controls"] = {key: row for key, row in rows["controls"].items() if row["sweep"] in wanted}
    used = {row["environment"] for row in chosen["outcomes"].values()}
    chosen["environments"] = {key: row for key, row in rows["environments"].items() if key[0] in used}
    sets = {row["digest"] for row in chosen["scored_images"].values()}
    chosen["image_sets"] = {key: row for key, row in rows["image_sets"].items() if key[0] in sets}
    return chosen


def without_running(rows: Rows, at: str) -> Rows:
    """Return the rows of a store with running attempts as lost at the time ``at``, since they cannot run elsewhere."""
    message = "it ran when its store was copied"
    given_up: Row = {"state": AttemptState.LOST.value, "finished_at": at, "failure_kind": FailureKind.KILLED.value}
    given_up |= {"failure_message": message, "failure_traceback": "", "failure_last_output": ""}
    running = AttemptState.RUNNING.value
    attempts = {
        key: row | (given_up | {"finished_at": row["started_at"]} if row["state"] == running else {})
        for key, row in rows["attempts"].items()
    }
    planned: Row = {"state": TrialState.PLANNED.value}
    trials = {key: row | (planned if row["state"] == running else {}) for key, row in rows["trials"].items()}
    return rows | {"attempts": attempts, "trials": trials}


def plan_merge(ours: Rows, theirs: Rows) -> MergePlan:
    """Return the changes that give our store the rows of both.

    Raises:
        StoreError: if the name of a sweep or the identity of a trial means different things in both stores.
    """
    plan = MergePlan()
    _merge_trials(plan, ours, theirs)
    _merge_sweeps(plan, ours, theirs)
    _require_new_names(plan, ours)
    needed = {
        "environments": {row["environment"] for row in plan.insert["outcomes"].values()},
        "image_sets": {row["digest"] for row in plan.insert["scored_images"].values()},
    }
    for table in SHARED:
        new = {key: row for key, row in theirs[table].items() if key[0] in needed[table] and key not in ours[table]}
        plan.insert[table] = new
    return plan


def _merge_trials(plan: MergePlan, ours: Rows, theirs: Rows) -> None:
    own, other = _by_trial(ours), _by_trial(theirs)
    for (trial_id,), row in theirs["trials"].items():
        name = str(trial_id)
        mine, its = own.get(name, {}), other.get(name, {})
        known = ours["trials"].get((trial_id,))
        if known is None:
            plan.insert["trials"][trial_id,] = row
            _take(plan, name, its)
            continue
        if (known["spec"], known["cell_id"], known["seed"]) != (row["spec"], row["cell_id"], row["seed"]):
            raise StoreError(f"the trial {name} is another one in each store", remedy="one of them is damaged")
        if _tokens(mine) != _tokens(its) and mine.get("outcomes") and its.get("outcomes"):
            plan.reproduced.append(_compare(name, ours, theirs, mine, its))
        better = _standing(row, its) < _standing(known, mine)
        change: Row = {"state": row["state"]} if better else {}
        if _moment(row["created_at"]) < _moment(known["created_at"]):
            change["created_at"] = row["created_at"]
        if change:
            plan.update_trials[name] = change
        if better:
            plan.replaced.append(name)
            _take(plan, name, its)


def _require_new_names(plan: MergePlan, ours: Rows) -> None:
    """Raise StoreError if an attempt or a request to insert has the name of one of ours, of another trial or sweep."""
    replaced = set(plan.replaced)
    known = {row["token"]: row["trial_id"] for row in ours["attempts"].values() if row["trial_id"] not in replaced}
    for row in plan.insert["attempts"].values():
        if row["token"] in known:
            problem = (
                f"the attempt {row['token']} is of the trial {row['trial_id']} there, of {known[row['token']]} here"
            )
            raise StoreError(problem, remedy="one of the stores is damaged")
    for key, row in plan.insert["controls"].items():
        if key in ours["controls"]:
            raise StoreError(f"the request {row['id']} is of two sweeps", remedy="one of the stores is damaged")


def _take(plan: MergePlan, trial_id: str, its: dict[str, list[tuple[tuple[Json, ...], Row]]]) -> None:
    plan.taken.append(trial_id)
    for table, found in its.items():
        plan.insert[table].update(found)


def _by_trial(rows: Rows) -> dict[str, dict[str, list[tuple[tuple[Json, ...], Row]]]]:
    found: dict[str, dict[str, list[tuple[tuple[Json, ...], Row]]]] = {}
    for table in OF_TRIAL:
        for key, row in rows[table].items():
            found.setdefault(str(key[0]), {}).setdefault(table, []).append((key, row))
    return found


def _tokens(own: dict[str, list[tuple[tuple[Json, ...], Row]]]) -> tuple[str, ...]:
    return tuple(sorted(str(row["token"]) for _, row in own.get("attempts", ())))


def _standing(trial: Row, own: dict[str, list[tuple[tuple[Json, ...], Row]]]) -> tuple[Any, ...]:
    """Return the sort key that decides between two sides; the lower one is kept."""
    ended = [
        _moment(row["finished_at"]) for _, row in own.get("attempts", ()) if row["state"] == AttemptState.COMPLETE.value
    ]
    attempts, epochs = len(own.get("attempts", ())), len(own.get("epochs", ()))
    return STATES.index(TrialState(str(trial["state"]))), ended, -attempts, -epochs, _tokens(own)


def _moment(value: Json) -> str:
    return str(value)  # ISO 8601 in UTC sorts as text


def _compare(
    trial_id: str,
    ours: Rows,
    theirs: Rows,
    mine: dict[str, list[tuple[tuple[Json, ...], Row]]],
    its: dict[str, list[tuple[tuple[Json, ...], Row]]],
) -> Reproduction:
    differs = list(_differences(mine, its))
    environments = [
        str(rows["environments"][own["outcomes"][0][1]["environment"],]["environment"])
        for rows, own in ((ours, mine), (theirs, its))
    ]
    return Reproduction(
        trial_id=trial_id, differs=tuple(dict.fromkeys(differs)), ours=environments[0], theirs=environments[1]
    )


def _differences(
    mine: dict[str, list[tuple[tuple[Json, ...], Row]]], its: dict[str, list[tuple[tuple[Json, ...], Row]]]
) -> Iterator[str]:
    for table in ("scores", "predictions", "epochs"):
        one, other = _comparable(table, mine), _comparable(table, its)
        for key in sorted(one.keys() | other.keys(), key=str):
            first, second = one.get(key), other.get(key)
            if first is None or second is None:
                yield f"{table} {key}: on one side only"
                continue
            for name, value in first.items():
                if second[name] != value:
                    shown = "" if len(str(value)) > 40 else f" {value} and {second[name]}"
                    yield f"{table} {key}: {name}{shown}"


def _comparable(table: str, own: dict[str, list[tuple[tuple[Json, ...], Row]]]) -> dict[str, Row]:
    """Return the rows of the complete attempt by the last part of their key, without columns that always differ."""
    number = own["outcomes"][0][1]["number"]
    return {
        str(key[-1]): {name: _of_the_trial(name, value) for name, value in row.items() if name not in NOT_COMPARED}
        for key, row in own.get(table, ())
        if table != "epochs" or row["number"] == number
    }


def _of_the_trial(column: str, value: Json) -> Json:
    """Return a value without the parts that differ between equal runs: among metrics, the energy."""
    return {**of_the_trial(json.loads(str(value)))} if column == "metrics" else value


def _merge_sweeps(plan: MergePlan, ours: Rows, theirs: Rows) -> None:
    own, other = _links(ours), _links(theirs)
    for (name,), row in theirs["sweeps"].items():
        sweep = str(name)
        known = ours["sweeps"].get((name,))
        its = other.get(sweep, {})
        if known is None:
            plan.insert["sweeps"][name,] = row
            plan.insert["sweep_trials"].update({(name, trial): link for trial, link in its.items()})
            asked = {key: asked for key, asked in theirs["controls"].items() if asked["sweep"] == name}
            plan.insert["controls"].update(asked)
            continue
        _require_same_question(sweep, known, row)
        newest = max((known, row), key=lambda one: (str(one["updated_at"]), str(one["spec"])))
        merged: Row = {"spec": newest["spec"], "updated_at": newest["updated_at"]}
        merged["created_at"] = min(str(known["created_at"]), str(row["created_at"]))
        if any(known[column] != value for column, value in merged.items()):
            plan.update_sweeps[sweep] = merged
        mine = own.get(sweep, {})
        links = _unite(mine, its, theirs_lead=newest is row)
        if links != mine:
            plan.links[sweep] = list(links.values())


def _links(rows: Rows) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for (sweep, trial_id), row in rows["sweep_trials"].items():
        found.setdefault(str(sweep), {})[str(trial_id)] = row
    return found


def _require_same_question(sweep: str, ours: Row, theirs: Row) -> None:
    one, other = json.loads(str(ours["spec"])), json.loads(str(theirs["spec"]))
    differing = [part for part in QUESTION if _part(one, part) != _part(other, part)]
    if differing:
        problem = f"the sweep {sweep} has other {' and '.join(differing)} in each store"
        raise StoreError(problem, remedy="they are two questions: give one another name")


def _part(spec: Row, part: str) -> object:
    """Return a part of a stored sweep; ``twins`` is the former key of ``baselines``."""
    return spec.get(part, spec.get("twins")) if part == "baselines" else spec.get(part)


def _unite(ours: dict[str, Row], theirs: dict[str, Row], *, theirs_lead: bool) -> dict[str, Row]:
    """Return the links of all trials of a sweep in both stores, in an order that does not depend on the sides."""
    lead, follow = (theirs, ours) if theirs_lead else (ours, theirs)
    united = {trial: dict(row) for trial, row in (follow | lead).items()}
    for trial, row in united.items():
        both = [side[trial] for side in (ours, theirs) if trial in side]
        row["wanted"] = any(one["wanted"] for one in both)
        row["pruned"] = any(one.get("pruned", False) for one in both)
        row["position"] = min(int(str(one["position"])) for one in both)
    for side in (ours, theirs):
        if united.keys() == side.keys() and all(united[trial]["wanted"] == side[trial]["wanted"] for trial in side):
            for trial, row in united.items():
                row["position"] = side[trial]["position"]
            if not (ours.keys() == theirs.keys() and side is ours and theirs_lead):
                return united
    ordered = sorted(united.items(), key=lambda item: (not item[1]["wanted"], item[1]["position"], item[0]))
    for position, (_, row) in enumerate(ordered):
        row["position"] = position
    return united
