"""Neighbours: the photos of a folder that are most alike to the network, and an atlas of all of them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp import methods
from vizapp.components.data import photo_data
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import plural
from vizapp.gallery.reader import load_crop
from vizapp.media.picture import Picture
from vizapp.methods.base import Result
from vizapp.methods.neighbours import neighbour_tiles
from vizapp.methods.photo_features import default_site
from vizapp.methods.tables import to_csv
from vizapp.ui.inputs import datasets, image_picker, networks
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.pages.neighbours import atlas_view, photo_links
from vizapp.ui.session import access, compute, downloads, forms, messages, progress, reports, state
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import image_tiles, layout, maps, options, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_KEY, _OPTIONS = "neighbours", ("k", "metric")
_OF = {"pooled": "Photos", "flat": "Photos, place by place", "cell": "Patches"}
_LARGEST = 260  # pixels of a tile on the screen
_AT_ONCE = 400  # photos; a pass over more is started by a button


def page() -> None:
    """Draw the page."""
    layout.page_title("Neighbours", "The photos of a folder that are most alike to the network, and a map of them all.")
    asked = layout.network_and_picture()
    sites = networks.sites(asked[0]) if asked is not None else ()
    if asked is None or not sites:
        return
    network, picture = asked
    collection = image_picker.choose_collection(_KEY, network)
    if collection is None:
        return
    site = _site(network)
    unit_picker.draw_network(_KEY, sites, site)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="neighbours_controls"):
        unit_picker.layer_list(_KEY, sites, site)
        unit_picker.switch(forms.choices(_KEY)["of"], _OF, "neighbours.of")
        options.popover(_KEY, _OPTIONS)
        st.button(
            "", key="neighbours.read_again", icon=":material/refresh:", type="tertiary", on_click=datasets.read_again,
            help="List the photos again",
        )  # fmt: skip
    options.changed_line(_KEY, _OPTIONS)
    if not _started(network, collection):
        return
    result = _nearest(network, picture, collection, site)
    if result is not None:
        _draw(network, picture, collection, site, result)
    atlas_view.draw(network, picture, collection, site if not _by_cell() else _pooled_site(network))


def _by_cell() -> bool:
    return bool(forms.values(_KEY)["of"] == "cell")


def _pooled_site(network: Network) -> Site:
    return unit_picker.chosen_site(network, state.LAYER) or default_site(network)


def _site(network: Network) -> Site:
    """The chosen layer, or one that suits."""
    site = unit_picker.chosen_site(network, state.LAYER)
    if site is not None and _by_cell() and not site.is_map:
        site = None
    return site or default_site(network, maps=_by_cell())


def _started(network: Network, collection: Collection) -> bool:
    """Whether the photos may be looked at; else draw the button that starts it."""
    count = len(collection.source)
    key = ("neighbours.pass", network.digest, collection.listing)
    if collection.text == "samples" or count <= _AT_ONCE or progress.is_started(key):
        return True
    progress.start_button(f"Look at {plural(count, 'photo')}", "neighbours.start", key, type="primary")
    messages.info(
        "One pass over the photos keeps their features and the network's answers. You can cancel it and continue later."
    )
    return False


# The nearest photos


def _nearest(network: Network, picture: Picture, collection: Collection, site: Site) -> Result | None:
    params = forms.values(_KEY, ("k", "of", "metric")) | {"site": site.name}
    own, cell = (
        photo_links.own_number(collection),
        unit_picker.cell(site.shape[1:]) if _by_cell() and site.is_map else None,
    )
    if own is not None and not _by_cell():
        params["k"] += 1  # the photo itself comes first, and is not shown
    unit = None if cell is None else Unit(site.name, 0, cell)
    found: Result | None = compute.compute(
        compute.key_of(_KEY, network, picture, None, unit, listing=collection.listing, **params),
        lambda tick: methods.ask(
            _KEY, network, picture=picture, folder=collection.source, unit=unit, tick=tick, **params
        ),
        title="Comparing the photos", device=str(network.device),
    )  # fmt: skip
    return found


def _draw(network: Network, picture: Picture, collection: Collection, site: Site, result: Result) -> None:
    own = None if _by_cell() else photo_links.own_number(collection)
    shown = [place for place, row in enumerate(result.table) if row["picture"] != own][: forms.values(_KEY)["k"]]
    rows = [result.table[place] for place in shown]
    names = [name for name in ("indices", "cells", "boxes") if name in result.arrays]
    tiles = _tiles(network, collection, site, {name: result.arrays[name][shown] for name in names})
    left, right = layout.columns(4, 7, key="stacking_neighbours")
    with left:
        image_tiles.title("Photo", "click a cell" if _by_cell() else "")
        _photo(network, picture, site, result)
    with right:
        image_tiles.title("Nearest patches" if _by_cell() else "Nearest photos", _agreement(rows))
        if tiles:
            _sheet(collection, network, tiles, rows)
        for name in ("fewer", "not finite", "unreadable"):
            if name in result.facts:
                messages.must_know(result.facts[name])
        fact = result.facts["search"]
        messages.info(
            f"{fact[:1].upper()}{fact[1:]}. A click makes a photo the one at hand, and its class the chosen one."
        )
    _table(rows)
    photo_links.unreadable(result)
    with layout.fold():
        for name in ("layer", "features", "distance", "cell"):
            if name in result.facts:
                st.caption(f"**{forms.label(name)}:** {messages.escaped(access.discreet(result.facts[name]))}")
        st.caption(f"Computed in {result.facts['time']}.")
    title = downloads.file_name(_KEY, network.name, site.name, picture.name)
    csv = File("Table CSV", f"{title}.csv", "text/csv", lambda: to_csv(result.table).encode())
    reports.offer(result)
    downloads.row(
        _KEY, title, {panel.title.capitalize(): panel.pixels for panel in result.panels}, result.arrays, [csv]
    )


def _table(rows: list[dict[str, Any]]) -> None:
    titles = {
        "rank": "Rank", "path": "Photo", "label": "Class", "distance": "Distance", "answer": "Answer", "row": "Row",
        "column": "Column",
    }  # fmt: skip
    with st.expander("As a table"):
        frame = pd.DataFrame([{title: row.get(name) for name, title in titles.items()} for row in rows])
        st.dataframe(frame.dropna(axis=1, how="all"), hide_index=True, key="neighbours.table")


def _agreement(rows: list[dict[str, Any]]) -> str:
    """How many of the neighbours have the most frequent class among them; empty if they have none."""
    labels = Counter(row["label"] for row in rows if row["label"] is not None)
    if not labels:
        return ""
    name, count = labels.most_common(1)[0]
    return f"{count} of {len(rows)} are {name}"


def _photo(network: Network, picture: Picture, site: Site, result: Result) -> None:
    seen = network.seen(picture)
    data = photo_data(seen, f"{picture.name}, what the network sees")
    if "cell" not in result.arrays:
        component("map")(key="neighbours.photo", data=data)
        return
    box = result.arrays["box"].tolist()
    whole = box[2] - box[0] >= seen.shape[0] and box[3] - box[1] >= seen.shape[1]
    data |= {"cells": list(site.shape[1:]), "cell": result.arrays["cell"].tolist(), "field": None if whole else box}
    component("map")(
        key="neighbours.cells", data=data | {"hint": "Click a cell to find the patches that are nearest to it"},
        on_cell_change=partial(unit_picker.take_click, state.CELL, "neighbours.cells", "cell"),
    )  # fmt: skip
    messages.info(f"Cell {result.facts['cell']}. " + ("It sees the whole photo." if whole else "Framed: what it sees."))


def _tiles(network: Network, collection: Collection, site: Site, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The pictures of the neighbours, cached."""
    about = [values.tolist() for values in arrays.values()]

    def work(tick: Any) -> list[np.ndarray]:
        left = iter(range(len(arrays["indices"])))

        def load(number: int) -> np.ndarray | None:
            tick(next(left) / len(arrays["indices"]))
            return load_crop(network, collection.source, number)

        return neighbour_tiles(network, collection.source, site, arrays, load)

    key = ("neighbours.tiles", repr(network.preprocessing), collection.text, collection.listing, site.name, repr(about))
    found = compute.compute(key, work, lambda tiles: sum(tile.nbytes for tile in tiles), "Decoding the photos")
    return found or []


