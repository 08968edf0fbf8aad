"""Reductions of an activation on devices that run few large operations faster than many small ones.

On CUDA one Triton kernel reads each activation once, where Triton works; otherwise four of torch's operations do.
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Reduced = tuple[Tensor, Tensor, Tensor, Tensor]


def reduce_maps(maps: Tensor, dtype: torch.dtype) -> Reduced:
    """Maximum, sum, number of values other than zero, and cell of the maximum of each map of
    `[N C]` or `[N C h w]`; each `[N C]`.

    The cell is the first of equal ones, int64; the others are of type `dtype`. A map with NaN has the maximum NaN.
    """
    cells = maps.flatten(2) if maps.ndim > 2 else maps.unsqueeze(2)  # [N C cells]
    fused = fused_kernel(cells.device) if cells.is_cuda else None
    return fused(cells, dtype) if fused is not None else reduce_with_torch(cells, dtype)


def reduce_with_torch(cells: Tensor, dtype: torch.dtype) -> Reduced:
    """`reduce_maps` of `[N C cells]` by operations of torch. None makes a copy of the activation."""
    peaks, place = cells.max(2)
    return peaks.to(dtype), cells.sum(2, dtype=dtype), torch.linalg.vector_norm(cells, 0, 2, dtype=dtype), place


@cache
def fused_kernel(device: torch.device) -> Callable[[Tensor, torch.dtype], Reduced] | None:
    """`reduce_maps` of `[N C cells]` by one Triton kernel; None where Triton is not installed or cannot compile."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        from vizapp.engine.statistics.triton_reduction import reduce_fused  # needs Triton

        reduce_fused(torch.zeros(1, 1, 1, device=device), torch.float32)
    except (ImportError, RuntimeError, OSError, subprocess.CalledProcessError):  # no compiler for C, or an old GPU
        return None
    return reduce_fused
