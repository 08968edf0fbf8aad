"""What all kinds of attribution share, and what the class activation maps (CAMs) share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from vizapp.methods.attribution.layer import RecordedLayer, explained_layer, layer_without_gradient
from vizapp.methods.attribution.request import Request


class Kind(ABC):
    """A kind of attribution map. It has no state.

    `perturbs`: it looks only at what the unit is on changed inputs, so it may be a target without a useful gradient.
    `title`: for people. `source`: paper and section. `caution`: what the map must not be read as, with the paper that
    showed it. `signed`: the map has negative values, which speak against the unit. `by_captum`: Captum computes it.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    caution: ClassVar[str]
    signed: ClassVar[bool] = False
    perturbs: ClassVar[bool] = False
    by_captum: ClassVar[bool] = False

    @abstractmethod
    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The map `[H W]`, with at most `size` inputs per pass, and facts about it.

        Runs with gradients enabled.

        Raises:
            VizError: the kind is not defined for this network or unit.
        """


class Cam(Kind):
    """A class activation map: the maps of a layer, weighted and summed over channels, without what is below zero.

    The layer is the last on all paths from the input to the unit, or the user's. Tokens lie on their grid; special tokens
    are left out. `needs_gradient`: without one the kind is not defined.
    """

    needs_gradient: ClassVar[bool] = True

    @abstractmethod
    def weights(self, layer: RecordedLayer, size: int) -> tuple[Tensor, dict[str, str]]:
        """The weight of each channel, or of each of its cells: what can be multiplied with `[1 C h w]`; and facts."""

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The map `[H W]`, resized from its layer, and where it looked."""
        layer = explained_layer(request) if self.needs_gradient else layer_without_gradient(request)
        weights, more = self.weights(layer, size)
        heat = (weights * layer.maps).sum(1, keepdim=True).relu()
        special = layer.site.prefix_tokens + layer.site.suffix_tokens
        chosen = "" if request.params.layer else ", the last feature map on all paths from the input to the unit"
        note = f"At layer {layer.site.name}{chosen}." + (f" Special tokens left out: {special}." if special else "")
        note += "" if heat.any() else " The map is zero: no cell there raises the unit."
        pixels = nn.functional.interpolate(heat, size=request.size, mode="bilinear", align_corners=False)[0, 0]
        return pixels, {"layer": layer.site.name, "note": note} | more
