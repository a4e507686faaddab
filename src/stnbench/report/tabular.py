"""Leaderboards for programs: CSV and JSON. Accuracies are shares in [0, 1]."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from stnbench.core.identity import Json
from stnbench.report.board import Leaderboard, Row
from stnbench.report.findings import PairFinding
from stnbench.report.findings_json import findings_json, pair_fields
from stnbench.report.rounded import Scalar, estimate_fields, estimate_json, rounded
from stnbench.report.text import clean


def to_csv(boards: Sequence[Leaderboard]) -> str:
    """One line a cell. Texts that a spreadsheet would take for a formula begin with an apostrophe."""
    lines = [line for board in boards for line in _csv_lines(board)]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _csv_safe(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def to_json(boards: Sequence[Leaderboard]) -> str:
    """One object: the sweep's, or ``{"sweeps": [...]}`` around none or several."""
    plain: Json = leaderboard_json(boards[0]) if len(boards) == 1 else {"sweeps": [*map(leaderboard_json, boards)]}
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def leaderboard_json(board: Leaderboard) -> dict[str, Json]:
    """A leaderboard as JSON values; what a cell does not have is null."""
    known = board.provenance
    provenance: dict[str, Json] = {
        name: [asdict(item) for item in getattr(known, name)]
        for name in ("commits", "devices", "platforms", "versions", "datasets")
    }
    return {
        "sweep": board.sweep,
        "question": board.question,
        "split": board.split,
        "images": board.images,
        "within": board.within or None,
        "trials": board.states.trials,
        "states": asdict(board.states),
        "rows": [_row_json(board, row) for row in board.rows],
        "failures": [
            {
                "kind": group.kind,
                "message": group.message,
                "count": len(group.trial_ids),
                "trial_ids": list(group.trial_ids),
            }
            for group in board.failures
        ],
        "notes": list(board.notes),
        "findings": findings_json(board.findings) if board.findings else None,
        "provenance": {"command": known.command, "seeds": list(known.seeds), **provenance},
    }


def _row_json(board: Leaderboard, row: Row) -> dict[str, Json]:
    return {
        "group": row.group or None,
        "rank": row.rank or None,
        "rank_first": row.rank_first,
        "rank_last": row.rank_last,
        "cell": row.label,
        "cell_id": row.cell_id,
        "axes": dict(row.axes),
        "twin": row.is_twin,
        **estimate_json(row.score),
        "n": row.score.n if row.score else 0,
        "split": board.split,
        "seeds": list(row.seeds),
        "standing": row.standing.value if row.standing else None,
        "behind": estimate_json(row.behind) if row.behind else None,
        "seeds_needed": row.seeds_needed,
        "st_gain": estimate_json(row.st_gain) if row.st_gain else None,
        "test": estimate_json(row.test) if row.test else None,
        "parameters": row.parameters,
        "flops": row.flops,
        "activation_bytes": row.activation_bytes,
        "epoch_duration_s": rounded(row.epoch_duration_s),
        "peak_memory_mib": rounded(row.peak_memory_mib),
        "states": asdict(row.states),
        "health": asdict(row.health),
        "notes": list(row.notes),
    }


def _csv_lines(board: Leaderboard) -> list[dict[str, Scalar]]:
    pairs = {pair.cell_id: pair for pair in (board.findings.pairs if board.findings else ())}
    return [_csv_fields(board, row, pairs.get(row.cell_id)) for row in board.rows]


def _csv_fields(board: Leaderboard, row: Row, pair: PairFinding | None) -> dict[str, Scalar]:
    return {
        "sweep": board.sweep,
        "rank_first": row.rank_first,
        "rank_last": row.rank_last,
        "cell": row.label,
        "cell_id": row.cell_id,
        "twin": row.is_twin,
        "split": board.split,
        **estimate_fields("", row.score),
        "standing": row.standing.value if row.standing else None,
        "seeds_needed": row.seeds_needed,
        **estimate_fields("behind_", row.behind),
        **pair_fields(pair),
        **estimate_fields("st_gain_", row.st_gain),
        **estimate_fields("test_", row.test),
        "parameters": row.parameters,
        "flops": row.flops,
        "epoch_duration_s": rounded(row.epoch_duration_s),
        "peak_memory_mib": rounded(row.peak_memory_mib),
        **{f"trials_{state}": count for state, count in asdict(row.states).items()},
        "health": row.health.text,
        **{f"health_{verdict}": count for verdict, count in asdict(row.health).items()},
        **{f"axis:{name}": label for name, label in row.axes},
        "notes": "; ".join(row.notes),
    }


def _csv_safe(value: Scalar) -> Scalar:
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
