"""Deletion and insertion (Petsiuk et al. 2018, section 4): the score while pixels are replaced in the map's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.chunks import in_chunks
from vizapp.media.transforms import gaussian_blur

Score = Callable[[Tensor], np.ndarray]  # of inputs [N C H W]: float64 [N]
Tick = Callable[[float], None]
STEPS = 101  # shares of the pixels: 0, 1, … 100 %


def pixel_ranks(values: np.ndarray, seed: int) -> np.ndarray:
    """The rank of each pixel of a map `[H W]` from its largest value, 0, on: int64 `[H W]`.

    Equal values, such as the zeros of a CAM, come in an order drawn with the seed: else they would go row by row.
    """
    drawn = np.random.default_rng(seed).permutation(values.size)
    order = np.lexsort((drawn, -values.reshape(-1)))
    ranks = np.empty(values.size, np.int64)
    ranks[order] = np.arange(values.size)
    return ranks.reshape(values.shape)


def blur_sigma(height: int, width: int) -> float:
    """The standard deviation of the blur in pixels: that of the occluder's fill "blur", 16 pixels of 224."""
    return max(height, width) / 14


def blurred(seen: np.ndarray) -> np.ndarray:
    """What stands for deleted pixels: the network's crop, uint8 `[H W 3]`, blurred."""
    return gaussian_blur(seen, blur_sigma(*seen.shape[:2]))


def pixels_at(share: int, pixels: int) -> int:
    """The number of pixels that are `share` % of so many, rounded."""
    return (share * pixels + 50) // 100


def replaced(ranks: np.ndarray, share: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The picture `start` with its first `share` % of the pixels from `end`, each uint8 `[H W 3]`.

    A photo being deleted goes from the crop to `blurred` of it; a photo being inserted goes the other way.
    """
    return np.where((ranks < pixels_at(share, ranks.size))[..., None], end, start)


def replacement_curve(
    ranks: np.ndarray, start: Tensor, end: Tensor, ends: tuple[float, float], score: Score, size: int, tick: Tick
) -> np.ndarray:
    """The score while the pixels of an input are replaced by those of another: float64 `[101]`, at 0, 1, … 100 %.

    Args:
        ranks: The order of the pixels, `[H W]`.
        start: The input at 0 %, `[1 C H W]`.
        end: The input at 100 %.
        ends: Their scores.
        score: Gives the scores of a batch.
        size: Inputs of a batch.
        tick: Called with the progress; it may raise to cancel.
    """
    order = torch.from_numpy(ranks).to(start.device)
    counts = torch.tensor([pixels_at(share, ranks.size) for share in range(STEPS)], device=start.device)

    def run(shares: Sequence[int]) -> np.ndarray:
        taken = order < counts[shares[0] : shares[-1] + 1, None, None]  # [n H W]
        return score(torch.where(taken[:, None], end, start))

    between = np.concatenate(list(in_chunks(range(1, STEPS - 1), run, size, tick)))
    return np.array([ends[0], *between, ends[1]])


def area(curve: np.ndarray) -> float:
    """The area under a curve at evenly spaced shares from 0 to 1, by trapezoids."""
    return float((curve.sum() - (curve[0] + curve[-1]) / 2) / (len(curve) - 1))
