"""Links from an answer to the pages that explain it."""

from __future__ import annotations

import streamlit as st

from vizapp.ui.app.pages import pages
from vizapp.ui.inputs import targets
from vizapp.ui.session import messages, state, url
from vizapp.zoo.network import Network
from vizapp.zoo.target import SITE
from vizapp.zoo.target_text import target_text

_PAGES = ("occlusion", "attribution", "projection")


def draw(network: Network, what: str) -> None:
    """Draw links to pages about what is explained of the network, which `what` names."""
    target = targets.chosen() or targets.default(network)
    more = {} if target is None else {state.TARGET.name: target_text(target)}
    messages.heading(f"Explain this {what}")
    with st.container(horizontal=True, gap="medium", key="predict_explain"):
        for name in _PAGES:
            spec = pages()[name]
            of_page = more | ({state.LAYER.name: SITE} if more and name == "projection" else {})
            st.page_link(spec.page, label=spec.title, icon=spec.icon, query_params=url.link(of_page), width="content")
