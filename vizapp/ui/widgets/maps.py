"""Data of the components for maps and pictures: sheets of tiles, one channel over the photo, a picture alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from vizapp.components.data import packed, percent, photo_data, ramp, uri
from vizapp.media.drawing import GREY, limits, sheet, veil
from vizapp.media.transforms import shrink
from vizapp.methods.activations import OPACITY, channel_tiles

Box = tuple[int, int, int, int]  # top, left, bottom, right in input pixels
LARGEST_TILE = 112  # pixels; larger maps are shrunk for the sheet


def tiles(values: np.ndarray, scale: str, largest: float = LARGEST_TILE) -> list[np.ndarray]:
    """A picture per channel of `[C h w]`, as `channel_tiles`, shrunk to `largest` pixels per side."""
    return [shrink(tile, largest) for tile in channel_tiles(values, scale)]


def sheet_data(values: np.ndarray, order: np.ndarray, scale: str, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
    """Data of the sheet component for `[C h w]`, in that order. `numbers`: statistics of the channels."""
    details = [
        f"max {numbers['max'][c]:.4g}, mean {numbers['mean'][c]:.4g}, zeros {100 * numbers['zeros'][c]:.0f} %"
        for c in order
    ]
    return numbered_tiles(tiles(values[order], scale), order.tolist(), "Channel", details, 58, 132)


def numbered_tiles(
    drawn: list[np.ndarray], numbers: Sequence[int], noun: str, details: Sequence[str], side: int, most: int
) -> dict[str, Any]:
    """Data of the sheet component for parts of a layer, about square.

    Args:
        drawn: The tiles, uint8 `[h w 3]`.
        numbers: The number of each part.
        noun: What the parts are, such as "Channel".
        details: A text per part, shown on hover.
        side: Smallest width of a tile on the screen.
        most: Largest width of a tile, if there are few.
    """
    return sprite_data(drawn, math.ceil(math.sqrt(len(drawn)))) | {
        "side": side, "most": most, "items": list(numbers), "titles": [f"{noun} {number}" for number in numbers],
        "tags": [str(number) for number in numbers], "details": details, "label": f"{len(numbers)} {noun.lower()}s",
    }  # fmt: skip


def three_across(
    drawn: list[np.ndarray], titles: Sequence[str], details: Sequence[str], label: str, most: int = 330
) -> dict[str, Any]:
    """Data of the sheet component for pictures in rows of three, with nothing to click.

    Args:
        drawn: The pictures, uint8 `[h w 3]`.
        titles: A title per picture.
        details: A text per picture, shown on hover.
        label: Describes the sheet.
        most: Largest width of a picture on the screen.
    """
    return sprite_data(drawn, 3) | {
        "side": 60, "most": most, "across": 3, "items": list(range(len(drawn))), "titles": titles, "details": details,
        "chosen": None, "label": label, "still": True,
    }  # fmt: skip


def sprite_data(drawn: list[np.ndarray], columns: int) -> dict[str, Any]:
    """The sprite of the sheet component: all tiles, uint8 `[h w 3]`, smaller ones centred."""
    tile = [max(tile.shape[axis] for tile in drawn) for axis in (0, 1)]
    return {"sprite": uri(sheet(drawn, columns, gap=0, background=GREY)), "tile": tile, "columns": columns}


def map_data(seen: np.ndarray, values: np.ndarray, cell: tuple[int, int] | None, field: Box | None) -> dict[str, Any]:
    """Data of the map component for one channel `[h w]` over the crop `[H W 3]`."""
    low, high = limits(values)
    return photo_data(seen, "") | {
        "heat": uri(veil(values, low, high)),
        "cells": list(values.shape),
        "values": packed(values),
        "low": low,
        "high": high,
        "ramp": ramp(through=True),
        "cell": list(cell) if cell else None,
        "field": list(field) if field else None,
        "opacity": OPACITY,
    }


def legend(items: Sequence[tuple[Sequence[int] | None, str, float]]) -> str:
    """HTML of the colours `(r, g, b)` of a label map, each with its class and share of cells; None: no colour."""
    keys = "".join(
        f'<div class="vz-key"><i{_swatch(colour)}></i><span>{escape(name)}</span><b>{percent(share)}</b></div>'
        for colour, name, share in items
    )
    return f'<div class="vz-keys">{keys}</div>'


def _swatch(colour: Sequence[int] | None) -> str:
    return ' class="none"' if colour is None else f' style="background: rgb{tuple(colour)}"'


def colour_scale(low: float, high: float, words: str) -> str:
    """HTML of the heat colours from `low` to `high`, and a sentence about them."""
    ends = f'<span>{low:.3g}</span><img src="{ramp()}" alt=""><span>{high:.3g}</span>'
    return f'<div class="vz-scale">{ends}<em>{escape(words)}</em></div>'
