"""Families of torch's functions, under the names that a pass shows (`tap.operation_name`), without a trailing `_`."""

from __future__ import annotations

# Other names of the same functions.
_ALIASES = {
    "multiply": "mul", "subtract": "sub", "divide": "truediv", "true_divide": "truediv", "negative": "neg",
    "absolute": "abs", "concat": "cat", "concatenate": "cat", "clip": "clamp", "swapaxes": "transpose",
    "swapdims": "transpose", "moveaxis": "movedim", "_threshold": "threshold",
    "special_expit": "sigmoid", "special_softmax": "softmax", "special_log_softmax": "log_softmax",
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
DROPOUTS = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
})  # fmt: skip
IDENTITIES = frozenset({"contiguous", "clone", "detach", "positive"}) | CASTS | DROPOUTS

# Linear in the activations that they read.
LINEAR = frozenset({
    "view", "reshape", "flatten", "unflatten", "ravel", "permute", "transpose", "movedim", "t", "adjoint", "squeeze",
    "unsqueeze", "getitem", "getattr", "select", "narrow", "diagonal", "index_select", "gather", "take",
    "take_along_dim", "masked_select", "chunk", "split", "split_with_sizes", "tensor_split", "hsplit", "vsplit",
    "dsplit", "unbind", "stack", "cat", "hstack", "vstack", "dstack", "column_stack", "row_stack", "expand",
    "expand_as", "broadcast_to", "broadcast_tensors", "view_as", "reshape_as", "repeat", "repeat_interleave", "tile",
    "pad", "roll", "flip", "fliplr", "flipud", "rot90", "tril", "triu", "diag", "diag_embed", "block_diag", "meshgrid",
    "unfold", "fold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "as_strided",
    "masked_fill", "masked_scatter", "setitem", "index_put", "index_add", "index_copy", "index_fill", "scatter",
    "scatter_add", "select_scatter", "slice_scatter", "diagonal_scatter", "put", "copy", "fill", "zero", "unsafe_chunk",
    "unsafe_split", "unsafe_split_with_sizes", "cartesian_prod", "atleast_1d", "atleast_2d", "atleast_3d",
    "sum_to_size", "trapezoid", "trapz", "neg", "add", "sub", "rsub", "mean", "sum", "nansum", "trace", "cumsum",
    "diff", "deg2rad", "rad2deg", "interpolate", "upsample", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "real", "imag", "view_as_real",
    "view_as_complex", "conj", "conj_physical", "resolve_conj", "complex", "fft_fftshift", "fft_ifftshift",
    *(f"fft_{kind}fft{axes}" for kind in ("", "i", "r", "ir", "h", "ih") for axes in ("", "2", "n")),
})  # fmt: skip
# What is computed from gates alone with these is a gate, too: 1 - gate, the mean of a gate, a gate that is expanded.
KEEPS_SQUASHED = LINEAR | IDENTITIES | {"mul", "truediv", "pow"}
# Linear unless the weight is computed from the input, too.
WEIGHTED = frozenset({
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
})  # fmt: skip
# Linear when one factor is constant.
BILINEAR = frozenset({
    "mul", "matmul", "bmm", "mm", "mv", "dot", "vdot", "inner", "outer", "kron", "tensordot", "cross", "linalg_cross",
    "einsum", "bilinear", "multi_dot", "chain_matmul", "linalg_multi_dot",
})  # fmt: skip
# Their derivative is zero; torch has none for them.
FLAT = frozenset({"heaviside", "floor_divide", "floordiv"})
# Linear in their first argument, if nothing else depends on the picture.
LINEAR_IN_FIRST = frozenset(
    {"grid_sample", "ldexp", "torchvision::deform_conv2d", "torchvision::roi_align", "torchvision::ps_roi_align"}
)
# A sum with the product of the second and third argument.
SUMS_WITH_PRODUCTS = frozenset({"addcmul", "addmm", "addmv", "addr", "addbmm", "baddbmm"})

# Functions that take shape and type from a tensor, but not its numbers.
SHAPE_ONLY = frozenset({
    "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "zeros_like", "ones_like", "full_like", "empty_like",
    "rand_like", "randn_like",
})  # fmt: skip
SHAPE_OF_SECOND = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})  # of a second tensor the same

# Functions of numbers at the same place of one or several tensors, broadcast: nothing moves, nothing is mixed. (Of their
# second tensor, `to` and `type_as` read the type alone.)
POINTWISE = ACTIVATIONS | (IDENTITIES - {"to", "type_as"}) | frozenset({
    "abs", "acos", "acosh", "alpha_dropout", "angle", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctanh", "asin", "asinh", "atan", "atanh", "bfloat16", "bitwise_not", "bool", "byte", "ceil", "conj", "conj_physical",
    "cos", "cosh", "cpu", "cuda", "data", "deg2rad", "digamma", "dropout1d", "dropout2d", "dropout3d", "erf", "erfc",
    "erfinv", "exp", "exp2", "expm1", "feature_alpha_dropout", "fix", "floor", "frac", "half", "imag", "int", "invert",
    "isfinite", "isinf", "isnan", "lgamma", "log", "log10", "log1p", "log2", "logical_not", "logit", "logsigmoid", "long",
    "nan_to_num", "neg", "pos", "positive", "rad2deg", "real", "reciprocal", "requires_grad", "resolve_conj",
    "resolve_neg", "round", "rsqrt", "sgn", "short", "sign", "sin", "sinc", "sinh", "special_expit", "sqrt", "square",
    "tan", "trunc", "add", "addcdiv", "addcmul", "and", "arctan2", "atan2", "bitwise_and", "bitwise_or", "bitwise_xor",
    "copy", "copysign", "eq", "float_power", "floor_divide", "floordiv", "fmax", "fmin", "fmod", "ge",
    "greater", "greater_equal", "gt", "heaviside", "hypot", "isclose", "le", "lerp", "less", "less_equal", "logaddexp",
    "logaddexp2", "logical_and", "logical_or", "logical_xor", "lt", "masked_fill", "maximum", "minimum", "mod", "mul",
    "ne", "not_equal", "or", "pow", "rdiv", "remainder", "rfloordiv", "rmod", "rsub", "sub",
    "truediv", "where", "xlogy", "xor",
})  # fmt: skip

# Functions that read the shape, type or place of a tensor, but none of its numbers.
METADATA = frozenset({
    "getattr", "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "is_contiguous", "len",
    "element_size", "get_device", "type", "is_floating_point", "is_complex", "is_signed", "is_same_size", "is_pinned",
    "is_shared", "is_inference", "is_neg", "is_conj", "is_tensor", "result_type", "can_cast", "hash", "has_names",
    "dim_order", "itemsize",
})  # fmt: skip
# Functions that read numbers for a decision: another picture may take another course.
DECISIONS = frozenset({"bool", "is_nonzero", "equal", "allclose", "contains"})
# Functions whose result has a shape that depends on numbers.
COUNTING = frozenset({"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "nms"})
