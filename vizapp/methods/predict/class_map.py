"""Prediction of a segmenter: the class of each cell of a photo."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from vizapp.errors import VizError
from vizapp.media.captions import captioned, with_legend
from vizapp.media.drawing import COLOURS, GREY, heat, lay_over, sheet
from vizapp.methods.base import Job, Panel, Question, Result
from vizapp.methods.output import label_colours
from vizapp.methods.predict.params import PredictParams
from vizapp.zoo.labels import is_background
from vizapp.zoo.network import Network
from vizapp.zoo.target import class_map_logits

NONE = -1  # the label of a cell where no class reaches a probability of 0.5, where classes do not exclude each other
_TILE = 160  # least width of a map in pixels
_OPACITY = 0.5  # of the label map over the photo: all of it is covered


def class_map(question: Question, params: PredictParams, job: Job) -> Result:
    """The class of each cell of the photo, and the share of the photo that each class covers; see `predict`."""
    network = question.network
    if params.crops != "one":
        raise VizError(
            f"{network.name} returns a class map, which is drawn over one crop; leave out 'crops'.",
            code="one-crop-only",
        )
    picture = question.require_picture()
    seen = network.seen(picture)
    logits = class_map_logits(network, network.prepare(picture))[0]  # [classes h w]
    chance = _probabilities(network, logits[None])[0]
    label, probability = chance.argmax(0), chance.amax(0)
    if network.class_maps[0].head.link == "sigmoid":
        label = label.where(probability > 0.5, NONE)
    arrays = {
        "label": label.cpu().numpy(),
        "probability": probability.float().cpu().numpy(),
        "scores": logits.float().cpu().numpy(),
    }
    count, cells = len(arrays["scores"]), arrays["label"].size
    arrays["area"] = np.bincount(arrays["label"][arrays["label"] != NONE], minlength=count) / cells
    arrays["classes"] = np.arange(count)
    table = _table(network, arrays, params.top)
    return Result(
        "predict",
        arrays,
        (Panel("seen", seen, "The photo as the network sees it."), *_panels(seen, arrays, chance, table)),
        {
            "crops": "the centre crop",
            "answer": ", ".join(f"{row['name']} {100 * row['area']:.1f} %" for row in table) or "no class anywhere",
            "output": _description(network, arrays),
        },
        table,
    )


def _probabilities(network: Network, logits: Tensor) -> Tensor:
    return network.class_maps[0].head.probabilities(logits)


def _table(network: Network, arrays: dict[str, np.ndarray], top: int) -> tuple[dict[str, Any], ...]:
    """A row for each of the `top` classes that cover a cell, the largest first."""
    area, label = arrays["area"], arrays["label"]
    return tuple(
        {
            "class": index,
            "name": network.class_name(index),
            "area": float(area[index]),
            "mean probability": float(arrays["probability"][label == index].mean(dtype=np.float64)),
        }
        for index in np.argsort(-area, kind="stable")[:top].tolist()
        if area[index] > 0
    )


def _panels(
    seen: np.ndarray, arrays: dict[str, np.ndarray], chance: Tensor, table: tuple[dict[str, Any], ...]
) -> tuple[Panel, ...]:
    """The label map over the photo with its legend, and the probability of each class of the table."""
    background = [row for row in table if is_background(row["name"])]  # grey, as what has no colour of its own
    coloured = [row for row in table if row not in background][: len(COLOURS)]
    order = [row["class"] for row in coloured]
    colours = label_colours(arrays["label"], order)
    opaque = np.full(colours.shape[:2], 255, np.uint8)
    over = lay_over(seen, np.dstack([colours, opaque]), _OPACITY, "nearest")
    names = [f"{row['name']} {100 * row['area']:.1f} %" for row in (*coloured, *background)]
    colours_of = [*COLOURS[: len(order)].tolist(), *([GREY] * 3 for _ in background)]
    legend = list(zip(colours_of, names, strict=True))
    panels = [
        Panel("label", with_legend(colours, legend, _TILE), f"The class of each cell: {', '.join(names) or 'none'}."),
        Panel("label-over-photo", with_legend(over, legend, _TILE), "The same over the photo."),
    ]
    tiles = [captioned(heat(chance[row["class"]].float().cpu().numpy(), 0, 1), row["name"], _TILE) for row in table]
    if tiles:
        panels.append(Panel("classes", sheet(tiles, 3, gap=2), "The probability of each class, from 0 (black) to 1."))
    return tuple(panels)


def _description(network: Network, arrays: dict[str, np.ndarray]) -> str:
    """What the map is and how its scores become probabilities, in a sentence or two."""
    height, width = arrays["label"].shape
    told = f"A class map of {height} × {width} cells: {network.class_maps[0].head.description}"
    if network.class_maps[0].head.link == "sigmoid":
        told += f" A cell where no class reaches 0.5 has no class ({NONE} in the label map)."
    if len(network.class_maps) > 1:
        others = ", ".join(repr(other.head.name) for other in network.class_maps[1:])
        told += f" The network also returns the maps {others}."
    return told
