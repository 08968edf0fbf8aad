"""Means over photos with their intervals, and comparisons photo by photo."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The means of `[photos …]` over the photos, and the ends of their 95 % intervals; photos with NaN are left out.

    Student's t with one degree of freedom less than there are photos. The ends are NaN with fewer than two.
    """
    known = np.isfinite(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    squares = np.where(known, values - mean, 0) ** 2
    some = count > 1
    variance = np.divide(squares.sum(0), count - 1, out=np.full(count.shape, np.nan), where=some)
    half = stdtrit(np.maximum(count - 1, 1), 0.975) * np.sqrt(variance / np.maximum(count, 1))
    return mean, mean - half, mean + half


def wins(values: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """On how many photos the values `[photos …]` are higher than the others, of how many where both are known."""
    both = np.isfinite(values) & np.isfinite(other)
    return ((values > other) & both).sum(0), both.sum(0)


class RunningMean:
    """The mean of arrays that come one by one, without NaN; NaN where all are."""

    def __init__(self) -> None:
        self._sum, self._count = np.zeros(()), np.zeros((), np.int64)

    def add(self, values: np.ndarray) -> None:
        """Take one more array."""
        known = np.isfinite(values)
        self._sum = self._sum + np.where(known, values, 0)
        self._count = self._count + known

    def mean(self) -> np.ndarray:
        """The mean of those taken so far, float32."""
        empty = np.full(self._sum.shape, np.nan, np.float32)
        return np.divide(self._sum, self._count, out=empty, where=self._count > 0, casting="same_kind")
