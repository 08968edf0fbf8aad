"""The method `attribution`: one map per question, of the kind that was asked for."""

from __future__ import annotations

import importlib.metadata
import math
from dataclasses import replace

import torch
from torch import Tensor

from vizapp.engine.memory.chunks import is_out_of_memory, release_frames
from vizapp.engine.projection.project import argmax_cell
from vizapp.engine.trace.observe import observe
from vizapp.errors import VizError
from vizapp.methods.attribution.kinds import KINDS
from vizapp.methods.attribution.params import AttributionParams
from vizapp.methods.attribution.request import Request
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output

_AT_ONCE = 8  # inputs per pass; larger batches were no faster


def attribution(question: Question, params: AttributionParams, job: Job) -> Result:
    """How much each pixel or region contributes to a class or a unit.

    `docs/attribution.md` describes the kinds. A unit of a map is explained at its strongest cell if it has none. CAMs look at
    a layer as a map, in its own layout: the tokens of a transformer lie on their grid, special tokens are left out. The fact
    "rough" says where averaging the gradient over cells loses it, as under fully connected layers. `arrays`: `attribution`
    `[H W]` float32, finite, summed over colours (CAMs: resized from their layer, not below zero).

    Raises:
        VizError: the kind is not defined for the network or unit, or its map is not finite.
    """
    kind, unit = KINDS[params.kind], question.require_unit()
    network = question.network if kind.perturbs else question.network.smooth
    site = network.site(unit.site)
    batch = network.prepare(question.require_picture())
    maps = observe(network.module, batch, [site])[site.name][0]
    unit = replace(unit, site=site.name, cell=argmax_cell(maps, unit))
    request = Request(network, site, unit, batch, float(maps[(unit.channel, *(unit.cell or ()))]), params, job)
    job.report(0.1)
    try:
        with torch.enable_grad():
            values, facts = _in_parts(request, network.batch_limit(_AT_ONCE, gradients=True))
    except (AssertionError, RuntimeError, AttributeError, TypeError, ValueError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        if not math.isfinite(request.value):
            raise _not_finite(request) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise VizError(f"{params.kind} cannot be computed on this network: {reason}", code="captum-failed") from error
    if not values.isfinite().all():
        raise _not_finite(request)
    pixels = values.detach().float().cpu().numpy()
    by = f", computed by Captum {importlib.metadata.version('captum')}" if kind.by_captum else ""
    return Result(
        "attribution",
        {"attribution": pixels},
        facts={"attribution": f"{params.kind}{by}", **facts, "limits": kind.caution},
    )


def _in_parts(request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
    """The attribution with at most `size` inputs per pass; fewer if they do not fit into memory."""
    while True:
        try:
            return KINDS[request.params.kind].pixels(request, size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
            release_frames(error)
        size //= 2


def _not_finite(request: Request) -> VizError:
    kind, value = request.params.kind, request.value
    finite = math.isfinite(value)
    why = "an activation or a gradient below the unit is not" if finite else f"the network gives {value} for the unit"
    return VizError(f"{kind}'s map has numbers that are not finite: {why} on this photo.", code="not-finite")


METHOD = Method(
    key="attribution",
    title="Attribution",
    source="; ".join(f"{kind.source} ({kind.title})" for kind in KINDS.values()),
    params=AttributionParams,
    run=attribution,
    needs=frozenset({"picture", "unit"}),
    memory_hint="Grad-CAM",
    shows=(Output("attribution", "support map", over_photo=True, title="Support"),),
)
