"""Receptive fields after operations that only move cells: views, slices, padding, gathers with constant indices.

The operation itself runs on the numbers of rows (then of columns) in place of activations, so its result shows where
each cell comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.call_arguments import map_leaves, tensors_in
from vizapp.engine.receptive_field.interval import NOTHING, Activation, Interval, Ints, ReceptiveField
from vizapp.engine.tap import operation_name

MOVES = frozenset({
    "permute", "transpose", "movedim", "t", "T", "mT", "H", "mH", "adjoint", "view",
    "reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "expand", "expand_as", "view_as", "reshape_as",
    "broadcast_to", "broadcast_tensors", "atleast_1d", "atleast_2d", "atleast_3d", "getitem", "select", "narrow",
    "index_select", "take_along_dim", "gather", "take", "chunk", "unsafe_chunk", "split", "split_with_sizes",
    "unsafe_split", "tensor_split", "hsplit", "vsplit", "dsplit", "unbind", "roll", "flip", "fliplr", "flipud", "rot90",
    "fft_fftshift", "fft_ifftshift", "repeat", "tile", "repeat_interleave", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "native_channel_shuffle", "unfold", "as_strided", "diagonal", "tril", "triu", "cat",
    "stack", "hstack", "vstack", "dstack", "row_stack", "column_stack", "pad", "setitem", "scatter",
    "index_copy", "slice_scatter", "select_scatter", "diagonal_scatter",
})  # fmt: skip
_Make = Callable[[Activation, Interval], Tensor]
_REFUSALS = (RuntimeError, IndexError, TypeError, ValueError)  # of torch, for numbers that cannot replace activations


def fields_after_move(
    function: Callable[..., Any], operation: str, args: Any, kwargs: Any, given: list[Activation], shapes: list[Any]
) -> list[ReceptiveField] | None:
    """The fields of all results; None if the operation moves cells by what is in the image.

    Args:
        function: An operation that only moves cells.
        operation: Its name, one of `MOVES`.
        args: Its positional arguments, with an `Activation` for each tensor that depends on the image.
        kwargs: Its keyword arguments, likewise.
        given: All these activations.
        shapes: The shapes of its results.
    """
    if operation == "setitem" and not isinstance(args[2], Activation):
        args = (*args[:2], 0.0)
    if operation == "pad":
        args, kwargs = args[:3], {key: value for key, value in kwargs.items() if key != "value"}

    def run(make: Callable[[Activation], Tensor]) -> list[Tensor]:
        leaves = {
            id(one): make(one).clone(memory_format=torch.contiguous_format) if copy else make(one) for one in given
        }
        bound = [map_leaves(part, lambda leaf: leaves.get(id(leaf), _without_values(leaf))) for part in (args, kwargs)]
        output = function(*bound[0], **bound[1])
        return list(tensors_in(bound[0][0] if operation == "setitem" else output))

    copy = operation in {"setitem", "as_strided"} or operation_name(function).endswith("_")
    try:
        spans = [_spans_after_move(run, given, shapes, columns) for columns in (False, True)]
    except _REFUSALS:
        return None
    return None if None in spans else [ReceptiveField(*both) for both in zip(*spans, strict=True)]


def _without_values(leaf: Any) -> Any:
    """Constants without their values, which must not look like the number of a row; indices stay."""
    if isinstance(leaf, Tensor):
        is_index = not (leaf.is_floating_point() or leaf.is_complex())
        return leaf.cpu() if is_index else torch.zeros(leaf.shape, dtype=torch.float64)
    return 0.0 if isinstance(leaf, float) else leaf


def _spans_after_move(
    run: Callable[[Callable[[Activation], Tensor]], list[Tensor]],
    given: list[Activation],
    shapes: list[Any],
    columns: bool,
) -> list[Interval] | None:
    spans = {id(one): one.field.columns if columns else one.field.rows for one in given}
    offsets = dict(zip(spans, np.cumsum([1, *(len(span.low) for span in spans.values())]), strict=False))

    def numbers(one: Activation) -> Tensor:
        span, first = spans[id(one)], int(offsets[id(one)])
        strides = [int(axis == span.axis) for axis in range(len(one.shape))]
        return torch.arange(first, first + len(span.low), dtype=torch.float64).as_strided(one.shape, strides)

    def doubled(one: Activation) -> Tensor:
        axis = spans[id(one)].axis
        return torch.zeros([2 if i == axis else extent for i, extent in enumerate(one.shape)], dtype=torch.float64)

    cells = run(numbers)
    if [tuple(each.shape) for each in cells] != shapes or any(not each.numel() for each in cells):
        return None
    table = _Table(list(spans.values()))
    found = [table.interval(each) for each in cells]
    # The values do not show where an axis with one cell goes; the shape does, if there are two cells.
    if any(span.axis is None for span in found) and all(
        len(span.low) == 1 and span.axis is not None for span in spans.values()
    ):
        try:
            twice = run(doubled)
        except _REFUSALS:
            return found
        if len(twice) != len(cells):
            return found
        found = [
            _on_grown_axis(span, before, after, table.step) if span.axis is None else span
            for span, before, after in zip(found, cells, twice, strict=True)
        ]
    return found


def _on_grown_axis(span: Interval, before: Tensor, after: Tensor, step: int | None) -> Interval:
    """The interval on the one axis of a result that is twice as long with twice the cells."""
    if before.ndim != after.ndim:
        return span
    grown = [axis for axis in range(before.ndim) if before.shape[axis] != after.shape[axis]]
    if len(grown) != 1 or after.shape[grown[0]] != 2 * before.shape[grown[0]]:
        return span
    count = before.shape[grown[0]]
    low, high = span.low.repeat(count), span.high.repeat(count)
    return Interval(grown[0], low, high, span.start, span.size, step) if count == 1 else Interval(grown[0], low, high)


class _Table:
    """What each number means: row i of the first input is number 1 + i, and so on; 0 sees nothing."""

    def __init__(self, spans: Sequence[Interval]) -> None:
        self._low = np.concatenate([[NOTHING], *(span.low for span in spans)])
        self._high = np.concatenate([[0], *(span.high for span in spans)])
        sizes, steps = {span.size for span in spans}, {span.step for span in spans}
        self._size = sizes.pop() if len(sizes) == len(steps) == 1 else None
        self.step = steps.pop() if self._size is not None else None
        starts = (
            [[span.unclipped(i)[0] for i in range(len(span.low))] for span in spans] if self.step is not None else []
        )
        self._starts = np.concatenate([[0], *starts]).astype(np.int64)

    def interval(self, cells: Tensor) -> Interval:
        """The interval of a result whose cells hold these numbers, along the axis on which they depend.

        If they depend on several axes, along the one on which the intervals are shortest, and most of them differ.
        """
        kept = [axis for axis, stride in enumerate(cells.stride()) if stride and cells.shape[axis] == 1]
        single = kept[0] if len(kept) == 1 and cells._base is not None else None  # the axis of views of one row
        for axis, stride in enumerate(cells.stride()):
            cells = cells.narrow(axis, 0, 1) if stride == 0 else cells  # the same everywhere along this axis
        numbers = cells.numpy().astype(np.int64)
        long = [axis for axis in range(numbers.ndim) if numbers.shape[axis] > 1]
        others = {axis: tuple(other for other in range(numbers.ndim) if other != axis) for axis in long}
        for axis in long:
            chosen = numbers.min(others[axis])
            if (chosen == numbers.max(others[axis])).all():
                constant = (chosen == chosen[0]).all()
                return self._chosen(None if constant else axis, chosen[:1] if constant else chosen)
        if not long:
            return self._chosen(single, numbers.reshape(1))
        low, high = self._low[numbers], self._high[numbers]
        spans = [Interval(axis, low.min(others[axis]), high.max(others[axis])) for axis in long]
        return min(spans, key=lambda one: ((one.high - one.low).max(), -len(set(zip(one.low, one.high, strict=True)))))

    def _chosen(self, axis: int | None, chosen: Ints) -> Interval:
        low, high = self._low[chosen], self._high[chosen]
        if self.step is None or not chosen.all():
            return Interval(axis, low, high)
        starts = self._starts[chosen]
        steps = set(np.diff(starts).tolist()) or {self.step if axis is not None else 0}
        if len(steps) > 1 or min(steps) < 0:
            return Interval(axis, low, high)
        return Interval(axis, low, high, int(starts[0]), self._size, steps.pop())
