"""The search of units by classes: the box, what it means, and the best units of all layers as cards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, plural
from vizapp.gallery.reader import Gallery
from vizapp.gallery.search import EXCEPT, TopClasses, require_places, search
from vizapp.methods.gallery import photos_with_classes
from vizapp.ui.inputs.galleries import GalleryRequest
from vizapp.ui.pages.gallery import unit_cards
from vizapp.ui.session import compute, messages, state
from vizapp.ui.widgets import top_activations, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.top_activations import LayerGallery, UnitPatches, UnitProjections
from vizapp.zoo import wordnet
from vizapp.zoo.labels import readable
from vizapp.zoo.network import Network

WITHIN = {"hidden": "Hidden layers", "classes": "Class scores", "all": "All layers"}
_EXAMPLES = {"dog", "cat", "bird", "fish", "snake", "insect", "vehicle", "food", "furniture", "clothing", "building"}
_NAMED = 8  # classes named on a card
_LONGEST = 100  # characters of them
_BOX: dict[str, Any] = {"select_all": False, "filter_mode": "contains"}  # Enter takes the first match, not all

SCORE = (
    "Units are ordered by average precision, as if they were search engines: 1 if a unit's strongest photos are all of these "
    "classes, 0 if none is; the earlier they come among the strongest, the better."
)


def known_classes(asked: GalleryRequest, found: Gallery) -> TopClasses:
    """The classes of the strongest photos: those of the gallery, or those that vizapp ships for the network."""
    texts = _wanted()
    return compute.remembered(
        (f"gallery.classes {texts!r}", str(asked.folder), str(found.seen), asked.collection.listing),
        lambda: photos_with_classes(asked.network, found, asked.collection.source, texts),
    )


def _wanted() -> tuple[str, ...]:
    """The texts that are searched for, without the exceptions."""
    return tuple(text for text in state.get(state.SEARCH) if not text.startswith(EXCEPT))


def draw_box(asked: GalleryRequest, known: TopClasses) -> None:
    """Draw the box to search in, or a hint where the photos have no classes."""
    if not known.labels:
        messages.info(
            "To find units by class, give the photos classes: one sub-folder per class, or a CSV file with the columns path "
            "and label, opened by its path under Folder."
        )
        return
    choices, chosen = _choices(asked.network, known), list(_wanted())
    choices |= {text: text for text in chosen if text not in choices}
    st.multiselect(
        "Which units fire for …", list(choices), format_func=lambda text: choices.get(text, text), width=620,
        placeholder="dog, bird, car … a class, a kind of thing, or any word", accept_new_options=True,
        help=SCORE, **_BOX, **state.bind(state.SEARCH, "gallery.search", chosen, every_run=True, read=tuple),
    )  # fmt: skip


def _all_classes(network: Network, known: TopClasses) -> Sequence[str]:
    """The classes of the photos; all of the network if the photos have some of these."""
    return network.categories if set(known.labels) <= set(network.categories) else known.labels


def _choices(network: Network, known: TopClasses) -> dict[str, str]:
    """What the box offers: text to search for -> its label.

    Some examples are first, then the shortest: of the matches of "car", that is "car" and not "carnivore".
    """

    def make() -> dict[str, str]:
        classes, found = _all_classes(network, known), dict[str, str]()
        for number in wordnet.groups(known.labels):
            name = wordnet.synsets()[number].names[0]
            found[name] = f"{name} · {len(wordnet.matches(name, classes))} classes"
        for text, label in zip(wordnet.texts(known.labels), known.labels, strict=True):
            found.setdefault(text, readable(label))
        order = sorted(found, key=lambda text: (text not in _EXAMPLES, len(found[text].partition(" · ")[0]), text))
        return {text: found[text] for text in order}

    key = ("gallery.choices", state.name_of((network.categories, known.labels)))
    return compute.remembered(key, make, size=lambda found: 100 * len(found))


def ranking(asked: GalleryRequest, found: Gallery, sites: Sequence[Site]) -> list[tuple[str, int]]:
    """Layer and channel of the units that the current search finds, best first; empty without a search."""
    if not _wanted():
        return []
    known = known_classes(asked, found)
    try:
        places = require_places(known.meant(state.get(state.SEARCH)), known.labels)
    except VizError:  # the search itself says what is wrong with it
        return []
    table = _of_layers(asked, sites, search(known, places))
    return list(zip(table["site"], table["channel"].tolist(), strict=True))


def draw(asked: GalleryRequest, found: Gallery, sites: Sequence[Site], known: TopClasses) -> None:
    """Draw what the search means and its best units."""
    texts = state.get(state.SEARCH)
    try:
        places = require_places(known.meant(texts), known.labels)
    except VizError as error:
        messages.warn(str(error))
        return
    _meaning(asked, known, places)
    if 0 < len(_classified(asked, sites)) < len(sites):
        unit_picker.switch(state.WITHIN, WITHIN, "gallery.within")
    table = _of_layers(asked, sites, search(known, places))
    if known.photos != len(asked.collection.source) and len(table):  # the tiles are of another collection
        _headline(asked, int(table["hits"][0]), int(table["of"][0]))
    whole = asked.is_whole and found.seen == found.pictures
    by_name = {site.name: site for site in sites}
    unit_cards.draw_pages(len(table), partial(_draw_cards, asked, found, by_name, known, table, whole))


def _headline(asked: GalleryRequest, hits: int, of: int) -> None:
    """Draw what the best unit finds, and why its tiles do not show it."""
    names = " or ".join(messages.escaped(_name(text)) for text in _wanted())
    title = messages.escaped(asked.collection.title[:_LONGEST])
    st.markdown(
        f"**{hits} of the {of} strongest photos of the best unit show: {names}.** They are ImageNet photos, which the app "
        f"may not show. The tiles are the strongest parts of the {title}, which need not show any."
    )


def _meaning(asked: GalleryRequest, known: TopClasses, places: Sequence[int]) -> None:
    """Draw which classes are meant, and a fold to change them."""
    classes = _all_classes(asked.network, known)
    parts = [f"{_name(text)}: {plural(len(wordnet.matches(text, classes)), 'class', 'classes')}" for text in _wanted()]
    photos = int(known.counts[places].sum())
    sentence = (
        f"{'; '.join(parts)}. {photos:,} of {known.about} show {'it' if photos == 1 else 'them'} "
        f"({100 * known.share_of_photos(places):.0f} %). "
        f"The order is that of average precision; each card says how many of the unit's {known.top.shape[1]} strongest do."
    )
    messages.info(sentence)
    with st.expander("The classes with photos"):
        names = [known.labels[place] for place in places]
        st.multiselect(
            "Classes", list(known.labels), format_func=readable, label_visibility="collapsed",
            **_BOX, **state.bind(
                state.SEARCH, "gallery.meant", names, every_run=True, read=partial(_changed, known.labels, names),
            ),
        )  # fmt: skip


def _changed(labels: Sequence[str], before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    """The search after classes were taken out of those meant, or put in."""
    found = list(state.get(state.SEARCH))
    for text, label in zip(wordnet.texts(labels), labels, strict=True):
        if label in before and label not in now:
            found = [one for one in found if one != text] + [EXCEPT + text]
        elif label in now and label not in before:
            found = [one for one in found if one != EXCEPT + text] + ([] if EXCEPT + text in found else [text])
    return tuple(found) if any(not text.startswith(EXCEPT) for text in found) else ()


def _name(text: str) -> str:
    """A text as the user knows it: a number of WordNet by its name."""
    known = wordnet.synsets().get(text)
    return text if known is None else known.names[0]


def _classified(asked: GalleryRequest, sites: Sequence[Site]) -> set[str]:
    """The layers whose units are classes."""
    return {site.name for site in sites if asked.network.class_names(site)}


def _of_layers(asked: GalleryRequest, sites: Sequence[Site], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the chosen layers."""
    named = _classified(asked, sites)
    everywhere = table["site"].isin([site.name for site in sites])
    if not named or len(named) == len(sites):
        return table[everywhere].reset_index(drop=True)
    chosen = {"hidden": ~table["site"].isin(named), "classes": table["site"].isin(named), "all": everywhere}
    return table[chosen[state.get(state.WITHIN)] & everywhere].reset_index(drop=True)


