"""Where the cells of a batch of occluders are, as indices: one call then moves the cells of all of them, however many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

Ints = np.ndarray  # int64


@dataclass(frozen=True)
class Occluders:
    """A batch of occluders: the numbers of the row, the column and the picture of each `[N]`."""

    rows: Ints
    columns: Ints
    pictures: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Parts:
    """Parts of maps `[M H W …]`, one per occluder, all of one size.

    Attributes:
        length: H and W.
        tops: The part's first row, per row of occluders.
        lefts: Its first column, per column of occluders.
        size: Its rows and columns.
        maps: The map that it is cut from: that of the occluder's picture, the occluder's own, or one for all.
    """

    length: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    size: tuple[int, int]
    maps: Literal["picture", "own", "one"] = "picture"

    def of(self, occluders: Occluders) -> Ints:
        """The first cell of each row of each part `[N·rows]`, counted over all maps."""
        whose = {"picture": occluders.pictures, "own": np.arange(len(occluders)), "one": np.zeros(1, int)}
        maps = whose[self.maps]
        top, left = np.array(self.tops)[occluders.rows], np.array(self.lefts)[occluders.columns]
        first = (maps * self.length[0] + top) * self.length[1] + left
        return (first[:, None] + self.length[1] * np.arange(self.size[0])).reshape(-1)


@dataclass(frozen=True)
class Insets:
    """Where the cells of windows lie in parts of maps, in runs.

    Attributes:
        down: Rows from the part's top to the window's, per row of occluders; negative where the window begins before.
        right: Columns from the part's left side to the window's, per column of occluders.
        window: Rows and columns of a window.
        size: Rows and columns of a part.
        run: Columns that are moved together: all of the window's, or 1 where some may lie outside the part.
    """

    down: tuple[int, ...]
    right: tuple[int, ...]
    window: tuple[int, int]
    size: tuple[int, int]
    run: int

    def of(self, occluders: Occluders) -> Ints:
        """The cell of all parts where each run begins `[N·h·w/run]`; of runs outside, the cell after the last."""
        (h, w), (rows, columns) = self.window, self.size
        y = (np.array(self.down)[occluders.rows][:, None] + np.arange(h))[:, :, None]
        x = (np.array(self.right)[occluders.columns][:, None] + np.arange(0, w, self.run))[:, None]
        cells = (np.arange(len(occluders))[:, None, None] * rows + y) * columns + x
        inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        return np.where(inside, cells, len(occluders) * rows * columns).reshape(-1)


@dataclass(frozen=True)
class Occluded:
    """The cells of the windows of pictures: those that the occluder hides come from as many maps behind the pictures.

    Attributes:
        parts: The windows.
        boxes: First and end row of each row of occluders, and first and end column of each column of occluders.
        pictures: How many pictures there are.
    """

    parts: Parts
    boxes: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
    pictures: int

    def of(self, occluders: Occluders) -> Ints:
        """The cell of pictures and patches for each cell of the windows `[N·h·w]`."""
        (h, w), (height, width) = self.parts.size, self.parts.length
        hidden = []
        for ranges, starts, chosen, size in zip(
            self.boxes, (self.parts.tops, self.parts.lefts), (occluders.rows, occluders.columns), (h, w), strict=True
        ):
            at = np.array(starts)[chosen][:, None] + np.arange(size)  # [N size]
            first, end = np.array(ranges)[chosen].T[:, :, None]
            hidden.append((at >= first) & (at < end))
        cells = self.parts.of(occluders).reshape(-1, h, 1) + np.arange(w)
        behind = self.pictures * height * width
        return (cells + behind * (hidden[0][:, :, None] & hidden[1][:, None])).reshape(-1)


Index = Parts | Insets | Occluded


def runs_of_cells(memory: Tensor, channels: int, run: int) -> Tensor:
    """A view of contiguous cells `[… channels]`, `[cells-run+1 run·channels]`: `run` cells from each one on.

    What is moved together is one row of it. Its rows overlap: write only to some that do not.
    """
    count = memory.numel() // channels
    return memory.as_strided((count - run + 1, run * channels), (channels, 1), memory.storage_offset())
