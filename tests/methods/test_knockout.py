"""Method knockout: losses against a loop over passes with a hook, the fewest units against a greedy loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.engine.occlusion import ablation
from vizapp.zoo.network import Network

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
CLASSES = ("cat", "dog", "cup", "rocket", "flower")


class Small(nn.Module):
    """Two layers, a pool and a head; a unit of the first is always zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


def small(seed: int) -> Network:
    module = seeded(Small(), seed)
    with torch.no_grad():
        module.first.weight[4] = 0
        module.first.bias[4] = -1
        module.head.weight *= 5
    return vizapp.wrap(module, input_size=(3, 16, 14), categories=CLASSES)


def with_units(network: Network, layer: str, units: list[int], factor: float = 0.0) -> np.ndarray:
    """The logits with some units of a layer scaled, before its rectifier, which commutes with factors of at least 0."""

    def change(module: nn.Module, args: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, units] *= factor
        return output

    handle = network.module.get_submodule(layer).register_forward_hook(change)
    with torch.no_grad():
        logits = network.module(network.prepare(PICTURE))[0].double().numpy()
    handle.remove()
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("class_", [None, 2])
def test_each_unit_is_changed_alone(factor: float, class_: int | None) -> None:
    network = small(0)
    unit = None if class_ is None else vizapp.class_unit(network, class_)
    result = vizapp.ask("knockout", network, PICTURE, unit=unit, site="relu", factor=factor)
    clean = with_units(network, "first", [])
    about = int(clean.argmax()) if class_ is None else class_
    expected = np.stack([with_units(network, "first", [number], factor) for number in range(6)])
    found, chances = result.arrays, np.stack([softmax(row) for row in expected])
    scale = np.abs(expected).max()
    assert np.abs(expected[:, about] - clean[about]).max() > 0.01 * scale
    np.testing.assert_allclose(found["logit_change"], expected[:, about] - clean[about], atol=1e-5 * scale)
    np.testing.assert_allclose(found["probability_change"], chances[:, about] - softmax(clean)[about], atol=1e-5)
    np.testing.assert_array_equal(found["label"], expected.argmax(1))
    ranks = [sorted(-row).index(-row[about]) + 1 for row in expected]
    np.testing.assert_array_equal(found["rank"], ranks)
    assert found["class"] == about
    assert found["clean_probability"] == pytest.approx(softmax(clean)[about], abs=1e-5)
    changes = found["logit_change"].tolist()
    assert found["order"].tolist() == sorted(range(6), key=lambda number: (changes[number], number))
    assert [row["channel"] for row in result.table] == found["order"].tolist()
    assert changes[4] == 0, "the unit that is zero everywhere"


def test_interventions_say_the_same() -> None:
    network = small(0)
    found = vizapp.ask("knockout", network, PICTURE, site="relu", factor=0.5).arrays
    for unit in range(6):
        changed = [vizapp.Intervention("relu", [unit], "scale", 0.5)]
        logits = vizapp.ask("predict", network, PICTURE, interventions=changed).arrays["logits"]
        change = logits[found["class"]] - found["clean_logits"][found["class"]]
        assert found["logit_change"][unit] == pytest.approx(change, abs=1e-5)


