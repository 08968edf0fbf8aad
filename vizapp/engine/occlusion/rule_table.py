"""The table of the rules by which operations run on windows."""

from __future__ import annotations

from collections.abc import Callable

from vizapp.engine.occlusion import pointwise_rules, sliding_rules, view_rules
from vizapp.engine.occlusion.fused_convolutions import CONVOLUTION_AND_SUM
from vizapp.engine.occlusion.incremental_plan import DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.pointwise_rules import BINARY, CONCATENATIONS, IDENTITIES, POINTWISE
from vizapp.engine.occlusion.view_rules import VIEWS
from vizapp.engine.trace.recording import Step

Make = Callable[[IncrementalPlan, Step, "list[DirtyRegion]", int], "Operate | None"]
RULES: dict[str, Make] = {
    **dict.fromkeys(POINTWISE, pointwise_rules.pointwise),
    **dict.fromkeys(IDENTITIES, pointwise_rules.identity),
    **dict.fromkeys(BINARY, pointwise_rules.sum_or_product),
    **dict.fromkeys(CONCATENATIONS, pointwise_rules.concatenation),
    **dict.fromkeys(["batch_norm", "local_response_norm"], pointwise_rules.norm),
    **dict.fromkeys(["linear", "layer_norm"], pointwise_rules.last_axis),
    **dict.fromkeys(VIEWS, view_rules.reshape),
    **dict.fromkeys(["transpose", "swapaxes"], view_rules.transpose),
    **dict.fromkeys(["chunk", "split"], view_rules.split),
    "copy": pointwise_rules.copy,
    **dict.fromkeys(["conv2d", CONVOLUTION_AND_SUM], sliding_rules.convolution),
    "max_pool2d": sliding_rules.max_pool,
    "avg_pool2d": sliding_rules.average_pool,
    "adaptive_avg_pool2d": sliding_rules.unchanged_pool,
    "pad": sliding_rules.pad,
    "permute": view_rules.permute,
    "getitem": view_rules.index,
}


def window_rule(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """How to run the step on windows; None where it has to be run on whole maps. `regions`: its results' windows."""
    base = step.operation.rstrip("_")
    make = RULES.get(base)
    if make is None or len(regions) != len(step.outputs):
        return None
    return make(plan, step, regions, position)
