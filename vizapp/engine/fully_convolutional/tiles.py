"""Class scores at every place of a large photo: in tiles that fit into memory, at the native stride or a finer one.

Cell (i, j) is the prediction for the crop of the training size whose upper left corner lies at (i, j) times the stride.
A finer map is made of runs over shifted input, interleaved ("shift-and-stitch": Long et al. 2015, section 3.2; exact
for any network); where the layers from some stride on do not pad, those runs share everything below it (Sermanet et
al. 2013, section 3.3, the offsets of the last pool).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.fully_convolutional.conversion_plan import ConversionPlan
from vizapp.engine.fully_convolutional.forward import dense_scores
from vizapp.engine.memory.chunks import SCRATCH, SHARE_OF_FREE_MEMORY, DoesNotFit, Tick, free_memory, in_chunks
from vizapp.errors import VizError

Read = Callable[[int, int, int, int], Tensor]  # top, left, bottom, right -> that part of the photo `[1 C h w]`


@dataclass(frozen=True)
class DenseMap:
    """Scores of a photo's crops. `scores` float32 `[K h w]` of `classes` int64 `[K]`; `label` int64 `[h w]`.

    Cells are `stride` pixels apart from row to row and `across` from column to column, which is the same for most networks.
    `mean` and `peak` float64 and float32 `[all classes]`: scores averaged over the map, and their greatest.
    """

    scores: np.ndarray
    classes: np.ndarray
    label: np.ndarray
    mean: np.ndarray
    peak: np.ndarray
    stride: int
    across: int
    runs: int  # over shifted input
    shared: int  # offsets, per direction, inside each run
    tiles: int

    def boxes(self, size: tuple[int, int]) -> np.ndarray:
        """(top, left, bottom, right) in pixels of the crop of `size` (height, width) that each cell saw: `[h w 4]`."""
        h, w = self.label.shape
        top, left = np.meshgrid(np.arange(h) * self.stride, np.arange(w) * self.across, indexing="ij")
        return np.stack([top, left, top + size[0], left + size[1]], 2).astype(np.int64)


def available_strides(plan: ConversionPlan) -> list[int]:
    """The strides that a map can have, coarsest first; one where rows and columns have different steps."""
    native, across = plan.stride
    return [s for s in range(native, 0, -1) if native % s == 0] if native == across else [native]


def map_size(plan: ConversionPlan, height: int, width: int, stride: int) -> tuple[int, int]:
    """Rows and columns of the map: the crops that lie inside of a photo of that size."""
    across = _column_stride(plan, stride)
    return max(0, (height - plan.size[0]) // stride + 1), max(0, (width - plan.size[1]) // across + 1)


def _column_stride(plan: ConversionPlan, stride: int) -> int:
    """Pixels between columns of a map whose rows are `stride` apart."""
    return plan.stride[1] * stride // plan.stride[0]


def dense_map(
    module: nn.Module,
    plan: ConversionPlan,
    read: Read,
    height: int,
    width: int,
    device: torch.device,
    stride: int | None = None,
    keep: Sequence[int] | None = None,
    memory: int | None = None,
    share: bool = True,
    tick: Tick | None = None,
) -> DenseMap:
    """The map of a photo of `height` × `width` pixels, of which `read` gives any part as the network takes it.

    `keep`: the classes whose scores are wanted (all by default, none if empty); `memory`: bytes for activations (half
    of what is free by default); `share`: offsets inside of a run where that gives the same.

    Raises:
        VizError: the stride does not divide the native one, the photo is smaller than the training crop, or not even
            one cell fits into the memory.
    """
    stride = plan.stride[0] if stride is None else stride
    if stride not in available_strides(plan):
        listed = ", ".join(map(str, available_strides(plan)))
        raise VizError(
            f"A map of this network can have a stride of {listed} pixels; {stride} was asked for.",
            code="no-such-stride",
        )
    rows, columns = map_size(plan, height, width, stride)
    if not rows or not columns:
        raise VizError(
            f"The picture is {width} × {height} pixels, smaller than the {plan.size[1]} × {plan.size[0]} that the "
            "network sees at once; enlarge it, or take the crop.",
            code="picture-too-small",
        )
    shared = plan.shared(plan.stride[0] // stride) if share else 1
    work = _Tiling(plan, stride, shared, height, width)
    limit = memory if memory is not None else int(free_memory(device) * SHARE_OF_FREE_MEMORY)
    tile = work.largest_tile(limit)
    while True:
        try:
            return _in_tiles(module, work, read, tile, device, keep, tick)
        except DoesNotFit as error:  # tiles of that size; of smaller ones the same map is made
            if tile == (1, 1):
                raise error.named(f"a map of {width} x {height} pixels", "a smaller zoom") from None
        tile = _smaller(tile)  # not half the bytes: tiles overlap, so that those of one stride may take more


def _smaller(tile: tuple[int, int]) -> tuple[int, int]:
    """A tile of half as many strides, along the longer side; (1, 1) stays."""
    down, across = tile
    return (down, math.ceil(across / 2)) if across >= down else (math.ceil(down / 2), across)


def _in_tiles(
    module: nn.Module, work: _Tiling, read: Read, tile: tuple[int, int], device: torch.device, keep: Sequence[int] | None,
    tick: Tick | None,
) -> DenseMap:  # fmt: skip
    """The map in tiles of so many native strides, down and across."""
    plan, stride, shared = work.plan, work.stride, work.shared
    rows, columns = map_size(plan, work.height, work.width, stride)
    parts = list(work.tiles(tile))
    chosen = np.arange(plan.classes) if keep is None else np.asarray(keep, np.int64)
    scores = np.empty((len(chosen), rows, columns), np.float32)
    label = np.empty((rows, columns), np.int64)
    total, peak = np.zeros(plan.classes), np.full(plan.classes, -np.inf, np.float32)
    index = torch.from_numpy(chosen).to(device)

    def run(some: Sequence[_Tile]) -> None:
        (part,) = some
        block = work.scores(module, part, read)  # [classes h w]
        where = part.rows_of(work.run_spacing), part.columns_of(work.run_spacing)
        scores[:, where[0], where[1]] = block.index_select(0, index).float().cpu().numpy()
        label[where] = block.argmax(0).cpu().numpy()
        np.add(total, block.sum((1, 2), dtype=torch.float64).cpu().numpy(), out=total)
        np.maximum(peak, block.amax((1, 2)).float().cpu().numpy(), out=peak)

    for _ in in_chunks(parts, run, 1, tick):
        pass
    runs = len({part.shift for part in parts})
    return DenseMap(
        scores,
        chosen,
        label,
        total / label.size,
        peak,
        stride,
        _column_stride(plan, stride),
        runs,
        shared,
        len(parts) // runs,
    )


@dataclass(frozen=True)
class _Tile:
    """A tile of one run: cells `first:last` of the shifted photo's own map, down and across, and the pixels they need.

    `shift` in pixels; cells count the offsets that are shared inside of the run; `box` (top, left, bottom, right) in
    pixels of the shifted photo; `inner`: where the first cell stands in the map of the tile.
    """

    shift: tuple[int, int]
    place: tuple[int, int]  # of the shift among the interleaved runs
    first: tuple[int, int]
    last: tuple[int, int]
    box: tuple[int, int, int, int]
    inner: tuple[int, int]

    def rows_of(self, apart: int) -> slice:
        """Rows of the whole map that the tile gives: every `apart`-th."""
        return slice(self.place[0] + self.first[0] * apart, self.place[0] + (self.last[0] - 1) * apart + 1, apart)

    def columns_of(self, apart: int) -> slice:
        """Columns of the whole map that the tile gives."""
        return slice(self.place[1] + self.first[1] * apart, self.place[1] + (self.last[1] - 1) * apart + 1, apart)


@dataclass(frozen=True)
class _Tiling:
    """How a map is divided into runs and tiles."""

    plan: ConversionPlan
    stride: int
    shared: int
    height: int
    width: int

    @property
    def run_spacing(self) -> int:
        """How many runs stand between two neighbouring cells of one run."""
        return self.plan.stride[0] // self.shared // self.stride

    def scores(self, module: nn.Module, part: _Tile, read: Read) -> Tensor:
        """Scores `[classes h w]` of a tile's cells."""
        (dy, dx), (top, left, bottom, right) = part.shift, part.box
        found = dense_scores(module, self.plan, read(top + dy, left + dx, bottom + dy, right + dx), self.shared)[0]
        rows, columns = (
            slice(begin, begin + last - first)
            for begin, first, last in zip(part.inner, part.first, part.last, strict=True)
        )
        return found[:, rows, columns]

    def tiles(self, tile: tuple[int, int]) -> Iterator[_Tile]:
        """All tiles of all runs, each of so many native strides."""
        down, across = tile[0] * self.shared, tile[1] * self.shared  # in cells
        step = [native // self.shared for native in self.plan.stride]
        for place in itertools.product(range(self.run_spacing), repeat=2):
            y, x = place
            shift = y * self.stride, x * self.stride
            size = self.height - shift[0], self.width - shift[1]
            count = [max(0, (size[i] - self.plan.size[i]) // step[i] + 1) for i in range(2)]
            for row, column in itertools.product(range(0, count[0], down), range(0, count[1], across)):
                last = min(row + down, count[0]), min(column + across, count[1])
                yield self._tile(shift, (y, x), (row, column), last, size)

    def _tile(
        self,
        shift: tuple[int, int],
        place: tuple[int, int],
        first: tuple[int, int],
        last: tuple[int, int],
        size: tuple[int, int],
    ) -> _Tile:
        begins, ends = [], []
        for i in range(2):
            span, native = (self.plan.field.rows, self.plan.field.columns)[i], self.plan.stride[i]
            assert span.start is not None
            assert span.size is not None
            # Whole strides, so that each layer's windows lie in the tile as they lie in the photo.
            begins.append(max(0, (first[i] // self.shared * native + span.start) // native * native))
            end = (last[i] - 1) // self.shared * native + native - native // self.shared + span.start + span.size
            ends.append(min(size[i], max(end, begins[i] + self.plan.size[i])))
        inner = [first[i] - begins[i] // self.plan.stride[i] * self.shared for i in range(2)]
        return _Tile(shift, place, first, last, (begins[0], begins[1], ends[0], ends[1]), (inner[0], inner[1]))

    def largest_tile(self, memory: int) -> tuple[int, int]:
        """Native strides of a tile, down and across, that fit into so much memory.

        Raises:
            VizError: not even one does.
        """
        tile = self._strides_in(self.height, 0), self._strides_in(self.width, 1)
        while self.bytes(*tile) > memory:
            if tile == (1, 1):
                needed = self.bytes(1, 1) / 1e9
                raise VizError(
                    f"One cell of this map needs about {needed:.1f} GB, and {memory / 1e9:.1f} GB may be used; free "
                    "some memory, or take a smaller network.",
                    code="out-of-memory",
                )
            tile = _smaller(tile)
        return tile

    def _strides_in(self, length: int, i: int) -> int:
        return max(1, (length - self.plan.size[i]) // self.plan.stride[i] + 1)

    def bytes(self, down: int, across: int) -> int:
        """Memory that a tile of that many native strides takes at its widest."""
        pixels = 1.0
        for i, (count, length) in enumerate(((down, self.height), (across, self.width))):
            span = (self.plan.field.rows, self.plan.field.columns)[i]
            assert span.size is not None
            pixels *= min(length, span.size + (count + 1) * self.plan.stride[i])
        head = down * across * self.shared**2 * self.plan.cell_bytes
        return int(SCRATCH * (pixels * self.plan.pixel_bytes + head))
