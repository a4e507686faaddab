"""A plan as lines for people and as one JSON object."""

from collections import Counter
from collections.abc import Iterator

from stnbench.core.identity import Json
from stnbench.core.text import counted
from stnbench.orchestration.plan import CellPlan, SweepPlan
from stnbench.orchestration.progress import duration
from stnbench.spec.planner import (
    GridPlannerSpec,
    Nsga2PlannerSpec,
    OptunaPlannerSpec,
    PlannerSpec,
    RacingPlannerSpec,
    RandomPlannerSpec,
    TpePlannerSpec,
    UntilDecidedPlannerSpec,
)


def plan_lines(plan: SweepPlan) -> Iterator[str]:
    """The plan as plain lines, one a configuration."""
    yield f"{plan.sweep.name}: {plan.sweep.question}"
    width = max((len(cell.label) for cell in plan.cells), default=0)
    width = max(width, len("configuration"))
    yield f"{'configuration':{width}}  {'complete':>8}  {'parameters':>11}  {'MFLOPs':>8}"
    for cell in plan.cells:
        yield _cell_line(cell, width)
    yield from (f"{label:{width}}  {'-':>8}  BEYOND THE LIMITS: {reason}" for label, reason in plan.beyond)
    infeasible = sum(bool(cell.infeasible) for cell in plan.cells)
    also = f", {infeasible} infeasible" if infeasible else ""
    also += f", {len(plan.beyond)} beyond the limits" if plan.beyond else ""
    cells, trials = counted(len(plan.cells), "configuration"), counted(plan.trials, "trial")
    yield f"{cells}{also}, {trials}, {plan.complete} complete"
    for difference, count in Counter(plan.differences).items():
        yield f"{counted(count, 'trial')} complete with other images, which do not count and stop a run ({difference})"
    if plan.unchecked:
        yield f"not checked: whether {counted(plan.unchecked, 'complete trial')} read the images found here (no cache)"
    if plan.overlapping_points > 0:
        points = counted(plan.overlapping_points, "point")
        yield f"{points} of the axes: the same trial as another, or as an equal-parameter baseline"
    for note, count in plan.notes:
        yield f"note: {note} ({counted(count, 'point')})"
    yield _expected(plan)


def plan_json(plan: SweepPlan) -> dict[str, Json]:
    """The plan as JSON values.

    ``open_ended`` says that cells, trials and the expected time are those of a search's first proposals, and ``budget``
    how many trials and seeds it may ask for in all; null where there is no limit.
    """
    budget = _budget(plan.sweep.planner)
    infeasible = [*((cell.label, cell.infeasible) for cell in plan.cells if cell.infeasible), *plan.beyond]
    return {
        "sweep": plan.sweep.name,
        "question": plan.sweep.question,
        "planner": plan.sweep.planner.kind,
        "open_ended": budget is not None,
        "budget": budget,
        "cells": len(plan.cells),
        "trials": plan.trials,
        "complete": plan.complete,
        "infeasible": [{"cell": label, "reason": reason} for label, reason in infeasible],
        "overlapping_points": plan.overlapping_points,
        "slots": plan.slots,
        "expected_s": plan.expected_s,
        "cell_list": [
            {
                "cell": cell.label,
                "cell_id": cell.cell_id,
                "twin": cell.is_twin,
                "trials": cell.trials,
                "complete": cell.complete,
                "parameters": cell.cost.parameters if cell.cost else None,
                "flops": cell.cost.flops if cell.cost else None,
            }
            for cell in plan.cells
        ],
        "images": {
            "same": plan.complete - plan.unchecked,
            "other": len(plan.differences),
            "not_checked": plan.unchecked,
        },
        "notes": [{"note": note, "points": points} for note, points in plan.notes],
    }


def _budget(planner: PlannerSpec) -> dict[str, Json] | None:
    """How far answers may lead a planner beyond what it asks first; None for a grid, which asks everything at once."""
    match planner:
        case GridPlannerSpec():
            return None
        case (
            RacingPlannerSpec(max_seeds=seeds, trials=trials) | UntilDecidedPlannerSpec(max_seeds=seeds, trials=trials)
        ):
            return {"trials": trials, "seeds": seeds}
        case RandomPlannerSpec() | TpePlannerSpec() | Nsga2PlannerSpec() | OptunaPlannerSpec() as search:
            return {"trials": search.trials, "seeds": None}
        case _:
            return {"trials": None, "seeds": None}


def _cell_line(cell: CellPlan, width: int) -> str:
    done = f"{cell.complete}/{cell.trials}"
    if cell.cost is None:
        return f"{cell.label:{width}}  {done:>8}  INVALID: {cell.infeasible}"
    return f"{cell.label:{width}}  {done:>8}  {cell.cost.parameters:>11,}  {cell.cost.flops / 1e6:>8.1f}"


def _expected(plan: SweepPlan) -> str:
    if plan.complete == plan.trials:
        return "nothing is left to run"
    if plan.expected_s is None:
        return f"expected time: unknown until a trial is complete in this store ({counted(plan.slots, 'slot')})"
    pace = f"{(plan.flops_per_s or 0) / 1e9:.1f} GFLOP/s, the median of {counted(plan.experience, 'complete trial')}"
    return f"expected time: {duration(plan.expected_s)} on {counted(plan.slots, 'slot')} (at {pace})"
