"""Data of the map component for a dense map: labels or one class over the photo, and the top classes of each cell."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vizapp.components.data import photo_data, ramp, uri
from vizapp.media.drawing import COLOURS, heat
from vizapp.media.transforms import shrink
from vizapp.methods.base import Result
from vizapp.methods.dense_view import NAMED, covered
from vizapp.methods.output import label_colours
from vizapp.methods.scores import probabilities
from vizapp.ui.widgets.topk_bars import TOP
from vizapp.zoo.labels import readable
from vizapp.zoo.network import Network

LARGEST = 1100  # pixels of the longer side of the photo in the browser


def kept_classes(result: Result) -> np.ndarray:
    """The class of each row of `scores`."""
    return result.arrays.get("classes", np.arange(len(result.arrays["scores"])))


def data(
    pixels: np.ndarray,
    result: Result,
    network: Network,
    tint: str,
    shown: int,
    cell: tuple[int, int] | None,
) -> dict[str, Any]:
    """Data of the map component: the labels, or the probability of one class, over the photo.

    Args:
        pixels: The photo, uint8 `[H W 3]`.
        result: The result of the method `dense`.
        network: Its network.
        tint: "labels" or "class".
        shown: The class to show.
        cell: The chosen cell.
    """
    boxes, label = result.arrays["boxes"], result.arrays["label"]
    zoom = min(1.0, LARGEST / max(pixels.shape[:2]))
    photo = shrink(pixels, LARGEST, "bilinear")
    h, w = label.shape
    chance = probabilities(network, result.arrays["scores"], result.arrays["log_sum"])
    step = [float(boxes[-1, -1, i] - boxes[0, 0, i]) / max(count - 1, 1) * zoom for i, count in enumerate((h, w))]
    over: dict[str, Any]
    if tint == "labels":
        named = [int(row["class"]) for row in result.table[:NAMED]]
        opacity = np.where(np.isin(label, named), 255, 0).astype(np.uint8)  # other classes leave the photo as it is
        over = {"heat": uri(np.dstack([label_colours(label, named), opacity]))}
    else:
        rows = np.flatnonzero(kept_classes(result) == shown)
        values = chance[rows[0]] if len(rows) else np.full((h, w), np.nan)
        over = {"heat": uri(heat(values, 0, 1)), "ramp": ramp(), "low": 0.0, "high": 1.0, "ends": ["0 %", "100 %"]}
        over["scale"] = f"Probability of {network.readable_name(shown)}"
    return (
        photo_data(photo, "Predictions over the photo")
        | over
        | {
            "cells": [h, w],
            "cell": list(cell) if cell else None,
            "extent": [edge * zoom for edge in covered(boxes)],
            "crop": {"first": [float(edge) * zoom for edge in boxes[0, 0]], "step": step},
            "tops": _tops(chance, kept_classes(result), network.readable_name),
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
