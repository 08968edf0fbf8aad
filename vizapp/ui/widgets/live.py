"""Live: what the pages with a camera answer to each of its frames, a view per page.

A view reads the choices of the page, draws its own, and returns a function that answers a frame in another thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st
import torch

from vizapp import methods
from vizapp.components.data import photo_uri, uri
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, Unit
from vizapp.media.drawing import contrasted, tint, veil
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.methods.activations import strength_order
from vizapp.methods.attribution import KINDS
from vizapp.methods.base import Question
from vizapp.methods.occlusion import Occlusion, OcclusionParams
from vizapp.methods.occlusion.panels import full_scale
from vizapp.methods.occlusion.sweep import fit_square
from vizapp.methods.scores import in_words
from vizapp.service.jobs import Tick
from vizapp.ui.inputs import camera
from vizapp.ui.inputs.camera import Answer
from vizapp.ui.session import forms, messages, state
from vizapp.ui.widgets import projection_tiles
from vizapp.zoo import class_unit
from vizapp.zoo.network import Network

Data = dict[str, Any]
LARGEST = 600  # pixels of the longer side of a picture that is sent to the browser
LARGEST_MAP = 128  # pixels of the longer side of a map over the frame
SECONDS = 0.3  # that a sweep goes on for one frame; places that it does not reach take the value of their neighbour
QUICK = ("gradcam", "gradcam++", "hirescam", "layercam", "eigencam", "guided", "guided_gradcam", "lrp", "edges")
_BARS = 8  # channels of a layer without cells


def draw(network: Network, site: Site | None = None) -> bool:
    """Draw the camera and its answers, if the page is live; returns whether it is. `site`: the chosen layer."""
    if not camera.is_on():
        return False
    if network.of_photo:
        messages.warn(f"The target is {network.target}, of one photo. For Live choose a cell, a box or the whole map.")
        return True
    name, view = VIEWS[state.page()]
    answer = view(network, site)
    camera.draw(network, answer, name)
    messages.info(
        "The frames of your camera are answered and forgotten: none is stored or logged. Freeze makes the frame that was "
        "answered last the photo of all pages, as an upload."
    )
    return True


def _predict(network: Network, site: Site | None) -> Answer:
    top, network = state.get(state.TOP), network.untargeted or network

    def answer(picture: Picture, tick: Tick) -> Data:
        found = methods.ask("predict", network, picture=picture, tick=tick, top=top)
        if "probabilities" not in found.arrays:
            return _whole(found.panels[0].pixels)
        rows = [(network.readable_name(row["class"]), float(row["probability"])) for row in found.table]
        return {"bars": [{"name": name, "share": share} for name, share in rows]}

    return answer


def _feature_maps(network: Network, site: Site | None) -> Answer:
    assert site is not None, "the page chooses one"
    names, scale = network.readable_names(site), state.get(state.SCALE)

    def answer(picture: Picture, tick: Tick) -> Data:
        unit = Unit(site.name, 0)
        found = methods.ask("activations", network, picture=picture, unit=unit, tick=tick, order="number", scale=scale)
        values = found.arrays["activations"]
        if values.ndim == 3:
            return _whole(found.panels[0].pixels, f"{len(values)} channels of {site.name}, from channel 0.")
        most = max(float(values.max()), 1e-12)
        best = strength_order(values)[:_BARS].tolist()
        bars = [{"name": names[c] if names else f"Channel {c}", "share": max(float(values[c]) / most, 0)} for c in best]
        return {"bars": bars, "words": f"The strongest channels of {site.name}, in percent of the strongest."}

    return answer


def _projection(network: Network, site: Site | None) -> Answer:
    assert site is not None, "the page chooses one"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="live_projection"):
        st.number_input(
            "Channel", 0, site.channels - 1, value=None, step=1, placeholder="The strongest", width=190,
            **state.bind(state.CHANNEL, "live.channel", read=lambda channel: channel),
        )  # fmt: skip
        projection_tiles.rule_switch(network, "live.rule")
    channel = state.get(state.CHANNEL)
    rule = projection_tiles.rule(network)
    params = forms.values("projection", projection_tiles.OPTIONS)

    def answer(picture: Picture, tick: Tick) -> Data:
        chosen = channel
        if chosen is None:
            maps = observe(network.module, network.prepare(picture), [site])[site.name][0]
            chosen = int(strength_order(maps.float().cpu().numpy())[0])
        unit = Unit(site.name, min(chosen, site.channels - 1))
        found = methods.ask("projection", network, picture=picture, unit=unit, tick=tick, rule=rule, **params)
        words = f"Channel {unit.channel} of {site.name}: {projection_tiles.RULES[rule]} from its strongest cell."
        return _whole(contrasted(found.arrays["projection"]), f"{words} {found.facts.get('silent', '')}")

    return answer


def _occlusion(network: Network, site: Site | None) -> Answer:
    values = forms.values("occlusion", ("fill", "inverse"))
    window = state.get(state.WINDOW) or fit_square(OcclusionParams(), network).window
    params = replace(OcclusionParams(), window=window, stride=window, **values)
    class_ = state.get(state.CLASS)

    def answer(picture: Picture, tick: Tick) -> Data:
        began, unit = time.perf_counter(), None if class_ is None else class_unit(network, class_)
        work = Occlusion(Question(network, picture, unit=unit), params)
        clean = float(work.maps()["probability"].flat[0])
        for share in work.run():
            tick(share)
            if time.perf_counter() - began > SECONDS:
                break
        found = work.maps()
        lost, done = clean - found["probability"], found["finished"]
        hidden = "all but what" if params.inverse else "what"
        words = (
            f"{network.readable_name(work.class_)}, {in_words(network, clean)}. Hiding {hidden} is red lowers it, {hidden} is "
            f"blue raises it. {done.sum()} of {done.size} places of a square of {window} pixels."
        )
        return {"picture": uri(tint(lost, full_scale(lost))), "over": True, "words": words}

    return answer


def _attribution(network: Network, site: Site | None) -> Answer:
    kind = state.get(state.KIND)
    kind = kind if kind in QUICK else QUICK[0]
    st.selectbox(
        "Map", format_func=lambda one: KINDS[one].title, width=280,
        **state.bind(state.KIND, "live.kind", kind, options=list(QUICK)),
    )  # fmt: skip
    class_, layer, channel = (state.get(choice) for choice in (state.CLASS, state.LAYER, state.CHANNEL))
    of_unit = state.get(forms.target("attribution")) == "unit" and layer is not None
    explained = [""]  # the layer of a CAM: to find it takes longer than the map; a refusal has it found again

    def answer(picture: Picture, tick: Tick) -> Data:
        if of_unit:
            unit, told = Unit(layer, channel or 0), f"channel {channel or 0} of {layer}"
        else:
            with torch.no_grad():
                number = int(network.scores(network.prepare(picture))[0].argmax()) if class_ is None else class_
            unit, told = class_unit(network, number), network.readable_name(number)
        known, explained[0] = explained[0], ""
        found = methods.ask("attribution", network, picture=picture, unit=unit, tick=tick, kind=kind, layer=known)
        explained[0] = found.facts.get("layer", "")
        values = found.arrays["attribution"]
        most = max(float(values.max()), 1e-12)
        heat = veil(shrink(values, LARGEST_MAP), 0, most)
        return {"picture": uri(heat), "over": True, "smooth": True, "words": f"{KINDS[kind].title} of {told}."}

    return answer


def _whole(pixels: np.ndarray, words: str = "") -> Data:
    """Data of a picture, uint8 `[H W 3]`, that is shown beside the camera."""
    return {"picture": photo_uri(shrink(pixels, LARGEST)), "smooth": max(pixels.shape) > LARGEST, "words": words}


VIEWS: dict[str, tuple[str, Callable[[Network, Site | None], Answer]]] = {
    "predict": ("The most probable classes", _predict),
    "feature_maps": ("The feature maps of the layer", _feature_maps),
    "projection": ("The projection of the unit", _projection),
    "occlusion": ("The occlusion map", _occlusion),
    "attribution": ("The attribution map", _attribution),
}
