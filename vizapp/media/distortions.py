"""Photos that are moved, turned, enlarged or spoiled, by an amount, as a network then sees them.

Translation, scale and rotation are those of Zeiler & Fergus 2013, figure 5. Brightness, contrast, blur, noise and JPEG have
the constants of ImageNet-C (Hendrycks & Dietterich 2019, appendix A) at its severities 1 to 5.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from vizapp.errors import VizError
from vizapp.media.channels import value_range
from vizapp.media.transforms import View, centre_crop, gaussian_blur, resize

Kind = Literal["rotate", "shift-x", "shift-y", "scale", "brightness", "contrast", "blur", "noise", "jpeg"]
Edge = Literal["grey", "mirror", "repeat"]
_GREY = 128
_PADDED = {"mirror": "reflect", "repeat": "edge"}
_BORDERS = {"grey": cv2.BORDER_CONSTANT, "mirror": cv2.BORDER_REFLECT_101, "repeat": cv2.BORDER_REPLICATE}
# Of severities 1 to 5: added to the value of HSV, contrast that is kept, standard deviation of a Gaussian in pixels, that of
# noise for pixels from 0 to 1, and JPEG quality.
_SEVERITIES: dict[str, tuple[float, ...]] = {
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5), "contrast": (0.4, 0.3, 0.2, 0.1, 0.05), "blur": (1, 2, 3, 4, 6),
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38), "jpeg": (25, 18, 15, 10, 7),
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A kind of transform: the unit of its amounts, their range, and the amount that changes nothing.

    `amounts`: the usual ones; those of shifts are of a photo whose shorter side has 256 pixels. `whole`: amounts are whole
    numbers.
    """

    unit: str
    amounts: tuple[float, ...]
    low: float
    high: float
    whole: bool = False
    clean: float = 0


_SHIFT = Family("pixels", tuple(range(-60, 61, 4)), -math.inf, math.inf, whole=True)  # at most those of the crop
_SEVERITY = Family("severity", tuple(range(6)), 0, 5, whole=True)
FAMILIES: dict[str, Family] = {
    "rotate": Family("degrees", tuple(range(0, 360, 5)), -360, 360),
    "shift-x": _SHIFT,
    "shift-y": _SHIFT,
    "scale": Family("times", tuple(round(1 + 0.05 * step, 2) for step in range(19)), 0.5, 4, clean=1),
    **dict.fromkeys(_SEVERITIES, _SEVERITY),
}


