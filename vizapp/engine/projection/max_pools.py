"""Max pooling with switches (positions of the maxima) and unpooling (Zeiler & Fergus 2013, section 2.1)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair, tensors_in
from vizapp.engine.projection.windowed_signal import Signal, WindowedSignal, as_signal, as_tensor
from vizapp.engine.trace.recording import Call, Step

Overlap = Literal["sum", "overwrite"]  # how overlapping windows that share a switch combine
_POOLS = frozenset({
    f"{kind}max_pool{axes}d" for kind in ("", "adaptive_", "fractional_") for axes in (1, 2, 3)
}) - {"fractional_max_pool1d"}  # fmt: skip
MAX_POOLS = _POOLS | {f"{name}_with_indices" for name in _POOLS}
UNPOOLS = frozenset({"max_unpool1d", "max_unpool2d", "max_unpool3d"})


_EXTREMES = frozenset({"amax", "amin", "max", "min"})


def is_max_pool(call: Call) -> bool:
    """Whether the operation takes the largest (or smallest) numbers of windows or of whole axes."""
    if call.operation in _EXTREMES:
        return sum(1 for _ in tensors_in((call.args, call.kwargs))) == 1
    return call.operation in MAX_POOLS


def pool_with_switches(call: Call) -> tuple[dict[str, Any], Any]:
    """The switches and the output of a max pool."""
    if call.operation in _EXTREMES:
        x = argument(call.args, call.kwargs, 0, "input", None)
        axes = argument(call.args, call.kwargs, 1, "dim", None)
        axes = range(x.ndim) if axes is None or axes == () else axes if isinstance(axes, (tuple, list)) else (axes,)
        last = sorted(axis % x.ndim for axis in axes)
        order = [axis for axis in range(x.ndim) if axis not in last] + last
        flat = x.permute(order).flatten(x.ndim - len(last))
        switches = flat.argmin(-1) if call.operation.endswith("min") else flat.argmax(-1)
        return {"switches": switches, "order": order, "axes": len(last)}, call.run()
    name = call.operation.removesuffix("_with_indices")
    pooled, switches = getattr(F, f"{name}_with_indices")(*call.args, **call.kwargs)
    both = call.operation != name or call.function is torch.adaptive_max_pool1d
    output = (pooled, switches) if both else pooled
    if name == "max_pool2d" and switches.ndim == 4 and len(switches) == 1:
        return {"taps": _taps(switches, call.args, call.kwargs)}, output
    return {"switches": switches, "axes": int(name[-2])}, output


def unpool(step: Step, signal: Signal, shapes: list[tuple[int, ...]], overlap: Overlap) -> Signal:
    """The signal at the input of a max pool: each value goes to its switch, the rest is zero."""
    shape = shapes[step.inputs[0]]
    if "order" in step.ctx:
        order, axes = step.ctx["order"], step.ctx["axes"]
        index = step.ctx["switches"]
        values = as_tensor(signal, shapes[step.outputs[0]])
        values = values.reshape(len(values), *index.shape, 1)
        moved = [shape[axis] for axis in order]
        down = values.new_zeros(*values.shape[:-1], math.prod(moved[len(moved) - axes :]))
        down.scatter_(-1, index[None, ..., None].expand_as(values), values)
        back = [order.index(axis) + 1 for axis in range(len(order))]
        return as_signal(down.view(len(values), *moved).permute(0, *back), shape)
    if "taps" in step.ctx and isinstance(signal, WindowedSignal):
        return _unpool(step, signal, shape, overlap)
    return as_signal(_unpool_flat(step, as_tensor(signal, shapes[step.outputs[0]]), shape, overlap), shape)


def _pool_geometry(args: Any, kwargs: Any) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and dilation of a max pool."""
    kernel = argument(args, kwargs, 1, "kernel_size", 1)
    stride = argument(args, kwargs, 2, "stride", kernel) or kernel
    padding, dilation = argument(args, kwargs, 3, "padding", 0), argument(args, kwargs, 4, "dilation", 1)
    return pair(kernel), pair(stride), pair(padding), pair(dilation)


def _taps(switches: Tensor, args: Any, kwargs: Any) -> Tensor:
    """The position of each maximum in its window, row by row: `[1 C h w]`, uint8 if possible."""
    kernel, stride, padding, dilation = _pool_geometry(args, kwargs)
    width = argument(args, kwargs, 0, "input", None).shape[-1]
    rows, columns = (torch.arange(n, device=switches.device) for n in switches.shape[-2:])
    row = torch.div(switches, width, rounding_mode="floor") - (rows * stride[0] - padding[0])[:, None]
    column = switches % width - (columns * stride[1] - padding[1])
    taps = torch.div(row, dilation[0], rounding_mode="floor") * kernel[1] + torch.div(
        column, dilation[1], rounding_mode="floor"
    )
    return taps.to(torch.uint8 if kernel[0] * kernel[1] < 256 else torch.int32)


def _unpool(step: Step, signal: WindowedSignal, shape: tuple[int, ...], overlap: Overlap) -> WindowedSignal:
    """Puts each value at the maximum of its window, one window position after another.

    Where windows overlap, values add up, or the last window in reading order wins.
    """
    kernel, stride, padding, dilation = _pool_geometry(step.args, step.kwargs)
    if overlap == "overwrite":  # windows around the signal's, where it is zero, may win
        y, x = ((k - 1) * d // s for k, d, s in zip(kernel, dilation, stride, strict=True))
        signal = WindowedSignal(F.pad(signal.values, (x, x, 0, y)), signal.top, signal.left - x)
    units, channels, h, w = signal.values.shape
    taps = signal.crop(step.ctx["taps"], kernel[0] * kernel[1])  # no tap beyond the border
    size = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip((h, w), stride, kernel, dilation, strict=True)]
    down = signal.values.new_zeros(units, channels, *size)
    for tap in reversed(range(kernel[0] * kernel[1])):  # a later window reaches a pixel with an earlier position
        y, x = tap // kernel[1] * dilation[0], tap % kernel[1] * dilation[1]
        part = down[:, :, y : y + (h - 1) * stride[0] + 1 : stride[0], x : x + (w - 1) * stride[1] + 1 : stride[1]]
        here = taps == tap
        if overlap == "sum":
            part += signal.values * here
        else:
            part.copy_(torch.where(here, signal.values, part))
    top, left = signal.top * stride[0] - padding[0], signal.left * stride[1] - padding[1]
    return WindowedSignal(down, top, left).clipped(shape[2], shape[3])


def _unpool_flat(step: Step, values: Tensor, shape: tuple[int, ...], overlap: Overlap) -> Tensor:
    """Puts each value `[K …]` at the maximum of its window; windows of any kind, on the whole map."""
    axes = step.ctx["axes"]
    values, index = (
        values.flatten(-axes),
        step.ctx["switches"].flatten(-axes).expand(len(values), *values.shape[1:-axes], -1),
    )
    down = values.new_zeros(*values.shape[:-1], math.prod(shape[-axes:]))
    if overlap == "sum":
        down.scatter_add_(-1, index, values)
    else:
        for region in range(index.shape[-1]):  # in reading order, so that the last one wins
            down.scatter_(-1, index[..., region : region + 1], values[..., region : region + 1])
    return down.unflatten(-1, shape[-axes:])
