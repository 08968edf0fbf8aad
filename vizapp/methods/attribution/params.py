"""The parameters of the method `attribution`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vizapp.methods.params import Params, knob


@dataclass(frozen=True)
class AttributionParams(Params):
    """The kind of attribution and its options."""

    kind: Literal[
        "gradcam", "gradcam++", "hirescam", "layercam", "eigencam", "scorecam", "ablationcam",
        "integrated_gradients", "smoothgrad", "deeplift", "guided", "deconvnet", "guided_gradcam", "lrp",
        "rise", "occlusion", "rollout", "legrad",
        "random", "edges",
    ] = knob("integrated_gradients", "Kind of attribution")  # fmt: skip
    steps: int = knob(
        0,
        "Steps of integrated gradients, or noisy samples of SmoothGrad; 0: 32, and up to 256 steps where 32 are too few",
        low=0,
        high=500,
    )
    noise: float = knob(
        0.15, "Standard deviation of SmoothGrad's noise, as a share of the input range", low=0.01, high=1
    )
    masks: int = knob(0, "Random masks of RISE; 0: 1000 (the paper takes 4000 to 8000)", low=0, high=20_000)
    layer: str = knob(
        "", "Layer that a CAM explains; by default the last feature map on all paths from the input to the unit"
    )
    rule: Literal["composite", "depth", "plus", "epsilon", "zero"] = knob(
        "composite",
        "Rules of LRP: gamma in convolutions; by depth gamma or epsilon; positive contributions; epsilon or 0 everywhere",
    )
    seed: int = knob(0, "Random seed", low=0, high=2**31 - 1)
