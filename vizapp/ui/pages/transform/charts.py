"""The two charts of a transform: distances of features, and probabilities of classes, over the amount."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from vizapp.methods.transform import AXES
from vizapp.ui.session import state

_TICKS = {"rotate": 45} | dict.fromkeys(("brightness", "contrast", "blur", "noise", "jpeg"), 1)
# Distinguishable on white and on black, and with colour-vision deficiency (Okabe & Ito 2008).
COLOURS = ("#d55e00", "#3f8fd2", "#009e73", "#cc79a7", "#9467bd", "#a57f5f", "#e69f00", "#7f858c")


@dataclass(frozen=True)
class Line:
    """A curve: its name, amounts and values, the number of its colour, and whether it is dashed or one of many."""

    name: str
    amounts: np.ndarray
    values: np.ndarray
    colour: int
    dashed: bool = False
    thin: bool = False


def figure(lines: Sequence[Line], kind: str, amount: float | None, percent: bool) -> go.Figure:
    """The lines over the amounts, with a mark at `amount`; as shares in percent, or as plain numbers from 0."""
    drawn = go.Figure()
    for line in sorted(lines, key=lambda line: not line.thin):
        colour = COLOURS[line.colour % len(COLOURS)]
        value = "%{y:.1%}" if percent else "%{y:.3f}"
        drawn.add_scatter(
            x=line.amounts, y=line.values, name=escape(line.name, quote=False), mode="lines" if line.thin else "lines+markers",
            line={"color": colour, "width": 1 if line.thin else 2, "dash": "dash" if line.dashed else "solid"},
            marker={"size": 5, "color": colour}, opacity=0.3 if line.thin else 1, showlegend=not line.thin,
            selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},
            hovertemplate=f"%{{x:g}}: {value}<extra>{escape(line.name, quote=False)}</extra>",
            hoverinfo="skip" if line.thin else None,
        )  # fmt: skip
    if amount is not None:
        drawn.add_vline(x=amount, line={"width": 1, "dash": "dot", "color": "#7f858c"})
    drawn.update_layout(
        height=300, margin={"l": 48, "r": 8, "t": 8, "b": 40}, hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": AXES[kind], "zeroline": False, "dtick": _TICKS.get(kind)},
        yaxis={"title": None, "rangemode": "tozero", "tickformat": ".0%" if percent else None}
        | ({"range": [0, 1.02]} if percent else {}),
    )  # fmt: skip
    return drawn


def draw(key: str, drawn: go.Figure, amounts: Sequence[float] = ()) -> None:
    """Draw a chart; a click on a point chooses the nearest of these amounts, if there are any."""
    choose: Any = partial(_take, key, amounts) if amounts else "ignore"
    st.plotly_chart(drawn, key=key, config={"displayModeBar": False}, on_select=choose, selection_mode="points")


def _take(key: str, amounts: Sequence[float]) -> None:
    points = state.load(key)["selection"]["points"]
    if points:
        state.put(state.AMOUNT, min(amounts, key=lambda amount: abs(amount - float(points[0]["x"]))))
