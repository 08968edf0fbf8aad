"""Order-independent sums: each float64 is split into fixed-point limbs, which are added exactly as int64.

So a gallery has the same bytes for any order of batches and any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vizapp.engine.memory.upload import upload

LIMBS = 7
LARGEST = 2.0**128  # of a single value; all of float32 is smaller, and 2^23 of them fit
_BITS = 40  # per limb; the 23 bits above them in an int64 hold the carries of 2^23 additions
_LAST = -152  # the last limb counts multiples of 2^-152, below all of float32; smaller parts are dropped


def to_limbs(values: Tensor) -> Tensor:
    """Float64 values `[…]`, at most `LARGEST`, as int64 limbs `[… LIMBS]`, the most significant first."""
    weights = torch.tensor(
        [2.0 ** (_LAST + _BITS * (LIMBS - 1 - number)) for number in range(LIMBS)], dtype=torch.float64
    )
    # Exact: divisions by powers of two, and differences of integers that share their leading bits.
    whole = (values[..., None] / upload(weights, values.device)).trunc_()
    return torch.cat([whole[..., :1], whole[..., 1:] - whole[..., :-1] * 2.0**_BITS], -1).long()


def add_limbs(many: Sequence[Tensor]) -> Tensor:
    """The sum of values given as limbs, as limbs."""
    return torch.stack(list(many)).sum(0)


def from_limbs(parts: Tensor) -> Tensor:
    """Float64 values `[…]` from limbs `[… LIMBS]`; equal limbs give equal bits."""
    answer = torch.zeros(parts.shape[:-1], dtype=torch.float64)
    for number in reversed(range(LIMBS)):  # the least significant first
        answer += parts[..., number].double() * 2.0 ** (_LAST + _BITS * (LIMBS - 1 - number))
    return answer
