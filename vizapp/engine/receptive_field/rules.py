"""How each operation of torch passes receptive fields on: one short rule per family of operations.

A rule gets the operation's arguments, the shape and field of each input that depends on the picture, and the shape of
the result; it returns the field of the result, or None when its case is not a regular one, and then the result sees
all that its inputs saw.
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

Given = list[tuple[tuple[int, ...], ReceptiveField]]  # shape and field of each input that depends on the picture


def field_after(
    operation: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: Given,
    shape: tuple[int, ...],
    position: int = 0,
) -> ReceptiveField:
    """The field of result number `position`, of shape `shape`, of an operation on the `given` inputs."""
    operation = operation.rstrip("_")
    if operation in _RULES:
        result = _RULES[operation](args, kwargs, given, shape, position)
        if result is not None:
            return result if operation in _JOINING else _with_all_of(result, given[1:])
    elif operation not in _MIXING:
        result = _elementwise(given, shape)
        if result is not None:
            return result
    return full_field(given)


def _elementwise(given: Given, shape: tuple[int, ...]) -> ReceptiveField | None:
    """Cell by cell, broadcasting as torch does; None when an input with cells does not fit the result's shape."""
    directions = []
    for choose in (lambda field: field.rows, lambda field: field.columns):
        spans = []
        for input_shape, field in given:
            span: Interval = choose(field)
            if span.axis is not None:
                axis = span.axis + len(shape) - len(input_shape)
                if not 0 <= axis < len(shape) or shape[axis] != len(span.low):
                    if len(span.low) != 1:
                        return None
                    span = replace(span.merged(), axis=None)
                else:
                    span = replace(span, axis=axis)
            spans.append(span)
        directions.append(_union(spans))
    return ReceptiveField(*directions)


def _union(spans: Sequence[Interval]) -> Interval:
    """What is seen through any of the branches. Branches without the direction are seen from every index."""
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
    """The field of a result every cell of which may depend on every cell of every input."""
    return ReceptiveField(
        _union([field.rows.merged() for _, field in given]), _union([field.columns.merged() for _, field in given])
    )


def _with_all_of(field: ReceptiveField, others: Given) -> ReceptiveField:
    """The field of a result that also depends on all that weights saw which were computed from the picture."""
    if not others:
        return field
    return ReceptiveField(
        _union([field.rows, *(other.rows.merged() for _, other in others)]),
        _union([field.columns, *(other.columns.merged() for _, other in others)]),
    )


def _window(span: Interval, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Interval:
    taps = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel)[None] * dilation  # [outputs kernel]
    exists = (taps >= 0) & (taps < len(span.low))
    taps = taps.clip(0, len(span.low) - 1)
    low = np.where(exists, span.low[taps], NOTHING).min(1)
    high = np.where(exists, span.high[taps], 0).max(1)
    if span.start is None or span.step is None or span.size is None:
        return Interval(span.axis, low, high)
    start = span.start - padding * span.step
    size = span.size + (kernel - 1) * dilation * span.step
    return Interval(span.axis, low, high, start, size, span.step * stride)


def _cells_last(given: Given) -> ReceptiveField | None:
    """The field of the first input if its rows and columns are its last two axes."""
    shape, field = given[0]
    fits = field.rows.axis == len(shape) - 2 and field.columns.axis == len(shape) - 1
    return field if fits else None


def _windows(
    field: ReceptiveField, shape: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any
) -> ReceptiveField:
    spans = [
        _window(span, shape[place], *numbers)
        for span, place, *numbers in zip(
            (field.rows, field.columns), (-2, -1), *map(pair, (kernel, stride, padding, dilation)), strict=True
        )
    ]
    return ReceptiveField(*spans)


