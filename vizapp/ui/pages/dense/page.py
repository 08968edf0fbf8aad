"""Dense: the prediction for every crop of the photo, as a map over it."""

from __future__ import annotations

from functools import partial
from html import escape

import streamlit as st

from vizapp.engine.fully_convolutional.conversion_plan import ConversionPlan
from vizapp.engine.fully_convolutional.tiles import available_strides
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.methods import dense_overlay as overlay
from vizapp.methods.base import Result
from vizapp.methods.dense import MOST, convolutional, suitable_zoom
from vizapp.methods.scores import probabilities
from vizapp.ui.session import compute, downloads, forms, messages, reports, state
from vizapp.ui.widgets import image_tiles, layout, maps, options, topk_bars, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_INPUTS = {"photo": "Photo", "crop": "Crop"}
_TINTS = {"labels": "Labels", "class": "One class"}
_OPTIONS = ("scales", "flips", "vote", "check")
_AUTOMATIC = 0.0  # among the scales: the one that suits the photo
_ZOOMS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)


def page() -> None:
    """Draw the page."""
    layout.page_title("Dense", "The prediction for every crop of the photo, in one pass.")
    asked = layout.network_and_picture()
    if asked is None:
        return
    network, picture = asked
    plan = _convert(network)
    if plan is None:
        return
    zoom = _controls(network, picture, plan)
    result = compute.run("dense", network, picture, **forms.values("dense") | {"zoom": zoom})
    if result is None:
        return
    _agreement(result, plan)
    left, right = layout.columns(7, 4)
    with left:
        _map(network, picture, result)
    with right:
        _words(network, picture, result)
    _pyramid(result)
    name = downloads.file_name("dense", network.name, picture.name)
    shown = {panel.title.capitalize(): panel.pixels for panel in result.panels[:2]}
    reports.offer(result)
    downloads.row("dense", name, shown, result.arrays)


def _convert(network: Network) -> ConversionPlan | None:
    """The plan that makes the network fully convolutional; None where a message explains why there is none."""
    return compute.compute(
        compute.key_of("dense.plan", network),
        lambda tick: convolutional(network),
        size=lambda plan: 10_000,
        title="Converting the network",
        device=str(network.device),
    )


def _controls(network: Network, picture: Picture, plan: ConversionPlan) -> float:
    """Draw the controls; returns the scale of the photo."""
    chosen = forms.choices("dense")
    known = ["native", *(str(stride) for stride in available_strides(plan)[1:])]
    if state.get(chosen["stride"]) not in known:
        messages.warn(f"{network.name} has no stride of {state.get(chosen['stride'])}. Using its native stride.")
        state.put(chosen["stride"], "native")
    crop = state.get(chosen["input"]) == "crop"
    if crop:  # the crop of `predict` has one size
        state.put(chosen["zoom"], None)
        state.put(chosen["scales"], 1)
    asked = state.get(chosen["zoom"])
    zoom = 1.0 if crop else suitable_zoom(plan, picture) if asked is None else asked
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="dense_controls"):
        unit_picker.switch(chosen["input"], _INPUTS, "dense.input", label="Part", label_visibility="visible")
        zooms = [_AUTOMATIC, *sorted({*_zooms(picture, plan), asked or 1.0})]
        st.selectbox(
            "Scale", format_func=lambda one: "Automatic" if one == _AUTOMATIC else f"{one:g}×", width=130, disabled=crop,
            **state.bind(
                chosen["zoom"], "dense.zoom", asked or _AUTOMATIC, read=lambda one: one or None, options=zooms
            ),
        )  # fmt: skip
        st.selectbox(
            "Stride", format_func=lambda text: "native stride" if text == "native" else f"stride {text}", width=140,
            **state.bind(chosen["stride"], "dense.stride", options=known),
        )  # fmt: skip
        options.popover("dense", _shown_options())
        if not crop:
            st.caption(f"{zoom:.3g}×: {round(picture.width * zoom)} × {round(picture.height * zoom)} pixels")
    options.changed_line("dense", _shown_options())
    return zoom


def _agreement(result: Result, plan: ConversionPlan) -> None:
    """Draw how often the class is that of the crop alone, and a button that computes it exactly."""
    agrees, exact = result.arrays["agrees"], forms.choices("dense")["exact"]
    is_exact, cells = state.get(exact), result.arrays["label"].size
    words = (
        f"The same class as a crop classified alone at {100 * agrees.mean():.0f} % of the places" if len(agrees) else ""
    )
    if is_exact:
        words = "Each place shows the class of its own crop"
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="dense_agreement"):
        if words:
            st.html(f'<div class="vz-headline">{escape(words)}</div>', width="content")
        if is_exact or plan.padded or plan.gates:  # otherwise the pass over the photo is exact
            label = "Compute in one pass again" if is_exact else f"Compute exactly: classify {cells:,} crops"
            st.button(label, key="dense.exact", on_click=state.put, args=(exact, not is_exact))
    if not words:  # they say the same in short; the sentence is in the fold
        messages.must_know(result.facts["padding error"])


