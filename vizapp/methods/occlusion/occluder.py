"""The occluder: the positions of a square on the picture, and its fill."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vizapp.errors import VizError, nearest
from vizapp.media.channels import value_range
from vizapp.media.transforms import gaussian_blur

Grid = Literal["cover", "inside"]
FILLS = ("grey", "mean", "blur", "noise", "black", "white")
_GREY = 128  # of 255: 0.5 in pixel space


@dataclass(frozen=True)
class Positions:
    """The positions of the square: `rows` and `columns` are the first pixels of each row and column of positions."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    height: int
    width: int

    @property
    def boxes(self) -> np.ndarray:
        """(top, left, bottom, right) of each, in pixels of the crop: int64 `[h w 4]`; may extend beyond the border."""
        top, left = np.meshgrid(self.rows, self.columns, indexing="ij")
        return np.stack([top, left, top + self.height, left + self.width], -1).astype(np.int64)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return len(self.rows), len(self.columns)


def positions(size: tuple[int, int], window: tuple[int, int], stride: int, grid: Grid = "cover") -> Positions:
    """The positions of a square of `window` (height, width) on a picture of `size` (height, width), every `stride` pixels.

    "cover": the centres of the squares are the centres of equal cells that cover the picture. So the map lies over the
    picture, and squares at the border are clipped. "inside": the squares start at the upper left corner, as in Captum's
    `Occlusion`; the last square of a row is clipped if it does not fit.

    Raises:
        VizError: the square is larger than the picture.
    """
    for side, length, name in zip(window, size, ("high", "wide"), strict=True):
        if side > length:
            raise VizError(
                f"The square is {side} pixels {name} and the network sees {length}; take a smaller window.",
                code="occluder-too-large",
            )
    starts = []
    for side, length in zip(window, size, strict=True):
        if grid == "cover":
            count = -(-length // stride)
            first = (length - (count - 1) * stride - side) // 2
        else:
            count, first = -(-(length - side) // stride) + 1, 0
        starts.append(tuple(first + stride * index for index in range(count)))
    return Positions(starts[0], starts[1], *window)


def filling(seen: np.ndarray, fill: str, seed: int = 0) -> np.ndarray:
    """The fill over the whole of the network's crop `seen` `[H W C]`, in its type.

    Black, white and grey are 0, 255 and 128 of uint8, and the same shares of floats from 0 to 1. Floats beyond have a range of
    their own in each band: from its smallest to its largest value.

    Raises:
        VizError: `fill` is neither one of `FILLS` nor a colour, or a colour for other than three channels.
    """
    if fill == "blur":
        return gaussian_blur(seen, max(seen.shape[:2]) / 14)  # of the default square, half a side
    whole = seen.dtype == np.uint8
    low, high = (0, 255) if whole else value_range(seen)
    if fill == "noise":
        random = np.random.default_rng(seed)
        if whole:
            return random.integers(0, 256, seen.shape, dtype=np.uint8)
        return (low + (high - low) * random.random(seen.shape)).astype(seen.dtype)
    colours = {"grey": low + (high - low) * (_GREY / 255), "black": low, "white": high}
    if fill == "mean":
        colour = np.rint(seen.mean((0, 1))) if whole else seen.mean((0, 1))
    elif fill in colours:
        colour = np.broadcast_to(colours[fill], seen.shape[2:])
    elif re.fullmatch(r"#[0-9a-fA-F]{6}", fill):
        if seen.shape[2] != 3:
            raise VizError(
                f"fill is the colour {fill}, and the network takes {seen.shape[2]} channels; take one of {', '.join(FILLS)}.",
                code="no-such-fill",
            )
        colour = low + (high - low) * np.array(tuple(bytes.fromhex(fill[1:]))) / 255
    else:
        raise VizError(
            f"fill is {fill!r}; it must be one of {', '.join(FILLS)}, or a colour such as #ff8800.{nearest(fill, FILLS)}",
            code="no-such-fill",
        )
    return np.zeros_like(seen) + (np.rint(colour) if whole else colour).astype(seen.dtype)


def coarse_to_fine(shape: tuple[int, int]) -> list[list[int]]:
    """The numbers of all cells of a map `[h w]` in up to three parts: every fourth row and column, every second, the rest.

    The first part is about a sixteenth of the cells, evenly spaced. No cell comes twice.
    """
    done = np.zeros(shape, bool)
    turns = []
    first = [min(2, (length - 1) // 2) for length in shape]
    for step in (4, 2, 1):
        part = np.zeros(shape, bool)
        part[first[0] % step :: step, first[1] % step :: step] = True
        turns.append([int(n) for n in np.flatnonzero(part & ~done)])
        done |= part
    return [turn for turn in turns if turn]


def from_nearest(known: np.ndarray) -> np.ndarray:
    """The number of the nearest known cell for each cell of a map (city-block distance): int64 `[h w]` of bool `[h w]`.

    If no cell is known, each cell gets its own number.
    """
    numbers = np.arange(known.size).reshape(known.shape)
    found = np.where(known, numbers, -1) if known.any() else numbers
    while (found < 0).any():
        reached = found.copy()
        for axis in (0, 1):
            for ahead, behind in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
                to, of = ((ahead,), (behind,)) if axis == 0 else ((slice(None), ahead), (slice(None), behind))
                reached[to] = np.where(reached[to] < 0, found[of], reached[to])
        found = reached
    return found


def per_pixel(drop: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean `drop` of the squares that cover each pixel (0 without a square), as Captum's `Occlusion`: float64 `[H W]`.

    `drop`: the clean score minus the occluded score, `[h w]`. `boxes`: `[h w 4]`.
    """
    total, count = np.zeros(size), np.zeros(size)
    for value, (top, left, bottom, right) in zip(drop.ravel(), boxes.reshape(-1, 4), strict=True):
        part = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
        total[part] += value
        count[part] += 1
    return total / np.maximum(count, 1)
