"""Receptive fields as data: intervals of the input's rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Ints = np.ndarray  # int64
NOTHING = np.iinfo(np.int64).max  # the `low` of an index that lies wholly in the padding; its `high` is 0


@dataclass(frozen=True)
class Interval:
    """What each index along one direction of an activation sees of the input's rows (or columns).

    `axis` is that direction's axis in the tensor, None when the activation has none (then there is one index). Index i
    sees `low[i]:high[i]`, inside the input. Where windows are regular, `start`, `size` and `step` give the same before
    clipping to the input: `start + step·i` and `size` pixels on; else they are None.
    """

    axis: int | None
    low: Ints
    high: Ints
    start: int | None = None
    size: int | None = None
    step: int | None = None

    def unclipped(self, index: int) -> tuple[int, int]:
        """First pixel and the one after the last, which may lie outside the input where windows are regular."""
        index = 0 if self.axis is None else index  # without the direction every cell sees the same
        if self.start is None or self.step is None or self.size is None:
            return self.clipped(index)
        first = self.start + self.step * index
        return first, first + self.size

    def clipped(self, index: int) -> tuple[int, int]:
        """First pixel and the one after the last of those that exist; (0, 0) when the index sees none."""
        index = 0 if self.axis is None else index
        low, high = int(self.low[index]), int(self.high[index])
        return (low, high) if low < high else (0, 0)

    def merged(self) -> Interval:
        """The span of an activation in which this direction is gone: everything that any index saw."""
        start = size = None
        if self.start is not None and self.step is not None and self.size is not None:
            start, size = self.start, self.size + self.step * (len(self.low) - 1)
        return Interval(
            None, self.low.min(keepdims=True), self.high.max(keepdims=True), start, size, 0 if size else None
        )


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of all cells of one activation."""

    rows: Interval
    columns: Interval

    def box(self, cell: tuple[int, int] = (0, 0)) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) in input pixels; may reach over the border, so that all cells' boxes are alike."""
        (top, bottom), (left, right) = self.rows.unclipped(cell[0]), self.columns.unclipped(cell[1])
        return top, left, bottom, right

    def inside(self, cell: tuple[int, int] = (0, 0)) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the pixels that exist and are seen."""
        (top, bottom), (left, right) = self.rows.clipped(cell[0]), self.columns.clipped(cell[1])
        return top, left, bottom, right

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of an unclipped field."""
        top, left, bottom, right = self.box()
        return bottom - top, right - left

    @property
    def stride(self) -> tuple[int, int] | None:
        """Pixels between the fields of neighbouring cells, down and across; None where they are not regular."""
        return None if self.rows.step is None or self.columns.step is None else (self.rows.step, self.columns.step)

    def centre(self, cell: tuple[int, int] = (0, 0)) -> tuple[float, float]:
        """Row and column of the field's centre, in pixel units (0 is the input's upper or left edge)."""
        top, left, bottom, right = self.box(cell)
        return (top + bottom) / 2, (left + right) / 2
