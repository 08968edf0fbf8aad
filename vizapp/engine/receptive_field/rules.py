"""How each torch operation propagates receptive fields: one short rule per family of operations.

A rule gets a `Call` and returns the field of its results, or None for cases that it does not cover. The results of these,
and of operations without a rule, see everything that their inputs see.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import argument
from vizapp.engine.operations import POINTWISE, canonical_name
from vizapp.engine.receptive_field.interval import NOTHING, Activation, Interval, Ints, ReceptiveField
from vizapp.engine.receptive_field.moves import MOVES, fields_after_move
from vizapp.engine.tap import qualified_name

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A call of a torch function, with an `Activation` in place of each tensor that depends on the image (`given`)."""

    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: list[Activation]
    shape: Shape  # of the result

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """The argument that was passed at `position` or as `name=`."""
        return argument(self.args, self.kwargs, position, name, default)

    @property
    def first(self) -> Activation:
        """The first input that depends on the image."""
        return self.given[0]


def fields_after(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], shapes: list[Shape]
) -> list[ReceptiveField]:
    """The receptive fields of the results of an operation.

    Args:
        function: The torch function.
        args: Its positional arguments, with an `Activation` for each tensor that depends on the image, at least one.
        kwargs: Its keyword arguments, likewise.
        shapes: The shapes of its results.
    """
    given = list(activations_in((args, kwargs)))
    operation = _name_of(function)
    calls = [Call(operation, args, kwargs, given, shape) for shape in shapes]
    fields = [_field_after(call) for call in calls]
    if operation in MOVES and None in fields:
        moved = fields_after_move(function, operation, args, kwargs, given, shapes)
        fields = fields if moved is None else [*moved]
        if operation == "pad" and moved is not None:
            fields = [_padded(calls[0], moved[0])]
    return [field or full_field(given, shape) for field, shape in zip(fields, shapes, strict=True)]


def activations_in(value: Any) -> Iterable[Activation]:
    """All activations inside nested tuples, lists and dicts."""
    if isinstance(value, Activation):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from activations_in(item)


def _name_of(function: Callable[..., Any]) -> str:
    """The name by which rules know a function: without the `_` of in-place ones and the overload of `torch.ops` ones."""
    name = canonical_name(qualified_name(function).partition(".")[0])
    if name == "getattr":
        return str(getattr(getattr(function, "__self__", None), "__name__", name))
    return "" if getattr(function, "__name__", "") == "__rmatmul__" else name.rstrip("_")


def _field_after(call: Call) -> ReceptiveField | None:
    if call.operation in POINTWISE:
        return _elementwise(call.given, call.shape)
    rule = _RULES.get(call.operation)
    if rule is None:
        return None
    if rule not in _OF_ALL_INPUTS and (call.args[0] if call.args else call.kwargs.get("input")) is not call.first:
        return None  # of constants, with weights computed from the image
    field = rule(call)
    if field is None or rule in _OF_ALL_INPUTS or len(call.given) == 1:
        return field
    others = full_field(call.given[1:])  # weights computed from the image, say: each cell depends on all of them
    return ReceptiveField(_union([field.rows, others.rows]), _union([field.columns, others.columns]))


def full_field(given: Sequence[Activation], shape: Shape = ()) -> ReceptiveField:
    """The field of a result of which every cell may depend on every cell of every input.

    Of an operation from maps to maps of the same rank, rows and columns remain the same axes.
    """
    merged = [one.field.map(Interval.merged) for one in given]
    field = ReceptiveField(_union([one.rows for one in merged]), _union([one.columns for one in merged]))
    layout = next((one.field for one in given if one.field.is_map and len(one.shape) == len(shape)), None)
    return field if layout is None else ReceptiveField(*(
        Interval(span.axis, seen.low.repeat(shape[span.axis or 0]), seen.high.repeat(shape[span.axis or 0]))
        for span, seen in ((layout.rows, field.rows), (layout.columns, field.columns))
    ))  # fmt: skip


def union(given: Sequence[Activation], shape: Shape) -> ReceptiveField:
    """The field of a result that sees at each cell what the inputs see there, with broadcasting."""
    return _elementwise(given, shape) or full_field(given, shape)


# -------------------------------------------------------------------------------------------------- cell by cell


