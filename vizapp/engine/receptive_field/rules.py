"""How each torch operation propagates receptive fields: one short rule per family of operations.

A rule gets the arguments, the shape and field of each input that depends on the image, and the shape of the result. It
returns the field of the result, or None for irregular cases, whose result sees everything that its inputs see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair
from vizapp.engine.receptive_field.interval import NOTHING, Interval, Ints, ReceptiveField

Shape = tuple[int, ...]
Given = list[tuple[Shape, ReceptiveField]]  # shape and field of each input that depends on the image


def field_after(
    operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], given: Given, shape: Shape
) -> ReceptiveField:
    """The receptive field of the result of an operation.

    Args:
        operation: Name of the torch function; a trailing underscore (in place) is ignored.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        given: Shape and field of each input that depends on the image, at least one.
        shape: Shape of the result.
    """
    operation = operation.rstrip("_")
    if operation in _RULES:
        result = _RULES[operation](args, kwargs, given, shape)
        if result is not None:
            if operation in _JOINING or len(given) == 1:
                return result
            others = full_field(given[1:])  # weights computed from the image, say: each cell depends on all of them
            return ReceptiveField(_union([result.rows, others.rows]), _union([result.columns, others.columns]))
    elif operation not in _MIXING:
        result = _elementwise(given, shape)
        if result is not None:
            return result
    return full_field(given)


def _elementwise(given: Given, shape: Shape) -> ReceptiveField | None:
    """Element by element, with broadcasting; None when an input with cells does not fit the result's shape."""
    spans: tuple[list[Interval], list[Interval]] = [], []
    for input_shape, field in given:
        for direction, span in zip(spans, (field.rows, field.columns), strict=True):
            axis = None if span.axis is None else span.axis + len(shape) - len(input_shape)
            if axis is None or (0 <= axis < len(shape) and shape[axis] == len(span.low)):
                direction.append(replace(span, axis=axis))
            elif len(span.low) == 1:
                direction.append(span.merged())
            else:
                return None
    return ReceptiveField(_union(spans[0]), _union(spans[1]))


def _union(spans: Sequence[Interval]) -> Interval:
    """What any of the branches sees. Branches without the axis are seen from every index."""
    axes = {span.axis for span in spans if span.axis is not None}
    if len(axes) > 1:
        spans = [span.merged() for span in spans]
    axis = axes.pop() if len(axes) == 1 else None
    low = np.minimum.reduce(np.broadcast_arrays(*(span.low for span in spans)))
    high = np.maximum.reduce(np.broadcast_arrays(*(span.high for span in spans)))
    start = size = step = None
    steps = {span.step for span in spans}
    if len(steps) == 1 and None not in steps:
        step = spans[0].step
        starts = [span.start for span in spans if span.start is not None]
        ends = [span.start + span.size for span in spans if span.start is not None and span.size is not None]
        start, size = min(starts), max(ends) - min(starts)
    return Interval(axis, low, high, start, size, step)


def full_field(given: Given) -> ReceptiveField:
    """The field of a result of which every cell may depend on every cell of every input."""
    merged = [field.map(Interval.merged) for _, field in given]
    return ReceptiveField(_union([field.rows for field in merged]), _union([field.columns for field in merged]))


def _window(span: Interval, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Interval:
    taps = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel)[None] * dilation  # [outputs kernel]
    exists = (taps >= 0) & (taps < len(span.low))
    taps = taps.clip(0, len(span.low) - 1)
    low = np.where(exists, span.low[taps], NOTHING).min(1)
    high = np.where(exists, span.high[taps], 0).max(1)
    if not span.is_regular:
        return Interval(span.axis, low, high)
    start, size, step = span.regular()
    return Interval(span.axis, low, high, start - padding * step, size + (kernel - 1) * dilation * step, step * stride)


def _cells_last(given: Given) -> ReceptiveField | None:
    """The field of the first input if its rows and columns are its last two axes."""
    shape, field = given[0]
    fits = field.rows.axis == len(shape) - 2 and field.columns.axis == len(shape) - 1
    return field if fits else None


