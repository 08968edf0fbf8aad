"""Which networks of the zoo are tested in every run, and which only with `pytest -m families`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import pytest

from vizapp.zoo.registry import describe, list_networks

LARGE, HUGE = 40e6, 80e6  # parameters, of torchvision's networks and of the classic ones
SMALLEST = ("vgg", "overfeat", "zfnet")  # classic families whose smallest members are as large
DEEPEST = (
    "vizapp/stochastic-depth1202-cifar",
    "vizapp/preactivation-resnet1001-cifar",
)  # of 110 and 164 layers, repeated
_SIZE = re.compile(r"_(t|s|m|l|b|h|tiny|small|base|large)(?=_\d+$|$)")


def parameters(names: Iterable[str], side: int | None = None) -> list[object]:
    """The names as parameters of a slow test; a large variant of a family repeats what its smaller ones do.

    Large are also networks whose input is longer than `side`.
    """
    found = []
    for name in names:
        wide = side is not None and max(describe(name).input_size[1:]) > side
        found.append(pytest.param(name, marks=pytest.mark.families if is_large(name) or wide else pytest.mark.slow))
    return found


def is_large(name: str) -> bool:
    """Whether it is large and not the smallest of its family."""
    count = describe(name).parameters or 0
    if name.startswith("torchvision/"):
        return count > LARGE and name != smallest_members()[family(name)]
    return name in DEEPEST or (count > HUGE and not name.split("/")[1].startswith(SMALLEST))


def family(name: str) -> str:
    """The name without what tells its size: `torchvision/swin_v_` of `torchvision/swin_v2_b`."""
    return re.sub(r"\d+", "", _SIZE.sub("", name))


@cache
def smallest_members() -> dict[str, str]:
    """The network with the fewest parameters in each family of torchvision's."""
    names = [name for name in list_networks() if name.startswith("torchvision/")]
    names.sort(key=lambda name: -(describe(name).parameters or 0))
    return {family(name): name for name in names}
