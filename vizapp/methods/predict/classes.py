"""Prediction of a classifier: the most probable classes of a photo."""

from __future__ import annotations

import numpy as np
import torch

from vizapp.media.crops import CornerCrops
from vizapp.methods.base import Job, Panel, Question, Result
from vizapp.methods.predict.params import PredictParams
from vizapp.methods.scores import in_words, top_rows
from vizapp.zoo.network import Network

_SCALES = {"ten": (1.0,), "multi": (1.0, 1.25, 1.5)}  # of the short side


def corner_crops(network: Network, crops: str) -> CornerCrops:
    """How the crops "ten" or "multi" are taken of a photo."""
    return CornerCrops(network.preprocessing.view, _SCALES[crops])


def crops_of(question: Question, crops: str, shown: bool = False) -> tuple[list[np.ndarray], np.ndarray]:
    """The crops of the photo, as `Network.crop` gives them or as they are shown (uint8 `[H W 3]`).

    And (top, left, bottom, right) of each `[n 4]` in pixels of the photo.
    """
    network, picture = question.network, question.require_picture()
    shape = picture.height, picture.width
    if crops == "one":
        return [network.seen(picture) if shown else network.crop(picture)], np.array(
            [network.preprocessing.view.box(*shape)], np.float32
        )
    several = corner_crops(network, crops)
    return list(several.apply(picture.pixels if shown else several.view.values(picture))), several.boxes(*shape)


def class_scores(question: Question, params: PredictParams, job: Job) -> Result:
    """The most probable classes of the photo, with probabilities and logits; see `predict`."""
    network = question.network
    crops, boxes = crops_of(question, params.crops)
    heads, scores = network.answers, []
    with torch.no_grad():
        for number, crop in enumerate(crops):
            scores.append([one[0].double() for one in network.scores_of_answers(network.batch([crop]))])
            job.report((number + 1) / len(crops))
    of_heads = {head.name: torch.stack(one) for head, one in zip(heads, zip(*scores, strict=True), strict=True)}
    logits = of_heads[network.head.name]  # [crops classes]
    each = network.head.probabilities(logits)
    probabilities = each.mean(0).cpu().numpy()
    logits_mean = logits.mean(0).cpu().numpy()
    table = top_rows(network, probabilities, params.top, logit=logits_mean)
    several = {} if len(heads) < 2 else _strongest({h.name: h.probabilities(of_heads[h.name]).mean(0) for h in heads})
    names = {"one": "the centre crop", "ten": "mean of ten crops"}
    used = names.get(params.crops, f"mean of {len(crops)} crops at three scales")
    return Result(
        "predict",
        {
            "probabilities": probabilities.astype(np.float32),
            "logits": logits_mean.astype(np.float32),
            "crop_probabilities": each.float().cpu().numpy(),
            "boxes": boxes,
        }
        | several,
        (Panel("seen", network.seen(question.require_picture()), "The photo as the network sees it."),),
        {
            "crops": used,
            "answer": _answer(network, probabilities),
            "output": network.output_description,
        }
        | _not_exclusive(network, probabilities),
        table,
    )


def _answer(network: Network, probabilities: np.ndarray) -> str:
    """The answer in words: the most probable class, whether the only class is there, or all classes above 50 %."""
    order = np.argsort(-probabilities, kind="stable").tolist()
    texts = [f"{network.class_name(number)} ({in_words(network, probabilities[number])})" for number in order]
    if network.head.link != "sigmoid":
        return texts[0]
    above = int((probabilities > 0.5).sum())
    if len(order) == 1:
        return f"{network.class_name(0)}: {'yes' if above else 'no'} (probability {100 * probabilities[0]:.1f} %)"
    return ", ".join(texts[:above]) if above else f"no class above 50 %; the most probable is {texts[0]}"


def _not_exclusive(network: Network, probabilities: np.ndarray) -> dict[str, str]:
    """A fact about classes of which several may be there at once."""
    if network.head.link != "sigmoid" or len(probabilities) < 2:
        return {}
    above = (probabilities > 0.5).sum()
    told = "They do not exclude each other: each has a probability of its own"
    return {"classes": f"{told}, and {above} of {len(probabilities)} are above 50 %."}


def _strongest(chances: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The arrays about all heads, of the probabilities `[classes]` of each."""
    return {
        "heads": np.array(list(chances)),
        "head_classes": np.array([int(chance.argmax()) for chance in chances.values()]),
        "head_probabilities": np.array([float(chance.max()) for chance in chances.values()], np.float32),
    }
