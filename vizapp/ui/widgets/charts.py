"""Plotly figures. Colours come from the theme (first: accent, second: neutral), so they follow light and dark mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

import numpy as np
import plotly.graph_objects as go
import streamlit as st

_plain = partial(escape, quote=False)  # text that Plotly does not read as markup


def draw(key: str, figure: go.Figure) -> None:
    """Draw a figure without Plotly's toolbar."""
    st.plotly_chart(figure, key=key, config={"displayModeBar": False})


def value_bars(values: np.ndarray, order: np.ndarray, chosen: int, names: Sequence[str] = ()) -> go.Figure:
    """A bar per value of `[C]`, in that order, the chosen one in the accent colour."""
    figure = go.Figure()
    place = {int(channel): index for index, channel in enumerate(order)}
    wide = len(values) / 250 if len(values) > 250 else None  # so that it is seen among many
    for channels, width in (([c for c in place if c == chosen], wide), ([c for c in place if c != chosen], None)):
        figure.add_bar(
            width=width, zorder=int(width is not None),
            x=[place[c] for c in channels], y=values[channels],
            customdata=[[c, f" · {_plain(names[c])}" if names else ""] for c in channels],
            hovertemplate="channel %{customdata[0]}%{customdata[1]}<br>%{y:.4g}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=320, margin={"l": 44, "r": 0, "t": 6, "b": 6}, showlegend=False, bargap=0.15 if len(values) < 200 else 0,
        barmode="overlay", xaxis={"visible": False}, yaxis={"zeroline": True, "title": None},
    )  # fmt: skip
    return figure


def effects(units: Sequence[int], changes: np.ndarray, chosen: int, notes: Sequence[str]) -> go.Figure:
    """A bar to the left or right per unit, from top to bottom, the chosen one in the accent colour.

    Args:
        units: The units.
        changes: What each changes, `[n]`.
        chosen: The unit in the accent colour.
        notes: What each bar says on hover.
    """
    figure, titles = go.Figure(), [f"unit {unit}" for unit in units]
    for accent in (True, False):
        at = [i for i, unit in enumerate(units) if (unit == chosen) == accent]
        figure.add_bar(
            x=changes[at], y=[titles[i] for i in at], orientation="h",
            customdata=[_plain(notes[i]).replace("\n", "<br>") for i in at],
            hovertemplate="%{y}: %{x:+.4g}<br>%{customdata}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=66 + 22 * len(units), margin={"l": 74, "r": 8, "t": 6, "b": 56}, showlegend=False, bargap=0.25,
        barmode="overlay", xaxis={"title": "change", "zeroline": True},
        yaxis={"categoryorder": "array", "categoryarray": titles[::-1], "title": None},
    )  # fmt: skip
    return figure