@dataclass(frozen=True, eq=False)
class ResizedPhoto:
    """The photo at the size at which a network crops it, uint8 `[h w 3]` or, of bands, uint8 or float32 `[h w C]`, and the
    crop: its corner, height and width."""

    pixels: np.ndarray
    top: int
    left: int
    height: int
    width: int

    @property
    def crop(self) -> np.ndarray:
        """What the network sees of the photo as it is, `[height width 3]`."""
        return self._crop(self.pixels)

    def transformed(self, kind: Kind, amount: float, edge: Edge = "grey", seed: int = 0) -> np.ndarray:
        """What the network sees of the transformed photo, `[height width 3]`. The clean amount gives exactly `crop`.

        Args:
            kind: "rotate" turns anticlockwise about the centre of the crop, "scale" enlarges about it; "shift-x" moves to
                the right and "shift-y" down; the others are severities of ImageNet-C, 0 to 5.
            amount: Degrees, times, whole pixels of the crop, or the severity.
            edge: What enters from beyond the resized photo: mid-grey (128), the mirrored photo, or its outermost pixels.
            seed: Of the noise, which is the same at all severities up to its strength.
        """
        if is_clean(kind, amount):
            return self.crop
        if kind == "rotate":
            return self._warped(_rotation(amount), edge)
        if kind == "scale":
            return self._warped(np.eye(2) / amount, edge)
        if kind in ("shift-x", "shift-y"):
            return self._shifted(int(amount), axis=int(kind == "shift-x"), edge=edge)
        return self._crop(_corrupted(self.pixels, kind, _SEVERITIES[kind][int(amount) - 1], seed))

    def _crop(self, pixels: np.ndarray) -> np.ndarray:
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        return np.ascontiguousarray(pixels[rows, columns])

    def _shifted(self, pixels: int, axis: int, edge: Edge) -> np.ndarray:
        """The crop of the photo moved along an axis: pixels are moved, and none is interpolated."""
        around = [(0, 0)] * 3
        around[axis] = (max(pixels, 0), max(-pixels, 0))
        if edge == "grey":
            grey = self._grey()
            padded = np.stack([
                np.pad(self.pixels[:, :, band], around[:2], constant_values=grey[band]) for band in range(len(grey))
            ], 2)  # fmt: skip
        else:
            padded = np.pad(self.pixels, around, mode=_PADDED[edge])  # type: ignore[call-overload]
        start = max(-pixels, 0)
        moved = padded[start:] if axis == 0 else padded[:, start:]  # at n is what was at n - pixels
        return self._crop(moved)

    def _warped(self, back: np.ndarray, edge: Edge) -> np.ndarray:
        """The crop after a linear map about its centre, interpolated bilinearly.

        `back`: the inverse map `[2 2]`, from places (x, y) of the result, measured from its centre, to those of the photo.
        """
        middle = np.array([(self.width - 1) / 2, (self.height - 1) / 2])
        offset = middle + np.array([self.left, self.top]) - back @ middle

        def warp(pixels: np.ndarray, grey: np.ndarray) -> np.ndarray:
            return np.asarray(cv2.warpAffine(
                pixels, np.column_stack([back, offset]), (self.width, self.height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=_BORDERS[edge], borderValue=grey.tolist(),
            ), pixels.dtype)  # fmt: skip

        grey = self._grey()
        if len(grey) == 3:
            return warp(self.pixels, grey)
        bands = range(len(grey))  # OpenCV takes at most four together
        return np.stack([warp(np.ascontiguousarray(self.pixels[:, :, n]), grey[n : n + 1]) for n in bands], 2)

    def _grey(self) -> np.ndarray:
        """Mid-grey in each band `[C]`."""
        if self.pixels.dtype == np.uint8:
            return np.full(self.pixels.shape[2], _GREY, np.uint8)
        low, high = value_range(self.pixels)
        return low + (high - low) * (_GREY / 255)


def is_clean(kind: Kind, amount: float) -> bool:
    """Whether that amount leaves every photo as it is."""
    return amount % 360 == 0 if kind == "rotate" else amount == FAMILIES[kind].clean


def usual_amounts(kind: Kind, side: int) -> tuple[float, ...]:
    """The usual amounts of a family, for photos whose shorter side has `side` pixels when they are cropped."""
    family = FAMILIES[kind]
    if family is not _SHIFT:
        return family.amounts
    return tuple(dict.fromkeys(float(round(amount * side / 256)) for amount in family.amounts))


def resized_photo(view: View, pixels: np.ndarray) -> ResizedPhoto:
    """The photo `[H W 3]` as `view` resizes it before the crop; with the black bars that it puts beside a smaller one."""
    resized = resize(pixels, *view.resized(*pixels.shape[:2]), view.interpolation)
    height, width = (max(have, want) for have, want in zip(resized.shape, (view.height, view.width), strict=False))
    padded = centre_crop(resized, height, width, view.floor)
    return ResizedPhoto(padded, *view.origin(height, width), view.height, view.width)


def _rotation(degrees: float) -> np.ndarray:
    """From places of a picture that was turned anticlockwise to those before: `[2 2]`, exact for multiples of 90."""
    quarter = round(degrees / 90)
    rest = math.radians(degrees - 90 * quarter)
    exact = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter % 4]
    cosine = exact[0] * math.cos(rest) - exact[1] * math.sin(rest)
    sine = exact[1] * math.cos(rest) + exact[0] * math.sin(rest)
    return np.array([[cosine, -sine], [sine, cosine]])  # y points down


def _corrupted(pixels: np.ndarray, kind: str, strength: float, seed: int) -> np.ndarray:
    """A picture `[h w 3]` spoiled by one of ImageNet-C's corruptions; of bands `[h w C]`, each from the start of its range to
    its end as a photo from 0 to 1.

    Raises:
        VizError: the corruption is defined for RGB alone.
    """
    if kind in ("jpeg", "brightness") and (pixels.dtype != np.uint8 or pixels.shape[2] != 3):
        raise VizError(
            f"{kind} is defined for photos in RGB, and the network takes {pixels.shape[2]} channels here; choose another kind.",
            code="unsupported-channels",
        )
    if kind == "blur":
        return gaussian_blur(pixels, strength)
    if kind == "jpeg":
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(strength))
        return np.asarray(Image.open(file).convert("RGB"))
    low, high = (0, 255) if pixels.dtype == np.uint8 else value_range(pixels)
    values = (pixels.astype(np.float64) - low) / np.maximum(high - low, 1e-300)
    if kind == "brightness":
        bright = values.max(2, keepdims=True)  # the value of HSV; colours of the same hue and saturation are multiples
        wanted = np.minimum(bright + strength, 1)
        values = np.where(bright > 0, values * (wanted / np.where(bright > 0, bright, 1)), wanted)
    elif kind == "contrast":
        mean = values.mean((0, 1))
        values = (values - mean) * strength + mean
    else:
        values = values + np.random.default_rng(seed).normal(0, strength, values.shape)
    spoiled = low + values.clip(0, 1) * (high - low)
    return (np.rint(spoiled) if pixels.dtype == np.uint8 else spoiled).astype(pixels.dtype)
