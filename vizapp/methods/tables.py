"""The table of a result as text: CSV or Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[Mapping[str, Any]]
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # some spreadsheets treat full-width characters like the others
_MARKS = str.maketrans({"|": "\\|", "<": "&lt;", "&": "&amp;", "[": "\\[", "`": "\\`", "\n": " "})


def to_csv(rows: Rows) -> str:
    """The rows as CSV with a header; missing values are empty.

    Text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def frame_to_csv(frame: pd.DataFrame) -> bytes:
    """A frame as CSV without its index, with the same apostrophes."""
    texts = frame.select_dtypes(exclude="number").columns
    return (
        frame.assign(**{name: frame[name].map(_harmless, na_action="ignore") for name in texts})
        .to_csv(index=False)
        .encode()
    )


def _harmless(value: Any) -> Any:
    """The value of a cell; text that a spreadsheet would run as a formula gets an apostrophe in front.

    Names of files and classes are not trusted. The raw names are in the Parquet and JSON files.
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
    """A Markdown table; numbers are right-aligned."""
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
