"""What each layer knows: how well its features tell the classes of a folder apart; and networks that learn these classes."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

import streamlit as st

from vizapp.errors import VizError, plural
from vizapp.methods.base import Result
from vizapp.ui.inputs import datasets, image_picker, networks
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.pages.probe import charts, probe_runs, teach_form
from vizapp.ui.session import downloads, forms, messages, reports, state
from vizapp.ui.widgets import charts as drawing
from vizapp.ui.widgets import layout, options
from vizapp.zoo.network import Network

_KEY = "probe"
_OPTIONS = ("photos", "splits", "curve", "sites", "seed")
_USUAL = 15  # photos of each class, if that leaves as many to test on


def page() -> None:
    """Draw the page."""
    layout.page_title(
        "What each layer knows", "How well the features of each layer tell the classes of your photos apart."
    )
    network = networks.current()
    if network is None:
        return
    collection = image_picker.choose_collection(_KEY, network)
    if collection is None or not networks.sites(network):
        return
    values = _form(network, collection)
    result = probe_runs.answer(network, collection, values)
    if result is not None:
        _draw(network, collection, result)
    if len(collection.source.classes) > 1:
        teach_form.draw(network, collection)


def _form(network: Network, collection: Collection) -> dict[str, Any]:
    """Draw the options; returns all parameters."""
    suited = {"photos": _suited(collection)}
    _check_layers(network)
    values = forms.values(_KEY)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="probe_controls"):
        source = collection.source
        count, classes = plural(len(source), "photo"), plural(len(source.classes), "class", "classes")
        messages.info(f"{collection.title} · {count} · {classes}")
        with st.popover("Options", icon=":material/tune:"):
            forms.draw(_KEY, _OPTIONS, suited)
        st.button(
            "", key="probe.read_again", icon=":material/refresh:", type="tertiary", on_click=datasets.read_again,
            help="List the photos again",
        )  # fmt: skip
    options.changed_line(_KEY, _OPTIONS)
    return values | {name: value for name, value in suited.items() if values[name] is None}


def _check_layers(network: Network) -> None:
    """Take the usual layers where the network lacks one of the chosen ones, and say so."""
    choice = forms.choices(_KEY)["sites"]
    try:
        for name in state.get(choice):
            network.site(name)
    except VizError as error:
        messages.warn(f"{error} Showing the usual layers.")
        state.put(choice, ())


def _suited(collection: Collection) -> int:
    """Fifteen photos per class, or half of the smallest class."""
    counts = Counter(label for label in collection.source.labels if label is not None)
    return max(3, min(_USUAL, min(counts.values(), default=0) // 2))


def _draw(network: Network, collection: Collection, result: Result) -> None:
    """Draw a headline, the charts, the facts and the downloads."""
    layers = [str(row["layer"]) for row in result.table[1:]]
    best = result.arrays["accuracy"].mean(1)
    top = int(best.argmax())
    random, pixels = (100 * float(result.arrays[f"accuracy_{name}"].mean(-1).max()) for name in ("random", "pixels"))
    told = (
        f"{100 * best[top]:.1f} % right from the features of {layers[top]}; at best {random:.1f} % with random weights, "
        f"{pixels:.1f} % from the pixels"
    )
    st.html(f'<div class="vz-headline">{escape(told)}</div>')
    curve = bool(len(result.arrays.get("curve_photos", ())))
    places = layout.columns(*((3, 2) if curve else (1,)), key="stacking_probe_charts")
    with places[0]:
        messages.heading("Accuracy by layer, first to last")
        drawing.draw("probe.layers", charts.by_layer(result, layers))
    if curve:
        with places[1]:
            messages.heading(f"At {layers[-1]}, by photos per class")
            drawing.draw("probe.photos", charts.by_photos(result))
    messages.info(
        f"A line is the mean over the splits, a dot one split; guessing is right on {result.facts['chance']}. Where "
        "the line rises, a layer makes the classes easier to tell apart; what random weights reach is due to the architecture."
    )
    if collection.text == "samples":
        messages.must_know(
            "These are overlapping crops of 18 photos, which tell which photo they are from nearly everywhere; a folder of "
            "different photos of each class shows more."
        )
    for name in ("curve", "left out", "unreadable", "ambiguous", "unlabelled", "copies"):
        if name in result.facts:
            messages.must_know(result.facts[name])
    with layout.fold():
        for name in ("photos", "layers", "random weights", "pixels", "C", "time"):
            st.caption(f"**{name.capitalize()}:** {messages.escaped(result.facts[name])}")
    title = downloads.file_name(_KEY, network.name, collection.title)
    pictures = {panel.title.capitalize(): panel.pixels for panel in result.panels}
    reports.offer(result)
    downloads.row(_KEY, title, pictures, result.arrays, downloads.documents(title, result.documents))


if __name__ == "__main__":
    page()
