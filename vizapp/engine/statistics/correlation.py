"""Correlation between the units of two layers over many images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 2**23  # correlations that are computed at a time: 64 MB
_CONSTANT = 1e-6  # of a unit's root mean square: smaller deviations are rounding errors of float32


class Correlation:
    """Pearson correlation between two sets of units over the images added so far."""

    def __init__(self) -> None:
        self._values: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def pictures(self) -> int:
        return sum(len(first) for first, _ in self._values)

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add the values `[N C1]` and `[N C2]` of N images."""
        self._values.append((first.astype(np.float64), second.astype(np.float64)))

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The correlations `[K C2]` of some units of the first layer after the other, with their slice of all C1.

        NaN for units with the same value on every image, or one that is not finite.
        """
        first, second = (_standardized(np.concatenate(values)) for values in zip(*self._values, strict=True))
        size = max(1, _BLOCK // second.shape[1])
        for start in range(0, first.shape[1], size):
            rows = slice(start, min(start + size, first.shape[1]))
            with np.errstate(invalid="ignore"):
                yield rows, np.clip(first[:, rows].T @ second, -1, 1)


def _standardized(values: np.ndarray) -> np.ndarray:
    """The columns with mean 0 and length 1; NaN where that is not defined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = values - values.mean(0)
        length = np.sqrt((centred**2).sum(0))
        length[length <= _CONSTANT * np.sqrt((values**2).sum(0))] = np.nan
        return np.asarray(centred / length)


class BestMatches:
    """The best match in the second layer for each unit of the first, collected from blocks of correlations."""

    def __init__(self) -> None:
        self._seconds: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Add the correlations `[K C2]` of the next units of the first layer."""
        known = np.nan_to_num(block, nan=-np.inf)
        self._seconds.append(known.argmax(1))
        self._values.append(known.max(1))

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (first, second) `[K 2]` and their correlations `[K]`, the best pair first.

        Units without a correlation are omitted; ties go to the lower index.
        """
        seconds, values = np.concatenate(self._seconds), np.concatenate(self._values)
        order = np.argsort(-values, kind="stable")
        order = order[np.isfinite(values[order])]
        return np.stack([order, seconds[order]], 1), values[order]
