"""OverFeat's two networks have the geometry and the size of the paper's tables 1, 3 and 4."""

from __future__ import annotations

import pytest
import torch

import vizapp
from vizapp.zoo.classic.overfeat import OverFeat


@pytest.mark.parametrize(
    ("fast", "side", "maps"),
    [(False, 221, (108, 36, 30, 15, 15, 15, 15, 15, 5)), (True, 231, (56, 28, 24, 12, 12, 12, 12, 6))],
)
def test_maps_of_the_paper(fast: bool, side: int, maps: tuple[int, ...]) -> None:
    module = OverFeat(fast, shrink=32, classes=3).eval()
    x, sizes = torch.zeros(1, 3, side, side), []
    for name, layer in module.features.named_children():
        x = layer(x)
        if not name.startswith("relu"):
            assert x.shape[2] == x.shape[3]
            sizes.append(x.shape[2])
    assert tuple(sizes) == maps
    assert module(torch.zeros(2, 3, side, side)).shape == (2, 3)


@pytest.mark.parametrize(("name", "millions"), [("fast", 145), ("accurate", 144)])
def test_parameters_of_the_paper(name: str, millions: int) -> None:
    with torch.device("meta"):
        module = OverFeat(name == "fast")
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count // 10**6 == millions
    card = next(n for n in vizapp.list_networks() if n == f"vizapp/overfeat-{name}")
    from vizapp.zoo.registry import describe

    assert describe(card).parameters == count
    assert describe(card).input_size == ((3, 231, 231) if name == "fast" else (3, 221, 221))
    assert not describe(card).published
