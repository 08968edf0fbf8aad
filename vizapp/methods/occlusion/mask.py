"""The prediction with any part of a picture hidden by a mask, from one forward pass."""

from __future__ import annotations

import numpy as np
import torch

from vizapp.errors import VizError
from vizapp.media.stacks import shown_values
from vizapp.methods.base import Panel, Question, Result
from vizapp.methods.occlusion.occluder import filling
from vizapp.methods.scores import top_rows


def hide(question: Question, mask: np.ndarray, fill: str = "grey", seed: int = 0, top: int = 5) -> Result:
    """The prediction with the masked pixels hidden.

    `arrays`: `probabilities`, `logits`, `clean_probabilities`, `clean_logits` `[classes]` float32. `table`: the `top`
    classes with their probabilities with and without the mask.

    Args:
        question: Names network and picture.
        mask: bool `[H W]`, the size of the crop (`network.seen(picture)`); True is hidden.
        fill: What the hidden pixels show, one of `FILLS` or a colour.
        seed: Random seed for the fill "noise".
        top: Classes in the table.

    Raises:
        VizError: the mask has another size, or `fill` is invalid.
    """
    network = question.network
    seen = network.crop(question.require_picture())
    if mask.shape != seen.shape[:2]:
        raise VizError(
            f"The mask has {list(mask.shape)} pixels and the network sees {list(seen.shape[:2])}; give a mask of that size.",
            code="bad-mask-size",
        )
    hidden = np.where(mask.astype(bool)[..., None], filling(seen, fill, seed), seen)
    with torch.no_grad():
        logits = network.scores(network.batch([seen, hidden])).double()
    clean, now = network.head.probabilities(logits).cpu().numpy()
    table = top_rows(network, now, top, clean=clean)
    arrays = {"probabilities": now, "clean_probabilities": clean}
    arrays |= dict(zip(("clean_logits", "logits"), logits.cpu().numpy(), strict=True))
    facts = {"hidden": f"{100 * mask.astype(bool).mean():.1f} % of the photo, {fill}"}
    panel = Panel("hidden", shown_values(hidden), "What the network sees now.")
    return Result("occlusion", {k: v.astype(np.float32) for k, v in arrays.items()}, (panel,), facts, table)
