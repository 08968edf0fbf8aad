"""One position of the square: what hiding it changes, the occluded photo and its prediction."""

from __future__ import annotations

from html import escape

import streamlit as st

from vizapp.methods.base import Result
from vizapp.methods.occlusion.panel_data import Cell
from vizapp.methods.scores import in_words
from vizapp.ui.pages.occlusion.map_panels import SweepView
from vizapp.ui.session import messages, state
from vizapp.ui.widgets import image_tiles, topk_bars

_SMALL = 0.005  # a change of the probability that is hardly one


def headline(shown: SweepView, cell: Cell | None, view: str, chosen: bool) -> None:
    """Draw in words what hiding the marked square changes. `chosen`: whether the user chose it."""
    st.html(f'<div class="vz-headline">{escape(_words(shown, cell, view, chosen))}</div>')


def _words(shown: SweepView, cell: Cell | None, view: str, chosen: bool) -> str:
    if cell is None:
        return f"{shown.class_name}: {_share(shown, shown.clean, False)} unhidden"
    inverse = shown.asked.params.inverse
    name = f"“{shown.class_name}”" if shown.class_name.isdigit() else shown.class_name
    what = f"{'Showing only' if inverse else 'Hiding'} {'this' if chosen else 'the marked'} square"
    if view == "logit":
        return f"{what}: logit of {name} {shown.arrays['clean_logit']:.1f} → {shown.arrays['logit'][cell]:.1f}"
    now = float(shown.arrays["probability"][cell])
    fine = abs(shown.clean - now) < 0.1 or min(shown.clean, now) < 0.01
    change = f"{_share(shown, shown.clean, fine)} → {_share(shown, now, fine)}"
    if not chosen and not inverse and shown.clean - now < _SMALL:
        return f"No square of this size matters much: {name} {change} at worst"
    return f"{what}: {name} {change}"


def _share(shown: SweepView, share: float, fine: bool) -> str:
    return in_words(shown.asked.network, share, int(fine))


def same_place(cell: Cell, first: SweepView, other: SweepView) -> Cell:
    """The cell of another sweep at the same relative position as this one in the first."""
    places = zip(cell, first.positions.shape, other.positions.shape, strict=True)
    row, column = (int((index + 0.5) / count * counted) for index, count, counted in places)
    return row, column


def draw(number: int, shown: SweepView, result: Result, cell: Cell) -> None:
    """Draw the photo with the square at a position, and the five most probable classes there."""
    row, column = cell
    arrays = result.arrays
    with st.container(key=f"beside_position_{number}"):
        left, right = st.columns([2, 5], gap="medium")
    with left:
        label, box = f"The photo with the square at {row},{column}", shown.positions.boxes[cell].tolist()
        image_tiles.picture(f"occlusion.position.{number}", shown.occluded(cell), label, box)
    with right:
        if shown.asked.network.quantity != "probability":
            now = float(shown.arrays["probability"][cell])
            messages.info(f"{shown.class_name.capitalize()} here {now:.3f}, {shown.clean:.3f} unhidden.")
        else:
            topk_bars.draw_classes(
                f"occlusion.bars.{number}", shown.asked.network, arrays["probabilities"][cell], arrays["classes"],
                arrays["clean_probabilities"], "was",
            )  # fmt: skip
    if number:
        return
    probable = shown.asked.network.quantity == "probability"
    inverse = shown.asked.params.inverse
    least = ("most probable" if inverse else "least probable") if probable else "largest" if inverse else "smallest"
    what = shown.class_name if probable else f"the {shown.class_name}"
    if state.get(state.POSITION) is None:
        messages.info(f"Position {row},{column}, where {what} is {least}. Click another to see the answer there.")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        messages.info(f"Position {row},{column}")
        label = f"Where {messages.escaped(what)} is {least}"
        st.button(label, key="occlusion.lowest", type="tertiary", on_click=state.put, args=(state.POSITION, None))
