"""Predict of a network whose answer is a vector: the photos whose vectors are most like that of the photo."""

from __future__ import annotations

import streamlit as st

from vizapp.media.picture import Picture
from vizapp.ui.pages.predict import explain_links
from vizapp.ui.session import compute, downloads, messages, reports, state
from vizapp.ui.widgets import image_tiles, layout
from vizapp.zoo.network import Network


def draw(network: Network, picture: Picture) -> None:
    """Draw the answer."""
    st.number_input("Photos shown", 1, 20, width=130, **state.bind(state.TOP, "predict.top"))
    result = compute.run("predict", network, picture, top=state.get(state.TOP))
    if result is None:
        return
    left, right = layout.columns(4, 7)
    with left:
        messages.heading("The photo as the network sees it")
        image_tiles.picture("predict.photo", network.seen(picture), picture.name)
    with right:
        messages.heading("The photos most like it")
        strip = next((panel for panel in result.panels if panel.title == "neighbours"), None)
        if strip is not None:
            image_tiles.picture("predict.nearest", strip.pixels, "The nearest photos, the nearest first")
        rows = [{"Photo": row["path"], "Class": row["label"], "Cosine": float(row["cosine"])} for row in result.table]
        st.dataframe(
            rows, hide_index=True, key="predict.table",
            column_config={"Cosine": st.column_config.NumberColumn("Cosine", format="%.3f")},
        )  # fmt: skip
        explain_links.draw(network, "likeness")
        with layout.fold():
            messages.info(result.facts["output"])
    name = downloads.file_name("predict", network.name, picture.name)
    shown = {panel.title.capitalize(): panel.pixels for panel in result.panels}
    reports.offer(result)
    downloads.row("predict", name, shown, result.arrays)
