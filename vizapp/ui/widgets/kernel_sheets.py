"""Data of the sheet component for the kernels of a layer."""

from __future__ import annotations

from typing import Any

from vizapp.methods.base import Result
from vizapp.methods.filters import kernel_tiles
from vizapp.ui.widgets import maps

BANDS = ("Low", "Mid", "High")


def sheet_data(result: Result, scale: str) -> dict[str, Any]:
    """Data of the sheet component for all kernels, on one scale for the "layer" or one per "filter"."""
    drawn = kernel_tiles(result.arrays["kernels"], scale)
    details = [_detail(row) for row in result.table]
    return maps.numbered_tiles(drawn, range(len(drawn)), "Filter", details, side=40, most=96)


def _detail(row: dict[str, Any]) -> str:
    words = [f"norm {row['norm']:.3g}"]
    if row["orientation"] is not None:
        words.append(f"{row['frequency']:.2f} cycles at {row['orientation']:.0f}°")
    elif row["frequency"] is not None:
        words.append("a blob")
    words += [word for word in ("dead", "duplicate", "opposite") if row[word]]
    return ", ".join(words)
