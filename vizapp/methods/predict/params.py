"""The parameters of Predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vizapp.methods.params import Params, knob


@dataclass(frozen=True)
class PredictParams(Params):
    """`crops`: "one" is the centre crop of the network's own preprocessing; "ten" are AlexNet's: the four corners and
    the centre of the resized picture, and their mirror images; "multi" are the ten crops at three scales."""

    top: int = knob(5, "Number of classes, or of nearest photos, to list", low=1, high=1000)
    crops: Literal["one", "ten", "multi"] = knob(
        "one", "The centre crop, the corners and centre with their mirror images, or those at three scales"
    )
    threshold: float = knob(0.5, "Score from which a detector's boxes are listed and drawn", low=0.0, high=1.0)
