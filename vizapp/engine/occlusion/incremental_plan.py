"""What a change inside a square of the picture changes further up, computed there and nowhere else, exactly.

One clean pass is written down (`script.py`). A square of the picture touches, at each layer, the cells whose receptive
field meets it (`fields.py`): a window. For a batch of squares each layer is computed on those windows alone, all of one
size; what an operation needs around a window is taken from the clean pass. A window may be larger than what is
touched: what was not touched comes out as in the clean pass. Where the windows cover most of the map, and from an
operation on that mixes all cells, whole maps are computed.
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
    """Where the windows of one value lie. `axes`: the rows' and the columns' place in its shape.

    All windows are `size` large; that of the i-th row of squares begins at row `tops[i]`, and so for `lefts`.
    """

    axes: tuple[int, int]
    length: tuple[int, int]
    size: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def share(self) -> float:
        """Of the map."""
        return self.size[0] * self.size[1] / (self.length[0] * self.length[1])

    def same_place(self, other: DirtyRegion) -> bool:
        """Whether the windows have the same cells, whatever axes these lie on."""
        return (self.size, self.tops, self.lefts) == (other.size, other.tops, other.lefts)


@dataclass(frozen=True)
class AffectedCells:
    """The cells of one value that each row and each column of squares touches, `[low, high)`; equal where none."""

    axes: tuple[int, int]
    length: tuple[int, int]
    rows: tuple[np.ndarray, np.ndarray]
    columns: tuple[np.ndarray, np.ndarray]

    def frame(self, rows: Sequence[int], columns: Sequence[int]) -> DirtyRegion:
        """Windows of one size that hold what those rows and columns of squares touch."""
        (height, tops), (width, lefts) = (
            _placed(low, high, chosen, length)
            for (low, high), chosen, length in zip((self.rows, self.columns), (rows, columns), self.length, strict=True)
        )
        return DirtyRegion(self.axes, self.length, (height, width), tops, lefts)

    def cells(self) -> np.ndarray:
        """How many cells each square touches: `[rows columns]`."""
        return np.outer(self.rows[1] - self.rows[0], self.columns[1] - self.columns[0])


def _placed(low: np.ndarray, high: np.ndarray, chosen: Sequence[int], length: int) -> tuple[int, tuple[int, ...]]:
    """Size and beginnings of the windows along one direction."""
    size = max(1, int((high - low)[list(chosen)].max()))
    return size, tuple(np.minimum(low, length - size).tolist())


@dataclass
class BatchState:
    """One batch of squares on its way up: `values[v]` is `[N …]` on its windows, or whole where v has no frame."""

    plan: IncrementalPlan
    rows: list[int]
    columns: list[int]
    pictures: list[int]
    values: dict[int, Tensor] = field(default_factory=dict)

    @property
    def occluders(self) -> int:
        """How many."""
        return len(self.rows)

    def block(
        self, value: int, tops: list[int], lefts: list[int], size: tuple[int, int],
        pads: tuple[int, int, int, int] = (0, 0, 0, 0), fill: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """The part of a value that begins at `tops`, `lefts` of its padded map, clean but for its windows.

        `pads`: left, right, top, bottom, filled with `fill`. Never the value's own memory unless it is just that part.
        """
        frame, window = self.plan.frames[value], self.values[value]
        down = [frame.tops[r] + pads[2] - t for r, t in zip(self.rows, tops, strict=True)]
        right = [frame.lefts[c] + pads[0] - s for c, s in zip(self.columns, lefts, strict=True)]
        if size == frame.size and not any(down) and not any(right):
            return window
        clean = self.plan.padded(value, pads, fill)
        ya, xa = frame.axes
        shape = list(clean.shape)
        shape[0], shape[ya], shape[xa] = self.occluders, *size
        layout = torch.channels_last if frame.axes == (2, 3) and clean.ndim == 4 else torch.contiguous_format
        out = torch.empty(shape, dtype=clean.dtype, device=clean.device, memory_format=layout)
        _cut(clean, out, frame.axes, self.pictures, tops, lefts)
        out = out.to(window.dtype)  # which rounded arithmetic chose
        for begin, end in _alike(down, right):
            y, x = down[begin], right[begin]
            y0, y1, x0, x1 = max(y, 0), min(y + frame.size[0], size[0]), max(x, 0), min(x + frame.size[1], size[1])
            if y0 < y1 and x0 < x1:
                part = window[begin:end].narrow(ya, y0 - y, y1 - y0).narrow(xa, x0 - x, x1 - x0)
                out[begin:end].narrow(ya, y0, y1 - y0).narrow(xa, x0, x1 - x0).copy_(part)
        return out

    def at(self, value: int, frame: DirtyRegion) -> Tensor:
        """A value on the windows of a frame."""
        tops, lefts = [frame.tops[r] for r in self.rows], [frame.lefts[c] for c in self.columns]
        return self.block(value, tops, lefts, frame.size)

    def whole(self, value: int) -> Tensor:
        """A value on the whole map."""
        frame = self.plan.frames.get(value)
        if frame is None:
            return self.values[value]
        zeros = [0] * self.occluders
        return self.block(value, zeros, zeros, frame.length)


def _cut(
    clean: Tensor, out: Tensor, axes: tuple[int, int], pictures: list[int], tops: list[int], lefts: list[int]
) -> None:
    """Fill `out` `[N …]` with the parts of `clean` `[P …]` that begin at `tops`, `lefts` of those pictures."""
    ya, xa = axes
    if axes not in ((2, 3), (1, 2)) or clean.ndim != 4:
        for n, (p, t, s) in enumerate(zip(pictures, tops, lefts, strict=True)):
            out[n].copy_(clean[p].narrow(ya - 1, t, out.shape[ya]).narrow(xa - 1, s, out.shape[xa]))
        return
    if axes == (2, 3):
        clean, out = clean.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    # Cells lie in memory one after the other, row by row: a row of a part is one run of numbers, and one call copies all.
    count, height, width, channels = clean.shape
    _, rows, columns, _ = out.shape
    cells = clean.view(count * height * width, channels)
    runs = cells.as_strided((len(cells) - columns + 1, columns * channels), (channels, 1), cells.storage_offset())
    first = (np.array(pictures) * height + np.array(tops)) * width + np.array(lefts)  # [N]: the first cell of each part
    index = torch.from_numpy((first[:, None] + width * np.arange(rows)).reshape(-1)).to(clean.device)
    torch.index_select(runs, 0, index, out=out.view(len(index), columns * channels))


def _alike(down: list[int], right: list[int]) -> list[tuple[int, int]]:
    """Runs `[begin, end)` of squares with the same offsets."""
    ends = [n for n in range(1, len(down)) if (down[n], right[n]) != (down[n - 1], right[n - 1])]
    return list(zip([0, *ends], [*ends, len(down)], strict=True))


Operate = Callable[[BatchState], Sequence[Tensor]]


@dataclass
class IncrementalPlan:
    """How one network answers squares at certain rows and columns of pixels: an operation per step, and its windows.

    `frames[v]` are the windows of value v; a value without one is computed whole. `work` and `full_work` are the
    multiply-adds of one square by the plan and by a whole pass. `frontier` says where and why whole maps begin.
    """

    steps: list[Step]
    shapes: list[tuple[int, ...]]
    operations: list[Operate] = field(default_factory=list)
    frames: dict[int, DirtyRegion] = field(default_factory=dict)
    clean: dict[int, Tensor] = field(default_factory=dict)  # [P …] per value
    last_use: dict[int, int] = field(default_factory=dict)
    fresh: set[int] = field(default_factory=set)  # values whose memory nobody else has
    reads: set[int] = field(default_factory=set)  # values whose clean maps are needed
    work: int = 0
    full_work: int = 0
    fallback_layer: str = ""
    padded_maps: dict[Any, Tensor] = field(default_factory=dict)

    def padded(self, value: int, pads: tuple[int, int, int, int], fill: float) -> Tensor:
        """The clean maps of a value `[P …]` with room around them."""
        if not any(pads):
            return self.clean[value]
        key = (value, pads, fill)
        if key not in self.padded_maps:
            clean = F.pad(self.clean[value], pads, value=fill)
            self.padded_maps[key] = clean.contiguous(memory_format=torch.channels_last)
        return self.padded_maps[key]

    def run(self, run: BatchState, first: int = 0, last: int | None = None) -> None:
        """Bring a run through the steps `[first, last)`: each value on its windows, or whole.

        Before the first step its value 0 is set; after the last the wanted values are.
        """
        last = len(self.steps) if last is None else last
        for place in range(first, last):
            step = self.steps[place]
            for value, result in zip(step.outputs, self.operations[place](run), strict=True):
                if self.last_use.get(value, -1) > place:
                    run.values[value] = result
            for value in step.inputs:
                if self.last_use[value] <= place:
                    run.values.pop(value, None)
