"""Which networks of the zoo are tested in every run, and which only with `pytest -m families`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import pytest

from vizapp.zoo.registry import describe, list_networks

# Larger ones with other blocks or other layers than the smallest of their family.
ALSO = ("torchvision/resnet50", "torchvision/mobilenet_v3_large")
DEEPEST = (
    "vizapp/stochastic-depth1202-cifar",
    "vizapp/preactivation-resnet1001-cifar",
)  # of 110 and 164 layers, repeated
# Of the same layers as another network, with other widths or another input size.
ALIKE = (
    "vizapp/overfeat-accurate",
    "vizapp/zfnet-512-1024-512",
    "torchvision/fasterrcnn_mobilenet_v3_large_fpn",
)
# v2 is another design, not a size.
_SIZE = re.compile(r"_(t|s|m|l|b|h|tiny|small|base|large)(?=_\d+$|$)|(_\d+)+[mg]f|(?<![v\d])\d+")


def parameters(names: Iterable[str], side: int | None = None) -> list[object]:
    """The names as parameters of a slow test: of each family the smallest network.

    The others repeat what these do. So do networks whose input is longer than `side`.
    """
    found = []
    for name in names:
        wide = side is not None and max(describe(name).input_size[1:]) > side
        found.append(
            pytest.param(name, marks=pytest.mark.families if wide or not is_chosen(name) else pytest.mark.slow)
        )
    return found


def is_chosen(name: str) -> bool:
    """Whether it is the smallest of its family, or of another design than that."""
    return name in ALSO or (name in smallest_members() and name not in DEEPEST + ALIKE)


def family(name: str) -> str:
    """The name without what tells its size: `torchvision/swin_v2` of `torchvision/swin_v2_b`."""
    return _SIZE.sub("", name)


@cache
def smallest_members() -> frozenset[str]:
    """The smallest network of each family of torchvision's and the classic ones."""
    found: dict[str, str] = {}
    for name in sorted(list_networks(), key=lambda name: describe(name).parameters or 0):
        found.setdefault(family(name), name)
    return frozenset(found.values())
