"""Which cells of a map a convolution or a max pool reads for one of its results, in any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vizapp.engine.call_arguments import argument
from vizapp.engine.trace.recording import Step


class Taps(NamedTuple):
    """The taps of a kernel `[k1 · k2 …]`: their places in a plane, flat, whether they lie outside; its geometry in `words`."""

    places: np.ndarray
    outside: np.ndarray
    words: str


def convolution_taps(
    step: Step, kernel: Sequence[int], plane: Sequence[int], cell: Sequence[int], transposed: bool
) -> Taps:
    """The cells under the kernel of a convolution.

    Of a transposed one, those from which a tap of the kernel reaches the cell; a tap that no cell reaches it with is outside.

    Args:
        step: The convolution.
        kernel: Size of its kernel by axis.
        plane: Size of a channel of its input.
        cell: Cell of its result.
        transposed: Whether it is a transposed one.
    """
    axes = len(kernel)
    stride = _sizes(step, 3, "stride", 1, axes)
    dilation = _sizes(step, 7 if transposed else 5, "dilation", 1, axes)
    given = argument(step.args, step.kwargs, 4, "padding", 0)
    if given == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    else:
        padding = (0,) * axes if given == "valid" else _all_axes(given, axes)
    lines = []
    for k, size, at, s, d, p in zip(kernel, plane, cell, stride, dilation, padding, strict=True):
        taps = np.arange(k)
        if transposed:
            reach = at + p - taps * d
            lines.append(np.where((reach % s == 0) & (reach // s >= 0) & (reach // s < size), reach // s, -1))
        else:
            line = at * s - p + taps * d
            lines.append(np.where((line >= 0) & (line < size), line, -1))
    told = [("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)]
    words = "".join(f", {name} {_short(sizes)}" for name, sizes, usual in told if any(n != usual for n in sizes))
    return Taps(*_grid(lines, plane), words)


def pool_taps(step: Step, plane: Sequence[int], result: Sequence[int], cell: Sequence[int]) -> Taps:
    """The cells that a max pool, or an adaptive one, compares.

    Args:
        step: The pool.
        plane: Size of a channel of its input.
        result: Size of a channel of its result.
        cell: Cell of its result.
    """
    axes, lines = len(plane), []
    if step.operation.startswith("adaptive"):
        for size, out, at in zip(plane, result, cell, strict=True):
            lines.append(np.arange(at * size // out, -(-(at + 1) * size // out)))
        return Taps(*_grid(lines, plane), "")
    kernel = _sizes(step, 1, "kernel_size", 1, axes)
    stride = _all_axes(argument(step.args, step.kwargs, 2, "stride", ()) or kernel, axes)
    padding, dilation = _sizes(step, 3, "padding", 0, axes), _sizes(step, 4, "dilation", 1, axes)
    for k, size, at, s, d, p in zip(kernel, plane, cell, stride, dilation, padding, strict=True):
        line = at * s - p + np.arange(k) * d
        lines.append(np.where((line >= 0) & (line < size), line, -1))
    return Taps(*_grid(lines, plane), "")


def _grid(lines: Sequence[np.ndarray], plane: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The flat places of a grid of cells, -1 outside, given along each axis; and which are outside."""
    each = np.meshgrid(*lines, indexing="ij")
    outside = np.any([line < 0 for line in each], 0).ravel()
    places = np.ravel_multi_index([line.clip(0) for line in each], tuple(plane)).ravel()
    return np.where(outside, -1, places), outside


def _sizes(step: Step, position: int, name: str, default: Any, axes: int) -> tuple[int, ...]:
    return _all_axes(argument(step.args, step.kwargs, position, name, default), axes)


def _all_axes(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(n) for n in (values * axes if len(values) == 1 else values))


def _short(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else " × ".join(map(str, sizes))
