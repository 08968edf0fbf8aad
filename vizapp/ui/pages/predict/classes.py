"""Predict of a classifier: the most probable classes, the part of the photo that the network sees, and what mattered."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from vizapp import methods
from vizapp.components.data import photo_data, ramp, uri
from vizapp.errors import VizError, plural
from vizapp.media.drawing import lay_over, veil
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.methods.base import Question, Result
from vizapp.methods.output import OPACITY
from vizapp.methods.predict import crops_of
from vizapp.methods.truth import true_class
from vizapp.service.jobs import Tick
from vizapp.ui.app.pages import pages
from vizapp.ui.session import compute, downloads, messages, reports, state, url
from vizapp.ui.widgets import layout, maps, topk_bars, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo import class_unit
from vizapp.zoo.network import Network

_FILES = {"seen": "Crop"}  # names of downloads by panel
_CROPS = {"one": "One crop", "ten": "Ten crops", "multi": "Three scales"}
_PLACES = ("Top left", "Top right", "Bottom left", "Bottom right", "Centre")
_LARGEST = 1100  # pixels of the longer side of the photo in the browser
_TALLEST = 520  # pixels of a tall photo on the screen
_LARGEST_TILE = 165  # pixels of a crop in the sheet


def draw(network: Network, picture: Picture) -> None:
    """Draw the answer."""
    left, right = layout.columns(6, 5)
    with right:
        result = _predict(network, picture)
        if result is None:
            return
        class_ = _class(network, result)
        true = true_class(network, picture.label)
        topk_bars.draw_prediction("predict.bars", network, result, class_, true=true)
        if "heads" in result.arrays:
            _heads(network, result)
        if state.get(state.CROPS) == "one":
            _crops(network, picture, result)
        with layout.fold():
            crops, seconds = result.facts["crops"], result.facts["time"]
            classes = plural(len(result.arrays["logits"]), "class", "classes")
            st.caption(f"{crops.capitalize()} · {classes} · {seconds} on {network.device}")
            st.caption(result.facts["output"])
    with left:
        cam = _gradcam(network, picture, class_)
        _photo(network, picture, result, class_, cam)
    if state.get(state.CROPS) != "one":
        _crops(network, picture, result)
    shown = {_FILES.get(panel.title, panel.title.capitalize()): panel.pixels for panel in result.panels}
    arrays = result.arrays
    reports.offer(result)
    if isinstance(cam, Result):
        reports.offer(cam, f"Grad-CAM of {network.readable_name(class_)}")
        values = cam.arrays["attribution"]
        shown |= {"Map": lay_over(network.seen(picture), veil(values, 0, float(values.max())), OPACITY)}
        arrays = arrays | {"gradcam": values}
    downloads.row("predict", downloads.file_name("predict", network.name, picture.name), shown, arrays)


def _predict(network: Network, picture: Picture) -> Result | None:
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        hint = "Ten crops: the four corners and the centre, each also mirrored; averaged."
        unit_picker.switch(state.CROPS, _CROPS, "predict.crops", label="Crops", help=hint, label_visibility="visible")
        st.number_input("Classes shown", 1, 20, width=130, **state.bind(state.TOP, "predict.top"))
    return compute.run("predict", network, picture, top=state.get(state.TOP), crops=state.get(state.CROPS))


def _class(network: Network, result: Result) -> int:
    """The class that the map explains: the chosen one, or the most probable."""
    chosen = state.get(state.CLASS)
    if chosen is not None and chosen >= len(result.arrays["logits"]):
        messages.warn(f"There is no class {chosen}: {network.name} has {len(result.arrays['logits'])} classes.")
        state.put(state.CLASS, None)
        chosen = None
    return int(result.table[0]["class"]) if chosen is None else int(chosen)


def _heads(network: Network, result: Result) -> None:
    """Draw what each head of the network answers."""
    names, classes, shares = (result.arrays[name].tolist() for name in ("heads", "head_classes", "head_probabilities"))
    messages.heading("The answer of each head")
    st.dataframe(
        {"Head": names, "Most probable class": list(map(network.readable_name, classes)), "Probability": shares},
        hide_index=True, key="predict.heads",
        column_config={"Probability": st.column_config.NumberColumn("Probability", format="percent")},
    )  # fmt: skip


def _gradcam(network: Network, picture: Picture, class_: int) -> Result | str:
    """Grad-CAM of the class; or a sentence that says why there is none."""

    def work(tick: Tick) -> Result:
        unit = class_unit(network, class_)
        return methods.ask("attribution", network, picture=picture, unit=unit, kind="gradcam", tick=tick)

    try:
        result = compute.compute(
            compute.key_of("predict.map", network, picture, class_=class_), work, title="Computing the map",
            device=str(network.device), raises=True,
        )  # fmt: skip
    except VizError as error:
        return str(error)
    if result is None:
        return ""
    values = result.arrays["attribution"]
    if np.isfinite(values).all() and values.any():
        return result
    why = "no part of the photo raises its score" if np.isfinite(values).all() else "not all values are finite"
    return f"In Grad-CAM at the layer {result.facts['layer']}, {why}."


def _photo(network: Network, picture: Picture, result: Result, class_: int, cam: Result | str) -> None:
    """Draw the whole photo with the crops framed, and over the centre crop the map, if there is one."""
    name = network.readable_name(class_)
    photo = shrink(picture.pixels, _LARGEST, "bilinear")
    zoom = photo.shape[0] / picture.height
    frames = np.unique(result.arrays["boxes"], axis=0)
    data = photo_data(photo, f"{picture.name}, with the part that the network sees framed")
    data |= {"frames": (frames * zoom).tolist()}
    if isinstance(cam, Result):
        values = cam.arrays["attribution"]
        box = np.array(network.preprocessing.view.box(picture.height, picture.width)) * zoom
        data |= {
            "heat": uri(veil(values, 0, float(values.max()))), "smooth": True, "extent": box.tolist(), "opacity": OPACITY,
            "ramp": ramp(through=True), "ends": ["none", "most"], "scale": f"Support for {name}",
        }  # fmt: skip
    tall = picture.height > picture.width
    with st.container(width=max(200, round(_TALLEST * picture.width / picture.height)) if tall else "stretch"):
        component("map")(key="predict.seen", data=data)
    if not isinstance(cam, Result):
        messages.info(f"No map of the part that mattered for {name}. {cam}" if cam else "")
    else:
        where = "" if state.get(state.CROPS) == "one" else "of the centre crop "
        messages.info(
            f"Which part mattered for {name}: Grad-CAM (Selvaraju et al. 2017) at the layer "
            f"{cam.facts['layer']}. Bright parts {where}raise its score; the map is as coarse as that layer, "
            f"{' × '.join(map(str, network.site(cam.facts['layer']).shape[1:]))} cells."
        )
        if "rough" in cam.facts:
            messages.must_know(cam.facts["rough"])
    occlusion = pages()["occlusion"]
    link = url.link({state.CLASS.name: str(class_)})
    label = "Check it by hiding parts" if isinstance(cam, Result) else "Find it by hiding parts"
    st.page_link(occlusion.page, label=label, icon=occlusion.icon, query_params=link)
    site = network.class_site
    if site is not None:
        maps_page = pages()["feature_maps"]
        link = url.link({state.STAGES.name: "cell", state.LAYER.name: site.name, state.CHANNEL.name: str(class_)})
        st.page_link(maps_page.page, label="Take its score apart", icon=":material/calculate:", query_params=link)
        unit_picker.card_button("predict.card", site.name, class_, "Unit card of this class")
    if picture.notes:
        messages.info(" ".join(picture.notes))


def _crops(network: Network, picture: Picture, result: Result) -> None:
    """Draw the crops that the network sees, with the most probable class of each."""
    _, height, width = network.input_size
    each = result.arrays["crop_probabilities"]
    messages.heading(f"What the network sees: {plural(len(each), 'crop')} of {width} × {height} pixels")
    key = compute.key_of("predict.crops", network, picture, crops=state.get(state.CROPS))
    data = compute.remembered(key, lambda: _tiles(network, picture, each), lambda data: len(data["sprite"]))
    component("sheet")(key="predict.crops.sheet", data=data)


def _tiles(network: Network, picture: Picture, each: np.ndarray) -> dict[str, Any]:
    """Data of the sheet component for the crops, each with its most probable class."""
    crops, _ = crops_of(Question(network, picture), state.get(state.CROPS), shown=True)
    several = len(crops) > 1
    titles = [
        _PLACES[n % 5] + (", mirrored" if n % 10 >= 5 else "") if several else "Centre" for n in range(len(crops))
    ]
    details = [f"{network.readable_name(int(p.argmax()))} {100 * p.max():.1f} %" for p in each]
    drawn = [shrink(crop, _LARGEST_TILE) for crop in crops]
    return maps.sprite_data(drawn, 10) | {
        "side": 84, "most": 132, "items": list(range(len(drawn))), "titles": titles, "details": details, "chosen": None,
        "label": plural(len(drawn), "crop"), "still": True,
    }  # fmt: skip
