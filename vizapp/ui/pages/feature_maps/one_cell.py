"""One cell taken apart: the sum that made it, with what each channel below gave, and the way down to the pixels."""

from __future__ import annotations

import base64
from functools import partial
from html import escape
from typing import Any

import numpy as np
import streamlit as st

from vizapp.components.data import uri
from vizapp.engine.trace.sites import Site, Unit
from vizapp.media.drawing import GREY, contrast_limit, diverging
from vizapp.media.picture import Picture
from vizapp.methods.activations import strength_order, strongest_cell
from vizapp.methods.base import Result
from vizapp.methods.tables import to_csv
from vizapp.ui.pages.feature_maps import one_channel, walk
from vizapp.ui.session import compute, downloads, messages, reports, state
from vizapp.ui.widgets import layout, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_SHOWN = 14  # contributions; the others are summed
_MOST_CELLS = 400  # of a window whose numbers are told on pointing
_KINDS = ("patch", "weights", "products")
_TOLD = ("equation", "unit", "check", "network", "picture", "time", "interventions", "layer below", "walk")


def draw(network: Network, picture: Picture, site: Site) -> None:
    """Draw the unit's walk, the sum that made its cell, its channel over the photo, and the downloads."""
    unit = _unit(network, picture, site)
    if unit is None:
        return
    walk.draw(network, picture, unit)
    left, right = layout.columns(7, 5)
    with left:
        result = compute.run("arithmetic", network, picture, unit=unit)
        if result is not None:
            _sum(network, picture, unit, result)
    with right:
        unit_picker.stepper("maps", site.name, site.channels, unit.channel)
        names = network.readable_names(site)
        if names:
            messages.info(names[unit.channel])
        pictures = {} if result is None else {panel.title.capitalize(): panel.pixels for panel in result.panels}
        if unit.cell is not None:
            values = _layer(network, picture, site) if result is None else result.arrays["map"]
            if values is not None:
                channel = values if values.ndim == 2 else values[unit.channel]
                pictures |= one_channel.draw(network, picture, site, channel, unit.channel, unit.cell)
    if result is not None:
        reports.offer(result)
        name = downloads.file_name("arithmetic", network.name, walk.as_text(unit), picture.name)
        table = downloads.File("Table CSV", f"{name}.csv", "text/csv", lambda: to_csv(result.table).encode())
        downloads.row("maps.cell", name, pictures, result.arrays, [table])


def _unit(network: Network, picture: Picture, site: Site) -> Unit | None:
    """The chosen unit at the chosen cell, else the strongest; None where a message says why there is none."""
    channel, values = state.get(state.CHANNEL), None
    cell = unit_picker.cell(site.shape[1:]) if site.is_map else None
    if channel is None or channel >= site.channels or (site.is_map and cell is None):
        values = _layer(network, picture, site)
        if values is None:
            return None
        channel = unit_picker.channel(strength_order(values))
        if site.is_map and cell is None:
            cell = strongest_cell(values[channel])
    return Unit(site.name, int(channel), cell)


def _layer(network: Network, picture: Picture, site: Site) -> np.ndarray | None:
    result = compute.run("activations", network, picture, unit=Unit(site.name, 0))
    return None if result is None else result.arrays["activations"]


def _sum(network: Network, picture: Picture, unit: Unit, result: Result) -> None:
    """Draw the equation and the contributions, and what is to be known about them."""
    facts = result.facts
    terms = facts["equation"].split(" → ")
    st.html('<div class="vz-sum">' + "".join(f"<span>{escape(term)}</span>" for term in terms) + "</div>")
    rows = [row for row in result.table if row["index"] is not None]
    if rows:
        data = _data(network, unit, result, rows[:_SHOWN], rows[_SHOWN:])
        component("contributions")(
            key="maps.parts", data=data, on_item_change=partial(_take, network, picture, unit, result)
        )
        padding = " Grey cells are padding." if data["padded"] and data["tiles"] else ""
        if data["tiles"]:
            messages.info(f"Red is above zero, blue below; patch, kernel and products have a scale each.{padding}")
    for row in result.table:
        below = _below(row) if row["index"] is None else None
        if below is not None:
            told = f"The gate, {row['value']:.4g}: {walk.as_text(below)}".replace("-", "−")
            st.button(told, key="maps.gate", on_click=walk.go_down, args=(network, picture, unit, below))
    for name, sentence in facts.items():
        if name not in _TOLD:
            messages.info(f"{name.capitalize()}: {sentence}")
    with layout.fold():
        messages.info(f"Below: {facts['layer below']}. {facts['check']} {facts['time']} on {network.device}.")


