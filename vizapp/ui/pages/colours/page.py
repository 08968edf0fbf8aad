"""Colours: the cells of a layer in colours on several photos, what is like the cell that is clicked, and parts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.components.data import photo_data, uri
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, plural
from vizapp.media.drawing import overlay, sheet, veil
from vizapp.media.transforms import resize
from vizapp.methods.base import Question
from vizapp.methods.cell_features import CellColours, check_cells, default_site, likeness
from vizapp.methods.colours import (
    about_parts,
    cell_fact,
    colour_facts,
    draw_colours,
    foreground_fact,
    over_photos,
    part_facts,
    similarity_limits,
)
from vizapp.methods.factorization import FEWEST, MOST
from vizapp.methods.tables import frame_to_csv
from vizapp.ui.inputs import images, networks
from vizapp.ui.pages.colours import photos as several
from vizapp.ui.pages.colours.photos import Photos
from vizapp.ui.session import compute, downloads, forms, messages, reports, state
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import image_tiles, layout, maps, options, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.unit_picker import Cell
from vizapp.zoo.network import Network

_KEY, _OPTIONS = "colours", ("seed",)
_SIDES = {"off": "All cells", "positive": "Foreground", "negative": "Flipped"}
_LARGEST = 260  # pixels of a photo on the screen
_ACROSS = 6  # photos in a row of a part


def page() -> None:
    """Draw the page."""
    layout.page_title(
        "Colours", "Cells that the network sees alike have like colours. Click a cell to see what is like it."
    )
    asked = layout.network_and_picture()
    sites = networks.sites(asked[0]) if asked is not None else ()
    if asked is None or not sites:
        return
    network, picture = asked
    try:
        site = unit_picker.chosen_site(network, state.LAYER) or default_site(network)
    except VizError as error:
        messages.warn(str(error))
        return
    unit_picker.draw_network(_KEY, sites, site)
    _controls(sites, site)
    photos = several.choose(network, picture)
    try:
        check_cells(network, site)
    except VizError as error:
        messages.warn(str(error))
        return
    values = several.features(network, site, photos)
    coloured = None if values is None else several.coloured(network, site, photos, values)
    if values is not None and coloured is not None:
        _draw(network, site, photos, values, coloured)


def _controls(sites: tuple[Site, ...], site: Site) -> None:
    chosen = forms.choices(_KEY)
    if 0 < state.get(chosen["parts"]) < FEWEST:
        messages.warn(f"A layer has {FEWEST} to {MOST} parts, not {state.get(chosen['parts'])}. Showing none.")
        state.put(chosen["parts"], 0)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="colours_controls"):
        unit_picker.layer_list(_KEY, sites, site)
        unit_picker.switch(chosen["foreground"], _SIDES, "colours.foreground")
        st.selectbox(
            "Parts", format_func=lambda count: f"{count} parts" if count else "No parts", width=130,
            label_visibility="collapsed",
            **state.bind(chosen["parts"], "colours.parts", options=[0, *range(FEWEST, MOST + 1)]),
        )  # fmt: skip
        options.popover(_KEY, _OPTIONS)
    options.changed_line(_KEY, _OPTIONS)


def _draw(network: Network, site: Site, photos: Photos, values: np.ndarray, coloured: CellColours) -> None:
    cell, side = unit_picker.cell(site.shape[1:]), forms.values(_KEY)["foreground"]
    drawn = draw_colours(coloured, side)
    found = None if cell is None else likeness(values, 0, cell)
    blend = state.get(state.BLEND)
    blended = [_over(crop, one, blend / 100) for crop, one in zip(photos.crops, drawn, strict=True)]
    shown = {"Colours": sheet(blended, min(_ACROSS, len(blended)), gap=2)}
    left, middle, right = layout.columns(3, 3, 5, key="stacking_colours")
    with left:
        _photo(photos, site.shape[1:], cell, found)
    with middle:
        explained = 100 * coloured.explained.sum()
        image_tiles.title("Colours", f"{explained:.0f} % of the variance")
        data = photo_data(blended[0], "Colours of the cells over the photo")
        _clickable("colours.own", data | {"cells": list(site.shape[1:]), "cell": list(cell) if cell else None})
        st.slider("Colours over the photos, %", 0, 100, step=5, **state.bind(state.BLEND, "colours.blend"))
    with right:
        if cell is not None and found is not None:
            image_tiles.title(f"Like cell {cell[0]},{cell[1]}", "on all photos, one scale")
            shown["Similarity"] = _sheet("like", photos, over_photos(photos.crops, found, cell), _means(found))
            messages.info(cell_fact(values, cell, found))
        else:
            image_tiles.title("The same colours on all photos")
            _sheet("all", photos, blended, None)
    facts = colour_facts(coloured, len(photos.crops))
    if "constant" in facts:
        messages.must_know(facts["constant"])
    if side != "off":
        messages.must_know(foreground_fact(side, coloured.shown(side)))
    arrays: dict[str, np.ndarray] = {
        "colours": drawn, "components": coloured.components, "axes": coloured.axes, "mean": coloured.mean,
        "explained": coloured.explained,
    }  # fmt: skip
    if found is not None:
        arrays |= {"similarity": found[0], "photo_similarity": found}
    more, tiles = _parts(network, site, photos, values)
    _facts(site, facts)
    name = downloads.file_name(_KEY, network.name, site.name, photos.names[0])
    arrays |= more
    csv = File("Cells CSV", f"{name}.csv", "text/csv", lambda: frame_to_csv(_table(photos, arrays)))
    reports.offer_drawn(
        _KEY, f"Colours of {site.name}", shown | tiles, facts=facts, asked=Question(network, images.current())
    )
    downloads.row(_KEY, name, shown | tiles, arrays, [csv])


def _over(crop: np.ndarray, colours: np.ndarray, opacity: float) -> np.ndarray:
    return overlay(crop, resize(colours, crop.shape[0], crop.shape[1], "nearest"), opacity, "nearest")


def _photo(photos: Photos, shape: tuple[int, ...], cell: Cell | None, found: np.ndarray | None) -> None:
    """Draw the photo at hand, with the similarity over it if a cell is chosen."""
    if cell is None or found is None:
        image_tiles.title("Photo", "click a cell")
        data = photo_data(photos.crops[0], f"{photos.names[0]}, what the network sees")
        _clickable("colours.photo", data | {"cells": list(shape)})
        return
    image_tiles.title("Photo", f"similarity to cell {cell[0]},{cell[1]}")
    low, high = similarity_limits(found, cell)
    data = maps.map_data(photos.crops[0], found[0], cell, None) | {"label": "Similarity over the photo"}
    _clickable("colours.map", data | {"heat": uri(veil(found[0], low, high)), "low": low, "high": high})
    st.button("Clear the cell", key="colours.clear", type="tertiary", on_click=state.put, args=(state.CELL, None))


def _clickable(key: str, data: dict[str, Any]) -> None:
    component("map")(
        key=key, data=data | {"hint": "Click a cell to see what is like it"},
        on_cell_change=partial(unit_picker.take_click, state.CELL, key, "cell"),
    )  # fmt: skip


def _means(found: np.ndarray) -> list[str]:
    return [f"from {one.min():.2f} to {one.max():.2f}, mean {one.mean():.2f}" for one in found]


def _sheet(key: str, photos: Photos, tiles: list[np.ndarray], details: list[str] | None) -> np.ndarray:
    """Draw a picture per photo; returns them as one."""
    told = details or [""] * len(tiles)
    data = maps.three_across(tiles, photos.names, told, plural(len(tiles), "photo"), most=_LARGEST)
    component("sheet")(key=f"colours.{key}", data=data)
    return sheet(tiles, min(_ACROSS, len(tiles)), gap=2)


def _parts(
    network: Network, site: Site, photos: Photos, values: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draw the parts and what they speak for; returns arrays, and pictures by title."""
    count, seed = forms.values(_KEY)["parts"], forms.values(_KEY)["seed"]
    found = several.parts(network, site, photos, values, count, seed) if count >= FEWEST else None
    if found is None:
        return {}, {}
    arrays, table = about_parts(network, found.factors, found.weight)
    facts = part_facts(found.factors, seed, found.reason)
    messages.heading("Parts")
    for name in ("parts", "rectified", "unused"):
        if name in facts:
            messages.info(facts[name])
    messages.must_know(facts["classes"])
    shown = {}
    for number, row in enumerate(table):
        tiles = over_photos(photos.crops, found.factors.maps[:, number])
        words = f" · {row['classes']}" if "classes" in row else ""
        image_tiles.title(f"Part {number + 1}", f"{100 * row['share']:.0f} % of the activations{words}")
        key = several.key(f"part {number}", network, site, photos, count=count, seed=seed)
        data = compute.remembered(key, partial(_row, photos, tiles), lambda data: len(data["sprite"]))
        component("sheet")(key=f"colours.part.{number}", data=data)
        shown[f"Part {number + 1}"] = sheet(tiles, min(_ACROSS, len(tiles)), gap=2)
    maps_of = found.factors.maps
    return {"factors": maps_of[0], "photo_factors": maps_of} | arrays, shown


