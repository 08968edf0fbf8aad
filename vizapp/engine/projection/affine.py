"""Operations that scale and shift each number by constants: batch norms in evaluation, and what is written for them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument
from vizapp.engine.operations import IDENTITIES
from vizapp.engine.trace.recording import Call


class Affine(NamedTuple):
    """y = scale · x + shift, with numbers or tensors that broadcast to x."""

    scale: Tensor | float
    shift: Tensor | float

    def then(self, later: Affine) -> Affine:
        """This one, and then another."""
        return Affine(self.scale * later.scale, self.shift * later.scale + later.shift)


def affine(call: Call) -> Affine | None:
    """What the operation does to each number of the one value that it reads; None if it is not such an operation."""
    if len(call.inputs) != 1 or not all(call.sloped):
        return None
    name, args, kwargs, x = call.operation, call.args, call.kwargs, call.inputs[0]
    if name in IDENTITIES:
        return Affine(1.0, 0.0) if argument(args, kwargs, 0, "input", None) is x else None
    if name == "neg":
        return Affine(-1.0, 0.0)
    if name == "batch_norm":
        return _batch_norm(call) if not argument(args, kwargs, 5, "training", False) else None
    if name not in {"mul", "truediv", "add", "sub", "rsub"} or kwargs.get("rounding_mode"):
        return None
    first, second = argument(args, kwargs, 0, "input", None), argument(args, kwargs, 1, "other", None)
    constant, x_first = (second, True) if first is x else (first, False)
    if second is None or (isinstance(constant, Tensor) and torch.broadcast_shapes(constant.shape, x.shape) != x.shape):
        return None
    if isinstance(constant, Tensor):
        constant = constant.detach().clone() if constant.ndim else float(constant)
    if name == "mul":
        return Affine(constant, 0.0)
    if name == "truediv":
        return Affine(1 / constant, 0.0) if x_first else None
    alpha = kwargs.get("alpha", 1)
    if name == "add":
        return Affine(1.0, constant * alpha) if x_first else Affine(float(alpha), constant)
    swapped = name == "rsub" or getattr(call.function, "__name__", "") == "__rsub__"  # a - alpha · b, given b first
    return Affine(-float(alpha), constant) if x_first == swapped else Affine(1.0, -alpha * constant)


def _batch_norm(call: Call) -> Affine | None:
    args, kwargs, x = call.args, call.kwargs, call.inputs[0]
    mean, variance = argument(args, kwargs, 1, "running_mean", None), argument(args, kwargs, 2, "running_var", None)
    weight, bias = argument(args, kwargs, 3, "weight", None), argument(args, kwargs, 4, "bias", None)
    if mean is None or variance is None:
        return None
    scale = (variance + argument(args, kwargs, 7, "eps", 1e-5)).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (-1, *(1,) * (x.ndim - 2))
    return Affine(scale.detach().view(shape), shift.detach().view(shape))
