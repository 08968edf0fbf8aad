"""Data of the sheet component for the kernels of a layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vizapp.methods.base import Result
from vizapp.methods.filters import tile
from vizapp.ui.widgets import maps

BANDS = ("Low", "Mid", "High")


def sheet_data(result: Result, scale: str) -> dict[str, Any]:
    """Data of the sheet component for all kernels, on one scale for the "layer" or one per "filter"."""
    kernels = result.arrays["kernels"]
    shared = float(np.abs(kernels).max(initial=0)) if scale == "layer" else None
    drawn = [tile(kernel, shared) for kernel in kernels]
    return maps.sprite_data(drawn, math.ceil(math.sqrt(len(drawn)))) | {
        "side": 40,
        "most": 96,
        "items": list(range(len(kernels))),
        "titles": [f"Filter {number}" for number in range(len(kernels))],
        "details": [_detail(row) for row in result.table],
        "label": f"{len(kernels)} filters",
    }


def _detail(row: dict[str, Any]) -> str:
    words = [f"norm {row['norm']:.3g}"]
    if row["orientation"] is not None:
        words.append(f"{row['frequency']:.2f} cycles at {row['orientation']:.0f}°")
    elif row["frequency"] is not None:
        words.append("a blob")
    words += [word for word in ("dead", "duplicate", "opposite") if row[word]]
    return ", ".join(words)
