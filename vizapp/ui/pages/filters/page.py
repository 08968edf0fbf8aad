"""Filters: a layer's kernels and their diagnosis; one kernel enlarged, with its tuning; the ideal input of any unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp import methods
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError
from vizapp.gallery.reader import find_galleries
from vizapp.media.drawing import heat
from vizapp.media.picture import Picture
from vizapp.methods.activations import statistics, strength_order
from vizapp.methods.base import Result
from vizapp.methods.filters import slices_of
from vizapp.ui.pages.filters import feature_visualization
from vizapp.ui.session import compute, downloads, forms, messages, progress, reports, state
from vizapp.ui.widgets import charts, image_tiles, kernel_sheets, layout, maps, options, unit_picker
from vizapp.zoo.network import Network

_VIEWS = {"maps": "Pictures", "numbers": "Numbers"}
_WHAT = {"off": "Kernels", "on": "Ideal input"}
_SCALES = {"layer": "Shared scale", "filter": "Scale per filter"}
_THRESHOLDS = ("alike", "shifts", "dead")
_WITHOUT_KERNELS = {"no-convolution-before", "no-kernels-of-its-own", "kernels-depend-on-picture"}


def page() -> None:
    """Draw the page."""
    opened = unit_picker.open_page(
        "filters",
        "Filters",
        "The weights that a layer has learned, and the ideal input of a unit. Click a layer, a filter.",
    )
    if opened is None:
        return
    network, picture, sites, site = opened
    alone = state.get(state.IDEAL) == "on"
    _controls(sites, site, alone)
    if alone:
        _show_ideal(network, picture, site, at_once=True)
        return
    try:
        result = _kernels(network, site)
    except VizError as error:
        if error.code not in _WITHOUT_KERNELS:
            raise
        messages.must_know(str(error))
        _show_ideal(network, picture, site)
        return
    if result is not None:
        _show(network, site, result)


def _kernels(network: Network, site: Site) -> Result | None:
    """The kernels of the layer; None if the user cancelled it.

    Raises:
        VizError: it has none.
    """
    params = forms.values("filters", _THRESHOLDS) | {"gallery": _gallery(network)}
    unit = Unit(site.name, 0)
    return compute.compute(
        compute.key_of("filters", network, unit=unit, **params),
        lambda tick: methods.ask("filters", network, unit=unit, tick=tick, **params),
        device=str(network.device), raises=True,
    )  # fmt: skip


def _gallery(network: Network) -> str:
    """The folder of the largest gallery of this network, if the user has asked for it.

    Not by itself: somebody else may have built it, and the result must not depend on that.
    """
    return str(next(iter(find_galleries(network)), "")) if progress.is_started(_request(network)) else ""


def _request(network: Network) -> tuple[str, str]:
    return ("filters.gallery", network.digest)


def _controls(sites: tuple[Site, ...], site: Site, alone: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="filters_controls"):
        unit_picker.layer_list("filters", sites, site)
        unit_picker.switch(state.IDEAL, _WHAT, "filters.ideal")
        if alone:
            return
        unit_picker.switch(state.VIEW, _VIEWS, "filters.view")
        unit_picker.switch(forms.choices("filters")["scale"], _SCALES, "filters.scale")
        options.popover("filters", _THRESHOLDS, "Thresholds")


def _show(network: Network, site: Site, result: Result) -> None:
    kernels = result.arrays["kernels"]
    norms = np.array([row["norm"] for row in result.table])
    chosen = unit_picker.channel(np.argsort(-norms, kind="stable"))
    left, right = layout.columns(7, 5)
    with left:
        if state.get(state.VIEW) == "numbers":
            _table(result)
        else:
            _sheet(network, site, result, chosen)
        _summary(network, result)
    with right:
        unit_picker.stepper("filters", site.name, len(kernels), chosen)
        pictures = _one(result, chosen)
        ideal = feature_visualization.draw(network, Unit(site.name, chosen))
    arrays = dict(result.arrays)
    reports.offer(result)
    if ideal is not None:
        pictures["Feature visualization"] = ideal.panels[0].pixels
        arrays |= {f"ideal_{name}": array for name, array in ideal.arrays.items()}
    name = downloads.file_name("filters", network.name, site.name, str(chosen))
    downloads.row("filters", name, pictures, arrays)


def _show_ideal(network: Network, picture: Picture, site: Site, at_once: bool = False) -> None:
    """Draw the ideal input of a unit of any layer, beside the layer's maps on the photo, where another unit is chosen."""
    scale, unit = state.get(state.SCALE), Unit(site.name, 0)
    asked = {"order": state.get(state.ORDER), "scale": scale}  # as on the page Feature maps
    layer = compute.run("activations", network, picture, unit=unit, **asked)
    if layer is None:
        return
    values = layer.arrays["activations"]
    order, names = strength_order(values), network.readable_names(site)
    chosen = unit_picker.channel(order)
    left, right = layout.columns(7, 5)
    with right:
        unit_picker.stepper("filters", site.name, len(values), chosen)
        if names:
            messages.info(names[chosen])
        if site.is_map:
            key = compute.key_of("filters.maps", network, picture, unit=unit, scale=scale)
            unit_picker.channel_sheet(
                "filters.maps",
                key,
                lambda: maps.sheet_data(values, order, scale, statistics(values)),
                site.name,
                chosen,
            )
            messages.info("The layer on this photo, strongest first. Click a channel for its ideal input.")
    with left:
        ideal = feature_visualization.draw(network, Unit(site.name, chosen), at_once)
    if ideal is not None:
        pictures = {"Feature visualization": ideal.panels[0].pixels}
        downloads.row(
            "filters", downloads.file_name("ideal", network.name, site.name, str(chosen)), pictures, ideal.arrays
        )


