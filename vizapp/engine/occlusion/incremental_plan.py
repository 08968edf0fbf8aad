"""How a network answers occluded pictures without computing what the occluder does not change.

One clean pass is recorded (`replay.py`). At each layer, an occluder changes only the cells whose receptive field meets
it: a window. For a batch of occluders, each layer is computed on such windows alone, all of one size, and what an
operation needs around a window comes from the clean pass. A window may be larger than what is changed. Where the windows
cover most of the map, and after an operation that mixes all cells, whole maps are computed. The result is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
class BatchState:
    """One batch of occluders in the forward pass: `values[v]` is `[N …]` on its windows, or whole if v has no region."""

    plan: IncrementalPlan
    rows: list[int]
    columns: list[int]
    pictures: list[int]
    values: dict[int, Tensor] = field(default_factory=dict)

    @property
    def occluders(self) -> int:
        """How many occluders the batch has."""
        return len(self.rows)

    def block(
        self, value: int, tops: list[int], lefts: list[int], size: tuple[int, int],
        pads: tuple[int, int, int, int] = (0, 0, 0, 0), fill: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Part of a value: its window, and around it the clean map.

        Args:
            value: The number of the value.
            tops: The first row of the part on the padded map, per occluder.
            lefts: The first column.
            size: Rows and columns of the part.
            pads: Cells of padding: left, right, top, bottom.
            fill: What the padding is filled with.

        Returns:
            `[N …]`; the value's own memory only if the part is exactly its window.
        """
        region, window = self.plan.regions[value], self.values[value]
        down = [region.tops[r] + pads[2] - t for r, t in zip(self.rows, tops, strict=True)]
        right = [region.lefts[c] + pads[0] - s for c, s in zip(self.columns, lefts, strict=True)]
        if size == region.size and not any(down) and not any(right):
            return window
        clean = self.plan.padded(value, pads, fill)
        ya, xa = region.axes
        shape = list(clean.shape)
        shape[0], shape[ya], shape[xa] = self.occluders, *size
        layout = torch.channels_last if region.axes == (2, 3) and clean.ndim == 4 else torch.contiguous_format
        out = torch.empty(shape, dtype=clean.dtype, device=clean.device, memory_format=layout)
        _crop_into(clean, out, region.axes, self.pictures, tops, lefts)
        out = out.to(window.dtype)  # bfloat16 under autocast
        for begin, end in _runs_of_equal_offsets(down, right):
            y, x = down[begin], right[begin]
            y0, y1, x0, x1 = max(y, 0), min(y + region.size[0], size[0]), max(x, 0), min(x + region.size[1], size[1])
            if y0 < y1 and x0 < x1:
                part = window[begin:end].narrow(ya, y0 - y, y1 - y0).narrow(xa, x0 - x, x1 - x0)
                out[begin:end].narrow(ya, y0, y1 - y0).narrow(xa, x0, x1 - x0).copy_(part)
        return out

    def on_region(self, value: int, region: DirtyRegion) -> Tensor:
        """A value on the windows of a region."""
        tops, lefts = [region.tops[r] for r in self.rows], [region.lefts[c] for c in self.columns]
        return self.block(value, tops, lefts, region.size)

    def on_whole_map(self, value: int) -> Tensor:
        """The value on the whole map."""
        region = self.plan.regions.get(value)
        if region is None:
            return self.values[value]
        zeros = [0] * self.occluders
        return self.block(value, zeros, zeros, region.length)


def _crop_into(
    clean: Tensor, out: Tensor, axes: tuple[int, int], pictures: list[int], tops: list[int], lefts: list[int]
) -> None:
    """Copy into `out` `[N …]` the parts of `clean` `[P …]` that begin at `tops`, `lefts` of those pictures."""
    ya, xa = axes
    if axes not in ((2, 3), (1, 2)) or clean.ndim != 4:
        for n, (p, t, s) in enumerate(zip(pictures, tops, lefts, strict=True)):
            out[n].copy_(clean[p].narrow(ya - 1, t, out.shape[ya]).narrow(xa - 1, s, out.shape[xa]))
        return
    if axes == (2, 3):
        clean, out = clean.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    # In this layout a row of a part is contiguous, so that one call copies all rows of all parts.
    count, height, width, channels = clean.shape
    _, rows, columns, _ = out.shape
    cells = clean.view(count * height * width, channels)
    runs = cells.as_strided((len(cells) - columns + 1, columns * channels), (channels, 1), cells.storage_offset())
    first = (np.array(pictures) * height + np.array(tops)) * width + np.array(lefts)  # [N]: the first cell of each part
    index = torch.from_numpy((first[:, None] + width * np.arange(rows)).reshape(-1)).to(clean.device)
    torch.index_select(runs, 0, index, out=out.view(len(index), columns * channels))


def _runs_of_equal_offsets(down: list[int], right: list[int]) -> list[tuple[int, int]]:
    """Runs `[begin, end)` of occluders with the same offsets."""
    ends = [n for n in range(1, len(down)) if (down[n], right[n]) != (down[n - 1], right[n - 1])]
    return list(zip([0, *ends], [*ends, len(down)], strict=True))


Operate = Callable[[BatchState], Sequence[Tensor]]


@dataclass
class IncrementalPlan:
    """How one network answers occluders at some rows and columns of pixels: an operation per step, and its windows.

    `regions[v]` are the windows of value v; a value without one is computed whole. `work` is the multiply-adds of one
    occluder. `fallback_layer` says where and why whole maps begin.
    """

    steps: list[Step]
    shapes: list[tuple[int, ...]]
    operations: list[Operate] = field(default_factory=list)
    regions: dict[int, DirtyRegion] = field(default_factory=dict)
    clean: dict[int, Tensor] = field(default_factory=dict)  # [P …] per value
    last_use: dict[int, int] = field(default_factory=dict)
    fresh: set[int] = field(default_factory=set)  # values whose memory no other value shares
    reads: set[int] = field(default_factory=set)  # values whose clean maps are needed
    work: int = 0
    fallback_layer: str = ""
    padded_maps: dict[Any, Tensor] = field(default_factory=dict)

    def padded(self, value: int, pads: tuple[int, int, int, int], fill: float) -> Tensor:
        """The clean maps of a value `[P …]`, padded."""
        if not any(pads):
            return self.clean[value]
        key = (value, pads, fill)
        if key not in self.padded_maps:
            clean = F.pad(self.clean[value], pads, value=fill)
            self.padded_maps[key] = clean.contiguous(memory_format=torch.channels_last)
        return self.padded_maps[key]

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
