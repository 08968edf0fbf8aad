"""Feature maps as data of the components: a sheet of all channels, one channel over the photo, a patch."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from vizapp.media.drawing import GREY, heat, overlay, sheet, to_png
from vizapp.media.transforms import resize
from vizapp.ui.inputs.images import uri

Box = tuple[int, int, int, int]  # top, left, bottom, right in input pixels
LARGEST_TILE = 112  # pixels; larger maps are shrunk for the sheet


def limits(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 1) when there is none, and never equal."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return low, high if high > low else low + 1.0


def tiles(values: np.ndarray, scale: str) -> list[np.ndarray]:
    """A picture per channel of `[C h w]`, on one scale for the layer or one per channel; each uint8 `[h w 3]`."""
    channels, height, width = values.shape
    if scale == "channel":
        values = np.stack([_unit(channel) for channel in values])
    low, high = limits(values)
    stacked = heat(values.reshape(channels * height, width), low, high).reshape(channels, height, width, 3)
    if max(height, width) <= LARGEST_TILE:
        return list(stacked)
    factor = LARGEST_TILE / max(height, width)
    return [resize(tile, max(1, round(height * factor)), max(1, round(width * factor)), "area") for tile in stacked]


def _unit(channel: np.ndarray) -> np.ndarray:
    low, high = limits(channel)
    return (channel - low) / (high - low)


def sheet_data(values: np.ndarray, order: np.ndarray, scale: str, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
    """Data of the sheet component for `[C h w]`, in that order. `numbers`: statistics of the channels."""
    drawn = tiles(values[order], scale)
    return sprite_data(drawn, math.ceil(math.sqrt(len(drawn)))) | {
        "side": 58,  # pixels on the screen; `most`: size of a tile if there are few
        "most": 132,
        "items": [int(channel) for channel in order],
        "titles": [f"Channel {channel}" for channel in order],
        "details": [
            f"max {numbers['max'][c]:.4g}, mean {numbers['mean'][c]:.4g}, zeros {100 * numbers['zeros'][c]:.0f} %"
            for c in order
        ],
        "label": f"{len(order)} channels",
    }


def sprite_data(drawn: list[np.ndarray], columns: int) -> dict[str, Any]:
    """The sprite of the sheet component: all tiles, uint8 `[h w 3]`, smaller ones centred."""
    tile = [max(tile.shape[axis] for tile in drawn) for axis in (0, 1)]
    return {"sprite": uri(to_png(sheet(drawn, columns, gap=0, background=GREY))), "tile": tile, "columns": columns}


def map_data(seen: np.ndarray, values: np.ndarray, cell: tuple[int, int] | None, field: Box | None) -> dict[str, Any]:
    """Data of the map component for one channel `[h w]` over the crop `[H W 3]`."""
    low, high = limits(values)
    return {
        "photo": uri(to_png(seen)),
        "size": list(seen.shape[:2]),
        "heat": uri(to_png(heat(values, low, high))),
        "cells": list(values.shape),
        "values": packed(values),
        "low": low,
        "high": high,
        "ramp": ramp(),
        "cell": list(cell) if cell else None,
        "field": list(field) if field else None,
        "opacity": 0.65,
    }


def packed(values: np.ndarray) -> str:
    """Numbers for the map component: base64 of float32."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def legend(items: Sequence[tuple[Sequence[int], str, float]]) -> str:
    """HTML of the colours `(r, g, b)` of a label map, each with its class and the share of cells that it has."""
    keys = "".join(
        f'<div class="vz-key"><i style="background: rgb{tuple(colour)}"></i><span>{escape(name)}</span><b>{share:.0%}</b></div>'
        for colour, name, share in items
    )
    return f'<div class="vz-keys">{keys}</div>'


def photo_data(pixels: np.ndarray, label: str) -> dict[str, Any]:
    """Data of the map component for a picture without a map."""
    return {"photo": uri(to_png(pixels)), "size": list(pixels.shape[:2]), "label": label}


def ramp() -> str:
    """The colours of the heat maps from low to high."""
    return uri(to_png(heat(np.linspace(0, 1, 64)[None], 0, 1)))


def over_photo(seen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One channel over the crop, as the page shows it; uint8 `[H W 3]`."""
    low, high = limits(values)
    coloured = resize(heat(values, low, high), seen.shape[0], seen.shape[1], "nearest")
    return overlay(seen, coloured, 0.65)
