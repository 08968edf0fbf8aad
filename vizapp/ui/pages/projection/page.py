"""Projection: the pixels that activated a unit, by three rules; or the nine strongest units of a layer."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from vizapp.engine.trace.sites import Site, Unit
from vizapp.media.drawing import exceeds, sheet, signed
from vizapp.media.picture import Picture
from vizapp.methods.activations import over_photo, strength_order, strongest_cell
from vizapp.methods.base import Question, Result
from vizapp.methods.projection import revealing_rule
from vizapp.ui.inputs import targets
from vizapp.ui.pages.projection import sanity_check
from vizapp.ui.session import compute, downloads, forms, messages, reports, state
from vizapp.ui.widgets import image_tiles, layout, live, options, projection_tiles, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.ui.widgets.maps import Box
from vizapp.ui.widgets.projection_tiles import RULES
from vizapp.zoo.network import Network
from vizapp.zoo.target import SITE

_MODES = {"one": "Selected unit", "nine": "Nine strongest"}
_CONTRASTS = {"shared": "Shared scale", "own": "Scale per picture"}
_FAINT = 0.05  # share of the shared scale below which a projection is hardly visible


def page() -> None:
    """Draw the page."""
    opened = unit_picker.open_page("projection", "Projection", "Which pixels made this unit respond.", late=True)
    if opened is None:
        return
    network, picture, sites, site = opened
    if live.draw(network, site):
        return
    mode = state.get(state.MODE)
    _controls(network, sites, site, mode)
    layer = compute.run("activations", network, picture, unit=Unit(site.name, 0))
    if layer is None:
        return
    (_one if mode == "one" else _nine)(network, picture, site, layer.arrays["activations"])


def _controls(network: Network, sites: tuple[Site, ...], site: Site, mode: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="projection_controls"):
        unit_picker.layer_list("projection", sites, site)
        unit_picker.switch(state.MODE, _MODES, "projection.mode")
        unit_picker.switch(state.PART, projection_tiles.PARTS, "projection.part")
        if mode == "nine":
            projection_tiles.rule_switch(network, "projection.rule")
        options.popover("projection", projection_tiles.OPTIONS)
    options.changed_line("projection", projection_tiles.OPTIONS)


# One unit


def _first_of_target(network: Network, picture: Picture, site: Site, order: np.ndarray) -> np.ndarray:
    """The order of the channels; of a target, its class comes first."""
    class_ = targets.class_of(network.untargeted, picture) if site.name == SITE and network.untargeted else None
    return order if class_ is None else np.array([class_, *order[order != class_]])


def _one(network: Network, picture: Picture, site: Site, values: np.ndarray) -> None:
    order = strength_order(values)
    channel = unit_picker.channel(_first_of_target(network, picture, site, order))
    at_cell = site.is_map and state.get(forms.choices("projection")["extent"]) == "cell"
    cell = (unit_picker.cell(values.shape[1:]) or strongest_cell(values[channel])) if at_cell else None
    unit = Unit(site.name, channel, cell)
    seen = network.seen(picture)
    left, right = layout.columns(7, 5)
    with left:
        results = _by_rule(network, picture, unit)
        pictures = _pictures(seen, results) if results else {}
        if results:
            _cautions(list(results.values()))
    box = _box(results["deconvnet"]) if results else None
    with right:
        unit_picker.stepper("projection", site.name, len(values), channel)
        names = network.readable_names(site)
        if names:
            unit_picker.class_list(
                "projection.class", network, range(len(names)), channel, state.CHANNEL, label_visibility="collapsed"
            )
        if site.is_map:
            unit_picker.cell_map("projection", seen, values[channel], channel, cell, box if at_cell else None)
            pictures |= {"Channel": over_photo(seen, values[channel])}
        else:
            unit_picker.bars("projection", values, order, channel, names)
        if at_cell and cell is not None:
            _cell_line(cell, box)
        if results:
            _words(results)
    if not results:
        return
    checked = sanity_check.draw(network, picture, unit, box or (0, 0, *seen.shape[:2]))
    arrays = _arrays(results)
    if checked is not None:
        reports.offer(checked)
        pictures |= {"Sanity check": sheet([panel.pixels for panel in checked.panels], 4, gap=4)}
        arrays |= {f"sanity_{name}": array for name, array in checked.arrays.items()}
    for rule, result in results.items():
        reports.offer(result, f"Projection, {RULES[rule]}")
    name = downloads.file_name("projection", network.name, site.name, str(channel), picture.name)
    downloads.row("projection", name, pictures, arrays)


def _by_rule(network: Network, picture: Picture, unit: Unit) -> dict[str, Result]:
    """The results of all three rules, the one that suits the network first; empty where a message explains why."""
    found: dict[str, Result] = {}
    for rule in sorted(RULES, key=lambda rule: rule != revealing_rule(network)):
        params = forms.values("projection", projection_tiles.OPTIONS)
        result = compute.run("projection", network, picture, unit=unit, rule=rule, **params)
        if result is None:
            return {}
        found[rule] = result
    return found


def _box(result: Result) -> Box:
    top, left, bottom, right = result.arrays["field"].tolist()
    return top, left, bottom, right


def _pictures(seen: np.ndarray, results: dict[str, Result]) -> dict[str, np.ndarray]:
    """Draw the photo and the three projections in two columns; returns the pictures by title."""
    projections = {RULES[rule]: result.arrays["projection"] for rule, result in results.items()}
    own = projection_tiles.scales(projections, "own")
    scale = projection_tiles.scales(projections, state.get(state.CONTRAST))
    part, box = state.get(state.PART), _box(results["deconvnet"])
    whole = {"Photo": seen} | {title: signed(values, scale[title]) for title, values in projections.items()}
    shown = {title: projection_tiles.crop_or_whole(pixels, box, part) for title, pixels in whole.items()}
    notes = {title: f"full contrast ±{scale[title]:.3g}" if own[title] else "zero" for title in projections}
    notes["Photo"] = f"{shown['Photo'].shape[1]} × {shown['Photo'].shape[0]} pixels"
    image_tiles.side_by_side("pictures", shown, notes, 2, box if part == "whole" else None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="projection_contrast"):
        unit_picker.switch(state.CONTRAST, _CONTRASTS, "projection.contrast")
        st.caption(_contrast_words(own))
    return shown


def _contrast_words(limits: dict[str, float]) -> str:
    if state.get(state.CONTRAST) == "own":
        return "Mid-grey is zero. The scales differ: compare patterns, not strengths."
    top = max(limits.values())
    faint = [title for title, limit in limits.items() if 0 < limit < _FAINT * top]
    words = f"Mid-grey is zero, full contrast ±{top:.3g}."
    return words + (f" {' and '.join(faint)}: too faint to see here." if faint else "")


def _cell_line(cell: tuple[int, int], box: Box | None) -> None:
    """Draw a line with the projected cell and its receptive field, and a button for the strongest cell."""
    chosen = state.get(state.CELL) is not None
    size = f" (receptive field {box[3] - box[1]} × {box[2] - box[0]} pixels)" if box is not None else ""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="projection_cell"):
        which = "selected" if chosen else "the strongest one"
        st.caption(f"From **cell {cell[0]},{cell[1]}**, {which}{size}. Click a cell to select it.")
        if chosen:
            st.button("Use strongest cell", key="projection.strongest", on_click=state.put, args=(state.CELL, None))


def _words(results: dict[str, Result]) -> None:
    """Say which projections are zero, and in a fold how they were computed, in numbers."""
    for sentence in _by_rules(results, "silent"):
        messages.must_know(sentence)
    with layout.fold():
        for sentence in _by_rules(results, "certificate"):
            messages.info(sentence)


def _by_rules(results: dict[str, Result], fact: str) -> list[str]:
    """The different sentences of a fact, each with the rules that it is about."""
    rules_of: dict[str, list[str]] = {}
    for rule, result in results.items():
        if fact in result.facts:
            rules_of.setdefault(result.facts[fact], []).append(RULES[rule])
    return [f"{' and '.join(rules)}: {sentence}" for sentence, rules in rules_of.items()]


def _cautions(results: list[Result]) -> None:
    """Draw the limits of the projections."""
    for name in ("extended", "detached", "custom", "no switches"):
        for sentence in {result.facts[name]: None for result in results if name in result.facts}:
            messages.must_know(sentence)
    messages.heading("What it does not show")
    messages.must_know(results[0].facts["caution"])


def _arrays(results: dict[str, Result]) -> dict[str, np.ndarray]:
    arrays = {rule: result.arrays["projection"] for rule, result in results.items()}
    return arrays | {name: results["deconvnet"].arrays[name] for name in ("patch", "field", "activation")}


# The nine strongest units of the layer


def _nine(network: Network, picture: Picture, site: Site, values: np.ndarray) -> None:
    chosen = unit_picker.channel(strength_order(values))
    rule = projection_tiles.rule(network)
    params = forms.values("projection") | {"rule": rule}
    result = projection_tiles.project_strongest(network, picture, site.name, values, **params)
    if result is None:
        return
    patches, down = projection_tiles.tiles(network.seen(picture), result, state.get(state.PART))
    names = network.readable_names(site)
    columns = layout.columns(1, 1)
    for column, title, tiles in zip(columns, ("Patches", RULES[rule]), (patches, down), strict=True):
        with column:
            image_tiles.title(title)
            data = projection_tiles.grid_data(tiles, result, chosen, names, f"{title} of nine units")
            key = "projection.patches" if title == "Patches" else "projection.nine"
            component("sheet")(
                key=key, data=data | {"card": True}, on_chosen_change=partial(_open, key),
                on_card_change=partial(unit_picker.take_card, key, site.name),
            )  # fmt: skip
    seen = network.seen(picture)
    if state.get(state.PART) == "patch" and any(exceeds(box, seen.shape) for box in result.arrays["field"]):
        messages.info("The receptive fields are larger than the photo, so each patch is the whole photo.")
    messages.info("Each projection has its own scale; mid-grey is zero. Click a unit to open it.")
    _cautions([result])
    with layout.fold():
        messages.info(result.facts["certificate"])
    name = downloads.file_name("projection", network.name, site.name, "nine", picture.name)
    pictures = {"Patches": projection_tiles.nine(patches), "Projections": projection_tiles.nine(down)}
    about = Question(network, picture)
    reports.offer_drawn("projection", f"Projections of nine units of {site.name}", pictures, [], result.facts, about)
    downloads.row("projection", name, pictures, result.arrays)


def _open(key: str) -> None:
    """Open the clicked unit at its strongest cell."""
    channel = state.clicked(key, "chosen")
    if channel is None:
        return
    state.put(state.CHANNEL, channel)
    state.put(state.CELL, None)
    state.put(state.MODE, "one")


if __name__ == "__main__":
    page()
