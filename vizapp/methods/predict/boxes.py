"""Prediction of a detector: boxes with their classes and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from vizapp.errors import VizError, plural
from vizapp.media.box_labels import draw_labelled
from vizapp.media.drawing import COLOURS
from vizapp.methods.base import Job, Panel, Question, Result
from vizapp.methods.predict.params import PredictParams
from vizapp.zoo.network import Network

_MASK = 0.5  # from which a pixel belongs to an object


def detections(question: Question, params: PredictParams, job: Job) -> Result:
    """The boxes that a detector returns for the photo; see `predict`."""
    network = question.network
    if params.crops != "one":
        raise VizError(
            f"{network.name} returns boxes, which are drawn on one crop; leave out 'crops'.", code="one-crop-only"
        )
    assert network.detector is not None, "its task is boxes"
    seen = network.seen(question.require_picture())
    (found,) = network.detector.found(network.batch([seen]))
    arrays = {"boxes": _numbers(found.boxes), "labels": found.labels.cpu().numpy(), "scores": _numbers(found.scores)}
    if found.masks is not None:
        arrays["masks"] = (found.masks > _MASK).cpu().numpy()
    if found.keypoints is not None:
        arrays["keypoints"] = _numbers(found.keypoints)
    count = int((arrays["scores"] >= params.threshold).sum())  # the highest scores come first
    table = tuple(_row(network, arrays, number) for number in range(count))
    return Result(
        "predict",
        arrays,
        (
            Panel("seen", seen, "The photo as the network sees it."),
            Panel("boxes", _drawn(seen, arrays, table), f"Boxes with scores from {params.threshold:g}."),
        ),
        {
            "crops": "the centre crop",
            "answer": _answer(network, arrays, count, params.threshold),
            "output": f"{plural(len(arrays['scores']), 'box', 'boxes')} of {len(network.categories)} classes, in pixels of the "
            f"crop; {count} with a score from {params.threshold:g}.",
        },
        table,
    )


def _numbers(values: Tensor) -> np.ndarray:
    found: np.ndarray = values.detach().float().cpu().numpy()
    return found


def _row(network: Network, arrays: dict[str, np.ndarray], number: int) -> dict[str, Any]:
    label = int(arrays["labels"][number])
    sides = dict(zip(("top", "left", "bottom", "right"), map(float, arrays["boxes"][number]), strict=True))
    return {
        "number": number,
        "class": label,
        "name": network.class_name(label),
        "score": float(arrays["scores"][number]),
    } | sides


def _answer(network: Network, arrays: dict[str, np.ndarray], count: int, threshold: float) -> str:
    """What was found, in words."""
    if not len(arrays["scores"]):
        return "nothing"
    rows = [_row(network, arrays, number) for number in range(max(count, 1))]
    told = ", ".join(f"{row['name']} {100 * row['score']:.0f} %" for row in rows[:5])
    if not count:
        return f"nothing with a score from {threshold:g}; the strongest is {told}"
    return told + (f" and {count - 5} more" if count > 5 else "")


def _drawn(seen: np.ndarray, arrays: dict[str, np.ndarray], table: tuple[dict[str, Any], ...]) -> np.ndarray:
    """The photo with the boxes of the table, a colour for each class, and masks and points where there are any."""
    classes = list(dict.fromkeys(row["class"] for row in table))
    colours = [COLOURS[classes.index(row["class"]) % len(COLOURS)] for row in table]
    photo = seen.astype(np.float32)
    for mask, colour in zip(arrays.get("masks", ()), colours, strict=False):
        photo[mask] = (photo[mask] + colour) / 2
    for points, colour in zip(arrays.get("keypoints", ()), colours, strict=False):
        for row, column in points[points[:, 2] > 0, :2].round().astype(int):
            photo[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = colour
    texts = [f"{row['name']} {100 * row['score']:.0f} %" for row in table]
    return draw_labelled(photo.round().astype(np.uint8), arrays["boxes"][: len(table)], texts, colours)
