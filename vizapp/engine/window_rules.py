"""How each operation is run on windows, and how on many whole pictures at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.field_rules import argument, pair
from vizapp.engine.fields import tensors_in
from vizapp.engine.script import Unrepeatable
from vizapp.engine.tape import Slot, Step, filled
from vizapp.engine.windows import Frame, Operate, Plan, Run

Shapes = list[tuple[int, ...]]
POINTWISE = frozenset({
    "relu", "relu6", "hardtanh", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "threshold", "clamp", "clamp_min", "clamp_max",
    "neg", "abs", "exp", "sqrt", "square", "rsqrt", "float", "double", "type_as",
})  # fmt: skip
CASTS = frozenset({"float", "double", "type_as"})  # may give back what they got
SAME = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "contiguous",
    "clone", "detach",
})  # fmt: skip
JOINING = frozenset({"cat", "concat", "concatenate"})
TWO = frozenset({"add", "sub", "mul", "truediv", "maximum", "minimum"})
FRESH = frozenset({
    "conv2d", "batch_norm", "linear", "max_pool2d", "avg_pool2d", "layer_norm", "add", "cat", "local_response_norm",
})  # fmt: skip
_VIEWS = frozenset({"view", "reshape", "flatten", "unflatten"})


def window_rule(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """How to run the step on windows; None where it has to be run on whole maps. `frames`: its results' windows."""
    base = step.operation.rstrip("_")
    make = _RULES.get(base)
    if make is None or len(frames) != len(step.outputs):
        return None
    return make(plan, step, frames, place)


# --------------------------------------------------------------------------------------------------- cell by cell


def _owned(plan: Plan, step: Step, place: int) -> bool:
    """Whether the step may write over its input: nobody else has it."""
    value = step.inputs[0]
    return plan.last_use[value] == place and value in plan.fresh


