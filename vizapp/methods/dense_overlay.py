"""Data of the map component for a dense map: labels or one class over the photo, and the top classes of each cell."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vizapp.components.data import percent, photo_data, ramp, uri
from vizapp.media.drawing import COLOURS, heat
from vizapp.media.transforms import shrink
from vizapp.methods.base import Panel, Result
from vizapp.methods.dense_view import NAMED, covered
from vizapp.methods.output import label_colours
from vizapp.methods.scores import probabilities_of
from vizapp.report.section import View
from vizapp.zoo.labels import readable

LARGEST = 1100  # pixels of the longer side of the photo in the browser
TOP = 5  # classes of a cell
PHOTO = "photo"  # the panel with the photo under the map


def kept_classes(result: Result) -> np.ndarray:
    """The class of each row of `scores`."""
    return result.arrays.get("classes", np.arange(len(result.arrays["scores"])))


def photo_panel(pixels: np.ndarray) -> Panel:
    """The photo under the map, as the browser shows it."""
    return Panel(PHOTO, shrink(pixels, LARGEST, "bilinear"), "The photo under the map.")


def views(result: Result) -> tuple[View, ...]:
    """The labels over the photo, and the classes of each cell, for reports."""
    asked, pixels = result.provenance, {panel.title: panel.pixels for panel in result.panels}
    if asked is None or PHOTO not in pixels:
        return ()
    made = data(pixels[PHOTO], pixels[PHOTO].shape[0] / asked.size[0], result, asked.link_function, asked.readable_name)
    colours = [
        (f"#{bytes(colour or (128, 128, 128)).hex()}", f"{name}, {percent(share)}")
        for colour, name, share in legend(result)
    ]
    stills = {name: shrink(pixels[name], LARGEST, "bilinear") for name in ("labels", PHOTO) if name in pixels}
    return (View("map", made, "The most probable class of each cell", "", tuple(colours), stills),)


def data(
    photo: np.ndarray,
    zoom: float,
    result: Result,
    link: str,
    name_of: Callable[[int], str],
    shown: int | None = None,
    cell: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Data of the map component: the labels, or the probability of one class, over the photo.

    Args:
        photo: The photo as it is shown, uint8 `[H W 3]`, with at most `LARGEST` pixels per side.
        zoom: Its pixels per pixel of the photo itself.
        result: The result of the method `dense`.
        link: What makes probabilities of its scores.
        name_of: The name of a class.
        shown: The class to show; None: the labels.
        cell: The chosen cell.
    """
    boxes, label = result.arrays["boxes"], result.arrays["label"]
    h, w = label.shape
    chance = probabilities_of(link, result.arrays["scores"], result.arrays["log_sum"])
    step = [float(boxes[-1, -1, i] - boxes[0, 0, i]) / max(count - 1, 1) * zoom for i, count in enumerate((h, w))]
    over: dict[str, Any]
    if shown is None:
        named = [int(row["class"]) for row in result.table[:NAMED]]
        opacity = np.where(np.isin(label, named), 255, 0).astype(np.uint8)  # other classes leave the photo as it is
        over = {"heat": uri(np.dstack([label_colours(label, named), opacity]))}
    else:
        rows = np.flatnonzero(kept_classes(result) == shown)
        values = chance[rows[0]] if len(rows) else np.full((h, w), np.nan)
        over = {"heat": uri(heat(values, 0, 1)), "ramp": ramp(), "low": 0.0, "high": 1.0, "ends": ["0 %", "100 %"]}
        over["scale"] = f"Probability of {name_of(shown)}"
    return (
        photo_data(photo, "Predictions over the photo")
        | over
        | {
            "cells": [h, w],
            "cell": list(cell) if cell else None,
            "extent": [edge * zoom for edge in covered(boxes)],
            "crop": {"first": [float(edge) * zoom for edge in boxes[0, 0]], "step": step},
            "tops": _tops(chance, kept_classes(result), name_of),
            "opacity": 0.55,
            "hint": "Hover over a cell to see its classes and its crop; click to select it",
        }
    )


def legend(result: Result) -> list[tuple[Sequence[int] | None, str, float]]:
    """The colours and their classes, with their shares of the cells; None for the classes without a colour."""
    rows = list(result.table[:NAMED])
    items: list[tuple[Sequence[int] | None, str, float]] = [
        (colour, readable(str(row["name"])), float(row["share"]))
        for colour, row in zip(COLOURS.tolist(), rows, strict=False)
    ]
    rest, count = sum(float(row["share"]) for row in result.table[NAMED:]), len(result.table) - NAMED
    if rest:
        items.append((None, f"{count} other class{'es' if count > 1 else ''}", rest))
    return items


def _tops(chance: np.ndarray, classes: np.ndarray, name_of: Callable[[int], str]) -> dict[str, Any]:
    """The strongest classes of each cell, most probable first, for the component."""
    count = min(TOP, len(chance))
    order = np.argsort(-chance, axis=0, kind="stable")[:count]  # [count h w]
    share = np.take_along_axis(chance, order, 0)
    used, index = np.unique(classes[order], return_inverse=True)
    return {
        "names": [name_of(int(c)) for c in used],
        "count": count,
        "index": _packed(index.reshape(order.shape)),
        "share": _packed(share),
    }


def _packed(values: np.ndarray) -> str:
    """`[count h w]` as base64 float32 `[h w count]`."""
    return base64.b64encode(values.transpose(1, 2, 0).astype("<f4").tobytes()).decode()
