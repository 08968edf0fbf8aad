"""Deep feature factorization (Collins et al. 2018): the cells of a layer as sums of a few non-negative parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.tap import Tap
from vizapp.engine.trace.observe import kept_by_picture
from vizapp.engine.trace.sites import Site
from vizapp.zoo.network import Network

FEWEST, MOST = 2, 12  # parts
_AT_ONCE, _ROUNDS = 10, 60  # iterations between two looks at the error, and such rounds
_SETTLED = 1e-4  # the part of the error that a round takes off when it is the last
_EXACT = 1e-3  # largest difference of class scores, in parts of the largest, with which a head counts as linear


@dataclass(frozen=True, eq=False)
class Factors:
    """Parts of the cells of some photos, the strongest first.

    `maps`: float32 `[photos k h w]`, how much of each part is in a cell. `vectors`: float32 `[k C]` of length 1 (zero for
    a part that is not needed). `error`: ‖V − WH‖ / ‖V‖ of the rectified activations V. `negative`: the share of the
    activations that was below zero and is taken as zero.
    """

    maps: np.ndarray
    vectors: np.ndarray
    error: float
    negative: float

    @property
    def nbytes(self) -> int:
        """Approximate memory."""
        return self.maps.nbytes + self.vectors.nbytes

    def means(self) -> np.ndarray:
        """The mean vector of each part over all cells of all photos, float64 `[k C]`."""
        return self.maps.mean((0, 2, 3), dtype=np.float64)[:, None] * self.vectors


def factorise(features: np.ndarray, k: int, seed: int, tick: Callable[[float], None]) -> Factors:
    """Non-negative matrix factorization of the rectified cells `[photos h w C]` into k parts, by coordinate descent.

    Args:
        features: The activations.
        k: The number of parts.
        seed: Of the starting point.
        tick: Gets the progress, and may raise to cancel.
    """
    photos, height, width, channels = features.shape
    rectified = np.maximum(features, 0).reshape(-1, channels)
    peak = float(rectified.max())
    if peak > 0:
        rectified /= peak
        weights, vectors = _factorised(rectified, k, seed, tick)
        error = (_squared_error(rectified, weights, vectors) / _squared(rectified)) ** 0.5
    else:
        weights, vectors, error = np.zeros((len(rectified), k)), np.zeros((k, channels)), 0.0
    norms = np.linalg.norm(vectors, axis=1)
    weights = weights * (norms * peak)
    vectors = np.divide(vectors, norms[:, None], where=norms[:, None] > 0, out=np.zeros_like(vectors))
    order = np.argsort(-np.square(weights).sum(0, dtype=np.float64), kind="stable")
    maps = weights[:, order].reshape(photos, height, width, k).transpose(0, 3, 1, 2)
    negative = float((features < 0).mean())
    return Factors(np.ascontiguousarray(maps, np.float32), vectors[order].astype(np.float32), error, negative)


def _factorised(values: np.ndarray, k: int, seed: int, tick: Callable[[float], None]) -> tuple[np.ndarray, np.ndarray]:
    """W `[cells k]` and H `[k C]` by scikit-learn, a few iterations at a time, until the error settles."""
    from sklearn.decomposition import non_negative_factorization  # takes a second to import

    weights, vectors, before = np.zeros((0, 0)), np.zeros((0, 0)), np.inf
    init = "nndsvda" if k <= min(values.shape) else "random"
    for done in range(_ROUNDS):
        weights, vectors, _ = non_negative_factorization(
            values, weights if done else None, vectors if done else None, n_components=k, init="custom" if done else init,
            tol=0, max_iter=_AT_ONCE, random_state=seed,
        )  # fmt: skip
        error = _squared_error(values, weights, vectors)
        if before - error <= _SETTLED * before and done:
            break
        before = error
        tick((done + 1) / _ROUNDS)
    return weights, vectors


def _squared_error(values: np.ndarray, weights: np.ndarray, vectors: np.ndarray) -> float:
    """‖V − WH‖², without the memory of WH."""
    w, h = weights.astype(np.float64), vectors.astype(np.float64)
    cross = float(np.sum(weights * (values @ vectors.T), dtype=np.float64))
    return max(0.0, _squared(values) - 2 * cross + float(np.sum((w.T @ w) * (h @ h.T))))


def _squared(values: np.ndarray) -> float:
    return float(np.einsum("ij,ij->", values, values, dtype=np.float64))


def head_weights(network: Network, site: Site, crop: np.ndarray) -> tuple[np.ndarray | None, str]:
    """The weights `[classes C]` that the class scores give to the mean over the cells of a layer; else None, and why not.

    They are a weight of the network of that shape, if differences of the scores of three inputs (the crop uint8 `[H W 3]`,
    its negative, and noise) are those of the means times the weight.
    """
    if not (network.heads and network.categories):
        return None, f"{network.name} gives no class scores."
    last = network.last_feature_map()
    sites = [site] if last is None or last == site else [site, last]
    noise = np.random.default_rng(0).integers(0, 256, crop.shape, np.uint8)

    def run(crops: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        batch = network.batch(crops)
        with torch.no_grad(), Tap(network.module, {one.name for one in sites}, stop=False) as tap:
            scores = network.scores(batch.clone())
        maps = kept_by_picture(tap, sites, len(batch))
        return tuple(one.double().cpu().numpy() for one in (scores, *(maps[one.name].mean((2, 3)) for one in sites)))

    parts = list(in_chunks([crop, 255 - crop, noise], run, network.batch_limit(3)))
    scores, *means = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = {one.name: _fitting(network, scores, mean) for one, mean in zip(sites, means, strict=True)}
    weight = found[site.name]
    if weight is not None:
        return weight, ""
    hint = f" They are of {sites[-1].name!r}." if found[sites[-1].name] is not None else ""
    reason = (
        f"The class scores are not a linear layer of the mean over the cells of {site.name!r}, so its parts have none."
    )
    return None, reason + hint


def _fitting(network: Network, scores: np.ndarray, means: np.ndarray) -> np.ndarray | None:
    """The weight `[classes C]` with which scores `[N classes]` differ as means `[N C]` do, or None."""
    shape = (scores.shape[1], means.shape[1])
    wanted = scores[1:] - scores[0]
    for parameter in network.module.parameters():
        if parameter.shape[:2] != shape or parameter.numel() != shape[0] * shape[1]:
            continue
        weight = parameter.detach().double().cpu().numpy().reshape(shape)
        apart = np.abs((means[1:] - means[0]) @ weight.T - wanted).max()
        if wanted.any() and apart <= _EXACT * np.abs(wanted).max():
            return weight
    return None
