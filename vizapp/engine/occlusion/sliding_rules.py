"""Operations on windows that slide a kernel over a map: convolutions, pools, and the padding around a map.

What a kernel sees around a window is cut out of the padded clean map below; the operation then runs without padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair
from vizapp.engine.occlusion.incremental_plan import BatchState, DirtyRegion, IncrementalPlan, Operate
from vizapp.engine.occlusion.pointwise_rules import aliased
from vizapp.engine.trace.recording import Step


def _before(
    frame: DirtyRegion, kernel: Any, stride: Any, dilation: Any
) -> tuple[tuple[int, int], list[int], list[int]]:
    """Size and beginnings, on the padded map below, of what the windows of a frame see."""
    size = tuple((n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(frame.size, stride, kernel, dilation, strict=True))
    return (size[0], size[1]), [t * stride[0] for t in frame.tops], [s * stride[1] for s in frame.lefts]


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
    plan: IncrementalPlan, step: Step, frame: DirtyRegion, kernel: Any, stride: Any, padding: Any, dilation: Any, fill: float,
    apply: Callable[[Tensor, BatchState], Tensor],
) -> Operate:  # fmt: skip
    """Cut what the windows see out of the padded map below, and apply the operation without padding."""
    value = step.inputs[0]
    size, tops, lefts = _before(frame, kernel, stride, dilation)
    pads = _pads(padding, plan.frames[value].length, frame.length, kernel, stride, dilation)
    plan.reads.add(value)
    plan.fresh.update(step.outputs)

    def operate(run: BatchState) -> list[Tensor]:
        block = run.block(value, [tops[r] for r in run.rows], [lefts[c] for c in run.columns], size, pads, fill)
        return [apply(block, run)]

    return operate


def convolution(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """A convolution, of any stride, dilation and number of groups."""
    args, kwargs = step.args, step.kwargs
    weight = argument(args, kwargs, 1, "weight", None)
    if not _cells_last(plan, step, frames) or not isinstance(weight, Tensor) or weight.ndim != 4:
        return None
    bias, groups = argument(args, kwargs, 2, "bias", None), argument(args, kwargs, 6, "groups", 1)
    stride, dilation = pair(argument(args, kwargs, 3, "stride", 1)), pair(argument(args, kwargs, 5, "dilation", 1))
    padding, kernel = argument(args, kwargs, 4, "padding", 0), pair(tuple(weight.shape[-2:]))
    if padding == "same":  # torch pads the odd cell at the end
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    padding = (0, 0) if padding == "valid" else pair(padding)

    def apply(block: Tensor, run: BatchState) -> Tensor:
        return F.conv2d(block, weight, bias, stride, 0, dilation, groups)

    return _sliding(plan, step, frames[0], kernel, stride, padding, dilation, 0.0, apply)


def _cells_last(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion]) -> bool:
    return (
        len(step.inputs) == len(step.outputs) == 1
        and len(plan.shapes[step.inputs[0]]) == len(plan.shapes[step.outputs[0]]) == 4
        and plan.frames[step.inputs[0]].axes == frames[0].axes == (2, 3)
    )


def max_pool(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """Maxima of windows; what lies around the map is less than anything."""
    if not _cells_last(plan, step, frames):
        return None
    args, kwargs = step.args, step.kwargs
    kernel = pair(argument(args, kwargs, 1, "kernel_size", 1))
    stride = pair(argument(args, kwargs, 2, "stride", kernel) or kernel)
    padding, dilation = (
        pair(argument(args, kwargs, 3, "padding", 0)),
        pair(argument(args, kwargs, 4, "dilation", 1)),
    )

    def apply(block: Tensor, run: BatchState) -> Tensor:
        return F.max_pool2d(block, kernel, stride, 0, dilation)

    return _sliding(plan, step, frames[0], kernel, stride, padding, dilation, float("-inf"), apply)


def average_pool(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """Sums of windows, each divided by what the whole operation divides that cell by."""
    if not _cells_last(plan, step, frames):
        return None
    args, kwargs, frame = step.args, step.kwargs, frames[0]
    kernel = pair(argument(args, kwargs, 1, "kernel_size", 1))
    stride = pair(argument(args, kwargs, 2, "stride", kernel) or kernel)
    padding, ceil = pair(argument(args, kwargs, 3, "padding", 0)), argument(args, kwargs, 4, "ceil_mode", False)
    counted = argument(args, kwargs, 5, "count_include_pad", True)
    divisor = argument(args, kwargs, 6, "divisor_override", None)
    ones = torch.ones(1, 1, *plan.frames[step.inputs[0]].length, dtype=torch.float64)
    share = F.avg_pool2d(ones, kernel, stride, padding, ceil, counted, divisor)
    share = share / F.avg_pool2d(ones, kernel, stride, padding, ceil, counted, 1)  # [1 1 h w]: one over the divisor
    alike = float(share.amin()) == float(share.amax())

    def apply(block: Tensor, run: BatchState) -> Tensor:
        sums = F.avg_pool2d(block, kernel, stride, divisor_override=1)
        if alike:
            return sums.mul_(float(share[0, 0, 0, 0]))
        (h, w), factor = frame.size, share.to(block)
        cut = [
            factor[0, :, frame.tops[r] : frame.tops[r] + h, frame.lefts[c] : frame.lefts[c] + w]
            for r, c in zip(run.rows, run.columns, strict=True)
        ]
        return sums.mul_(torch.stack(cut))

    return _sliding(plan, step, frame, kernel, stride, padding, (1, 1), 0.0, apply)


def unchanged_pool(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """An adaptive pool from a map to one of the same size changes nothing."""
    if plan.shapes[step.inputs[0]] != plan.shapes[step.outputs[0]]:
        return None
    aliased(plan, step)
    return lambda run: [run.values[step.inputs[0]]]


def pad(plan: IncrementalPlan, step: Step, frames: list[DirtyRegion], place: int) -> Operate | None:
    """Padding with a constant: the windows lie elsewhere, and what is around them stays as it was."""
    value, frame = step.inputs[0], frames[0]
    sides = [*argument(step.args, step.kwargs, 1, "pad", ())]
    if not _cells_last(plan, step, frames) or len(sides) > 4 or any(side < 0 for side in sides):
        return None
    fill = argument(step.args, step.kwargs, 3, "value", 0.0)
    left, right, top, bottom = (sides + [0] * 4)[:4]
    plan.reads.add(value)
    aliased(plan, step)

    def operate(run: BatchState) -> list[Tensor]:
        tops, lefts = [frame.tops[r] for r in run.rows], [frame.lefts[c] for c in run.columns]
        return [run.block(value, tops, lefts, frame.size, (left, right, top, bottom), float(fill))]

    return operate
