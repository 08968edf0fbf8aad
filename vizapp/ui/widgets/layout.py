"""What every page begins with: its title, its columns, and the network and the picture in use."""

from __future__ import annotations

from html import escape
from typing import Any

import streamlit as st

from vizapp.media.picture import Picture
from vizapp.ui.inputs import images, networks
from vizapp.zoo.network import Network


def page_title(title: str, sentence: str) -> None:
    """Draw the page's title, and one sentence that says what the page shows."""
    st.html(f'<div class="vz-title"><h1>{escape(title)}</h1><p>{escape(sentence)}</p></div>')


def columns(*widths: float, key: str = "stacking") -> list[Any]:
    """Columns that stack in a narrow window. `key` begins with "stacking" and is unique on the page."""
    with st.container(key=key):
        return st.columns(list(widths), gap="medium")


def network_and_picture() -> tuple[Network, Picture] | None:
    """The network and the picture in use; None where the network is missing, which a message explains."""
    network = networks.current()
    return None if network is None else (network, images.current())
