"""The strongest maps of a few layers from early to late."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vizapp
from tests.errors import refuses
from vizapp.media.samples import open_sample
from vizapp.methods.projection import revealing_rule
from vizapp.methods.stages import stage_sites


def stack(*parts: nn.Module) -> vizapp.Network:
    torch.manual_seed(0)
    module = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(7)).eval()
    module(torch.zeros(1, 3, 32, 32))
    return vizapp.wrap(module, (3, 32, 32))


def halving(count: int) -> list[nn.Module]:
    """Blocks of two rectified convolutions, of which the second halves the map."""
    return [
        part
        for n in range(count)
        for part in (nn.Conv2d(3 if n == 0 else 8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
    ]


def test_the_last_maps_of_each_size_are_the_stages() -> None:
    network = stack(*halving(4))
    assert [site.shape[1:] for site in stage_sites(network)] == [(side, side) for side in (32, 16, 8, 4, 2)]
    assert [site.name for site in stage_sites(network)] == ["1", "5", "9", "13", "15"]


def test_where_there_are_few_sizes_the_stages_are_spread_over_the_depth() -> None:
    network = stack(nn.Conv2d(3, 8, 3), *[nn.ReLU(), nn.Conv2d(8, 8, 1)] * 9, nn.ReLU())
    found = [network.sites.index(site) for site in stage_sites(network)]
    assert len(found) == 5
    assert found == sorted(found)
    assert max(np.diff(found)) - min(np.diff(found)) <= 2
    assert len(stage_sites(stack(nn.Conv2d(3, 8, 3), nn.ReLU()))) == 1


def test_projections_are_by_deconvnet_only_if_there_are_max_pools_with_switches() -> None:
    assert revealing_rule(stack(*halving(2))) == "guided"
    for pool in (nn.MaxPool2d(2), nn.MaxPool2d(2, return_indices=False, ceil_mode=True), nn.AdaptiveMaxPool2d(4)):
        assert revealing_rule(stack(*halving(1), pool, nn.ReLU())) == "deconvnet"
    assert revealing_rule(stack(*halving(1), nn.AvgPool2d(2), nn.ReLU())) == "guided"


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_the_strongest_maps_their_fields_and_projections_are_those_of_the_other_methods(rule: str) -> None:
    pools = [nn.MaxPool2d(1)] if rule == "deconvnet" else []
    network, picture = stack(*halving(4)[:-1], *pools, nn.ReLU()), open_sample("camera")
    result = vizapp.ask("stages", network, picture, maps=3)
    arrays = result.arrays
    for n, site in enumerate(stage_sites(network)):
        values = vizapp.ask("activations", network, picture, unit=vizapp.Unit(site.name, 0)).arrays["activations"]
        order = np.argsort(-values.max((1, 2)))[:3]
        assert arrays["channels"][n].tolist() == order.tolist()
        assert (arrays[f"maps_{n + 1}"] == values[order]).all()
        assert (arrays["strength"][n] == values[order].max((1, 2))).all()
        down = vizapp.ask("projection", network, picture, unit=vizapp.Unit(site.name, int(order[0])), rule=rule).arrays
        np.testing.assert_allclose(arrays["projection"][n], down["projection"], atol=1e-6)
        assert (arrays["boxes"][n] == down["field"]).all()
    assert result.facts["rule"] == rule
    assert arrays["field"][0].tolist() == [3, 3], "one convolution of 3 × 3"
    assert arrays["field"][1].tolist() == [9, 9], "3 + 2 of the second, then twice 2 of the third"
    assert [row["layer"] for row in result.table] == ["1", "5", "9", "13", "15" if rule == "guided" else "16"]
    assert "projection" not in vizapp.ask("stages", network, picture, project=False).arrays


def test_of_channels_at_the_bound_of_a_relu6_those_that_vary_most_are_first() -> None:
    conv = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[1] = 100.0
        conv.weight[2] = 0.1
        conv.bias.copy_(
            torch.tensor([9.0, 0.0, 0.0])
        )  # always at the bound; at the bound where the photo is bright; never
    network = stack(conv, nn.ReLU6(), nn.MaxPool2d(2))
    assert vizapp.ask("stages", network, open_sample("camera")).arrays["channels"][0].tolist() == [1, 0, 2, -1, -1, -1]


def test_a_network_without_maps_is_refused() -> None:
    network = vizapp.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)).eval(), (3, 32, 32))
    with refuses("does-not-fit-method", "no feature maps"):
        vizapp.ask("stages", network, open_sample("camera"))
