"""A result's table as text: CSV for spreadsheets, Markdown for notes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def to_csv(rows: Rows) -> str:
    """Comma-separated, the first line the names of the columns; empty where there is nothing."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


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
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
