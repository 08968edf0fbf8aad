"""How each operation is run on many whole pictures at once, where windows end."""

from __future__ import annotations

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.occlusion.incremental_plan import BatchState, IncrementalPlan, Operate
from vizapp.engine.occlusion.pointwise_rules import (
    JOINING,
    POINTWISE,
    SAME,
    TWO,
    aliased,
    constant_norm,
    drops,
    mapped,
    passed_on,
)
from vizapp.engine.occlusion.view_rules import VIEWS
from vizapp.engine.trace.recording import Step, ValueRef, bind

Shapes = list[tuple[int, ...]]
_FRESH = frozenset({
    "conv2d", "batch_norm", "linear", "max_pool2d", "avg_pool2d", "layer_norm", "add", "cat", "local_response_norm",
})  # fmt: skip
_BATCHED = frozenset({
    "conv2d", "conv_transpose2d", "batch_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
    "local_response_norm", "interpolate", "group_norm", "instance_norm", "pixel_shuffle", "pixel_unshuffle",
})  # fmt: skip


def whole_rule(plan: IncrementalPlan, step: Step, place: int) -> Operate:
    """How to run the step on many whole pictures at once."""
    pooled = _pooled(plan, step)
    if pooled is not None:
        return pooled
    constant_norm(step)
    framed = [value for value in step.inputs if value in plan.frames]
    plan.reads.update(framed)
    base = step.operation.rstrip("_")
    alone = len(step.inputs) == 1 and not framed
    if alone and base in SAME and not drops(step):
        passed_on(plan, step, place)
        return lambda run: [run.values[step.inputs[0]]]
    if alone and base in POINTWISE and plan.shapes[step.inputs[0]] == plan.shapes[step.outputs[0]]:
        return mapped(plan, step, place)
    if base in _FRESH:
        plan.fresh.update(step.outputs)
    else:
        aliased(plan, step)
    if (
        base in VIEWS
        and len(step.inputs) == 1
        and plan.shapes[step.inputs[0]][:1] == plan.shapes[step.outputs[0]][:1] == (1,)
    ):
        return lambda run: [run.whole(step.inputs[0]).reshape(run.occluders, *plan.shapes[step.outputs[0]][1:])]
    run_it = _directly if _takes_batches(step, plan.shapes) else _one_by_one
    return run_it(step, plan.shapes)


def _directly(step: Step, shapes: Shapes) -> Operate:
    writes, numbers = "writes" in step.ctx, tuple(dict.fromkeys(step.inputs))

    def operate(run: BatchState) -> list[Tensor]:
        given = {value: run.whole(value) for value in numbers}
        if writes:
            given[numbers[0]] = given[numbers[0]].clone()
        output = step.function(*bind(step.args, given), **bind(step.kwargs, given))
        return list(tensors_in(output))

    return operate


def _one_by_one(step: Step, shapes: Shapes) -> Operate:
    """Each picture on its own, as it was written down, by `vmap`."""
    numbers = tuple(dict.fromkeys(step.inputs))

    def single(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = {value: tensor.clone() for value, tensor in zip(numbers, tensors, strict=True)}
        args = bind(step.args, given)
        output = step.function(*args, **bind(step.kwargs, given))
        return tuple(tensors_in(args[0] if step.operation == "setitem" else output))

    def operate(run: BatchState) -> list[Tensor]:
        given = [_with_axis(run.whole(value), shapes[value]) for value in numbers]
        results = torch.vmap(single)(*given)
        return [_without_axis(r, shapes[v]) for r, v in zip(results, step.outputs, strict=True)]

    return operate


def _with_axis(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor.unsqueeze(1) if shape[:1] == (1,) else tensor


def _without_axis(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor.squeeze(1) if shape[:1] == (1,) else tensor


def _takes_batches(step: Step, shapes: Shapes) -> bool:
    """Whether the function does with `[N …]` what it did with `[1 …]`, for each of the N."""
    base, given = step.operation.rstrip("_"), [shapes[value] for value in step.inputs]
    results = [shapes[value] for value in step.outputs]
    if any(shape[:1] != (1,) for shape in [*given, *results]):
        return False
    rank = len(given[0])
    if base in _BATCHED:
        return len(given) == 1 and rank == 4
    if base in POINTWISE | SAME:
        return len(given) == 1 and given == results
    if base == "linear" or base == "layer_norm":
        return len(given) == 1 and rank > 1
    if base in TWO:
        constants = list(tensors_in((step.args, step.kwargs)))
        return all(len(shape) == len(results[0]) for shape in given) and all(c.ndim <= rank for c in constants)
    if base in JOINING:
        parts = argument(step.args, step.kwargs, 0, "tensors", ())
        return argument(step.args, step.kwargs, 1, "dim", 0) % rank != 0 and all(isinstance(p, ValueRef) for p in parts)
    if base in {"mean", "sum", "amax", "amin"}:
        dims = argument(step.args, step.kwargs, 1, "dim", None)
        dims = (dims,) if isinstance(dims, int) and not isinstance(dims, bool) else dims
        return isinstance(dims, (tuple, list)) and len(given) == 1 and all(dim % rank for dim in dims)
    if base == "permute":
        dims = argument(step.args, step.kwargs, 1, "dims", ())
        return (step.args[1:] if isinstance(dims, int) else dims)[0] == 0
    if base in {"softmax", "log_softmax"}:
        dim = argument(step.args, step.kwargs, 1, "dim", None)
        return isinstance(dim, int) and dim % rank != 0
    return False


def _pooled(plan: IncrementalPlan, step: Step) -> Operate | None:
    """The mean over all cells: the clean one, and what the windows add to it."""
    value = step.inputs[0]
    frame = plan.frames.get(value)
    if frame is None or len(step.inputs) != 1 or frame.axes != (2, 3) or len(plan.shapes[value]) != 4:
        return None
    shape = plan.shapes[step.outputs[0]]
    dims = argument(step.args, step.kwargs, 1, "dim", ()) if step.operation == "mean" else ()
    mean = step.operation == "mean" and isinstance(dims, (tuple, list)) and sorted(dim % 4 for dim in dims) == [2, 3]
    if not mean and not (step.operation == "adaptive_avg_pool2d" and shape[2:] == (1, 1)):
        return None
    cells = frame.length[0] * frame.length[1]
    h, w = frame.size
    plan.reads.add(value)

    def operate(run: BatchState) -> list[Tensor]:
        clean, window = plan.clean[value], run.values[value]
        before = torch.stack([
            clean[p, :, frame.tops[r] : frame.tops[r] + h, frame.lefts[c] : frame.lefts[c] + w].sum((1, 2))
            for p, r, c in zip(run.pictures, run.rows, run.columns, strict=True)
        ])  # [N C]  # fmt: skip
        change = (window.to(clean.dtype).sum((2, 3)) - before) / cells
        return [(clean.mean((2, 3))[run.pictures] + change).reshape(run.occluders, *shape[1:])]

    return operate
