"""Knock out: what a class loses when each unit of a layer is silenced, and the fewest units that change the answer."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import plural
from vizapp.gallery.search import shipped_classes
from vizapp.media.picture import Picture
from vizapp.methods.activations import over_photo
from vizapp.methods.base import Result
from vizapp.methods.scores import in_words
from vizapp.methods.tables import frame_to_csv
from vizapp.ui.app.pages import pages
from vizapp.ui.inputs import networks, targets
from vizapp.ui.session import compute, downloads, forms, messages, reports, state, url
from vizapp.ui.widgets import charts, image_tiles, layout, options, top_activations, unit_card, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo import class_unit
from vizapp.zoo.network import Network

_LOSSES, _GAINS, _CARDS, _CLASSES = 10, 5, 6, 3  # most bars of each kind, cards, and classes named beside a unit
_VIEWS = {"maps": "Bars", "numbers": "Numbers"}


def page() -> None:
    """Draw the page."""
    layout.page_title(
        "Knock out",
        "What the answer loses when one unit of a layer is silenced, and how few units it takes to change it.",
    )
    asked = layout.answer_and_picture()
    sites = networks.sites(asked[0]) if asked is not None else ()
    if asked is None or not sites:
        return
    network, picture = asked
    site = unit_picker.chosen_site(network, state.LAYER) or network.last_feature_map() or sites[0]
    unit_picker.draw_network("knockout", sites, site)
    told = compute.run("predict", network, picture)
    if told is None:
        return
    class_ = _controls(network, picture, sites, site, told)
    params = {"unit": class_unit(network, class_), "site": site.name, "factor": forms.values("knockout")["factor"]}
    result = compute.run("knockout", network, picture, **params)
    if result is None:
        return
    order = result.arrays["order"]
    channel = unit_picker.channel(order)
    left, right = layout.columns(7, 5)
    with left:
        _headline(network, result)
        if state.get(state.VIEW) == "numbers":
            _table(result)
        else:
            _bars(network, result, channel)
        fewest = _fewest(network, picture, result, params)
    with right:
        pictures = _unit(network, picture, site, result, channel)
    _cards(network, site, result)
    messages.must_know(result.facts["caution"])
    with layout.fold():
        for name, fact in (result if fewest is None else fewest).facts.items():
            if name not in ("caution", "network", "picture", "time"):
                messages.info(f"{forms.label(name)}: {fact}")
    reports.offer(result)
    if fewest is not None:
        reports.offer(fewest, "Fewest units that change the answer")
    name = downloads.file_name("knockout", network.name, site.name, picture.name)
    table = downloads.File("Table CSV", f"{name}.csv", "text/csv", partial(frame_to_csv, pd.DataFrame(result.table)))
    downloads.row("knockout", name, pictures, (result if fewest is None else fewest).arrays, [table])


def _controls(network: Network, picture: Picture, sites: tuple[Site, ...], site: Site, told: Result) -> int:
    """Draw the controls; returns the class."""
    count = len(told.arrays["logits"])
    chosen = state.get(state.CLASS)
    if chosen is not None and chosen >= count:
        messages.warn(f"{network.name} has {count} classes and no class {chosen}. Showing the prediction.")
        state.put(state.CLASS, None)
        chosen = None
    class_ = targets.explained_class(network, picture, told.arrays["probabilities"]) if chosen is None else int(chosen)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="knockout_controls"):
        unit_picker.layer_list("knockout", sites, site)
        with st.container(width=300):
            unit_picker.class_list("knockout.class", network, range(count), class_, label_visibility="collapsed")
        unit_picker.switch(state.VIEW, _VIEWS, "knockout.view")
        options.popover("knockout", ("factor",))
    options.changed_line("knockout", ("factor",))
    return class_


def _headline(network: Network, result: Result) -> None:
    """Say what the unit with the largest effect does to the class."""
    arrays = result.arrays
    name, before = network.readable_name(int(arrays["class"])), float(arrays["clean_probability"])
    unit = int(arrays["order"][0])
    change = float(arrays["probability_change"][unit])
    said = f"{_does()} unit {unit} alone costs it most: {in_words(network, before)} → {in_words(network, before + change)}."
    if arrays["logit_change"][unit] >= 0:
        said = f"{_does()} a unit of this layer never costs it anything."
    st.markdown(f"**{messages.escaped(name)}**, {in_words(network, before)}. {said}")


def _does() -> str:
    return "Silencing" if forms.values("knockout")["factor"] == 0 else "Scaling"


def _bars(network: Network, result: Result, channel: int) -> None:
    """Draw the largest losses and gains, and all units in order."""
    arrays, order = result.arrays, result.arrays["order"]
    change = arrays["logit_change"]
    units = [int(u) for u in order[:_LOSSES] if change[u] < 0]
    units += [int(u) for u in order[max(0, len(order) - _GAINS) :] if change[u] > 0 and u not in units]
    before = float(arrays["clean_probability"])
    notes = [
        f"{in_words(network, before)} → {in_words(network, before + float(arrays['probability_change'][u]))}\n"
        f"answer: {network.readable_name(int(arrays['label'][u]))}"
        for u in units
    ]
    quantity = "class's logit" if network.quantity == "probability" else network.quantity
    messages.heading(f"Change of the {quantity}: largest losses and gains")
    charts.draw("knockout.bars", charts.effects(units, change[units], channel, notes))
    messages.heading(f"All {plural(len(order), 'unit')}, from the largest loss to the largest gain")
    charts.draw("knockout.all", charts.value_bars(change, order, channel))


def _signed(change: float, digits: int) -> str:
    """A change, with a true minus sign."""
    return f"{change:+.{digits}f}".replace("-", "−")


def _table(result: Result) -> None:
    number = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame(list(result.table)), hide_index=True, height=520, key="knockout.table",
        column_config={
            "channel": number("Unit"), "logit change": number("Change of the logit", format="%+.4f"),
            "probability change": number("Change of the probability", format="%+.4f"),
            "rank": number("Rank of the class"), "answer": "Answer",
        },
    )  # fmt: skip


def _fewest(network: Network, picture: Picture, result: Result, params: dict[str, Any]) -> Result | None:
    """Draw the curve of the fewest units that change the answer, or the button that searches them."""
    if network.quantity != "probability":
        return None  # a single score has no other answer
    messages.heading("Fewest units that change the answer")
    choice = forms.choices("knockout")["fewest"]
    if not state.get(choice):
        st.button(
            "Find the fewest units that change the answer", key="knockout.fewest", icon=":material/search:",
            on_click=state.put, args=(choice, True), disabled=bool(result.arrays["clean_label"] != result.arrays["class"]),
        )  # fmt: skip
        messages.info(
            "Step by step, the unit whose silencing lowers the margin of the class most is silenced too, and all others are "
            "computed again."
        )
        return None
    found = compute.run("knockout", network, picture, **params, fewest=True)
    if found is None:
        return None
    messages.must_know(found.facts["fewest"])
    units, curve = found.arrays["fewest"], found.arrays["fewest_curve"]
    if len(units):
        charts.draw("knockout.curve", charts.margins(curve, [int(unit) for unit in units]))
        shown = ", ".join(map(str, units[:40].tolist())) + (", …" if len(units) > 40 else "")
        messages.info(
            f"In the order in which they were silenced: {shown}. The margin is the logit of the class less that of the best "
            "other class. A greedy search: another set may be smaller."
        )
    return found


def _unit(network: Network, picture: Picture, site: Site, result: Result, channel: int) -> dict[str, np.ndarray]:
    """Draw what silencing the chosen unit does, and where it responds; returns pictures by title."""
    arrays = result.arrays
    unit_picker.stepper("knockout", site.name, site.channels, channel)
    before, change = float(arrays["clean_probability"]), float(arrays["probability_change"][channel])
    name, answer = (network.readable_name(int(arrays[key])) for key in ("class", "clean_label"))
    after = network.readable_name(int(arrays["label"][channel]))
    says = f"the answer stays {after}" if after == answer else f"the answer becomes {after}"
    is_share = network.quantity == "probability"
    what, told = (f"the probability of {name}" if is_share else f"the {name}"), f"{in_words(network, before + change)}"
    logit = f" and its logit by {_signed(float(arrays['logit_change'][channel]), 3)}; {says}"
    messages.must_know(
        f"{_does()} unit {channel} changes {what} from {in_words(network, before)} to {told}{logit if is_share else ''}."
    )
    known = _strongest_classes(network, site, channel)
    if known:
        messages.info(known)
    maps = compute.run("activations", network, picture, unit=Unit(site.name, 0)) if site.is_map else None
    shown = {}
    if maps is not None:
        values = maps.arrays["activations"][channel]
        shown["Unit"] = over_photo(network.seen(picture), values)
        image_tiles.picture("knockout.map", shown["Unit"], f"Unit {channel} over the photo")
        messages.info("Where the unit responds." if values.any() else "Zero everywhere on this photo.")
    maps_page = pages()["feature_maps"]
    link = url.link({state.LAYER.name: site.name, state.CHANNEL.name: str(channel), state.STAGES.name: "one"})
    st.page_link(maps_page.page, label="In Feature maps", icon=maps_page.icon, query_params=link)
    return shown


def _strongest_classes(network: Network, site: Site, channel: int) -> str:
    """What the photos show that activate the unit most, where vizapp knows it; else nothing."""
    known = shipped_classes(network.digest)
    if known is None:
        return ""
    for one in unit_card.same_units(network, site):
        rows = known.units.index[(known.units["site"] == one.name) & (known.units["channel"] == channel)]
        if len(rows):
            names = list(known.classes_of(int(rows[0])))[:_CLASSES]
            return f"Of {known.about}, those of {', '.join(names)} activate it most."
    return ""


def _cards(network: Network, site: Site, result: Result) -> None:
    """Draw the top photos of the units with the largest losses, if there is a gallery of the network."""
    layer = unit_card.layer_gallery(network, site)
    units = [int(u) for u in result.arrays["order"][:_CARDS] if result.arrays["logit_change"][u] < 0]
    if layer is None or not units:
        return
    looked = top_activations.load_patches(layer, units)
    if not looked:
        return
    messages.heading("The photos that activate these units most")
    cards = [
        {
            "item": unit, "title": f"Unit {unit}", "note": f"logit {_signed(float(result.arrays['logit_change'][unit]), 2)}",
            "patches": top_activations.drawn(layer, unit, looked[unit]) if looked[unit].shown else None,
            "down": None, "empty": "Zero for every photo",
        }
        for unit in units
    ]  # fmt: skip
    component("units")(
        key="knockout.cards", data={"cards": cards, "label": "Units with the largest losses", "waiting": None},
        on_chosen_change=partial(unit_picker.take_click, state.CHANNEL, "knockout.cards", "chosen"),
        on_card_change=partial(unit_picker.take_card, "knockout.cards", site.name),
    )  # fmt: skip
    messages.info(f"From {layer.asked.collection.title}. A click chooses the unit.")


if __name__ == "__main__":
    page()
