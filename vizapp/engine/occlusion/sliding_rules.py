"""Operations on windows that slide a kernel over a map: convolutions, pools, and the padding around a map.

What a kernel reads around a window is cropped from the padded clean map below. The operation then runs without padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair
from vizapp.engine.occlusion.cell_index import Parts, runs_of_cells
from vizapp.engine.occlusion.fused_convolutions import CONVOLUTION_AND_SUM, FusedConvolution
from vizapp.engine.occlusion.incremental_plan import BatchState, DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.pointwise_rules import mark_aliased
from vizapp.engine.trace.recording import Step


def _before(
    region: DirtyRegion, kernel: Any, stride: Any, dilation: Any
) -> tuple[tuple[int, int], list[int], list[int]]:
    """Size and starts, on the padded map below, of what the windows of a region read."""
    size = tuple(
        (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(region.size, stride, kernel, dilation, strict=True)
    )
    return (size[0], size[1]), [t * stride[0] for t in region.tops], [s * stride[1] for s in region.lefts]


def _pads(
    padding: Any, length: Any, outputs: Any, kernel: Any, stride: Any, dilation: Any
) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: as much as the last output needs (a ceil-mode pool looks further than its padding)."""
    after = [
        max(0, (o - 1) * s + (k - 1) * d + 1 - n - p)
        for o, s, k, d, n, p in zip(outputs, stride, kernel, dilation, length, padding, strict=True)
    ]
    return padding[1], after[1], padding[0], after[0]


def _sliding(
    plan: IncrementalPlan, step: Step, region: DirtyRegion, kernel: Any, stride: Any, padding: Any, dilation: Any, fill: float,
    apply: Callable[[Tensor, BatchState], Tensor],
) -> Operate:  # fmt: skip
    """Crop what the windows read from the padded map below, and apply the operation without padding."""
    value = step.inputs[0]
    size, tops, lefts = _before(region, kernel, stride, dilation)
    pads = _pads(padding, plan.regions[value].length, region.length, kernel, stride, dilation)
    block = plan.block(value, tops, lefts, size, pads, fill)
    plan.fresh.update(step.outputs)
    return lambda state: [apply(block(state), state)]


def convolution(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """A convolution, of any stride, dilation and number of groups; a fused one may also add another value."""
    args, kwargs = step.args, step.kwargs
    weight = argument(args, kwargs, 1, "weight", None)
    if not _cells_last(plan, step, regions) or not isinstance(weight, Tensor) or weight.ndim != 4:
        return None
    convolve = step.function if isinstance(step.function, FusedConvolution) else F.conv2d
    added = plan.on_region(step.inputs[1], regions[0]) if step.operation == CONVOLUTION_AND_SUM else None
    bias, groups = argument(args, kwargs, 2, "bias", None), argument(args, kwargs, 6, "groups", 1)
    stride, dilation = pair(argument(args, kwargs, 3, "stride", 1)), pair(argument(args, kwargs, 5, "dilation", 1))
    padding, kernel = argument(args, kwargs, 4, "padding", 0), pair(tuple(weight.shape[-2:]))
    if padding == "same":  # torch pads the odd cell at the end
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    padding = (0, 0) if padding == "valid" else pair(padding)

    def apply(block: Tensor, state: BatchState) -> Tensor:
        more = () if added is None else (added(state),)
        found: Tensor = convolve(block, weight, bias, stride, 0, dilation, groups, *more)
        return found

    return _sliding(plan, step, regions[0], kernel, stride, padding, dilation, 0.0, apply)


def _cells_last(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion]) -> bool:
    count = 2 if step.operation == CONVOLUTION_AND_SUM else 1
    return (
        (len(step.inputs), len(step.outputs)) == (count, 1)
        and all(len(plan.shapes[value]) == 4 for value in (*step.inputs, *step.outputs))
        and all(plan.regions[value].axes == regions[0].axes == (2, 3) for value in step.inputs)
    )