def _draw_cards(
    asked: GalleryRequest, found: Gallery, sites: dict[str, Site], known: TopClasses, table: pd.DataFrame, whole: bool,
    rows: slice,
) -> None:  # fmt: skip
    """Draw some units as cards: patches of all of them, then the projections layer by layer as they come."""
    some = table[rows]
    layers = {name: LayerGallery(asked, found, sites[name]) for name in some["site"].unique()}
    channels = {name: some[some["site"] == name]["channel"].tolist() for name in layers}
    looked = {
        (name, channel): one
        for name, layer in layers.items()
        for channel, one in top_activations.load_patches(layer, channels[name]).items()
    }
    if len(looked) < len(some):
        return
    down = {
        (name, channel): one
        for name, layer in layers.items()
        for channel, one in top_activations.cached_projections(layer, channels[name]).items()
    }
    place = st.empty()
    missing = [name for name in layers if whole and any((name, channel) not in down for channel in channels[name])]
    for drawn, name in enumerate(missing):
        _show(place, f"gallery.found.{drawn}", layers, known, some, looked, down, "Projecting …")
        down |= {(name, n): one for n, one in top_activations.load_projections(layers[name], channels[name]).items()}
    cards = _show(place, "gallery.found", layers, known, some, looked, down, "No projections yet")
    units = list(zip(some["site"], some["channel"].tolist(), strict=True))
    shown = [(_titled(card), looked[unit], down.get(unit)) for card, unit in zip(cards, units, strict=True)]
    names = " or ".join(map(_name, _wanted()))
    if shown:
        unit_cards.offer(layers[units[0][0]], f"Units that fire for {names}", shown, {"order": SCORE})


