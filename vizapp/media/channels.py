"""Which values of a picture feed the channels of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vizapp.errors import VizError, nearest, plural, quoted
from vizapp.media.picture import Picture

NAMES = ("R", "G", "B", "L", "mean", "zero")
_ROUNDING = 1e-4
_RED, _GREEN, _BLUE = 19595, 38470, 7471  # weights of Pillow's luminance, in 65536ths


@dataclass(frozen=True)
class Channels:
    """What feeds each of `count` channels: the entries of `map`; without one, the bands of a stack of so many, or a photo.

    An entry is the number of a band (0, 1 and 2 of a photo are red, green and blue), "R", "G" or "B" of the picture as it is
    shown, "L", its luminance, "mean", that of all bands, or "zero".
    """

    count: int = 3
    map: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in self.map:
            if entry not in NAMES and not (entry.isascii() and entry.isdigit()):
                raise VizError(
                    f"A channel map has {quoted(entry)}; each entry is a band's number, R, G, B, L, mean or zero."
                    f"{nearest(entry, NAMES)}",
                    code="bad-channel-map",
                )
        if self.map and len(self.map) != self.count:
            raise VizError(
                f"The map {','.join(self.map)} has {len(self.map)} entries, but the network takes "
                f"{plural(self.count, 'channel')}.",
                code="bad-channel-map",
            )

    def of(self, picture: Picture) -> np.ndarray:
        """The values `[H W count]`, or `[H W 3]` of a photo of which a network takes the luminance.

        uint8, or float32: integers divided by the largest value of their type, floats as they are.

        Raises:
            VizError: the picture has another number of bands, or not those of the map.
        """
        bands = picture.pixels if picture.bands is None else picture.bands
        if self.map:
            return self._mapped(picture, bands)
        if picture.bands is not None and bands.shape[2] == self.count:
            return scaled(bands)
        if self.count in (1, 3):
            return picture.pixels
        has = "3 (R, G, B)" if picture.bands is None else str(bands.shape[2])
        shown = (
            ("R", "G", "B", *["mean"] * self.count) if picture.bands is None else [str(n) for n in range(self.count)]
        )
        given = [entry if entry in NAMES or int(entry) < bands.shape[2] else "zero" for entry in shown[: self.count]]
        short = ",".join([*given[:4], "…"] if self.count > 5 else given)
        raise VizError(
            f"The network takes {self.count} channels and {picture.name} has {has}; say what feeds each, such "
            f'as "{short}" (channel_map in Python, --channel-map on the command line, Channels in the app).',
            code="unsupported-channels",
        )

    def _mapped(self, picture: Picture, bands: np.ndarray) -> np.ndarray:
        missing = [entry for entry in self.map if entry not in NAMES and int(entry) >= bands.shape[2]]
        if missing:
            raise VizError(
                f"The channel map asks for band {missing[0]} of {picture.name}, which has bands 0 to {bands.shape[2] - 1}.",
                code="no-such-band",
            )
        found = [self._channel(entry, picture, bands) for entry in self.map]
        if any(one.dtype != np.uint8 for one in found):
            found = [scaled(one) for one in found]
            found = [one.astype(np.float32) / np.float32(255) if one.dtype == np.uint8 else one for one in found]
        return np.stack(found, 2)

    @staticmethod
    def _channel(entry: str, picture: Picture, bands: np.ndarray) -> np.ndarray:
        if entry == "zero":
            return np.zeros(bands.shape[:2], np.uint8)
        if entry in ("R", "G", "B"):
            return picture.pixels[:, :, "RGB".index(entry)]
        if entry == "L":
            return luminance(picture.pixels)
        if entry == "mean":
            most = np.iinfo(bands.dtype).max if bands.dtype.kind in "ui" else 1
            return (bands.mean(2, dtype=np.float64) / most).astype(np.float32)
        return bands[:, :, int(entry)]


PHOTO = Channels()


def read_channel_map(text: str | Sequence[str | int]) -> tuple[str, ...]:
    """The entries of a channel map, from `"R,G,B,mean"` or a sequence; none of an empty text."""
    parts = text.split(",") if isinstance(text, str) and text.strip() else [str(part) for part in text or ()]
    names = {name.lower(): name for name in NAMES}
    return tuple(names.get(part.strip().lower(), part.strip()) for part in parts)


def scaled(values: np.ndarray) -> np.ndarray:
    """uint8 as it is; other integers as float32 divided by the largest value of their type; floats as they are."""
    if values.dtype.kind == "f" or values.dtype == np.uint8:
        return values
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def value_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest values of each channel of a crop `[H W C]` of floats; 0 and 1 if all are within."""
    low, high = values.min((0, 1)), values.max((0, 1))
    within = low.min() >= -_ROUNDING and high.max() <= 1 + _ROUNDING
    return (np.zeros_like(low), np.ones_like(high)) if within else (low, high)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """uint8 `[... 3]` to uint8 `[...]`, with the integer arithmetic of Pillow's `convert("L")`."""
    weighted = rgb.astype(np.uint32) @ np.array([_RED, _GREEN, _BLUE], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)