def _sheet(collection: Collection, network: Network, tiles: list[np.ndarray], rows: list[dict[str, Any]]) -> None:
    rows = rows[: len(tiles)]
    details = [
        f"distance {row['distance']:.4g} · {row['path']}" + (f" · answer: {row['answer']}" if "answer" in row else "")
        for row in rows
    ]
    data = maps.sprite_data(tiles, 3) | {
        "side": 60, "most": _LARGEST, "across": 3, "items": [row["rank"] for row in rows], "chosen": None,
        "titles": [f"{place + 1}" + (f" · {row['label']}" if row["label"] else "") for place, row in enumerate(rows)],
        "details": details, "tags": [f"{row['distance']:.3g}" for row in rows], "label": f"The {len(rows)} nearest",
    }  # fmt: skip
    numbers = {row["rank"]: row["picture"] for row in rows}
    component("sheet")(
        key="neighbours.sheet", data=data,
        on_chosen_change=partial(_take, "neighbours.sheet", numbers, collection, network),
    )  # fmt: skip


def _take(key: str, numbers: dict[int, int], collection: Collection, network: Network) -> None:
    rank = state.clicked(key, "chosen")
    if rank in numbers:
        photo_links.choose(collection, network, numbers[rank])


if __name__ == "__main__":
    page()
