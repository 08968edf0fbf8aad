"""Predict of a segmenter: the class of each cell over the photo, and the part of the photo that each class covers."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from vizapp.errors import plural
from vizapp.media.picture import Picture
from vizapp.methods.base import Result
from vizapp.ui.inputs import targets
from vizapp.ui.pages.predict import explain_links
from vizapp.ui.session import compute, downloads, messages, reports, state
from vizapp.ui.widgets import label_map, layout, maps, target_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target

_MAP, _AREAS = "predict.labels", "predict.areas"


def draw(network: Network, picture: Picture) -> None:
    """Draw the answer."""
    result = compute.run("predict", network, picture, top=len(network.categories) or 1)
    if result is None:
        return
    target = targets.chosen()
    cell = None if target is None else target.cell
    left, right = layout.columns(7, 5)
    with left:
        data = label_map.data(network, network.seen(picture), result, cell)
        component("map")(key=_MAP, data=data, on_cell_change=partial(target_picker.take_cell, _MAP))
        st.html(maps.legend(label_map.legend(network, result)))
    with right:
        _areas(network, result, targets.class_of(network, picture))
        explain_links.draw(network, "cell" if cell is not None else "region")
        with layout.fold():
            st.caption(messages.linked(result.facts["output"]))
    name = downloads.file_name("predict", network.name, picture.name)
    shown = {panel.title.replace("-", " ").capitalize(): panel.pixels for panel in result.panels}
    reports.offer(result)
    downloads.row("predict", name, shown, result.arrays)


def _areas(network: Network, result: Result, explained: int | None) -> None:
    """Draw the area of each class as bars, of which a click explains the region predicted as the class, and as a table."""
    area, there = result.arrays["area"], label_map.classes_present(result)
    messages.heading("Part of the photo")
    rows = [
        {"name": network.readable_name(one), "share": float(area[one]), "more": f"class {one}", "item": one}
        for one in there[:10]
    ]
    component("bars")(
        key=_AREAS,
        data={"rows": rows, "label": "Classes and their areas", "chosen": explained},
        on_item_change=_take_class,
    )
    messages.info(
        f"{plural(len(there), 'class', 'classes')} on this photo. A click explains where a class is predicted."
    )
    with st.expander("As a table"):
        frame = pd.DataFrame(list(result.table)).rename(columns=str.capitalize)
        percent = partial(st.column_config.NumberColumn, format="percent")
        st.dataframe(
            frame, hide_index=True, key="predict.table",
            column_config={"Area": percent("Area"), "Mean probability": percent("Mean probability")},
        )  # fmt: skip


def _take_class() -> None:
    clicked = state.clicked(_AREAS, "item")
    if clicked is not None:
        targets.choose(Target(int(clicked), region="predicted"))