def _elementwise(given: Sequence[Activation], shape: Shape) -> ReceptiveField | None:
    """Element by element, with broadcasting; None when an input with cells does not fit the result's shape."""
    spans: tuple[list[Interval], list[Interval]] = [], []
    for one in given:
        for direction, span in zip(spans, (one.field.rows, one.field.columns), strict=True):
            axis = None if span.axis is None else span.axis + len(shape) - len(one.shape)
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


def _cast(call: Call) -> ReceptiveField | None:
    """The first argument; of a second tensor, only the type is read."""
    return _elementwise(call.given[:1], call.shape) if call.args and call.args[0] is call.first else None


def _padded(call: Call, moved: ReceptiveField) -> ReceptiveField:
    """Regular windows go on outside of the image, in all modes of padding, as if there were more of it."""
    sides, before = call.argument(1, "pad"), call.first.field

    def widen(span: Interval, after: Interval) -> Interval:
        place = 0 if span.axis is None else 2 * (len(call.shape) - 1 - span.axis)
        side = sides[place] if place < len(sides) else 0
        if not span.is_regular or span.axis is None or after.axis != span.axis:
            return after
        start, size, step = span.regular()
        return replace(after, start=start - side * step, size=size, step=step)

    return ReceptiveField(widen(before.rows, moved.rows), widen(before.columns, moved.columns))


# ------------------------------------------------------------------------------------------ windows and other sizes


def _window(span: Interval, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Interval:
    taps = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel)[None] * dilation  # [outputs kernel]
    seen = _read(span, taps, (taps >= 0) & (taps < len(span.low)))
    if not span.is_regular:
        return seen
    start, size, step = span.regular()
    size += (kernel - 1) * dilation * step
    return replace(seen, start=start - padding * step, size=size, step=step * stride)


