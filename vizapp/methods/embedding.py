"""Points in the plane for feature vectors: principal components, t-SNE and UMAP, and how far neighbours stay neighbours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from vizapp.errors import VizError
from vizapp.gallery.search_features import nearest

Kind = Literal["pca", "tsne", "umap"]
NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
PERPLEXITY, UMAP_NEIGHBOURS, KEPT = 30, 15, 50  # of t-SNE, of UMAP, and the principal components that both start from
NEIGHBOURS, MOST_TRUSTED = 12, 3000  # of trustworthiness, and photos that it is measured on: all pairs are compared
BESIDE = 5  # nearest photos at whose mean a further photo is placed
_LANCZOS = 20  # rows of a matrix per wanted eigenvector, from which Lanczos is much faster than all eigenvectors
_BLOCK = 4096  # rows converted to float64 at once
# In a process of its own, because scikit-learn cannot be interrupted.
_FIT = {
    "tsne": "from sklearn.manifold import TSNE as Map; size = 'perplexity'",
    "umap": "from umap import UMAP as Map; size = 'n_neighbors'",
}
_RUN = (
    "import sys, numpy; features, out, number, seed = sys.argv[1:]; {fit}\n"
    "many = type(Map().get_params()[size])(float(number))\n"
    "made = Map(n_components=2, random_state=int(seed), init={init!r}, **{{size: many}})\n"
    "numpy.save(out, made.fit_transform(numpy.load(features)))"
)


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal axes, float64: `mean` `[F]`, `axes` `[k F]` of length 1, and `explained` `[k]`, shares of the variance."""

    mean: np.ndarray
    axes: np.ndarray
    explained: np.ndarray

    def project(self, features: np.ndarray) -> np.ndarray:
        """The components `[n k]` of features `[n F]`, float64."""
        blocks = range(0, len(features), _BLOCK)
        parts = [(features[start : start + _BLOCK].astype(np.float64) - self.mean) @ self.axes.T for start in blocks]
        return np.concatenate([np.empty((0, len(self.axes))), *parts])


def principal_axes(features: np.ndarray, k: int, tick: Callable[[float], None]) -> Axes:
    """The k axes of largest variance of `[n F]`, exact: the eigenvectors of the covariance in float64, or of the products of
    the photos where these are fewer. The largest loading of each axis is positive; axes beyond the rank are zero.
    """
    count, size = features.shape
    blocks = [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
    mean = sum((features[block].sum(0, dtype=np.float64) for block in blocks), np.zeros(size)) / count
    by_photo = count < size
    whole = np.zeros((count, count) if by_photo else (size, size))
    for number, block in enumerate(blocks):
        centred = features[block].astype(np.float64) - mean
        if by_photo:
            for other in blocks:
                whole[block, other] = centred @ (features[other].astype(np.float64) - mean).T
        else:
            whole += centred.T @ centred
        tick((number + 1) / len(blocks))
    total, some = max(float(np.trace(whole)), np.finfo(float).tiny), min(k, count, size)
    values, vectors = _largest(whole, some)
    if by_photo:
        vectors = sum((features[block].astype(np.float64) - mean).T @ vectors[block] for block in blocks)
    norms = np.linalg.norm(vectors, axis=0)
    real = values > total * max(count, size) * np.finfo(float).eps
    axes = np.zeros((k, size))
    axes[:some] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=(norms > 0) & real).T
    largest = axes[np.arange(k), np.abs(axes).argmax(1)]
    axes[largest < 0] *= -1
    explained = np.zeros(k)
    explained[:some] = np.where(real, values / total, 0.0)
    return Axes(mean, axes, explained)


def _largest(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues of a symmetric matrix `[n n]`, in descending order, and their vectors `[n k]`."""
    if len(matrix) >= _LANCZOS * k and matrix.any():
        from scipy.sparse.linalg import ArpackNoConvergence, eigsh  # takes a third of a second to import

        start = np.random.default_rng(0).normal(size=len(matrix))
        with suppress(ArpackNoConvergence):
            values, vectors = eigsh(matrix, k, which="LA", v0=start)  # to the precision of float64
            order = np.argsort(-values)
            return values[order], vectors[:, order]
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1][:k], vectors[:, ::-1][:, :k]


def nonlinear(kind: Kind, features: np.ndarray, seed: int, tick: Callable[[float], None]) -> np.ndarray:
    """The points `[n 2]` of features `[n F]` by t-SNE (scikit-learn) or UMAP, from their first 50 principal components.

    Args:
        kind: "tsne" or "umap".
        features: At least five, all finite.
        seed: Of the random numbers.
        tick: Called several times a second with the progress, which is a guess; it may raise to cancel.

    Raises:
        VizError: there are too few photos, UMAP is not installed, or it failed.
    """
    count = len(features)
    if count < 5:
        raise VizError(f"{NAMES[kind]} needs at least 5 photos, and there are {count}; use PCA.", code="too-few-photos")
    if kind == "umap" and find_spec("umap") is None:
        raise VizError("UMAP is not installed: pip install umap-learn, or use t-SNE.", code="not-installed")
    kept = min(KEPT, count, features.shape[1])
    start = principal_axes(features, kept, lambda share: None).project(features).astype(np.float32)
    number = min(PERPLEXITY, (count - 1) / 3) if kind == "tsne" else min(UMAP_NEIGHBOURS, count - 1)
    code = _RUN.format(fit=_FIT[kind], init="pca" if kind == "tsne" and kept > 1 else "random")
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "features.npy", Path(folder) / "points.npy"
        np.save(given, start)
        command = [sys.executable, "-c", code, str(given), str(made), str(number), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
            try:
                _wait(running, count, tick)
            finally:
                running.kill()
            told = running.stderr.read() if running.stderr else ""
        if not made.exists():
            reason = (told.strip().splitlines() or ["no message"])[-1]
            raise VizError(f"{NAMES[kind]} failed: {reason}", code="embedding-failed")
        return np.load(made).astype(np.float64)


def _wait(running: subprocess.Popen[str], count: int, tick: Callable[[float], None]) -> None:
    """Wait for the process, with a progress that approaches 1 at about the usual speed."""
    began, usual = time.monotonic(), 3 + count / 150
    while running.poll() is None:
        spent = time.monotonic() - began
        tick(spent / (spent + usual))
        try:
            running.wait(0.2)
        except subprocess.TimeoutExpired:
            continue


def trustworthiness(features: np.ndarray, points: np.ndarray, seed: int) -> tuple[float, int, int]:
    """Venna & Kaski's trustworthiness of points `[n 2]`, the number of neighbours, and of the photos that it is measured on.

    1: whatever is near in the plane is near in the features. NaN for fewer than three photos. Above `MOST_TRUSTED` photos it is
    measured on a random part.
    """
    from sklearn.manifold import trustworthiness as measure  # takes a second to import

    count = len(features)
    near = min(NEIGHBOURS, (count - 1) // 2)
    if near < 1:
        return float("nan"), near, count
    chosen = np.arange(count)
    if count > MOST_TRUSTED:
        chosen = np.sort(np.random.default_rng(seed).choice(count, MOST_TRUSTED, replace=False))
    return float(measure(features[chosen], points[chosen], n_neighbors=near)), near, len(chosen)


def beside(features: np.ndarray, points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where a further photo with features `[F]` belongs: the mean of the points of its nearest photos, `[2]`."""
    return np.asarray(points[nearest([features], wanted, BESIDE).rows].mean(0))
