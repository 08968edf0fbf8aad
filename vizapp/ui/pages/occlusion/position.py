"""One position of the square: the occluded picture and its prediction."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vizapp.methods.base import Result
from vizapp.ui.pages.occlusion.map_panels import Cell, SweepView
from vizapp.ui.session import messages, state
from vizapp.ui.widgets import image_tiles, layout, topk_bars


def draw(shown: list[SweepView], results: list[Result], cell: Cell | None) -> None:
    """Draw the picture with the square at the chosen position (or the worst), and the five most probable classes."""
    columns = layout.columns(1, 1) if len(shown) > 1 else [st.container()]
    for number, (one, result) in enumerate(zip(shown, results, strict=True)):
        with columns[number], st.container(key=f"beside_position_{number}"):
            left, right = st.columns([1, 2] if len(shown) == 1 else [1, 1], gap="medium")
            _draw(number, one, result, _same_place(cell, shown[0], one) if cell else one.lowest, left, right)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if cell is None:
            st.caption("Click a cell of a map to see the photo with the square there.")
        else:
            label = f"Where {messages.escaped(shown[0].class_name)} is least probable"
            st.button(label, key="occlusion.lowest", on_click=state.put, args=(state.POSITION, None))


def _same_place(cell: Cell, first: SweepView, other: SweepView) -> Cell:
    """The cell of another sweep at the same relative position as this one in the first."""
    places = zip(cell, first.positions.shape, other.positions.shape, strict=True)
    row, column = (int((index + 0.5) / count * counted) for index, count, counted in places)
    return row, column


def _draw(number: int, shown: SweepView, result: Result, cell: Cell, left: Any, right: Any) -> None:
    row, column = cell
    arrays = result.arrays
    with left:
        label, box = f"The photo with the square at {row},{column}", shown.positions.boxes[cell].tolist()
        image_tiles.picture(f"occlusion.position.{number}", shown.occluded(cell), label, box)
    with right:
        worst = state.get(state.POSITION) is None
        messages.info(f"Position {row},{column}" + (f", where {shown.class_name} is least probable" if worst else ""))
        topk_bars.draw_classes(
            f"occlusion.bars.{number}", shown.asked.network, arrays["probabilities"][cell], arrays["classes"],
            arrays["clean_probabilities"], "was",
        )  # fmt: skip
