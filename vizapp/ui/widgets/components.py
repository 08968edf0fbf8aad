"""Mounts the components of `vizapp/components` into the page, without a frame.

What they show comes as data (numbers, names and PNG bytes); names are written as text nodes, never as HTML.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import streamlit as st

from vizapp.components import sources

Renderer = Callable[..., Any]


@functools.cache
def component(name: str) -> Renderer:
    """The component of that name; call it with `key`, `data`, `on_…_change`."""
    return cast(
        Renderer,
        st.components.v2.component(
            f"vizapp.{name}",
            html=f'<div class="root {name}"></div>',
            css=sources.style(name),
            js=sources.script(name),
        ),
    )
