"""Sections as JSON and CSV, for programs. Accuracies are shares in [0, 1]."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from stnbench.analysis.effects import Estimate
from stnbench.analysis.verdicts import Effect
from stnbench.core.identity import Json
from stnbench.core.text import printable
from stnbench.report.table import Column, Section, Table

DIGITS: Final = 9
"""Decimals of numbers, with which the same store gives the same bytes and p-values keep their magnitude."""

_SHARE_DIGITS: Final = 6
_FORMULA: Final = re.compile("(^|;)(\\s*)(?=[-=+@\uff0d\uff1d\uff0b\uff20])")
"""The places where a spreadsheet begins a formula: the start of a cell, or behind the separator of some locales."""

Scalar = None | bool | int | float | str


def estimate_json(estimate: Estimate | None) -> dict[str, Json]:
    """Return an estimate as JSON values, null where there is none."""
    return {
        "n": estimate.n if estimate else 0,
        "mean": _rounded(estimate.mean) if estimate else None,
        "low": _rounded(estimate.low) if estimate else None,
        "high": _rounded(estimate.high) if estimate else None,
        "method": estimate.method if estimate else None,
        "clipped": estimate.clipped if estimate else None,
    }


def effect_json(effect: Effect | None) -> dict[str, Json]:
    """Return a difference with its simultaneous interval as JSON values, null where there is none."""
    return {
        "n": effect.n if effect else 0,
        "mean": _rounded(effect.mean) if effect else None,
        "low": _rounded(effect.low) if effect else None,
        "high": _rounded(effect.high) if effect else None,
        "p_adjusted": None if effect is None or effect.p_adjusted is None else round(effect.p_adjusted, DIGITS),
        "method": effect.method if effect else None,
    }


def section_json(section: Section) -> dict[str, Json]:
    """Return a section as JSON values: heading, sentences, notes, the records of its tables by key, and its data."""
    return {
        "key": section.key,
        "heading": section.heading,
        "text": list(section.text),
        "notes": list(section.notes),
        **({"facts": [{"name": name, "value": value} for name, value in section.facts]} if section.facts else {}),
        "tables": {table.key: [*records(table)] for table in section.tables},
        **({"data": plain(section.data)} if section.data else {}),
    }


def records(table: Table[Any]) -> Iterator[dict[str, Json]]:
    """Yield every row as JSON values by the keys of columns."""
    for item in table.items:
        record: dict[str, Json] = {}
        for column in table.columns:
            if not column.in_data:
                continue
            value = column.value(item)
            if column.key:
                record[column.key] = plain(value)
            else:
                record.update(estimate_json(value))
        yield record


def plain(value: Any) -> Json:  # noqa: ANN401 (columns have values of any kind)
    """Return a column's value as JSON values.

    Raises:
        TypeError: for a value of another type.
    """
    if isinstance(value, Estimate):
        return estimate_json(value)
    if isinstance(value, Effect):
        return effect_json(value)
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a column's value is {value!r}")


def to_json(value: Json) -> str:
    """Return JSON text, indented and with a line break at the end.

    Raises:
        ValueError: for a float that is not finite.
    """
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def to_csv(tables: Sequence[Table[Any]], prefixes: Sequence[Mapping[str, Scalar]]) -> str:
    """Return tables of one kind as CSV, one below the other, with a line for each row.

    Texts that a spreadsheet would take for a formula begin with an apostrophe, also where they are items of a list.

    Args:
        tables: tables with the same kind of columns.
        prefixes: for each table, the values that its lines begin with, such as the sweep.
    """
    lines = [
        {**own, **_flat(table, item)}
        for table, own in zip(tables, prefixes, strict=True)
        for item in table.items
    ]  # fmt: skip
    names = list(dict.fromkeys(name for line in lines for name in line))
    written = io.StringIO()
    writer = csv.DictWriter(written, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({_safe(name): _safe_value(value) for name, value in line.items()} for line in lines)
    return written.getvalue()


def _flat(table: Table[Any], item: object) -> dict[str, Scalar]:
    """Return a row as scalars: estimates and mappings become several, lists are joined."""
    flat: dict[str, Scalar] = {}
    for column in table.columns:
        if column.in_data:
            flat.update(_fields(column, column.value(item)))
    return flat


def _fields(column: Column[Any], value: Any) -> Iterator[tuple[str, Scalar]]:  # noqa: ANN401
    prefix = (f"{column.key}_" if column.key else "") if column.prefix is None else column.prefix
    if column.is_estimate or not column.key:
        found = effect_json(value) if isinstance(value, Effect) else estimate_json(value)
        yield from ((f"{prefix}{name}", _scalar(own)) for name, own in found.items() if name != "clipped")
    elif isinstance(value, Mapping):  # those of one column have the same names, or None stands in their place
        yield from ((f"{prefix}{name}", _scalar(plain(own))) for name, own in value.items())
    elif column.prefix is None:
        yield column.key, _scalar(plain(value))


def _scalar(value: Json) -> Scalar:
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else value


def _safe_value(value: Scalar) -> Scalar:
    return _safe(value) if isinstance(value, str) else value


def _safe(raw: str) -> str:
    """Return text that no spreadsheet takes for a formula, with an apostrophe before each start of one."""
    text = _FORMULA.sub(r"\1\2'", printable(raw))
    return f"'{text}" if raw[:1] in {"\t", "\r", "\n"} and not text.startswith("'") else text


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _SHARE_DIGITS)