def _row(photos: Photos, tiles: list[np.ndarray]) -> dict[str, Any]:
    """Data of a sheet with six photos in a row."""
    data = maps.three_across(tiles, photos.names, [""] * len(tiles), "A part on all photos", most=_LARGEST)
    return data | {"across": min(_ACROSS, len(tiles))}


def _facts(site: Site, facts: dict[str, str]) -> None:
    with layout.fold():
        st.caption(messages.escaped(f"Layer {site.name}: {' × '.join(map(str, site.shape))}"))
        special = site.prefix_tokens + site.suffix_tokens
        if special:
            st.caption(f"The patch tokens are laid out as a map; special tokens left out: {special}.")
        for name in ("basis", "explained"):
            messages.info(facts[name])


def _table(photos: Photos, arrays: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row per cell: its photo, place, components, similarity and parts."""
    components = arrays["components"]
    count, height, width, _ = components.shape
    place = np.indices((count, height, width)).reshape(3, -1)
    columns: dict[str, Any] = {
        "photo": [photos.names[number] for number in place[0]], "row": place[1], "column": place[2],
        **{f"component {n + 1}": components[..., n].ravel() for n in range(3)},
    }  # fmt: skip
    if "photo_similarity" in arrays:
        columns["similarity"] = arrays["photo_similarity"].ravel()
    for number in range(arrays["photo_factors"].shape[1] if "photo_factors" in arrays else 0):
        columns[f"part {number + 1}"] = arrays["photo_factors"][:, number].ravel()
    return pd.DataFrame(columns)


if __name__ == "__main__":
    page()
