"""Diagnosis of first-layer kernels (Zeiler & Fergus 2013, section 4.1): dead, dominating, duplicate, missing frequencies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vizapp.engine.layers.gratings import Gratings, correlations, gratings
from vizapp.engine.layers.kernels import Kernels

BANDS = {"low": (0.0, 1 / 6), "mid": (1 / 6, 1 / 3), "high": (1 / 3, 1.0)}  # cycles per cell; Nyquist's limit is 1/2
UNDER_COVERED = 1 / 6  # of the kernels that have a frequency: half of a band's even share
DOMINATING = 3.0  # times the median norm


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of the N kernels of a layer. Arrays are `[N]`.

    `dead`: the norm is below a fraction of the layer's median norm, or no picture of a gallery activates the channel.
    `dominating`: the norm is above 3 times the median. `twin`: the most similar kernel, -1 if none. `alike`: the
    normalized correlation with the twin. `duplicate`: that correlation reaches the threshold, and neither kernel is dead.
    `opposite`: the correlation with some kernel reaches minus the threshold. `bands`: number of living kernels tuned to low
    (below 1/6), middle (below 1/3) and high frequencies, in cycles per cell of the convolution's input. `gaps`: bands with
    less than 1/6 of the kernels that have a frequency. `energy`: the share of the power in each band, with all living
    kernels scaled to equal power.
    """

    norms: np.ndarray
    gratings: Gratings
    dead: np.ndarray
    dominating: np.ndarray
    twin: np.ndarray
    alike: np.ndarray
    duplicate: np.ndarray
    opposite: np.ndarray
    bands: dict[str, int]
    gaps: tuple[str, ...]
    energy: dict[str, float]


def diagnose(
    kernels: np.ndarray,
    spectra: np.ndarray,
    threshold: float = 0.9,
    shifts: int = 0,
    dead_below: float = 0.1,
    silent: Collection[int] = (),
) -> Diagnosis:
    """Diagnose the kernels of a layer.

    Args:
        kernels: `[N in kh kw]`.
        spectra: Their power spectra, `[N S S]`.
        threshold: Minimum correlation of duplicates.
        shifts: Largest shift when kernels are compared (see `correlations`).
        dead_below: Fraction of the median norm below which a kernel is dead.
        silent: Channels that no picture of a gallery activates.
    """
    norms = np.sqrt((kernels.astype(np.float64) ** 2).sum((1, 2, 3)))
    median = float(np.median(norms))
    dead = (norms < dead_below * median) | (norms == 0)
    dead[list(silent)] = True
    found = gratings(kernels)
    likeness = correlations(kernels, shifts)
    np.fill_diagonal(likeness, 0.0)
    likeness[dead] = likeness[:, dead] = 0.0
    twin = likeness.argmax(1)
    alike = likeness[np.arange(len(twin)), twin]
    living = ~dead & np.isfinite(found.frequency)
    bands = {
        name: int((living & (found.frequency >= low) & (found.frequency < high)).sum())
        for name, (low, high) in BANDS.items()
    }
    gaps = tuple(name for name, count in bands.items() if count < UNDER_COVERED * living.sum())
    return Diagnosis(
        norms, found, dead, norms > DOMINATING * median, np.where(alike > 0, twin, -1), alike, alike >= threshold,
        likeness.min(1) <= -threshold, bands, gaps, _energy(spectra[living]),
    )  # fmt: skip


def _energy(spectra: np.ndarray) -> dict[str, float]:
    """The share of the power `[N S S]` in each band, each spectrum taken with equal weight."""
    side = spectra.shape[1]
    along = np.fft.fftshift(np.fft.fftfreq(side))
    radius = np.hypot(along[:, None], along[None])
    total = spectra.sum((1, 2), keepdims=True)
    mean = (spectra / np.where(total > 0, total, 1)).mean(0) if len(spectra) else np.zeros((side, side))
    return {name: float(mean[(radius >= low) & (radius < high)].sum()) for name, (low, high) in BANDS.items()}


def in_words(found: Diagnosis, kernels: Kernels) -> str:
    """The diagnosis in words."""
    count, spatial = len(found.norms), max(kernels.weight.shape[2:]) > 1
    cell = "pixel" if kernels.sees_pixels else "cell"
    parts = []
    doubled, opposite = int(found.duplicate.sum()), int((found.opposite & ~found.duplicate).sum())
    parts.append(f"{_of(doubled, count)} near-duplicates" if doubled else "no filter has a near-duplicate")
    if opposite:
        parts.append(f"{opposite}{' more' if doubled else ''} {'have' if opposite > 1 else 'has'} an opposite")
    dead, strong = int(found.dead.sum()), int(found.dominating.sum())
    parts.append(f"{dead} {'are' if dead > 1 else 'is'} dead" if dead else "none is dead")
    if strong:
        parts.append(f"{strong} {'dominate' if strong > 1 else 'dominates'}")
    if spatial:
        parts.append(_coverage(found))
    stride = max(kernels.stride)
    if stride > 1 and spatial:
        limit = 1 / (2 * stride)
        above = int((~found.dead & (found.gratings.frequency > limit)).sum())
        tuned = f"{above} filter{'s are' if above != 1 else ' is'} tuned to higher frequencies"
        parts.append(f"stride {stride} aliases above {limit:.3g} cycles per {cell} ({tuned})")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _of(part: int, count: int) -> str:
    return f"{part} of {count} filters are"  # near-duplicates come at least in pairs


def _coverage(found: Diagnosis) -> str:
    if not sum(found.bands.values()):
        return "no filter is tuned to a frequency"
    if not found.gaps:
        return "low, mid and high frequencies are covered"
    names = " and ".join(found.gaps)
    counts = " and ".join(str(found.bands[name]) for name in found.gaps)
    return f"{names} frequencies are under-covered ({counts} of {sum(found.bands.values())} filters)"
