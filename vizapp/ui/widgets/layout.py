"""The start of every page: title, columns, and the current network and picture."""

from __future__ import annotations

from html import escape
from typing import Any

import streamlit as st

from vizapp.media.picture import Picture
from vizapp.ui.inputs import images, networks
from vizapp.zoo.network import Network


def page_title(title: str, sentence: str) -> None:
    """Draw the title of the page, and a sentence that says what it shows."""
    st.html(f'<div class="vz-title"><h1>{escape(title)}</h1><p>{escape(sentence)}</p></div>')


def columns(*widths: float, key: str = "stacking") -> list[Any]:
    """Columns that stack in a narrow window. `key` begins with "stacking" and is unique on the page."""
    with st.container(key=key):
        return st.columns(list(widths), gap="medium")


def network_and_picture() -> tuple[Network, Picture] | None:
    """The current network and picture; None where a message explains why there is no network."""
    network = networks.current()
    return None if network is None else (network, images.current())
