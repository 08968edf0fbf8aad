"""Relevance through products of activations, divisions, norms of each picture, softmax and attention.

Achtibat et al. 2024, "AttnLRP", section 3: propositions 3.1 (softmax), 3.3 (products) and 3.4 (norms). What is neither of
these nor a choice of numbers (a maximum, an index) is refused: its plain gradient would not be relevance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, map_leaves, tensors_in
from vizapp.engine.operations import BILINEAR, SUMS_WITH_PRODUCTS, WEIGHTED
from vizapp.engine.projection.gates import reciprocal_of
from vizapp.engine.projection.transposes import derivative
from vizapp.engine.projection.windowed_signal import Signal, as_tensor
from vizapp.engine.trace.recording import Call, Step, bind
from vizapp.errors import VizError

_Shapes = list[tuple[int, ...]]
_CHOICES = frozenset({
    "maximum", "minimum", "fmax", "fmin", "where", "topk", "sort", "median", "kthvalue", "max", "min", "amax", "amin",
    "masked_fill", "masked_scatter", "getitem", "gather", "index_select", "take_along_dim", "masked_select", "setitem",
    "index_put", "scatter", "add", "sub", "cat", "stack", "cummax", "cummin", "overlay", "take", "msort",
})  # fmt: skip
_PRODUCTS = frozenset({"mul"}) | BILINEAR | WEIGHTED | SUMS_WITH_PRODUCTS


def divisors(call: Call) -> frozenset[int]:
    """The places of the inputs by which a call divides, or with whose reciprocal it multiplies."""
    if call.operation == "truediv":
        return frozenset(
            i for i, x in enumerate(call.inputs) if x is not argument(call.args, call.kwargs, 0, "input", None)
        )
    if call.operation != "mul" or len(call.inputs) < 2:
        return frozenset()
    found = frozenset(i for i, value in enumerate(call.step.reads) if reciprocal_of(value, call) is not None)
    return found if len(found) < len(call.inputs) else frozenset()


def shared(step: Step, signals: list[Signal | None], shapes: _Shapes) -> tuple[list[Signal | None], str]:
    """The signals at the inputs of a step that is not affine, and what it counts as.

    Raises:
        VizError: there is no rule for the operation.
    """
    name = step.operation.rstrip("_")
    if "instead" in step.ctx or step.ctx.get("divisors"):
        held = {1} if "instead" in step.ctx else step.ctx["divisors"]
        down = derivative(step, signals, shapes)
        return [None if place in held else signal for place, signal in enumerate(down)], "norms"
    if name in _CHOICES:
        return derivative(step, signals, shapes), "choices"
    if name == "softmax":
        return derivative(step, signals, shapes), "attention"
    function = _FUNCTIONS.get(name) or (_half if name in _PRODUCTS and len(step.inputs) > 1 else None)
    if function is None:
        raise refusal(step)
    old = step.function
    changed = replace(step, function=lambda *args, **kwargs: function(old, *args, **kwargs))
    return derivative(changed, signals, shapes), "norms" if name in _NORMS else "attention"


def refusal(step: Step) -> VizError:
    """The error for an operation without a rule."""
    what = "a custom autograd function" if step.ctx.get("family") == "custom" else "an operation"
    return VizError(
        f"LRP has no rule for {step.operation.rstrip('_')!r} ({step.name or 'written in place'}), {what} between the unit and "
        "the pixels of this network. Choose another kind of attribution, such as integrated gradients.",
        code="no-relevance",
    )


def balance(
    step: Step, signals: list[Signal | None], below: Sequence[Signal | None], shapes: _Shapes
) -> tuple[Tensor, Tensor]:
    """The relevance `[K]` that a step takes: what comes in, less what goes on."""
    at = dict(zip(step.reads if "instead" not in step.ctx else step.inputs, step.ctx["at"], strict=False))
    function, given = step.ctx.get("instead", (step.function, step.args))
    args, kwargs = bind(given, {k: v.clone() for k, v in at.items()}), {} if "instead" in step.ctx else step.kwargs
    output = function(*args, **bind(kwargs, at))
    results = tensors_in(args[0] if step.operation == "setitem" else output)

    def total(pairs: Iterable[tuple[Signal | None, Tensor, int]]) -> Any:
        return sum((as_tensor(s, shapes[v]) * x)[..., None].flatten(1).sum(1) for s, x, v in pairs if s is not None)

    came = total(zip(signals, results, step.outputs, strict=False))
    went = total(zip(below, (at[value] for value in step.inputs), step.inputs, strict=True))
    taken = came - went
    return taken, torch.zeros_like(taken)


def _part(x: Any, share: float) -> Any:
    """The same numbers, with a share of their derivative."""
    return x * share + (x * (1 - share)).detach() if isinstance(x, Tensor) and x.requires_grad else x


def _half(old: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return old(*map_leaves(args, lambda x: _part(x, 0.5)), **map_leaves(kwargs, lambda x: _part(x, 0.5)))


def _attention(old: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Two products: half of the relevance goes to the values, half through softmax to queries and keys."""
    return old(_part(query, 0.25), _part(key, 0.25), _part(value, 0.5), *args, **kwargs)


def _normalised(x: Tensor, axes: tuple[int, ...], eps: float, centred: bool = True) -> Tensor:
    """The numbers less their mean, over their deviation, which is a constant."""
    x = x - x.mean(axes, keepdim=True) if centred else x
    return x * (x.square().mean(axes, keepdim=True) + eps).rsqrt().detach()


def _layer_norm(
    old: Callable[..., Any], input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *rest: Any,
) -> Tensor:  # fmt: skip
    found = _normalised(input, tuple(range(-len(normalized_shape), 0)), eps)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


def _rms_norm(
    old: Callable[..., Any], input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:  # fmt: skip
    smallest = torch.finfo(input.dtype).eps if eps is None else eps
    found = _normalised(input, tuple(range(-len(normalized_shape), 0)), smallest, False)
    return found if weight is None else found * weight


def _group_norm(
    old: Callable[..., Any], input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *rest: Any,
) -> Tensor:  # fmt: skip
    grouped = input.unflatten(1, (num_groups, -1))
    found = _normalised(grouped, tuple(range(2, grouped.ndim)), eps).view_as(input)
    shape = (-1, *(1,) * (input.ndim - 2))
    found = found if weight is None else found * weight.view(shape)
    return found if bias is None else found + bias.view(shape)


_NORMS: dict[str, Callable[..., Any]] = {"layer_norm": _layer_norm, "rms_norm": _rms_norm, "group_norm": _group_norm}
_FUNCTIONS = _NORMS | {"scaled_dot_product_attention": _attention}
