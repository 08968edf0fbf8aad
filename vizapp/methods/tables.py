"""A result's table as text: CSV for spreadsheets, Markdown for notes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # the wide ones too: some spreadsheets take them for the others
_MARKS = str.maketrans({"|": "\\|", "<": "&lt;", "&": "&amp;", "[": "\\[", "`": "\\`", "\n": " "})


def to_csv(rows: Rows) -> str:
    """Comma-separated, the first line the names of the columns; empty where there is nothing.

    What a spreadsheet would take for a formula has an apostrophe before it.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: harmless(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def harmless(value: Any) -> Any:
    """The value of a cell; a text that a spreadsheet would take for a formula with an apostrophe before it.

    Names of files and classes come from strangers. The raw names are in the Parquet and JSON files.
    """
    if isinstance(value, str) and value.lstrip()[:1] in _FORMULA and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def to_markdown(rows: Rows) -> str:
    """A table of Markdown; numbers stand on the right."""
    columns = _columns(rows)
    right = [any(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    lines = [columns, ["---:" if is_number else "---" for is_number in right]]
    lines += [[_text(row.get(column)) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _columns(rows: Rows) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value).translate(_MARKS)