@pytest.mark.parametrize(("site", "layer"), [("relu", "first"), ("relu_1", "second")])
@pytest.mark.parametrize("way", ["from the layer on", "whole passes"])
def test_units_are_knocked_out_of_a_network_with_interventions(
    site: str, layer: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "whole passes":
        monkeypatch.setattr(ablation, "SHARE_OF_FREE_MEMORY", 0)
    network = small(0)
    changed = [vizapp.Intervention("relu", [1, 3], "scale", 0)]
    result = vizapp.ask("knockout", network, PICTURE, site=site, interventions=changed)
    assert result.facts["evaluation"].startswith("Only what" if way == "from the layer on" else "A whole pass")

    def logits(units: list[int]) -> np.ndarray:
        handle = network.module.first.register_forward_hook(silence_two)
        found = with_units(network, layer, units)
        handle.remove()
        return found

    clean = logits([])
    assert np.abs(clean - with_units(network, layer, [])).max() > 0.1
    expected = np.array([(logits([unit]) - clean)[clean.argmax()] for unit in range(len(result.table))])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(result.arrays["logit_change"], expected, atol=1e-5 * np.abs(clean).max())


def silence_two(module: nn.Module, args: object, output: Tensor) -> Tensor:
    output = output.clone()
    output[:, [1, 3]] = 0
    return output


def test_before_mean_and_linear_layer_a_unit_counts_its_weight_times_its_mean() -> None:
    network = small(1)
    result = vizapp.ask("knockout", network, PICTURE, unit=vizapp.class_unit(network, 3))
    maps = vizapp.ask("activations", network, PICTURE, unit=vizapp.Unit("relu_1", 0)).arrays["activations"]
    expected = -network.module.head.weight[3].numpy() * maps.mean((1, 2))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(result.arrays["logit_change"], expected, atol=1e-5)


def test_a_factor_of_one_changes_nothing_at_all() -> None:
    found = vizapp.ask("knockout", small(0), PICTURE, site="first", factor=1, fewest=True).arrays
    assert not found["logit_change"].any()
    assert not found["probability_change"].any()
    assert found["order"].tolist() == list(range(6))
    assert found["fewest"].size == 0


def greedy(network: Network, layer: str, units: list[int]) -> tuple[list[int], list[float], bool]:
    """The definition: a pass for each unit that is left, at each step."""

    def margin(chosen: list[int]) -> float:
        logits = with_units(network, layer, chosen)
        return float(logits[class_] - np.delete(logits, class_).max())

    class_ = int(with_units(network, layer, []).argmax())
    chosen, curve = list[int](), [margin([])]
    while curve[-1] > 0 and len(chosen) < len(units):
        margins = {unit: margin([*chosen, unit]) for unit in units if unit not in chosen}
        best = min(margins, key=lambda unit: margins[unit])
        chosen.append(best)
        curve.append(margins[best])
    return chosen, curve, curve[-1] <= 0


@pytest.mark.parametrize(("site", "layer", "units"), [("relu", "first", 6), ("relu_1", "second", 8)])
def test_the_fewest_units_are_those_of_a_greedy_loop(site: str, layer: str, units: int) -> None:
    sizes = set()
    for seed in range(16):
        network = small(seed)
        result = vizapp.ask("knockout", network, PICTURE, site=site, fewest=True)
        live = [
            unit
            for unit in range(units)
            if (with_units(network, layer, [unit]) != with_units(network, layer, [])).any()
        ]
        chosen, curve, flips = greedy(network, layer, live)
        assert result.arrays["fewest"].tolist() == chosen
        np.testing.assert_allclose(result.arrays["fewest_curve"], curve, atol=1e-4)
        assert ("stays" in result.facts["fewest"]) is not flips
        sizes.add((len(chosen), flips))
    assert len({size for size, flips in sizes if flips and size > 1}) > 1, "several steps"


def test_an_answer_that_no_units_make_is_said_to_stay() -> None:
    network = small(0)
    with torch.no_grad():
        network.module.head.bias[1] = 1000
    result = vizapp.ask("knockout", network, PICTURE, fewest=True)
    assert result.facts["fewest"].startswith("The answer stays dog, even with all ")
    assert len(result.arrays["fewest_curve"]) == len(result.arrays["fewest"]) + 1
    assert result.arrays["fewest_curve"][-1] > 0


def test_a_class_that_is_not_the_answer_has_nothing_to_lose() -> None:
    network = small(0)
    other = (int(with_units(network, "first", []).argmax()) + 1) % 5
    result = vizapp.ask("knockout", network, PICTURE, unit=vizapp.class_unit(network, other), fewest=True)
    assert result.arrays["fewest"].size == 0
    assert result.arrays["fewest_curve"][0] < 0
    assert f"{CLASSES[other]} is not the answer" in result.facts["fewest"]


def test_the_layer_is_that_of_a_hidden_unit_and_else_the_last_map() -> None:
    network = small(0)
    assert vizapp.ask("knockout", network, PICTURE).facts["layer"].startswith("relu_1, ")
    hidden = vizapp.ask("knockout", network, PICTURE, unit=vizapp.Unit("first", 2))
    assert hidden.facts["layer"].startswith("first, ")
    assert hidden.arrays["class"] == with_units(network, "first", []).argmax()


def test_what_cannot_be_knocked_out_is_told() -> None:
    network = small(0)
    with refuses("no-such-layer", "relu"):
        vizapp.ask("knockout", network, PICTURE, site="reluu")
    with refuses("class-layer", "head"):
        vizapp.ask("knockout", network, PICTURE, site="head")
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps = vizapp.wrap(seeded(pooled), input_size=(3, 9, 9))
    for layer in ("3", "4"):
        with refuses("class-layer", layer):
            vizapp.ask("knockout", maps, PICTURE, site=layer)
    assert vizapp.ask("knockout", maps, PICTURE, site="2").arrays["logit_change"].shape == (3,), "maps of classes"
    for factor in ("half", float("nan"), -1, 4):
        with refuses("bad-value", "factor", "from 0 to 3"):
            vizapp.ask("knockout", network, PICTURE, factor=factor)
    maps = vizapp.wrap(seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), input_size=(3, 9, 9))
    with refuses("no-class-scores"):
        vizapp.ask("knockout", maps, PICTURE)
    flat = vizapp.wrap(seeded(nn.Sequential(nn.Flatten(), nn.Linear(27, 4), nn.ReLU(), nn.Linear(4, 3))), (3, 3, 3))
    with refuses("no-feature-map", "site"):
        vizapp.ask("knockout", flat, PICTURE)
    assert vizapp.ask("knockout", flat, PICTURE, site="2").arrays["order"].shape == (4,)
    one = vizapp.wrap(seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(196, 1))), (3, 9, 9))
    with refuses("one-class", "fewest"):
        vizapp.ask("knockout", one, PICTURE, fewest=True)


class Leave(BaseException):
    """Leaving is no error."""


def test_one_can_leave_between_two_steps() -> None:
    network, told = vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40)), list[float]()

    def leave(share: float) -> None:
        told.append(share)
        if share > 0.5:
            raise Leave

    with pytest.raises(Leave):
        vizapp.ask("knockout", network, PICTURE, site="stem", fewest=True, tick=leave)
    assert told == sorted(told)
    assert told[-1] < 1
