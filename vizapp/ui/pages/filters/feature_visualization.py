"""Feature visualization of a unit: images optimized to maximize its activation, with their intermediate steps."""

from __future__ import annotations

import streamlit as st

from vizapp.engine.trace.sites import Unit
from vizapp.methods.base import Result
from vizapp.ui.session import compute, messages, progress, reports
from vizapp.ui.widgets import charts, image_tiles, layout, options, unit_card
from vizapp.zoo.network import Network


def draw(network: Network, unit: Unit, at_once: bool = False) -> Result | None:
    """Draw the button, the options and, once it is pressed or `at_once`, the images; None before that."""
    messages.heading("Feature visualization")
    key, params = unit_card.ideal_key(network, unit)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="filters_ideal"):
        if not at_once:
            progress.start_button("Run feature visualization", "filters.paint", key, icon="brush")
        options.popover("ideal", unit_card.IDEAL)
    options.changed_line("ideal", unit_card.IDEAL)
    if not at_once and not progress.is_started(key):
        messages.info("Optimizes an image, starting from noise, to maximize this unit's activation.")
        return None
    result = compute.run("ideal", network, unit=unit, **params)
    if result is not None:
        reports.offer(result)
        _show(result)
    return result


def _show(result: Result) -> None:
    arrays = result.arrays
    pictures = list(arrays["pictures"])
    titles = ["Finished"] if len(pictures) == 1 else [f"Start {number + 1}" for number in range(len(pictures))]
    notes = {title: f"{value:.4g}" for title, value in zip(titles, arrays["activation"].tolist(), strict=True)}
    image_tiles.side_by_side("ideal", dict(zip(titles, pictures, strict=True)), notes, min(2, len(pictures)))
    begun, reached = float(arrays["begun"][0]), float(arrays["activation"][0])
    st.caption(f"Activation from {begun:.4g} to **{reached:.4g}**")
    if len(arrays["stages"]):
        steps = [int(step) for step in arrays["stage_steps"]]
        unfinished = {f"{step} steps": picture for step, picture in zip(steps, arrays["stages"][:, 0], strict=True)}
        image_tiles.side_by_side("stages", unfinished, dict.fromkeys(unfinished, ""), len(unfinished))
    charts.draw("filters.curve", charts.curve(arrays["curve"]))
    for name in ("unit", "silent", "caution"):  # the unit with what was maximized: a mean is less than a cell can reach
        if name in result.facts:
            messages.must_know(result.facts[name])
    with layout.fold():
        messages.info(f"{result.facts['size']} · {result.facts['time']}")
