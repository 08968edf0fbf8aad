"""Feature maps: all channels of a layer, one of them over the photo, the receptive field of a cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.trace.sites import Site, Unit
from vizapp.media.drawing import crop_box, exceeds
from vizapp.media.picture import Picture
from vizapp.methods.activations import over_photo, statistics, strength_order
from vizapp.methods.base import Result
from vizapp.ui.session import compute, downloads, messages, state
from vizapp.ui.widgets import image_tiles, layout, maps, unit_picker
from vizapp.zoo.network import Network

_ORDERS = {"strength": "Strongest first", "number": "By number"}
_SCALES = {"layer": "Shared scale", "channel": "Scale per channel"}
_VIEWS = {"maps": "Pictures", "numbers": "Numbers"}


def page() -> None:
    """Draw the page."""
    opened = unit_picker.open_page(
        "maps",
        "Feature maps",
        "How strongly each channel responds, and where in the photo. Click a layer, a channel, a cell.",
    )
    if opened is None:
        return
    network, picture, sites, site = opened
    _controls(sites, site)
    result = compute.run("activations", network, picture, unit=Unit(site.name, 0))
    if result is None:
        return
    _show(network, picture, site, result)


def _controls(sites: tuple[Site, ...], site: Site) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="maps_controls"):
        unit_picker.layer_list("maps", sites, site)
        unit_picker.switch(state.VIEW, _VIEWS, "maps.view")
        unit_picker.switch(state.ORDER, _ORDERS, "maps.order")
        if site.is_map:
            unit_picker.switch(state.SCALE, _SCALES, "maps.scale")


def _show(network: Network, picture: Picture, site: Site, result: Result) -> None:
    values = result.arrays["activations"]
    order = strength_order(values) if state.get(state.ORDER) == "strength" else np.arange(len(values))
    channel = unit_picker.channel(strength_order(values))
    numbers = statistics(values)
    names = network.readable_names(site)
    left, right = layout.columns(7, 5)
    with left:
        if state.get(state.VIEW) == "numbers":
            _table(order, numbers)
        elif values.ndim == 3:
            _sheet(network, picture, site, values, order, numbers, channel)
        else:
            unit_picker.bars("maps", values, order, channel, names)
        _facts(result)
    with right:
        unit_picker.stepper("maps", len(values), channel)
        pictures = {"Sheet": result.panels[0].pixels} if result.panels else {}
        if names:
            messages.info(names[channel])
        if values.ndim == 3:
            pictures |= _map(network, picture, site, values[channel], channel)
    name = downloads.file_name(network.name, site.name, picture.name)
    downloads.row("maps", name, pictures, result.arrays)


def _sheet(
    network: Network, picture: Picture, site: Site, values: np.ndarray, order: np.ndarray,
    numbers: dict[str, np.ndarray], channel: int,
) -> None:  # fmt: skip
    scale = state.get(state.SCALE)
    key = compute.key_of("sheet", network, picture, unit=Unit(site.name, 0), order=state.get(state.ORDER), scale=scale)
    unit_picker.channel_sheet("maps.sheet", key, lambda: maps.sheet_data(values, order, scale, numbers), channel)


def _table(order: np.ndarray, numbers: dict[str, np.ndarray]) -> None:
    table = pd.DataFrame({"channel": order} | {name: column[order] for name, column in numbers.items()})
    number = st.column_config.NumberColumn
    st.dataframe(
        table, hide_index=True, height=520, key="maps.table",
        column_config={
            "channel": number("Channel"), "min": number("Min", format="%.4g"), "max": number("Max", format="%.4g"),
            "mean": number("Mean", format="%.4g"),
            "zeros": st.column_config.ProgressColumn("Zeros", format="percent", min_value=0, max_value=1),
        },
    )  # fmt: skip


def _facts(result: Result) -> None:
    for name in ("silent", "tokens", "cells", "not finite"):
        if name in result.facts:
            messages.info(result.facts[name])


def _map(network: Network, picture: Picture, site: Site, values: np.ndarray, channel: int) -> dict[str, np.ndarray]:
    """Draw the channel over the photo and the patch of the cell; returns the pictures by title."""
    seen = network.seen(picture)
    cell = unit_picker.cell(values.shape)
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


if __name__ == "__main__":
    page()
