"""The units of a layer as cards, twelve per page: patches beside projections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.errors import plural
from vizapp.gallery.reader import is_silent
from vizapp.media.drawing import sheet
from vizapp.media.transforms import Method, resize
from vizapp.methods.base import Question
from vizapp.ui.pages.gallery import unit_sheet
from vizapp.ui.session import downloads, messages, reports, state
from vizapp.ui.widgets import top_activations, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.top_activations import LayerGallery, UnitPatches, UnitProjections

_PER_PAGE = 12
_TILE = 72  # pixels of a photo in a report
_TITLES = 60  # characters of a class name on a card


def draw(layer: LayerGallery, order: np.ndarray) -> None:
    """Draw a page of units, patches first; `order` is the order of the units."""
    told = _facts(layer)
    messages.info(told)
    draw_pages(len(order), lambda some: _draw_some(layer, [int(channel) for channel in order[some]], told))
    if layer.is_whole:
        downloads.buttons("gallery.all", [unit_sheet.whole_gallery(layer)])


def draw_pages(count: int, draw_some: Callable[[slice], None]) -> None:
    """Draw the current page of `count` cards with `draw_some`, and buttons for the other pages."""
    pages = max(1, -(-count // _PER_PAGE))
    number = min(state.get(state.PAGE), pages)
    if count:
        draw_some(slice((number - 1) * _PER_PAGE, number * _PER_PAGE))
    _pager(number, pages)


def offer(
    layer: LayerGallery,
    title: str,
    cards: Sequence[tuple[dict[str, Any], UnitPatches, UnitProjections | None]],
    facts: dict[str, str],
) -> None:
    """Offer a page of cards for a report: patches beside projections, and a table of the units that have none.

    Args:
        layer: A layer of the gallery.
        title: Title of the section.
        cards: Data of the units component for each, its patches and its projections.
        facts: Sentences by name.
    """
    pictures, captions, rows = dict[str, np.ndarray](), dict[str, str](), []
    for card, looked, down in cards:
        told = ". ".join(str(card[name]) for name in ("note", "line") if card.get(name))
        if not looked.shown:
            rows.append({"unit": card["title"], "why it has no photo": card["empty"]})
            continue
        tiles = [list(map(_as_tile, one.pictures(_TILE))) for one in (looked, down) if one is not None]
        nines = [sheet(nine, 3, gap=2) for nine in tiles if nine]
        pictures[card["title"]], captions[card["title"]] = sheet(nines, 2, gap=8), told
    asked = Question(layer.asked.network, folder=layer.asked.collection.source)
    if layer.is_whole:
        facts = facts | {"pictures": "Left the parts of the photos that the unit sees, right their projections."}
    else:
        facts = facts | {"projections": "They follow after the last photo."}
    reports.offer_drawn("gallery", title, pictures, rows, facts, asked, {}, captions, columns=2)


def _as_tile(pixels: np.ndarray) -> np.ndarray:
    """A picture in the size of the tiles of a report."""
    height, width = pixels.shape[:2]
    scale = _TILE / max(height, width)
    method: Method = "nearest" if scale > 2 else "bilinear"
    return resize(pixels, max(1, round(scale * height)), max(1, round(scale * width)), method)


def _draw_some(layer: LayerGallery, channels: list[int], told: str) -> None:
    looked = top_activations.load_patches(layer, channels)
    if not looked:
        return
    place = st.empty()
    down = top_activations.cached_projections(layer, channels)
    if layer.is_whole and len(down) < len(channels):
        _draw(place, "gallery.patches", layer, looked, down)
        down |= top_activations.load_projections(layer, channels)
    _draw(place, "gallery.units", layer, looked, down)
    cards = [(_card(layer, channel, one, down.get(channel)), one, down.get(channel)) for channel, one in looked.items()]
    offer(layer, f"Units of {layer.site.name}", cards, {"units": f"{told} Here are {len(cards)} of them."})


def _draw(
    place: Any, key: str, layer: LayerGallery, looked: dict[int, UnitPatches], down: dict[int, UnitProjections]
) -> None:
    data = {
        "cards": [_card(layer, channel, looked[channel], down.get(channel)) for channel in looked],
        "label": f"Units of {layer.site.name}",
        "waiting": "Projecting …" if key == "gallery.patches" else "No projections yet",
    }
    with place.container():
        component("units")(
            key=key, data=data, on_chosen_change=partial(_open, key),
            on_card_change=partial(unit_picker.take_card, key, layer.site.name),
        )  # fmt: skip


def _card(layer: LayerGallery, channel: int, looked: UnitPatches, down: UnitProjections | None) -> dict[str, object]:
    names = layer.asked.network.readable_names(layer.site)
    unit = layer.found.unit(layer.site.name, channel)
    return {
        "item": channel,
        "title": f"{names[channel][:_TITLES]} · {channel}" if names else f"Unit {channel}",
        "note": _note(layer, channel, unit),
        "patches": top_activations.drawn(layer, channel, looked) if looked.shown else None,
        "down": top_activations.drawn(layer, channel, down) if down is not None and down.values else None,
        "empty": "Dead: zero for every photo" if is_silent(unit) else "No photo",
    }


def _note(layer: LayerGallery, channel: int, unit: pd.Series) -> str:
    """The note on a card: the most frequent class of the top pictures, else the maximum."""
    if is_silent(unit):
        return "dead"
    mix = layer.found.classes(layer.site.name, channel)
    name = next(iter(mix), None)
    if name is not None and mix.get(name, 0) > 1:
        return f"{mix[name]} of {sum(mix.values())} are {name[:28]}"
    maximum = float(unit["maximum"])
    return f"up to {maximum:,.0f}" if abs(maximum) >= 1000 else f"up to {maximum:.3g}"


def _facts(layer: LayerGallery) -> str:
    """The number of units, and how many of them are dead."""
    table = layer.found.units_of(layer.site.name)
    silent = int(is_silent(table).sum())
    below, always = int(table["dead"].sum()) - silent, int(table["always_on"].sum())
    counts = {"dead": silent, "never above zero": below, "always on": always}
    parts = [plural(len(table), "unit"), *(f"{count} {words}" for words, count in counts.items() if count)]
    sentence = ", ".join(parts) + "."
    if not layer.site.is_map:
        sentence += " They have no position in the photo, so whole photos are shown."
    return sentence


def _pager(number: int, pages: int) -> None:
    if pages == 1:
        return
    with st.container(horizontal=True, horizontal_alignment="center", vertical_alignment="center", key="gallery_pager"):
        st.button(
            "", key="gallery.before", icon=":material/chevron_left:", disabled=number == 1, on_click=state.put,
            args=(state.PAGE, number - 1), help="Previous units",
        )  # fmt: skip
        st.caption(f"Page {number} of {pages}", width="content")
        st.button(
            "", key="gallery.after", icon=":material/chevron_right:", disabled=number == pages, on_click=state.put,
            args=(state.PAGE, number + 1), help="More units",
        )  # fmt: skip


def _open(key: str) -> None:
    """Open the clicked unit; the layer is set too, so that the address names the unit."""
    channel = state.clicked(key, "chosen")
    if channel is None:
        return
    state.put(state.LAYER, state.load("gallery.layer"))
    state.put(state.CHANNEL, channel)
