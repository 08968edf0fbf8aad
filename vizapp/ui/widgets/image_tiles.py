"""Pictures under their titles: alone, or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import streamlit as st

from vizapp.components.data import photo_data
from vizapp.ui.widgets.components import component


def title(words: str, note: str = "") -> None:
    """Draw the title of a picture, and a note beside it."""
    st.html(f'<div class="vz-tile"><b>{escape(words)}</b><span>{escape(note)}</span></div>')


def picture(key: str, pixels: np.ndarray, label: str, box: Sequence[int] | None = None) -> None:
    """Draw a picture, uint8 `[h w 3]`. `label` describes it; `box` is a frame to draw on it, if any."""
    data = photo_data(pixels, label)
    component("map")(key=key, data=data if box is None else data | {"field": list(box)})


def side_by_side(
    key: str, pictures: dict[str, np.ndarray], notes: dict[str, str], across: int, box: Sequence[int] | None = None
) -> None:
    """Draw pictures under their titles, in rows.

    Args:
        key: Prefix of the widget keys.
        pictures: uint8 `[h w 3]` by title.
        notes: A note per title.
        across: Pictures per row.
        box: A frame to draw on the first picture.
    """
    titles = list(pictures)
    with st.container(key=f"beside_{key}"):
        for start in range(0, len(titles), across):
            columns = st.columns(across, gap="small", vertical_alignment="bottom")  # long titles take two lines
            for column, name in zip(columns, titles[start : start + across], strict=False):
                with column:
                    title(name, notes[name])
                    picture(f"projection.{key}.{name}", pictures[name], name, box if name == titles[0] else None)
