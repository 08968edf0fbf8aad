"""The card of a unit: its map on the photo, its top photos, its projection, its ideal input and its numbers, in a dialog.

A link opens it with `card=SITE:CHANNEL`, a page with `unit_picker.open_card`. Its parts are the results that the pages ask for
as well, from the same cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.arithmetic.stages import signed
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError
from vizapp.gallery.reader import Gallery, is_silent
from vizapp.media.drawing import contrasted
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.methods.activations import over_photo, strength_order, strongest_cell
from vizapp.methods.base import Result
from vizapp.methods.gallery import chosen_sites
from vizapp.ui.inputs import datasets, galleries, images, networks
from vizapp.ui.inputs.galleries import GalleryRequest
from vizapp.ui.session import compute, forms, messages, progress, state, url
from vizapp.ui.session.choice import Choice
from vizapp.ui.widgets import image_tiles, layout, maps, projection_tiles, top_activations
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.top_activations import LayerGallery
from vizapp.zoo.network import Network

IDEAL = ("extent", "restarts", "diversity", "steps", "size", "parameters", "contrast", "variation", "l2", "seed")
_KEPT = frozenset({"norm", "activation", "identity"})  # kinds of layers whose channels are those of the layer before
_QUICK = 2.0  # an ideal input starts by itself if it is expected to take at most this many seconds
_PASSES = 3  # forward passes that cost as much as one step of an ideal input
_SMALLEST = 48  # pixels: see `methods.ideal`
_TILE, _LARGEST = 110, 440  # pixels
_PAGES = (
    ("feature_maps", "Feature map", state.STAGES, "one"), ("projection", "Projection", state.MODE, "one"),
    ("gallery", "Gallery", state.DATA, None), ("filters", "Ideal input", state.IDEAL, "on"),
)  # fmt: skip  # each with a choice that the link carries, and its value if that is not the current one
_PARTS = ("map", "nine", "down", "ideal")


# The dialog


def close_card() -> None:
    """Close the card."""
    state.put(state.CARD, None)


def is_loaded() -> bool:
    """Whether the card can be drawn before the page: its network is loaded, so that nothing is said twice."""
    return state.get(state.CARD) is not None and networks.is_open(_is_other())


def show(links: Mapping[str, Any]) -> None:
    """Draw the card of the unit that was opened, if any. `links`: the pages by key."""
    name = state.get(state.CARD)
    if name is None or not networks.is_open(_is_other()):  # the page says what is wrong with the network
        return
    network = _network()
    site_name, _, channel = name.rpartition(":")
    if network is None or not networks.sites(network):
        return
    try:
        site = network.site(site_name)
        if int(channel) >= site.channels:
            raise VizError(
                f"{site.name} has units 0 to {site.channels - 1} and no unit {channel}.", code="no-such-channel"
            )
    except VizError as error:
        close_card()
        messages.warn(f"{error} The link's card was ignored.")
        return
    names = network.readable_names(site)
    title = f"Unit {channel} of {site.name}" + (f": {names[int(channel)]}" if names else "")
    body = partial(messages.guard, partial(_draw, site.name, int(channel), links))
    st.dialog(messages.escaped(title), width="large", on_dismiss=close_card)(body)()


def _is_other() -> bool:
    return bool(state.get(state.CARD_OF) == "other")


def _network() -> Network | None:
    return networks.other() if _is_other() else networks.current()


def _draw(site_name: str, channel: int, links: Mapping[str, Any]) -> None:
    """Draw the parts, those that are computed soon first."""
    if state.get(state.CARD) is None:
        st.rerun()
    network, picture = _network(), images.current()
    if network is None:
        return
    site = network.site(site_name)
    _links(network, Unit(site.name, channel), links)
    with st.container(key="card_parts"):
        places = {name: st.container(key=f"card_{name}") for name in _PARTS}
    numbers = st.container(key="card_numbers")
    with places["map"]:
        layer = _activations(network, picture, site)
        if layer is not None:
            _map(network, picture, site, layer.arrays["activations"], channel)
    with places["nine"]:
        found = _gallery(network, site, channel, links)
    with numbers:
        facts = {} if layer is None else _on_photo(network, site, layer.arrays["activations"], channel)
        _numbers({"On this photo": facts} | ({} if found is None else {"In the gallery": _in_gallery(found, channel)}))
    if layer is None:
        return
    with places["down"]:
        _projection(network, picture, site, layer.arrays["activations"], channel)
    with places["ideal"]:
        _ideal(network, site, channel, layer)


def _links(network: Network, unit: Unit, links: Mapping[str, Any]) -> None:
    """Draw the links to the pages that show more of the unit."""
    query = url.link({state.LAYER.name: unit.site, state.CHANNEL.name: str(unit.channel)})
    if _is_other():
        of = {state.NETWORK: state.OTHER, state.WEIGHTS: state.OTHER_WEIGHTS, state.CHECKPOINT: state.OTHER_CHECKPOINT}
        query |= {choice.name: str(state.get(other)) for choice, other in of.items() if state.get(other) is not None}
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="card_links"):
        for key, label, choice, value in _PAGES:
            if key == state.page():  # a link to the page itself does not change the address in the browser
                st.button(
                    label, key="card.here", icon=links[key].icon, type="tertiary", on_click=_show_here,
                    args=(unit, choice, value),
                )  # fmt: skip
                continue
            chosen = state.get(choice) if value is None else value
            more = {} if chosen is None else {choice.name: str(chosen)}
            st.page_link(links[key], label=label, query_params=query | more, width="content")


def _show_here(unit: Unit, choice: Choice, value: str | None) -> None:
    """Choose the unit on the page, and close the card."""
    state.put(state.LAYER, unit.site)
    state.put(state.CHANNEL, unit.channel)
    if value is not None:
        state.put(choice, value)
    close_card()


# Its parts


def _activations(network: Network, picture: Picture, site: Site) -> Result | None:
    """The maps of the layer, as one of the pages has asked for them already, if any has."""
    unit = Unit(site.name, 0)
    asked = {"order": state.get(state.ORDER), "scale": state.get(state.SCALE)}
    known: Result | None = compute.answers().get(compute.key_of("activations", network, picture, unit=unit, **asked))
    return compute.poll("activations", network, picture, unit=unit) if known is None else known


def _map(network: Network, picture: Picture, site: Site, values: np.ndarray, channel: int) -> None:
    seen = network.seen(picture)
    if not site.is_map:
        image_tiles.title("On the photo")
        image_tiles.picture("card.map", seen, "What the network sees of the photo")
        messages.info("This layer has one number per unit and no map.")
        return
    row, column = strongest_cell(values[channel])
    box = None if site.receptive_field is None else site.receptive_field.box((row, column))
    image_tiles.title("On the photo", f"up to {signed(values[channel].max())}")
    image_tiles.picture("card.map", over_photo(seen, values[channel]), f"Channel {channel} over the photo", box)
    messages.info(
        "Zero everywhere on this photo." if not values[channel].any() else f"Strongest at cell {row},{column}, framed."
    )


def _gallery(network: Network, site: Site, channel: int, links: Mapping[str, Any]) -> LayerGallery | None:
    """Draw the nine photos; returns the layer of the gallery that has them, if there is one."""
    image_tiles.title("Top photos")
    known = _covering(network, site)
    if known is None:
        return None
    asked, found, covered = known
    collection = asked.collection
    if found is None or covered is None:
        messages.info(
            f"There is no gallery of {collection.title} for this network yet." if found is None
            else f"The gallery of {collection.title} does not cover this layer."
        )  # fmt: skip
        label = "Build it" if found is None else "Add the layer"
        st.page_link(links["gallery"], label=label, icon=":material/photo_library:", query_params=url.link({}))
        return None
    layer = LayerGallery(asked, found, covered)
    looked = top_activations.poll_patches(layer, channel)
    if looked is None:
        return layer
    if not looked.shown:
        messages.info("This unit is zero for every photo, so it has no top photos.")
        return layer
    titles = [f"{place + 1}" + (f" · {item.label}" if item.label else "") for place, item in enumerate(looked.shown)]
    details = [f"activation {signed(item.activation)} · {item.path}" for item in looked.shown]
    data = maps.three_across(looked.pictures(_TILE), titles, details, f"The top photos of unit {channel}")
    component("sheet")(key="card.nine", data=data)
    mix = found.classes(covered.name, channel)
    first = next(iter(mix), None)
    words = f"{mix[first]} of {sum(mix.values())} are {first}. " if first is not None and mix[first] > 1 else ""
    elsewhere = "" if covered.name == site.name else f" Measured at {covered.name}, which has the same units."
    messages.info(f"{words}From {collection.title}.{elsewhere}")
    return layer


def layer_gallery(network: Network, site: Site) -> LayerGallery | None:
    """The gallery of the chosen photos with the units of a layer, if there is one."""
    known = _covering(network, site)
    if known is None or known[1] is None or known[2] is None:
        return None
    return LayerGallery(known[0], known[1], known[2])


def _covering(network: Network, site: Site) -> tuple[GalleryRequest, Gallery | None, Site | None] | None:
    """The gallery of the chosen photos, as far as it is built, and the layer in it that has the units of `site`."""
    collection = datasets.list_collection(datasets.chosen_text(network))
    if collection is None:
        return None
    try:
        sites = chosen_sites(network, state.get(state.SITES))
    except VizError:  # the layers of another network
        sites = chosen_sites(network, ())
    asked = galleries.gallery_request(network, collection, sites)
    found = galleries.load_known(asked)
    covered = (
        None if found is None else next((one for one in same_units(network, site) if one.name in found.sites), None)
    )
    return asked, found, covered


def same_units(network: Network, site: Site) -> list[Site]:
    """The layer, and its neighbours in running order that have the same channels: a convolution, its norm, its rectifier."""
    sites = network.sites
    place = [one.name for one in sites].index(site.name)
    after, before = [], []
    for one in sites[place + 1 :]:
        if one.kind not in _KEPT or one.shape != site.shape:
            break
        after.append(one)
    for one, next_one in zip(sites[place - 1 :: -1] if place else (), sites[place::-1], strict=False):
        if next_one.kind not in _KEPT or one.shape != site.shape:
            break
        before.append(one)
    return [sites[place], *after, *before]


def _projection(network: Network, picture: Picture, site: Site, values: np.ndarray, channel: int) -> None:
    at_cell = site.is_map and state.get(forms.choices("projection")["extent"]) == "cell"
    unit = Unit(site.name, channel, strongest_cell(values[channel]) if at_cell else None)
    params = forms.values("projection", projection_tiles.OPTIONS)
    rule = projection_tiles.rule(network)
    image_tiles.title("Projection", projection_tiles.RULES[rule])
    result = compute.poll("projection", network, picture, unit=unit, title="Projecting", rule=rule, **params)
    if result is None:
        return
    down, box = result.arrays["projection"], tuple(result.arrays["field"].tolist())
    pixels = projection_tiles.crop_or_whole(contrasted(down), box, state.get(state.PART))
    image_tiles.picture("card.down", shrink(pixels, _LARGEST), f"Projection of unit {channel}")
    messages.info("Mid-grey is zero." if down.any() else "Zero: the unit does not respond to this photo.")


def ideal_key(network: Network, unit: Unit) -> tuple[Any, dict[str, Any]]:
    """The key and the parameters of the ideal input of a unit, as the form of the page Filters says."""
    params = forms.values("ideal", IDEAL)
    return compute.key_of("ideal", network, unit=unit, **params), params


def _ideal(network: Network, site: Site, channel: int, layer: Result) -> None:
    unit = Unit(site.name, channel)
    key, params = ideal_key(network, unit)
    image_tiles.title("Ideal input")
    seconds = _seconds(network, site, params, float(layer.facts["time"].split()[0]))
    known = compute.answers().get(key) is not None or progress.is_started(key) or progress.is_cancelled(key)
    if not known and seconds > _QUICK:
        messages.info("An image optimized from noise to excite this unit.")
        label = f"Generate, about {messages.duration(max(1.0, seconds))}"
        progress.start_button(label, "card.paint", key, icon="brush")
        return
    result = compute.poll("ideal", network, unit=unit, title="Optimizing", **params)
    if result is None:
        return
    reached = float(result.arrays["activation"][0])
    image_tiles.picture("card.ideal", result.arrays["pictures"][0], f"The ideal input of unit {channel}")
    messages.info(f"Reaches {reached:.4g}: {result.facts['unit'].partition('; maximized: ')[2]}.")


def _seconds(network: Network, site: Site, params: Mapping[str, Any], each: float) -> float:
    """The expected seconds of an ideal input, if a pass up to the layer takes `each` seconds."""
    height, width = network.input_size[1:]
    field = site.receptive_field
    seen = min(height, width) if field is None or field.size is None or not site.is_map else min(field.size)
    side = params["size"] or min(height, width, max(_SMALLEST, 2 * seen))
    return float(_PASSES * params["steps"] * params["restarts"] * each * side**2 / (height * width))


# Numbers


def _on_photo(network: Network, site: Site, values: np.ndarray, channel: int) -> dict[str, str]:
    order = strength_order(values).tolist()
    one = values[channel]
    facts = {
        "Value" if not site.is_map else "Largest value": signed(float(one.max())),
        "Rank in the layer": f"{order.index(channel) + 1} of {len(values)}",
    }
    if site.is_map:
        facts |= {
            "Mean of the map": signed(float(one.mean())),
            "Cells above zero": f"{100 * float((one > 0).mean()):.0f} %",
        }
        size = None if site.receptive_field is None else site.receptive_field.size
        facts["Receptive field"] = f"{size[1]} × {size[0]} pixels" if size is not None else "varies"
    return facts


def _in_gallery(layer: LayerGallery, channel: int) -> dict[str, str]:
    unit: pd.Series = layer.found.unit(layer.site.name, channel)
    edges, counts = layer.found.histogram(layer.site.name, channel)  # of the photos' largest values
    above = counts[edges[:-1] > 0].sum() / max(1, counts.sum())
    return {
        "Largest value": signed(unit["maximum"]),
        "Mean of the photos' largest": signed(unit["mean_maximum"]),
        "Photos where it is above zero": f"{100 * above:.0f} %",
        "Selectivity, 0 to 1": "dead" if is_silent(unit) else f"{unit['selectivity']:.2f}",
        "Photos": f"{layer.found.seen:,}",
    }


def _numbers(groups: Mapping[str, Mapping[str, str]]) -> None:
    for title, facts in groups.items():
        if facts:
            with st.container():
                messages.heading(title)
                st.html(layout.facts_table(facts))
