"""Feature maps: a drawn network, all channels of the chosen layer, one of them over the photo, the patch of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.sites import Unit
from vizapp.errors import VizError
from vizapp.ui import answers, charts, diagram, downloads, frame, maps, networks, notices, state
from vizapp.ui.components import component

if TYPE_CHECKING:
    from vizapp.engine.sites import Site
    from vizapp.engine.spans import Field
    from vizapp.media.picture import Picture
    from vizapp.methods.base import Result
    from vizapp.zoo.network import Network

_ORDERS = {"strength": "Strongest first", "number": "By number"}
_SCALES = {"layer": "One scale", "channel": "Scale per channel"}
_VIEWS = {"maps": "Pictures", "numbers": "Numbers"}


def page() -> None:
    """Draw the page."""
    frame.heading("Feature maps", "What each channel of a layer answers, and where. Click a layer, a channel, a cell.")
    asked = frame.network_and_picture()
    if asked is None:
        return
    network, picture = asked
    sites = networks.sites(network)
    if not sites:
        return
    site = _site(network, sites)
    component("diagram")(key="maps.diagram", data=diagram.drawing(sites, site.name), on_site_change=_take_layer)
    _controls(sites, site)
    result = answers.run("activations", network, picture, unit=Unit(site.name, 0))
    if result is None:
        return
    _show(network, picture, site, result)


def _site(network: Network, sites: tuple[Site, ...]) -> Site:
    """The chosen layer; the first rectified map when none is chosen or the network has no such layer."""
    name = state.get(state.LAYER)
    if name is not None:
        try:
            return network.site(name)
        except VizError as error:
            notices.sorry(f"{error} Showing another layer.")
            state.put(state.LAYER, None)
    rectified = (site for site in sites if site.is_map and site.kind == "activation")
    return next(rectified, next((site for site in sites if site.is_map), sites[0]))


def _take_layer() -> None:
    state.put(state.LAYER, st.session_state["maps.diagram"].site)


def _take_channel() -> None:
    state.put(state.CHANNEL, st.session_state["maps.sheet"].chosen)


def _take_cell() -> None:
    state.put(state.CELL, tuple(st.session_state["maps.map"].cell))


def _controls(sites: tuple[Site, ...], site: Site) -> None:
    shapes = {s.name: f"{s.name} · {' × '.join(map(str, s.shape))}" for s in sites}
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="maps_controls"):
        st.selectbox(
            "Layer", list(shapes), format_func=lambda name: shapes.get(name, name), width=340,
            label_visibility="collapsed", **state.shows(state.LAYER, "maps.layer", site.name),
        )  # fmt: skip
        _switch(state.VIEW, _VIEWS, "maps.view")
        _switch(state.ORDER, _ORDERS, "maps.order")
        if site.is_map:
            _switch(state.SCALE, _SCALES, "maps.scale")


def _switch(choice: state.Choice, words: dict[str, str], key: str) -> None:
    st.segmented_control(
        choice.name, list(words), format_func=words.__getitem__, required=True, label_visibility="collapsed",
        **state.shows(choice, key),
    )  # fmt: skip


def _show(network: Network, picture: Picture, site: Site, result: Result) -> None:
    from vizapp.methods.activations import statistics, strength_order

    values = result.arrays["activations"]
    order = strength_order(values) if state.get(state.ORDER) == "strength" else np.arange(len(values))
    channel = _channel(values, strength_order(values))
    numbers = statistics(values)
    left, right = frame.columns(7, 5)
    with left:
        if state.get(state.VIEW) == "numbers":
            _table(order, numbers)
        elif values.ndim == 3:
            _sheet(network, picture, site, values, order, numbers, channel)
        else:
            _bars(network, values, order, channel)
        _facts(result)
    with right:
        _stepper(len(values), channel)
        pictures = {"Sheet": result.panels[0].pixels} if result.panels else {}
        names = network.categories if len(network.categories) == len(values) else ()
        if names and values.ndim == 1:
            notices.hint(names[channel])
        if values.ndim == 3:
            pictures |= _map(network, picture, site, values[channel], channel)
    name = downloads.file_name(network.name, site.name, picture.name)
    downloads.row("maps", name, pictures, result.arrays)


def _channel(values: np.ndarray, by_strength: np.ndarray) -> int:
    """The chosen channel; the strongest when none is chosen or the layer has no such channel."""
    channel = state.get(state.CHANNEL)
    if channel is not None and channel >= len(values):
        notices.sorry(f"This layer has channels 0 to {len(values) - 1}, not {channel}. Showing the strongest.")
        state.put(state.CHANNEL, None)
        channel = None
    return int(by_strength[0]) if channel is None else int(channel)


def _sheet(
    network: Network, picture: Picture, site: Site, values: np.ndarray, order: np.ndarray,
    numbers: dict[str, np.ndarray], channel: int,
) -> None:  # fmt: skip
    scale = state.get(state.SCALE)
    key = answers.key_of("sheet", network, picture, unit=Unit(site.name, 0), order=state.get(state.ORDER), scale=scale)
    data = answers.remembered(
        key, lambda: maps.sheet_data(values, order, scale, numbers), size=lambda data: len(data["sprite"])
    )
    component("sheet")(key="maps.sheet", data=data | {"chosen": channel}, on_chosen_change=_take_channel)


def _bars(network: Network, values: np.ndarray, order: np.ndarray, channel: int) -> None:
    names = network.categories if len(network.categories) == len(values) else ()
    st.plotly_chart(charts.value_bars(values, order, channel, names), key="maps.bars", config={"displayModeBar": False})
    st.caption(f"{len(values)} numbers without a place in the picture.")


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
    for name in ("silent", "tokens", "not finite"):
        if name in result.facts:
            notices.hint(result.facts[name])


def _stepper(count: int, channel: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="maps_stepper"):
        st.html('<div class="vz-label">Channel</div>', width="content")
        st.number_input(
            "Channel", 0, count - 1, label_visibility="collapsed", width=130,
            **state.shows(state.CHANNEL, "maps.channel", channel),
        )  # fmt: skip
        st.caption(f"of {count}")


def _map(network: Network, picture: Picture, site: Site, values: np.ndarray, channel: int) -> dict[str, np.ndarray]:
    """The channel over the photo and the patch of the cell. Returns the pictures shown, by title."""
    seen = network.seen(picture)
    cell = state.get(state.CELL)
    if cell is not None and not (cell[0] < values.shape[0] and cell[1] < values.shape[1]):
        last = f"{values.shape[0] - 1},{values.shape[1] - 1}"
        notices.sorry(f"This layer has cells 0,0 to {last}, not {cell[0]},{cell[1]}. Click one.")
        state.put(state.CELL, None)
        cell = None
    field = _field(network, picture, site) if cell is not None else None
    box = field.box(cell) if field is not None else None
    data: dict[str, Any] = maps.map_data(seen, values, cell, box)
    data["label"] = f"Channel {channel} over the picture"
    component("map")(key="maps.map", data=data, on_cell_change=_take_cell)
    shown = {"Channel": maps.over_photo(seen, values)}
    if cell is not None and box is not None:
        shown["Patch"] = maps.patch(seen, box)
        _patch(shown["Patch"], cell, box, seen.shape[:2])
    return shown


def _patch(pixels: np.ndarray, cell: tuple[int, int], box: maps.Box, size: tuple[int, int]) -> None:
    top, left, bottom, right = box
    with st.container(key="beside"):
        picture, words = st.columns([2, 3], gap="medium", vertical_alignment="center")
    with picture:
        component("map")(key="maps.patch", data=maps.photo_data(pixels, "The patch that the cell sees"))
    with words:
        over = top < 0 or left < 0 or bottom > size[0] or right > size[1]
        st.caption(
            f"**Receptive field** of cell {cell[0]},{cell[1]}: {right - left} × {bottom - top} pixels"
            + (", reaching over the border (grey)." if over else ".")
        )


def _field(network: Network, picture: Picture, site: Site) -> Field | None:
    """The receptive fields of the layer, or None (with a sentence) where they are not known."""
    from vizapp.engine.fields import fields

    found = answers.compute(
        ("fields", network.digest, str(network.device)),
        lambda tick: fields(network.module, network.prepare(picture)),
        size=lambda found: 4000 * len(found),
        title="Following the receptive fields",
        device=str(network.device),
    )
    if found is not None and site.name not in found:
        notices.hint("The receptive field of this layer is not known.")
        return None
    return None if found is None else found[site.name]


if __name__ == "__main__":
    page()
