"""ROAD, remove and debias (Rong et al. 2022): the score while pixels are replaced by what their neighbours tell of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.chunks import in_chunks
from vizapp.methods.trust.deletion import Score, Tick, pixels_at
from vizapp.methods.trust.imputation import impute

SHARES = tuple(range(10, 100, 10))  # % of the pixels that are removed
NOISE = 0.01  # standard deviation, where black is 0 and white is 1


def noise_like(photo: Tensor, std: Tensor, seed: int) -> Tensor:
    """The noise of imputed pixels, for an input `[1 C H W]` whose channels were divided by `std` `[C 1 1]`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(photo.shape[1:], generator=generator, dtype=torch.float64).to(std.device)
    return NOISE * drawn / std


def removed(photo: Tensor, missing: np.ndarray, noise: Tensor) -> Tensor:
    """An input `[1 C H W]` with the pixels at `missing`, bool `[H W]`, imputed from the others, plus the noise `[C H W]`."""
    pixels = photo[0].permute(1, 2, 0).double().cpu().numpy()
    filled = torch.from_numpy(impute(pixels, missing)).permute(2, 0, 1).to(photo.device)
    hidden = torch.from_numpy(missing).to(photo.device)
    return torch.where(hidden, (filled + noise).to(photo.dtype), photo[0])[None]


def removal_curves(ranks: np.ndarray, photo: Tensor, noise: Tensor, score: Score, size: int, tick: Tick) -> np.ndarray:
    """The score with 10, 20, … 90 % of the pixels removed: float64 `[2 9]`.

    The first row removes the most relevant pixels first (MoRF), the second the least relevant ones (LeRF).

    Args:
        ranks: The order of the pixels, `[H W]`.
        photo: The input `[1 C H W]`.
        noise: See `noise_like`.
        score: Gives the scores of a batch.
        size: Inputs of a batch.
        tick: Called with the progress; it may raise to cancel.
    """
    pixels = ranks.size

    def run(part: Sequence[tuple[bool, int]]) -> np.ndarray:
        made = []
        for least, share in part:
            count = pixels_at(share, pixels)
            made.append(removed(photo, ranks >= pixels - count if least else ranks < count, noise))
        return score(torch.cat(made))

    asked = [(least, share) for least in (False, True) for share in SHARES]
    return np.concatenate(list(in_chunks(asked, run, size, tick))).reshape(2, -1)


def combined(curves: np.ndarray) -> float:
    """Half the mean score with the least relevant pixels removed less that with the most relevant ones: (LeRF - MoRF) / 2."""
    most, least = curves.mean(1)
    return float(least - most) / 2
