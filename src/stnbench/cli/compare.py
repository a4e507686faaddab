"""``stnbench compare``: a leaderboard of results in a CSV file."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stnbench.cli.parser import CommandParser, add_json
from stnbench.core.command import DONE
from stnbench.core.errors import SpecError
from stnbench.core.text import printable

if TYPE_CHECKING:
    import pandas as pd


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code.

    Raises:
        SpecError: for a file that cannot be read or compared.
    """
    options = make_parser().parse_args(arguments)
    import pandas as pd  # the import takes 0.3 s, too long for --help

    from stnbench.analysis.comparison import compare

    try:
        frame = pd.read_csv(options.results, dtype={"configuration": str, "task": str, "seed": str, "track": str})
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{options.results} cannot be read: {str(error).splitlines()[0] if str(error) else 'not a CSV file'}",
            remedy="give a CSV file with the columns configuration, seed, correct, images",
        ) from error
    table = compare(frame, baseline=options.baseline, margin=options.margin)
    print(json.dumps(_json(table)) if options.json else "\n".join(_lines(table)))
    return DONE


def _json(table: "pd.DataFrame") -> dict[str, Any]:
    return {"rows": _rows(table), "notes": table.attrs["notes"]}


def _rows(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(name): _plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a frame holds
    import pandas as pd

    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, int | float | str) else int(value)


def _lines(table: "pd.DataFrame") -> list[str]:
    """Format the comparison as a table in percent and percentage points."""
    rows = _rows(table)
    has_gain, has_task = "gain_mean" in table.columns, "task" in table.columns
    heads = [*(["task"] if has_task else []), "rank", "configuration", "n", "mean % [95 %]", "verdict"]
    heads += ["to the best (pp) [simultaneous 95 %]", "adjusted p"]
    heads += ["gain (pp) [simultaneous 95 %]", "adjusted p"] if has_gain else []
    cells = [heads]
    for row in rows:
        verdict = row["verdict"] + (f", {row['seeds_needed']} seeds needed" if row["seeds_needed"] else "")
        cells.append(
            [
                *([printable(row["task"])] if has_task else []),
                _rank(row),
                printable(row["configuration"]),
                str(row["n"]),
                _interval(row["mean"], row["low"], row["high"], signed=False),
                verdict,
                _interval(row["delta_mean"], row["delta_low"], row["delta_high"], signed=True),
                _p(row["delta_p_adjusted"]),
                *(_gain(row) if has_gain else []),
            ]
        )
    widths = [max(len(line[place]) for line in cells) for place in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [*lines, "", *(printable(note) for note in table.attrs["notes"])]


def _gain(row: dict[str, Any]) -> list[str]:
    return [_interval(row["gain_mean"], row["gain_low"], row["gain_high"], signed=True), _p(row["gain_p_adjusted"])]


def _rank(row: dict[str, Any]) -> str:
    low, high = row["rank_low"], row["rank_high"]
    if low is None:
        return "-"
    return str(low) if low == high else f"{low}-{high}"


def _interval(mean: float | None, low: float | None, high: float | None, *, signed: bool) -> str:
    if mean is None:
        return "-"
    form = "+.2f" if signed else ".2f"
    ends = "" if low is None or high is None else f" [{100 * low:{form}}, {100 * high:{form}}]"
    return f"{100 * mean:{form}}{ends}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench compare",
        description="Compares configurations by their runs: simultaneous intervals, ranks and verdicts.",
        epilog="The file has one row a run: configuration, seed, correct, images; optionally task and track. "
        "A run without a number of correct images has failed.",
    )
    parser.add_argument("results", type=Path, help="a CSV file")
    parser.add_argument("--baseline", metavar="NAME", help="the configuration that gains are over")
    parser.add_argument(
        "--margin", type=float, default=0.005, help="of equivalence, a share of images (default: %(default)s)"
    )
    add_json(parser)
    return parser
