"""The activations that torch has: functions that take each number by itself, under the names that a pass shows."""

from __future__ import annotations

RECTIFIERS = frozenset({"relu"})  # those that the papers' rules are written for
OTHERS = frozenset({
    "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "sigmoid", "log_sigmoid", "tanh", "softplus", "softsign", "hardshrink", "softshrink", "tanhshrink",
    "threshold", "_threshold", "clamp", "clamp_min", "clamp_max", "clip",
})  # fmt: skip
ACTIVATIONS = RECTIFIERS | OTHERS
