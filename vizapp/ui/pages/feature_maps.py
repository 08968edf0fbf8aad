"""Feature maps: the strongest from early to late; or all channels of a layer, one over the photo, and what a cell sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.trace.sites import Site, Unit
from vizapp.media.drawing import crop_box, exceeds, limits, sheet
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.methods import stages
from vizapp.methods.activations import over_photo, scale_limits, statistics, strength_order
from vizapp.methods.base import Result
from vizapp.ui.inputs.images import uri
from vizapp.ui.session import compute, downloads, messages, state
from vizapp.ui.widgets import fader, image_tiles, layout, maps, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.projection_tiles import RULES
from vizapp.zoo.network import Network

_STAGES = {"all": "Early → late", "one": "One layer"}
_ORDERS = {"strength": "Strongest first", "number": "By number"}
_SCALES = {"clipped": "Shared scale", "layer": "Up to the largest", "channel": "Scale per channel"}
_VIEWS = {"maps": "Pictures", "numbers": "Numbers"}
_LARGEST = 132  # pixels of a tile from early to late


def page() -> None:
    """Draw the page."""
    if state.get(state.STAGES) is None and any(
        state.get(c) is not None for c in (state.LAYER, state.CHANNEL, state.CELL)
    ):
        _show_one()
    opened = unit_picker.open_page(
        "maps",
        "Feature maps",
        "How strongly each channel responds, and where in the photo. Click a layer, a channel, a cell.",
        then=_show_one,
    )
    if opened is None:
        return
    network, picture, sites, site = opened
    whole = state.get(state.STAGES) != "one" and bool(stages.stage_sites(network))
    _controls(sites, site, whole)
    if whole:
        _early_to_late(network, picture)
        return
    params = {"order": state.get(state.ORDER), "scale": state.get(state.SCALE)}
    result = compute.run("activations", network, picture, unit=Unit(site.name, 0), **params)
    clean = result and compute.run("activations", network.clean, picture, unit=Unit(site.name, 0), **params)
    if result is not None and clean is not None:
        _one_layer(network, picture, site, result, clean.arrays["activations"])


def _show_one() -> None:
    state.put(state.STAGES, "one")


def _controls(sites: tuple[Site, ...], site: Site, whole: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="maps_controls"):
        unit_picker.switch(state.STAGES, _STAGES, "maps.stages", value="all" if whole else "one")
        if whole:
            return
        unit_picker.layer_list("maps", sites, site)
        unit_picker.switch(state.VIEW, _VIEWS, "maps.view")
        unit_picker.switch(state.ORDER, _ORDERS, "maps.order")
        if site.is_map and state.get(state.VIEW) == "maps":
            unit_picker.switch(state.SCALE, _SCALES, "maps.scale")


# Early to late


def _early_to_late(network: Network, picture: Picture) -> None:
    result = compute.run("stages", network, picture)
    if result is None:
        return
    key = compute.key_of("stages.rows", network, picture)
    data = compute.remembered(key, lambda: _rows(network.seen(picture), result), lambda rows: len(str(rows)))
    component("stages")(key="maps.early_to_late", data=data, on_unit_change=_open_unit)
    st.caption(
        "The strongest maps of each layer for this photo, bright where the unit is active, each on its own scale, with the "
        "number of its channel. On the right, what excites the strongest unit: the part of the photo, and its projection "
        f"({result.facts['rule']}). Click a picture to open the card of its unit."
    )
    if "not projected" in result.facts:
        messages.info(f"Not projected: {result.facts['not projected']}")
    name = downloads.file_name("stages", network.name, picture.name)
    downloads.row("maps", name, {"Early to late": result.panels[0].pixels}, result.arrays)


def _open_unit() -> None:
    clicked = state.clicked("maps.early_to_late", "unit")
    if clicked is None:
        return
    unit_picker.open_card(clicked[0], int(clicked[1]))


def _rows(seen: np.ndarray, result: Result) -> dict[str, Any]:
    """Data of the stages component."""
    arrays, rows = result.arrays, []
    for n, row in enumerate(result.table):
        values, peaks = arrays[f"maps_{n + 1}"], arrays["strength"][n]
        drawn = maps.tiles(values, "channel", _LARGEST)
        box, down = tuple(arrays["boxes"][n].tolist()), arrays["projection"][n]
        pair = [] if np.isnan(down).any() else stages.excited(seen, down, box)
        high, wide = row["field height"], row["field width"]
        rows.append(
            {
                "site": row["layer"], "title": row["layer"], "items": arrays["channels"][n][: len(drawn)].tolist(),
                "note": f"{row['channels']} maps of {row['columns']} × {row['rows']} cells\n"
                + (f"each sees {wide} × {high} pixels" if high else "receptive field unknown"),
                "tiles": {"src": uri(sheet(drawn, len(drawn), gap=0)), "count": len(drawn)},
                "ratio": f"{row['columns']} / {row['rows']}", "coarse": row["columns"] < _LARGEST,
                "details": [f"largest value {peak:.4g}" for peak in peaks[: len(drawn)]],
                "pair": [uri(shrink(pixels, _LARGEST)) for pixels in pair] if pair else [None, None],
            }
        )  # fmt: skip
    return {
        "heads": ["Strongest maps", "Photo", RULES[result.facts["rule"]]],
        "rows": rows,
        "label": "Layers from early to late",
    }


# One layer


def _one_layer(network: Network, picture: Picture, site: Site, result: Result, unchanged: np.ndarray) -> None:
    values = result.arrays["activations"]
    strongest = strength_order(unchanged)  # so that a unit stays in its place when it is changed
    order = strongest if state.get(state.ORDER) == "strength" else np.arange(len(values))
    channel = unit_picker.channel(strongest)
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
        unit_picker.stepper("maps", site.name, len(values), channel)
        is_zero = not (unchanged[channel].any() or values[channel].any())
        fader.draw("maps", network, picture, site.name, channel, is_zero)
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
    unit_picker.channel_sheet(
        "maps.sheet", key, lambda: maps.sheet_data(values, order, scale, numbers), site.name, channel
    )
    if scale == "channel":
        messages.info("Each channel has its own scale, from its smallest to its largest value.")
        return
    key = compute.key_of("sheet.scale", network, picture, unit=Unit(site.name, 0), scale=scale)
    low, high = compute.remembered(key, lambda: scale_limits(values, scale), lambda ends: 100)
    largest = float(limits(values)[1])
    words = "from the smallest to the largest value of the layer"
    if high < largest:
        words = f"99 % of the values are at most {high:.3g}; larger ones, up to {largest:.3g}, are as bright."
    st.html(maps.colour_scale(low, high, words))


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
