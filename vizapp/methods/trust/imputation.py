"""Linear imputation of missing pixels (Rong et al. 2022): each is the weighted mean of its eight neighbours."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

_DIRECT, _DIAGONAL = 1 / 6, 1 / 12  # weights of neighbours
_SMALL = 400  # unknowns that are solved directly
_DAMPING = 0.8  # of Jacobi's iteration
_MOST = 100  # iterations; 6 to 15 are usual


def impute(pixels: np.ndarray, missing: np.ndarray, accuracy: float = 1e-5) -> np.ndarray:
    """The pixels float64 `[H W C]` with those at `missing`, bool `[H W]`, replaced by the solution of the linear system.

    At the border the weights of the neighbours that there are, are scaled to add up to 1. The system is a Laplacian. It is
    solved by conjugate gradients with a multigrid cycle as preconditioner, four times as fast as a direct solution where
    most of 224 × 224 pixels are missing.

    Args:
        pixels: The picture.
        missing: What is unknown; not everything.
        accuracy: The largest change in the last iteration.
    """
    unknown = missing.reshape(-1)
    if not unknown.any():
        return pixels.copy()
    values = pixels.reshape(len(unknown), -1).copy()
    rows = _laplacian(*missing.shape)[unknown]
    system = rows[:, unknown]
    known = -(rows[:, ~unknown] @ values[~unknown])
    values[unknown] = _conjugate_gradients(system, known, _multigrid(system, missing), accuracy)
    return values.reshape(pixels.shape)


@lru_cache(maxsize=4)
def _laplacian(height: int, width: int) -> sparse.csr_array:
    """The sum of a pixel's weights on the diagonal, less the weights of its neighbours: `[H·W H·W]`."""
    (down, same_row), (right, same_column) = (
        (sparse.eye_array(side, k=1) + sparse.eye_array(side, k=-1), sparse.eye_array(side)) for side in (height, width)
    )
    weights = _DIRECT * (sparse.kron(down, same_column) + sparse.kron(same_row, right))
    weights = weights + _DIAGONAL * sparse.kron(down, right)
    return sparse.csr_array(sparse.diags_array(weights.sum(1)) - weights)


@lru_cache(maxsize=32)
def _interpolation(height: int, width: int) -> sparse.csr_array:
    """Bilinear interpolation from every second row and column, the first included."""
    sides = []
    for side in (height, width):
        fine, last = np.arange(side), (side - 1) // 2
        places = (np.tile(fine, 2), np.concatenate([fine // 2, np.minimum((fine + 1) // 2, last)]))
        sides.append(sparse.csr_array((np.full(2 * side, 0.5), places), shape=(side, last + 1)))
    return sparse.csr_array(sparse.kron(*sides))


def _multigrid(system: sparse.csr_array, where: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """One V-cycle for the system of the unknowns at `where`, bool `[H W]`: nearly its inverse, and symmetric.

    Each level has the unknowns of every second row and column, with Galerkin's coarse system. It is never singular, as each
    coarse unknown is also a fine one.
    """
    kept = where[::2, ::2]
    if system.shape[0] <= _SMALL or not kept.any():
        return splu(system.tocsc()).solve
    up = _interpolation(*where.shape)[where.reshape(-1)][:, kept.reshape(-1)]
    down = up.T.tocsr()
    coarse = _multigrid((down @ system @ up).tocsr(), kept)
    smooth = (_DAMPING / system.diagonal())[:, None]

    def cycle(right: np.ndarray) -> np.ndarray:
        found = smooth * right
        found += up @ coarse(down @ (right - system @ found))
        found += smooth * (right - system @ found)
        return found

    return cycle


def _conjugate_gradients(
    system: sparse.csr_array, right: np.ndarray, precondition: Callable[[np.ndarray], np.ndarray], accuracy: float
) -> np.ndarray:
    """The solutions `[n C]` of a symmetric positive definite system for the columns of `right`."""
    found, left = np.zeros_like(right), right.copy()
    near = precondition(left)
    direction, size = near, (left * near).sum(0)
    for _ in range(_MOST):
        if not size.any():  # a picture of zeros
            break
        image = system @ direction
        curvature = (direction * image).sum(0)
        step = np.divide(size, curvature, out=np.zeros_like(size), where=curvature > 0) * direction
        found += step
        if np.abs(step).max() < accuracy:
            break
        left -= np.divide(size, curvature, out=np.zeros_like(size), where=curvature > 0) * image
        near = precondition(left)
        earlier, size = size, (left * near).sum(0)
        direction = near + np.divide(size, earlier, out=np.zeros_like(size), where=earlier > 0) * direction
    return found
