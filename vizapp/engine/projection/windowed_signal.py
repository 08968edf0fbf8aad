"""Signals on their way down from some units to the pixels, kept to the window that can be other than zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class WindowedSignal:
    """Signals of K units at one activation `[1 C H W]`, each on a window of its own.

    `values` is `[K C h w]`; the window of unit k has its upper left cell at `(top[k], left[k])` and may reach over the
    border, where `values` is zero. Everything outside of the window is zero.

    No method calls torch more often for more units: on a GPU, calls take longer than what they compute.
    """

    values: Tensor
    top: np.ndarray  # [K] int64; not on the device, whose answers have to be waited for
    left: np.ndarray  # [K] int64

    @property
    def units(self) -> int:
        """How many units the signals belong to."""
        return self.values.shape[0]

    def covers(self, height: int, width: int) -> bool:
        """Whether every window is exactly the map of that size."""
        return tuple(self.values.shape[2:]) == (height, width) and not (self.top.any() or self.left.any())

    def dense(self, height: int, width: int) -> Tensor:
        """The signals on the whole map: `[K C height width]`."""
        if self.covers(height, width):
            return self.values
        k, channels, h, w = self.values.shape
        y, x = int(self.top[0]), int(self.left[0])
        if (self.top == y).all() and (self.left == x).all() and -h < y < height and -w < x < width:
            if y <= 0 and x <= 0 and y + h >= height and x + w >= width:
                return self.values[:, :, -y : height - y, -x : width - x]
            return F.pad(self.values, (x, width - w - x, y, height - h - y))
        (top, bottom), (left, right) = _beyond(self.top, h, height), _beyond(self.left, w, width)
        whole = self.values.new_zeros(k, channels, top + height + bottom, left + width + right)
        starts = np.arange(k) * whole.stride(0) + _starts(whole, self.top + top, self.left + left)
        _every_window(whole, h, w).index_copy_(0, _on_device(starts, whole), self.values)
        return whole[:, :, top : top + height, left : left + width]

    def clipped(self, height: int, width: int) -> WindowedSignal:
        """The same signals, zero outside of a map of that size, on the whole map if that is smaller.

        Writes into `values`: for signals that were just made.
        """
        _, _, h, w = self.values.shape
        if h >= height and w >= width:
            return whole_maps(self.dense(height, width))
        for axis, start, extent, length in ((2, self.top, h, height), (3, self.left, w, width)):
            for at_end, outside in ((False, -start), (True, start + extent - length)):
                most = min(int(outside.max()), extent)  # rows or columns at this end that are outside for some unit
                if most > 0:
                    number = np.arange(most)[:: -1 if at_end else 1]
                    mask = _on_device(number < outside[:, None], self.values).view(-1, 1, *((most, 1)[:: 5 - 2 * axis]))
                    self.values.narrow(axis, extent - most if at_end else 0, most).masked_fill_(mask, 0)
        return self

    def crop(self, values: Tensor, beyond: int = 0) -> Tensor:
        """The windows of a forward quantity `[1 C H W]`: `[K C h w]`, or `[1 C H W]` when the window is the map.

        `beyond` is what lies beyond the border.

        An axis of size 1 (a factor that broadcasts over rows or columns) keeps it.
        """
        height, width = values.shape[2:]
        if self.covers(height, width) or (height == 1 and width == 1):
            return values
        _, _, h, w = self.values.shape
        tops, h = (self.top, h) if height > 1 else (np.zeros_like(self.top), 1)
        lefts, w = (self.left, w) if width > 1 else (np.zeros_like(self.left), 1)
        (top, bottom), (left, right) = _beyond(tops, h, height), _beyond(lefts, w, width)
        if top or bottom or left or right:
            values = F.pad(values, (left, right, top, bottom), value=beyond)
        every, starts = _every_window(values, h, w), _on_device(_starts(values, tops + top, lefts + left), values)
        if values.stride(1) == 1:  # channels-last
            return every.permute(0, 2, 3, 1).index_select(0, starts).permute(0, 3, 1, 2)
        return every.index_select(0, starts)

    def with_values(self, values: Tensor) -> WindowedSignal:
        """Other values on the same windows."""
        return WindowedSignal(values, self.top, self.left)


def whole_maps(values: Tensor) -> WindowedSignal:
    """Signals `[K C H W]` on the whole of their maps."""
    zero = np.zeros(len(values), np.int64)
    return WindowedSignal(values, zero, zero)


def _beyond(start: np.ndarray, extent: int, length: int) -> tuple[int, int]:
    """How far the windows of that extent reach over the two ends of an axis of that length."""
    return max(0, -int(start.min())), max(0, int(start.max()) + extent - length)


def _every_window(maps: Tensor, height: int, width: int) -> Tensor:
    """Every window of maps `[K C H W]`: a view `[offset C height width]` by the offset of the window's first number."""
    k, _, h, w = maps.shape
    stride = maps.stride()
    offsets = (k - 1) * stride[0] + (h - height) * stride[2] + (w - width) * stride[3] + 1
    return maps.as_strided((offsets, maps.shape[1], height, width), (1, *stride[1:]))


