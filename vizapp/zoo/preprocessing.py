"""From a photo to the numbers that a network takes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vizapp.errors import VizError
from vizapp.media.transforms import View

Interpolation = Literal["bilinear", "bicubic", "nearest", "area"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What a network was trained to see: the centre crop `[height width]` of a resized photo, normalised.

    `resize` is the shorter side of the photo before the crop, in pixels, or height and width to which the whole photo is
    squeezed, whatever its shape. `mean` and `std` are per channel, of pixels scaled to 0..1. Of `channels`, 3 are RGB and 1 is
    luminance, as Pillow's mode L has it.
    """

    channels: int
    height: int
    width: int
    resize: int | tuple[int, int]
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if min(self.channels, self.height, self.width) < 1:
            raise VizError(
                f"The input size is channels, height and width, each at least 1; "
                f"{(self.channels, self.height, self.width)} was given.",
                code="bad-input-size",
            )
        if not len(self.mean) == len(self.std) == self.channels:
            raise VizError(
                f"It takes {self.channels} channels; mean has {len(self.mean)} numbers and std has {len(self.std)}.",
                code="bad-normalization",
            )
        if min(self.std) <= 0:
            raise VizError(f"Each std must be above zero; {self.std} was given.", code="bad-normalization")

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """The part of a photo, uint8 `[H W 3]`, that the network sees: uint8 `[height width 3]`."""
        return self.view.apply(pixels)

    @property
    def view(self) -> View:
        """The same, for processes that see photos and never a network."""
        return View(self.height, self.width, self.resize, self.interpolation)

    def normalize(self, pixels: Sequence[np.ndarray] | np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Pictures of one size, each uint8 `[H W 3]`, as the tensor `[N C H W]` that the network takes.

        On the CPU equal to the last bit to torchvision's `pil_to_tensor`, `convert_image_dtype`, `normalize`.
        """
        stack = np.stack(list(pixels))  # [N H W 3]
        if self.channels == 1:
            stack = _luminance(stack)[..., None]  # [N H W 1]
        elif self.channels != 3:
            raise VizError(
                f"The network takes {self.channels} channels; a photo has 3, or 1 when turned to grey.",
                code="unsupported-channels",
            )
        batch = torch.from_numpy(stack).to(device).permute(0, 3, 1, 2).to(torch.float32).div_(255)
        mean, std = self.constants(device)
        return batch.sub_(mean).div_(std).to(dtype)

    def denormalize(self, tensor: Tensor) -> np.ndarray:
        """The picture uint8 `[H W 3]` of a network input `[C H W]` or `[1 C H W]`; what is out of range is clipped."""
        mean, std = self.constants(tensor.device)
        values = tensor.detach().to(torch.float32).reshape(self.channels, *tensor.shape[-2:])
        scaled = (values * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)  # [C H W]
        if self.channels != 3:
            scaled = scaled[:1].expand(3, -1, -1)
        return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy())

    def constants(self, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Mean and std `[C 1 1]`."""
        mean, std = (
            torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1) for values in (self.mean, self.std)
        )
        return mean, std


def _luminance(rgb: np.ndarray) -> np.ndarray:
    """uint8 `[... 3]` to uint8 `[...]`, with the integer arithmetic of Pillow's `convert("L")`."""
    weighted = rgb.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)
