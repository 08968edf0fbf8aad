"""The way from a cell down to what it was made of: the cells between which one goes up and down, each on the photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import streamlit as st

from vizapp.components.data import uri
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.methods.base import check_unit
from vizapp.ui.session import compute, messages, reports, state
from vizapp.ui.session.choice import LARGEST, read_step
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_MOST = 500  # steps of a walk along the largest contributions
_LARGEST = 128  # pixels of the longer side of the photo of a step


class Step(NamedTuple):
    """A number on the way: a unit at its cell, or a pixel of the photo (None), and what is told of it."""

    unit: Unit | None
    place: tuple[int, int] | None
    told: str

    @property
    def text(self) -> str:
        """As a link carries it; nothing for a pixel."""
        return "" if self.unit is None else as_text(self.unit)


def as_text(unit: Unit) -> str:
    """`features.12:17@3,5`."""
    return f"{unit.site}:{unit.channel}" + ("" if unit.cell is None else f"@{unit.cell[0]},{unit.cell[1]}")


def draw(network: Network, picture: Picture, unit: Unit) -> None:
    """Draw the steps of the walk that leads over the unit, and buttons that go up and that walk to the pixels."""
    steps = _steps(network, picture, unit)
    at = next(number for number, step in enumerate(steps) if step.unit == unit)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="walk_controls"):
        above = steps[at - 1].unit if at else None
        st.button(
            "Up again", key="walk.up", icon=":material/arrow_upward:", disabled=above is None, on_click=_show,
            args=(above, state.get(state.WALK)), help="To the cell that this one is a part of",
        )  # fmt: skip
        st.button(
            "Walk the largest contributions to the pixels", key="walk.down", icon=":material/moving:",
            on_click=_show, args=(unit, (*_texts(steps[: at + 1]), LARGEST)),
            help="From this cell, at each step to the channel that raises the number most, and in it to the cell that does",
        )  # fmt: skip
    if len(steps) == 1:
        return
    seen = network.seen(picture)
    small = shrink(seen, _LARGEST, "bilinear")
    data = {
        "photo": uri(small), "size": list(seen.shape[:2]), "at": at, "label": "From the cell down to what it was made of",
        "steps": [_drawn(network, step, number) for number, step in enumerate(steps)],
    }  # fmt: skip
    component("walk")(key="walk.steps", data=data, on_item_change=lambda: _take(steps))


def _take(steps: Sequence[Step]) -> None:
    number = state.clicked("walk.steps", "item")
    if number is not None and int(number) < len(steps):
        _show(steps[int(number)].unit, state.get(state.WALK))


def go_down(network: Network, picture: Picture, unit: Unit, below: Unit) -> None:
    """Show a cell below the unit, and lead the walk over it."""
    steps = _steps(network, picture, unit)
    at = next(number for number, step in enumerate(steps) if step.unit == unit)
    known = at + 1 < len(steps) and steps[at + 1].unit == below
    _show(below, state.get(state.WALK) if known else (*_texts(steps[: at + 1]), as_text(below)))


def start_button(unit: Unit) -> None:
    """Draw a button that takes a unit apart at its cell."""
    what = "cell" if unit.cell is not None else "number"
    st.button(
        f"Take this {what} apart", key="maps.apart", icon=":material/calculate:", on_click=_show, args=(unit, ()),
        help="The sum that made it: kernel × patch for each channel below",
    )  # fmt: skip


def _show(unit: Unit | None, walk: tuple[str, ...]) -> None:
    """Take a unit apart, as a step of that walk."""
    if unit is None:
        return
    state.put(state.STAGES, "cell")
    state.put(state.LAYER, unit.site)
    state.put(state.CHANNEL, unit.channel)
    state.put(state.CELL, unit.cell)
    state.put(state.WALK, walk)


def _texts(steps: Sequence[Step]) -> tuple[str, ...]:
    return tuple(step.text for step in steps)


def _steps(network: Network, picture: Picture, unit: Unit) -> list[Step]:
    """The walk of the session if it leads over the unit; else the unit alone."""
    texts = state.get(state.WALK)
    steps = list[Step]()
    for text in texts:
        if text == LARGEST:
            steps += _along_the_largest(network, picture, steps.pop().unit) if steps else []
            continue
        found = Unit(*read_step(text))
        try:
            check_unit(network, found)
        except VizError as error:
            messages.warn(f"{error} The walk was ignored.")
            state.put(state.WALK, ())
            return [_step(unit)]
        steps.append(_step(found))
    if any(step.unit == unit for step in steps):
        return steps
    return [_step(unit)]


def _step(unit: Unit, told: str = "") -> Step:
    return Step(unit, None, told)


def _along_the_largest(network: Network, picture: Picture, unit: Unit | None) -> list[Step]:
    """The steps of the automatic walk from a unit, itself first; the unit alone where a message says why."""
    if unit is None:
        return []
    result = compute.run("arithmetic", network, picture, unit=unit, walk=_MOST)
    if result is None:
        return [_step(unit)]
    reports.offer(result, "Walk along the largest contributions")
    steps = []
    for row in result.table:
        cell = None if row["row"] is None else (row["row"], row["column"])
        told = f"{row['value']:.3g}".replace("-", "−")
        if row["product"] is not None:
            told += f" · gives {row['product']:+.2g}".replace("-", "−")
        if row["layer"] is None:
            steps.append(Step(None, cell, f"{colour(network, row['channel'])}\n{told}"))
        else:
            steps.append(_step(Unit(row["layer"], row["channel"], cell), told))
    return steps


def colour(network: Network, channel: int | None) -> str:
    """The name of a channel of the photo."""
    names = ("red", "green", "blue") if network.input_size[0] == 3 else ("grey",)
    return "" if channel is None else names[channel] if channel < len(names) else f"channel {channel}"


def _drawn(network: Network, step: Step, number: int) -> dict[str, Any]:
    """Data of a step for the component."""
    box: Sequence[int] | None = None
    if step.unit is None:
        if step.place is not None:
            row, column = step.place
            box = [row, column, row + 1, column + 1]
        return {"title": "Pixel of the photo", "note": step.told, "box": box, "item": None}
    unit, field = step.unit, network.site(step.unit.site).receptive_field
    if field is not None and unit.cell is not None:
        box = [int(side) for side in field.box(unit.cell)]
    names = network.readable_names(network.site(unit.site))
    what = names[unit.channel] if names else f"channel {unit.channel}"
    where = "" if unit.cell is None else f", cell {unit.cell[0]},{unit.cell[1]}"
    return {"title": unit.site, "note": f"{what}{where}\n{step.told}".strip(), "box": box, "item": number}
