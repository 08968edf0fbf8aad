"""Prediction: the most probable classes of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from vizapp.media.transforms import five_corners, five_crops, resize_short_side
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.scores import top_rows


@dataclass(frozen=True)
class PredictParams(Params):
    """`crops`: "one" is the centre crop of the network's own preprocessing; "ten" are AlexNet's: the four corners and
    the centre of the resized picture, and their mirror images; "multi" are the ten crops at three scales."""

    top: int = knob(5, "Number of classes to list", low=1, high=1000)
    crops: Literal["one", "ten", "multi"] = knob(
        "one", "The centre crop, the corners and centre with their mirror images, or those at three scales"
    )


_SCALES = (1.0, 1.25, 1.5)  # of the short side, for crops="multi"


def crops_of(question: Question, crops: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The crops of the photo, each uint8 `[H W 3]`, and (top, left, bottom, right) of each `[n 4]` in pixels of the photo."""
    network, picture = question.network, question.require_picture()
    _, height, width = network.input_size
    view = network.preprocessing.view
    shape = picture.height, picture.width
    if crops == "one":
        return [network.seen(picture)], np.array([view.box(*shape)], np.float32)
    found, boxes = [], []
    for scale in _SCALES if crops == "multi" else (1.0,):
        # Preprocessing that squeezes the whole picture into the input leaves no margin; crops need one.
        squeezed = view.resize == (height, width)
        before = max(height, width) * 256 / 224 if squeezed else min(view.resized(*shape))
        short = round(before * scale)
        resized = resize_short_side(picture.pixels, max(short, height, width), view.interpolation)
        five = five_crops(resized, height, width)
        found += five + [np.ascontiguousarray(crop[:, ::-1]) for crop in five]
        boxes += [_in_photo(five_corners(resized.shape, height, width), (height, width), resized.shape, shape)] * 2
    return found, np.concatenate(boxes)


def _in_photo(
    corners: list[tuple[int, int]], size: tuple[int, int], resized: tuple[int, ...], photo: tuple[int, int]
) -> np.ndarray:
    """The crops of that size at these corners of the resized photo, in pixels of the photo: float32 `[n 4]`."""
    scale = np.array([photo[0] / resized[0], photo[1] / resized[1]] * 2)
    edges = [(top, left, top + size[0], left + size[1]) for top, left in corners]
    return (np.array(edges) * scale).astype(np.float32)


def predict(question: Question, params: PredictParams, job: Job) -> Result:
    """The most probable classes of the photo, with probabilities and logits.

    `arrays`: `probabilities` `[classes]` and `logits` `[classes]`; over several crops, the mean of the crops'
    probabilities (Krizhevsky et al. 2012, section 4.1) and the mean of their logits. `crop_probabilities` `[crops classes]`;
    `boxes` `[crops 4]`, the top, left, bottom and right of each crop in pixels of the photo (beyond its border where the crop
    was padded). `table`: the top classes. The fact "output" says which output of the network these are, and how logits
    become probabilities.
    """
    network = question.network
    crops, boxes = crops_of(question, params.crops)
    scores = []
    with torch.no_grad():
        for number, crop in enumerate(crops):
            scores.append(network.scores(network.batch([crop]))[0].double())  # [classes]
            job.report((number + 1) / len(crops))
    logits = torch.stack(scores)  # [crops classes]
    each = network.head.probabilities(logits)
    probabilities = each.mean(0).cpu().numpy()
    logits_mean = logits.mean(0).cpu().numpy()
    table = top_rows(network, probabilities, params.top, logit=logits_mean)
    names = {"one": "the centre crop", "ten": "mean of ten crops"}
    used = names.get(params.crops, f"mean of {len(crops)} crops at three scales")
    return Result(
        "predict",
        {
            "probabilities": probabilities.astype(np.float32),
            "logits": logits_mean.astype(np.float32),
            "crop_probabilities": each.float().cpu().numpy(),
            "boxes": boxes,
        },
        (Panel("seen", network.seen(question.require_picture()), "The photo as the network sees it."),),
        {
            "crops": used,
            "answer": f"{table[0]['name']} ({100 * table[0]['probability']:.1f} %)",
            "output": network.output_description,
        },
        table,
    )


METHOD = Method(
    key="predict",
    title="Predict",
    source="Krizhevsky et al. 2012, section 4.1 (ten crops)",
    params=PredictParams,
    run=predict,
    shows=(Output("table", "table"),),
)
