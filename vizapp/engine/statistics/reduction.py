"""Reductions of an activation on a CPU during a pass: maxima, sums, number of zeros, and the cells of the maxima.

They are memory-bound and compete with the forward pass for bandwidth. So each piece of an activation is read from memory
once and then from the CPU's caches. Numpy replaces torch loops that are not vectorized (the search for zeros and for the
cells of maxima). `map_reduction.py` is for other devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_PIECE = 3 * 2**19  # bytes of an activation that a CPU reduces at once: the size of its per-core caches
_RUN = 32  # cells per run; the maximum of each run is kept, so that only one run is searched for the cell
_GATHER = 2**17  # values gathered at once in the search for the cells of maxima
_LONG = 1000  # cells of a map from which on searching maps one by one is faster than gathering several
_NUMPY = (torch.float32, torch.float64)  # types that numpy supports


@dataclass(frozen=True)
class Runs:
    """An activation as runs of neighbouring cells, without a copy.

    `values` is `[N·runs, cells of a run, C]` for channels-last activations, otherwise `[N·C, cells, 1]` with one run.
    """

    values: Tensor
    runs: int
    pictures: int

    @classmethod
    def of(cls, maps: Tensor) -> Runs:
        """The runs of `[N C]` or `[N C h w]`."""
        if maps.ndim == 2:
            return cls(maps[:, None], 1, len(maps))
        if maps.stride(1) != 1 or maps.shape[1] == 1:
            return cls(maps.flatten(2).flatten(0, 1)[:, :, None], 1, len(maps))
        values = maps.permute(0, 2, 3, 1).flatten(1, 2)
        cells = values.shape[1]
        runs = next((n for n in range(-(-cells // _RUN), cells // 8 + 1) if cells % n == 0), 1)
        return cls(values.unflatten(1, (runs, cells // runs)).flatten(0, 1), runs, len(maps))


def is_on_cpu(tensor: Tensor) -> bool:
    """Whether the tensor is reduced here."""
    return tensor.device.type == "cpu"


class Reduction:
    """Reduces activations in reused buffers; allocation would cost more than the reduction."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Maximum, sum and number of zeros over the cells of `[R cells C]`: three tensors `[R C]` of type `dtype`.

        The next call overwrites them. The number of zeros is exact (up to 2^24 cells in float32).
        """
        rows, cells, columns = values.shape
        like = values.new_empty(0, dtype=dtype)
        peaks, sums, zeros = (self._buffer(name, (rows, columns), like) for name in ("peaks", "sums", "zeros"))
        zeros.zero_()
        step = max(1, _PIECE // (cells * columns * dtype.itemsize))
        parts = zip(*(whole.split(step) for whole in (values, peaks, sums, zeros)), strict=True)
        had = False
        # Backwards: the end was written last and is still cached, and the next layer starts reading at the beginning.
        for part, peak, total, zero in reversed(list(parts)):
            piece = part.to(dtype)
            if had or has_zero(piece):
                # Comparing into floats and summing them is four times as fast as booleans.
                torch.sum(torch.eq(piece, 0, out=self._buffer("equal", tuple(piece.shape), like)), 1, out=zero)
                had = bool(zero.any())
            # After the search for zeros, which reads memory in order; these two read by columns.
            torch.amax(piece, 1, out=peak)
            torch.sum(piece, 1, out=total)
        return peaks, sums, zeros

    def _buffer(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        size, buffer = math.prod(shape), self._buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.dtype != like.dtype or buffer.device != like.device:
            buffer = self._buffers[name] = like.new_empty(size)
        return buffer[:size].view(shape)


def has_zero(piece: Tensor) -> bool:
    """Whether a float32 or float64 tensor on the CPU contains a zero of either sign.

    Numpy reads it once, on one thread: as fast as two reads by two threads, and nothing waits for a second thread that other
    work holds up.
    """
    return not piece.detach().numpy().all()


def argmax_cells(maps: Runs, peaks: Tensor, number: Tensor, channel: Tensor) -> Tensor:
    """The cells `[n]` of the maxima of pairs of image `number` and `channel`; the first of equal ones. No NaN allowed.

    `peaks` are the maxima of the runs, `[N runs C]`; for one run, `[N C]` in any shape.
    """
    values, length = maps.values, maps.values.shape[1]
    if values.shape[2] == 1:
        return _argmax_rows(values[:, :, 0], number * (peaks.numel() // maps.pictures) + channel)
    found = []
    step = max(1, _GATHER // length)
    for n, c in zip(number.split(step), channel.split(step), strict=True):
        run = argmax_first(peaks.view(maps.pictures, maps.runs, -1)[n, :, c])
        picked = values[n * maps.runs + run, :, c]  # [pairs, cells of a run]
        found.append(run * length + argmax_first(picked))
    return torch.cat(found)


def _argmax_rows(rows: Tensor, index: Tensor) -> Tensor:
    """`argmax_first` of the rows in `index`."""
    if rows.shape[1] >= _LONG and rows.dtype in _NUMPY:
        array = rows.detach().numpy()
        return torch.tensor([array[number].argmax() for number in index.tolist()])
    step = max(1, _GATHER // rows.shape[1])
    return torch.cat([argmax_first(rows.index_select(0, part)) for part in index.split(step)])


def argmax_first(rows: Tensor) -> Tensor:
    """The index `[n]` of the first maximum of each row of `[n L]`. No NaN allowed."""
    exact = rows if rows.dtype in _NUMPY else rows.float()
    return torch.from_numpy(exact.detach().numpy().argmax(1))


def topk_indices(values: Tensor, top: int) -> Tensor:
    """Indices `[U top]` of the largest values of each row of `[U L]`, in descending order, ties by index.

    On a CPU each float32 and its index are packed into one int64 key (order-preserving bits, then the index). A plain sort
    of the keys is ten times as fast as a stable sort of the floats.
    """
    if values.dtype != torch.float32 or not is_on_cpu(values):
        return values.sort(dim=1, descending=True, stable=True).indices[:, :top]
    bits = (values + 0.0).view(torch.int32)  # -0 becomes 0
    rising = bits ^ (bits.bitwise_right_shift(31) & 0x7FFFFFFF)  # integers in the order of the floats
    keys = (~rising).long().bitwise_left_shift_(32).bitwise_or_(torch.arange(values.shape[1]))
    return torch.from_numpy(np.sort(keys.numpy(), axis=1)[:, :top]) & 0xFFFFFFFF
