"""Class scores at every position of a large photo, in tiles that fit into memory, at the native stride or a finer one.

Cell (i, j) is the prediction for the crop of the training size with its upper left corner at (i, j) times the stride. A
finer map interleaves runs over shifted input (shift-and-stitch: Long et al. 2015, section 3.2; exact for any network).
If the last strided layers do not pad, one run computes several offsets (offset pooling: Sermanet et al. 2013, section 3.3).
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

Pair = tuple[int, int]  # down, across
Read = Callable[[int, int, int, int], Tensor]  # top, left, bottom, right -> that part of the photo `[1 C h w]`


@dataclass(frozen=True)
class DenseMap:
    """Class scores of the crops of a photo."""

    scores: np.ndarray  # float32 [K h w]
    classes: np.ndarray  # int64 [K], the classes of `scores`
    log_sum: np.ndarray  # float64 [h w], logarithm of the sum of the exponentials of all scores; 0 behind sigmoids
    label: np.ndarray  # int64 [h w], the class with the highest score
    mean: np.ndarray  # float64 [all classes], over the map
    peak: np.ndarray  # float32 [all classes], maximum over the map
    stride: int  # pixels between rows of cells
    across: int  # pixels between columns of cells, for most networks the same
    runs: int  # number of passes over shifted input
    shared: int  # offsets per direction inside each run
    tiles: int  # per run

    def boxes(self, size: Pair) -> np.ndarray:
        """The crop (top, left, bottom, right), in pixels, that each cell sees, `[h w 4]`; `size` is its height and width."""
        h, w = self.label.shape
        top, left = np.meshgrid(np.arange(h) * self.stride, np.arange(w) * self.across, indexing="ij")
        return np.stack([top, left, top + size[0], left + size[1]], 2).astype(np.int64)


def available_strides(plan: ConversionPlan) -> list[int]:
    """The possible strides of a map, coarsest first; only the native one if rows and columns have different steps."""
    native, across = plan.stride
    return [s for s in range(native, 0, -1) if native % s == 0] if native == across else [native]


def map_size(plan: ConversionPlan, height: int, width: int, stride: int) -> Pair:
    """Rows and columns of the map of a photo of `height` × `width` pixels: the crops that lie inside the photo."""
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
    """The dense prediction map of a photo.

    Args:
        module: The classifier.
        plan: Its conversion plan.
        read: Returns the part (top, left, bottom, right) of the photo, in pixels, as network input `[1 C h w]`.
        height: Height of the photo in pixels.
        width: Width of the photo in pixels.
        device: Where the network runs.
        stride: Pixels between rows of cells, a divisor of the native stride. None: the native stride.
        keep: The classes whose scores are returned. None: all; empty: none.
        memory: Bytes for activations. None: half of the free memory.
        share: Compute offsets inside one run where the result is the same.
        tick: Called with the completed fraction after each tile; an exception from it ends the work.

    Raises:
        VizError: The stride does not divide the native one, the photo is smaller than the training crop, or one cell
            does not fit into memory.
    """
    stride = plan.stride[0] if stride is None else stride
    if stride not in available_strides(plan):
        listed = ", ".join(map(str, available_strides(plan)))
        raise VizError(
            f"Maps of this network can have a stride of {listed} pixels; {stride} was requested.",
            code="no-such-stride",
        )
    _checked_size(plan, height, width, stride)
    shared = plan.shared(plan.stride[0] // stride) if share else 1
    work = _Tiling(plan, stride, shared, height, width)
    limit = memory if memory is not None else int(free_memory(device) * SHARE_OF_FREE_MEMORY)
    tile = work.largest_tile(limit)
    while True:
        try:
            return _in_tiles(module, work, read, tile, device, keep, tick)
        except DoesNotFit as error:  # smaller tiles give the same map
            if tile == (1, 1):
                raise error.named(f"a map of {width} x {height} pixels", "a smaller zoom") from None
        tile = _smaller(tile)  # tiles overlap, so this is not half the bytes


def _checked_size(plan: ConversionPlan, height: int, width: int, stride: int) -> Pair:
    """`map_size`, of which a photo that is smaller than a crop has none."""
    rows, columns = map_size(plan, height, width, stride)
    if not rows or not columns:
        raise VizError(
            f"The photo is {width} × {height} pixels, smaller than the {plan.size[1]} × {plan.size[0]} pixels of the "
            "network's input; enlarge it, or use the crop.",
            code="picture-too-small",
        )
    return rows, columns


def crop_map(
    plan: ConversionPlan,
    classify: Callable[[Sequence[tuple[int, int, int, int]]], Tensor],
    height: int,
    width: int,
    stride: int,
    keep: Sequence[int] | None = None,
    batch: int = 8,
    tick: Tick | None = None,
) -> DenseMap:
    """The map of `dense_map`, with the crop of each cell classified by itself.

    The two differ where layers pad, or where gates average over what they see.

    Args:
        plan: The conversion plan of the classifier.
        classify: Returns the scores `[N classes]` of these parts (top, left, bottom, right) of the photo.
        height: Height of the photo in pixels.
        width: Width of the photo in pixels.
        stride: Pixels between rows of cells.
        keep: The classes whose scores are returned. None: all; empty: none.
        batch: Number of crops that are classified at a time.
        tick: Called with the completed fraction after each batch.

    Raises:
        VizError: The photo is smaller than the training crop.
    """
    rows, columns = _checked_size(plan, height, width, stride)
    across = _column_stride(plan, stride)
    corners = [(row * stride, column * across) for row in range(rows) for column in range(columns)]
    chosen = np.arange(plan.classes) if keep is None else np.asarray(keep, np.int64)

    def run(some: Sequence[Pair]) -> Tensor:
        found = classify([(top, left, top + plan.size[0], left + plan.size[1]) for top, left in some])
        return found.float().cpu()

    scores = np.empty((len(corners), len(chosen)), np.float32)
    label, log_sum = np.empty(len(corners), np.int64), np.zeros(len(corners))
    total, peak, done = np.zeros(plan.classes), np.full(plan.classes, -np.inf, np.float32), 0
    for block in in_chunks(corners, run, batch, tick):  # [n classes]
        part = slice(done, done := done + len(block))
        scores[part], label[part] = block[:, chosen].numpy(), block.argmax(1).numpy()
        if plan.head.link == "softmax":
            log_sum[part] = block.double().logsumexp(1).numpy()
        total += block.double().sum(0).numpy()
        peak = np.maximum(peak, block.amax(0).numpy())
    grid = rows, columns
    return DenseMap(
        np.ascontiguousarray(scores.T).reshape(-1, *grid), chosen, log_sum.reshape(grid), label.reshape(grid),
        total / len(corners), peak, stride, across, len(corners), 1, 1,
    )  # fmt: skip


def _smaller(tile: Pair) -> Pair:
    """The tile halved along its longer side; (1, 1) stays."""
    down, across = tile
    return (down, math.ceil(across / 2)) if across >= down else (math.ceil(down / 2), across)


def _in_tiles(
    module: nn.Module, work: _Tiling, read: Read, tile: Pair, device: torch.device, keep: Sequence[int] | None,
    tick: Tick | None,
) -> DenseMap:  # fmt: skip
    """The map, computed in tiles of `tile` native strides, down and across."""
    plan, stride, shared = work.plan, work.stride, work.shared
    rows, columns = map_size(plan, work.height, work.width, stride)
    parts = list(work.tiles(tile))
    chosen = np.arange(plan.classes) if keep is None else np.asarray(keep, np.int64)
    scores = np.empty((len(chosen), rows, columns), np.float32)
    label, log_sum = np.empty((rows, columns), np.int64), np.zeros((rows, columns))
    total, peak = np.zeros(plan.classes), np.full(plan.classes, -np.inf, np.float32)
    index = torch.from_numpy(chosen).to(device)

    def run(some: Sequence[_Tile]) -> None:
        (part,) = some
        block = work.scores(module, part, read)  # [classes h w]
        where = part.cells(work.run_spacing)
        scores[:, where[0], where[1]] = block.index_select(0, index).float().cpu().numpy()
        label[where] = block.argmax(0).cpu().numpy()
        if plan.head.link == "softmax":
            log_sum[where] = block.double().logsumexp(0).cpu().numpy()
        np.add(total, block.sum((1, 2), dtype=torch.float64).cpu().numpy(), out=total)
        np.maximum(peak, block.amax((1, 2)).float().cpu().numpy(), out=peak)

    for _ in in_chunks(parts, run, 1, tick):
        pass
    runs = len({part.shift for part in parts})
    mean, across = total / label.size, _column_stride(plan, stride)
    return DenseMap(scores, chosen, log_sum, label, mean, peak, stride, across, runs, shared, len(parts) // runs)


@dataclass(frozen=True)
class _Tile:
    """A tile of one run: cells `first:last` of the map of the shifted photo, down and across, and the pixels they need."""

    shift: Pair  # in pixels
    place: Pair  # position of the run among the interleaved runs
    first: Pair  # in cells, shared offsets included
    last: Pair
    box: tuple[int, int, int, int]  # top, left, bottom, right in pixels of the shifted photo
    inner: Pair  # position of the first cell in the map of the tile

    def cells(self, apart: int) -> tuple[slice, slice]:
        """Rows and columns of the whole map that the tile computes: every `apart`-th."""
        rows, columns = (
            slice(place + first * apart, place + (last - 1) * apart + 1, apart)
            for place, first, last in zip(self.place, self.first, self.last, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class _Tiling:
    """The division of a map into runs and tiles."""

    plan: ConversionPlan
    stride: int
    shared: int
    height: int
    width: int

    @property
    def run_spacing(self) -> int:
        """Cells of the whole map between two neighbouring cells of one run."""
        return self.plan.stride[0] // self.shared // self.stride

    def scores(self, module: nn.Module, part: _Tile, read: Read) -> Tensor:
        """Scores `[classes h w]` of the cells of a tile."""
        (dy, dx), (top, left, bottom, right) = part.shift, part.box
        found = dense_scores(module, self.plan, read(top + dy, left + dx, bottom + dy, right + dx), self.shared)[0]
        rows, columns = (
            slice(begin, begin + last - first)
            for begin, first, last in zip(part.inner, part.first, part.last, strict=True)
        )
        return found[:, rows, columns]

    def tiles(self, tile: Pair) -> Iterator[_Tile]:
        """All tiles of all runs, each of `tile` native strides."""
        down, across = tile[0] * self.shared, tile[1] * self.shared  # in cells
        step = [native // self.shared for native in self.plan.stride]
        for y, x in itertools.product(range(self.run_spacing), repeat=2):
            shift = y * self.stride, x * self.stride
            size = self.height - shift[0], self.width - shift[1]
            count = [max(0, (size[i] - self.plan.size[i]) // step[i] + 1) for i in range(2)]
            for row, column in itertools.product(range(0, count[0], down), range(0, count[1], across)):
                last = min(row + down, count[0]), min(column + across, count[1])
                yield self._tile(shift, (y, x), (row, column), last, size)

    def _tile(self, shift: Pair, place: Pair, first: Pair, last: Pair, size: Pair) -> _Tile:
        begins, ends = [], []
        for i in range(2):
            start, extent, native = (self.plan.field.rows, self.plan.field.columns)[i].regular()
            # Whole strides, so that the windows of each layer are aligned in the tile as in the photo.
            begins.append(max(0, (first[i] // self.shared * native + min(start, 0)) // native * native))
            reach = max(
                start + extent, self.plan.size[i]
            )  # what the network crops off its maps is part of the tile, too
            end = (last[i] - 1) // self.shared * native + native - native // self.shared + reach
            ends.append(min(size[i], max(end, begins[i] + self.plan.size[i])))
        inner = [first[i] - begins[i] // self.plan.stride[i] * self.shared for i in range(2)]
        return _Tile(shift, place, first, last, (begins[0], begins[1], ends[0], ends[1]), (inner[0], inner[1]))

    def largest_tile(self, memory: int) -> Pair:
        """The largest tile, in native strides down and across, that fits into `memory` bytes.

        Raises:
            VizError: Not even one cell fits.
        """
        rows, columns = map_size(self.plan, self.height, self.width, self.plan.stride[0])
        tile = max(1, rows), max(1, columns)
        while self.bytes(*tile) > memory:
            if tile == (1, 1):
                needed = self.bytes(1, 1) / 1e9
                raise VizError(
                    f"One cell of this map needs about {needed:.1f} GB, but only {memory / 1e9:.1f} GB may be used; free "
                    "some memory, or use a smaller network.",
                    code="out-of-memory",
                )
            tile = _smaller(tile)
        return tile

    def bytes(self, down: int, across: int) -> int:
        """Peak memory in bytes for a tile of `down` × `across` native strides."""
        pixels = 1.0
        for i, (count, length) in enumerate(((down, self.height), (across, self.width))):
            pixels *= min(length, self.plan.field.size[i] + (count + 1) * self.plan.stride[i])
        head = down * across * self.shared**2 * self.plan.cell_bytes
        return int(SCRATCH * (pixels * self.plan.pixel_bytes + head))
