"""All channels of a layer, one of them over the photo, and what a cell of it sees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.trace.sites import Site, Unit
from vizapp.media.drawing import limits
from vizapp.media.picture import Picture
from vizapp.methods.activations import scale_limits, statistics, strength_order, strongest_cell
from vizapp.methods.base import Result
from vizapp.ui.pages.feature_maps import one_channel, sliding_kernel, walk
from vizapp.ui.session import compute, downloads, messages, reports, state
from vizapp.ui.widgets import fader, layout, maps, unit_picker
from vizapp.zoo.network import Network


def draw(network: Network, picture: Picture, site: Site) -> None:
    """Draw the channels and the chosen one, and the downloads."""
    params = {"order": state.get(state.ORDER), "scale": state.get(state.SCALE)}
    result = compute.run("activations", network, picture, unit=Unit(site.name, 0), **params)
    clean = result and compute.run("activations", network.clean, picture, unit=Unit(site.name, 0), **params)
    if result is not None and clean is not None:
        _draw(network, picture, site, result, clean.arrays["activations"])


def _draw(network: Network, picture: Picture, site: Site, result: Result, unchanged: np.ndarray) -> None:
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
        if values.ndim == 3 and state.get(state.VIEW) == "maps":
            chosen = state.get(state.CELL) or strongest_cell(values[channel])
            sliding_kernel.draw(network, picture, site, channel, chosen)
    with right:
        unit_picker.stepper("maps", site.name, len(values), channel)
        is_zero = not (unchanged[channel].any() or values[channel].any())
        fader.draw("maps", network, picture, site.name, channel, is_zero)
        pictures = {"Sheet": result.panels[0].pixels} if result.panels else {}
        if names:
            messages.info(names[channel])
        if values.ndim == 3:
            pictures |= one_channel.draw(network, picture, site, values[channel], channel)
        if values.ndim == 1 or state.get(state.CELL) is not None:
            walk.start_button(Unit(site.name, channel, state.get(state.CELL) if values.ndim == 3 else None))
    name = downloads.file_name(network.name, site.name, picture.name)
    reports.offer(result)
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