def _convolution(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
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


def _max_pool(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    field, kernel = _cells_last(given), argument(args, kwargs, 1, "kernel_size", 1)
    stride = argument(args, kwargs, 2, "stride", kernel) or kernel
    padding, dilation = argument(args, kwargs, 3, "padding", 0), argument(args, kwargs, 4, "dilation", 1)
    return None if field is None else _windows(field, shape, kernel, stride, padding, dilation)


def _average_pool(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    field, kernel = _cells_last(given), argument(args, kwargs, 1, "kernel_size", 1)
    stride, padding = argument(args, kwargs, 2, "stride", kernel) or kernel, argument(args, kwargs, 3, "padding", 0)
    return None if field is None else _windows(field, shape, kernel, stride, padding, 1)


def _resized(span: Interval, outputs: int, bins: Callable[[int, int], tuple[Ints, Ints]]) -> Interval:
    """Each output index sees input indices `first:last`, as `bins(inputs, outputs)` says."""
    first, last = bins(len(span.low), outputs)
    low = np.array([span.low[a:b].min() for a, b in zip(first, last, strict=True)])
    high = np.array([span.high[a:b].max() for a, b in zip(first, last, strict=True)])
    widths, steps = set((last - first).tolist()), set(np.diff(first).tolist())
    regular = span.step is not None and span.start is not None and span.size is not None
    if regular and len(widths) == 1 and len(steps) <= 1:
        step = steps.pop() if steps else 0
        start = span.start + span.step * int(first[0])  # type: ignore[operator]
        size = span.size + span.step * (widths.pop() - 1)
        return Interval(span.axis, low, high, start, size, span.step * step)  # type: ignore[operator]
    return Interval(span.axis, low, high)


def _adaptive_bins(inputs: int, outputs: int) -> tuple[Ints, Ints]:
    index = np.arange(outputs)
    return index * inputs // outputs, -(-(index + 1) * inputs // outputs)


def _adaptive_pool(
    args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int
) -> ReceptiveField | None:
    field = _cells_last(given)
    if field is None:
        return None
    return ReceptiveField(
        _resized(field.rows, shape[-2], _adaptive_bins), _resized(field.columns, shape[-1], _adaptive_bins)
    )


def _interpolate(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
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
        first = (
            np.floor((index + (0.5 if mode == "nearest-exact" else 0)) * ratio).astype(np.int64).clip(max=inputs - 1)
        )
        return first, first + 1

    return ReceptiveField(_resized(field.rows, shape[-2], bins), _resized(field.columns, shape[-1], bins))


def _moved(field: ReceptiveField, order: Sequence[int]) -> ReceptiveField:
    """The field after axes were reordered: `order[i]` is the old axis that is now axis i."""

    def move(span: Interval) -> Interval:
        return span if span.axis is None else replace(span, axis=order.index(span.axis))

    return ReceptiveField(move(field.rows), move(field.columns))


def _permute(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    dims = argument(args, kwargs, 1, "dims", ())
    dims = args[1:] if isinstance(dims, int) else dims
    return _moved(given[0][1], [dim % len(shape) for dim in dims])


def _transpose(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    order = list(range(len(shape)))
    a, b = argument(args, kwargs, 1, "dim0", 0), argument(args, kwargs, 2, "dim1", 1)
    order[a], order[b] = order[b], order[a]
    return _moved(given[0][1], order)


def _reshape(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    """Reshaping keeps a direction where nothing behind it (or nothing before it) is regrouped."""
    before, field = given[0]

    def keep(span: Interval) -> Interval:
        if span.axis is None:
            return span
        behind, length = math.prod(before[span.axis + 1 :]), before[span.axis]
        for axis, extent in enumerate(shape):
            if extent == length and math.prod(shape[axis + 1 :]) == behind and length > 1:
                return replace(span, axis=axis)
        return span.merged()

    return ReceptiveField(keep(field.rows), keep(field.columns))


def _reduce(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    """Mean, sum and their like over some axes: a direction that is summed over merges."""
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

    return ReceptiveField(reduce(field.rows), reduce(field.columns))


def _along(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    """Softmax and cumulative sums: one axis is mixed with itself."""
    before, field = given[0]
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if not isinstance(dim, int):
        return None
    return _mix_axes(field, before, {dim % len(before)})


def _mix_axes(field: ReceptiveField, shape: tuple[int, ...], mixed: set[int]) -> ReceptiveField:
    def mix(span: Interval) -> Interval:
        if span.axis is None or span.axis not in mixed:
            return span
        seen, count = span.merged(), shape[span.axis]
        return Interval(span.axis, seen.low.repeat(count), seen.high.repeat(count))

    return ReceptiveField(mix(field.rows), mix(field.columns))


def _layer_norm(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    rank = len(argument(args, kwargs, 1, "normalized_shape", shape[1:]))
    return _mix_axes(given[0][1], shape, set(range(len(shape) - rank, len(shape))))


def _group_norm(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    return _mix_axes(given[0][1], shape, set(range(1, len(shape))))


def _batch_norm(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    """Cell by cell with constants; over all cells where the mean is the batch's own."""
    if argument(args, kwargs, 5, "training", False):
        return _mix_axes(given[0][1], shape, {*range(len(shape))} - {1})
    return _elementwise(given[:1], shape)


def _linear(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    """A linear layer mixes the last axis only: a 1x1 convolution where cells come first, as in Swin."""
    _, field = given[0]
    last = len(shape) - 1
    return None if last in (field.rows.axis, field.columns.axis) else field


def _cat(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
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


def _getitem(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    """Basic slicing; an index by a tensor or a list is taken as mixing everything."""
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

    return ReceptiveField(pick(field.rows), pick(field.columns))


def _split(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    dim = argument(args, kwargs, 2, "dim", 0) % len(given[0][0])
    field = given[0][1]
    return None if dim in (field.rows.axis, field.columns.axis) else field


def _unsqueeze(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    dim = argument(args, kwargs, 1, "dim", 0) % len(shape)
    order = list(range(len(shape) - 1))
    order.insert(dim, -1)
    return _moved(given[0][1], order)


def _pad(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    """Padding with a constant is a window of one; other modes repeat cells, which the whole map covers."""
    field, sides = _cells_last(given), list(argument(args, kwargs, 1, "pad", ()))
    if field is None or argument(args, kwargs, 2, "mode", "constant") != "constant" or any(v < 0 for v in sides[:4]):
        return None
    sides += [0] * (4 - len(sides))
    return ReceptiveField(
        _window(field.rows, shape[-2], 1, 1, sides[2], 1), _window(field.columns, shape[-1], 1, 1, sides[0], 1)
    )


def _stack(args: Any, kwargs: Any, given: Given, shape: tuple[int, ...], position: int) -> ReceptiveField | None:
    dim = argument(args, kwargs, 1, "dim", 0) % len(shape)
    order = list(range(len(shape) - 1))
    order.insert(dim, -1)
    return _elementwise([(shape, _moved(field, order)) for _, field in given], shape)


_Rule = Callable[[tuple[Any, ...], dict[str, Any], Given, tuple[int, ...], int], "ReceptiveField | None"]
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
_JOINING = frozenset({"cat", "concat", "concatenate", "stack"})  # whose rules follow each of their inputs
# Operations that keep the shape and yet mix cells, or whose cells move.
_MIXING = frozenset({
    "matmul", "bmm", "mm", "einsum", "scaled_dot_product_attention", "multi_head_attention_forward", "roll", "flip",
    "baddbmm", "addmm", "sort", "fft2", "ifft2", "rfft2", "gather", "index_select", "grid_sample", "conv_transpose2d",
    "unfold", "fold", "pixel_shuffle", "conv1d", "conv3d",
})  # fmt: skip
