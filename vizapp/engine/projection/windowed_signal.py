"""Signals on their way down from some units to the pixels, kept to the window that can be other than zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class WindowedSignal:
    """Signals of K units at one activation `[1 C H W]`, each on a window of its own.

    `values` is `[K C h w]`; the window of unit k has its upper left cell at `(top[k], left[k])` and may reach over the
    border, where `values` is zero. Everything outside of the window is zero.
    """

    values: Tensor
    top: Tensor  # [K] int64
    left: Tensor  # [K] int64

    @property
    def units(self) -> int:
        """How many units the signals belong to."""
        return self.values.shape[0]

    def covers(self, height: int, width: int) -> bool:
        """Whether every window is exactly the map of that size."""
        return tuple(self.values.shape[2:]) == (height, width) and not bool(self.top.any() or self.left.any())

    def dense(self, height: int, width: int) -> Tensor:
        """The signals on the whole map: `[K C height width]`."""
        if self.covers(height, width):
            return self.values
        k, channels, h, w = self.values.shape
        tops, lefts = self.top.tolist(), self.left.tolist()
        if len(set(tops)) == len(set(lefts)) == 1:
            top, left = tops[0], lefts[0]
            if top <= 0 and left <= 0 and top + h >= height and left + w >= width:
                return self.values[:, :, -top : height - top, -left : width - left]
        whole = self.values.new_zeros(k, channels, height, width)
        for unit, (top, left) in enumerate(zip(tops, lefts, strict=True)):  # slices are much faster than an index
            y, x = max(top, 0), max(left, 0)
            bottom, right = min(top + h, height), min(left + w, width)
            if y < bottom and x < right:
                whole[unit, :, y:bottom, x:right] = self.values[
                    unit, :, y - top : bottom - top, x - left : right - left
                ]
        return whole

    def clipped(self, height: int, width: int) -> WindowedSignal:
        """The same signals, zero outside of a map of that size, on the whole map if that is smaller.

        Writes into `values`: for signals that were just made.
        """
        _, _, h, w = self.values.shape
        if h >= height and w >= width:
            zero = torch.zeros_like(self.top)
            return WindowedSignal(self.dense(height, width), zero, zero)
        values = self.values
        for axis, start, extent, length in ((2, self.top, h, height), (3, self.left, w, width)):
            first, last = int(start.min()), int(start.max()) + extent
            if first < 0 or last > length:
                for unit, begin in enumerate(start.tolist()):  # a few slices cost less than a mask of everything
                    values[unit].narrow(axis - 1, 0, min(max(-begin, 0), extent)).zero_()
                    over = min(max(begin + extent - length, 0), extent)
                    values[unit].narrow(axis - 1, extent - over, over).zero_()
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
        tops, h = (self.top.tolist(), h) if height > 1 else ([0] * self.units, 1)
        lefts, w = (self.left.tolist(), w) if width > 1 else ([0] * self.units, 1)
        around = (  # left, right, top, bottom: so that every window lies inside
            max(0, -min(lefts)), max(0, max(lefts) + w - width), max(0, -min(tops)), max(0, max(tops) + h - height)
        )  # fmt: skip
        whole = F.pad(values, around, value=beyond)[0] if any(around) else values[0]
        return torch.stack(
            [
                whole[:, t + around[2] : t + around[2] + h, s + around[0] : s + around[0] + w]
                for t, s in zip(tops, lefts, strict=True)
            ]
        )

    def with_values(self, values: Tensor) -> WindowedSignal:
        """Other values on the same windows."""
        return WindowedSignal(values, self.top, self.left)


def merge(a: WindowedSignal, b: WindowedSignal) -> WindowedSignal:
    """The sum of two signals at one activation, on the smallest window that holds both."""
    if a.values.shape == b.values.shape and torch.equal(a.top, b.top) and torch.equal(a.left, b.left):
        return a.with_values(a.values + b.values)
    top, left = torch.minimum(a.top, b.top), torch.minimum(a.left, b.left)
    bottom = torch.maximum(a.top + a.values.shape[2], b.top + b.values.shape[2])
    right = torch.maximum(a.left + a.values.shape[3], b.left + b.values.shape[3])
    height, width = int((bottom - top).max()), int((right - left).max())
    total = _placed(a, top, left, height, width) + _placed(b, top, left, height, width)
    return WindowedSignal(total, top, left)


def _placed(window: WindowedSignal, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """The window's values on a larger window that begins at `top`, `left` and has that size."""
    shift = WindowedSignal(window.values, window.top - top, window.left - left)
    down, right = shift.top, shift.left
    if bool((down == down[0]).all()) and bool((right == right[0]).all()):
        dy, dx = int(down[0]), int(right[0])
        h, w = window.values.shape[2:]
        return F.pad(window.values, (dx, width - w - dx, dy, height - h - dy))
    return shift.dense(height, width)


Signal = WindowedSignal | Tensor  # of a value [1 C H W]: a WindowedSignal; of a value of any other shape s: [K, *s]


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
    if len(shape) == 4 and shape[0] == 1:
        zero = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        return WindowedSignal(values[:, 0], zero, zero)
    return values


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