def _transposed_window(span: Interval, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Interval:
    scaled = np.arange(outputs)[:, None] + padding - np.arange(kernel)[None] * dilation  # [outputs kernel]
    taps = scaled // stride
    seen = _read(span, taps, (scaled % stride == 0) & (taps >= 0) & (taps < len(span.low)))
    if not span.is_regular or stride > 1:
        return seen
    start, size, step = span.regular()
    reach = (kernel - 1) * dilation
    return replace(seen, start=start + (padding - reach) * step, size=size + reach * step, step=step)


def _read(span: Interval, taps: Ints, exists: np.ndarray) -> Interval:
    """Output i sees what the inputs `taps[i]` see, where they exist."""
    taps = taps.clip(0, len(span.low) - 1)
    low = np.where(exists, span.low[taps], NOTHING).min(1)
    return Interval(span.axis, low, np.where(exists, span.high[taps], 0).max(1))


def _resized(span: Interval, first: Ints, last: Ints) -> Interval:
    """Output i sees what the inputs `first[i]:last[i]` see."""
    taps = first[:, None] + np.arange(max(1, (last - first).max()))[None]
    seen, widths, steps = _read(span, taps, taps < last[:, None]), set(last - first), set(np.diff(first).tolist())
    if not span.is_regular or len(widths) != 1 or len(steps) > 1:
        return seen
    start, size, step = span.regular()
    size += step * (int(widths.pop()) - 1)
    return replace(seen, start=start + step * int(first[0]), size=size, step=step * (steps.pop() if steps else 0))


_Change = Callable[
    [Interval, int, int], "Interval | None"
]  # of a span, its number among the spatial axes, its new extent


def _over_space(call: Call, change: _Change, mixes_channels: bool) -> ReceptiveField | None:
    """The field after an operation on the last n axes, n from its name (`conv2d`), and on the axis of channels before."""
    dimensions = _dimensions(call)
    if len(call.first.shape) != len(call.shape) or not dimensions:
        return None
    channels = len(call.shape) - dimensions - 1
    spans = []
    for span in (call.first.field.rows, call.first.field.columns):
        new: Interval | None = span
        if span.axis is not None and span.axis > channels:
            new = change(span, span.axis - channels - 1, call.shape[span.axis])
        elif span.axis == channels and mixes_channels:
            new = span.merged()
        if new is None:
            return None
        spans.append(new)
    return ReceptiveField(*spans)


def _dimensions(call: Call) -> int:
    """How many spatial axes an operation has, by its name or its weight."""
    found = re.search(r"([123])d", call.operation)
    return len(call.argument(1, "weight").shape) - 2 if found is None else int(found[1])


def _at(value: Any, number: int) -> int:
    """An argument for one of the spatial axes; torch takes one number for all."""
    return int(value[number if len(value) > 1 else 0]) if isinstance(value, (tuple, list)) else int(value)


def _convolution(call: Call) -> ReceptiveField | None:
    weight, padding = call.argument(1, "weight"), call.argument(4, "padding", 0)
    kernel = tuple(weight.shape)[2:]
    transposed = "transpose" in call.operation
    stride, dilation = call.argument(3, "stride", 1), call.argument(7 if transposed else 5, "dilation", 1)
    if call.operation == "convolution":
        transposed = bool(call.argument(6, "transposed", False))

    def change(span: Interval, number: int, outputs: int) -> Interval:
        reach = _at(dilation, number) * (kernel[number] - 1)
        # torch pads the odd pixel of "same" at the end
        pads = {"valid": 0, "same": reach // 2}[padding] if isinstance(padding, str) else _at(padding, number)
        window = _transposed_window if transposed else _window
        return window(span, outputs, kernel[number], _at(stride, number), pads, _at(dilation, number))

    return _over_space(call, change, mixes_channels=True)


def _pool(call: Call) -> ReceptiveField | None:
    place = 2 if call.operation.startswith("lp") else 1
    kernel = call.argument(place, "kernel_size", 1)
    stride = call.argument(place + 1, "stride", kernel) or kernel
    padding = 0 if place == 2 else call.argument(3, "padding", 0)
    dilation = call.argument(4, "dilation", 1) if "max" in call.operation else 1

    def change(span: Interval, number: int, outputs: int) -> Interval:
        return _window(span, outputs, *(_at(value, number) for value in (kernel, stride, padding, dilation)))

    return _over_space(call, change, mixes_channels=False)


def _adaptive_pool(call: Call) -> ReceptiveField | None:
    def change(span: Interval, number: int, outputs: int) -> Interval:
        index, inputs = np.arange(outputs), len(span.low)
        return _resized(span, index * inputs // outputs, -(-(index + 1) * inputs // outputs))

    return _over_space(call, change, mixes_channels=False)


def _interpolate(call: Call) -> ReceptiveField | None:
    """Along each axis, what torch itself makes of single pixels."""
    size, scale, dimensions = call.argument(1, "size"), call.argument(2, "scale_factor"), len(call.shape) - 2
    options = {name: call.argument(place, name) for place, name in enumerate(_INTERPOLATION, 3)}
    options["mode"] = options["mode"] or "nearest"

    def change(span: Interval, number: int, outputs: int) -> Interval:
        reads = np.zeros((outputs, len(span.low)), bool)
        target: dict[str, Any] = {"size": [outputs if axis == number else 2 for axis in range(dimensions)]}
        if size is None:
            one = scale[number] if isinstance(scale, (tuple, list)) else scale
            target = {"scale_factor": [float(one) if axis == number else 1.0 for axis in range(dimensions)]}
        for dtype in (torch.float64, torch.float32):  # they round where a pixel lies differently
            pixels = torch.eye(len(span.low), dtype=dtype)
            pixels = pixels.view(-1, 1, *(len(span.low) if axis == number else 1 for axis in range(dimensions)))
            # Two cells along the other axes: with one, torch 2.14 repeats the first row of antialiased maps.
            pixels = pixels.expand(-1, -1, *(-1 if axis == number else 2 for axis in range(dimensions)))
            resized = F.interpolate(pixels, **target, **options).movedim(2 + number, 0)  # [outputs pixels …]
            reads |= (resized != 0).flatten(2).any(2).numpy()
        return _resized(span, reads.argmax(1), reads.shape[1] - reads[:, ::-1].argmax(1))

    return _over_space(replace(call, operation=f"{dimensions}d"), change, mixes_channels=False)


_INTERPOLATION = ("mode", "align_corners", "recompute_scale_factor", "antialias")


# ---------------------------------------------------------------------------------------------------- along axes


def _dims(call: Call, place: int, default: Any = None, names: tuple[str, ...] = ("dim", "axis")) -> set[int] | None:
    """The axes that the argument at `place` names."""
    dims = next((call.kwargs[name] for name in names if name in call.kwargs), default)
    dims = call.args[place] if len(call.args) > place else dims
    dims = dims if isinstance(dims, (tuple, list)) else (dims,)
    if not all(isinstance(dim, int) and not isinstance(dim, bool) for dim in dims):
        return None
    return {dim % len(call.first.shape) for dim in dims}


def _merged_axes(field: ReceptiveField, axes: Iterable[int]) -> ReceptiveField:
    return field.map(lambda span: span.merged() if span.axis is not None and span.axis in axes else span)


def _reduce(call: Call) -> ReceptiveField | None:
    """Mean, sum and the like over some axes, which merge."""
    before, field = call.first.shape, call.first.field
    gone = _dims(call, 2 if call.operation in _DIM_IS_THIRD else 1)
    if len(call.args) > 1 and isinstance(call.args[1], (Tensor, Activation)):  # a maximum of two tensors
        return _elementwise(call.given, call.shape) if call.operation in {"max", "min"} else None
    if not gone:
        return None
    if call.shape == tuple(1 if axis in gone else extent for axis, extent in enumerate(before)):
        return field.map(lambda span: replace(span.merged(), axis=span.axis) if span.axis in gone else span)
    if call.shape != tuple(extent for axis, extent in enumerate(before) if axis not in gone):
        return None

    def move(span: Interval) -> Interval:
        return span if span.axis is None else replace(span, axis=span.axis - sum(dim < span.axis for dim in gone))

    return _merged_axes(field, gone).map(move)


def _along(call: Call) -> ReceptiveField | None:
    """Softmax, cumulative sums, sorting and transforms: some axes are mixed with themselves."""
    place, default = _ALONG[call.operation]
    return _mix_axes(call, _dims(call, place, default))


def _mix_axes(call: Call, mixed: Iterable[int] | None) -> ReceptiveField | None:
    """Each cell sees all of the cells along the mixed axes."""
    field, shape = call.first.field, call.shape
    if mixed is None or len(call.first.shape) != len(shape):
        return None

    def mix(span: Interval) -> Interval:
        if span.axis is None or span.axis not in mixed:
            return span
        seen, count = span.merged(), shape[span.axis]
        return Interval(span.axis, seen.low.repeat(count), seen.high.repeat(count))

    return field.map(mix)


def _layer_norm(call: Call) -> ReceptiveField | None:
    normalized = call.argument(1, "normalized_shape")
    rank = 1 if isinstance(normalized, int) else len(normalized)
    return _mix_axes(call, range(len(call.shape) - rank, len(call.shape)))


def _group_norm(call: Call) -> ReceptiveField | None:
    return _mix_axes(call, range(1, len(call.shape)))


def _batch_norm(call: Call) -> ReceptiveField | None:
    """Element by element with running statistics; over all cells with the statistics of the batch."""
    if call.argument(5, "training", False) is not False:
        return _mix_axes(call, {*range(len(call.shape))} - {1})
    return _elementwise(call.given[:1], call.shape)


def _across_channels(call: Call) -> ReceptiveField | None:
    return _mix_axes(call, {1})


# ----------------------------------------------------------------------------------------------- sums of products


def _linear(call: Call) -> ReceptiveField | None:
    """A linear layer mixes the last axis only: a 1x1 convolution where channels come last, as in Swin."""
    return _merged_axes(call.first.field, {len(call.first.shape) - 1})


def _contracted(call: Call, factors: Sequence[tuple[Any, tuple[int, ...]]]) -> ReceptiveField | None:
    """The union of the factors, each merged along the axes (counted from the end) over which products are summed."""
    kept = []
    for factor, axes in factors:
        if isinstance(factor, Activation):
            count = len(factor.shape)
            if count < 2:
                return None
            kept.append(Activation(factor.shape, _merged_axes(factor.field, {axis % count for axis in axes})))
    return _elementwise(kept, call.shape) if len(kept) == len(call.given) else None


def _matrix_product(call: Call) -> ReceptiveField | None:
    *added, left, right = (*call.args, *(call.kwargs[name] for name in ("other", "mat2") if name in call.kwargs))
    shapes = [getattr(factor, "shape", ()) for factor in (left, right)]
    if min(map(len, shapes)) < 2:
        return None
    return _contracted(call, [*((one, ()) for one in added), (left, (-1,)), (right, (-2,))])


def _attention(call: Call) -> ReceptiveField | None:
    query, key, value, mask = (call.argument(i, name) for i, name in enumerate(("query", "key", "value", "attn_mask")))
    return _contracted(call, [(query, (-1,)), (key, (-1, -2)), (value, (-2,)), (mask, (-1,))])


def _einsum(call: Call) -> ReceptiveField | None:
    """Each letter of the result is an axis of the factors; the other letters are summed over."""
    equation, *factors = call.args
    if len(factors) == 1 and isinstance(factors[0], (tuple, list)):
        factors = list(factors[0])
    terms, arrow, result = str(equation).replace(" ", "").partition("->")
    letters = terms.split(",")
    if not arrow or "." in equation or len(letters) != len(factors):
        return None
    kept = []
    for term, factor in zip(letters, factors, strict=True):
        if isinstance(factor, Activation):
            if len(set(term)) != len(term):
                return None
            merged = _merged_axes(factor.field, {axis for axis, letter in enumerate(term) if letter not in result})
            place = {axis: result.index(letter) for axis, letter in enumerate(term) if letter in result}
            moved = merged.map(lambda span, at=place: span if span.axis is None else replace(span, axis=at[span.axis]))  # type: ignore[misc]
            kept.append(Activation(call.shape, moved))
    return _elementwise(kept, call.shape) if len(kept) == len(call.given) else None


def _joined(call: Call) -> ReceptiveField | None:
    """Joined along an old axis, other than rows and columns, or along a new one."""
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % len(call.shape)
    new = call.operation == "stack"

    def move(span: Interval) -> Interval:
        return replace(span, axis=span.axis + 1) if new and span.axis is not None and span.axis >= dim else span

    parts = [Activation(call.shape, one.field.map(move)) for one in call.given]
    joins_cells = any(dim in (part.field.rows.axis, part.field.columns.axis) for part in parts)
    return None if joins_cells else _elementwise(parts, call.shape)


_Rule = Callable[[Call], "ReceptiveField | None"]
_ALONG: dict[str, tuple[int, Any]] = {  # where the argument `dim` is, and its default
    **dict.fromkeys(["softmax", "log_softmax", "softmin", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"], (1, None)),
    **dict.fromkeys(["sort", "argsort"], (1, -1)),
    "topk": (2, -1),
    "normalize": (2, 1),
    "gumbel_softmax": (4, -1),
    "glu": (1, -1),
    **dict.fromkeys(["fft_fft", "fft_ifft", "fft_rfft", "fft_irfft"], (2, -1)),
    **dict.fromkeys(["fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2"], (2, (-2, -1))),
}  # fmt: skip
_DIM_IS_THIRD = frozenset({"norm", "linalg_vector_norm", "quantile", "nanquantile", "kthvalue"})
_OF_ALL_INPUTS: tuple[_Rule, ...] = (_cast, _reduce, _matrix_product, _attention, _einsum, _joined)
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(["to", "type_as"], _cast),
    **dict.fromkeys(["conv1d", "conv2d", "conv3d", "convolution", *(f"conv_transpose{n}d" for n in (1, 2, 3))], _convolution),
    **dict.fromkeys([f"max_pool{n}d{end}" for n in (1, 2, 3) for end in ("", "_with_indices")], _pool),
    **dict.fromkeys([f"{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("avg", "lp")], _pool),
    **dict.fromkeys([f"adaptive_avg_pool{n}d" for n in (1, 2, 3)], _adaptive_pool),
    **dict.fromkeys([f"adaptive_max_pool{n}d{end}" for n in (1, 2, 3) for end in ("", "_with_indices")], _adaptive_pool),
    **dict.fromkeys(["interpolate", "upsample"], _interpolate),
    **dict.fromkeys(["mean", "sum", "nansum", "nanmean", "prod", "amax", "amin", "max", "min", "median", "nanmedian", "mode",
                     "argmax", "argmin", "logsumexp", "std", "var", "std_mean", "var_mean", "any", "all", "count_nonzero",
                     *_DIM_IS_THIRD], _reduce),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(["layer_norm", "rms_norm"], _layer_norm),
    **dict.fromkeys(["group_norm", "instance_norm"], _group_norm),
    "batch_norm": _batch_norm,
    "local_response_norm": _across_channels,
    "linear": _linear,
    **dict.fromkeys(["matmul", "bmm", "mm", "addmm", "baddbmm"], _matrix_product),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **dict.fromkeys(["cat", "stack"], _joined),
}  # fmt: skip