def max_pool(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """Maxima of windows; what lies around the map is less than anything."""
    if not _cells_last(plan, step, regions):
        return None
    args, kwargs = step.args, step.kwargs
    kernel = pair(argument(args, kwargs, 1, "kernel_size", 1))
    stride = pair(argument(args, kwargs, 2, "stride", kernel) or kernel)
    padding, dilation = pair(argument(args, kwargs, 3, "padding", 0)), pair(argument(args, kwargs, 4, "dilation", 1))

    def apply(block: Tensor, state: BatchState) -> Tensor:
        return F.max_pool2d(block, kernel, stride, 0, dilation)

    return _sliding(plan, step, regions[0], kernel, stride, padding, dilation, float("-inf"), apply)


def average_pool(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """Sums of windows, each divided by the divisor that the whole operation uses at that cell."""
    if not _cells_last(plan, step, regions):
        return None
    args, kwargs, region = step.args, step.kwargs, regions[0]
    kernel = pair(argument(args, kwargs, 1, "kernel_size", 1))
    stride = pair(argument(args, kwargs, 2, "stride", kernel) or kernel)
    padding, ceil = pair(argument(args, kwargs, 3, "padding", 0)), argument(args, kwargs, 4, "ceil_mode", False)
    counted = argument(args, kwargs, 5, "count_include_pad", True)
    divisor = argument(args, kwargs, 6, "divisor_override", None)
    ones = torch.ones(1, 1, *plan.regions[step.inputs[0]].length, dtype=torch.float64)
    share = F.avg_pool2d(ones, kernel, stride, padding, ceil, counted, divisor)
    share = share / F.avg_pool2d(ones, kernel, stride, padding, ceil, counted, 1)  # [1 1 h w]: one over the divisor
    alike = float(share.amin()) == float(share.amax())
    (h, w), number = region.size, plan.index(Parts(region.length, region.tops, region.lefts, region.size, "one"))

    def apply(block: Tensor, state: BatchState) -> Tensor:
        sums = F.avg_pool2d(block, kernel, stride, divisor_override=1)
        if alike:
            return sums.mul_(float(share[0, 0, 0, 0]))
        key, derived = (step.outputs[0], "share", w, block.dtype), state.clean.derived
        if key not in derived:
            derived[key] = runs_of_cells(share.to(block), 1, w)
        return sums.mul_(derived[key].index_select(0, state.indices[number]).view(-1, 1, h, w))

    return _sliding(plan, step, region, kernel, stride, padding, (1, 1), 0.0, apply)


def unchanged_pool(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """An adaptive pool from a map to one of the same size changes nothing."""
    if plan.shapes[step.inputs[0]] != plan.shapes[step.outputs[0]]:
        return None
    mark_aliased(plan, step)
    return lambda state: [state.values[step.inputs[0]]]


def pad(plan: IncrementalPlan, step: Step, regions: list[DirtyRegion], position: int) -> Operate | None:
    """Padding: the windows move, and what is around them stays clean. Other modes than "constant" read whole maps."""
    value, region = step.inputs[0], regions[0]
    sides = [*argument(step.args, step.kwargs, 1, "pad", ())]
    if not _cells_last(plan, step, regions) or len(sides) > 4 or any(side < 0 for side in sides):
        return None
    mode, fill = (
        argument(step.args, step.kwargs, 2, "mode", "constant"),
        argument(step.args, step.kwargs, 3, "value", 0.0),
    )
    left, right, top, bottom = (sides + [0] * 4)[:4]
    mark_aliased(plan, step)
    if mode == "constant":
        block = plan.block(value, region.tops, region.lefts, region.size, (left, right, top, bottom), float(fill))
        return lambda state: [block(state)]
    whole, (h, w) = plan.on_whole_map(value), region.size
    number = plan.index(Parts(region.length, region.tops, region.lefts, region.size, "own"))

    def operate(state: BatchState) -> list[Tensor]:
        maps = F.pad(whole(state), sides, mode).permute(0, 2, 3, 1)
        runs = runs_of_cells(maps.contiguous(), maps.shape[3], w).index_select(0, state.indices[number])
        return [runs.view(-1, h, w, maps.shape[3]).permute(0, 3, 1, 2)]

    return operate
