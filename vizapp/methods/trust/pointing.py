"""The pointing game (Zhang et al. 2018): whether the strongest pixel of a map lies on the object."""

from __future__ import annotations

import math

import numpy as np

TOLERANCE = 15  # pixels
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are outside


def points_at(ranks: np.ndarray, box: Box, tolerance: float = TOLERANCE) -> float:
    """1 if the first pixel in the order `[H W]` is at most `tolerance` pixels from the box, else 0."""
    row, column = divmod(int(ranks.argmin()), ranks.shape[1])
    top, left, bottom, right = box
    down, across = max(top - row, row - (bottom - 1), 0), max(left - column, column - (right - 1), 0)
    return float(math.hypot(down, across) <= tolerance)
