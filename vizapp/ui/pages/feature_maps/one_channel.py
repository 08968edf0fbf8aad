"""A channel over the photo, and the part of the photo that one of its cells sees."""

from __future__ import annotations

import numpy as np
import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.media.drawing import crop_box, exceeds
from vizapp.media.picture import Picture
from vizapp.methods.activations import over_photo
from vizapp.ui.widgets import image_tiles, maps, unit_picker
from vizapp.zoo.network import Network


def draw(
    network: Network, picture: Picture, site: Site, values: np.ndarray, channel: int, cell: unit_picker.Cell | None = None
) -> dict[str, np.ndarray]:  # fmt: skip
    """Draw a channel over the photo and the patch of a cell; returns the pictures by title.

    Args:
        network: The network.
        picture: The photo.
        site: The layer.
        values: The channel, `[h w]`.
        channel: Its number.
        cell: The cell; the chosen one, if None.
    """
    seen = network.seen(picture)
    cell = cell or unit_picker.cell(values.shape)
    field = site.receptive_field
    box = field.box(cell) if field is not None and cell is not None else None
    unit_picker.cell_map("maps", seen, values, channel, cell, box)
    shown = {"Channel": over_photo(seen, values)}
    if cell is not None and box is not None:
        shown["Patch"] = crop_box(seen, box)
        _patch(shown["Patch"], cell, box, seen.shape[:2])
    return shown


def _patch(pixels: np.ndarray, cell: tuple[int, int], box: maps.Box, shape: tuple[int, int]) -> None:
    top, left, bottom, right = box
    with st.container(key="beside"):
        picture, words = st.columns([2, 3], gap="medium", vertical_alignment="center")
    with picture:
        image_tiles.picture("maps.patch", pixels, "The receptive field of the cell")
    with words:
        over = top < 0 or left < 0 or bottom > shape[0] or right > shape[1]
        whole = exceeds(box, shape)
        more = "; the whole photo is shown" if whole else ", extending beyond the image border (grey)" if over else ""
        size = f"{right - left} × {bottom - top} pixels"
        st.caption(f"**Receptive field** of cell {cell[0]},{cell[1]}: {size}{more}.")
