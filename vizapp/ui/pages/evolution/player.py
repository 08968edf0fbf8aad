"""The player of a series: units over epochs with a slider that needs no server, and the curves below it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go

from vizapp.components.data import uri
from vizapp.media.drawing import contrasted, sheet
from vizapp.media.transforms import shrink
from vizapp.methods.base import Result
from vizapp.methods.evolution import kernel_sheets
from vizapp.ui.pages.evolution.series_runs import SeriesRequest
from vizapp.ui.session import compute, messages, state
from vizapp.ui.widgets import charts, layout
from vizapp.ui.widgets.components import component

_PLAYER = "evolution.player"
_LARGEST = 112  # pixels of a cell in the browser
COLOURS = ("#d55e00", "#3f8fd2", "#009e73", "#cc79a7", "#9467bd", "#a57f5f", "#e69f00", "#7f858c")  # Okabe & Ito


def draw(asked: SeriesRequest, result: Result, whole: bool) -> None:
    """Draw the headline if the result is `whole`, the player and the curves."""
    epochs = result.arrays["epochs"].tolist()
    if whole:
        _headline(result)
    chosen = state.get(state.EPOCH)
    at = len(epochs) - 1 if chosen is None else int(np.abs(np.array(epochs) - chosen).argmin())
    component("series")(
        key=_PLAYER, data=_pictures(asked, result) | {"at": at, "label": f"Units of {asked.maker.site.name} during training"},
        on_epoch_change=partial(_take, epochs),
    )  # fmt: skip
    left, right = layout.columns(1, 1, key="stacking_evolution_charts")
    with left:
        messages.heading("Strongest activation of each unit")
        charts.draw("evolution.activation", _activations(result))
    with right:
        if "accuracy" in result.arrays:
            messages.heading("Right answers on these photos")
            charts.draw("evolution.accuracy", _accuracy(result))
    messages.info(
        "The pictures stand side by side, whatever the time between them; the axes of the charts are to scale. Answers count "
        "on all of these photos, also on those that the network was trained with."
    )


def _headline(result: Result) -> None:
    """Say how much changed, and when last."""
    epochs, jump = result.arrays["epochs"], result.arrays["jump"]
    if len(epochs) < 2:
        messages.info(result.facts["jumps"])
        return
    late = [int(epochs[np.flatnonzero(row)[-1]]) for row in jump if row.any()]
    settled = f"; the last change is after epoch {max(late)}" if late else ""
    messages.info(f"{result.facts['jumps'].removesuffix('.')}{settled}.")


def _take(epochs: Sequence[int]) -> None:
    number = state.clicked(_PLAYER, "epoch")
    if isinstance(number, int) and 0 <= number < len(epochs):
        state.put(state.EPOCH, int(epochs[number]))


def _pictures(asked: SeriesRequest, result: Result) -> dict[str, Any]:
    """What the player shows."""
    arrays = result.arrays
    count = len(arrays["epochs"])
    height, width = arrays["projection"].shape[2:4]
    key = ("evolution.pictures", *asked.key[1:], str(arrays["epochs"].tolist()))

    def made() -> dict[str, Any]:
        projections = [contrasted(one) for one in arrays["projection"].reshape(-1, *arrays["projection"].shape[2:])]
        patches = list(arrays["patch"].reshape(-1, *arrays["patch"].shape[2:]))
        return {
            "projections": uri(sheet([shrink(one, _LARGEST) for one in projections], count, gap=0)),
            "patches": uri(sheet([shrink(one, _LARGEST) for one in patches], count, gap=0)),
            "kernels": [uri(one) for one in kernel_sheets(arrays["kernels"])] if "kernels" in arrays else None,
        }

    rows = [
        {
            "title": f"unit {channel}",
            "notes": [f"{value:.3g}" for value in arrays["activation"][row].tolist()],
            "jumps": arrays["jump"][row].tolist(),
            "photos": [result.table[row * count + n]["path"] for n in range(count)],
        }
        for row, channel in enumerate(arrays["channels"].tolist())
    ]
    shares = arrays["accuracy"].tolist() if "accuracy" in arrays else None
    return {
        "ticks": [str(epoch) for epoch in arrays["epochs"].tolist()], "accuracy": shares, "rows": rows,
        "ratio": f"{width} / {height}", "coarse": width < 64,
        **compute.remembered(key, made, size=lambda found: len(found["projections"]) + len(found["patches"])),
    }  # fmt: skip


def _activations(result: Result) -> go.Figure:
    """A line per unit over the epochs; a ring marks another photo."""
    figure, arrays = go.Figure(), result.arrays
    for row, channel in enumerate(arrays["channels"].tolist()):
        colour = COLOURS[row % len(COLOURS)]
        sizes = np.where(arrays["jump"][row], 10, 6)
        figure.add_scatter(
            x=arrays["epochs"], y=arrays["activation"][row], name=f"unit {channel}", mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": sizes, "color": colour, "symbol": np.where(arrays["jump"][row], "circle-open", "circle")},
            customdata=["another photo" if jump else "" for jump in arrays["jump"][row]],
            hovertemplate=f"epoch %{{x}}: %{{y:.3g}} %{{customdata}}<extra>unit {channel}</extra>",
        )  # fmt: skip
    return _laid_out(figure, {"rangemode": "tozero"})


def _accuracy(result: Result) -> go.Figure:
    figure = go.Figure()
    figure.add_scatter(
        x=result.arrays["epochs"], y=result.arrays["accuracy"], mode="lines+markers", showlegend=False,
        hovertemplate="epoch %{x}: %{y:.1%}<extra></extra>",
    )  # fmt: skip
    return _laid_out(figure, {"range": [0, 1.02], "tickformat": ".0%"})


def _laid_out(figure: go.Figure, y: dict[str, Any]) -> go.Figure:
    figure.update_layout(
        height=280, margin={"l": 48, "r": 8, "t": 8, "b": 40},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": "epoch", "zeroline": False, "rangemode": "tozero"}, yaxis={"title": None} | y,
    )  # fmt: skip
    return figure
