"""Correlation between the units of two layers over many images, accumulated in one sweep."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Correlation:
    """Running Pearson correlation between two sets of units over batches of images.

    Sums are centred on the means of the first batch, so that large means do not cancel small differences.
    """

    pictures: int = 0
    _about: list[np.ndarray] = field(default_factory=list)
    _sums: list[np.ndarray] = field(default_factory=list)
    _squares: list[np.ndarray] = field(default_factory=list)
    _products: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add the values `[N C1]` and `[N C2]` of N images."""
        parts = [first.astype(np.float64), second.astype(np.float64)]
        if not self.pictures:
            self._about = [part.mean(0) for part in parts]
            self._sums = [np.zeros(part.shape[1]) for part in parts]
            self._squares = [np.zeros(part.shape[1]) for part in parts]
            self._products = np.zeros((parts[0].shape[1], parts[1].shape[1]))
        with np.errstate(invalid="ignore"):  # infinite activations
            parts = [part - about for part, about in zip(parts, self._about, strict=True)]
            for part, total, squares in zip(parts, self._sums, self._squares, strict=True):
                total += part.sum(0)
                squares += (part**2).sum(0)
            self._products += parts[0].T @ parts[1]
        self.pictures += len(first)

    def matrix(self) -> np.ndarray:
        """The correlations `[C1 C2]` so far; NaN for units with the same value on every image, or one that is not finite."""
        count = max(1, self.pictures)
        spread = [
            np.maximum(squares - total**2 / count, 0) for total, squares in zip(self._sums, self._squares, strict=True)
        ]
        still = [s <= 1e-12 * squares for s, squares in zip(spread, self._squares, strict=True)]
        covariance = self._products - np.outer(self._sums[0], self._sums[1]) / count
        with np.errstate(invalid="ignore", divide="ignore"):
            found = covariance / np.sqrt(np.outer(*spread))
        found[still[0]] = np.nan
        found[:, still[1]] = np.nan
        return np.clip(found, -1, 1)


def best_matches(correlations: np.ndarray) -> np.ndarray:
    """The best match in the second layer for each unit of the first: rows (first, second) `[K 2]`, best pair first.

    Units without a correlation are omitted; ties go to the lower index.
    """
    known = np.nan_to_num(correlations, nan=-np.inf)
    second = known.argmax(1)
    value = known[np.arange(len(second)), second]
    order = np.argsort(-value, kind="stable")
    order = order[np.isfinite(value[order])]
    return np.stack([order, second[order]], 1)
