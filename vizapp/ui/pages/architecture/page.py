"""Architecture: the network as a table and as a graph, and a comparison of all networks."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from vizapp.methods.base import Result
from vizapp.ui.inputs import networks
from vizapp.ui.pages.architecture import graph, zoo_scatter
from vizapp.ui.session import compute, downloads, forms, messages, reports, state
from vizapp.ui.widgets import layout, options, unit_picker
from vizapp.zoo.devices import choose_device
from vizapp.zoo.network import Network

_SHOWN = {"table": "Table", "drawing": "Drawing", "comparison": "Comparison"}
_ROWS = {"layers": "Layers", "operations": "Operations", "modules": "Modules"}
_OPTIONS = ("depth", "count", "repeats")
_ROWS_AT_ONCE = 16  # more scroll


def page() -> None:
    """Draw the page."""
    layout.page_title("Architecture", "The network layer by layer: sizes, weights, operations, receptive fields, time.")
    shown = state.get(state.ASPECT)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="architecture_controls"):
        unit_picker.switch(state.ASPECT, _SHOWN, "architecture.shown")
        if shown == "table":
            unit_picker.switch(forms.choices("architecture")["rows"], _ROWS, "architecture.rows")
            options.popover("architecture", _OPTIONS)
    if shown == "comparison":
        zoo_scatter.draw(state.get(state.NETWORK), str(choose_device(state.get(state.DEVICE))))
        return
    network = networks.current()
    if network is None:
        return
    (_table if shown == "table" else _drawing)(network)


def _table(network: Network) -> None:
    result = compute.run("architecture", network, **forms.values("architecture"))
    if result is None:
        return
    _totals(network, result)
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    count = forms.values("architecture")["count"]
    st.dataframe(
        pd.DataFrame(result.table), hide_index=True, key="architecture.table",
        height="content" if len(result.table) <= _ROWS_AT_ONCE else 620,
        column_config={
            "layer": text("Layer", width="medium"), "kind": "Kind", "output": "Output", "kernel": "Kernel",
            "stride": "Stride", "padding": "Padding", "dilation": "Dilation", "groups": "Groups",
            "output size": text(
                "Size of the output", width="medium",
                help="O = ⌊(2P + I − K)/S⌋ + 1: padding P on each side, input I, kernel K, stride S. With dilation D the "
                "kernel covers D·(K − 1) + 1 cells. ⌈ ⌉: the pool rounds up. Of a transposed convolution, "
                "O = (I − 1)·S − 2P + K + A, with A cells added at the end.",
            ),
            "parameters": number("Parameters", format="localized"),
            count: number(count.capitalize(), format="localized"), "field": "Receptive field",
            "field stride": text("Field stride", help="Pixels between the receptive fields of neighbouring cells"),
            "milliseconds": number("ms", format="%.3f", help=f"On {network.device}, one photo, each operation by itself"),
            "from": text("From", width="medium"),
        },
    )  # fmt: skip
    name = downloads.file_name("architecture", network.name)
    reports.offer(result)
    downloads.row("architecture", name, {}, result.arrays, downloads.documents(name, result.documents))


def _totals(network: Network, result: Result) -> None:
    facts = result.facts
    parts = [f"**{facts['parameters']}** parameters", f"**{facts['multiply-adds']}** multiply-adds", facts["layers"]]
    st.caption(" · ".join(parts))
    if "one pass" in facts:
        with layout.fold():
            size = " × ".join(map(str, network.input_size))
            st.caption(f"One pass over {size} on {network.device}: {facts['one pass']}.")


def _drawing(network: Network) -> None:
    rows = _rows(network)
    if rows is None:
        return
    drawn = graph.dot(rows, graph.DARK if st.context.theme.type == "dark" else graph.LIGHT)
    with st.container(height=760, border=True, key="architecture_drawing"):
        st.graphviz_chart(drawn, width="content")
    messages.info(
        f"{len(rows)} boxes. Each is a layer with its norm and activation, or a module; arrows show the data flow."
    )


def _rows(network: Network) -> tuple[dict[str, Any], ...] | None:
    """The finest rows that can be drawn: layers, or modules to the greatest depth that fits."""
    found = compute.run("architecture", network, rows="layers", repeats=0)
    for depth in (4, 3, 2, 1):
        if found is None or graph.fits(found.table):
            break
        found = compute.run("architecture", network, rows="modules", depth=depth, repeats=0)
    if found is None:
        return None
    reports.offer(found)
    return found.table


if __name__ == "__main__":
    page()
