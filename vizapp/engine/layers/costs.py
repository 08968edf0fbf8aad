"""Cost of one operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.layers.sliding_window import sliding_window


class ProductCounter(TorchDispatchMode):
    """Counts the multiply-adds of convolutions, linear and recurrent layers and matrix products in the `with` block.

    Biases are not counted. He et al. 2015 call this FLOPs; for Szegedy et al. 2014 it is "ops". The kernels that torch
    runs are counted, so that spellings of one product count alike. `uncounted` is the number of kernels that multiply and
    add in ways without a rule, such as Fourier transforms, matrix decompositions and operations from outside of torch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0
        self.uncounted = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nobody compiles it, and to prevent that torch would import its compiler: 1.3 s

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        packet = getattr(torch.ops.aten, name, None) if func.namespace == "aten" else None  # also of in-place kernels
        if name in _KERNELS:
            self.multiply_adds += int(_KERNELS[name](args, output))
        elif packet in flop_registry:
            self.multiply_adds += flop_registry[packet](*args, **(kwargs or {}), out_val=output) // 2
        elif func.namespace not in _KNOWN or name.startswith(_WITHOUT_RULE):
            self.uncounted += 1
        return output


def arithmetic(operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, products: int) -> int:
    """Number of multiplications, additions, comparisons and function evaluations.

    Two per multiply-add and one per bias. Per result: the window size for pools, two for normalizations, one for any other
    operation that computes.

    Args:
        operation: Name of the operation.
        args: Positional arguments of its call.
        kwargs: Keyword arguments of its call.
        output: Its result.
        products: Its multiply-adds.
    """
    base = operation.rstrip("_")
    if products:
        bias = argument(args, kwargs, 2, "bias", None) if base == "linear" or base.startswith("conv") else None
        return 2 * products + (output.numel() if isinstance(bias, Tensor) else 0)
    if base in _FREE:
        return 0
    window = sliding_window(base, args, kwargs, output)
    if window is not None:
        return output.numel() * math.prod(window.kernel)
    return output.numel() * (2 if base.endswith("_norm") else 1)


def _recurrent(args: Any, output: Any) -> int:
    """Each weight of a recurrent layer is applied to each item of each sequence, also in both directions."""
    weights = sum(tensor.numel() for tensor in tensors_in(args[1:]) if tensor.ndim == 2)
    return args[0].numel() // args[0].shape[-1] * weights


def _attention(args: Any, output: Any) -> int:
    query, key, value = args[:3]  # [N heads tokens width]
    return query.numel() // query.shape[-1] * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_KERNELS: dict[str, Callable[[Any, Any], int]] = {  # those that `flop_registry` lacks
    **dict.fromkeys(["mv", "dot", "vdot"], lambda args, output: args[0].numel()),
    "addmv": lambda args, output: args[1].numel(),
    "addbmm": lambda args, output: args[1].numel() * args[2].shape[-1],
    "_trilinear": lambda args, output: args[1].numel() * (args[0].numel() // args[0].shape[-1]),  # of `bilinear`
    "deform_conv2d": lambda args, output: output.numel() * args[1][0].numel(),
    "mkldnn_rnn_layer": lambda args, output: _recurrent(args[:3], output),
    "_cudnn_rnn": lambda args, output: _recurrent(args[:2], output),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
}
_KNOWN = frozenset({"aten", "prim", "prims"})
_WITHOUT_RULE = (
    "_fft",
    "fft",
    "linalg_",
    "_linalg",
    "cdist",
    "_cdist",
    "pdist",
    "_pdist",
    "cholesky",
    "conv_tbc",
    "kron",
)
# Operations that only move or copy data.
_FREE = frozenset({
    "flatten", "view", "reshape", "permute", "transpose", "getitem", "squeeze", "unsqueeze", "contiguous", "chunk", "split",
    "pad", "roll", "unflatten", "cat", "concat", "stack", "dropout", "feature_dropout", "expand", "getattr", "to", "float",
    "clone", "detach", "setitem", "repeat", "repeat_interleave", "unbind", "flip", "type_as", "double", "t", "narrow",
    "swapaxes", "movedim", "pixel_shuffle", "pixel_unshuffle",
})  # fmt: skip
