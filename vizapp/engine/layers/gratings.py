"""Tuning of single kernels: best-matching sinusoidal grating, symmetries, and correlations that show duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 32  # samples per side of the power spectra: one sample is 1/32 cycle per cell
_REFINEMENTS = 14  # steps of the search for a frequency; each halves the spacing of the samples
_AROUND = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])  # offsets from the best sample that a refinement tries, in spacings
_AT_ONCE = 2**22  # values of the frequencies' patterns in memory at once


@dataclass(frozen=True)
class Gratings:
    """The strongest grating in each of N kernels, each array `[N]`.

    `frequency` is in cycles per cell of the convolution's input (pixels for a first layer). It is 0 if the kernel's mean
    has more energy than its variation (a blob), and NaN for kernels of zeros or of one cell. `orientation` of the stripes
    is in degrees, from 0 (horizontal) anticlockwise to below 180; NaN if the frequency is 0 or NaN. `share`, from 0 to 1,
    is the fraction of the kernel's variation that the grating explains.
    """

    frequency: np.ndarray
    orientation: np.ndarray
    share: np.ndarray


def power(kernels: np.ndarray) -> np.ndarray:
    """Power spectra `[N SIDE SIDE]` of kernels `[N in kh kw]`, summed over input channels, frequency 0 in the middle.

    Kernels are zero-padded to at least `SIDE` cells, which samples the spectrum more finely.
    """
    height, width = kernels.shape[2:]
    side = max(SIDE, height, width)
    total = np.zeros((len(kernels), side, side))
    for number, kernel in enumerate(kernels.reshape(*kernels.shape[:2], -1).astype(np.float64)):
        slices = _condensed(kernel).reshape(-1, height, width)
        total[number] = (np.abs(np.fft.fft2(slices, (side, side))) ** 2).sum(0)
    return np.fft.fftshift(total, axes=(1, 2))


def gratings(kernels: np.ndarray) -> Gratings:
    """The strongest grating in each of the kernels `[N in kh kw]`.

    A Fourier transform of few cells leaks: a pattern of less than two cycles spreads to its mirror frequency and to the
    constant part. So each frequency is scored by the variation that a grating explains with the best amplitude and phase
    for each input channel (least squares: the periodogram of Lomb 1976 and Scargle 1982 in two dimensions). The search
    starts on the samples of a zero-padded transform and refines them around the best one. For a pure grating of any phase
    the result is exact.
    """
    count, _, height, width = kernels.shape
    frequency, orientation, share = (np.full(count, np.nan) for _ in range(3))
    flat = kernels.reshape(count, kernels.shape[1], -1).astype(np.float64)
    energy = (flat**2).sum((1, 2))
    constant = (flat.mean(2) ** 2).sum(1) * flat.shape[2]
    alive = np.flatnonzero((energy > 0) & (height * width > 1))
    variation = np.maximum(energy - constant, 0)
    blobs = alive[constant[alive] >= variation[alive]]
    frequency[blobs], share[blobs] = 0.0, 0.0
    varied = alive[constant[alive] < variation[alive]]
    if len(varied):
        slices = [_condensed(flat[number] - flat[number].mean(1, keepdims=True)) for number in varied]
        found, explained = _search_frequencies(slices, height, width)
        frequency[varied] = np.hypot(found[:, 0], found[:, 1])
        # Rows count downwards; the stripes run across the direction in which the pattern changes.
        angle = np.degrees(np.arctan2(-found[:, 0], found[:, 1])) + 90
        orientation[varied] = np.mod(np.round(angle, 9), 180)
        share[varied] = np.clip(explained / variation[varied], 0, 1)
    return Gratings(frequency, orientation, share)


def _condensed(slices: np.ndarray) -> np.ndarray:
    """Slices `[in cells]` reduced to at most `cells` slices; any pattern explains the same energy of them."""
    if len(slices) <= slices.shape[1]:
        return slices
    values, vectors = np.linalg.eigh(slices.T @ slices)
    return (vectors * np.sqrt(np.maximum(values, 0))).T


def _search_frequencies(slices: list[np.ndarray], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The best frequency (down, across) of each kernel `[N 2]`, and the energy `[N]` that it explains."""
    samples = _half_plane(height, width)
    stacked = np.concatenate(slices)  # [Σ rows, cells]
    starts = np.cumsum([0, *(len(rows) for rows in slices)])[:-1]
    best, energy = np.zeros((len(slices), 2)), np.full(len(slices), -1.0)
    part = max(1, _AT_ONCE // max(1, 2 * height * width, 2 * len(stacked)))
    for start in range(0, len(samples), part):
        tried = samples[start : start + part]
        explained = np.add.reduceat(_explained(stacked, tried, height, width), starts, axis=0)  # [N tried]
        better = explained.max(1) > energy
        best[better] = tried[explained.argmax(1)][better]
        energy = np.maximum(energy, explained.max(1))
    around = np.stack(np.meshgrid(_AROUND, _AROUND, indexing="ij"), -1).reshape(-1, 2)
    for number, rows in enumerate(slices):
        # In cycles per cell, four samples per width of the spectrum's own blur.
        step = np.array([0.0 if length == 1 else 1 / (4 * length) for length in (height, width)])
        for _ in range(_REFINEMENTS):
            tried = np.clip(best[number] + around * step, -0.5, 0.5)
            explained = _explained(rows, tried, height, width).sum(0)
            if explained.max() > energy[number]:
                best[number], energy[number] = tried[explained.argmax()], explained.max()
            step /= 2
    return best, energy


def _half_plane(height: int, width: int) -> np.ndarray:
    """Sample frequencies (down, across) `[F 2]` up to half a cycle per cell, one of each pair of opposite ones."""

    def along(length: int) -> np.ndarray:
        return np.zeros(1) if length == 1 else np.arange(-2 * length, 2 * length + 1) / (4 * length)

    down, across = np.meshgrid(along(height), along(width), indexing="ij")
    samples = np.stack([down, across], -1).reshape(-1, 2)
    return samples[(samples[:, 1] > 0) | ((samples[:, 1] == 0) & (samples[:, 0] > 0))]


def _explained(rows: np.ndarray, frequencies: np.ndarray, height: int, width: int) -> np.ndarray:
    """Energy `[rows F]` of zero-mean rows `[rows cells]` that a grating of each frequency explains."""
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2  # around the centre, cosine and sine are orthogonal
    phase = 2 * np.pi * (frequencies[:, :1] * y + frequencies[:, 1:] * x)  # [F cells]
    cosine, sine = np.cos(phase), np.sin(phase)
    cosine -= cosine.mean(1, keepdims=True)  # the constant part is fitted separately; the sine has none
    explained = np.zeros((len(rows), len(frequencies)))
    for pattern in (cosine, sine):
        size = (pattern**2).sum(1)
        pattern = pattern / np.sqrt(np.where(size > 1e-9 * height * width, size, np.inf))[:, None]
        explained += (rows @ pattern.T) ** 2
    return explained


def symmetries(kernels: np.ndarray) -> np.ndarray:
    """Correlation `[N 3]` of each kernel `[N in kh kw]` with itself flipped horizontally, vertically, and in both ways.

    Cosine similarity: 1 is even symmetry, -1 odd (an edge rotated by 180° is its own negative), NaN for kernels of zeros.
    """
    flips = (kernels[..., ::-1], kernels[..., ::-1, :], kernels[..., ::-1, ::-1])
    size = (kernels.astype(np.float64) ** 2).sum((1, 2, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([(kernels * flip).sum((1, 2, 3), dtype=np.float64) / size for flip in flips], 1)


def correlations(kernels: np.ndarray, shifts: int = 0) -> np.ndarray:
    """Signed cosine similarity `[N N]` of all pairs of kernels `[N in kh kw]`.

    1 for the same pattern of any strength, -1 for its negative, 0 for a kernel of zeros; the diagonal is 1. With
    `shifts`, the value of largest magnitude over shifts of one kernel by up to that many cells down and across, padded
    with zeros. The norm is that of the unshifted kernel, so cells shifted out lower the similarity.
    """
    count, _, height, width = kernels.shape
    size = np.sqrt((kernels.astype(np.float64) ** 2).sum((1, 2, 3)))
    unit = (kernels / np.where(size > 0, size, np.inf)[:, None, None, None]).astype(np.float32)
    best = np.zeros((count, count), np.float32)
    for down in range(-min(shifts, height - 1), min(shifts, height - 1) + 1):
        for across in range(-min(shifts, width - 1), min(shifts, width - 1) + 1):
            moved = np.zeros_like(unit)
            moved[..., max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)] = unit[
                ..., max(-down, 0) : height - max(down, 0), max(-across, 0) : width - max(across, 0)
            ]
            found = unit.reshape(count, -1) @ moved.reshape(count, -1).T
            best = np.where(np.abs(found) > np.abs(best), found, best)
    np.fill_diagonal(best, 1.0)
    return best
