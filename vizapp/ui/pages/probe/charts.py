"""The two charts of a probe: accuracy by layer, and over the number of photos per class."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from vizapp.methods.base import Result
from vizapp.methods.probe_chart import LINES


def by_layer(result: Result, layers: Sequence[str]) -> go.Figure:
    """Accuracy by layer, a dot per split, beside random weights and the pixels."""
    lines = {key: result.arrays[f"accuracy{key}"] for key in LINES}
    lines["_pixels"] = np.repeat(lines["_pixels"][None], len(layers), 0)
    return _figure(lines, [escape(name, quote=False) for name in layers], "")


def by_photos(result: Result) -> go.Figure:
    """Accuracy at the last layer over the number of photos per class."""
    counts = [str(count) for count in result.arrays["curve_photos"].tolist()]
    return _figure({key: result.arrays[f"curve{key}"] for key in LINES}, counts, "photos per class")


def _figure(lines: dict[str, np.ndarray], across: Sequence[str], title: str) -> go.Figure:
    figure = go.Figure()
    for key, values in lines.items():
        name, rgb = LINES[key]
        colour = f"rgb{rgb}"
        dash = {"": "solid", "_random": "dash", "_pixels": "dot"}[key]
        figure.add_scatter(
            x=list(across), y=values.mean(1), name=name, mode="lines" if key == "_pixels" else "lines+markers",
            line={"color": colour, "width": 2, "dash": dash}, marker={"size": 5, "color": colour},
            hovertemplate=f"%{{x}}: %{{y:.1%}}<extra>{name}</extra>",
        )  # fmt: skip
        if key != "_pixels" and values.shape[1] > 1:
            figure.add_scatter(
                x=np.repeat(across, values.shape[1]).tolist(), y=values.reshape(-1), mode="markers", showlegend=False,
                marker={"size": 4, "color": colour}, opacity=0.5, hovertemplate="%{x}: %{y:.1%}<extra>one split</extra>",
            )  # fmt: skip
    figure.update_layout(
        height=320, margin={"l": 48, "r": 8, "t": 8, "b": 40}, hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": title or None, "type": "category", "zeroline": False},
        yaxis={"title": None, "tickformat": ".0%", "range": [0, 1.03]},
    )  # fmt: skip
    return figure
