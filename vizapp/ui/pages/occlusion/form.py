"""The form of an occlusion experiment: size, stride and fill of the square, and the feature map to sum."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import streamlit as st

from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError
from vizapp.media.picture import Picture
from vizapp.methods.occlusion.occluder import FILLS
from vizapp.methods.occlusion.sweep import OcclusionParams, fit_square
from vizapp.methods.params import build
from vizapp.methods.truth import true_class
from vizapp.ui.session import forms, messages, state
from vizapp.ui.widgets import options, unit_picker
from vizapp.zoo.network import Network

_COLOUR = "colour"
_FIRST_COLOUR = "#ff8800"
_NOT_CHOSEN = ("window", "stride", "label", "others", "most")  # parameters with a widget elsewhere, or none
OPTIONS = ("width", "strongest", "grid", "precision", "seed")


def draw_square(network: Network) -> None:
    """Draw side and stride of the square."""
    fitted = fit_square(OcclusionParams(), network)
    side = min(network.input_size[1:])
    for choice, title, usual in (
        (state.WINDOW, "Square, px", fitted.window), (state.STRIDE, "Stride, px", fitted.stride)
    ):  # fmt: skip
        chosen = state.get(choice)
        shown = min(usual if chosen is None else chosen, side)
        st.number_input(title, 1, side, width=110, **state.bind(choice, f"occlusion.{choice.name}", shown))


def filling() -> None:
    """Draw the fill of the square, and whether it hides the patch or everything else."""
    choices = forms.choices("occlusion")
    fill = state.get(choices["fill"])
    shown = fill if fill in FILLS else _COLOUR
    st.selectbox(
        "Fill", format_func=str.capitalize, width=108,
        **state.bind(
            choices["fill"], "occlusion.fill", shown, read=lambda kind: _FIRST_COLOUR if kind == _COLOUR else kind,
            options=list(dict.fromkeys((*FILLS, _COLOUR))),
        ),
    )  # fmt: skip
    if shown == _COLOUR:
        colour = fill if fill.startswith("#") and len(fill) == 7 else "#000000"
        st.color_picker("Colour", **state.bind(choices["fill"], "occlusion.colour", colour))
    st.toggle("Hide everything else", **state.bind(choices["inverse"], "occlusion.inverse"))


def draw_options(network: Network, sites: tuple[Site, ...]) -> None:
    """Draw the other options in a popover: the map of (b) and (c), width, positions, precision."""
    more = (forms.choices("occlusion")["site"], state.MAP)
    options.popover("occlusion", OPTIONS, draw_more=partial(_late_map, network, sites), more=more)


def _late_map(network: Network, sites: tuple[Site, ...]) -> None:
    shapes = unit_picker.layer_labels(site for site in sites if site.is_map and site.shape[1:] != (1, 1))
    choice = forms.choices("occlusion")["site"]
    site = state.get(choice)
    st.selectbox(
        "Layer of (b) and (c)", format_func=lambda name: shapes.get(name, name) or "The last feature maps",
        **state.bind(
            choice, "occlusion.site", every_run=True, read=_site, options=["", *shapes, *({site} - {"", *shapes})]
        ),
    )  # fmt: skip
    st.number_input(
        "Channel", 0, value=None, step=1, placeholder="The strongest",
        **state.bind(state.MAP, "occlusion.map", every_run=True, read=lambda channel: channel),
    )  # fmt: skip


def _site(name: str) -> str:
    state.put(state.MAP, None)  # a channel of another layer
    return name


def params(network: Network, picture: Picture | None = None) -> OcclusionParams:
    """The chosen parameters for this network, with the true class of the picture where its collection has it."""
    values = {name: value for name, value in forms.values("occlusion").items() if name not in _NOT_CHOSEN}
    fitted = fit_square(OcclusionParams(), network)
    window, stride = state.get(state.WINDOW), state.get(state.STRIDE)
    chosen = build(OcclusionParams, values, "occlusion")
    label = picture.label if picture is not None and true_class(network, picture.label) is not None else None
    return replace(chosen, window=window or fitted.window, stride=stride or fitted.stride, label=label or "")


def unit(network: Network) -> Unit | None:
    """The chosen map of (b) and (c), if any."""
    channel = state.get(state.MAP)
    if channel is None:
        return None
    name = state.get(forms.choices("occlusion")["site"])
    site = network.site(name) if name else network.last_feature_map()
    return None if site is None else Unit(site.name, channel)


def checked_site(network: Network) -> None:
    """Reset a chosen layer that this network does not have, and show a message."""
    choice = forms.choices("occlusion")["site"]
    name = state.get(choice)
    try:
        if name:
            network.site(name)
    except VizError as error:
        messages.warn(f"{error} Showing the last feature maps.")
        state.put(choice, "")
        state.put(state.MAP, None)


def params_of_second(network: Network, first: Network, picture: Picture) -> OcclusionParams:
    """The parameters for a second network: the same share of the picture, and its own late layer."""
    chosen, label = params(first), params(network, picture).label
    share = min(network.input_size[1:]) / min(first.input_size[1:])
    window, stride = (max(1, round(pixels * share)) for pixels in (chosen.window, chosen.stride))
    return replace(chosen, window=window, stride=stride, width=round(chosen.width * share), site="", label=label)
