"""All networks compared: accuracy against operations or time on this machine (Canziani et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st
import torch

from vizapp.engine.layers.summary import pass_seconds
from vizapp.ui.inputs import networks
from vizapp.ui.session import compute, messages, progress, reports, state
from vizapp.ui.widgets import charts, unit_picker
from vizapp.zoo import describe, list_networks, load
from vizapp.zoo.classics import FROM_TORCHVISION

_DATA = {"ImageNet": "ImageNet", "CIFAR-10": "CIFAR-10"}
_AMONG = {"classic": "Classic", "all": "All"}
_AXES = {"operations": "Operations", "time": "Time on this machine"}
MOST_TIMED = 12  # networks per press of the button


@dataclass(frozen=True)
class Entry:
    """The description of a network, and its measured time per picture on this machine, if any."""

    name: str
    parameters: int
    multiply_adds: int | None
    accuracy: float | None
    by: str  # source of the accuracy: "weights" or "paper"
    data: str
    seconds: float | None = None


@st.cache_resource(show_spinner=False)
def entries() -> tuple[Entry, ...]:
    """Every network whose number of parameters is known without building it."""
    found = []
    for name in list_networks():
        if name.startswith(("timm/", "own/")):  # which publish neither sizes nor accuracies with their configurations
            continue
        card = describe(name)
        if card.parameters:
            accuracy = card.accuracy if card.accuracy is not None else card.paper_accuracy
            by = "" if accuracy is None else "weights" if card.accuracy is not None else "paper"
            found.append(Entry(name, card.parameters, card.multiply_adds, accuracy, by, card.data))
    return tuple(found)


def select(data: str, among: str) -> list[Entry]:
    """The networks of that data set, the classic ones alone or all."""
    classic = {f"torchvision/{name}" for name in FROM_TORCHVISION}
    return [
        entry
        for entry in entries()
        if entry.data == data and (among == "all" or entry.name in classic or entry.name.startswith("vizapp/"))
    ]


def draw(network: str, device: str) -> None:
    """The controls, the figure and the table. `network` is the chosen one, drawn in the accent colour if it has the published
    weights, to which the accuracies belong.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="comparison_controls"):
        unit_picker.switch(state.TRAINED, _DATA, "comparison.data")
        unit_picker.switch(state.AMONG, _AMONG, "comparison.among")
        unit_picker.switch(state.AXIS, _AXES, "comparison.axis")
    listed = select(state.get(state.TRAINED), state.get(state.AMONG))
    listed = [replace(entry, seconds=_seconds(entry.name, device)) for entry in listed]
    _measure(listed, network, device)
    over_time = state.get(state.AXIS) == "time"
    drawn = [e for e in listed if e.accuracy and (e.seconds if over_time else e.multiply_adds)]
    if drawn:
        figure = charts.comparison(
            [e.name for e in drawn],
            [1000 * (e.seconds or 0) if over_time else (e.multiply_adds or 0) / 1e9 for e in drawn],
            [e.accuracy or 0 for e in drawn],
            [e.parameters for e in drawn],
            "" if networks.badge() else network,
            f"Milliseconds per photo on {device}" if over_time else "Multiply-adds (10⁹)",
            labels=state.get(state.AMONG) == "classic" or len(drawn) < 30,
        )
        charts.draw("comparison.figure", figure)
        st.caption(
            "The area of a disc is the number of parameters. Accuracy is top-1 of the published weights, or of the paper "
            "where there are none. Crops, preprocessing and training recipes differ."
            + (
                f" None of these accuracies is that of your network: it has {networks.badge()}."
                if networks.badge()
                else ""
            )
        )
    else:
        messages.info("None of these networks has been timed yet. Choose some, then press Measure.")
    _table(listed)


def _key(name: str, device: str) -> tuple[str, ...]:
    return ("time of a pass", name, device)


def _seconds(name: str, device: str) -> float | None:
    found = compute.answers().get(_key(name, device))
    return found if isinstance(found, float) else None


def _measure(listed: Sequence[Entry], network: str, device: str) -> None:
    names = [entry.name for entry in listed]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        chosen = st.multiselect(
            "Networks to time on this machine (one photo, random weights)", names,
            max_selections=MOST_TIMED, key="comparison.chosen",
            default=[network] if network in names and not state.has("comparison.chosen") else None,
        )  # fmt: skip
        pressed = st.button("Measure", key="comparison.measure", disabled=not chosen)
    if pressed:
        progress.start(_key(str(chosen), device))
    if not progress.is_started(_key(str(chosen), device)):
        return
    for name in chosen:
        if _seconds(name, device) is None and measure_seconds(name, device) is None:
            break
    else:
        state.withdraw("run", _key(str(chosen), device))
        st.rerun()  # the figure above must show the new times


def measure_seconds(name: str, device: str) -> float | None:
    """Seconds of one undisturbed pass of one picture through the network with random weights."""

    def work(tick: object) -> float:
        network = load(name, weights="none", device=device)
        batch = torch.zeros(1, *network.input_size, dtype=network.dtype, device=network.device)
        return pass_seconds(network.module, batch)

    return compute.compute(_key(name, device), work, lambda seconds: 64, f"Measuring {name}", device)


def _table(listed: Sequence[Entry]) -> None:
    ordered = sorted(listed, key=lambda entry: -(entry.accuracy or 0))
    rows = [
        {
            "network": e.name,
            "parameters": e.parameters,
            "multiply-adds": e.multiply_adds,
            "top-1 %": e.accuracy,
            "by": e.by,
        }
        for e in ordered
    ]
    reports.offer_drawn("architecture", f"Networks for {state.get(state.TRAINED)} compared", {}, rows)
    number = st.column_config.NumberColumn
    timed = any(e.seconds is not None for e in ordered)
    st.dataframe(
        pd.DataFrame(
            {
                "network": [e.name for e in ordered],
                "parameters": [e.parameters / 1e6 for e in ordered],
                "operations": [None if e.multiply_adds is None else e.multiply_adds / 1e9 for e in ordered],
                "accuracy": [e.accuracy for e in ordered],
                "by": [e.by for e in ordered],
            }
            | ({"time": [None if e.seconds is None else 1000 * e.seconds for e in ordered]} if timed else {})
        ),
        hide_index=True, key="comparison.table",
        column_config={
            "network": st.column_config.TextColumn("Network", width="large"),
            "parameters": number("Parameters (10⁶)", format="%.2f"),
            "operations": number("Multiply-adds (10⁹)", format="%.3f"),
            "accuracy": number("Top-1 %", format="%.2f"),
            "by": "Reported by",
            "time": number("Time on this machine (ms)", format="%.1f"),
        },
    )  # fmt: skip