def _sheet(network: Network, site: Site, result: Result, chosen: int) -> None:
    scale = state.get(forms.choices("filters")["scale"])
    params = forms.values("filters", _THRESHOLDS) | {"scale": scale, "gallery": _gallery(network)}
    key = compute.key_of("filters.sheet", network, unit=Unit(site.name, 0), **params)
    unit_picker.channel_sheet("filters.sheet", key, lambda: kernel_sheets.sheet_data(result, scale), site.name, chosen)
    inputs = result.arrays["kernels"].shape[1]
    if inputs not in (1, 3):
        messages.info(f"Each filter has {inputs} input slices; the strongest are shown first. Grey is zero.")
    else:
        messages.info("Grey is zero." if inputs == 1 else "Shown as RGB; grey is zero.")


def _table(result: Result) -> None:
    table = pd.DataFrame(result.table)
    number = st.column_config.NumberColumn
    shares = ("mirror", "upside_down", "half_turn", "frequency", "grating", "alike")
    st.dataframe(
        table, hide_index=True, height=520, key="filters.table",
        column_config={name: forms.label(name) for name in table}
        | {"norm": number("Norm", format="%.3g"), "rms": number("RMS", format="%.3g")}
        | {"orientation": number("Orientation", format="%.0f°")}
        | {name: number(forms.label(name), format="%.2f") for name in shares},
    )  # fmt: skip


def _summary(network: Network, result: Result) -> None:
    """Describe the layer, and how its filters cover the frequencies."""
    messages.heading("Diagnosis")
    st.markdown(messages.escaped(result.facts["diagnosis"]))
    if "gallery" in result.facts:
        messages.info(f"In the gallery: {result.facts['gallery']}")
    elif not progress.is_started(_request(network)) and find_galleries(network):
        label = "Look for dead channels in the gallery"
        progress.start_button(label, "filters.gallery", _request(network), icon="photo_library")
    if "bands" in result.facts:
        counts = result.arrays["bands"]
        shares = {
            "Share of filters": counts / max(1, counts.sum()),
            "Share of spectral energy": result.arrays["energy"],
        }
        charts.draw("filters.bands", charts.coverage(shares, kernel_sheets.BANDS))
        messages.info("Low: below 1/6 cycle per input cell; high: above 1/3.")
    with layout.fold():
        messages.info(result.facts["layer"] + "." + (f" {result.facts['groups']}" if "groups" in result.facts else ""))
        messages.info(f"{result.facts['thresholds'].capitalize()}.")


def _one(result: Result, chosen: int) -> dict[str, np.ndarray]:
    """Draw one filter, its spectrum and its tuning; returns the pictures by title."""
    kernel, row = result.arrays["kernels"][chosen], result.table[chosen]
    shown = {f"Filter {chosen}": slices_of(kernel)}
    spatial = max(kernel.shape[1:]) > 1
    if spatial:
        shown["Spectrum"] = heat(result.arrays["spectrum"][chosen])
    notes = dict.fromkeys(shown, "") | {f"Filter {chosen}": f"{len(kernel)} × {kernel.shape[1]} × {kernel.shape[2]}"}
    image_tiles.side_by_side("filter", shown, notes, 2)
    st.caption("  \n".join(_sentences(row, spatial)))
    return shown


def _sentences(row: dict[str, Any], spatial: bool) -> list[str]:
    found = [f"**Norm** {row['norm']:.4g}, RMS {row['rms']:.4g}" + (" · **dead**" if row["dead"] else "")]
    if spatial and row["frequency"] is not None:
        words = f"**Tuned to** {row['frequency']:.3f} cycles per cell"
        if row["orientation"] is None:
            words = "**Tuned to** its mean: a blob without orientation"
        else:
            words += (
                f", stripes at {row['orientation']:.0f}° (this grating explains {100 * row['grating']:.0f} % of it)"
            )
        found.append(words)
    if row["half_turn"] is not None and spatial:
        found.append(
            f"**Symmetry** left to right {row['mirror']:+.2f}, upside down {row['upside_down']:+.2f}, half turn "
            f"{row['half_turn']:+.2f}"
        )
    if row["twin"] is not None:
        kind = ", a near-duplicate" if row["duplicate"] else ""
        found.append(f"**Most similar** filter {row['twin']}, correlation {row['alike']:.2f}{kind}")
    if row["opposite"]:
        found.append("**Opposite** another filter is its negative")
    return found


if __name__ == "__main__":
    page()
