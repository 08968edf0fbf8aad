"""Sums that do not depend on the order of what is added: numbers are cut into whole parts, which are added exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LIMBS = 6
_BITS = 40  # of a part; the 23 that an int64 has above it leave room for millions of numbers
_LAST = -120  # the exponent of two of the last part's unit; what is smaller than that is dropped


def to_limbs(values: Tensor) -> Tensor:
    """Numbers `[…]`, float64 and finite, as whole parts `[… LIMBS]`, int64; the first part weighs most."""
    parts, rest = [], values.clone()
    for number in range(LIMBS):
        weight = 2.0 ** (_LAST + _BITS * (LIMBS - 1 - number))
        part = (rest / weight).trunc_()  # dividing by a power of two, and what follows, is exact in binary numbers
        rest -= part * weight
        parts.append(part.long())
    return torch.stack(parts, -1)


def add_limbs(many: Sequence[Tensor]) -> Tensor:
    """The sum of numbers in parts, in parts."""
    return torch.stack(list(many)).sum(0)


def from_limbs(parts: Tensor) -> Tensor:
    """Numbers `[…]`, float64, of their parts `[… LIMBS]`: the same bits for the same parts."""
    answer = torch.zeros(parts.shape[:-1], dtype=torch.float64)
    for number in reversed(range(LIMBS)):  # from the lightest
        answer += parts[..., number].double() * 2.0 ** (_LAST + _BITS * (LIMBS - 1 - number))
    return answer
