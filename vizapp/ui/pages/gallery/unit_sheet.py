"""The sheet of one unit of a gallery: patches, projections, whole pictures and statistics."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.arithmetic.stages import signed
from vizapp.engine.trace.sites import Unit
from vizapp.errors import plural
from vizapp.gallery.reader import Gallery, is_silent
from vizapp.media.drawing import boxes, sheet, to_png
from vizapp.methods.base import Question
from vizapp.methods.projection import revealing_rule
from vizapp.methods.tables import frame_to_csv
from vizapp.ui.session import downloads, messages, reports, state
from vizapp.ui.widgets import charts, image_tiles, layout, top_activations, topk_bars, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.maps import three_across
from vizapp.ui.widgets.top_activations import LayerGallery, UnitPatches, UnitProjections

_LARGEST = 260  # pixels of a tile on the screen
_CLASSES = 6
_BAR = (200, 65, 11)  # the colour of the histogram in a report


def draw(layer: LayerGallery, channel: int, order: np.ndarray, found: Sequence[tuple[str, int]]) -> None:
    """Draw the sheet of a unit.

    Args:
        layer: The layer of the gallery.
        channel: The unit.
        order: The units of the layer in the order of Previous and Next.
        found: Layer and channel of the units of a search, best first: if the unit is among them, this is that order.
    """
    _head(layer, channel, order, found)
    looked = top_activations.load_patches(layer, [channel]).get(channel)
    if looked is None:
        return
    site = layer.site.name
    unit, rows = layer.found.unit(site, channel), layer.found.rows(site, channel)
    pictures, captions, facts = dict[str, np.ndarray](), dict[str, str](), _facts(unit)
    if looked.shown:
        pictures, captions, told = _nines(layer, channel, looked)
        facts |= told
    elif is_silent(unit):
        messages.info("This unit is dead: it is zero for every photo, so it has no top photos.")
    _numbers(layer.found, site, channel, unit)
    _rows(rows)
    _downloads(layer, channel, rows, pictures)
    asked = Question(layer.asked.network, folder=layer.asked.collection.source)
    drawn = _histogram(layer.found, site, channel)
    if drawn is not None:
        captions["Histogram"] = drawn[1]
    more = {} if drawn is None else {"Histogram": drawn[0]}
    mix = ", ".join(f"{name} {count}" for name, count in layer.found.classes(site, channel).items())
    facts |= {"classes of the top photos": mix} if mix and not is_silent(unit) else {}
    reports.offer_drawn(
        "gallery",
        f"Unit {channel} of {site}",
        pictures | more,
        _named(rows).to_dict("records"),
        facts,
        asked,
        {},
        captions,
        2,
    )


def _head(layer: LayerGallery, channel: int, order: np.ndarray, found: Sequence[tuple[str, int]]) -> None:
    unit = (layer.site.name, channel)
    searched = unit in found
    units = list(found) if searched else [(layer.site.name, int(number)) for number in order]
    place = units.index(unit) if unit in units else None
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="gallery_unit"):
        st.button(
            "All units", key="gallery.back", icon=":material/apps:", on_click=state.put, args=(state.CHANNEL, None)
        )
        for label, step, icon in (("Previous", -1, "chevron_left"), ("Next", 1, "chevron_right")):
            other = None if place is None or not 0 <= place + step < len(units) else units[place + step]
            st.button(
                "", key=f"gallery.{label.lower()}_unit", icon=f":material/{icon}:", disabled=other is None,
                help=f"{label} {'of the search' if searched else 'in this order'}", on_click=_go, args=other or unit,
            )  # fmt: skip
        if searched and place is not None:
            st.caption(f"{place + 1:,} of {len(units):,} found", width="content")
        unit_picker.stepper("gallery", layer.site.name, layer.site.channels, channel)
        names = layer.asked.network.readable_names(layer.site)
        if names:
            st.caption(f"**{messages.escaped(names[channel])}**", width="content")


def _go(site: str, channel: int) -> None:
    state.put(state.LAYER, site)
    state.put(state.CHANNEL, channel)


def _nines(
    layer: LayerGallery, channel: int, looked: UnitPatches
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, str]]:
    """Draw patches, projections and whole pictures side by side; returns them as sheets, with captions, and facts, by title."""
    whole = {"Patches": looked.pictures(), "Photos": [item.framed for item in looked.shown]}
    notes = {"Patches": _size(looked), "Photos": "framed: what the unit sees"}
    titles = [
        f"{place + 1} · {item.label}" if item.label else str(place + 1) for place, item in enumerate(looked.shown)
    ]
    details = [f"activation {signed(item.activation)} · {item.path}" for item in looked.shown]
    unit = Unit(layer.site.name, channel)
    left, middle, right = layout.columns(1, 1, 1)
    with left:
        _nine("Patches", notes["Patches"], whole["Patches"], titles, details, unit)
    with right:
        _nine("Photos", notes["Photos"], whole["Photos"], titles, details, unit)
    with middle:
        down: UnitProjections | None = None
        if layer.is_whole:
            down = top_activations.load_projections(layer, [channel]).get(channel)
            if down is not None:
                tiles = whole["Projections"] = down.pictures()
                height, width = tiles[0].shape[:2]
                notes["Projections"] = (
                    f"{revealing_rule(layer.asked.network)}, {width} × {height} pixels, mid-grey is zero"
                )
                _nine("Projections", notes["Projections"], tiles, titles, details, unit)
        else:
            image_tiles.title("Projections")
            messages.info("Projections follow after the last photo.")
    if down is not None:
        for name in ("unreadable", "caution"):
            if name in down.facts:
                messages.must_know(down.facts[name])
        if "certificate" in down.facts:
            with layout.fold():
                messages.info(down.facts["certificate"])
    sheets = {
        str(title): sheet(whole[title], 3, gap=2) for title in ("Patches", "Projections", "Photos") if title in whole
    }
    known = {} if down is None else down.facts
    facts = {str(name): known[name] for name in ("unreadable", "caution", "certificate") if name in known}
    return sheets, {title: f"{note[:1].upper()}{note[1:]}." for title, note in notes.items()}, facts


def _size(looked: UnitPatches) -> str:
    height, width = looked.shown[0].patch.shape[:2]
    return f"{width} × {height} pixels"


def _nine(
    title: str, note: str, tiles: list[np.ndarray], titles: list[str], details: list[str], unit: Unit
) -> None:  # fmt: skip
    image_tiles.title(title, note)
    data = three_across(tiles, titles, details, title, _LARGEST) | {"card": True}
    opens = partial(unit_picker.open_card, unit.site, unit.channel)
    component("sheet")(key=f"gallery.nine.{title}", data=data, on_card_change=opens)


# Numbers


def _numbers(found: Gallery, site: str, channel: int, unit: pd.Series) -> None:
    mix = found.classes(site, channel)
    histogram, statistics, classes = layout.columns(5, 4, 4, key="stacking_numbers")
    with histogram:
        messages.heading("Strongest activation of each photo")
        edges, counts = found.histogram(site, channel)
        if len(counts):
            charts.draw("gallery.histogram", charts.maxima(edges, counts))
    with statistics:
        messages.heading("Numbers")
        st.html(layout.facts_table(_facts(unit)))
    with classes:
        if mix and not is_silent(unit):
            messages.heading("Classes of the top photos")
            total = sum(mix.values())
            shown = list(mix.items())[:_CLASSES]
            rows = [(name, count / total, f"{count} of {total}") for name, count in shown]
            topk_bars.draw("gallery.classes", rows)
            if len(mix) > len(shown):
                messages.info(f"and {len(mix) - len(shown)} more")


def _histogram(found: Gallery, site: str, channel: int) -> tuple[np.ndarray, str] | None:
    """The histogram of the photos' maxima as a picture, and what it shows; None without counts."""
    edges, counts = found.histogram(site, channel)
    if not len(counts):
        return None
    heights = (counts / counts.max()).tolist()
    drawn = boxes(heights, [1] * len(counts), [_BAR] * len(counts), (160, 480), middle=False)
    low, high = (number for number in charts.texts(edges[[0, -1]]))
    return drawn, (
        f"Strongest activation of each photo, from {low} to {high} in bins of growing width. The highest bar: "
        f"{plural(int(counts.max()), 'photo')}."
    )


