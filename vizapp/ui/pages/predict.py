"""Predict: the crop that the network sees, and its most probable classes."""

from __future__ import annotations

import streamlit as st

from vizapp.ui.session import compute, downloads, messages, state
from vizapp.ui.widgets import image_tiles, layout, topk_bars, unit_picker

_CROPS = {"one": "One crop", "ten": "Ten crops", "multi": "Three scales"}


def page() -> None:
    """Draw the page."""
    layout.page_title("Predict", "The classes that the network finds most probable.")
    asked = layout.network_and_picture()
    if asked is None:
        return
    network, picture = asked
    left, right = layout.columns(5, 6)
    with left:
        seen = network.seen(picture)
        image_tiles.picture("predict.seen", seen, f"{picture.name}, as the network sees it")
        _, height, width = network.input_size
        st.caption(f"The crop that the network sees: {width} × {height} pixels.")
        if picture.notes:
            messages.info(" ".join(picture.notes))
    with right:
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            hint = "Ten crops: the four corners and the centre, each also mirrored; averaged."
            unit_picker.switch(state.CROPS, _CROPS, "predict.crops", label="Crops", help=hint)
            st.number_input(
                "Classes", 1, 20, label_visibility="collapsed", width=130, **state.bind(state.TOP, "predict.top")
            )
        result = compute.run("predict", network, picture, top=state.get(state.TOP), crops=state.get(state.CROPS))
        if result is None:
            return
        topk_bars.draw_prediction("predict.bars", network, result)
        crops, seconds = result.facts["crops"], result.facts["time"]
        st.caption(f"{crops.capitalize()} · {len(result.arrays['logits'])} classes · {seconds} on {network.device}")
        st.caption(result.facts["output"])
        name = downloads.file_name("predict", network.name, picture.name)
        shown = {panel.title.capitalize(): panel.pixels for panel in result.panels}
        downloads.row("predict", name, shown, result.arrays)


if __name__ == "__main__":
    page()
