"""Links from an answer to the pages that explain it."""

from __future__ import annotations

import streamlit as st

from vizapp.ui.app.pages import pages
from vizapp.ui.session import messages, url

_PAGES = ("occlusion", "attribution", "projection")


def draw(what: str) -> None:
    """Draw links to pages about what is explained, which `what` names."""
    messages.heading(f"Explain this {what}")
    with st.container(horizontal=True, gap="medium", key="predict_explain"):
        for name in _PAGES:
            spec = pages()[name]
            st.page_link(spec.page, label=spec.title, icon=spec.icon, query_params=url.link({}), width="content")
