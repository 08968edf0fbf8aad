"""The sanity check on networks whose weights are computed, shared, pruned, or parameters of the network itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import vizapp
from tests.networks import seeded
from vizapp.engine.tap import Tap
from vizapp.methods import sanity
from vizapp.methods.sanity import _parameters_used, randomised, shuffled

PICTURE = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def pruned(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer, "weight", 0.3)


def layers(change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        change(nn.Conv2d(3, 8, 3)), nn.ReLU(), change(nn.Conv2d(8, 8, 3)), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), change(nn.Linear(8, 5)),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        weight_norm,
        spectral_norm,
        pruned,
    ],
)
def test_layers_above_a_unit_do_not_change_its_projection_and_those_below_do(change: Callable[..., nn.Module]) -> None:
    module = layers(change)
    network = vizapp.wrap(module, input_size=(3, 32, 32))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    kinds, before = [type(part) for part in module.modules()], module(network.prepare(PICTURE))
    result = vizapp.ask("sanity", network, PICTURE, unit=vizapp.Unit("3", 3))
    above, upper, every = result.arrays["similarity"]
    assert above == 1
    np.testing.assert_array_equal(result.arrays["above"], result.arrays["projection"])
    assert max(upper, every) < 0.9
    for array in ("upper", "all"):
        assert not np.array_equal(result.arrays[array], result.arrays["projection"])
    assert vizapp.ask("sanity", network, PICTURE, unit=vizapp.class_unit(network, 1)).arrays["similarity"][0] < 0.99
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert kinds == [type(part) for part in module.modules()]
    torch.testing.assert_close(module(network.prepare(PICTURE)), before)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize(
    "change", [parametrizations.weight_norm, parametrizations.spectral_norm, weight_norm, spectral_norm, pruned]
)
def test_a_computed_weight_is_shuffled_itself(change: Callable[..., nn.Module]) -> None:
    module = layers(change)
    vizapp.wrap(module, input_size=(3, 32, 32))
    names = [name for name, _ in module.named_parameters() if name.startswith("2.")]
    other = randomised(module, names, seed=0)
    with torch.no_grad():
        module(torch.zeros(1, 3, 32, 32))
        given, shuffled = module[2].weight, other[2].weight
    assert not torch.equal(given, shuffled)
    torch.testing.assert_close(given.flatten().sort().values, shuffled.flatten().sort().values)
    torch.testing.assert_close(other[0].weight, module[0].weight)


class Shared(nn.Module):
    """A convolution used twice, parameters of the network itself below and above, and a head that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.ones(3, 1, 1)), nn.Parameter(torch.zeros(4))
        self.stem, self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.other.weight = self.conv.weight
        self.head, self.auxiliary = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x * self.gain).relu()
        x = self.other(self.conv(x).sin()).cos()
        return self.head(x.mean((2, 3))).sigmoid() + self.offset


def test_parameters_count_as_below_where_the_unit_is_computed_from_them() -> None:
    module, batch = seeded(Shared()), torch.rand(1, 3, 8, 8)
    stem = ["gain", "stem.bias", "stem.weight", "conv.bias", "conv.weight"]
    assert _parameters_used(module, batch, "sin") == (stem, ["other.bias", "head.bias", "head.weight", "offset"])
    assert _parameters_used(module, batch, "add") == ([*stem, "other.bias", "head.bias", "head.weight", "offset"], [])


def test_below_is_what_the_unit_changes_with() -> None:
    """Oracle: change one parameter at a time and look whether the unit's layer changes."""
    module, batch = seeded(Shared()), torch.rand(1, 3, 8, 8)
    for site in ("relu", "sin", "cos", "sigmoid"):
        found = set(_parameters_used(module, batch, site)[0])
        with torch.no_grad(), Tap(module, {site}) as tap:
            module(batch)
        for name, parameter in module.named_parameters():
            with torch.no_grad():
                saved = parameter.clone()
                parameter += 1
                with Tap(module, {site}) as other:
                    module(batch)
                parameter.copy_(saved)
            assert (name in found) is (not torch.allclose(tap.kept[site], other.kept[site])), (site, name)


def test_a_shared_weight_is_shuffled_wherever_it_is_used() -> None:
    module = seeded(Shared())
    other = randomised(module, ["conv.weight"], seed=0)
    assert other.conv.weight is other.other.weight
    assert not torch.equal(other.conv.weight, module.conv.weight)


def test_a_layer_that_never_runs_is_not_above_a_class() -> None:
    network = vizapp.wrap(seeded(Shared()), input_size=(3, 8, 8))
    assert vizapp.ask("sanity", network, PICTURE, unit=vizapp.Unit("head", 1)).arrays["similarity"][0] == 1
    with torch.no_grad():
        network.module.offset.copy_(torch.arange(4.0))
    changed = vizapp.ask("sanity", network, PICTURE, unit=vizapp.class_unit(network, 1), rule="gradient")
    assert "silent" not in changed.facts


@pytest.mark.slow
def test_very_many_numbers_are_shuffled_as_evenly_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them comes to each place equally often, and two neighbours do not stay together."""
    monkeypatch.setattr(sanity, "_MANY", 0)
    monkeypatch.setattr(sanity, "_NARROW", 2)
    count, draws = 30, 6000  # a table of 5 rows
    places = torch.zeros(draws, count, dtype=torch.long)
    for seed in range(draws):
        found = shuffled(torch.arange(count), torch.Generator().manual_seed(seed))
        places[seed][found] = torch.arange(count)
    assert torch.equal(places.sort(1).values, torch.arange(count).expand(draws, -1)), "the same numbers"
    assert torch.equal(found, shuffled(torch.arange(count), torch.Generator().manual_seed(draws - 1)))
    often = torch.stack([torch.bincount(places[:, i], minlength=count) for i in range(count)])
    expected = draws / count
    assert (often - expected).abs().max() < 6 * expected**0.5  # six standard deviations, of 900 numbers
    apart = [torch.bincount((places[:, other] - places[:, 0]) % count, minlength=count)[1:] for other in (1, 6)]
    assert apart[0][0] < 1.3 * draws / 5  # neighbours in a row stay neighbours where both come to the same row
    assert torch.cat([apart[0][1:], apart[1]]).max() < 2.2 * draws / (count - 1)


def test_no_more_is_drawn_than_the_unit_is_computed_from_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module, made = layers(lambda layer: layer), []
    network = vizapp.wrap(module, input_size=(3, 32, 32))
    monkeypatch.setattr(
        sanity, "shuffled", lambda values, generator: made.append(len(values)) or shuffled(values, generator)
    )
    vizapp.ask("sanity", network, PICTURE, unit=vizapp.Unit("3", 3))
    assert sorted(made) == sorted(
        module[at].get_parameter(name).numel() for at in (0, 2) for name in ("weight", "bias")
    )
    made.clear()
    vizapp.ask("sanity", network, PICTURE, unit=vizapp.class_unit(network, 1))
    assert sorted(made) == sorted(parameter.numel() for parameter in module.parameters())


def test_parameters_of_one_shape_are_shuffled_differently() -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    with torch.no_grad():
        module[1].weight.copy_(module[0].weight)
    other = randomised(module, ["0.weight", "1.weight"], seed=0)
    assert not torch.equal(other[0].weight, other[1].weight)
    assert not torch.equal(other[0].weight, randomised(module, ["0.weight"], seed=1)[0].weight)
    assert torch.equal(other[1].weight, randomised(module, ["1.weight"], seed=0)[1].weight)
