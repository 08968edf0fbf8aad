"""The rows of a table of features that are nearest to a vector: exact, one part of the table at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

Metric = Literal["euclidean", "cosine"]
_BLOCK = 2**18  # numbers that are compared at once, few enough to stay in the processor's cache
_MOST_THREADS = 8  # memory is read no faster by more
_SMALLEST = 2.0**-100  # squared norms below this lose digits in float32


@dataclass(frozen=True)
class Nearest:
    """The nearest vectors, nearest first, equal ones in the order of row and cell.

    `rows` int64 `[k]`; `cells` int64 `[k]`, 0 where a row is one vector; `distances` float64 `[k]`. `compared`: how many
    vectors were compared. `not_finite`: how many others were left out because they hold a number that is not finite.
    """

    rows: np.ndarray
    cells: np.ndarray
    distances: np.ndarray
    compared: int
    not_finite: int


def nearest(
    parts: Iterable[np.ndarray],
    wanted: np.ndarray,
    k: int,
    metric: Metric = "euclidean",
    tick: Callable[[int], None] | None = None,
) -> Nearest:
    """The k vectors nearest to `wanted`; all of them if there are fewer.

    All vectors are compared in float32, with a bound on the rounding errors. Those that may be among the nearest by that bound
    are compared again in float64, from their differences, so that the answer is that of a search in float64 and equal vectors
    are at distance 0. The cosine distance is 1 minus the cosine; a vector of zeros is at distance 1 from all others.

    Args:
        parts: Consecutive rows of the table, float32: `[n F]`, a vector per row, or `[n F cells]`, a vector per cell.
        wanted: The vector `[F]`, finite.
        k: How many.
        metric: The distance.
        tick: Called with the number of rows after each block; it may raise to cancel.
    """
    measure = _Measure(wanted, metric)
    best, start, compared, not_finite = _NOTHING, 0, 0, 0
    for part in parts:
        vectors = part[:, :, None] if part.ndim == 2 else part  # [n F cells]
        low, high = np.empty((2, len(vectors), vectors.shape[2]))
        step = max(1, _BLOCK // (vectors.shape[1] * vectors.shape[2]))
        blocks = [slice(first, first + step) for first in range(0, len(vectors), step)]
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
            bounds = threads.map(measure.bounds, [vectors[block] for block in blocks])
            for block, found in zip(blocks, bounds, strict=True):
                low[block], high[block] = found
                if tick is not None:
                    tick(start + min(block.stop, len(vectors)))
        finite = np.isfinite(high)
        for row, cell in zip(*np.nonzero(~finite), strict=True):  # the numbers are not finite, or their squares
            finite[row, cell] = np.isfinite(vectors[row, :, cell]).all()
            low[row, cell], high[row, cell] = 0.0, np.inf
        compared += int(finite.sum())
        not_finite += int((~finite).sum())
        rows, cells = np.nonzero(finite & (low <= _limit(high[finite], best[2], k)))
        for first in range(0, len(rows), step):
            row, cell = rows[first : first + step], cells[first : first + step]
            exact = measure.exact(vectors[row, :, cell])
            best = _first([np.concatenate(pair) for pair in zip(best, (row + start, cell, exact), strict=True)], k)
        start += len(vectors)
    return Nearest(best[0], best[1], best[2], compared, not_finite)


_NOTHING = [np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)]  # rows, cells and distances


def _first(found: list[np.ndarray], k: int) -> list[np.ndarray]:
    """The k first of rows, cells and distances, by distance, row and cell."""
    order = np.lexsort((found[1], found[0], found[2]))[:k]
    return [one[order] for one in found]


def _limit(most: np.ndarray, known: np.ndarray, k: int) -> float:
    """How far the k-th nearest is at most, by upper bounds of a part's vectors and the best distances so far."""
    of_part = np.partition(most, k - 1)[k - 1] if len(most) >= k else np.inf
    return float(min(of_part, known[-1] if len(known) == k else np.inf))


class _Measure:
    """Distances from one vector: bounds of them, quickly, and exact ones."""

    def __init__(self, wanted: np.ndarray, metric: Metric) -> None:
        self._wanted, self._cosine = wanted.astype(np.float64), metric == "cosine"
        if self._cosine:
            self._wanted = _unit(self._wanted[None])[0]
        # A sum of n products has a relative error of at most about n times that of one operation in any order.
        self._relative = float((len(wanted) + 8) * np.finfo(np.float32).eps)
        # What squares that are too small for float32 add up to.
        self._small = len(wanted) * float(np.finfo(np.float32).tiny)

    def bounds(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest distance that float32 `[n F cells]` may have, `[n cells]` each; not finite if unknown."""
        one = self._wanted.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self._cosine:
                squares = _squares(vectors)
                squares[(squares < _SMALLEST) | np.isinf(squares)] = np.nan
                distance = 1 - _products(vectors, one).astype(np.float64) / np.sqrt(squares.astype(np.float64))
                error = np.full(distance.shape, 3 * self._relative)
            else:
                distance = np.sqrt(_squares(vectors - one[:, None]).astype(np.float64))
                error = distance * self._relative + np.sqrt(self._small)
            return distance - error, distance + error

    def exact(self, vectors: np.ndarray) -> np.ndarray:
        """Distances of `[n F]` in float64."""
        own = vectors.astype(np.float64, order="C")  # equal vectors are summed in the same order
        if not self._cosine:
            return np.asarray(np.sqrt(np.square(own - self._wanted).sum(1)))
        apart = 0.5 * np.square(_unit(own) - self._wanted).sum(1)  # 1 - cos, without its cancellation
        return np.where(own.any(1) & self._wanted.any(), apart, 1.0)


def _squares(vectors: np.ndarray) -> np.ndarray:
    """Sums of squares of `[n F cells]` over F: `[n cells]`."""
    if vectors.shape[2] == 1:
        return np.einsum("nf,nf->n", vectors[:, :, 0], vectors[:, :, 0])[:, None]
    return np.einsum("nfc,nfc->nc", vectors, vectors)


def _products(vectors: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Products of `[n F cells]` with `[F]`: `[n cells]`."""
    return np.asarray(vectors[:, :, 0] @ one)[:, None] if vectors.shape[2] == 1 else np.asarray(one @ vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[n F]` divided by their norms; zeros stay zeros. Scaled first, so that no square overflows."""
    largest = np.abs(vectors).max(1, keepdims=True, initial=0)
    scaled = np.divide(vectors, largest, out=np.zeros_like(vectors), where=largest > 0)
    norm = np.sqrt(np.square(scaled).sum(1, keepdims=True))
    return np.divide(scaled, norm, out=np.zeros_like(vectors), where=norm > 0)
