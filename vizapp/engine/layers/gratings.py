"""What kernels are tuned to, by themselves: the grating that each holds most of, its symmetry, its nearest twin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 32  # of the power spectra, in samples: one sample is 1/32 cycle per cell
_REFINEMENTS = 14  # of a frequency; each halves the spacing of the samples
_AROUND = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])  # spacings from the best sample that a refinement looks at
_AT_ONCE = 2**22  # numbers of the frequencies' patterns that are in memory together


@dataclass(frozen=True)
class Gratings:
    """The strongest grating in each of N kernels, each array `[N]`.

    `frequency` in cycles per cell of what the convolution reads (for a first layer: per pixel), 0 where the constant
    part of the kernel holds more than all of its variation (a blob), nan where there is nothing but zeros or one cell.
    `orientation` is that of the stripes, in degrees from 0 (horizontal) anticlockwise to below 180, nan where the
    frequency is 0 or nan. `share` of the kernel's variation is held by that one grating, from 0 to 1.
    """

    frequency: np.ndarray
    orientation: np.ndarray
    share: np.ndarray


def power(kernels: np.ndarray) -> np.ndarray:
    """Power spectra `[N SIDE SIDE]` of kernels `[N in kh kw]`, summed over their inputs, frequency 0 in the middle.

    The kernels are padded with zeros to at least `SIDE` cells, which samples their spectrum more finely.
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

    The Fourier transform of a few cells blurs what it finds: a pattern of less than two cycles leaks into its own mirror
    frequency and into the constant part. So each frequency is judged by how much of the kernel's variation a grating of
    that frequency explains, with the amplitude and phase that suit each input slice best (least squares; the
    periodogram of Lomb 1976 and Scargle 1982, in two dimensions), on the samples of a zero-padded transform first and
    then on finer and finer samples around the best. For a pure grating that is exact, of whatever phase.
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
        found, explained = _searched(slices, height, width)
        frequency[varied] = np.hypot(found[:, 0], found[:, 1])
        # Rows count downwards; the stripes run across the direction in which the pattern changes.
        angle = np.degrees(np.arctan2(-found[:, 0], found[:, 1])) + 90
        orientation[varied] = np.mod(np.round(angle, 9), 180)
        share[varied] = np.clip(explained / variation[varied], 0, 1)
    return Gratings(frequency, orientation, share)


def _condensed(slices: np.ndarray) -> np.ndarray:
    """Slices `[in cells]` turned into at most as many as there are cells: any pattern explains as much of their energy."""
    if len(slices) <= slices.shape[1]:
        return slices
    values, vectors = np.linalg.eigh(slices.T @ slices)
    return (vectors * np.sqrt(np.maximum(values, 0))).T


def _searched(slices: list[np.ndarray], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The best frequency (down, across) of each kernel `[N 2]`, and the energy that it explains `[N]`."""
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
    for number, rows in enumerate(slices):
        step = np.array([_spacing(height), _spacing(width)])
        around = np.stack(np.meshgrid(_AROUND, _AROUND, indexing="ij"), -1).reshape(-1, 2)
        for _ in range(_REFINEMENTS):
            tried = np.clip(best[number] + around * step, -0.5, 0.5)
            explained = _explained(rows, tried, height, width).sum(0)
            if explained.max() > energy[number]:
                best[number], energy[number] = tried[explained.argmax()], explained.max()
            step /= 2
    return best, energy


def _spacing(length: int) -> float:
    """Cycles per cell between two samples along a direction: four per width of the spectrum's own blur."""
    return 0.0 if length == 1 else 1 / (4 * length)


def _half_plane(height: int, width: int) -> np.ndarray:
    """Samples of the frequencies (down, across) `[F 2]` up to half a cycle per cell, one of each pair of opposite ones."""

    def along(length: int) -> np.ndarray:
        return np.zeros(1) if length == 1 else np.arange(-2 * length, 2 * length + 1) / (4 * length)

    down, across = np.meshgrid(along(height), along(width), indexing="ij")
    samples = np.stack([down, across], -1).reshape(-1, 2)
    return samples[(samples[:, 1] > 0) | ((samples[:, 1] == 0) & (samples[:, 0] > 0))]


def _explained(rows: np.ndarray, frequencies: np.ndarray, height: int, width: int) -> np.ndarray:
    """Energy `[rows F]` of rows `[rows cells]` (means taken off) that a grating of each frequency explains."""
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2  # about the middle, cosine and sine are orthogonal
    phase = 2 * np.pi * (frequencies[:, :1] * y + frequencies[:, 1:] * x)  # [F cells]
    cosine, sine = np.cos(phase), np.sin(phase)
    cosine -= cosine.mean(1, keepdims=True)  # beside a constant part, which is fitted too; the sine has none
    explained = np.zeros((len(rows), len(frequencies)))
    for pattern in (cosine, sine):
        size = (pattern**2).sum(1)
        pattern = pattern / np.sqrt(np.where(size > 1e-9 * height * width, size, np.inf))[:, None]
        explained += (rows @ pattern.T) ** 2
    return explained


# -------------------------------------------------------------------------------------------- symmetry and twins


def symmetries(kernels: np.ndarray) -> np.ndarray:
    """Correlation `[N 3]` of each kernel `[N in kh kw]` with itself mirrored left to right, upside down, and half turned.

    The cosine of the angle between them: 1 is even symmetry, -1 odd (a half turn makes an edge its own negative); nan for
    zeros.
    """
    flips = (kernels[..., ::-1], kernels[..., ::-1, :], kernels[..., ::-1, ::-1])
    size = (kernels.astype(np.float64) ** 2).sum((1, 2, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([(kernels * flip).sum((1, 2, 3), dtype=np.float64) / size for flip in flips], 1)


def correlations(kernels: np.ndarray, shifts: int = 0) -> np.ndarray:
    """Normalised correlation `[N N]`, with its sign, of all pairs of the kernels `[N in kh kw]`.

    The cosine of the angle between two kernels: 1 for the same pattern of whatever strength, -1 for its negative. With
    `shifts`, the one of largest magnitude of one kernel and the other moved by up to that many cells down and across,
    zeros moved in (what is moved out counts against it). 0 for a kernel of zeros; the diagonal is 1.
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
