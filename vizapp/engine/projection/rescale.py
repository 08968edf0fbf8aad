"""The rescale rule of DeepLIFT for any network: ratios of differences in place of derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.call_arguments import map_leaves, tensors_in
from vizapp.engine.operations import ACTIVATIONS, canonical_name
from vizapp.engine.projection.max_pools import MAX_POOLS
from vizapp.engine.tap import Tap, qualified_name

# Functions of each number, and those that are one where only one of what they read depends on the picture, such as x * (x > 0).
_CURVED = ACTIVATIONS | frozenset({
    "abs", "cos", "erf", "exp", "expm1", "log", "log1p", "log2", "masked_fill", "maximum", "minimum", "mul", "pow",
    "reciprocal", "rsqrt", "sin", "sqrt", "square", "where",
})  # fmt: skip
_POOLS = frozenset(name for name in MAX_POOLS if not name.startswith("fractional"))
_SAME = 1e-6  # a number and that on the baseline, apart by a smaller share of their size, keep the derivative


class RescaleTap(Tap):
    """A Tap of a pass over two pictures, a photo and its baseline, whose gradients are DeepLIFT's multipliers.

    Shrikumar et al. 2017, section 3.5.2: what goes back through a function of each number is multiplied by the difference of
    its results on both pictures, divided by that of its inputs; that of a max pool goes to the largest number of the photo, and
    for the part that the baseline has more of to the largest of the baseline. Functions are found however they are written.
    Products of activations, softmax and the largest number of a whole map keep their derivative.
    """

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation; values stay, its gradient is replaced."""
        known = canonical_name(qualified_name(function)).rstrip("_")
        varying = [tensor for tensor in tensors_in((args, kwargs)) if tensor.requires_grad]
        rule = _ratio if known in _CURVED else _pool if known in _POOLS else None
        if rule is not None and len(varying) == 1 and varying[0].ndim > 0 and len(varying[0]) == 2:
            function = functools.wraps(function)(functools.partial(rule, function, varying[0]))
        return super().operate(name, function, args, kwargs)


def _ratio(function: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The results of a function of each number of `x`."""
    source, given = x.clone(), x.clone()
    args, kwargs = map_leaves((args, kwargs), lambda value: given if value is x else value)
    result = function(*args, **kwargs)
    if not isinstance(result, Tensor) or result.shape != source.shape:
        return result
    step, same = _steps(source)
    values = result.detach()
    slope = torch.where(same, 0, (values[:1] - values[1:]) / step)
    replaced = torch.where(same, result, values + slope * (source - source.detach()))
    return x.copy_(replaced) if result is given else replaced


def _pool(function: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The results of a max pool of `x`."""
    known = canonical_name(qualified_name(function))
    name = known.removesuffix("_with_indices")
    pooled, switches = getattr(F, f"{name}_with_indices")(*args, **kwargs)
    axes = int(name[-2])
    values, (step, same) = pooled.detach(), _steps(x)
    moved = x - x.detach()
    shares, plain = (
        torch.where(same, 0, moved[:1] / step).flatten(-axes),
        torch.where(same, moved[:1], 0).flatten(-axes),
    )

    def at(numbers: Tensor, picture: int) -> Tensor:
        index = switches[picture : picture + 1].flatten(-axes)
        return numbers.gather(-1, index).view_as(values[:1])

    largest = torch.maximum(values[:1], values[1:])
    change = (largest - values[1:]) * at(shares, 0) + (values[:1] - largest) * at(shares, 1) + at(plain, 0)
    replaced = torch.cat([values[:1] + change, values[1:]])
    both = known != name or function is torch.adaptive_max_pool1d
    return (replaced, switches) if both else replaced


def _steps(x: Tensor) -> tuple[Tensor, Tensor]:
    """The differences of the photo from the baseline `[1 …]`, 1 where they are too small to divide by, and where they are."""
    photo, baseline = x.detach()[:1], x.detach()[1:]
    same = (photo - baseline).abs() <= _SAME * torch.maximum(photo.abs(), baseline.abs())
    return torch.where(same, 1, photo - baseline), same
