"""A second sweep to compare with: another picture, another network, or both."""

from __future__ import annotations

from functools import partial

import streamlit as st

from vizapp.errors import VizError
from vizapp.media.picture import Picture
from vizapp.ui.app import sidebar
from vizapp.ui.inputs import images, networks, targets
from vizapp.ui.pages.occlusion import form
from vizapp.ui.pages.occlusion.sweep_runs import SweepRequest
from vizapp.ui.session import messages, state
from vizapp.ui.widgets import unit_picker
from vizapp.zoo.network import Network


def draw(kept: Picture | None) -> None:
    """Draw the popover that chooses what to compare with."""
    with st.popover("Compare", icon=":material/compare:"):
        same = "The same photo" if kept is None else f"{kept.name}, kept"
        now = state.get(state.SECOND_PICTURE) or ""
        st.selectbox(
            "With another photo", format_func=lambda name: name or same, filter_mode="contains",
            **state.bind(
                state.SECOND_PICTURE, "occlusion.picture2", now, every_run=True, read=lambda name: name or None,
                options=list(dict.fromkeys(("", *images.sample_names(), now))),
            ),
        )  # fmt: skip
        st.html('<div style="font-size: 14px; margin-bottom: -10px">With another network</div>')
        sidebar.network_list("occlusion.second", state.SECOND_NETWORK, "With another network", "The same network")
        if state.get(state.SECOND_NETWORK):
            unit_picker.switch(state.SECOND_WEIGHTS, {"published": "Trained", "random": "Random"}, "occlusion.weights2")
        st.button(
            "Keep the current photo" if kept is None else "Discard the kept photo", key="occlusion.keep",
            on_click=_keep if kept is None else partial(state.clear, state.SECOND_ORIGIN),
            icon=":material/keep:" if kept is None else ":material/close:",
            help="Compares it with the photo that you choose next, which may be an upload or come from a folder.",
        )  # fmt: skip


def _keep() -> None:
    state.save(state.SECOND_ORIGIN, images.origin())
    state.put(state.SECOND_PICTURE, None)


def kept_picture() -> Picture | None:
    """The picture that was kept for comparison; discarded with a message if it cannot be opened any more."""
    origin = state.load(state.SECOND_ORIGIN)
    if origin is None:
        return None
    try:
        return images.open_from(origin)
    except VizError as error:
        messages.warn(str(error))
        state.clear(state.SECOND_ORIGIN)
        return None


def second_request(network: Network, picture: Picture) -> SweepRequest | None:
    """The second sweep: another network, another picture, or both."""
    named, name = state.get(state.SECOND_NETWORK), state.get(state.SECOND_PICTURE)
    shown = images.sample(name) if name else kept_picture() or picture
    if not named and shown.digest == picture.digest:
        if state.load(state.SECOND_ORIGIN) is not None and not name:
            messages.info(f"{picture.name} is kept; choose a photo to compare it with.")
        return None
    other = networks.second() if named else network
    if other is None:
        return None
    if named:
        return SweepRequest(other, shown, form.params_of_second(other, network, shown))
    return SweepRequest(other, shown, form.params(other, shown), form.unit(other))


def class_of(asked: SweepRequest, first: SweepRequest) -> int | None:
    """The class of (d): the chosen one, or the one of the same name in another network. None: the clean prediction."""
    chosen = state.get(state.CLASS)
    if chosen is None and first.network.untargeted is not None:
        chosen = targets.class_of(first.network, first.picture)
    if chosen is None or asked.network is first.network:
        return chosen
    name = first.network.class_name(chosen).lower()
    return next((n for n, other in enumerate(asked.network.categories) if other.lower() == name), None)