def _facts(unit: pd.Series) -> dict[str, str]:
    words = {"dead": is_silent(unit), "never above zero": unit["dead"], "always on": unit["always_on"]}
    state_of = next((word for word, holds in words.items() if holds), "alive")
    facts = {
        "Maximum": signed(unit["maximum"]),
        "Mean of the photos' maxima": signed(unit["mean_maximum"]),
        "Mean of all activations": signed(unit["mean"]),
        "Selectivity, 0 to 1": f"{unit['selectivity']:.2f}",
        "Photos where it is zero": f"{100 * unit['zero_pictures']:.1f} %",
        "Positions where it is zero": f"{100 * unit['zero_positions']:.1f} %",
        "State": state_of,
    }
    if unit["not_finite"]:
        facts["Photos without a finite maximum"] = str(int(unit["not_finite"]))
    return facts


def _rows(rows: pd.DataFrame) -> None:
    with st.expander(f"The {len(rows)} strongest photos as a table"):
        st.dataframe(_named(rows), hide_index=True, key="gallery.rows")


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a unit as people read them."""
    names = {
        "rank": "Rank", "activation": "Activation", "label": "Class", "path": "Photo", "row": "Row", "column": "Column",
    }  # fmt: skip
    shown = [name for name in names if name != "label" or rows["label"].notna().any()]
    return rows[shown].assign(rank=rows["rank"] + 1).rename(columns=names)


# Files


def _downloads(layer: LayerGallery, channel: int, rows: pd.DataFrame, pictures: dict[str, np.ndarray]) -> None:
    name = downloads.file_name("gallery", layer.asked.network.name, layer.site.name, str(channel))
    files: list[downloads.File] = []
    if pictures:
        files.append(downloads.File("Sheet PNG", f"{name}.png", "image/png", lambda: to_png(_whole_sheet(pictures))))
    files.append(downloads.File("Rows CSV", f"{name}.csv", "text/csv", lambda: frame_to_csv(rows)))
    if layer.asked.is_whole:
        files.append(whole_gallery(layer))
    downloads.buttons("gallery", files)


def whole_gallery(layer: LayerGallery) -> downloads.File:
    """The download of all files of the gallery."""
    name = downloads.file_name("gallery", layer.asked.network.name, layer.asked.collection.title)
    return downloads.File("Gallery Parquet", f"{name}.zip", "application/zip", lambda: zipped(layer.found))


def _whole_sheet(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """The sheets side by side, enlarged to about the same height."""
    tallest = max(pixels.shape[0] for pixels in pictures.values())
    tiles = [
        pixels.repeat(times, axis=0).repeat(times, axis=1)
        for pixels in pictures.values()
        if (times := max(1, tallest // pixels.shape[0]))
    ]
    return sheet(tiles, len(tiles), gap=12)


def zipped(found: Gallery) -> bytes:
    """All files of a gallery as an uncompressed zip file, because Parquet is compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(found.folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                archive.write(path, path.name)
    return buffer.getvalue()
