"""Predict of a detector: the boxes that it finds, with their classes and scores."""

from __future__ import annotations

import streamlit as st

from vizapp.components.data import photo_data
from vizapp.errors import plural
from vizapp.media.picture import Picture
from vizapp.methods.base import Result
from vizapp.ui.inputs import targets
from vizapp.ui.pages.predict import explain_links
from vizapp.ui.session import compute, downloads, messages, reports, state
from vizapp.ui.widgets import layout
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target

_MAP, _LIST = "predict.boxes", "predict.detections"
_TAGS = 8  # boxes with their class and score on the photo, the highest scores: more would hide it
_GRID = 64  # cells of a side of the photo that tell where it was clicked


def draw(network: Network, picture: Picture) -> None:
    """Draw the answer."""
    result = compute.run("predict", network, picture, threshold=state.get(state.THRESHOLD) / 100)
    if result is None:
        return
    boxes, scores = result.arrays["boxes"], result.arrays["scores"]
    left, right = layout.columns(7, 5)
    with right:
        st.slider("Least score, %", 0, 100, **state.bind(state.THRESHOLD, "predict.threshold"))
        shown = [n for n in range(len(boxes)) if 100 * scores[n] >= state.get(state.THRESHOLD)]
        chosen = _chosen(len(boxes))
        _list(network, result, shown, chosen)
        if len(boxes):
            explain_links.draw(network, "box")
        with layout.fold():
            messages.info(result.facts["output"])
    with left:
        _photo(network, picture, result, shown, chosen)
    name = downloads.file_name("predict", network.name, picture.name)
    reports.offer(result)
    downloads.row("predict", name, {panel.title.capitalize(): panel.pixels for panel in result.panels}, result.arrays)


def _chosen(count: int) -> int | None:
    """The detection that is explained."""
    target = targets.chosen()
    number = 0 if target is None else target.box
    return number if isinstance(number, int) and number < count else None


def _photo(network: Network, picture: Picture, result: Result, shown: list[int], chosen: int | None) -> None:
    seen, boxes = network.seen(picture), result.arrays["boxes"]
    others = [n for n in shown if n != chosen]
    framed = [boxes[n].tolist() for n in others]

    def tag(number: int) -> str:
        label, score = int(result.arrays["labels"][number]), float(result.arrays["scores"][number])
        return f"{network.readable_name(label)} {100 * score:.0f} %"

    data = photo_data(seen, f"{picture.name}, with the boxes that the network finds") | {
        "frames": framed if len(framed) != 1 else framed * 2,  # a single one would darken the rest
        "field": None if chosen is None else boxes[chosen].tolist(), "cells": [_GRID, _GRID],
        "tags": [tag(n) for n in others[:_TAGS]], "tag": "" if chosen is None else tag(chosen),
        "hint": "Click a box to explain it" if shown else "No box reaches the least score",
    }  # fmt: skip

    def choose() -> None:
        clicked = state.clicked(_MAP, "cell")
        if not isinstance(clicked, list):
            return
        y, x = ((place + 0.5) / _GRID * side for place, side in zip(clicked, seen.shape[:2], strict=True))
        hit = [n for n in shown if boxes[n][0] <= y <= boxes[n][2] and boxes[n][1] <= x <= boxes[n][3]]
        if hit:  # the smallest, as others may lie around it
            sides = boxes[:, 2:] - boxes[:, :2]
            targets.choose(Target(box=min(hit, key=lambda n: float(sides[n].prod()))))

    component("map")(key=_MAP, data=data, on_cell_change=choose)


def _list(network: Network, result: Result, shown: list[int], chosen: int | None) -> None:
    labels, scores = result.arrays["labels"], result.arrays["scores"]
    rows = [
        {"name": network.readable_name(int(labels[n])), "share": float(scores[n]), "more": f"detection {n}", "item": n}
        for n in shown
    ]
    if rows:
        component("bars")(
            key=_LIST,
            data={"rows": rows, "label": "Detections and their scores", "chosen": chosen},
            on_item_change=_take,
        )
    hidden = len(scores) - len(shown)
    if shown:
        told = f" {hidden} below the least score {'is' if hidden == 1 else 'are'} not shown." if hidden else ""
        messages.info(f"{plural(len(shown), 'detection')}.{told} A click on one explains it.")
    elif hidden:
        framed = "" if chosen is None else " The framed one is explained."
        messages.info(
            f"No detection reaches the least score: the best of {hidden} has {100 * scores.max():.1f} %.{framed}"
        )
    else:
        messages.info("The network detects nothing on this photo.")


def _take() -> None:
    clicked = state.clicked(_LIST, "item")
    if clicked is not None:
        targets.choose(Target(box=int(clicked)))
