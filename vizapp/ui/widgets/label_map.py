"""Data of the map component for the class of each cell of a photo, and its legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vizapp.components.data import packed, photo_data, uri
from vizapp.media.drawing import COLOURS
from vizapp.methods.base import Result
from vizapp.methods.output import label_colours
from vizapp.zoo.labels import is_background
from vizapp.zoo.network import Network

_MOST_TOLD = 20_000  # cells whose class is told on hover


def classes_present(result: Result) -> list[int]:
    """The classes with cells, the largest first."""
    area = result.arrays["area"]
    return [int(one) for one in np.argsort(-area, kind="stable") if area[one] > 0]


def _coloured(network: Network, result: Result) -> list[int]:
    return [one for one in classes_present(result) if not is_background(network.class_name(one))][: len(COLOURS)]


def data(network: Network, seen: np.ndarray, result: Result, cell: tuple[int, int] | None) -> dict[str, Any]:
    """Data of the map component: a colour per class over the crop, uint8 `[H W 3]`; the background has none."""
    label, chance = result.arrays["label"], result.arrays["probability"]
    order = _coloured(network, result)
    shown = np.where(np.isin(label, order), 255, 0).astype(np.uint8)
    known = np.unique(label)
    found = photo_data(seen, "The class of each cell over the photo") | {
        "heat": uri(np.dstack([label_colours(label, order), shown])), "cells": list(label.shape), "opacity": 0.6, "grey": True,
        "cell": None if cell is None else list(cell), "hint": "Click a cell to explain it",
    }  # fmt: skip
    if label.size <= _MOST_TOLD:
        index = np.searchsorted(known, label).astype(np.float32)
        names = ["no class" if one < 0 else network.readable_name(int(one)) for one in known]
        found["tops"] = {"names": names, "count": 1, "index": packed(index), "share": packed(chance)}
    return found


def legend(network: Network, result: Result) -> list[tuple[Sequence[int] | None, str, float]]:
    """The colours, each with its class and share of the photo; None for what has none."""
    area, order = result.arrays["area"], _coloured(network, result)
    items: list[tuple[Sequence[int] | None, str, float]] = [
        (colour, network.readable_name(one), float(area[one]))
        for colour, one in zip(COLOURS.tolist(), order, strict=False)
    ]
    rest = [one for one in classes_present(result) if one not in order]
    if rest:
        name = network.readable_name(rest[0]) if len(rest) == 1 else f"{len(rest)} others"
        items.append((None, name.strip("_"), float(area[rest].sum())))
    return items
