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

    `axis` is the axis in the tensor, None if the activation has no such axis (then there is one index). Rows and columns
    have the same axis where the cells were flattened. Index i sees `low[i]:high[i]`, inside the input. For regular
    windows, the unclipped interval of index i starts at `start + step·i` and has `size` pixels; otherwise these three are
    None.
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
        low, high = self.clipped(index)  # reflected and circular padding may see further
        return (min(first, low), max(first + size, high)) if low < high else (first, first + size)

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
        row, column = self._indices(cell)
        (top, bottom), (left, right) = self.rows.unclipped(row), self.columns.unclipped(column)
        return top, left, bottom, right

    def inside(self, cell: tuple[int, int] = (0, 0)) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) in input pixels, clipped to the input."""
        row, column = self._indices(cell)
        (top, bottom), (left, right) = self.rows.clipped(row), self.columns.clipped(column)
        return top, left, bottom, right

    def _indices(self, cell: tuple[int, int]) -> tuple[int, int]:
        """The index of a cell along the axis of the image's rows, and along that of its columns."""
        return cell if self.is_upright else (cell[1], cell[0])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of an unclipped field; of the largest one if they differ."""
        height, width = (
            int((span.high - span.low).max()) if span.size is None else span.size for span in (self.rows, self.columns)
        )
        return height, width

    @property
    def stride(self) -> tuple[int, int] | None:
        """Pixels between the fields of neighbouring cells, down and across; None if irregular."""
        return None if self.rows.step is None or self.columns.step is None else (self.rows.step, self.columns.step)

    def centre(self, cell: tuple[int, int] = (0, 0)) -> tuple[float, float]:
        """Row and column of the field's centre, in pixel units (0 is the input's upper or left edge)."""
        top, left, bottom, right = self.box(cell)
        return (top + bottom) / 2, (left + right) / 2

    def on_map(self) -> ReceptiveField:
        """The field itself if rows and columns are axes; else one of all cells together (of flattened cells, say)."""
        return self if self.is_map else self.map(Interval.merged)

    def same_as(self, other: ReceptiveField) -> bool:
        """Whether all cells see the same as those of the other field."""
        return all(
            (a.axis, a.start, a.size, a.step) == (b.axis, b.start, b.size, b.step)
            and np.array_equal(a.low, b.low)
            and np.array_equal(a.high, b.high)
            for a, b in ((self.rows, other.rows), (self.columns, other.columns))
        )

    def is_of_last_axes(self, rank: int) -> bool:
        """Whether an activation with `rank` axes has no cells, or rows and columns as its last two axes."""
        return self.rows.axis in {None, rank - 2} and self.columns.axis in {None, rank - 1}

    @property
    def is_upright(self) -> bool:
        """Whether the axis of rows comes before that of columns, as in the image; not after a transpose."""
        return self.rows.axis is None or self.columns.axis is None or self.rows.axis <= self.columns.axis

    @property
    def is_map(self) -> bool:
        """Whether rows and columns are two axes of the activation."""
        axes = {self.rows.axis, self.columns.axis}
        return len(axes) == 2 and None not in axes


@dataclass(frozen=True, eq=False)
class Activation:
    """In the arguments of an operation: the shape and field of a tensor that depends on the image."""

    shape: tuple[int, ...]
    field: ReceptiveField
