"""The call of a convolution in a pass, with its numbers: what it read, its kernels, and what it gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.call_arguments import argument
from vizapp.engine.layers.sliding_window import SlidingWindow, sliding_window
from vizapp.engine.tap import Trace, check_computed, operation_name


@dataclass(frozen=True, eq=False)
class ConvolutionCall:
    """One call of `conv2d` without groups, of one picture.

    `given` float32 `[C H W]` with its padding of zeros, `weight` `[out C kh kw]`, `bias` `[out]`, `output` `[out h w]`.
    """

    given: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    output: np.ndarray
    window: SlidingWindow

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in (self.given, self.weight, self.bias, self.output))


class _Capture(Trace):
    """Keeps the call of a site, and ends the pass after it."""

    def __init__(self, module: nn.Module, site: str) -> None:
        super().__init__(module)
        self.found: dict[str, ConvolutionCall | None] = {}
        self._site = site

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation, and keep its call if its site is wanted."""
        if self._site in self.found and name != self._site:
            raise self.enough
        given = argument(args, kwargs, 0, "input", None)
        output = function(*args, **kwargs)
        if name == self._site:
            operation = operation_name(function)
            window = sliding_window(operation, args, kwargs, output) if operation == "conv2d" else None
            self.found[name] = self.found.get(name)
            if window is not None and window.groups == 1:
                self.found[name] = _call(given, args, kwargs, output, window)
        return output


def _call(read: Tensor, args: Any, kwargs: Any, output: Tensor, window: SlidingWindow) -> ConvolutionCall:
    (top, left), (bottom, right) = window.before, window.after
    weight, bias = argument(args, kwargs, 1, "weight", None), argument(args, kwargs, 2, "bias", None)
    padded = nn.functional.pad(read[0], (left, right, top, bottom))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    given, weight, bias, made = (one.detach().float().cpu().numpy() for one in (padded, weight, bias, output[0]))
    return ConvolutionCall(given, weight, bias, made, window)


def convolution_call(module: nn.Module, batch: Tensor, site: str) -> ConvolutionCall | None:
    """The call that computes a site in a pass over `batch` `[1 C H W]`; None if it is no convolution, or has groups."""
    with torch.no_grad(), _Capture(module, site) as capture:
        module(batch.clone())
    check_computed([site], capture.found)
    return capture.found[site]
