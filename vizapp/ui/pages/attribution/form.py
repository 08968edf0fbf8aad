"""What the page Attribution asks: what is explained, by which kinds of maps, and by which numbers these are judged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import streamlit as st

from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import nearest
from vizapp.media.picture import Picture
from vizapp.methods.attribution import KINDS
from vizapp.methods.scores import in_words
from vizapp.ui.inputs import networks, targets
from vizapp.ui.pages.attribution.verdict import MEASURES
from vizapp.ui.session import compute, forms, messages, state
from vizapp.ui.widgets import options, unit_picker
from vizapp.zoo import class_unit
from vizapp.zoo.network import Network

_KEY = "attribution"
_TARGETS = {"answer": "The prediction", "class": "A class", "unit": "A unit"}
_USUAL = ("gradcam", "layercam", "guided", "random", "edges")
_OF = {"off": "This photo", "on": "Several photos"}


def draw(network: Network, picture: Picture) -> Unit | None:
    """Draw the form; returns the unit to explain on this photo, or None where a message explains why there is none."""
    sites, target = networks.sites(network), _target(network)
    told = compute.run("predict", network, picture) if target != "unit" else None
    if not sites or (target != "unit" and told is None):
        return None
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="attribution_controls"):
        if network.heads:
            unit_picker.switch(forms.target(_KEY), _TARGETS, "attribution.explain")
        if target == "unit":
            unit = _layer_unit(network, picture, sites)
        else:
            assert told is not None, "checked before"
            unit = class_unit(network, _class(network, picture, target, told.arrays["probabilities"]))
        unit_picker.switch(state.SEVERAL, _OF, "attribution.several")
        options.popover("trust", ("seed",), draw_more=_draw_measures, more=(forms.choices("trust")["measures"],))
    _draw_kinds()
    options.changed_line("trust", ("measures", "seed"))
    return unit


def _target(network: Network) -> str:
    """What is explained; a network without classes has units only."""
    target = str(state.get(forms.target(_KEY)))
    if network.heads or target == "unit":
        return target
    messages.info(f"{network.name} has no classes, so its maps explain a unit of a layer.")
    return "unit"


def explains_answer(network: Network) -> bool:
    """Whether the answer is explained, of each photo its own."""
    target = targets.chosen()
    named = target is not None and target.class_ is not None
    return bool(network.heads) and state.get(forms.target(_KEY)) == "answer" and not named


def _class(network: Network, picture: Picture, target: str, shares: np.ndarray) -> int:
    """The class to explain: the answer, or the chosen one."""
    answer = targets.explained_class(network, picture, shares)
    if target == "answer":
        if state.get(state.CLASS) is not None:
            state.put(state.CLASS, None)  # the link names no class that is not shown
            st.rerun()  # the address was written before
        _explained(network, answer, shares)
        return answer
    chosen = state.get(state.CLASS)
    if chosen is not None and chosen >= len(shares):
        messages.warn(f"{network.name} has {len(shares)} classes and no class {chosen}. Explaining the prediction.")
        state.put(state.CLASS, None)
        chosen = None
    number = answer if chosen is None else int(chosen)
    with st.container(width=280):
        unit_picker.class_list("attribution.class", network, range(len(shares)), number, label_visibility="collapsed")
    _explained(network, number, shares)
    return number


def _explained(network: Network, number: int, shares: np.ndarray) -> None:
    """Say which class is explained, and how probable it is."""
    name = messages.escaped(network.readable_name(number))
    if state.get(state.SEVERAL) == "on":  # the share is that of this photo
        told = "the prediction of each photo" if explains_answer(network) else f"**{name}** on each photo"
        st.markdown(f"Explains {told}", width="content")
        return
    st.markdown(f"Explains **{name}**, {in_words(network, float(shares[number]))}", width="content")


def _layer_unit(network: Network, picture: Picture, sites: Sequence[Site]) -> Unit | None:
    """The chosen channel of a layer, at its strongest cell."""
    site = unit_picker.chosen_site(network, state.LAYER) or network.last_feature_map() or sites[-1]
    unit_picker.layer_list(_KEY, tuple(sites), site)
    layer = compute.run("activations", network, picture, unit=Unit(site.name, 0))
    if layer is None:
        return None
    values = layer.arrays["activations"]
    channel = unit_picker.channel(np.argsort(-values.reshape(len(values), -1).max(1), kind="stable"))
    unit_picker.stepper(_KEY, site.name, len(values), channel)
    return Unit(site.name, channel)


def kinds() -> tuple[str, ...]:
    """The chosen kinds in the order in which people see them; without a choice, those that are quick."""
    chosen = state.get(forms.choices("trust")["kinds"]) or default_kinds()
    unknown = [kind for kind in chosen if kind not in KINDS]
    if unknown:
        messages.warn(f"There is no kind of attribution {unknown[0]!r}.{nearest(unknown[0], KINDS)} It is left out.")
        state.put(forms.choices("trust")["kinds"], tuple(kind for kind in chosen if kind in KINDS))
        return kinds()
    return tuple(kind for kind in KINDS if kind in chosen)


def default_kinds() -> tuple[str, ...]:
    """One kind of each family that is quick, and the two that know nothing of the network."""
    return tuple(kind for kind in KINDS if kind in _USUAL)


def _draw_kinds() -> None:
    """Draw the kinds as a box of several."""
    choice, usual = forms.choices("trust")["kinds"], default_kinds()
    st.multiselect(
        "Maps", list(KINDS), format_func=lambda kind: KINDS[kind].title, placeholder="The quick ones",
        **state.bind(choice, "attribution.kinds", list(kinds()), read=partial(_unless, usual)),
    )  # fmt: skip


def _unless(usual: tuple[str, ...], chosen: Sequence[str]) -> tuple[str, ...]:
    return () if set(chosen) == set(usual) else tuple(chosen)


def measures() -> tuple[str, ...]:
    """The chosen measures, by default all of them; a box adds another one."""
    chosen = state.get(forms.choices("trust")["measures"]) or MEASURES
    return tuple(name for name in MEASURES if name in chosen and name != "pointing")


def _draw_measures() -> None:
    choice = forms.choices("trust")["measures"]
    st.multiselect(
        "Numbers", [name for name in MEASURES if name != "pointing"], format_func=lambda name: MEASURES[name].title,
        **state.bind(choice, "attribution.measures", list(measures()), every_run=True, read=tuple),
    )  # fmt: skip


def orders(measures: Sequence[str]) -> None:
    """Draw the measures by which the maps can be in order, from the best."""
    words = {"all": "All numbers"} | {name: MEASURES[name].title for name in measures}
    if len(words) > 2:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="attribution_order"):
            st.html('<div class="vz-label">Best first by</div>', width="content")
            unit_picker.switch(state.BY, words, "attribution.by", value=None if state.get(state.BY) in words else "all")
