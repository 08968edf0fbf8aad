"""Feature maps: the strongest from early to late; all channels of a layer; or one cell, taken apart."""

from __future__ import annotations

import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.methods import stages
from vizapp.ui.pages.feature_maps import early_to_late, one_cell, one_layer
from vizapp.ui.session import state
from vizapp.ui.widgets import live, options, unit_picker

_STAGES = {"all": "Early → late", "one": "One layer", "cell": "One cell"}
_ORDERS = {"strength": "Strongest first", "number": "By number"}
_SCALES = {"clipped": "Shared scale", "layer": "Up to the largest", "channel": "Scale per channel"}
_VIEWS = {"maps": "Pictures", "numbers": "Numbers"}


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
    if live.draw(network, site):
        return
    shown = state.get(state.STAGES) or "all"
    if shown == "all" and not stages.stage_sites(network):
        shown = "one"
    _controls(sites, site, shown)
    if shown == "all":
        early_to_late.draw(network, picture)
    elif shown == "one":
        one_layer.draw(network, picture, site)
    else:
        one_cell.draw(network, picture, site)


def _show_one() -> None:
    """Leave the layers from early to late."""
    if state.get(state.STAGES) != "cell":
        state.put(state.STAGES, "one")


def _controls(sites: tuple[Site, ...], site: Site, shown: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="maps_controls"):
        unit_picker.switch(state.STAGES, _STAGES, "maps.stages", value=shown)
        if shown == "all":
            options.popover("stages", early_to_late.OPTIONS)
            return
        unit_picker.layer_list("maps", sites, site)
        if shown == "cell":
            return
        unit_picker.switch(state.VIEW, _VIEWS, "maps.view")
        unit_picker.switch(state.ORDER, _ORDERS, "maps.order")
        if site.is_map and state.get(state.VIEW) == "maps":
            unit_picker.switch(state.SCALE, _SCALES, "maps.scale")


if __name__ == "__main__":
    page()
