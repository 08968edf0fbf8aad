"""Maps from what happens to the unit when parts of the photo, or channels of a layer, are taken away."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vizapp.engine.occlusion.ablation import Ablation
from vizapp.methods.attribution.kind import Cam
from vizapp.methods.attribution.layer import RecordedLayer
from vizapp.methods.attribution.masked import MaskedPasses
from vizapp.methods.attribution.request import UnitOf


class ScoreCam(Cam):
    """Each channel weighted by the softmax, over the channels, of the unit on the photo masked by that channel.

    The masks are resized and scaled to 0..1; the baseline is an input of zeros, which cancels in the softmax. Constant channels
    mask nothing and are left out.
    """

    key, title = "scorecam", "Score-CAM"
    source = "Wang et al. 2020, section 3"
    caution = (
        "It is as coarse as its layer, and its masks dim the photo as no camera does, so the network may answer to the mask "
        "(Hooker 2018)."
    )
    needs_gradient = False

    def weights(self, layer: RecordedLayer, size: int) -> tuple[Tensor, dict[str, str]]:
        """`[1 C 1 1]`, not negative, of sum 1."""
        request, maps, network = layer.request, layer.maps.float(), layer.request.network
        varying = [c for c, one in enumerate(maps[0]) if one.max() > one.min()]

        def make(numbers: Sequence[int]) -> Tensor:
            chosen = maps[:, [varying[number] for number in numbers]]
            masks = nn.functional.interpolate(chosen, request.size, mode="bilinear")[0]  # [n H W]
            low, high = masks.amin((1, 2), True), masks.amax((1, 2), True)
            return masks.sub_(low).div_(high - low)

        weights, facts = torch.zeros(maps.shape[1], device=maps.device), dict[str, str]()
        if varying:
            passes = MaskedPasses(request, make, len(varying))
            weights[varying] = torch.cat([values for values, _ in passes.answers()]).softmax(0)
            facts = passes.facts
        return weights[None, :, None, None], {
            "channels": f"{len(varying)} of {maps.shape[1]} channels vary.",
            "fill": f"Masked parts are filled with {network.preprocessing.zero_colour}.",
            **facts,
        }


class AblationCam(Cam):
    """Each channel weighted by how far the unit falls when that channel alone is zero, as a share of its activation."""

    key, title = "ablationcam", "Ablation-CAM"
    source = "Desai & Ramaswamy 2020, section 3"
    caution = (
        "Channels are removed one at a time, so what several of them do together is missed, and the layers above get what they "
        "never saw in training (Hooker 2018)."
    )
    needs_gradient = False

    def weights(self, layer: RecordedLayer, size: int) -> tuple[Tensor, dict[str, str]]:
        """`[1 C 1 1]`; divided by the size of the activation, so that a unit below zero is not turned upside down."""
        request, network = layer.request, layer.request.network
        model = UnitOf(network.module, request.site, request.unit)
        ablation = Ablation(network.module, model, request.batch, layer.site, network.footprint)
        without, done = ablation.without(ablation.live), [layer.maps.new_zeros(0, 1)]
        for some in ablation.scores(without):
            done.append(some)
            request.job.report(sum(map(len, done)) / len(without))
        weights, clean = layer.maps.new_zeros(layer.site.channels), ablation.clean_scores[0]
        weights[ablation.live] = (clean - torch.cat(done)[:, 0]) / (clean.abs() if clean else 1)
        return weights[None, :, None, None], ablation.facts
