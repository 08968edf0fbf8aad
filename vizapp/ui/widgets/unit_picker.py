"""Widgets that choose a unit: the network diagram, the layer, the channel, the cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, plural
from vizapp.media.picture import Picture
from vizapp.service.lru_cache import Key
from vizapp.ui.inputs import networks
from vizapp.ui.session import compute, messages, state
from vizapp.ui.session.choice import Choice
from vizapp.ui.widgets import charts, layout, maps, network_diagram
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.maps import Box
from vizapp.zoo.network import Network
from vizapp.zoo.target import SITE

Cell = tuple[int, int]


def open_page(
    page: str, title: str, sentence: str, late: bool = False, then: Callable[[], None] | None = None
) -> tuple[Network, Picture, tuple[Site, ...], Site] | None:
    """Draw the title and the network diagram of a page about a layer; returns network, picture, layers and chosen layer.

    None where a message says what is missing.

    Args:
        page: Prefix of the widget keys.
        title: Title of the page.
        sentence: What the page shows.
        late: As for `site`.
        then: Called after a click on a layer.
    """
    layout.page_title(title, sentence)
    asked = layout.answer_and_picture() if late else layout.network_and_picture()
    sites = networks.sites(asked[0]) if asked is not None else ()
    if asked is None or not sites:
        return None
    chosen = site(asked[0], sites, late)
    draw_network(page, sites, chosen, then)
    return *asked, sites, chosen


def site(network: Network, sites: tuple[Site, ...], late: bool = False) -> Site:
    """The chosen layer. If none is chosen or the network has no such layer, the first rectified map.

    `late` chooses the last convolution with several cells instead, unless a link names a channel or a cell: it then means
    the first map. (A ReLU6 after the convolution may be saturated, with a derivative of zero.)
    """
    found = chosen_site(network, state.LAYER)
    if found is not None:
        return found
    if late and network.target:
        return network.site(SITE)
    last = [site for site in sites if site.kind == "convolution" and site.is_map and site.shape[1] * site.shape[2] > 1]
    if late and last and state.get(state.CHANNEL) is None and state.get(state.CELL) is None:
        state.put(state.LAYER, last[-1].name)
        return last[-1]
    rectified = (site for site in sites if site.is_map and site.kind == "activation")
    return next(rectified, next((site for site in sites if site.is_map), sites[0]))


def chosen_site(network: Network, choice: Choice) -> Site | None:
    """The chosen layer; None if none is chosen or the network does not have it, which a message says."""
    name = state.get(choice)
    if name is None:
        return None
    try:
        return network.site(name)
    except VizError as error:
        messages.warn(f"{error} Showing another layer.")
        state.put(choice, None)
        return None


def draw_network(page: str, sites: tuple[Site, ...], site: Site, then: Callable[[], None] | None = None) -> None:
    """Draw the network as boxes to click. `page` is the prefix of the widget keys here and below; `then` follows a click."""
    key = f"{page}.diagram"

    def change() -> None:
        take_click(state.LAYER, key, "site")
        if then is not None:
            then()

    component("diagram")(key=key, data=network_diagram.drawing(sites, site.name), on_site_change=change)


def layer_labels(sites: Iterable[Site]) -> dict[str, str]:
    """Name and shape of layers, by name."""
    return {site.name: f"{site.name} · {' × '.join(map(str, site.shape))}" for site in sites}


def layer_list(page: str, sites: tuple[Site, ...], site: Site) -> None:
    """Draw the layers as a dropdown."""
    shapes = layer_labels(sites)
    st.selectbox(
        "Layer", format_func=lambda name: shapes.get(name, name), width=320,
        label_visibility="collapsed", **state.bind(state.LAYER, f"{page}.layer", site.name, options=list(shapes)),
    )  # fmt: skip


def class_list(
    key: str, network: Network, classes: Sequence[int], shown: int, choice: Choice = state.CLASS, label: str = "Class",
    **options: Any,
) -> None:  # fmt: skip
    """Draw classes as a dropdown.

    Args:
        key: Widget key.
        network: Names the classes.
        classes: The numbers of the classes.
        shown: The class to show.
        choice: The choice that it sets.
        label: Text over the dropdown.
        **options: Those of `st.selectbox`.
    """
    st.selectbox(
        label, format_func=lambda number: f"{network.readable_name(number)} · {number}" if number in classes else str(number),
        **state.bind(choice, key, shown, options=classes), **options,
    )  # fmt: skip


def switch(choice: Choice, words: dict[str, str], key: str, label: str = "", value: Any = None, **options: Any) -> None:
    """Draw a row of buttons, one per value of the choice.

    Args:
        choice: The choice.
        words: The text on the button of each value.
        key: Widget key.
        label: Text over the buttons, if `label_visibility` shows it.
        value: The value to show, if not that of the choice.
        **options: Those of `st.segmented_control`.
    """
    options = {"label_visibility": "collapsed"} | options | state.bind(choice, key, value)
    st.segmented_control(label or choice.name, list(words), format_func=words.__getitem__, required=True, **options)


def channel_sheet(key: str, cached: Key, make: Callable[[], dict[str, Any]], site: str, chosen: int) -> None:
    """Draw the channels of a layer as tiles: a click chooses one, a click on its corner opens its card.

    Args:
        key: Widget key.
        cached: Key of the tiles in the cache.
        make: Makes the data of the sheet component.
        site: Name of the layer.
        chosen: The channel to frame.
    """
    data = compute.remembered(cached, make, lambda data: len(data["sprite"]))
    take = partial(take_click, state.CHANNEL, key, "chosen")
    component("sheet")(
        key=key, data=data | {"chosen": chosen, "card": True}, on_chosen_change=take,
        on_card_change=partial(take_card, key, site),
    )  # fmt: skip


def channel(by_strength: np.ndarray) -> int:
    """The chosen channel; the strongest if none is chosen or the layer does not have it."""
    number = state.get(state.CHANNEL)
    if number is not None and number >= len(by_strength):
        messages.warn(f"This layer has channels 0 to {len(by_strength) - 1}, not {number}. Showing the strongest.")
        state.put(state.CHANNEL, None)
        number = None
    return int(by_strength[0]) if number is None else int(number)


def stepper(page: str, site: str, count: int, channel: int) -> None:
    """Draw the channel of a layer as a number field, with a button that opens its card."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{page}_stepper"):
        st.html('<div class="vz-label">Channel</div>', width="content")
        st.number_input(
            "Channel", 0, count - 1, label_visibility="collapsed", width=130,
            **state.bind(state.CHANNEL, f"{page}.channel", channel),
        )  # fmt: skip
        st.caption(f"of {count}", width="content")
        card_button(f"{page}.card", site, channel)


