"""The bar on every page that says what is changed in the network, with a button that restores it."""

from __future__ import annotations

from html import escape

import streamlit as st

from vizapp.ui.inputs import interventions


def draw() -> None:
    """Draw the bar, if anything is changed."""
    changed = interventions.sentences()
    if not changed:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="changes_bar"):
        st.html(f'<div class="vz-changes"><b>Changed</b> {escape("; ".join(changed))}</div>')
        st.button(
            "Restore the network", key="changes.restore", icon=":material/restart_alt:", type="tertiary",
            on_click=interventions.restore, help="Undo all changes. No weight was touched.",
        )  # fmt: skip
