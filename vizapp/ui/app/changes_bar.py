"""The bar on every page that says what is changed in the network, with a button that restores it."""

from __future__ import annotations

from html import escape
from textwrap import shorten

import streamlit as st

from vizapp.ui.inputs import interventions

_LONGEST = 160  # characters of a change


def draw() -> None:
    """Draw the bar, if anything is changed."""
    changed = interventions.sentences()
    if not changed:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="changes_bar"):
        shown = "; ".join(
            shorten(one, _LONGEST, placeholder=" …") for one in changed
        )  # a change may list hundreds of channels
        st.html(f'<div class="vz-changes" title="{escape("; ".join(changed))}"><b>Changed</b> {escape(shown)}</div>')
        st.button(
            "Restore the network", key="changes.restore", icon=":material/restart_alt:", type="tertiary",
            on_click=interventions.restore, help="Undo all changes. No weight was touched.",
        )  # fmt: skip
