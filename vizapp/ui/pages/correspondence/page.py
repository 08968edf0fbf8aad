"""Correspondence: hide the same part of several photos, and compare how the features change with random squares."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from vizapp import methods
from vizapp.engine.trace.sites import Site
from vizapp.errors import plural
from vizapp.methods.base import Result
from vizapp.methods.correspondence import default_sites
from vizapp.methods.parts import FEWEST
from vizapp.methods.tables import to_csv
from vizapp.ui.inputs import networks
from vizapp.ui.pages.correspondence import photos
from vizapp.ui.pages.correspondence.photos import Photo
from vizapp.ui.session import compute, downloads, forms, messages, reports, state
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import charts, layout, options
from vizapp.zoo.network import Network

_KEY = "correspondence"
_OPTIONS = ("draws", "seed")
_HELP = {
    "Random squares": "Each photo at a random place of its own: mean ± standard deviation.",
    "One shared place": "All photos at the same random place: mean ± standard deviation.",
    "Explained by place": "(random − shared) / (random − parts); “all” if that is 100 % or more. "
    "A dash: the parts are no more alike than random squares.",
}
_LINES = {"parts": "Parts", "random": "Random squares", "shared": "One shared place"}


def page() -> None:
    """Draw the page."""
    layout.page_title("Correspondence", "Hide the same part of several photos: do the features change alike?")
    network = networks.current()
    sites = () if network is None else networks.sites(network)
    if network is None or not sites:  # cancelled, as a message says
        return
    found = photos.choose(network)
    if not found:
        messages.info("Choose at least three photos that share a part, such as faces with eyes.")
        return
    marked = [photo for photo in found if photo.box is not None]
    enough = len(marked) >= FEWEST
    photos.draw(network, marked if enough else found, "correspondence_photos")
    rest = [photo for photo in found if photo.box is None] if enough else []
    if rest:  # out of the way of the result
        with st.expander("More photos"):
            photos.draw(network, rest, "correspondence_more_photos")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="correspondence_controls"):
        photos.by_numbers(network, found)
        options.popover(_KEY, _OPTIONS, draw_more=lambda: _layers(network, sites), more=(forms.choices(_KEY)["sites"],))
        messages.info(
            "Drag a square over the same part of at least three photos. Photos without a square are left out."
        )
    options.changed_line(_KEY, _OPTIONS)
    if not enough:
        count = {0: "No photo is", 1: "One photo is"}.get(len(marked), f"{len(marked)} photos are")
        messages.must_know(f"{count} marked; at least {FEWEST} are needed.")
        return
    if state.get(state.PARTS) is None:
        messages.info(
            "These squares are an example: an eye of a cat and two faces, which have little in common. Photos of one kind, "
            "such as frontal faces, have more."
        )
    result = _answer(network, marked)
    if result is not None:
        _draw(network, marked, result)


def _layers(network: Network, sites: Sequence[Site]) -> None:
    choice, names = forms.choices(_KEY)["sites"], [site.name for site in sites]
    chosen = [name for name in state.get(choice) if name in names]
    st.multiselect(
        "Layers", names, width=420, placeholder=", ".join(site.name for site in default_sites(network)),
        **state.bind(choice, "correspondence.layers", chosen, every_run=True, read=tuple),
    )  # fmt: skip


def _answer(network: Network, marked: Sequence[Photo]) -> Result | None:
    params = forms.values(_KEY)
    key = compute.key_of(
        _KEY, network, parts=[(photo.picture.digest, photo.title, photo.box) for photo in marked], **params
    )
    parts = [(photo.picture, photo.box) for photo in marked]
    return compute.compute(
        key, lambda tick: methods.ask(_KEY, network, tick=tick, parts=parts, **params), title="Comparing the photos",
        device=str(network.device),
    )  # fmt: skip


def _draw(network: Network, marked: Sequence[Photo], result: Result) -> None:
    st.html(f'<div class="vz-headline">{escape(result.facts["summary"])}</div>')
    left, right = layout.columns(6, 5)
    with left:
        _table(result)
    with right:
        charts.draw("correspondence.chart", _chart(result.table))
    messages.info(
        "The share of pairs of photos in which a feature changes in another direction, on average over the features of the "
        "layer: 0 if all photos change alike, 0.5 if their changes have nothing to do with each other."
    )
    messages.heading("What it does not show")
    messages.must_know(result.facts["caution"])
    with layout.fold():
        st.caption(f"**Squares:** {messages.escaped(result.facts['squares'])}")
        st.caption(f"Computed in {result.facts['time']}.")
    name = downloads.file_name(_KEY, network.name, plural(len(marked), "photo"))
    csv = File("Table CSV", f"{name}.csv", "text/csv", lambda: to_csv(result.table).encode())
    reports.offer(result)
    downloads.row(_KEY, name, {"Parts": result.panels[0].pixels}, result.arrays, [csv])


def _table(result: Result) -> None:
    rows = [
        {
            "Layer": row["layer"], "Parts": f"{row['parts']:.3f}", "Random squares": _spread(row, "random"),
            "One shared place": _spread(row, "shared"),
            "Explained by place": _share(row["place"]),
        }
        for row in result.table
    ]  # fmt: skip
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        key="correspondence.table",
        column_config={name: st.column_config.TextColumn(help=words) for name, words in _HELP.items()},
    )


def _share(of_place: float | None) -> str:
    """The share that place explains. It can exceed 1: a shared place is the same in all photos, and parts are not."""
    if of_place is None:
        return "–"
    return "all" if of_place >= 1 else f"{100 * of_place:.0f} %"


def _spread(row: dict[str, Any], name: str) -> str:
    deviation = row[f"{name} sd"]
    return f"{row[name]:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def _chart(table: Sequence[dict[str, Any]]) -> go.Figure:
    """A line for the parts, for random squares and for shared places over the layers, with standard deviations."""
    figure, names = go.Figure(), [row["layer"] for row in table]
    for name, title in _LINES.items():
        deviations = [row.get(f"{name} sd") or 0.0 for row in table]
        figure.add_scatter(
            x=list(range(len(table))), y=[row[name] for row in table], name=title, mode="lines+markers",
            error_y={"array": deviations, "thickness": 1.2, "width": 3} if any(deviations) else None,
            line={"dash": "dot" if name == "shared" else "solid"}, customdata=names,
            hovertemplate="%{customdata}<br>%{y:.3f}<extra>" + title + "</extra>",
        )  # fmt: skip
    figure.update_layout(
        height=300, margin={"l": 44, "r": 8, "t": 6, "b": 60}, legend={"orientation": "h", "y": 1.15, "x": 0},
        xaxis={"tickvals": list(range(len(names))), "ticktext": [escape(name, quote=False) for name in names], "title": None},
        yaxis={"rangemode": "tozero", "title": "Pairs that differ"},
    )  # fmt: skip
    return figure


if __name__ == "__main__":
    page()
