"""The app's own browser components: a drawn network, a sheet of channels, a map over a photo.

Each is a stylesheet and a script in this folder, mounted into the page without a frame. What they show comes as data
(numbers, names and PNG bytes); names are written as text nodes, never as HTML.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import streamlit as st

Renderer = Callable[..., Any]


@functools.cache
def component(name: str) -> Renderer:
    """The component of `<name>.js` and `<name>.css` in this folder; call it with `key`, `data`, `on_…_change`."""
    folder = Path(__file__).parent
    style, script = (
        "".join((folder / f"{part}.{kind}").read_text("utf-8") for part in ("elements", name)) for kind in ("css", "js")
    )
    return cast(
        Renderer,
        st.components.v2.component(
            f"vizapp.{name}",
            html=f'<div class="root {name}"></div>',
            css=style,
            js=script,
        ),
    )
