"""Batch norms with constant statistics, as a part of the convolution before them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument


def factor_and_shift(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Factor and shift `[C]`, in float64, of a call of `F.batch_norm`; None if its statistics are not constant."""
    mean, variance, weight, bias = (
        argument(args, kwargs, position, name, None)
        for position, name in enumerate(("running_mean", "running_var", "weight", "bias"), 1)
    )
    training = argument(args, kwargs, 5, "training", False)
    if training or not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return None
    eps = argument(args, kwargs, 7, "eps", 1e-5)
    factor = (variance.double() + eps).rsqrt()
    factor = factor if weight is None else factor * weight.double()
    shift = -mean.double() * factor
    return factor, shift if bias is None else shift + bias.double()


def with_norm(weight: Tensor, bias: Tensor | None, factor: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that includes a norm with this factor and shift `[C]`; the layout stays."""
    shift = shift if bias is None else shift + bias.double() * factor
    wide = torch.promote_types(weight.dtype, torch.float32)
    new_weight = weight.to(wide) * factor[:, None, None, None].to(wide)
    return new_weight.to(weight.dtype), shift.to(weight.dtype)
