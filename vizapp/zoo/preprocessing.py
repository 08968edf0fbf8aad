"""Preprocessing: photos to network inputs, and inputs back to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.upload import upload
from vizapp.errors import VizError
from vizapp.media.channels import Channels, luminance
from vizapp.media.picture import Picture
from vizapp.media.stacks import shown_values
from vizapp.media.transforms import Method, View

Interpolation = Method
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing that a network was trained with: the centre crop `[height width]` of a resized photo, normalized.

    `resize`: the shorter side of the resized photo in pixels, or its height and width, which may change its proportions.
    `mean` and `std`: per channel, of pixels from 0 to 1. `channels`: 3 for RGB, 1 for luminance (Pillow's mode L).
    `floor`: how the place of the crop is rounded, as in `View`. `channel_map`: what feeds each channel, as in `Channels`.
    `mean` and `std` are of values from 0 to 1 where these are integers, which are divided by the largest value of their type,
    and of floats as they are.
    """

    channels: int
    height: int
    width: int
    resize: int | tuple[int, int]
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    floor: bool = field(default=False, repr=False)
    channel_map: tuple[str, ...] = field(default=(), repr=False)

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
        Channels(self.channels, self.channel_map)

    def __repr__(self) -> str:
        """As of other dataclasses; without `floor`, and without an empty channel map, so that digests stay as they were."""
        shown = [f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr]
        if self.channel_map:
            shown.append(f"channel_map={self.channel_map!r}")
        return f"Preprocessing({', '.join(shown)})"

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
        channels = Channels(self.channels, self.channel_map)
        return View(self.height, self.width, self.resize, self.interpolation, self.floor, channels)

    def crop(self, picture: Picture) -> np.ndarray:
        """What `normalize` takes of a picture: `[height width C]`, or `[height width 3]` where it takes the luminance."""
        return self.view.apply(self.view.values(picture))

    def normalize(self, pixels: Sequence[np.ndarray] | np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Crops of one size, each `[H W C]` uint8 or float32, as the tensor `[N C H W]` that the network takes.

        Of uint8 `[H W 3]` a network of one channel takes the luminance. On a CPU bit-identical to torchvision's
        `pil_to_tensor`, `convert_image_dtype` and `normalize`.
        """
        stack = np.stack(list(pixels))  # [N H W C]
        if self.channels == 1 and stack.shape[-1] == 3:
            stack = luminance(stack)[..., None]  # [N H W 1]
        if stack.shape[-1] != self.channels:
            raise VizError(
                f"The network takes {self.channels} channels; pictures of {stack.shape[-1]} were given.",
                code="unsupported-channels",
            )
        batch = upload(torch.from_numpy(stack), device).permute(0, 3, 1, 2).to(torch.float32, copy=True)
        if stack.dtype == np.uint8:
            batch.div_(255)
        mean, std = self.constants(device)
        return batch.sub_(mean).div_(std).to(dtype)

    def denormalize(self, tensor: Tensor) -> np.ndarray:
        """The picture uint8 `[H W 3]` of a network input `[C H W]` or `[1 C H W]`.

        One and three channels, and those that a map feeds from R, G and B, are clipped to the range from 0 to 1. Of others the
        first three, or the first of two, are stretched, as bands are.
        """
        values = self.values(tensor)
        if {"R", "G", "B"} <= set(self.channel_map):
            values = values[:, :, [self.channel_map.index(colour) for colour in "RGB"]]
        elif self.channel_map or self.channels not in (1, 3):
            return shown_values(values)
        scaled = np.rint(values.clip(0, 1) * np.float32(255)).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(scaled, (*scaled.shape[:2], 3)))

    def values(self, tensor: Tensor) -> np.ndarray:
        """The values before the normalization, float32 `[H W C]`, of a network input `[C H W]` or `[1 C H W]`."""
        mean, std = self.constants(tensor.device)
        values = tensor.detach().to(torch.float32).reshape(self.channels, *tensor.shape[-2:])
        return (values * std + mean).permute(1, 2, 0).contiguous().cpu().numpy()

    def constants(self, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Mean and std `[C 1 1]`."""
        mean, std = (
            upload(torch.tensor(values, dtype=dtype), device).view(-1, 1, 1) for values in (self.mean, self.std)
        )
        return mean, std
