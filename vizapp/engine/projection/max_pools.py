"""Max pooling with switches (positions of the maxima) and unpooling (Zeiler & Fergus 2013, section 2.1)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import argument, pair
from vizapp.engine.projection.windowed_signal import WindowedSignal
from vizapp.engine.trace.recording import Call, Step

Overlap = Literal["sum", "overwrite"]  # how overlapping windows that share a switch combine
MAX_POOLS = frozenset({"max_pool2d", "adaptive_max_pool2d"})


def pool_with_switches(call: Call) -> tuple[dict[str, Any], Tensor]:
    """The switches and the output of a max pool."""
    kwargs = {key: value for key, value in call.kwargs.items() if key != "return_indices"}
    if call.operation == "max_pool2d":
        output, switches = F.max_pool2d_with_indices(*call.args, **kwargs)
        return {"taps": _taps(switches, call.args, kwargs)}, output
    output, switches = F.adaptive_max_pool2d_with_indices(*call.args, **kwargs)
    return {"switches": switches}, output


def unpool(step: Step, signal: WindowedSignal, shape: tuple[int, ...], overlap: Overlap) -> WindowedSignal:
    """The signal at the input, of shape `shape`, of a max pool: each value goes to its switch, the rest is zero."""
    back = _unpool if "taps" in step.ctx else _unpool_adaptive
    return back(step, signal, shape, overlap)


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
    units, channels, h, w = signal.values.shape
    taps = signal.crop(step.ctx["taps"])
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


def _unpool_adaptive(step: Step, signal: WindowedSignal, shape: tuple[int, ...], overlap: Overlap) -> WindowedSignal:
    """Puts each value at the maximum of its window; windows of irregular size, on the whole map."""
    height, width = step.ctx["switches"].shape[2:]
    values = signal.dense(height, width).flatten(2)
    index = step.ctx["switches"].flatten(2).expand(signal.units, -1, -1)
    down = values.new_zeros(signal.units, values.shape[1], shape[2] * shape[3])
    if overlap == "sum":
        down.scatter_add_(2, index, values)
    else:
        for region in range(height * width):  # in reading order, so that the last one wins
            here = index[:, :, region : region + 1]
            down.scatter_(2, here, values[:, :, region : region + 1])
    zero = torch.zeros_like(signal.top)
    return WindowedSignal(down.unflatten(2, (shape[2], shape[3])), zero, zero)
