"""How the window of a convolution or pool slides over its input, and the size of the output that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vizapp.engine.call_arguments import argument, pair

Window = tuple[int, int]


@dataclass(frozen=True)
class SlidingWindow:
    """Sizes of one call, each (down, across).

    `before` and `after` are the cells of padding at the two ends: with `padding="same"` and an even kernel they differ.
    Padding by an operation of its own (as for `padding_mode="reflect"`) is part of `inputs`.
    """

    inputs: Window
    kernel: Window
    stride: Window
    before: Window = (0, 0)
    after: Window = (0, 0)
    dilation: Window = (1, 1)
    groups: int | None = None  # None: a pool, which mixes no channels
    added: Window | None = None  # a transposed convolution: cells added at the end (torch's `output_padding`)
    ceil: bool = False  # a pool that rounds up

    @property
    def outputs(self) -> Window:
        """The size of the output by the formula."""
        return self._size(0)[0], self._size(1)[0]

    @property
    def equation(self) -> str:
        """The formula with its numbers, such as `⌊(2·3 + 224 − 7)/2⌋ + 1 = 112`; down and across where they differ."""
        down, across = (f"{terms} = {size}" for size, terms in map(self._size, (0, 1)))
        return down if down == across else f"down {down}; across {across}"

    def _size(self, axis: int) -> tuple[int, str]:
        """O = ⌊(2P + I − K)/S⌋ + 1 along an axis, with D·(K − 1) + 1 for K if dilated, and its text.

        Rounding up, torch leaves out a window that would start in the padding after the input. Transposed:
        O = (I − 1)·S − 2P + K + A.
        """
        before, after, dilation = self.before[axis], self.after[axis], self.dilation[axis]
        inputs, kernel, stride = self.inputs[axis], self.kernel[axis], self.stride[axis]
        reach = dilation * (kernel - 1) + 1
        padding = f"2·{before}" if before == after else f"({before} + {after})"
        width = f"{kernel}" if dilation == 1 else f"({dilation}·({kernel} − 1) + 1)"
        if self.added is not None:
            added = self.added[axis]
            size = (inputs - 1) * stride - before - after + reach + added
            return size, f"({inputs} − 1)·{stride} − {padding} + {width} + {added}"
        free = before + after + inputs - reach
        open_, close = "⌈⌉" if self.ceil else "⌊⌋"
        terms = f"{open_}({padding} + {inputs} − {width})/{stride}{close} + 1"
        if not self.ceil:
            return free // stride + 1, terms
        size = -(-free // stride) + 1
        beyond = (size - 1) * stride >= inputs + before
        return size - beyond, terms + (" − 1" if beyond else "")


def sliding_window(
    operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
) -> SlidingWindow | None:
    """The window of one operation over maps; None if it has none, or windows of several sizes.

    Args:
        operation: Its name.
        args: Positional arguments of its call.
        kwargs: Keyword arguments of its call.
        output: Its result.
    """
    base = operation.rstrip("_")
    given = argument(args, kwargs, 0, "input", None)
    if not isinstance(given, Tensor) or given.ndim < 3:
        return None
    inputs = (given.shape[-2], given.shape[-1])
    if base in {"conv2d", "conv_transpose2d"}:
        return _convolution(base == "conv_transpose2d", args, kwargs, inputs)
    if base in {"max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "lp_pool2d"}:
        place = 2 if base == "lp_pool2d" else 1
        kernel = argument(args, kwargs, place, "kernel_size", 1)
        stride = pair(argument(args, kwargs, place + 1, "stride", kernel) or kernel)
        padding = pair(argument(args, kwargs, 3, "padding", 0)) if place == 1 else (0, 0)
        dilation = pair(argument(args, kwargs, 4, "dilation", 1)) if "max" in base else (1, 1)
        ceil = argument(args, kwargs, {"avg_pool2d": 4, "lp_pool2d": 4}.get(base, 5), "ceil_mode", False)
        return SlidingWindow(inputs, pair(kernel), stride, padding, padding, dilation, ceil=bool(ceil))
    if base.startswith("adaptive_"):
        after = output.shape[-2:]
        if inputs[0] % after[0] == 0 and inputs[1] % after[1] == 0:
            sides = inputs[0] // after[0], inputs[1] // after[1]
            return SlidingWindow(inputs, sides, sides)
    if base == "mean":  # over rows and columns it is a pool of the size of the map
        dims = kwargs.get("dim", args[1] if len(args) > 1 else ())
        if given.ndim == 4 and isinstance(dims, (tuple, list)) and {dim % 4 for dim in dims} == {2, 3}:
            return SlidingWindow(inputs, inputs, (1, 1))
    return None


def _convolution(transposed: bool, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Window) -> SlidingWindow:
    weight: Tensor = argument(args, kwargs, 1, "weight", None)
    kernel = (weight.shape[-2], weight.shape[-1])
    stride, padding = pair(argument(args, kwargs, 3, "stride", 1)), argument(args, kwargs, 4, "padding", 0)
    dilation = pair(argument(args, kwargs, 7 if transposed else 5, "dilation", 1))
    groups = int(argument(args, kwargs, 6, "groups", 1))
    added = pair(argument(args, kwargs, 5, "output_padding", 0)) if transposed else None
    if padding == "same":  # torch pads the odd cell at the end
        reach = dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)
        before = reach[0] // 2, reach[1] // 2
        after = reach[0] - before[0], reach[1] - before[1]
    else:
        before = after = (0, 0) if padding == "valid" else pair(padding)
    return SlidingWindow(inputs, kernel, stride, before, after, dilation, groups, added)
