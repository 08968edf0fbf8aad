"""A Triton kernel that reads an activation once for its maxima, their cells, sums and numbers of values other than zero."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 1024  # values that a program holds at once
_CHANNELS = 32  # neighbouring values of channels-last memory that a program reads: 128 bytes of float32


@triton.jit  # type: ignore[untyped-decorator]
def _reduce(  # type: ignore[no-untyped-def]
    maps, peaks, sums, counts, places, channels, cells, image_stride, channel_stride, cell_stride,
    LANES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One program reduces `WIDTH` channels of an image. Each lane sees every `LANES`-th cell; the lanes meet at the end."""
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    lane = tl.arange(0, LANES)
    start = maps + image * image_stride + channel[None, :] * channel_stride
    kind = peaks.dtype.element_ty
    peak = tl.full((LANES, WIDTH), float("-inf"), kind)
    place = tl.zeros((LANES, WIDTH), tl.int32)
    total = tl.zeros((LANES, WIDTH), kind)
    active = tl.zeros((LANES, WIDTH), tl.int32)
    unknown = tl.zeros((LANES, WIDTH), tl.int32)
    for first in range(0, cells, LANES):
        cell = first + lane
        inside = (cell < cells)[:, None] & (channel < channels)[None, :]
        value = tl.load(start + cell[:, None].to(tl.int64) * cell_stride, mask=inside, other=float("-inf")).to(kind)
        above = value > peak  # never for NaN
        peak = tl.where(above, value, peak)
        place = tl.where(above, cell[:, None], place)
        total += tl.where(inside, value, 0.0)
        active += (inside & (value != 0)).to(tl.int32)
        unknown += (value != value).to(tl.int32)
    highest = tl.max(peak, 0)
    earliest = tl.min(tl.where(peak == highest[None, :], place, cells), 0)
    highest = tl.where(tl.max(unknown, 0) > 0, float("nan"), highest)
    found = image * channels + channel
    tl.store(peaks + found, highest, mask=channel < channels)
    tl.store(sums + found, tl.sum(total, 0), mask=channel < channels)
    tl.store(counts + found, tl.sum(active, 0).to(kind), mask=channel < channels)
    tl.store(places + found, earliest.to(tl.int64), mask=channel < channels)


def reduce_fused(cells: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Maximum, sum, number of values other than zero and first cell of the maximum of `[N C cells]`; each `[N C]`."""
    images, channels, count = cells.shape
    peaks, sums, counts = cells.new_empty(3, images, channels, dtype=dtype).unbind()
    places = cells.new_empty(images, channels, dtype=torch.int64)
    one = cells.stride(2) == 1  # neighbours in memory are cells, otherwise channels
    lanes = min(_TILE if one else _TILE // _CHANNELS, triton.next_power_of_2(count))
    width = min(_TILE // lanes, triton.next_power_of_2(channels), _TILE if one else _CHANNELS)
    with torch.cuda.device_of(cells):
        _reduce[(images, triton.cdiv(channels, width))](
            cells, peaks, sums, counts, places, channels, count, *cells.stride(), LANES=lanes, WIDTH=width
        )
    return peaks, sums, counts, places
