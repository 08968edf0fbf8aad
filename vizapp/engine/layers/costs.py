"""Cost and window of one operation, from its arguments: one short rule per family of operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from vizapp.engine.call_arguments import argument, pair

Window = tuple[int, int]


def multiply_adds(operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    """Multiply-adds of convolutions, linear layers and matrix products, without biases; 0 for other operations.

    He et al. 2015 call this FLOPs; for Szegedy et al. 2014 it is "ops".
    """
    rule = _PRODUCTS.get(operation.rstrip("_"))
    return 0 if rule is None else int(rule(args, kwargs, output))


def arithmetic(operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> int:
    """Number of multiplications, additions, comparisons and function evaluations.

    Two per multiply-add and one per bias. Per result: the window size for pools, two for normalizations, one for any other
    operation that computes.
    """
    base = operation.rstrip("_")
    if base in _PRODUCTS:
        bias = argument(args, kwargs, 2, "bias", None) if base == "linear" or base.startswith("conv") else None
        return 2 * multiply_adds(base, args, kwargs, output) + (output.numel() if isinstance(bias, Tensor) else 0)
    if base in _FREE:
        return 0
    kernel, _ = window(base, args, kwargs, output)
    if kernel is not None:
        return output.numel() * math.prod(kernel)
    return output.numel() * (2 if base.endswith("_norm") else 1)


def window(
    operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
) -> tuple[Window | None, Window | None]:
    """Kernel and stride, (down, across); None if the operation has no window, or windows of several sizes."""
    base = operation.rstrip("_")
    if base in {"conv2d", "conv_transpose2d"}:
        weight: Tensor = argument(args, kwargs, 1, "weight", None)
        return (weight.shape[-2], weight.shape[-1]), pair(argument(args, kwargs, 3, "stride", 1))
    if base in {"max_pool2d", "max_pool2d_with_indices", "avg_pool2d"}:
        kernel = argument(args, kwargs, 1, "kernel_size", 1)
        return pair(kernel), pair(argument(args, kwargs, 2, "stride", kernel) or kernel)
    if base.startswith("adaptive_"):
        before, after = argument(args, kwargs, 0, "input", output).shape[-2:], output.shape[-2:]
        if before[0] % after[0] == 0 and before[1] % after[1] == 0:
            sides = before[0] // after[0], before[1] // after[1]
            return sides, sides
    if base == "mean":  # over rows and columns it is a pool of the size of the map
        shape = argument(args, kwargs, 0, "input", None).shape
        dims = kwargs.get("dim", args[1] if len(args) > 1 else ())
        if len(shape) == 4 and isinstance(dims, (tuple, list)) and {dim % 4 for dim in dims} == {2, 3}:
            return (shape[2], shape[3]), (1, 1)
    return None, None


def _convolution(args: Any, kwargs: Any, output: Tensor) -> int:
    return output.numel() * argument(args, kwargs, 1, "weight", None)[0].numel()


def _transposed(args: Any, kwargs: Any, output: Tensor) -> int:
    return argument(args, kwargs, 0, "input", None).numel() * argument(args, kwargs, 1, "weight", None)[0].numel()


def _matmul(args: Any, kwargs: Any, output: Tensor) -> int:
    return output.numel() * argument(args, kwargs, 0, "input", None).shape[-1]


def _added_matmul(args: Any, kwargs: Any, output: Tensor) -> int:
    return output.numel() * args[1].shape[-1]


def _einsum(args: Any, kwargs: Any, output: Tensor) -> int:
    if not isinstance(args[0], str) or "." in args[0]:
        return 0
    tensors: Sequence[Tensor] = args[1] if isinstance(args[1], (tuple, list)) else args[1:]
    letters = args[0].replace(" ", "").split("->")[0].split(",")
    sizes = {
        letter: size
        for term, t in zip(letters, tensors, strict=True)
        for letter, size in zip(term, t.shape, strict=True)
    }
    return math.prod(sizes.values()) if len(tensors) > 1 else 0


def _attention(args: Any, kwargs: Any, output: Tensor) -> int:
    query, key, value = (argument(args, kwargs, i, name, None) for i, name in enumerate(("query", "key", "value")))
    return query.numel() * key.shape[-2] + query.numel() // query.shape[-1] * value.shape[-2] * value.shape[-1]


def _multi_head_attention(args: Any, kwargs: Any, output: Tensor) -> int:
    """Three input projections, two products per head, one output projection; tensors are `[tokens N width]`."""
    query, key, value = (argument(args, kwargs, i, name, None) for i, name in enumerate(("query", "key", "value")))
    width, tokens = query.shape[-1], key.shape[0]
    projected = query.numel() * 2 + key.numel() + value.numel()
    return projected * width + 2 * query.numel() * tokens


_PRODUCTS: dict[str, Callable[[Any, Any, Tensor], int]] = {
    **dict.fromkeys(["conv1d", "conv2d", "conv3d"], _convolution),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], _transposed),
    **dict.fromkeys(["linear", "matmul", "bmm", "mm"], _matmul),
    **dict.fromkeys(["addmm", "baddbmm"], _added_matmul),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head_attention,
}
# Operations that only move or copy data.
_FREE = frozenset({
    "flatten", "view", "reshape", "permute", "transpose", "getitem", "squeeze", "unsqueeze", "contiguous", "chunk", "split",
    "pad", "roll", "unflatten", "cat", "concat", "stack", "dropout", "feature_dropout", "expand", "getattr", "to", "float",
    "clone", "detach", "setitem", "repeat", "repeat_interleave", "unbind", "flip", "type_as", "double", "t", "narrow",
    "swapaxes", "movedim", "pixel_shuffle", "pixel_unshuffle",
})  # fmt: skip
