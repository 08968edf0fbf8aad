"""Score-CAM: feature maps, each weighted by the increase of the unit when the map masks the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.projection.project import argmax_cell
from vizapp.engine.trace.observe import observe
from vizapp.errors import VizError
from vizapp.methods.attribution.layer import layer_without_gradient
from vizapp.methods.attribution.params import AttributionParams
from vizapp.methods.attribution.request import Request
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob


@dataclass(frozen=True)
class ScoreCamParams(Params):
    """Which feature maps mask the picture."""

    site: str = knob("", "Layer whose channels mask the photo; by default that of Grad-CAM")


def score_cam(question: Question, params: ScoreCamParams, job: Job) -> Result:
    """Where the photo activates a class or a unit most, found by masking it with each channel of a layer.

    Each channel, resized and scaled to 0..1, masks the picture (baseline: an input of zeros). Its weight is the softmax over
    the channels of the unit's rise above the baseline, which cancels. Constant channels are skipped. `arrays`: `attribution`
    float32 `[H W]`, the ReLU of the weighted sum, resized; `weights` float32 `[C]`.
    """
    network, unit = question.network, question.require_unit()
    own, batch = network.site(unit.site), network.prepare(question.require_picture())
    clean = observe(network.module, batch, [own])[own.name][0]
    unit = replace(unit, site=own.name, cell=argmax_cell(clean, unit))
    place = (unit.channel, *(unit.cell or ()))
    if params.site:
        site = network.site(params.site)
    else:
        request = Request(network, own, unit, batch, float(clean[place]), AttributionParams(), Job())
        site = layer_without_gradient(request).site
    if not site.is_map or not site.located:
        raise VizError("Score-CAM needs a layer whose cells are positions in the photo.", code="no-feature-map")
    maps = observe(network.module, batch, [site])[site.name].float()  # [1 C h w]
    varying = [c for c, one in enumerate(maps[0]) if one.max() > one.min()]

    def value(part: Sequence[int]) -> Tensor:
        masks = nn.functional.interpolate(maps[:, list(part)], batch.shape[2:], mode="bilinear")[0]  # [n H W]
        low, high = masks.amin((1, 2), True), masks.amax((1, 2), True)
        masked = batch * ((masks - low) / (high - low))[:, None]
        seen = observe(network.module, masked, [own])[own.name]
        return seen[(slice(None), *place)].float().clone()  # a view would keep all channels

    weights = torch.zeros(maps.shape[1], device=maps.device)
    weights[varying] = torch.cat(
        [weights[:0], *in_chunks(varying, value, network.batch_limit(32), job.report)]
    ).softmax(0)
    summed = (weights[:, None, None] * maps[0]).sum(0).relu()
    heat = nn.functional.interpolate(summed[None, None], batch.shape[2:], mode="bilinear")[0, 0]
    facts = {
        "layer": f"{site.name}, {len(varying)} of {maps.shape[1]} channels vary.",
        "note": f"Masked parts are filled with {network.preprocessing.zero_colour}.",
    }
    return Result("score_cam", {"attribution": heat.cpu().numpy(), "weights": weights.cpu().numpy()}, facts=facts)


METHOD = Method(
    "score_cam", "Score-CAM", "Wang et al. 2020, section 3", ScoreCamParams, score_cam, frozenset({"picture", "unit"}),
    memory_hint="a layer with fewer channels", shows=(Output("attribution", "support map", over_photo=True, title="Support"),),
)  # fmt: skip