def _pointwise(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    value, frame = step.inputs[0], frames[0]
    if len(step.inputs) != 1 or len(frames) != 1 or plan.shapes[value] != plan.shapes[step.outputs[0]]:
        return None
    by_channel = step.operation == "prelu" and 1 not in frame.axes
    if not plan.frames[value].same_place(frame) or not (by_channel or _constants_fit(step, plan.shapes[value], frame)):
        return None
    return _mapped(plan, step, place)


def _mapped(plan: Plan, step: Step, place: int) -> Operate:
    """Run the function on whatever the value's tensor is; over it where that is harmless."""
    value, owned = step.inputs[0], _owned(plan, step, place)
    base = step.operation.rstrip("_")
    if base in CASTS:
        _aliased(plan, step)
    else:
        plan.fresh.update(step.outputs)
    if base == "relu":
        return lambda run: [run.values[value].relu_() if owned else run.values[value].relu()]
    writes = "writes" in step.saved

    def operate(run: Run) -> list[Tensor]:
        given = run.values[value]
        given = given.clone() if writes and not owned else given
        args, kwargs = filled(step.args, {value: given}), filled(step.kwargs, {value: given})
        return [step.function(*args, **kwargs)]

    return operate


def _aliased(plan: Plan, step: Step) -> None:
    """The step's results may share memory with its inputs: nothing is written over either."""
    plan.fresh.difference_update(step.inputs, step.outputs)


def _constants_fit(step: Step, shape: tuple[int, ...], frame: Frame) -> bool:
    """Whether every constant tensor among the arguments is the same for all cells."""
    for constant in tensors_in((step.args, step.kwargs)):
        for axis in frame.axes:
            behind = len(shape) - axis
            if constant.ndim >= behind and constant.shape[-behind] != 1 and constant.ndim > 0:
                return False
    return True


def _same(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    value = step.inputs[0]
    if len(step.inputs) != 1 or _drops(step):
        return None
    if value in plan.frames and not (frames and plan.frames[value].same_place(frames[0])):
        return None
    _passed_on(plan, step, place)
    return lambda run: [run.values[value]]


def _drops(step: Step) -> bool:
    """A dropout that is at work outside of training."""
    return "dropout" in step.operation and argument(step.args, step.kwargs, 2, "training", False) is True


def _passed_on(plan: Plan, step: Step, place: int) -> None:
    """The result is the input's memory; it may be written over if nobody else reads the input."""
    if _owned(plan, step, place):
        plan.fresh.update(step.outputs)
    else:
        _aliased(plan, step)


def _norm(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """Batch norm with constants, local response norm across channels: cell by cell."""
    if step.operation == "batch_norm" and argument(step.args, step.kwargs, 5, "training", False):
        raise Unrepeatable("a batch norm takes its mean from the pictures that run together")
    if len(step.inputs) != 1 or frames[0].axes != (2, 3) or len(plan.shapes[step.inputs[0]]) != 4:
        return None
    return _mapped(plan, step, place)


def _last_axis(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """A linear layer or a layer norm over the last axis, where cells come first."""
    value = step.inputs[0]
    if (
        len(step.inputs) != 1
        or len(plan.shapes[value]) - 1 in frames[0].axes
        or not plan.frames[value].same_place(frames[0])
    ):
        return None
    normalised = argument(step.args, step.kwargs, 1, "normalized_shape", ())
    if step.operation == "layer_norm" and len(normalised) != 1:
        return None
    return _mapped(plan, step, place)


def _two(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """A sum or product of two values, or of one and a constant that is the same for all cells."""
    shape, frame = plan.shapes[step.outputs[0]], frames[0]
    if any(plan.shapes[value] != shape for value in step.inputs) or not _constants_fit(step, shape, frame):
        return None
    if any(plan.frames[value].axes != frame.axes for value in step.inputs):
        return None
    plan.fresh.update(step.outputs)
    return _filled_at(plan, step, frame)


def _filled_at(plan: Plan, step: Step, frame: Frame) -> Operate:
    """Run the function on all its values at the windows of a frame."""
    writes, numbers = "writes" in step.saved, tuple(dict.fromkeys(step.inputs))
    plan.reads.update(numbers)

    def operate(run: Run) -> list[Tensor]:
        given = {value: run.at(value, frame) for value in numbers}
        if writes:
            given[numbers[0]] = given[numbers[0]].clone()
        return [step.function(*filled(step.args, given), **filled(step.kwargs, given))]

    return operate


def _joined(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """A concatenation of channels."""
    frame, shape = frames[0], plan.shapes[step.outputs[0]]
    axis = argument(step.args, step.kwargs, 1, "dim", 0)
    parts = argument(step.args, step.kwargs, 0, "tensors", ())
    axis = axis % len(shape)
    if axis in (0, *frame.axes) or any(plan.frames[value].axes != frame.axes for value in step.inputs):
        return None
    if not all(isinstance(part, Slot) for part in parts):
        return None
    plan.fresh.update(step.outputs)
    order = [part.value for part in parts]
    plan.reads.update(order)
    return lambda run: [torch.cat([run.at(value, frame) for value in order], axis)]


# ------------------------------------------------------------------------------------------------------- windows


def _before(frame: Frame, kernel: Any, stride: Any, dilation: Any) -> tuple[tuple[int, int], list[int], list[int]]:
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
    plan: Plan, step: Step, frame: Frame, kernel: Any, stride: Any, padding: Any, dilation: Any, fill: float,
    apply: Callable[[Tensor, Run], Tensor],
) -> Operate:  # fmt: skip
    """Cut what the windows see out of the padded map below, and apply the operation without padding."""
    value = step.inputs[0]
    size, tops, lefts = _before(frame, kernel, stride, dilation)
    pads = _pads(padding, plan.frames[value].length, frame.length, kernel, stride, dilation)
    plan.reads.add(value)
    plan.fresh.update(step.outputs)

    def operate(run: Run) -> list[Tensor]:
        block = run.block(value, [tops[r] for r in run.rows], [lefts[c] for c in run.columns], size, pads, fill)
        return [apply(block, run)]

    return operate


def _convolution(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
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

    def apply(block: Tensor, run: Run) -> Tensor:
        return F.conv2d(block, weight, bias, stride, 0, dilation, groups)

    return _sliding(plan, step, frames[0], kernel, stride, padding, dilation, 0.0, apply)


def _cells_last(plan: Plan, step: Step, frames: list[Frame]) -> bool:
    return (
        len(step.inputs) == len(step.outputs) == 1
        and len(plan.shapes[step.inputs[0]]) == len(plan.shapes[step.outputs[0]]) == 4
        and plan.frames[step.inputs[0]].axes == frames[0].axes == (2, 3)
    )


def _max_pool(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    if not _cells_last(plan, step, frames):
        return None
    args, kwargs = step.args, step.kwargs
    kernel = pair(argument(args, kwargs, 1, "kernel_size", 1))
    stride = pair(argument(args, kwargs, 2, "stride", kernel) or kernel)
    padding, dilation = (
        pair(argument(args, kwargs, 3, "padding", 0)),
        pair(argument(args, kwargs, 4, "dilation", 1)),
    )

    def apply(block: Tensor, run: Run) -> Tensor:
        return F.max_pool2d(block, kernel, stride, 0, dilation)

    return _sliding(plan, step, frames[0], kernel, stride, padding, dilation, float("-inf"), apply)


def _average_pool(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
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

    def apply(block: Tensor, run: Run) -> Tensor:
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


def _unchanged_pool(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """An adaptive pool from a map to one of the same size changes nothing."""
    if plan.shapes[step.inputs[0]] != plan.shapes[step.outputs[0]]:
        return None
    _aliased(plan, step)
    return lambda run: [run.values[step.inputs[0]]]


# --------------------------------------------------------------------------------------------------- other places


def _pad(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """Padding with a constant: the windows lie elsewhere, and what is around them stays as it was."""
    value, frame = step.inputs[0], frames[0]
    sides = [*argument(step.args, step.kwargs, 1, "pad", ())]
    if not _cells_last(plan, step, frames) or len(sides) > 4 or any(side < 0 for side in sides):
        return None
    fill = argument(step.args, step.kwargs, 3, "value", 0.0)
    left, right, top, bottom = (sides + [0] * 4)[:4]
    plan.reads.add(value)
    _aliased(plan, step)

    def operate(run: Run) -> list[Tensor]:
        tops, lefts = [frame.tops[r] for r in run.rows], [frame.lefts[c] for c in run.columns]
        return [run.block(value, tops, lefts, frame.size, (left, right, top, bottom), float(fill))]

    return operate


def _permuted(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    value = step.inputs[0]
    dims = argument(step.args, step.kwargs, 1, "dims", ())
    order = [dim % len(plan.shapes[value]) for dim in (step.args[1:] if isinstance(dims, int) else dims)]
    if order[0] != 0 or not plan.frames[value].same_place(frames[0]):
        return None
    _aliased(plan, step)
    return lambda run: [run.values[value].permute(order)]


def _transposed(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    value, count = step.inputs[0], len(plan.shapes[step.inputs[0]])
    a = argument(step.args, step.kwargs, 1, "dim0", 0) % count
    b = argument(step.args, step.kwargs, 2, "dim1", 1) % count
    if 0 in (a, b) or {a, b} == set(plan.frames[value].axes) or not plan.frames[value].same_place(frames[0]):
        return None
    _aliased(plan, step)
    return lambda run: [run.values[value].transpose(a, b)]


def _viewed(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """Channels regrouped (a channel shuffle); the cells stay what they are."""
    value, frame = step.inputs[0], frames[0]
    shape = list(plan.shapes[step.outputs[0]])
    if not plan.frames[value].same_place(frame) or plan.frames[value].length != frame.length or shape[0] != 1:
        return None
    if plan.shapes[value][0] != 1:
        return None
    shape[frame.axes[0]], shape[frame.axes[1]] = frame.size
    _aliased(plan, step)
    return lambda run: [run.values[value].reshape(run.squares, *shape[1:])]


def _picked(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """Slices of channels."""
    value, frame = step.inputs[0], frames[0]
    index = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
    if not all(isinstance(item, slice) for item in index) or not plan.frames[value].same_place(frame):
        return None
    whole = [axis >= len(index) or index[axis] == slice(None) for axis in (0, *plan.frames[value].axes)]
    if not all(whole) or plan.frames[value].axes != frame.axes:
        return None
    _aliased(plan, step)
    return lambda run: [run.values[value][index]]


def _parts(plan: Plan, step: Step, frames: list[Frame], place: int) -> Operate | None:
    """`chunk` and `split` of channels."""
    value = step.inputs[0]
    axis = argument(step.args, step.kwargs, 2, "dim", 0) % len(plan.shapes[value])
    if axis in (0, *frames[0].axes) or any(not plan.frames[value].same_place(frame) for frame in frames):
        return None
    sizes = [plan.shapes[number][axis] for number in step.outputs]
    _aliased(plan, step)
    return lambda run: list(run.values[value].split(sizes, axis))


Make = Callable[[Plan, Step, "list[Frame]", int], "Operate | None"]
_RULES: dict[str, Make] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(TWO, _two),
    **dict.fromkeys(JOINING, _joined),
    **dict.fromkeys(["batch_norm", "local_response_norm"], _norm),
    **dict.fromkeys(["linear", "layer_norm"], _last_axis),
    **dict.fromkeys(_VIEWS, _viewed),
    **dict.fromkeys(["transpose", "swapaxes"], _transposed),
    **dict.fromkeys(["chunk", "split"], _parts),
    "conv2d": _convolution,
    "max_pool2d": _max_pool,
    "avg_pool2d": _average_pool,
    "adaptive_avg_pool2d": _unchanged_pool,
    "pad": _pad,
    "permute": _permuted,
    "getitem": _picked,
}

# ------------------------------------------------------------------------------------------------------ whole maps


def whole_rule(plan: Plan, step: Step, place: int) -> Operate:
    """How to run the step on many whole pictures at once."""
    pooled = _pooled(plan, step)
    if pooled is not None:
        return pooled
    if step.operation == "batch_norm":
        _norm_is_constant(step)
    framed = [value for value in step.inputs if value in plan.frames]
    plan.reads.update(framed)
    base = step.operation.rstrip("_")
    alone = len(step.inputs) == 1 and not framed
    if alone and base in SAME and not _drops(step):
        _passed_on(plan, step, place)
        return lambda run: [run.values[step.inputs[0]]]
    if alone and base in POINTWISE and plan.shapes[step.inputs[0]] == plan.shapes[step.outputs[0]]:
        return _mapped(plan, step, place)
    if base in FRESH:
        plan.fresh.update(step.outputs)
    else:
        _aliased(plan, step)
    if (
        base in _VIEWS
        and len(step.inputs) == 1
        and plan.shapes[step.inputs[0]][:1] == plan.shapes[step.outputs[0]][:1] == (1,)
    ):
        return lambda run: [run.whole(step.inputs[0]).reshape(run.squares, *plan.shapes[step.outputs[0]][1:])]
    run_it = _directly if _takes_batches(step, plan.shapes) else _one_by_one
    return run_it(step, plan.shapes)


def _norm_is_constant(step: Step) -> None:
    if argument(step.args, step.kwargs, 5, "training", False):
        raise Unrepeatable("a batch norm takes its mean from the pictures that run together")


def _directly(step: Step, shapes: Shapes) -> Operate:
    writes, numbers = "writes" in step.saved, tuple(dict.fromkeys(step.inputs))

    def operate(run: Run) -> list[Tensor]:
        given = {value: run.whole(value) for value in numbers}
        if writes:
            given[numbers[0]] = given[numbers[0]].clone()
        output = step.function(*filled(step.args, given), **filled(step.kwargs, given))
        return list(tensors_in(output))

    return operate


def _one_by_one(step: Step, shapes: Shapes) -> Operate:
    """Each picture on its own, as it was written down, by `vmap`."""
    numbers = tuple(dict.fromkeys(step.inputs))

    def single(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = {value: tensor.clone() for value, tensor in zip(numbers, tensors, strict=True)}
        args = filled(step.args, given)
        output = step.function(*args, **filled(step.kwargs, given))
        return tuple(tensors_in(args[0] if step.operation == "setitem" else output))

    def operate(run: Run) -> list[Tensor]:
        given = [_with_axis(run.whole(value), shapes[value]) for value in numbers]
        results = torch.vmap(single)(*given)
        return [_without_axis(r, shapes[v]) for r, v in zip(results, step.outputs, strict=True)]

    return operate


def _with_axis(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor.unsqueeze(1) if shape[:1] == (1,) else tensor


def _without_axis(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor.squeeze(1) if shape[:1] == (1,) else tensor


_BATCHED = frozenset({
    "conv2d", "conv_transpose2d", "batch_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
    "local_response_norm", "interpolate", "group_norm", "instance_norm", "pixel_shuffle", "pixel_unshuffle",
})  # fmt: skip


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
        return argument(step.args, step.kwargs, 1, "dim", 0) % rank != 0 and all(isinstance(p, Slot) for p in parts)
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


def _pooled(plan: Plan, step: Step) -> Operate | None:
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

    def operate(run: Run) -> list[Tensor]:
        clean, window = plan.clean[value], run.values[value]
        before = torch.stack([
            clean[p, :, frame.tops[r] : frame.tops[r] + h, frame.lefts[c] : frame.lefts[c] + w].sum((1, 2))
            for p, r, c in zip(run.pictures, run.rows, run.columns, strict=True)
        ])  # [N C]  # fmt: skip
        change = (window.to(clean.dtype).sum((2, 3)) - before) / cells
        return [(clean.mean((2, 3))[run.pictures] + change).reshape(run.squares, *shape[1:])]

    return operate