def _starts(maps: Tensor, top: np.ndarray, left: np.ndarray) -> np.ndarray:
    return top * maps.stride(2) + left * maps.stride(3)


def _on_device(numbers: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(numbers).to(like.device)


def merge(a: WindowedSignal, b: WindowedSignal) -> WindowedSignal:
    """The sum of two signals at one activation, on the smallest window that holds both."""
    if a.values.shape == b.values.shape and (a.top == b.top).all() and (a.left == b.left).all():
        return a.with_values(a.values + b.values)
    top, left = np.minimum(a.top, b.top), np.minimum(a.left, b.left)
    bottom = np.maximum(a.top + a.values.shape[2], b.top + b.values.shape[2])
    right = np.maximum(a.left + a.values.shape[3], b.left + b.values.shape[3])
    height, width = int((bottom - top).max()), int((right - left).max())
    placed = [WindowedSignal(one.values, one.top - top, one.left - left).dense(height, width) for one in (a, b)]
    return WindowedSignal(placed[0] + placed[1], top, left)


Signal = WindowedSignal | Tensor  # of a value [1 C H W]: a WindowedSignal; of a value of any other shape s: [K, *s]


def added(a: Signal, b: Signal) -> Signal:
    """The sum of two signals at one value."""
    if isinstance(a, WindowedSignal) and isinstance(b, WindowedSignal):
        return merge(a, b)
    assert isinstance(a, Tensor)
    assert isinstance(b, Tensor)
    return a + b


def map_values(signal: Signal, change: Callable[[Tensor], Tensor]) -> Signal:
    """The signal with `change` applied to its values."""
    return signal.with_values(change(signal.values)) if isinstance(signal, WindowedSignal) else change(signal)


def as_dtype(signal: Signal, dtype: torch.dtype) -> Signal:
    """The signal in the type of the value that it is at."""

    def cast(values: Tensor) -> Tensor:
        return (values.real if values.is_complex() and not dtype.is_complex else values).to(dtype)

    return map_values(signal, cast)


def scale(signal: Signal, factor: Tensor) -> Signal:
    """The signal times a forward quantity `[1 …]` of the same value (or one that broadcasts to it), conjugated if complex."""
    factor = factor.conj()
    if isinstance(signal, WindowedSignal):
        return signal.with_values(signal.values * signal.crop(factor[(None,) * (4 - factor.ndim)]))
    return signal * factor


def as_signal(values: Tensor, shape: tuple[int, ...]) -> Signal:
    """Signals `[K, *shape]` as a Signal of a value of that shape."""
    return whole_maps(values[:, 0]) if len(shape) == 4 and shape[0] == 1 else values


def as_tensor(signal: Signal, shape: tuple[int, ...]) -> Tensor:
    """A Signal of a value of that shape as a tensor `[K, *shape]`."""
    return signal.dense(shape[2], shape[3])[:, None] if isinstance(signal, WindowedSignal) else signal


def sum_to_shape(signal: Signal, broadcast: tuple[int, ...], shape: tuple[int, ...]) -> Signal:
    """The signal at a value of that shape, from the one at what it was broadcast to."""
    if broadcast == shape:
        return signal
    values = as_tensor(signal, broadcast)
    ones = (1,) * (len(broadcast) - len(shape))
    return as_signal(values.sum_to_size(len(values), *ones, *shape).reshape(len(values), *shape), shape)
