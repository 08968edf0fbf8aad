"""Families of torch's functions, under the names that a pass shows (`tap.operation_name`), without a trailing `_`."""

from __future__ import annotations

# Other names of the same functions.
_ALIASES = {
    "multiply": "mul", "subtract": "sub", "divide": "truediv", "true_divide": "truediv", "negative": "neg",
    "absolute": "abs", "concat": "cat", "concatenate": "cat", "clip": "clamp", "swapaxes": "transpose",
    "swapdims": "transpose", "moveaxis": "movedim", "_threshold": "threshold",
}  # fmt: skip


def canonical_name(operation: str) -> str:
    """The one name for a function that has several; a trailing `_` stays."""
    bare = operation.rstrip("_")
    return _ALIASES.get(bare, bare) + operation[len(bare) :]


# Functions of each number by itself.
RECTIFIERS = frozenset({"relu"})  # the ones that the papers' projection rules are written for
OTHER_ACTIVATIONS = frozenset({
    "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "sigmoid", "log_sigmoid", "tanh", "softplus", "softsign", "hardshrink", "softshrink", "tanhshrink",
    "threshold", "_threshold", "clamp", "clamp_min", "clamp_max", "clip",
})  # fmt: skip
CLAMPS = frozenset({"clamp", "clamp_min", "clamp_max", "threshold"})
ACTIVATIONS = RECTIFIERS | OTHER_ACTIVATIONS

# Outputs between 0 and 1, as a gate has.
SQUASHING = frozenset({"sigmoid", "hardsigmoid", "softmax"})

# Outputs equal to the input, in another type.
CASTS = frozenset({"float", "double", "half", "bfloat16", "to", "type", "type_as"})

# Outputs equal to the input when the network is in evaluation mode.
IDENTITIES = frozenset({"dropout", "feature_dropout", "contiguous", "clone", "detach"}) | CASTS

# Linear in the activations that they read.
LINEAR = frozenset({
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "movedim", "getitem", "squeeze",
    "unsqueeze", "chunk", "split", "unbind", "stack", "cat", "concat", "mean", "sum", "pad", "interpolate", "roll", "flip",
    "expand", "repeat", "getattr", "t", "neg", "add", "sub", "avg_pool2d", "adaptive_avg_pool2d", "pixel_shuffle",
    "pixel_unshuffle", "unfold", "fold", "setitem", "repeat_interleave", "narrow",
})  # fmt: skip
WEIGHTED = frozenset(
    {"conv2d", "conv_transpose2d", "linear"}
)  # linear unless the weight is computed from the input, too
BILINEAR = frozenset({"mul", "matmul", "bmm", "mm", "einsum"})  # linear when one factor is constant

# Functions that take shape and type from a tensor, but not its numbers.
SHAPE_ONLY = frozenset({
    "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "zeros_like", "ones_like", "full_like", "empty_like",
    "rand_like", "randn_like",
})  # fmt: skip
SHAPE_OF_SECOND = frozenset({"expand_as", "view_as", "reshape_as", "type_as"})  # of their second tensor the same