def _titled(card: dict[str, Any]) -> dict[str, Any]:
    """The data of a card with the title that a report gives it."""
    site, _, channel = card["item"].rpartition(":")
    return card | {"title": f"Unit {channel} of {site}"} if card["title"].startswith(site) else card


def _show(
    place: Any, key: str, layers: dict[str, LayerGallery], known: TopClasses, some: pd.DataFrame,
    looked: dict[tuple[str, int], UnitPatches], down: dict[tuple[str, int], UnitProjections], waiting: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Draw the cards; returns their data."""
    cards = []
    for row in some.itertuples():
        unit, layer = (row.site, row.channel), layers[row.site]
        names = layer.asked.network.readable_names(layer.site)
        projections = down.get(unit)
        cards.append(
            {
                "item": f"{row.site}:{row.channel}",
                "title": f"{names[row.channel]} · {row.site}" if names else f"{row.site} · {row.channel}",
                "note": f"{row.hits} of {row.of} · score {row.score:.2f}",
                "line": _most(known.classes_of(row.row)),
                "patches": top_activations.drawn(layer, row.channel, looked[unit]) if looked[unit].shown else None,
                "down": top_activations.drawn(layer, row.channel, projections) if projections and projections.values else None,
                "empty": "Dead: zero for every photo",
            }
        )  # fmt: skip
    data = {"cards": cards, "label": "Units found, the best first", "waiting": waiting}
    with place.container():
        component("units")(
            key=key, data=data, on_chosen_change=partial(_open, key), on_card_change=partial(_open_card, key)
        )
    return cards


def _most(classes: dict[str, int]) -> str:
    """The most frequent classes as a line."""
    parts: list[str] = []
    for name, count in list(classes.items())[:_NAMED]:
        parts.append(readable(name) if count == 1 else f"{readable(name)} {count}")
        if len(", ".join(parts)) > _LONGEST:
            parts.pop()
            break
    more = len(classes) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more and parts else "")


def _open_card(key: str) -> None:
    """Open the card of a unit."""
    site, _, channel = str(state.clicked(key, "card") or "").rpartition(":")
    if site:
        unit_picker.open_card(site, int(channel))


def _open(key: str) -> None:
    """Open the clicked unit."""
    site, _, channel = str(state.clicked(key, "chosen") or "").rpartition(":")
    if site:
        state.put(state.LAYER, site)
        state.put(state.CHANNEL, int(channel))
