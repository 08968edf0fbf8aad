"""Gallery: for each unit of a layer, the pictures that activate it most, and their projections; built from the page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, plural
from vizapp.gallery.reader import Gallery
from vizapp.methods.gallery import chosen_sites, revealing_site
from vizapp.ui.inputs import datasets, galleries, image_picker, networks
from vizapp.ui.inputs.galleries import GalleryRequest
from vizapp.ui.pages.gallery import gallery_runs, unit_cards, unit_order, unit_search, unit_sheet
from vizapp.ui.session import access, messages, progress, state
from vizapp.ui.widgets import layout, unit_picker
from vizapp.ui.widgets.top_activations import LayerGallery
from vizapp.zoo.network import Network

_KINDS = {"convolution": "All convolutions", "linear": "All linear layers", "all": "Everything"}
_TITLE = 60  # characters of the title of a collection


def page() -> None:
    """Draw the page."""
    layout.page_title("Gallery", "The photos that activate each unit of a layer most, and the parts it responds to.")
    network = networks.current()
    if network is None:
        return
    pictures = image_picker.choose_collection("gallery", network)
    sites = networks.sites(network)
    if pictures is None or not sites:
        return
    if state.get(state.GROUP) is not None:  # a link of the last release
        state.put(state.SEARCH, (state.get(state.GROUP),))
        state.put(state.GROUP, None)
    asked = galleries.gallery_request(network, pictures, _sites(network))
    if progress.is_started(asked.key) and not asked.is_whole:
        gallery_runs.follow(asked, lambda: _draw_known(asked))
    else:
        _line(asked)
        _draw_known(asked)


# Status


def _sites(network: Network) -> tuple[Site, ...]:
    try:
        return chosen_sites(network, state.get(state.SITES))
    except VizError as error:
        messages.warn(f"{error} Using the default layers.")
        state.put(state.SITES, ())
        return chosen_sites(network, ())


def _line(asked: GalleryRequest) -> None:
    """Draw the status of the gallery, and the button that builds it."""
    source, whole, begun = asked.collection.source, asked.is_whole, bool(asked.stamp)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="gallery_line"):
        elsewhere = None if whole else gallery_runs.progress_of_others(asked)
        if not whole:
            label = "Watch" if elsewhere is not None else "Continue" if begun else "Build"
            progress.start_button(label, "gallery.build", asked.key, type="primary")
        count, layers = plural(len(source), "photo"), plural(len(asked.sites), "layer")
        messages.info(f"{asked.collection.title[:_TITLE]} · {count} · {layers}")
        _layers(asked)
        st.button(
            "", key="gallery.read_again", icon=":material/refresh:", type="tertiary", on_click=datasets.read_again,
            help="List the photos again",
        )  # fmt: skip
    if elsewhere is not None:
        messages.info(
            f"Another user is building this gallery: {gallery_runs.words(elsewhere)}. It pauses while nobody has it open."
        )
    elif not whole and not begun:
        _nothing(asked)


def _layers(asked: GalleryRequest) -> None:
    names = [*_KINDS, *(site.name for site in asked.network.sites)]
    chosen = [name for name in state.get(state.SITES) if name in names]
    with st.popover("Layers", icon=":material/layers:"):
        st.multiselect(
            "Layers to look at", names, format_func=lambda name: _KINDS.get(name, name), width=420,
            placeholder="Activations and class scores",
            **state.bind(state.SITES, "gallery.layers", chosen, every_run=True, read=tuple),
        )  # fmt: skip
        messages.info("One pass covers all of them. Other layers need another pass.")


def _nothing(asked: GalleryRequest) -> None:
    """Draw a message in place of a missing gallery."""
    channels = sum(site.channels for site in asked.sites)
    layer, channel = state.get(state.LAYER), state.get(state.CHANNEL)
    unit = f" Then you will see unit {channel} of {layer}." if layer and channel is not None else ""
    missing = "There is no gallery of these photos yet."
    if asked.network.interventions:
        missing = "The network is changed, and there is no gallery of these photos for the changed network yet."
        if galleries.gallery_request(asked.network.clean, asked.collection, asked.sites).is_whole:
            missing += ' "Restore the network" above brings back the gallery of the unchanged network.'
    messages.info(
        f"{missing} One pass over the photos finds the nine that activate each of the {channels:,} "
        f"units most. You can leave this page and continue later.{unit}"
    )
    other = gallery_runs.other_weights(asked)
    if other:
        messages.info(other)


# Content


def _draw_known(asked: GalleryRequest) -> None:
    """Draw the gallery as far as it is built; if it is damaged, a message and a Rebuild button."""
    try:
        found = galleries.load_known(asked)
        if found is not None:
            _show(asked, found)
            return
    except VizError as error:
        messages.warn(str(error))
    if asked.is_whole:
        st.button("Rebuild", key="gallery.anew", on_click=gallery_runs.forget, args=(asked,))


def _show(asked: GalleryRequest, found: Gallery) -> None:
    sites = tuple(site for site in asked.sites if site.name in found.sites)
    site = _site(asked.network, sites)
    found.rows(site.name)  # read before drawing, because the file may be damaged
    channel = _channel(site)
    if channel is None:
        known = unit_search.known_classes(asked, found)
        unit_search.draw_box(asked, known)
        if state.get(state.SEARCH):
            unit_search.draw(asked, found, sites, known)
            return
    unit_picker.draw_network("gallery", sites, site)
    if found.seen < found.pictures:
        messages.info(
            f"The gallery after {found.seen:,} of {found.pictures:,} photos. Projections follow after the last one."
        )
    order = _controls(found, sites, site, channel)
    layer = LayerGallery(asked, found, site)
    if channel is not None:
        unit_sheet.draw(layer, channel, order, unit_search.ranking(asked, found, sites))
    else:
        unit_cards.draw(layer, order)
    _unreadable(found)


def _site(network: Network, sites: tuple[Site, ...]) -> Site:
    """The chosen layer, or the next one in the gallery; if none is chosen, the last one that sees parts of the photos."""
    last = revealing_site(network, sites)
    wanted = unit_picker.chosen_site(network, state.LAYER)
    if wanted is None:
        return last
    if wanted in sites:
        return wanted
    places = {site.name: place for place, site in enumerate(network.sites)}
    later = [site for site in sites if places[site.name] > places[wanted.name]]
    shown = later[0] if later else last
    messages.info(f"The gallery does not cover {wanted.name}. Showing {shown.name}; add layers under Layers.")
    return shown


def _channel(site: Site) -> int | None:
    """The chosen unit, if any."""
    channel, layer = state.get(state.CHANNEL), state.get(state.LAYER)
    if channel is None or (layer is not None and layer != site.name and not site.name.startswith(f"{layer}.")):
        return None
    if channel >= site.channels:
        messages.warn(f"This layer has units 0 to {site.channels - 1}, not {channel}. Showing all of them.")
        state.put(state.CHANNEL, None)
        return None
    return int(channel)


def _controls(found: Gallery, sites: tuple[Site, ...], site: Site, channel: int | None) -> np.ndarray:
    """Draw layer and order; returns the channels in that order."""
    sort, seed = state.get(state.SORT), state.get(state.SEED)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="gallery_controls"):
        unit_picker.layer_list("gallery", sites, site)
        if channel is None:
            unit_picker.switch(state.SORT, unit_order.SORTS, "gallery.sort")
            if sort == "random":
                st.button(
                    "", key="gallery.shuffle", icon=":material/shuffle:", on_click=state.put,
                    args=(state.SEED, seed + 1), help="Shuffle",
                )  # fmt: skip
    return unit_order.ranked(found, site.name, sort, seed)


def _unreadable(found: Gallery) -> None:
    failed = found.unreadable
    if failed:
        with st.expander(f"{plural(len(failed), 'photo')} could not be read"):
            table = pd.DataFrame(failed[:1000])[["path", "reason"]]
            table["reason"] = table["reason"].map(access.discreet)
            st.dataframe(table, hide_index=True, key="gallery.unreadable", column_config={
                "path": st.column_config.TextColumn("Photo"), "reason": st.column_config.TextColumn("Why", width="large"),
            })  # fmt: skip


if __name__ == "__main__":
    page()
