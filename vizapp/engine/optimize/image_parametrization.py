"""Pictures as something to optimise: by their pixels or their Fourier spectrum, in decorrelated colours, shaken as they go."""

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

# A square root of the covariance of the colours of ImageNet's photos: red, green, blue by three uncorrelated colours, as
# Lucid publishes it (Olah, Mordvintsev & Schubert 2017, "Feature Visualization", appendix on preconditioning).
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_START = 0.01  # standard deviation of the parameters that a picture begins with
_SLOPE = 0.25  # of the sigmoid at mid-grey
_SOFT = 4.0  # Lucid's divisor of what leaves the Fourier transform, so that few pixels begin near black or white


@dataclass(frozen=True)
class ImageParam:
    """How numbers become pictures `[n C H W]` from 0 to 1, and how the network is shown them.

    `parameters` "fourier" (scaled so that all frequencies have the power that they have in photos, 1/f; Olah et al. 2017)
    or "pixels". `decorrelated` colours, for three channels. `contrast` is the greatest root mean square difference from
    mid-grey over what the unit sees (the fixed norm of Erhan et al. 2009; photos have about 0.25): what is best for a
    linear unit is then the unit's own pattern, and not the one that is black and white everywhere.

    In every step each picture is moved by up to `jitter` pixels, zoomed by up to a share `zoom` and turned by up to `turn`
    degrees, each on its own; what comes in over the border is the picture's mirror image.
    """

    channels: int
    height: int
    width: int
    parameters: Parameters = "fourier"
    decorrelated: bool = True
    contrast: float = 0.15
    jitter: float = 0.0
    zoom: float = 0.0
    turn: float = 0.0

    def start(self, seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
        """The parameters `[n …]` of as many pictures as there are seeds; picture i depends on `seeds[i]` alone."""
        shape: tuple[int, ...] = (self.channels, self.height, self.width)
        if self.parameters == "fourier":
            shape = (self.channels, self.height, self.width // 2 + 1, 2)
        noise = [torch.randn(shape, generator=generator(seed), dtype=torch.float64) for seed in seeds]
        return (_START * torch.stack(noise)).to(device, dtype)

    def render(self, parameters: Tensor, seen: Tensor) -> Tensor:
        """The pictures `[n C H W]`, 0 to 1, of parameters `[n …]`; `seen` `[n]` is the share of each that its unit sees."""
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
        """One over the frequency, `[H W//2+1]`; the constant part counts as the lowest frequency that there is."""
        down = torch.fft.fftfreq(self.height, dtype=like.dtype, device=like.device)
        across = torch.fft.rfftfreq(self.width, dtype=like.dtype, device=like.device)
        radius = torch.hypot(down[:, None], across[None])
        return 1 / radius.clamp_min(1 / max(self.height, self.width))

    def sample_transforms(self, seeds: Sequence[int], steps: int) -> Tensor:
        """Random numbers from -1 to 1 `[steps n 4]` for `shaken`; those of picture i depend on `seeds[i]` alone."""
        draws = [torch.rand(steps, 4, generator=generator(seed + 1), dtype=torch.float64) for seed in seeds]
        return 2 * torch.stack(draws, 1) - 1

    def transform(self, pictures: Tensor, draws: Tensor) -> Tensor:
        """The pictures `[n C H W]` moved, zoomed and turned by random numbers `[n 4]` (see `shakes`)."""
        if not (self.jitter or self.zoom or self.turn):
            return pictures
        draws = draws.to(pictures.device, pictures.dtype)
        angle, scale = draws[:, 0] * math.radians(self.turn), 1 + draws[:, 1] * self.zoom
        # Whole pixels, so that moving alone does not blur.
        down, across = (draws[:, 2] * self.jitter).round(), (draws[:, 3] * self.jitter).round()
        cosine, sine, shape = scale * angle.cos(), scale * angle.sin(), self.height / self.width
        rows = torch.stack([cosine, -sine * shape, 2 * across / self.width], 1)
        columns = torch.stack([sine / shape, cosine, 2 * down / self.height], 1)
        grid = F.affine_grid(torch.stack([rows, columns], 1), list(pictures.shape), align_corners=False)
        return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def generator(seed: int) -> torch.Generator:
    """Random numbers, on the CPU so that they are the same on every device."""
    return torch.Generator().manual_seed(seed)


def seed_of(*parts: object) -> int:
    """A seed for whatever these parts name, the same in every run: not Python's own hash, which is salted."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:7], "big")
