"""How a network answers occluded pictures without computing what the occluder does not change.

One clean pass is recorded (`replay.py`). At each layer, an occluder changes only the cells whose receptive field meets
it: a window. For a batch of occluders, each layer is computed on such windows alone, all of one size, and what an
operation needs around a window comes from the clean pass. A window may be larger than what is changed. Where the windows
cover most of the map, and after an operation that mixes all cells, whole maps are computed. The result is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.memory.upload import upload
from vizapp.engine.occlusion.cell_index import Index, Insets, Occluders, Parts, runs_of_cells
from vizapp.engine.trace.recording import Step

Range = tuple[int, int]  # [first, last) in pixels
Box = tuple[int, int, int, int]  # (top, left, bottom, right) in pixels; what lies outside the picture is ignored


@dataclass(frozen=True)
class DirtyRegion:
    """The windows of one value. `axes` are those of its rows and columns, `length` their sizes.

    All windows are `size` large. That of the i-th row of occluders begins at row `tops[i]`; `lefts` is the same for columns.
    """

    axes: tuple[int, int]
    length: tuple[int, int]
    size: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def share(self) -> float:
        """The part of the map that a window covers, 0 to 1."""
        return self.size[0] * self.size[1] / (self.length[0] * self.length[1])

    def same_cells(self, other: DirtyRegion) -> bool:
        """Whether the windows have the same cells, on whichever axes."""
        return (self.size, self.tops, self.lefts) == (other.size, other.tops, other.lefts)


@dataclass(frozen=True)
class AffectedCells:
    """The cells of one value that each row and each column of occluders changes, `[low, high)`; low == high for none."""

    axes: tuple[int, int]
    length: tuple[int, int]
    rows: tuple[np.ndarray, np.ndarray]
    columns: tuple[np.ndarray, np.ndarray]

    def region(self, rows: Sequence[int], columns: Sequence[int]) -> DirtyRegion:
        """Windows of one size that hold what those rows and columns of occluders change."""
        (height, tops), (width, lefts) = (
            _window_starts(low, high, chosen, length)
            for (low, high), chosen, length in zip((self.rows, self.columns), (rows, columns), self.length, strict=True)
        )
        return DirtyRegion(self.axes, self.length, (height, width), tops, lefts)

    def cells(self) -> np.ndarray:
        """How many cells each occluder changes: `[rows columns]`."""
        return np.outer(self.rows[1] - self.rows[0], self.columns[1] - self.columns[0])


def _window_starts(
    low: np.ndarray, high: np.ndarray, chosen: Sequence[int], length: int
) -> tuple[int, tuple[int, ...]]:
    """Size and starts of the windows along one direction."""
    size = max(1, int((high - low)[list(chosen)].max()))
    return size, tuple(np.minimum(low, length - size).tolist())


@dataclass
class CleanMaps:
    """The activations of the clean pictures: `values[v]` is `[P …]`. `derived` is what was computed from them, once."""

    values: dict[int, Tensor]
    derived: dict[Any, Tensor] = field(default_factory=dict)


@dataclass
class BatchState:
    """One batch of occluders in the forward pass: `values[v]` is `[N …]` on its windows, or whole if v has no region."""

    occluders: Occluders
    clean: CleanMaps
    pictures: Tensor  # those of the occluders, on the device
    indices: Sequence[Tensor]  # as the plan numbers them
    values: dict[int, Tensor] = field(default_factory=dict)


Get = Callable[[BatchState], Tensor]
Operate = Callable[[BatchState], Sequence[Tensor]]
Pads = tuple[int, int, int, int]  # cells left, right, top, bottom


@dataclass
class IncrementalPlan:
    """How one network answers occluders at some rows and columns of pixels: an operation per step, and its windows.

    It serves the occluders at `rows` and `columns`, by number, of any picture. `regions[v]` are the windows of value v; a value
    without one is computed whole. `work` is the multiply-adds of one occluder. `fallback_layer` says where and why whole maps
    begin.
    """

    steps: list[Step]
    shapes: list[tuple[int, ...]]
    rows: Sequence[int]
    columns: Sequence[int]
    operations: list[Operate] = field(default_factory=list)
    regions: dict[int, DirtyRegion] = field(default_factory=dict)
    last_use: dict[int, int] = field(default_factory=dict)
    fresh: set[int] = field(default_factory=set)  # values whose memory no other value shares
    work: int = 0
    fallback_layer: str = ""
    indices: dict[Index, int] = field(default_factory=dict)  # those that a batch needs, numbered

    def index(self, index: Index) -> int:
        """The number of an index, which every batch that begins from now on has."""
        return self.indices.setdefault(index, len(self.indices))

    def begin(self, occluders: Occluders, clean: CleanMaps, device: torch.device) -> BatchState:
        """The state of a batch before its first step. One copy brings all its indices to the device."""
        found = [occluders.pictures, *(index.of(occluders) for index in self.indices)]
        joined = upload(torch.from_numpy(np.concatenate(found)), device)
        pictures, *indices = joined.split([len(each) for each in found])
        return BatchState(occluders, clean, pictures, indices)

    def block(
        self, value: int, tops: Sequence[int], lefts: Sequence[int], size: tuple[int, int],
        pads: Pads = (0, 0, 0, 0), fill: float = 0.0,
    ) -> Get:  # fmt: skip
        """How a batch gets a part of a value: its window, and around it the clean map.

        Args:
            value: The number of the value.
            tops: The first row of the part on the padded map, per row of occluders.
            lefts: The first column, per column of occluders.
            size: Rows and columns of the part.
            pads: Cells of padding.
            fill: What the padding is filled with.

        Returns:
            Gives `[N …]`; in the value's own memory if the parts lie inside the windows, all at the same cell.
        """
        region, (rows, columns) = self.regions[value], size
        axes, (h, w) = region.axes, region.size
        down = tuple(start + pads[2] - top for start, top in zip(region.tops, tops, strict=True))
        right = tuple(start + pads[0] - left for start, left in zip(region.lefts, lefts, strict=True))
        ys, xs = {down[row] for row in self.rows}, {right[column] for column in self.columns}
        crop = self._crop(value, tops, lefts, size, pads, fill)
        if len(ys) == len(xs) == 1:
            y, x = ys.pop(), xs.pop()
            y0, y1, x0, x1 = max(y, 0), min(y + h, rows), max(x, 0), min(x + w, columns)

            def copy(state: BatchState) -> Tensor:
                window = state.values[value]
                if y0 >= y1 or x0 >= x1:
                    return crop(state, window.dtype, 0)[0].movedim((1, 2), axes)
                window = _narrow(window, axes, (y0 - y, x0 - x), (y1 - y0, x1 - x0))
                if (y1 - y0, x1 - x0) == size:
                    return window
                out = crop(state, window.dtype, 0)[0].movedim((1, 2), axes)
                _narrow(out, axes, (y0, x0), (y1 - y0, x1 - x0)).copy_(window)
                return out

            return copy
        inside = min(xs) >= 0 and max(xs) + w <= columns
        run = w if inside else 1
        spare = 0 if inside and min(ys) >= 0 and max(ys) + h <= rows else run  # cells for what lies outside
        channels = math.prod(self._rest(value))
        insets = self.index(Insets(down, right, region.size, size, run))

        def paste(state: BatchState) -> Tensor:
            window = state.values[value]
            out, memory = crop(state, window.dtype, spare)
            moved = window.movedim(axes, (1, 2)).reshape(-1, run * channels)
            runs_of_cells(memory, channels, run).index_copy_(0, state.indices[insets], moved)
            return out.movedim((1, 2), axes)

        return paste

    def on_region(self, value: int, region: DirtyRegion) -> Get:
        """How a batch gets a value on the windows of a region."""
        return self.block(value, region.tops, region.lefts, region.size)

    def on_whole_map(self, value: int) -> Get:
        """How a batch gets a value on the whole map."""
        region = self.regions.get(value)
        if region is None:
            return lambda state: state.values[value]
        return self.block(value, [0] * len(region.tops), [0] * len(region.lefts), region.length)

    def clean_windows(self, value: int) -> Get:
        """How a batch gets the clean map of a value on the value's windows."""
        region = self.regions[value]
        crop = self._crop(value, region.tops, region.lefts, region.size)
        return lambda state: crop(state, state.clean.values[value].dtype, 0)[0].movedim((1, 2), region.axes)

    def _crop(
        self, value: int, tops: Sequence[int], lefts: Sequence[int], size: tuple[int, int],
        pads: Pads = (0, 0, 0, 0), fill: float = 0.0,
    ) -> Callable[[BatchState, torch.dtype, int], tuple[Tensor, Tensor]]:  # fmt: skip
        """How a batch gets a part of the clean map `[N rows columns …]`, and its memory, with cells to spare at the end."""
        region = self.regions[value]
        length = region.length[0] + pads[2] + pads[3], region.length[1] + pads[0] + pads[1]
        number = self.index(Parts(length, tuple(tops), tuple(lefts), size))
        rest = self._rest(value)

        def crop(state: BatchState, dtype: torch.dtype, spare: int) -> tuple[Tensor, Tensor]:
            clean = self._clean_runs(state.clean, value, size[1], pads, fill, dtype)
            index = state.indices[number]
            if not spare:
                runs = memory = clean.index_select(0, index)
            else:
                count = len(index) * clean.shape[1]
                memory = clean.new_empty(count + spare * math.prod(rest))
                runs = memory[:count].view(len(index), -1)
                torch.index_select(clean, 0, index, out=runs)
            return runs.view(-1, *size, *rest), memory

        return crop

    def _rest(self, value: int) -> list[int]:
        """The shape of one cell of a value."""
        return [n for axis, n in enumerate(self.shapes[value]) if axis not in (0, *self.regions[value].axes)]

    def _clean_runs(
        self, clean: CleanMaps, value: int, run: int, pads: Pads, fill: float, dtype: torch.dtype
    ) -> Tensor:
        """The runs of cells of the clean maps of a value, padded. `run`: cells. `pads`, `fill`, `dtype`: of the maps."""
        key, derived = (value, pads, fill, dtype), clean.derived
        if (*key, run) not in derived:
            if key not in derived:
                maps = F.pad(clean.values[value], pads, value=fill) if any(pads) else clean.values[value]
                derived[key] = maps.movedim(self.regions[value].axes, (1, 2)).to(dtype).contiguous()
            derived[*key, run] = runs_of_cells(derived[key], math.prod(self._rest(value)), run)
        return derived[*key, run]

    def run(self, state: BatchState, first: int = 0, last: int | None = None) -> None:
        """Run the steps `[first, last)` on a batch: each value on its windows, or whole.

        `state.values` must hold value 0 (the pictures) before, and holds the wanted values after.
        """
        last = len(self.steps) if last is None else last
        for position in range(first, last):
            step = self.steps[position]
            for value, result in zip(step.outputs, self.operations[position](state), strict=True):
                if self.last_use.get(value, -1) > position:
                    state.values[value] = result
            for value in step.inputs:
                if self.last_use[value] <= position:
                    state.values.pop(value, None)


def _narrow(tensor: Tensor, axes: tuple[int, int], starts: tuple[int, int], lengths: tuple[int, int]) -> Tensor:
    for axis, start, length in zip(axes, starts, lengths, strict=True):
        if length != tensor.shape[axis]:
            tensor = tensor.narrow(axis, start, length)
    return tensor
