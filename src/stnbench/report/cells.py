"""Cells as trackers show them."""

from stnbench.analysis.inference import Estimate
from stnbench.report.board import Leaderboard, Row
from stnbench.spec.result import Cost
from stnbench.tracking.base import CellView


def cell_views(board: Leaderboard) -> list[CellView]:
    """The cells of a leaderboard that have a score, the best first."""
    scored = [(row, row.score) for row in board.rows if row.score]
    return [_view(board.sweep, row, score, place) for place, (row, score) in enumerate(scored)]


def _view(sweep: str, row: Row, score: Estimate, place: int) -> CellView:
    cost = None
    if row.parameters is not None and row.flops is not None and row.activation_bytes is not None:
        cost = Cost(parameters=row.parameters, flops=row.flops, activation_bytes=row.activation_bytes)
    return CellView(
        sweep=sweep,
        cell_id=row.cell_id,
        label=row.label,
        axes=row.axes,
        is_twin=row.is_twin,
        seeds=score.n,
        mean=score.mean,
        low=score.low,
        high=score.high,
        method=score.method,
        cost=cost,
        rank=row.rank_first,
        rank_text=row.rank,
        standing=row.standing.value if row.standing else "",
        st_gain=row.st_gain,
        health=row.health.text,
        place=place,
    )
