"""Resizing and cropping, bit-identical to torchvision's on Pillow images."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from vizapp.errors import VizError
from vizapp.media.channels import PHOTO, Channels
from vizapp.media.mapped import channel_of
from vizapp.media.picture import Picture
from vizapp.settings import settings

Method = Literal["bilinear", "bicubic", "nearest", "area", "lanczos"]

_LARGE = 2**25  # bytes of a picture; larger ones are resized one at a time
_turn = threading.Lock()
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class View:
    """The part of a photo that a network sees: the centre crop of the resized photo.

    `resize`: the shorter side of the resized photo in pixels, or its height and width, which may change its proportions.
    `floor`: whether half a pixel of the crop's place is rounded down, as by transformers, and not to even, as by torchvision.
    `channels`: what feeds the network's channels.
    """

    height: int
    width: int
    resize: int | tuple[int, int]
    interpolation: Method = "bilinear"
    floor: bool = False
    channels: Channels = PHOTO

    @property
    def view(self) -> View:
        """The view itself, as of other crops."""
        return self

    def values(self, picture: Picture) -> np.ndarray:
        """What of a picture is cropped for the network: `[H W C]` uint8, or float32 as `Channels.of` has it."""
        return self.channels.of(picture)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width before the crop, of a photo of that height and width."""
        if isinstance(self.resize, int):
            return short_side_size(height, width, self.resize)
        return self.resize

    def origin(self, height: int, width: int) -> tuple[int, int]:
        """Row and column of the crop's corner in the resized photo, which has that height and width; below zero if padded."""
        return _half(height - self.height, self.floor), _half(width - self.width, self.floor)

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of the crop in pixels of the photo; beyond its border where it was padded."""
        tall, wide = self.resized(height, width)
        (top, left), down, across = self.origin(tall, wide), height / tall, width / wide
        return top * down, left * across, (top + self.height) * down, (left + self.width) * across

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """The view of a photo, or of other values `[H W C]`: `[height width C]` of their type."""
        resized = resize(pixels, *self.resized(*pixels.shape[:2]), self.interpolation)
        return centre_crop(resized, self.height, self.width, self.floor)


def resize(pixels: np.ndarray, height: int, width: int, method: Method = "bilinear") -> np.ndarray:
    """The resized picture `[height width C]` (or `[height width]`), uint8 or float32. Shrinking is antialiased, but "nearest".

    The channels are resized one by one; floats are not rounded.

    Raises:
        VizError: the result would have more pixels than the settings allow for a picture.
    """
    most = settings().picture_megapixels
    if height * width > most * 1_000_000:
        raise VizError(
            f"Resizing {pixels.shape[1]:,} × {pixels.shape[0]:,} pixels would give {width:,} × {height:,}, more than "
            f"{most} megapixels; crop the photo to a less extreme shape first.",
            code="picture-too-large",
        )
    if pixels.ndim == 3 and (pixels.shape[2] != 3 or pixels.dtype != np.uint8):
        return np.stack([_resize(pixels[:, :, band], height, width, method) for band in range(pixels.shape[2])], 2)
    if pixels.ndim == 3 and pixels.nbytes > _LARGE:  # channel by channel, in a quarter of the memory
        with _turn:
            channels = [_resize(channel_of(pixels, number), height, width, method) for number in range(pixels.shape[2])]
        return np.stack(channels, 2)
    return _resize(pixels, height, width, method)


def _resize(pixels: np.ndarray, height: int, width: int, method: Method) -> np.ndarray:
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), _RESAMPLING[method]))


def shrink(pixels: np.ndarray, largest: float, method: Method = "area") -> np.ndarray:
    """The picture, made smaller if a side is longer than `largest`; its proportions are kept."""
    factor = largest / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return resize(pixels, height, width, method)


def resize_short_side(pixels: np.ndarray, side: int, method: Method = "bilinear") -> np.ndarray:
    """The picture resized to a shorter side of `side` pixels. Keeps the proportions; the longer side is rounded down."""
    height, width = pixels.shape[:2]
    return resize(pixels, *short_side_size(height, width, side), method)


def short_side_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a picture of that height and width, resized to a shorter side of `side` pixels."""
    longer = int(side * max(height, width) / min(height, width))  # as torchvision: a float, truncated
    return (longer, side) if width <= height else (side, longer)


def centre_crop(pixels: np.ndarray, height: int, width: int, floor: bool = False) -> np.ndarray:
    """The centre of the picture, `[height width 3]`, padded with black if the picture is smaller. `floor`: as in `View`."""
    missing = [max(want - have, 0) for want, have in zip((height, width), pixels.shape, strict=False)]
    if any(missing):
        around = [(space // 2, (space + 1) // 2) for space in missing] + [(0, 0)] * (pixels.ndim - 2)
        pixels = np.pad(pixels, around)
    top, left = (_half(have - want, floor) for want, have in zip((height, width), pixels.shape, strict=False))
    return _crop(pixels, top, left, height, width)


def _half(space: int, floor: bool) -> int:
    """The pixels before the crop; below zero, those of the padding, of which the smaller half comes first."""
    return -(-space // 2) if space < 0 else space // 2 if floor else round(space / 2)


def five_corners(shape: tuple[int, ...], height: int, width: int) -> list[tuple[int, int]]:
    """(top, left) of the crops of `five_crops` in a picture of that shape."""
    below, beside = shape[0] - height, shape[1] - width
    return [(0, 0), (0, beside), (below, 0), (below, beside), (_half(below, False), _half(beside, False))]


def five_crops(pixels: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """The top left, top right, bottom left, bottom right and centre crops, each `[height width 3]`.

    Raises:
        VizError: the picture is smaller than a crop.
    """
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise VizError(
            f"Five crops of {width} × {height} pixels do not fit into a photo of {pixels.shape[1]} × "
            f"{pixels.shape[0]}; enlarge it first.",
            code="picture-too-small",
        )
    return [_crop(pixels, top, left, height, width) for top, left in five_corners(pixels.shape, height, width)]


def _crop(pixels: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """The picture `[H W C]` blurred by a Gaussian of standard deviation `sigma` pixels; the border is mirrored."""
    found = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101))
    return found.reshape(pixels.shape).astype(pixels.dtype, copy=False)
