"""Passes whose batch norms run inside the convolutions before them, which is exact but for rounding."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.optimize.picture_gradient import picture_convolution
from vizapp.engine.tap import Tap, operation_name
from vizapp.engine.trace.constant_norms import factor_and_shift, with_norm

_PRECISE = (torch.float32, torch.float64)  # types of weights that may be rounded once more


class FoldedNorm(NamedTuple):
    """A batch norm that alone reads what a convolution gives, as a part of that convolution."""

    name: str
    original: Tensor  # the weight of the convolution without it
    weight: Tensor
    bias: Tensor


def fold_norms(module: nn.Module, batch: Tensor, wanted: Collection[str]) -> dict[str, FoldedNorm]:
    """The norms on the way to the `wanted` sites that can be folded, by the name of their convolution. Runs one pass."""
    with torch.no_grad(), _ReaderTap(module, wanted) as tap:
        module(batch)
    alone = {name: readers[0] for name, readers in tap.readers.items() if len(readers) == 1}
    return {name: norm for name, norm in alone.items() if norm is not None and name not in wanted}


class _ReaderTap(Tap):
    """Finds what reads the results of convolutions."""

    def __init__(self, module: nn.Module, keep: Collection[str]) -> None:
        super().__init__(module, keep)
        self.readers: dict[str, list[FoldedNorm | None]] = {}  # by the name of the convolution; None: no constant norm
        self._made = WeakTensorKeyDictionary()  # what a convolution gave -> its name, weight and bias

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation, and note which convolutions it reads."""
        operation = operation_name(function)
        made = [self._made[tensor] for tensor in tensors_in((args, kwargs)) if tensor in self._made]
        if made and operation not in {"dim", "size"}:
            scale = factor_and_shift(args, kwargs) if operation == "batch_norm" else None
            for maker, weight, bias in made:
                norm = None if scale is None else FoldedNorm(name, weight, *with_norm(weight, bias, *scale))
                self.readers.setdefault(maker, []).append(norm)
        output = super().operate(name, function, args, kwargs)
        weight, bias = argument(args, kwargs, 1, "weight", None), argument(args, kwargs, 2, "bias", None)
        if operation == "conv2d" and weight.dtype in _PRECISE:
            self._made[output] = name, weight, bias
        return output


class FoldingTap(Tap):
    """A Tap whose pass has `norms` folded; one stays where its convolution has another weight than it had then."""

    def __init__(self, module: nn.Module, keep: Collection[str], norms: dict[str, FoldedNorm]) -> None:
        super().__init__(module, keep)
        self._norms = norms
        self._normed: dict[str, Tensor] = {}  # by the name of a norm: what its convolution gave with it

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation, a folded norm inside its convolution."""
        operation = operation_name(function)
        given = argument(args, kwargs, 0, "input", None)
        if operation == "batch_norm" and name in self._normed and self._normed[name] is given:
            return super().operate(name, _same, (given,), {})
        if operation != "conv2d":
            return super().operate(name, function, args, kwargs)
        norm = self._norms.get(name)
        if norm is None or argument(args, kwargs, 1, "weight", None) is not norm.original:
            return super().operate(name, _convolve, args, kwargs)
        rest = {key: value for key, value in kwargs.items() if key not in {"input", "weight", "bias"}}
        output = super().operate(name, _convolve, (given, norm.weight, norm.bias, *args[3:]), rest)
        self._normed[norm.name] = output
        return output


def _convolve(*args: Any, **kwargs: Any) -> Tensor:
    output = picture_convolution(args, kwargs)
    return F.conv2d(*args, **kwargs) if output is None else output


def _same(given: Tensor) -> Tensor:
    return given