def margins(curve: np.ndarray, units: Sequence[int]) -> go.Figure:
    """The margin of a class `[k + 1]` before and after each of the k units is silenced; it is lost below zero."""
    figure = go.Figure()
    figure.add_scatter(
        y=curve, x=np.arange(len(curve)), mode="lines+markers" if len(curve) < 60 else "lines",
        customdata=["nothing silenced", *(f"unit {unit} silenced too" for unit in units)],
        hovertemplate="%{x}: %{customdata}<br>margin %{y:.4g}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=230, margin={"l": 44, "r": 8, "t": 6, "b": 34}, showlegend=False,
        xaxis={"title": "units silenced", "zeroline": False, "rangemode": "tozero", "dtick": max(1, len(units) // 8)},
        yaxis={"title": "margin", "zeroline": True, "rangemode": "tozero"},
    )  # fmt: skip
    return figure


def maxima(edges: np.ndarray, counts: np.ndarray) -> go.Figure:
    """A histogram over bins of growing width: `edges` `[n + 1]`, of which the outermost may be infinite."""
    low, high = edges[:-1], edges[1:]
    figure = go.Figure()
    figure.add_bar(
        x=np.arange(len(counts)), y=counts, customdata=np.stack([texts(low), texts(high)], 1),
        hovertemplate="%{customdata[0]} to %{customdata[1]}<br>%{y:,} photos<extra></extra>",
    )  # fmt: skip
    places = np.unique(np.linspace(0, len(counts), min(6, len(counts) + 1)).round().astype(int))
    figure.update_layout(
        height=230, margin={"l": 44, "r": 8, "t": 6, "b": 24}, showlegend=False, bargap=0.06,
        xaxis={"tickvals": places - 0.5, "ticktext": texts(edges[places]), "title": None, "showgrid": False},
        yaxis={"title": None, "rangemode": "tozero"},
    )  # fmt: skip
    return figure


def texts(numbers: np.ndarray) -> list[str]:
    """Short texts of numbers; the edges next to zero become zero."""
    short = ("0" if abs(n) < 2.5e-4 else f"{n:.2g}" if abs(n) < 0.01 else f"{n:.3g}" for n in numbers)
    return [one.replace("inf", "∞").replace("-", "−") for one in short]


def curve(values: np.ndarray) -> go.Figure:
    """A line per column of `[steps n]`."""
    figure = go.Figure()
    for number, column in enumerate(values.T):
        figure.add_scatter(
            y=column, x=np.arange(1, len(column) + 1), mode="lines", name=f"start {number + 1}",
            hovertemplate="step %{x}<br>%{y:.4g}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=180, margin={"l": 44, "r": 0, "t": 6, "b": 30}, showlegend=False,
        xaxis={"title": "step", "zeroline": False}, yaxis={"zeroline": False},
    )  # fmt: skip
    return figure


def coverage(shares: Mapping[str, np.ndarray], labels: Sequence[str]) -> go.Figure:
    """Bars of shares `[labels]`, a group per label and a bar per name."""
    figure = go.Figure()
    for name, values in shares.items():
        figure.add_bar(
            x=labels, y=values, name=_plain(name),
            hovertemplate="%{x}: %{y:.0%}<extra>" + _plain(name) + "</extra>",
        )  # fmt: skip
    figure.update_layout(
        height=200, margin={"l": 44, "r": 0, "t": 6, "b": 24}, barmode="group", yaxis={"tickformat": ".0%", "title": None},
        legend={"orientation": "h", "y": 1.15, "x": 0},
    )  # fmt: skip
    return figure


def comparison(
    names: Sequence[str], across: Sequence[float], up: Sequence[float], parameters: Sequence[int], chosen: str,
    title: str, labels: bool,
) -> go.Figure:  # fmt: skip
    """A scatter plot with a disc per network, the chosen one in the accent colour.

    Args:
        names: The networks.
        across: Values of the x axis, which is logarithmic.
        up: Top-1 accuracies in percent.
        parameters: Numbers of parameters, which are the areas of the discs.
        chosen: The chosen network.
        title: Title of the x axis.
        labels: Whether other networks than the chosen one get labels.
    """
    figure = go.Figure()
    largest = max(parameters)
    ticks = [digit * 10**power for power in range(-4, 5) for digit in (1, 2, 5)]
    here = [name == chosen for name in names]
    apart = {i for i in _apart(across, up, here) if labels or here[i]}
    for accent in (True, False):
        at = [i for i, name in enumerate(names) if (name == chosen) == accent]
        texts = [_plain(names[i].partition("/")[2]) if i in apart else "" for i in at]
        figure.add_scatter(
            x=[across[i] for i in at], y=[up[i] for i in at], text=texts, textposition="top center",
            mode="markers+text", textfont={"size": 11},
            customdata=[[_plain(names[i]), parameters[i] / 1e6] for i in at],
            marker={
                "size": [parameters[i] for i in at], "sizemode": "area", "sizeref": 2 * largest / 46**2, "sizemin": 3,
                "opacity": 0.75, "line": {"width": 0},
            },
            hovertemplate="%{customdata[0]}<br>%{x:.3g} · %{y:.2f} %<br>%{customdata[1]:.3g} M parameters<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=520, margin={"l": 52, "r": 8, "t": 10, "b": 44}, showlegend=False,
        xaxis={"type": "log", "title": title, "tickvals": ticks}, yaxis={"title": "Top-1 accuracy (%)"},
    )  # fmt: skip
    return figure


def _apart(across: Sequence[float], up: Sequence[float], first: Sequence[bool]) -> set[int]:
    """The discs that get a label, so that labels do not overlap: the chosen one, then from the top down."""
    x, y = np.log10(across), np.asarray(up)
    width, height = (float(np.ptp(values)) or 1.0 for values in (x, y))
    named: list[int] = []
    for i in sorted(range(len(x)), key=lambda i: (not first[i], -y[i])):
        if all(abs(x[i] - x[j]) > 0.1 * width or abs(y[i] - y[j]) > 0.06 * height for j in named):
            named.append(i)
    return set(named)
