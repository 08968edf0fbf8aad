"""The charts of Evaluate: the confusion matrix, and the reliability curve."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from vizapp.ui.session import state

MOST = 24  # classes of the matrix
_LONGEST = 16  # characters of a name beside it
_plain = partial(escape, quote=False)


def most_confused(confusion: np.ndarray) -> np.ndarray:
    """The places of the rows and columns to show, in their order: of classes that occur all, or those with most confusions."""
    there = np.flatnonzero(confusion.sum(0) + confusion.sum(1))
    wrong = confusion - np.diag(confusion.diagonal())
    most = np.argsort(-(wrong.sum(0) + wrong.sum(1))[there], kind="stable")[:MOST]
    return np.sort(there[most])


def confusion(
    counts: np.ndarray, classes: Sequence[int], names: Sequence[str], chosen: tuple[int, int] | None
) -> go.Figure:
    """The matrix: the colour is the share of a row, and a cell with photos tells them on hover.

    Args:
        counts: `[K K]`, rows true, columns given.
        classes: The classes of rows and columns.
        names: Their names.
        chosen: The true and the given class of the framed cell.
    """
    short = [_plain(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…") for name in names]
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    figure, axis = go.Figure(), list(range(len(classes)))
    figure.add_heatmap(
        z=counts / total, x=axis, y=axis, zmin=0, zmax=1, showscale=False, hoverinfo="skip",
        colorscale=[[0, "rgba(127,133,140,0.06)"], [0.02, "rgba(213,94,0,0.25)"], [1, "rgb(213,94,0)"]], xgap=1, ygap=1,
    )  # fmt: skip
    rows, columns = np.nonzero(counts)
    figure.add_scatter(  # a heat map cannot be clicked; these marks can
        x=columns, y=rows, mode="markers", showlegend=False,
        marker={"symbol": "square", "size": max(8, 380 // len(classes)), "opacity": 0}, selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=[[classes[row], classes[column], _plain(names[row]), _plain(names[column])]
                    for row, column in zip(rows.tolist(), columns.tolist(), strict=True)],
        text=[f"{counts[row, column]:,} of {total[row, 0]:,}" for row, column in zip(rows, columns, strict=True)],
        hovertemplate="%{customdata[2]}, given as %{customdata[3]}<br>%{text} photos<extra></extra>",
    )  # fmt: skip
    if chosen is not None and {*chosen} <= {*classes}:
        row, column = (classes.index(number) for number in chosen)
        figure.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=row - 0.5,
            y1=row + 0.5,
            line={"width": 2, "color": "#3f8fd2"},
        )
    ticks: dict[str, Any] = {
        "tickvals": axis,
        "ticktext": short,
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }
    low, high = -0.5, len(classes) - 0.5
    figure.update_layout(
        height=460, margin={"l": 8, "r": 8, "t": 8, "b": 8},
        xaxis=ticks | {"title": "given", "tickangle": -60 if len(classes) > 10 else 0, "range": [low, high]},
        yaxis=ticks | {"title": "right", "range": [high, low]},
    )  # fmt: skip
    return figure


def draw_confusion(key: str, figure: go.Figure) -> None:
    """Draw the matrix; a click on a cell with photos chooses its classes."""
    choose: Any = partial(_take, key)
    st.plotly_chart(figure, key=key, config={"displayModeBar": False}, on_select=choose, selection_mode="points")


def _take(key: str) -> None:
    points = state.load(key)["selection"]["points"]
    if points:
        true, given = points[0]["customdata"][:2]
        state.put(state.CONFUSION, (int(true), int(given)))


def reliability(curve: np.ndarray) -> go.Figure:
    """How often the network was right over how sure it was, of `[15 3]`: confidence, accuracy, photos."""
    filled = curve[curve[:, 2] > 0]
    share = filled[:, 2] / filled[:, 2].sum()
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "width": 1, "color": "#7f858c"}, hoverinfo="skip"
    )
    figure.add_scatter(
        x=filled[:, 0], y=filled[:, 1], mode="lines+markers", line={"color": "#d55e00"},
        marker={"size": 6 + 26 * np.sqrt(share), "color": "#d55e00", "line": {"width": 0}},
        customdata=filled[:, 2], cliponaxis=False,
        hovertemplate="sure %{x:.1%}, right %{y:.1%}<br>%{customdata:,} photos<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=460, margin={"l": 52, "r": 12, "t": 8, "b": 44}, showlegend=False,
        xaxis={"title": "probability of the answer", "tickformat": ".0%", "range": [0, 1.03], "zeroline": False},
        yaxis={"title": "how often it is right", "tickformat": ".0%", "range": [0, 1.03], "zeroline": False},
    )  # fmt: skip
    return figure
