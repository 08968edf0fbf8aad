"""The form of a transform: what is done to the photo, its options, and the network to compare with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError
from vizapp.media.distortions import FAMILIES, is_clean
from vizapp.media.picture import Picture
from vizapp.methods.params import build
from vizapp.methods.transform import TransformParams, amounts_of, check_amounts, chosen_sites
from vizapp.ui.app import sidebar
from vizapp.ui.pages.transform.curve_runs import CurveRequest
from vizapp.ui.session import forms, messages, state
from vizapp.ui.widgets import options, unit_picker
from vizapp.zoo.network import Network

KINDS = {
    "rotate": "Rotate", "shift-x": "Shift across", "shift-y": "Shift down", "scale": "Scale", "brightness": "Brightness",
    "contrast": "Contrast", "blur": "Blur", "noise": "Noise", "jpeg": "JPEG",
}  # fmt: skip
_OPTIONS = ("edge", "sites", "amounts", "seed")
_FORM = ("edge", "amounts", "seed")  # the rest has a widget of its own
_OF = {"off": "This photo", "on": "Several photos"}


def draw(sites: tuple[Site, ...]) -> None:
    """Draw the kinds as a row of buttons; below, how many photos, the options, and what to compare with."""
    choice = forms.choices("transform")["kind"]
    st.segmented_control(
        "Transform", list(KINDS), format_func=KINDS.__getitem__, required=True, label_visibility="collapsed",
        **state.bind(choice, "transform.kind", read=_kind),
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="transform_controls"):
        unit_picker.switch(state.SEVERAL, _OF, "transform.several")
        options.popover(
            "transform", _FORM, draw_more=partial(_layers, sites), more=(forms.choices("transform")["sites"],)
        )
        with st.popover("Compare", icon=":material/compare:"):
            st.html('<div style="font-size: 14px; margin-bottom: -10px">With another network</div>')
            sidebar.network_list("transform.second", state.SECOND_NETWORK, "With another network", "No other network")
            if state.get(state.SECOND_NETWORK):
                unit_picker.switch(
                    state.SECOND_WEIGHTS, {"published": "Trained", "random": "Random"}, "transform.weights2"
                )
    options.changed_line("transform", _OPTIONS)


def _layers(sites: tuple[Site, ...]) -> None:
    choice = forms.choices("transform")["sites"]
    labels, chosen = unit_picker.layer_labels(sites), list(state.get(choice))
    st.multiselect(
        "Layers", format_func=lambda name: labels.get(name, name), placeholder="First and last map, last hidden layer",
        **state.bind(choice, "transform.sites", chosen, every_run=True, read=tuple)
        | {"options": [*labels, *(name for name in chosen if name not in labels)]},
    )  # fmt: skip


def _kind(kind: str) -> str:
    """The chosen kind; amounts of another one are reset."""
    if kind is None:
        return str(state.get(forms.choices("transform")["kind"]))
    state.put(state.AMOUNT, None)
    forms.reset("transform", ("amounts",))
    return kind


def params(network: Network) -> TransformParams:
    """The chosen parameters with layers and amounts; those that this network does not have are reset, with a message.

    The amount that changes nothing is always among the amounts.
    """
    values = forms.values("transform", ("kind", *_OPTIONS))
    chosen = build(TransformParams, values, "transform")
    for name in ("sites", "amounts"):
        try:
            if name == "sites":
                chosen = replace(chosen, sites=tuple(site.name for site in chosen_sites(network, chosen.sites)))
            elif chosen.amounts:
                check_amounts(network, chosen.kind, chosen.amounts)
        except VizError as error:
            messages.warn(f"{error} Showing the usual ones.")
            forms.reset("transform", (name,))
            return params(network)
    amounts = chosen.amounts or amounts_of(network, chosen.kind)
    if not any(is_clean(chosen.kind, amount) for amount in amounts):
        amounts = tuple(sorted((*amounts, float(FAMILIES[chosen.kind].clean))))
    return replace(chosen, amounts=tuple(map(float, amounts)))


def requests(network: Network, second: Network | None, picture: Picture) -> list[CurveRequest]:
    """The curves of a photo in one or two networks."""
    chosen = params(network)
    found = [CurveRequest(network, picture, chosen)]
    if second is not None:
        found.append(CurveRequest(second, picture, params_of_second(chosen, network, second)))
    return found


def params_of_second(first: TransformParams, network: Network, second: Network) -> TransformParams:
    """The same for a second network, with its own usual layers; shifts are the same share of what it sees."""
    sites = tuple(site.name for site in chosen_sites(second, ()))
    scale = scale_of(first.kind, second, network)
    amounts = tuple(float(round(a * scale)) if FAMILIES[first.kind].unit == "pixels" else a for a in first.amounts)
    return replace(first, sites=sites, amounts=amounts)


def scale_of(kind: str, network: Network, first: Network) -> float:
    """How many pixels of a network's crop are as wide as one of the first network's; 1 for other amounts than shifts."""
    if FAMILIES[kind].unit != "pixels":
        return 1.0
    side, of_first = (amounts_of(one, "shift-x")[-1] for one in (network, first))
    return side / of_first
