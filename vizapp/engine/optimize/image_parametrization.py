"""Image parametrizations for optimization: pixels or Fourier spectrum, decorrelated colors, random transformations."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Parameters = Literal["fourier", "pixels"]

# A square root of the color covariance of ImageNet, [RGB, decorrelated colors], published with Lucid (Olah, Mordvintsev &
# Schubert 2017, "Feature Visualization", appendix on preconditioning).
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_START = 0.01  # standard deviation of the initial parameters
_SLOPE = 0.25  # derivative of the sigmoid at mid-grey
_SOFT = 4.0  # Lucid's divisor after the inverse Fourier transform, so that few pixels start near black or white


@dataclass(frozen=True)
class ImageParam:
    """Maps parameters to images `[n C H W]` from 0 to 1 and transforms them for the network.

    The limited contrast is the fixed norm of Erhan et al. 2009: without it the optimum for a linear unit is black and white
    everywhere, with it the unit's own pattern. Each image is transformed independently in every step; beyond its border it
    is mirrored.
    """

    channels: int
    height: int
    width: int
    parameters: Parameters = "fourier"  # "fourier" scales frequencies by 1/f, as in photos (Olah et al. 2017)
    decorrelated: bool = True  # decorrelated colors, for three channels
    contrast: float = 0.15  # maximum RMS difference from mid-grey over what the unit sees; about 0.25 in photos
    jitter: float = 0.0  # maximum shift in pixels
    zoom: float = 0.0  # maximum change of scale, as a fraction
    turn: float = 0.0  # maximum rotation in degrees

    def start(self, seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Initial parameters `[n …]`, one image per seed; image i depends only on `seeds[i]`."""
        shape: tuple[int, ...] = (self.channels, self.height, self.width)
        if self.parameters == "fourier":
            shape = (self.channels, self.height, self.width // 2 + 1, 2)
        noise = [torch.randn(shape, generator=generator(seed), dtype=torch.float64) for seed in seeds]
        return (_START * torch.stack(noise)).to(device, dtype)

    def render(self, parameters: Tensor, seen: Tensor) -> Tensor:
        """Images `[n C H W]`, 0 to 1, from parameters `[n …]`; `seen` `[n]` is the fraction that each unit sees."""
        if self.parameters == "fourier":
            spectrum = torch.view_as_complex(parameters) * self._scale(parameters)
            pictures = torch.fft.irfft2(spectrum, s=(self.height, self.width), norm="ortho") / _SOFT
        else:
            pictures = parameters
        if self.decorrelated and self.channels == 3:
            colours = torch.tensor(_COLOURS, dtype=pictures.dtype, device=pictures.device)
            colours = colours / colours.norm(dim=0).max()
            pictures = torch.einsum("rc,nchw->nrhw", colours, pictures)
        limit = self.contrast / _SLOPE * seen.sqrt().view(-1, 1, 1, 1)
        strength = pictures.square().mean((1, 2, 3), keepdim=True).sqrt()
        weaker = torch.where(limit > 0, (limit / strength).clamp_max(1), 1.0)
        return torch.sigmoid(pictures * weaker)

    def _scale(self, like: Tensor) -> Tensor:
        """One over the frequency, `[H W//2+1]`; the constant part counts as the lowest frequency."""
        down = torch.fft.fftfreq(self.height, dtype=like.dtype, device=like.device)
        across = torch.fft.rfftfreq(self.width, dtype=like.dtype, device=like.device)
        radius = torch.hypot(down[:, None], across[None])
        return 1 / radius.clamp_min(1 / max(self.height, self.width))

    def sample_transforms(self, seeds: Sequence[int], steps: int) -> Tensor:
        """Random numbers `[steps n 4]` from -1 to 1 for `transform`; those of image i depend only on `seeds[i]`."""
        draws = [torch.rand(steps, 4, generator=generator(seed + 1), dtype=torch.float64) for seed in seeds]
        return 2 * torch.stack(draws, 1) - 1

    def transform(self, pictures: Tensor, draws: Tensor) -> Tensor:
        """Images `[n C H W]` shifted, scaled and rotated by random numbers `[n 4]` from `sample_transforms`."""
        if not (self.jitter or self.zoom or self.turn):
            return pictures
        draws = draws.to(pictures.device, pictures.dtype)
        angle, scale = draws[:, 0] * math.radians(self.turn), 1 + draws[:, 1] * self.zoom
        # Whole pixels, so that shifts alone do not blur.
        down, across = (draws[:, 2] * self.jitter).round(), (draws[:, 3] * self.jitter).round()
        cosine, sine, shape = scale * angle.cos(), scale * angle.sin(), self.height / self.width
        rows = torch.stack([cosine, -sine * shape, 2 * across / self.width], 1)
        columns = torch.stack([sine / shape, cosine, 2 * down / self.height], 1)
        grid = F.affine_grid(torch.stack([rows, columns], 1), list(pictures.shape), align_corners=False)
        return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def generator(seed: int) -> torch.Generator:
    """A random number generator on the CPU, so that all devices get the same numbers."""
    return torch.Generator().manual_seed(seed)


def seed_of(*parts: object) -> int:
    """A seed derived from `parts`, the same in every run (Python's `hash` is salted)."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:7], "big")