def _take(network: Network, picture: Picture, unit: Unit, result: Result) -> None:
    number = state.clicked("maps.parts", "item")
    if number is None or int(number) >= len(result.table):
        return
    below = _below(result.table[int(number)])
    if below is not None:
        walk.go_down(network, picture, unit, below)


def _below(row: dict[str, Any]) -> Unit | None:
    """The unit that a row leads to; None if it is a pixel or in no layer."""
    if row["layer"] is None or row["channel"] is None:
        return None
    return Unit(row["layer"], row["channel"], None if row["row"] is None else (row["row"], row["column"]))


def _data(
    network: Network, unit: Unit, result: Result, rows: list[dict[str, Any]], others: list[dict[str, Any]]
) -> dict[str, Any]:
    """Data of the contributions component: the first rows with their pictures, the others summed."""
    arrays, order = result.arrays, [row["index"] for row in rows]
    grid = list(arrays["padded"].shape)
    pictured = grid != [1, 1]
    several = len({row["layer"] for row in result.table}) > 1
    numbers = np.stack([arrays[kind][order].reshape(len(order), -1) for kind in _KINDS], 1)  # [rows 3 cells]
    amounts = [row["contribution"] for row in others]
    rest = {
        "title": f"{len(others)} others, summed", "plus": sum(one for one in amounts if one > 0),
        "minus": sum(one for one in amounts if one < 0),
    }  # fmt: skip
    return {
        "heads": ["Below", *(["Patch × kernel = products"] if pictured else ["Value × weight"]), "Contribution, and its share"],
        "rows": [_row(network, row, number, arrays, several) for number, row in enumerate(rows)],
        "grid": grid,
        "tiles": {kind: _tiles(arrays[kind][order], arrays["padded"]) for kind in _KINDS} if pictured else None,
        "numbers": base64.b64encode(numbers.astype("<f4").tobytes()).decode()
        if pictured and grid[0] * grid[1] <= _MOST_CELLS else None,
        "padded": np.flatnonzero(arrays["padded"]).tolist(),
        "rest": rest if others else None,
        "bias": float(arrays["bias"]) or None,
        "total": float(arrays["sum"]),
        "name": "Sum",
        "label": f"What made channel {unit.channel} of {unit.site}",
    }  # fmt: skip


def _row(
    network: Network, row: dict[str, Any], number: int, arrays: dict[str, np.ndarray], several: bool
) -> dict[str, Any]:
    site = None if row["layer"] is None else network.site(row["layer"])
    names = network.readable_names(site) if site is not None else []
    if row["channel"] is None:
        title = "A number in no layer"
    elif site is None:
        title = walk.colour(network, row["channel"]).capitalize()
    else:
        title = names[row["channel"]] if names else f"Channel {row['channel']}"
    where = "" if row["row"] is None else f"{'cell' if site else 'pixel'} {row['row']},{row['column']}"
    note = " · ".join(part for part in (site.name if site and several else "", where) if part)
    value, weight = (float(arrays[kind][row["index"], 0, 0]) for kind in ("patch", "weights"))
    return {
        "title": title, "note": note, "item": number if _below(row) else None, "contribution": row["contribution"],
        "share": row["share"], "factors": f"{value:.4g} × {weight:.4g}".replace("-", "−"),
    }  # fmt: skip


def _tiles(values: np.ndarray, padded: np.ndarray) -> str:
    """Signed numbers `[n kh kw]` side by side, padding grey, as the address of a picture."""
    limit = contrast_limit(values) or 1.0
    drawn = []
    for one in values:
        drawn.append(diverging(one, limit))
        drawn[-1][padded] = GREY
    return uri(np.concatenate(drawn, 1))
