"""Operations on whole maps of many occluded pictures at once, after the windows end."""

from __future__ import annotations

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.occlusion.fused_convolutions import CONVOLUTION_AND_SUM
from vizapp.engine.occlusion.incremental_plan import BatchState, Get, IncrementalPlan, Operate
from vizapp.engine.occlusion.pointwise_rules import (
    BINARY,
    CONCATENATIONS,
    IDENTITIES,
    POINTWISE,
    is_active_dropout,
    mark_aliased,
    pass_on,
    refuse_batch_statistics,
    run_on_tensor,
)
from vizapp.engine.occlusion.view_rules import VIEWS, reads_bits
from vizapp.engine.trace.recording import Step, ValueRef, bind

Shapes = list[tuple[int, ...]]
_FRESH = frozenset({
    "conv2d", CONVOLUTION_AND_SUM, "batch_norm", "linear", "max_pool2d", "avg_pool2d", "layer_norm", "add", "cat",
    "local_response_norm",
})  # fmt: skip
_BATCHED = frozenset({
    "conv2d", "conv_transpose2d", "batch_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
    "local_response_norm", "interpolate", "group_norm", "instance_norm", "pixel_shuffle", "pixel_unshuffle",
})  # fmt: skip


def whole_rule(plan: IncrementalPlan, step: Step, position: int) -> Operate:
    """How to run the step on many whole pictures at once."""
    pooled = _global_pool(plan, step)
    if pooled is not None:
        return pooled
    refuse_batch_statistics(step)
    framed = [value for value in step.inputs if value in plan.regions]
    base = step.operation.rstrip("_")
    alone = len(step.inputs) == 1 and not framed
    if alone and base in IDENTITIES and not is_active_dropout(step):
        pass_on(plan, step, position)
        return lambda state: [state.values[step.inputs[0]]]
    if alone and base in POINTWISE and plan.shapes[step.inputs[0]] == plan.shapes[step.outputs[0]]:
        return run_on_tensor(plan, step, position)
    if base in _FRESH:
        plan.fresh.update(step.outputs)
    else:
        mark_aliased(plan, step)
    single = plan.shapes[step.inputs[0]][:1] == plan.shapes[step.outputs[0]][:1] == (1,)
    if base in VIEWS and len(step.inputs) == 1 and single and not reads_bits(step):
        get, shape = plan.on_whole_map(step.inputs[0]), plan.shapes[step.outputs[0]][1:]
        return lambda state: [(given := get(state)).reshape(len(given), *shape)]
    gets = {value: plan.on_whole_map(value) for value in step.inputs}
    return _directly(step, gets) if _takes_batches(step, plan.shapes) else _one_by_one(step, gets, plan.shapes)


def _directly(step: Step, gets: dict[int, Get]) -> Operate:
    writes, first = "writes" in step.ctx, step.inputs[0]

    def operate(state: BatchState) -> list[Tensor]:
        given = {value: get(state) for value, get in gets.items()}
        if writes:
            given[first] = given[first].clone()
        output = step.function(*bind(step.args, given), **bind(step.kwargs, given))
        return list(tensors_in(output))

    return operate


def _one_by_one(step: Step, gets: dict[int, Get], shapes: Shapes) -> Operate:
    """Each picture on its own, as it was recorded, with `vmap`."""

    def single(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = {value: tensor.clone() for value, tensor in zip(gets, tensors, strict=True)}
        args = bind(step.args, given)
        output = step.function(*args, **bind(step.kwargs, given))
        return tuple(tensors_in(args[0] if step.operation == "setitem" else output))

    def operate(state: BatchState) -> list[Tensor]:
        given = [_with_axis(get(state), shapes[value]) for value, get in gets.items()]
        results = torch.vmap(single)(*given)
        return [_without_axis(r, shapes[v]) for r, v in zip(results, step.outputs, strict=True)]

    return operate


def _with_axis(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor.unsqueeze(1) if shape[:1] == (1,) else tensor


def _without_axis(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor.squeeze(1) if shape[:1] == (1,) else tensor


def _takes_batches(step: Step, shapes: Shapes) -> bool:
    """Whether the function treats each of `[N …]` as it treated `[1 …]`."""
    base, given = step.operation.rstrip("_"), [shapes[value] for value in step.inputs]
    results = [shapes[value] for value in step.outputs]
    if any(shape[:1] != (1,) for shape in [*given, *results]):
        return False
    rank = len(given[0])
    if base == CONVOLUTION_AND_SUM:
        return True
    if base in _BATCHED:
        return len(given) == 1 and rank == 4
    if base in POINTWISE | IDENTITIES:
        return len(given) == 1 and given == results
    if base == "linear" or base == "layer_norm":
        return len(given) == 1 and rank > 1
    if base in BINARY:
        constants = list(tensors_in((step.args, step.kwargs)))
        return all(len(shape) == len(results[0]) for shape in given) and all(c.ndim <= rank for c in constants)
    if base in CONCATENATIONS:
        parts = argument(step.args, step.kwargs, 0, "tensors", ())
        return argument(step.args, step.kwargs, 1, "dim", 0) % rank != 0 and all(isinstance(p, ValueRef) for p in parts)
    if base in {"mean", "sum", "amax", "amin"}:
        dims = argument(step.args, step.kwargs, 1, "dim", None)
        dims = (dims,) if isinstance(dims, int) and not isinstance(dims, bool) else dims
        return isinstance(dims, (tuple, list)) and len(given) == 1 and bool(dims) and all(dim % rank for dim in dims)
    if base == "permute":
        dims = argument(step.args, step.kwargs, 1, "dims", ())
        return (step.args[1:] if isinstance(dims, int) else dims)[0] == 0
    if base in {"softmax", "log_softmax"}:
        dim = argument(step.args, step.kwargs, 1, "dim", None)
        return isinstance(dim, int) and dim % rank != 0
    return False


def _global_pool(plan: IncrementalPlan, step: Step) -> Operate | None:
    """The mean over all cells: the clean mean plus the change in the windows."""
    value = step.inputs[0]
    region = plan.regions.get(value)
    if region is None or len(step.inputs) != 1 or region.axes != (2, 3) or len(plan.shapes[value]) != 4:
        return None
    shape = plan.shapes[step.outputs[0]]
    dims = argument(step.args, step.kwargs, 1, "dim", ()) if step.operation == "mean" else ()
    mean = step.operation == "mean" and isinstance(dims, (tuple, list)) and sorted(dim % 4 for dim in dims) == [2, 3]
    if not mean and not (step.operation == "adaptive_avg_pool2d" and shape[2:] == (1, 1)):
        return None
    cells = region.length[0] * region.length[1]
    before = plan.clean_windows(value)

    def operate(state: BatchState) -> list[Tensor]:
        clean, window, derived = state.clean.values[value], state.values[value], state.clean.derived
        if (value, "mean") not in derived:
            derived[value, "mean"] = clean.mean((2, 3))
        change = (window.to(clean.dtype) - before(state)).sum((2, 3)) / cells
        mean = derived[value, "mean"].index_select(0, state.pictures)
        return [(mean + change).reshape(len(state.occluders), *shape[1:])]

    return operate
