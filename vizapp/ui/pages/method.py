"""The generic page of a method: its form, pickers for its inputs, and its result, drawn from its declarations."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.trace.sites import Unit
from vizapp.errors import plural
from vizapp.media.picture import Picture
from vizapp.media.source import Source
from vizapp.methods import methods, views
from vizapp.methods.activations import strength_order
from vizapp.methods.base import Method, Result
from vizapp.methods.output import TILES, Output, in_rows
from vizapp.methods.params import knobs
from vizapp.methods.projection import revealing_rule
from vizapp.methods.section import CAUTIONS
from vizapp.ui.app.pages import pages
from vizapp.ui.inputs import image_picker, images, networks, targets
from vizapp.ui.session import access, compute, downloads, forms, messages, progress, reports, state
from vizapp.ui.widgets import charts, image_tiles, layout, maps, options, topk_bars, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo import class_unit
from vizapp.zoo.network import Network

_TARGETS = {"answer": "The prediction", "class": "A class", "unit": "A unit"}
_SMALL_TILES = 12  # more tiles are shown as one sheet
_KNOWN = ("network", "picture", "time")  # facts that the page shows elsewhere


def page() -> None:
    """Draw the page."""
    method = methods()[pages()[state.page()].methods[0]]
    layout.page_title(method.title, method.summary)
    st.caption(messages.linked(method.source))
    explains = {"picture", "unit"} <= method.inputs
    asked = layout.answer_and_picture() if explains else None
    network = asked[0] if asked is not None else None if explains else networks.current()
    if network is None:
        return
    picture = images.current() if "picture" in method.inputs else None
    suited = _suited(method, network)
    _form(method, suited)
    left, right = layout.columns(7, 5)
    with right:
        ready, unit = _unit(method, network, picture)
        folder = _folder(method, network)
    if not ready or ("folder" in method.needs and folder is None):
        return
    with left:
        result = _answer(method, network, picture, folder, unit, suited)
        if result is None:
            return
        reports.offer(result)
        _draw(method, network, picture, result, _about(network, unit))
    with right:
        _facts(result)
    names = ([unit.site, str(unit.channel)] if unit else []) + ([picture.name] if picture else [])
    title = downloads.file_name(method.key, network.name, *names)
    shown = {forms.label(one.title.replace("-", " ")): one.pixels for one in result.panels if one.title != "seen"}
    text = json.dumps(result.summary(), indent=1, ensure_ascii=False).encode
    files = [downloads.File("Facts JSON", f"{title}.json", "application/json", text)]
    downloads.row(method.key, title, shown, result.arrays, [*files, *downloads.documents(title, result.documents)])


def _suited(method: Method, network: Network) -> dict[str, Any]:
    """The parameters that suit the network, of those that are not chosen."""
    suited = {"rule": revealing_rule(network)}
    return {name: suited[name] for name, value in forms.values(method.key).items() if value is None and name in suited}


def _about(network: Network, unit: Unit | None) -> str:
    """The name of what is explained."""
    if unit is None:
        return "the prediction"
    names = network.readable_names(network.site(unit.site))
    return names[unit.channel] if names else f"unit {unit.channel} of {unit.site}"


def _form(method: Method, suited: dict[str, Any]) -> None:
    """Draw the parameters: the main one in the row, the rest in a popover."""
    names = [name for name in forms.choices(method.key) if name != "out"]  # a folder of the machine
    first = [name for name in names[:1] if knobs(method.params)[name].choices]
    rest = [name for name in names if name not in first]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key=f"{method.key}_controls"):
        if first:
            with st.container(width=280):
                forms.draw(method.key, first, suited)
        if "unit" in method.inputs:
            target = forms.target(method.key)
            unit_picker.switch(target, _TARGETS, f"{method.key}.explain", label="Explain", label_visibility="visible")
        if rest:
            options.popover(method.key, rest)
    options.changed_line(method.key, rest)


# Inputs


def _unit(method: Method, network: Network, picture: Picture | None) -> tuple[bool, Unit | None]:
    """Whether the page can continue, and the unit to explain; None if the method chooses the predicted class itself."""
    if "unit" not in method.inputs:
        return True, None
    target = state.get(forms.target(method.key))
    if target == "unit":
        unit = _layer_unit(method, network, picture)
        return unit is not None, unit
    if target == "answer" and "unit" not in method.needs:
        return True, None
    if picture is None:
        return True, class_unit(network, _class(method, network, max(1, len(network.categories)), 0))
    told = compute.run("predict", network, picture)
    if told is None:
        return False, None
    shares = told.arrays["probabilities"]
    number = _class(method, network, len(shares), targets.explained_class(network, picture, shares))
    topk_bars.draw_classes(f"{method.key}.bars", network, shares)
    return True, class_unit(network, number)


def _class(method: Method, network: Network, count: int, answer: int) -> int:
    """The class to explain: `answer`, or the chosen one of the `count` classes."""
    number = answer
    if state.get(forms.target(method.key)) == "class":
        chosen = state.get(state.CLASS)
        if chosen is not None and chosen >= count:
            messages.warn(f"{network.name} has {count} classes and no class {chosen}. Explaining the prediction.")
            state.put(state.CLASS, None)
        elif chosen is not None:
            number = int(chosen)
        unit_picker.class_list(f"{method.key}.class", network, range(count), number)
    st.caption(f"Explains **{messages.escaped(network.readable_name(number))}** (class {number}).")
    return number


def _layer_unit(method: Method, network: Network, picture: Picture | None) -> Unit | None:
    """The chosen channel of a layer, with its chosen cell if any."""
    sites = networks.sites(network)
    if not sites:
        return None
    site = unit_picker.site(network, sites)
    unit_picker.draw_network(method.key, sites, site)
    unit_picker.layer_list(method.key, sites, site)
    if picture is None:
        channel = unit_picker.channel(np.arange(site.channels))
        unit_picker.stepper(method.key, site.name, site.channels, channel)
        return Unit(site.name, channel)
    layer = compute.run("activations", network, picture, unit=Unit(site.name, 0))
    if layer is None:
        return None
    values = layer.arrays["activations"]
    order, cell = strength_order(values), None
    channel = unit_picker.channel(order)
    unit_picker.stepper(method.key, site.name, len(values), channel)
    if values.ndim == 1:
        unit_picker.bars(method.key, values, order, channel, network.readable_names(site))
    else:
        cell = unit_picker.cell(values.shape[1:])
        unit_picker.cell_map(method.key, network.seen(picture), values[channel], channel, cell, None)
        if cell is not None:
            st.button("Strongest cell", key=f"{method.key}.strongest", on_click=state.put, args=(state.CELL, None))
    return Unit(site.name, channel, cell)


def _folder(method: Method, network: Network) -> Source | None:
    if "folder" not in method.needs:  # an optional folder may stand for the picture, which is there
        return None
    messages.heading("Photos")
    found = image_picker.choose_collection(method.key, network)
    if found is not None:
        st.caption(f"{plural(len(found.source), 'photo')} of {messages.escaped(found.title)}.")
    return None if found is None else found.source


def _answer(
    method: Method, network: Network, picture: Picture | None, folder: Source | None, unit: Unit | None,
    suited: dict[str, Any],
) -> Result | None:  # fmt: skip
    values = {name: value for name, value in (forms.values(method.key) | suited).items() if name != "out"}
    if method.takes_long or "folder" in method.needs:
        key = compute.key_of(method.key, network, picture, folder, unit, **values)
        if not progress.is_started(key):
            progress.start_button("Run", f"{method.key}.run", key, type="primary")
            messages.info("This takes a while. You can cancel it at any time.")
            return None
    return compute.run(method.key, network, picture, folder, unit, **values)


# Result


def _draw(method: Method, network: Network, picture: Picture | None, result: Result, about: str) -> None:
    """Draw a viewer for each output; plain pictures come together at the end."""
    seen = None if picture is None else network.seen(picture)
    tiles, notes = ({}, {}) if seen is None else ({"Photo": seen}, {"Photo": ""})
    for output in method.shows:
        values, key = result.arrays.get(output.array), f"{method.key}.{output.array}"
        if output.kind == "table" or values is None or not values.size:
            continue
        if output.kind == "curves" or values.ndim == 1:
            messages.heading(output.label)
            figure = charts.curve(values.reshape(len(values), -1))
            if output.kind != "curves":
                figure = charts.value_bars(values, np.arange(len(values)), -1)
            charts.draw(key, figure)
        elif output.kind == "per-class map":
            _class_map(key, network, output, result, seen)
        elif output.over_photo and seen is not None and values.ndim == 2:
            _over(key, network, output, values, seen, about)
        else:
            drawn = _tiles(output, values)
            tiles |= {title: pixels for title, (pixels, _) in drawn.items()}
            notes |= {title: note for title, (_, note) in drawn.items()}
    if len(tiles) > (seen is not None):
        image_tiles.side_by_side(method.key, tiles, notes, min(2 if len(tiles) <= 4 else 3, len(tiles)))
    if result.table:
        table = pd.DataFrame(list(result.table)).rename(columns=forms.label)
        st.dataframe(table, hide_index=True, key=f"{method.key}.table")


def _tiles(output: Output, values: np.ndarray) -> dict[str, tuple[np.ndarray, str]]:
    """The items of an array as pictures with notes, by title; many items as one sheet."""
    items = output.items(values)
    drawn = [output.draw(item) for item in items[:TILES]]
    if len(items) > _SMALL_TILES:
        return {output.label: (in_rows(drawn), f"{len(drawn)} of {len(items)}")}
    titles = [output.label if len(items) == 1 else f"{output.label} {number}" for number in range(1, len(items) + 1)]
    return {title: (pixels, output.range_text(item)) for title, pixels, item in zip(titles, drawn, items, strict=True)}


def _over(key: str, network: Network, output: Output, values: np.ndarray, seen: np.ndarray, about: str = "") -> None:
    """Draw a map over the picture, with its numbers on hover, and its legend.

    `about`: the name of what it supports.
    """
    messages.heading(views.map_title(output, about))
    if output.kind == "label map":
        st.html(maps.legend(views.label_shares(output, values, network.readable_name)))
    component("map")(key=key, data=views.map_data(output, values, seen, about, network.readable_name))
    caption = views.map_caption(output, values, about)
    if caption:
        st.caption(messages.escaped(caption))


def _class_map(key: str, network: Network, output: Output, result: Result, seen: np.ndarray | None) -> None:
    """The map of one class, which a list chooses; by default the one with the largest mean."""
    values = result.arrays[output.array]
    classes = result.arrays.get("classes", np.arange(len(values))).tolist()
    best = classes[int(values.reshape(len(values), -1).mean(1).argmax())]
    number = state.get(state.CLASS) if state.get(state.CLASS) in classes else best
    unit_picker.class_list(f"{key}.class", network, classes, number, label=output.label)
    one = replace(output, kind="heat map", title=network.readable_name(number))
    if output.over_photo and seen is not None:
        _over(key, network, one, values[classes.index(number)], seen)
        return
    ((title, (pixels, note)),) = _tiles(one, values[classes.index(number)]).items()
    image_tiles.side_by_side(key, {title: pixels}, {title: note}, 1)


def _facts(result: Result) -> None:
    """Draw the cautions, and the other facts in a fold."""
    for name in CAUTIONS:
        if name in result.facts:
            messages.must_know(result.facts[name])
    with layout.fold():
        for name, fact in result.facts.items():
            if name not in (*CAUTIONS, *_KNOWN):
                st.caption(f"**{messages.escaped(forms.label(name))}:** {messages.escaped(access.discreet(fact))}")
        st.caption(f"Computed in {result.facts['time']}.")


if __name__ == "__main__":
    page()
