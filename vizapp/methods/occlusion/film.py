"""The film of a sweep: the occluder moves over the picture, and the maps are filled in position by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vizapp.media.drawing import GREY, sheet
from vizapp.media.transforms import resize
from vizapp.methods.occlusion.occluder import Positions
from vizapp.methods.occlusion.sweep import OcclusionParams, occluded

_LOW = 200  # pixels: lower frames are enlarged, because players blur small films


def frames(
    seen: np.ndarray, params: OcclusionParams, where: Positions, maps: Sequence[np.ndarray], most: int = 240
) -> list[np.ndarray]:
    """The frames, uint8 of one size: the picture with the occluder at each position, beside the maps up to that position.

    Args:
        seen: The crop that the network sees, uint8 `[H W 3]`.
        params: Fill of the occluder, and whether it hides the rest instead.
        where: The positions of the occluder.
        maps: Maps with a cell per position, each uint8 `[h w 3]`. Cells of later positions are drawn grey.
        most: Largest number of frames. Of more positions, evenly spaced ones are shown, with the first and the last.
    """
    height, width = seen.shape[:2]
    rows, columns = where.shape
    shown = np.unique(np.linspace(0, rows * columns - 1, min(most, rows * columns)).round().astype(int))
    enlarge = -(-_LOW // height)
    found = []
    for place in shown:
        row, column = divmod(int(place), columns)
        tiles = [occluded(seen, params, where, row, column)]
        for pixels in maps:
            reached = pixels.copy().reshape(-1, 3)
            reached[place + 1 :] = GREY
            tiles.append(resize(reached.reshape(pixels.shape), height, width, "nearest"))
        found.append(sheet(tiles, len(tiles), gap=2, enlarge=enlarge))
    return found
