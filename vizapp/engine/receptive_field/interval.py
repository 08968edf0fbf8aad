"""Receptive fields as data: intervals of the input's rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Ints = np.ndarray  # int64
NOTHING = np.iinfo(np.int64).max  # the `low` of an index that sees only padding; its `high` is 0


@dataclass(frozen=True)
class Interval:
    """The input rows (or columns) that each index along one axis of an activation sees.

    `axis` is the axis in the tensor, None if the activation has no such axis (then there is one index). Index i sees
    `low[i]:high[i]`, inside the input. For regular windows, the unclipped interval of index i starts at
    `start + step·i` and has `size` pixels; otherwise these three are None.
    """

    axis: int | None
    low: Ints
    high: Ints
    start: int | None = None
    size: int | None = None
    step: int | None = None

    @property
    def is_regular(self) -> bool:
        """Whether `start`, `size` and `step` are known."""
        return self.start is not None and self.size is not None and self.step is not None

    def regular(self) -> tuple[int, int, int]:
        """`start`, `size` and `step` of regular windows."""
        assert self.start is not None
        assert self.size is not None
        assert self.step is not None
        return self.start, self.size, self.step

    def unclipped(self, index: int) -> tuple[int, int]:
        """First pixel and the one after the last; may lie outside the input if windows are regular."""
        if not self.is_regular:
            return self.clipped(index)
        start, size, step = self.regular()
        first = start + step * (0 if self.axis is None else index)  # without the axis every cell sees the same
        return first, first + size

    def clipped(self, index: int) -> tuple[int, int]:
        """First pixel and the one after the last, inside the input; (0, 0) when the index sees nothing."""
        index = 0 if self.axis is None else index
        low, high = int(self.low[index]), int(self.high[index])
        return (low, high) if low < high else (0, 0)

    def merged(self) -> Interval:
        """The interval after the axis is reduced: everything that any index saw."""
        low, high = self.low.min(keepdims=True), self.high.max(keepdims=True)
        if not self.is_regular:
            return Interval(None, low, high)
        start, size, step = self.regular()
        size += step * (len(self.low) - 1)
        return Interval(None, low, high, start, size, 0 if size else None)


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of all cells of one activation."""

    rows: Interval
    columns: Interval

    def map(self, change: Callable[[Interval], Interval]) -> ReceptiveField:
        """The field with `change` applied to rows and columns."""
        return ReceptiveField(change(self.rows), change(self.columns))

    def box(self, cell: tuple[int, int] = (0, 0)) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) in input pixels; may extend beyond the input, so that all boxes have the same size."""
        (top, bottom), (left, right) = self.rows.unclipped(cell[0]), self.columns.unclipped(cell[1])
        return top, left, bottom, right

    def inside(self, cell: tuple[int, int] = (0, 0)) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) in input pixels, clipped to the input."""
        (top, bottom), (left, right) = self.rows.clipped(cell[0]), self.columns.clipped(cell[1])
        return top, left, bottom, right

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of an unclipped field."""
        top, left, bottom, right = self.box()
        return bottom - top, right - left

    @property
    def stride(self) -> tuple[int, int] | None:
        """Pixels between the fields of neighbouring cells, down and across; None if irregular."""
        return None if self.rows.step is None or self.columns.step is None else (self.rows.step, self.columns.step)

    def centre(self, cell: tuple[int, int] = (0, 0)) -> tuple[float, float]:
        """Row and column of the field's centre, in pixel units (0 is the input's upper or left edge)."""
        top, left, bottom, right = self.box(cell)
        return (top + bottom) / 2, (left + right) / 2