def _shown_options() -> list[str]:
    """The options that apply; the crop of `predict` has one scale only."""
    crop = state.get(forms.choices("dense")["input"]) == "crop"
    return [name for name in _OPTIONS if not (crop and name == "scales")]


def _zooms(picture: Picture, plan: ConversionPlan) -> list[float]:
    """The zoom factors at which a crop fits into the photo, and 1.0 in any case."""
    fits = [
        zoom for zoom in _ZOOMS
        if round(picture.height * zoom) >= plan.size[0] and round(picture.width * zoom) >= plan.size[1]
        and (zoom <= 1 or zoom * max(picture.height, picture.width) <= MOST)
    ]  # fmt: skip
    return fits if 1.0 in fits else [1.0, *fits]


def _map(network: Network, picture: Picture, result: Result) -> None:
    tint, shape = state.get(state.TINT), result.arrays["label"].shape
    shown = _class(network, result)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="dense_tint"):
        unit_picker.switch(state.TINT, _TINTS, "dense.tint", label="Colours", label_visibility="visible")
        if tint == "class":
            kept = overlay.kept_classes(result).tolist()
            unit_picker.class_list("dense.class", network, kept, shown)
    if tint == "labels":
        st.html(maps.legend(overlay.legend(result)))
    photo, zoom = (
        shrink(picture.pixels, overlay.LARGEST, "bilinear"),
        min(1.0, overlay.LARGEST / max(picture.pixels.shape[:2])),
    )
    chosen = shown if tint == "class" else None
    data = overlay.data(photo, zoom, result, network.head.link, network.readable_name, chosen, _cell(shape))
    component("map")(
        key="dense.map", data=data, on_cell_change=partial(unit_picker.take_click, state.PLACE, "dense.map", "cell")
    )


def _class(network: Network, result: Result) -> int:
    """The class to show: the chosen one, or the one with most cells."""
    kept, chosen = overlay.kept_classes(result), state.get(state.CLASS)
    if chosen is not None and chosen not in kept:
        messages.warn(f"There is no map of class {chosen}: {network.name} has {len(network.categories)} classes.")
        state.put(state.CLASS, None)
        chosen = None
    if chosen is None:
        return next((int(row["class"]) for row in result.table if row["class"] in kept), int(kept[0]))
    return int(chosen)


def _cell(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The clicked cell, if the map has it."""
    cell = state.get(state.PLACE)
    return (int(cell[0]), int(cell[1])) if cell is not None and cell[0] < shape[0] and cell[1] < shape[1] else None


def _words(network: Network, picture: Picture, result: Result) -> None:
    arrays, cell = result.arrays, _cell(result.arrays["label"].shape)
    if cell is not None:
        messages.heading(f"Cell {cell[0]},{cell[1]} and its crop")
        top, left, bottom, right = arrays["boxes"][cell]
        crop = picture.pixels[max(top, 0) : bottom, max(left, 0) : right]
        with st.container(width=240):
            image_tiles.picture("dense.crop", crop, "The crop of the cell")
        chance = probabilities(network, arrays["scores"][:, cell[0], cell[1]], arrays["log_sum"][cell])
        topk_bars.draw_classes("dense.cell", network, chance, overlay.kept_classes(result))
        st.button("Clear selection", key="dense.release", on_click=state.put, args=(state.PLACE, None))
    messages.heading("Whole photo")
    topk_bars.draw_classes("dense.mean", network, probabilities(network, arrays["prediction"]))
    if state.get(forms.choices("dense")["scales"]) > 1 or state.get(forms.choices("dense")["flips"]):
        messages.heading(f"Vote over {len(arrays['votes'])} maps")
        topk_bars.draw_classes("dense.vote", network, probabilities(network, arrays["vote"]))
    with layout.fold():
        messages.info("The prediction for the whole photo is the mean of the logits of all cells.")
        for fact in ("padding error", "map", "passes", "gates", "classes"):
            if fact in result.facts:
                messages.info(result.facts[fact])


def _pyramid(result: Result) -> None:
    """Draw the label maps of the scales that voted, side by side, in the colours of the main map."""
    scales = [panel for panel in result.panels if panel.title.startswith("scale-")]
    if scales:
        messages.heading("Scales in the vote")
        pictures = {f"Scale {number}": panel.pixels for number, panel in enumerate(scales, 1)}
        notes = {f"Scale {number}": panel.caption.rstrip(".") for number, panel in enumerate(scales, 1)}
        image_tiles.side_by_side("dense", pictures, notes, min(3, len(scales)))


if __name__ == "__main__":
    page()
