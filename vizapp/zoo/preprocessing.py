"""Preprocessing: photos to network inputs, and inputs back to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.upload import upload
from vizapp.errors import VizError
from vizapp.media.transforms import Method, View

Interpolation = Method
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing that a network was trained with: the centre crop `[height width]` of a resized photo, normalized.

    `resize`: the shorter side of the resized photo in pixels, or its height and width, which may change its proportions.
    `mean` and `std`: per channel, of pixels from 0 to 1. `channels`: 3 for RGB, 1 for luminance (Pillow's mode L).
    `floor`: how the place of the crop is rounded, as in `View`.
    """

    channels: int
    height: int
    width: int
    resize: int | tuple[int, int]
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    floor: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.channels, self.height, self.width) < 1:
            raise VizError(
                f"The input size is channels, height and width, each at least 1; "
                f"{(self.channels, self.height, self.width)} was given.",
                code="bad-input-size",
            )
        if not len(self.mean) == len(self.std) == self.channels:
            raise VizError(
                f"There are {self.channels} channels, but {len(self.mean)} numbers in mean and {len(self.std)} in std.",
                code="bad-normalization",
            )
        if min(self.std) <= 0:
            raise VizError(f"Each std must be above zero; {self.std} was given.", code="bad-normalization")

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """The part of a photo, uint8 `[H W 3]`, that the network sees: uint8 `[height width 3]`."""
        return self.view.apply(pixels)

    @property
    def zero_colour(self) -> str:
        """What an input of zeros shows, in words."""
        plain = {0.0: "black", 0.5: "mid-grey", 1.0: "white"}
        return plain.get(self.mean[0], "the mean colour") if len(set(self.mean)) == 1 else "the mean colour"

    @property
    def view(self) -> View:
        """The crop alone, for processes that do not load the network."""
        return View(self.height, self.width, self.resize, self.interpolation, self.floor)

    def normalize(self, pixels: Sequence[np.ndarray] | np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Pictures of one size, each uint8 `[H W 3]`, as the tensor `[N C H W]` that the network takes.

        On a CPU bit-identical to torchvision's `pil_to_tensor`, `convert_image_dtype` and `normalize`.
        """
        stack = np.stack(list(pixels))  # [N H W 3]
        if self.channels == 1:
            stack = _luminance(stack)[..., None]  # [N H W 1]
        elif self.channels != 3:
            raise VizError(
                f"The network takes {self.channels} channels; a photo has 3, or 1 when converted to grey.",
                code="unsupported-channels",
            )
        batch = upload(torch.from_numpy(stack), device).permute(0, 3, 1, 2).to(torch.float32).div_(255)
        mean, std = self.constants(device)
        return batch.sub_(mean).div_(std).to(dtype)

    def denormalize(self, tensor: Tensor) -> np.ndarray:
        """The picture uint8 `[H W 3]` of a network input `[C H W]` or `[1 C H W]`, clipped to the valid range."""
        mean, std = self.constants(tensor.device)
        values = tensor.detach().to(torch.float32).reshape(self.channels, *tensor.shape[-2:])
        scaled = (values * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)  # [C H W]
        if self.channels != 3:
            scaled = scaled[:1].expand(3, -1, -1)
        return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy())

    def constants(self, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Mean and std `[C 1 1]`."""
        mean, std = (
            upload(torch.tensor(values, dtype=dtype), device).view(-1, 1, 1) for values in (self.mean, self.std)
        )
        return mean, std


def _luminance(rgb: np.ndarray) -> np.ndarray:
    """uint8 `[... 3]` to uint8 `[...]`, with the integer arithmetic of Pillow's `convert("L")`."""
    weighted = rgb.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)
