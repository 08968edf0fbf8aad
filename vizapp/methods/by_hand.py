"""A part of the picture hidden by hand: what the network answers with and without it, by one pass."""

from __future__ import annotations

import numpy as np
import torch

from vizapp.errors import VizError
from vizapp.methods.base import Panel, Question, Result
from vizapp.methods.occluder import filling
from vizapp.methods.occlusion import OcclusionParams


def hidden(seen: np.ndarray, mask: np.ndarray, params: OcclusionParams) -> np.ndarray:
    """What the network saw, uint8 `[H W 3]`, with the fill where `mask`, bool `[H W]`, is set (or elsewhere: `inverse`).

    Raises:
        VizError: the mask has another size, or the fill is no colour.
    """
    if mask.shape != seen.shape[:2]:
        raise VizError(
            f"The mask has {mask.shape[0]} × {mask.shape[1]} pixels and the network sees {seen.shape[0]} × "
            f"{seen.shape[1]}; draw it anew."
        )
    covered = ~mask if params.inverse else mask
    return np.where(covered[:, :, None], filling(seen, params.fill, params.seed), seen)


def by_hand(question: Question, params: OcclusionParams, mask: np.ndarray) -> Result:
    """What the network answers while a part of the picture of any form is hidden.

    `mask`: bool `[H W]`, in pixels of what the network sees. Of `params` only `fill`, `inverse` and `seed` matter.
    `arrays`: `probabilities`, `logits` `[classes]` of the hidden picture, `clean_probabilities`, `clean_logits` of the
    whole one, `mask`.

    Raises:
        VizError: see `hidden`; or the network gives no class scores.
    """
    network = question.network
    seen = network.seen(question.the_picture())
    shown = hidden(seen, mask, params)
    with torch.no_grad():
        logits = torch.cat(
            [network.scores(network.batch([pixels])) for pixels in (shown, seen)]
        ).double()  # [2 classes]
    probabilities = logits.softmax(1).float().cpu().numpy()
    scores = logits.float().cpu().numpy()
    share = float((~mask if params.inverse else mask).mean())
    arrays = {
        "probabilities": probabilities[0], "logits": scores[0], "clean_probabilities": probabilities[1],
        "clean_logits": scores[1], "mask": mask,
    }  # fmt: skip
    return Result(
        "occlusion", arrays, (Panel("hidden", shown, "The picture that the network saw."),), {"hidden": f"{share:.0%}"}
    )