def cell(shape: tuple[int, ...], of: Choice = state.CELL, has: str = "This layer has cells") -> Cell | None:
    """The chosen cell of a map `(h, w)`; None if none is chosen or the map does not have it, which a message says."""
    chosen = state.get(of)
    if chosen is not None and not (chosen[0] < shape[0] and chosen[1] < shape[1]):
        last = f"{shape[0] - 1},{shape[1] - 1}"
        messages.warn(f"{has} 0,0 to {last}, not {chosen[0]},{chosen[1]}. Click one.")
        state.put(of, None)
        return None
    return None if chosen is None else (int(chosen[0]), int(chosen[1]))


def cell_map(page: str, seen: np.ndarray, values: np.ndarray, channel: int, cell: Cell | None, box: Box | None) -> None:
    """Draw a channel over the crop; a click chooses a cell.

    Args:
        page: Prefix of the widget keys.
        seen: The crop, uint8 `[H W 3]`.
        values: The channel, `[h w]`.
        channel: Number of the channel.
        cell: The chosen cell.
        box: Its receptive field.
    """
    key = f"{page}.map"
    data = maps.map_data(seen, values, cell, box) | {"label": f"Channel {channel} over the photo"}
    component("map")(key=key, data=data, on_cell_change=partial(take_click, state.CELL, key, "cell"))


def bars(page: str, values: np.ndarray, order: np.ndarray, channel: int, names: Sequence[str]) -> None:
    """Draw the values of a layer without cells as bars.

    Args:
        page: Prefix of the widget keys.
        values: `[C]`.
        order: The channels from left to right.
        channel: The highlighted channel.
        names: Names of the channels; may be empty.
    """
    charts.draw(f"{page}.bars", charts.value_bars(values, order, channel, names))
    st.caption(f"This layer has {plural(len(values), 'value')} and no map.")


def open_card(site: str, channel: int, other: bool = False) -> None:
    """Open the card of a unit in the next run. `other`: a unit of the network that the page Compare compares with."""
    state.put(state.CARD, f"{site}:{channel}")
    state.put(state.CARD_OF, "other" if other else "network")


def take_card(key: str, site: str, other: bool = False) -> None:
    """Open the card of the channel of `site` whose trigger "card" a component has sent."""
    clicked = state.clicked(key, "card")
    if clicked is not None:
        open_card(site, int(clicked), other)


def card_button(key: str, site: str, channel: int, label: str = "Unit card") -> None:
    """Draw a button that opens the card of a unit."""
    st.button(
        label, key=key, icon=":material/id_card:", on_click=open_card, args=(site, channel),
        help="Map, top photos, projection, ideal input and numbers of this unit",
    )  # fmt: skip


def take_click(choice: Choice, key: str, event: str) -> None:
    """Set the choice to what was clicked in the component."""
    clicked = state.clicked(key, event)
    if clicked is None:
        return
    state.put(choice, tuple(clicked) if isinstance(clicked, list) else clicked)
