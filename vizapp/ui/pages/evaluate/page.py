"""Evaluate: how often the network is right about a labelled collection, which classes it confuses, and its worst mistakes."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.errors import plural
from vizapp.media.source import Source
from vizapp.methods.base import Result
from vizapp.methods.evaluate import class_rows, label_rows, nothing_to_compare
from vizapp.methods.truth import true_classes
from vizapp.ui.inputs import datasets, image_picker, networks
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.pages.evaluate import charts, evaluate_runs, exports, photo_cards
from vizapp.ui.session import forms, messages, reports, state
from vizapp.ui.widgets import layout
from vizapp.zoo import local_networks
from vizapp.zoo.network import Network

_GREY = "vizapp/lenet5-digits"
_CROPS = {"one": "One crop", "ten": "Ten", "144": "144", "multi": "Three scales", "dense": "Whole photo"}


def page() -> None:
    """Draw the page."""
    layout.page_title(
        "Evaluate", "How often the network is right about photos of known classes, and where it is wrong."
    )
    network = networks.current()
    if network is None:
        return
    photos = image_picker.choose_collection("evaluate", network)
    if photos is None or not networks.sites(network):
        return
    true = true_classes(network, photos.source.labels)
    if all(one is None for one in true):
        _nothing(network, photos.source)
        return
    values = _form(network)
    result = evaluate_runs.result(network, photos, values)
    if result is not None:
        _draw(network, photos, result)


def _form(network: Network) -> dict[str, object]:
    """Draw the crops and the networks to average with; returns the parameters."""
    choice, more = (forms.choices("evaluate")[name] for name in ("crops", "with_networks"))
    here = sorted(local_networks() - {network.name})
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="evaluate_controls"):
        st.segmented_control(
            "Crops of each photo", list(_CROPS), format_func=_CROPS.__getitem__, required=True,
            help="The probabilities of the crops are averaged: ten as of AlexNet, 144 as of GoogLeNet. Whole photo: the "
            "converted network wherever a whole crop fits, logits averaged.",
            **state.bind(choice, "evaluate.crops"),
        )  # fmt: skip
        chosen = [name for name in state.get(more) if name in here]
        if len(chosen) < len(state.get(more)):
            messages.warn("Some of the networks to average with are not on this machine; they are left out.")
            state.put(more, tuple(chosen))
        st.multiselect(
            "Average with", here, placeholder="No other network", width=320,
            help="Networks on this machine with the same classes.",
            **state.bind(more, "evaluate.with", chosen, every_run=True, read=tuple),
        )  # fmt: skip
        st.button(
            "", key="evaluate.read_again", icon=":material/refresh:", type="tertiary", on_click=datasets.read_again,
            help="List the photos again",
        )  # fmt: skip
    return {"crops": state.get(choice), "with_networks": tuple(chosen)}


def _nothing(network: Network, source: Source) -> None:
    """Say why there is nothing to evaluate; where nobody chose these photos, show what works with one click."""
    error = nothing_to_compare(network, source)
    messages.warn(str(error))
    classifies = error.code != "no-class-scores"
    if classifies and any(source.labels) and state.get(state.DATA):
        rows = label_rows(network, source, [None] * len(source))
        st.dataframe(
            pd.DataFrame([{"Label": row["label"] or "none", "Photos": row["photos"]} for row in rows[:1000]]),
            hide_index=True, key="evaluate.without", height=min(38 + 35 * len(rows), 220), width=420,
        )  # fmt: skip
    if classifies:
        messages.info(
            "Choose a folder whose sub-folders are named like classes of the network (or like ImageNet's numbers, "
            "n01440764), a CSV file with the columns path and label, or a data set."
        )
    example = None if state.get(state.DATA) else networks.published(_GREY)
    digits = None if example is None else datasets.list_collection("digits")
    st.button(
        "Take LeNet-5" if digits else "Evaluate LeNet-5 on 1,797 digits", key="evaluate.example",
        icon=":material/play_arrow:", type="secondary" if digits else "primary", on_click=_take_example,
    )  # fmt: skip
    if example is not None and digits is not None:
        messages.heading(f"An example: {_GREY} on the digits that come with vizapp")
        result = evaluate_runs.result(example, digits, {"crops": "one", "with_networks": ()})
        if result is not None:
            _draw(example, digits, result, example=True)


def _take_example() -> None:
    state.put(state.NETWORK, _GREY)
    state.put(state.WEIGHTS, "published")
    state.put(state.DATA, "digits")
    state.clear("evaluate.pending")


# The result


def _draw(network: Network, photos: Collection, result: Result, example: bool = False) -> None:
    """Draw the result; of an example without what would lead to other pages, which show the current network."""
    reports.offer(result)
    _rates(network, photos, result)
    left, right = layout.columns(5, 4, key="stacking_evaluate_charts")
    with left:
        _confusion(network, result, example)
    with right:
        messages.heading("Reliability: how often it is right, over how sure it is")
        st.plotly_chart(
            charts.reliability(result.arrays["calibration"]),
            key="evaluate.reliability",
            config={"displayModeBar": False},
        )
    if example:
        return
    photo_cards.draw(network, photos, result)
    _classes(network, result)
    exports.row(network, photos, result)
    with layout.fold():
        for name in ("crops", "networks", "output", "unreadable", "note", "time"):
            if name in result.facts:
                st.caption(f"**{name.capitalize()}:** {messages.escaped(result.facts[name])}")


def _rates(network: Network, photos: Collection, result: Result) -> None:
    facts = result.facts
    right, count = 100 * (1 - float(result.arrays["top1"])), int(result.arrays["count"].sum())
    told = f"Right about {right:.2f} % of {plural(count, 'photo')}"
    st.html(f'<div class="vz-headline">{escape(told)}</div>')
    shown = {
        "Top-1 error": facts["top-1 error"], "Top-5 error": facts["top-5 error"],
        "Mean accuracy over the classes": facts["accuracy"].rpartition("classes ")[2],
        "Calibration error": facts["calibration error"],
    }  # fmt: skip
    st.html(layout.facts_table(shown))
    if photos.text == "digits" and network.clean.name == _GREY and network.weights == "default":
        messages.must_know("Three quarters of these digits trained this network; the others alone would be a test.")
    for name in ("learned from", "without a class", "as numbers", "one class", "unreadable"):
        if name in facts:
            messages.must_know(f"{name.capitalize()}: {facts[name]}")


def _confusion(network: Network, result: Result, example: bool) -> None:
    matrix, listed = result.arrays["confusion"], result.arrays["classes"]
    some = charts.most_confused(matrix)
    classes = [int(number) for number in listed[some]]
    messages.heading("Confusion matrix: rows are right, columns are given")
    names = [network.readable_name(number) for number in classes]
    figure = charts.confusion(matrix[np.ix_(some, some)], classes, names, state.get(state.CONFUSION))
    charts.draw_confusion("evaluate.confusion", figure)
    there = int(np.count_nonzero(matrix.sum(0) + matrix.sum(1)))
    if len(some) < there:
        messages.info(
            f"The {len(some)} with most confusions of the {there:,} classes that are right or given for a photo."
        )
    elif len(some) < len(listed):
        messages.info(f"The {len(some)} of {len(listed):,} classes that are right or given for a photo.")
    click = "" if example else "; click it to see its photos"
    messages.info(f"The colour is the share of a row. Point at a cell to read it{click}.")


def _classes(network: Network, result: Result) -> None:
    rows = sorted(class_rows(network, result.arrays), key=lambda row: (row["recall"] is None, row["recall"] or 0))
    table = pd.DataFrame(rows).drop(columns="class")
    with st.expander(f"The {len(rows)} classes as a table, those that are found least first"):
        st.dataframe(table.rename(columns=str.capitalize), hide_index=True, key="evaluate.classes", column_config={
            name: st.column_config.ProgressColumn(name, format="percent", min_value=0, max_value=1)
            for name in ("Recall", "Precision")
        })  # fmt: skip


if __name__ == "__main__":
    page()
