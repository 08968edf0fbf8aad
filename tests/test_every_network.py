"""Every classification network of torchvision is surveyed and asked for feature maps, on random weights."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import vizapp
from vizapp.zoo.registry import describe

NETWORKS = [name for name in vizapp.list_networks() if name.startswith("torchvision/")]
HUGE = 200e6  # parameters; the largest variants of a family repeat what its smaller ones do


def small_input(name: str) -> int | None:
    """A side that the network accepts and that is quick; None for its own."""
    family = name.split("/")[1]
    if family.startswith(("vit", "maxvit", "swin")):
        return None
    return 96 if family.startswith(("inception", "googlenet")) else 64


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_feature_maps_of_an_early_a_middle_and_a_late_site(name: str) -> None:
    card = describe(name)
    if card.parameters and card.parameters > HUGE:
        pytest.skip("a larger variant of a family that is tested")
    network = vizapp.load(name, weights="none", device="cpu")
    side = small_input(name)
    if side is not None:
        network = vizapp.wrap(network.module, input_size=(3, side, side), name=name)
    picture = vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    sites = network.sites
    assert len({site.name for site in sites}) == len(sites)
    assert any(site.kind == "convolution" for site in sites)
    maps = [site for site in sites if site.is_map]
    for site in (maps[0], maps[len(maps) // 2], maps[-1], sites[-1]):
        result = vizapp.ask("activations", network, picture, unit=vizapp.Unit(site.name, site.channels - 1))
        values = result.arrays["activations"]
        assert values.shape == site.shape
        assert np.isfinite(values).all()
        assert len(result.table) == site.channels
    del network
    gc.collect()