def _windows(
    field: ReceptiveField, shape: Shape, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> ReceptiveField:
    down, across = zip(*map(pair, (kernel, stride, padding, dilation)), strict=True)
    return ReceptiveField(_window(field.rows, shape[-2], *down), _window(field.columns, shape[-1], *across))


def _convolution(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    field = _cells_last(given)
    if field is None:
        return None
    kernel = argument(args, kwargs, 1, "weight", None).shape[-2:]
    stride, dilation = argument(args, kwargs, 3, "stride", 1), argument(args, kwargs, 5, "dilation", 1)
    padding = argument(args, kwargs, 4, "padding", 0)
    if padding == "valid":
        padding = 0
    elif padding == "same":  # torch pads the odd pixel at the end
        padding = tuple(d * (k - 1) // 2 for d, k in zip(pair(dilation), kernel, strict=True))
    return _windows(field, shape, tuple(kernel), stride, padding, dilation)


def _max_pool(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    field, kernel = _cells_last(given), argument(args, kwargs, 1, "kernel_size", 1)
    stride = argument(args, kwargs, 2, "stride", kernel) or kernel
    padding, dilation = argument(args, kwargs, 3, "padding", 0), argument(args, kwargs, 4, "dilation", 1)
    return None if field is None else _windows(field, shape, kernel, stride, padding, dilation)


def _average_pool(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    field, kernel = _cells_last(given), argument(args, kwargs, 1, "kernel_size", 1)
    stride, padding = argument(args, kwargs, 2, "stride", kernel) or kernel, argument(args, kwargs, 3, "padding", 0)
    return None if field is None else _windows(field, shape, kernel, stride, padding, 1)


def _resized(span: Interval, outputs: int, bins: Callable[[int, int], tuple[Ints, Ints]]) -> Interval:
    """Each output index sees the input indices `first:last` that `bins(inputs, outputs)` returns."""
    first, last = bins(len(span.low), outputs)
    low = np.array([span.low[a:b].min() for a, b in zip(first, last, strict=True)])
    high = np.array([span.high[a:b].max() for a, b in zip(first, last, strict=True)])
    widths, steps = set((last - first).tolist()), set(np.diff(first).tolist())
    if not span.is_regular or len(widths) != 1 or len(steps) > 1:
        return Interval(span.axis, low, high)
    start, size, step = span.regular()
    size += step * (widths.pop() - 1)
    return Interval(span.axis, low, high, start + step * int(first[0]), size, step * (steps.pop() if steps else 0))


def _resized_field(
    field: ReceptiveField, shape: Shape, bins: Callable[[int, int], tuple[Ints, Ints]]
) -> ReceptiveField:
    return ReceptiveField(_resized(field.rows, shape[-2], bins), _resized(field.columns, shape[-1], bins))


def _adaptive_bins(inputs: int, outputs: int) -> tuple[Ints, Ints]:
    index = np.arange(outputs)
    return index * inputs // outputs, -(-(index + 1) * inputs // outputs)


def _adaptive_pool(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    field = _cells_last(given)
    return None if field is None else _resized_field(field, shape, _adaptive_bins)


def _interpolate(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    field = _cells_last(given)
    mode, aligned = argument(args, kwargs, 3, "mode", "nearest"), argument(args, kwargs, 4, "align_corners", False)
    if field is None or mode not in {"nearest", "nearest-exact", "bilinear"}:
        return None

    def bins(inputs: int, outputs: int) -> tuple[Ints, Ints]:
        index, ratio = np.arange(outputs), inputs / outputs
        if mode == "bilinear":
            at = index * ((inputs - 1) / max(outputs - 1, 1)) if aligned else ((index + 0.5) * ratio - 0.5).clip(0)
            first = np.floor(at).astype(np.int64)
            return first, np.where(at > first, first + 2, first + 1).clip(max=inputs)
        centre = 0.5 if mode == "nearest-exact" else 0
        first = np.floor((index + centre) * ratio).astype(np.int64).clip(max=inputs - 1)
        return first, first + 1

    return _resized_field(field, shape, bins)


def _reordered(field: ReceptiveField, order: Sequence[int]) -> ReceptiveField:
    """The field after axes were reordered: `order[i]` is the old axis that is now axis i."""
    return field.map(lambda span: span if span.axis is None else replace(span, axis=order.index(span.axis)))


def _permute(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    dims = argument(args, kwargs, 1, "dims", ())
    dims = args[1:] if isinstance(dims, int) else dims
    return _reordered(given[0][1], [dim % len(shape) for dim in dims])


def _transpose(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    order = list(range(len(shape)))
    a, b = argument(args, kwargs, 1, "dim0", 0), argument(args, kwargs, 2, "dim1", 1)
    order[a], order[b] = order[b], order[a]
    return _reordered(given[0][1], order)


def _reshape(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    """A reshape keeps an axis if the axes after it (and so those before it) keep their total size."""
    before, field = given[0]

    def keep(span: Interval) -> Interval:
        if span.axis is None:
            return span
        behind, length = math.prod(before[span.axis + 1 :]), before[span.axis]
        for axis, extent in enumerate(shape):
            if extent == length and math.prod(shape[axis + 1 :]) == behind and length > 1:
                return replace(span, axis=axis)
        return span.merged()

    return field.map(keep)


def _reduce(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    """Mean, sum and the like over some axes: a reduced axis merges."""
    before, field = given[0]
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if dims is None or isinstance(dims, (bool, Tensor)):
        return None
    gone = {dim % len(before) for dim in (dims if isinstance(dims, (tuple, list)) else (dims,))}
    kept = len(before) == len(shape)

    def reduce(span: Interval) -> Interval:
        if span.axis is None:
            return span
        if span.axis in gone:
            return replace(span.merged(), axis=span.axis if kept else None)
        return span if kept else replace(span, axis=span.axis - sum(dim < span.axis for dim in gone))

    return field.map(reduce)


def _along(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    """Softmax and cumulative sums: one axis is mixed with itself."""
    before, field = given[0]
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return _mix_axes(field, before, {dim % len(before)}) if isinstance(dim, int) else None


def _mix_axes(field: ReceptiveField, shape: Shape, mixed: set[int]) -> ReceptiveField:
    def mix(span: Interval) -> Interval:
        if span.axis is None or span.axis not in mixed:
            return span
        seen, count = span.merged(), shape[span.axis]
        return Interval(span.axis, seen.low.repeat(count), seen.high.repeat(count))

    return field.map(mix)


def _layer_norm(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    rank = len(argument(args, kwargs, 1, "normalized_shape", shape[1:]))
    return _mix_axes(given[0][1], shape, set(range(len(shape) - rank, len(shape))))


def _group_norm(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    return _mix_axes(given[0][1], shape, set(range(1, len(shape))))


def _batch_norm(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    """Element by element with running statistics; over all cells with the statistics of the batch."""
    if argument(args, kwargs, 5, "training", False):
        return _mix_axes(given[0][1], shape, {*range(len(shape))} - {1})
    return _elementwise(given[:1], shape)


def _linear(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    """A linear layer mixes the last axis only: a 1x1 convolution where channels come last, as in Swin."""
    return _unless_along(given[0][1], len(shape) - 1)


def _unless_along(field: ReceptiveField, axis: int) -> ReceptiveField | None:
    return None if axis in (field.rows.axis, field.columns.axis) else field


def _cat(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    tensors = argument(args, kwargs, 0, "tensors", ())
    dim = argument(args, kwargs, 1, "dim", 0) % len(shape)
    spatial = {axis for _, field in given for axis in (field.rows.axis, field.columns.axis)}
    if dim not in spatial:
        return _elementwise([((*s[:dim], shape[dim], *s[dim + 1 :]), f) for s, f in given], shape)
    if len(given) != len(tensors) or any(field.rows.axis != given[0][1].rows.axis for _, field in given):
        return None

    def join(spans: list[Interval]) -> Interval:
        if spans[0].axis != dim:
            return _union(spans)
        return Interval(dim, np.concatenate([s.low for s in spans]), np.concatenate([s.high for s in spans]))

    return ReceptiveField(join([field.rows for _, field in given]), join([field.columns for _, field in given]))


def _getitem(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    """Basic slicing; indexing with a tensor or a list counts as mixing everything."""
    before, field = given[0]
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if any(not (item is None or item is Ellipsis or isinstance(item, (int, slice))) for item in index):
        return None
    named = sum(item is not None and item is not Ellipsis for item in index)
    full: list[Any] = []
    for item in index:
        full += [slice(None)] * (len(before) - named) if item is Ellipsis else [item]
    full += [slice(None)] * (len(before) - sum(item is not None for item in full))
    where: dict[int, tuple[int | None, Any]] = {}  # old axis -> new axis, index
    old = new = 0
    for item in full:
        if item is None:
            new += 1
            continue
        where[old] = (None if isinstance(item, int) else new, item)
        old, new = old + 1, new + (0 if isinstance(item, int) else 1)

    def pick(span: Interval) -> Interval:
        if span.axis is None:
            return span
        axis, item = where[span.axis]
        if item == slice(None):
            return replace(span, axis=axis)
        chosen = np.arange(len(span.low))[item]
        if isinstance(item, int):
            first, size = span.unclipped(item)[0], span.size
            return Interval(None, span.low[[chosen]], span.high[[chosen]], first, size, 0 if size is not None else None)
        if len(chosen) == 0:
            return span.merged()
        start = span.unclipped(int(chosen[0]))[0] if span.step is not None else None
        step = span.step * (item.step or 1) if span.step is not None else None
        return Interval(axis, span.low[chosen], span.high[chosen], start, span.size, step)

    return field.map(pick)


def _split(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    return _unless_along(given[0][1], argument(args, kwargs, 2, "dim", 0) % len(given[0][0]))


def _unsqueeze(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    return _with_new_axis(given[0][1], shape, argument(args, kwargs, 1, "dim", 0))


def _with_new_axis(field: ReceptiveField, shape: Shape, dim: int) -> ReceptiveField:
    order = list(range(len(shape) - 1))
    order.insert(dim % len(shape), -1)
    return _reordered(field, order)


def _pad(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    """Constant padding is a 1 × 1 window. Other modes repeat cells: None."""
    field, sides = _cells_last(given), list(argument(args, kwargs, 1, "pad", ()))
    if field is None or argument(args, kwargs, 2, "mode", "constant") != "constant" or any(v < 0 for v in sides[:4]):
        return None
    sides += [0] * (4 - len(sides))
    return ReceptiveField(
        _window(field.rows, shape[-2], 1, 1, sides[2], 1), _window(field.columns, shape[-1], 1, 1, sides[0], 1)
    )


def _stack(args: Any, kwargs: Any, given: Given, shape: Shape) -> ReceptiveField | None:
    dim = argument(args, kwargs, 1, "dim", 0)
    return _elementwise([(shape, _with_new_axis(field, shape, dim)) for _, field in given], shape)


_Rule = Callable[[tuple[Any, ...], dict[str, Any], Given, Shape], "ReceptiveField | None"]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(["conv2d", "_conv_forward"], _convolution),
    **dict.fromkeys(["max_pool2d", "max_pool2d_with_indices", "_max_pool2d"], _max_pool),
    "avg_pool2d": _average_pool,
    **dict.fromkeys(["adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices"], _adaptive_pool),
    **dict.fromkeys(["interpolate", "upsample"], _interpolate),
    "permute": _permute,
    **dict.fromkeys(["transpose", "swapaxes"], _transpose),
    **dict.fromkeys(["reshape", "view", "flatten", "unflatten", "squeeze"], _reshape),
    **dict.fromkeys(["mean", "sum", "amax", "amin", "norm", "std", "var"], _reduce),
    **dict.fromkeys(["softmax", "log_softmax", "cumsum"], _along),
    "layer_norm": _layer_norm,
    **dict.fromkeys(["group_norm", "instance_norm"], _group_norm),
    "batch_norm": _batch_norm,
    "linear": _linear,
    **dict.fromkeys(["cat", "concat", "concatenate"], _cat),
    "stack": _stack,
    "getitem": _getitem,
    **dict.fromkeys(["chunk", "split", "tensor_split"], _split),
    "unsqueeze": _unsqueeze,
    "pad": _pad,
}
_JOINING = frozenset({"cat", "concat", "concatenate", "stack"})  # their rules take all inputs into account
# Operations that may keep the shape but mix or move cells.
_MIXING = frozenset({
    "matmul", "bmm", "mm", "einsum", "scaled_dot_product_attention", "multi_head_attention_forward", "roll", "flip",
    "baddbmm", "addmm", "sort", "fft2", "ifft2", "rfft2", "gather", "index_select", "grid_sample", "conv_transpose2d",
    "unfold", "fold", "pixel_shuffle", "conv1d", "conv3d",
})  # fmt: skip
