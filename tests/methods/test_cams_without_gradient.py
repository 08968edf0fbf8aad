"""Score-CAM and Ablation-CAM against the papers' formulas, one channel at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import vizapp
from tests.methods.test_attribution import NETWORKS, Block, wrapped
from tests.networks import Branching, seeded
from vizapp.errors import VizError
from vizapp.zoo.network import Network

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)


class Convolutions(nn.Module):
    """A map of six channels, of which one is constant, and three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 5, stride=3), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).amax((2, 3)))


@pytest.fixture(scope="module")
def network() -> Network:
    module = seeded(Convolutions())
    with torch.no_grad():
        module.features[0].weight[4] = 0
        module.head.weight *= 20
    return vizapp.wrap(module, input_size=(3, 26, 23))


def resized(channel: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return nn.functional.interpolate(channel[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


@torch.no_grad()
def by_the_paper(network: Network, class_: int) -> tuple[np.ndarray, np.ndarray]:
    """Wang et al. 2020, algorithm 1: a loop over the channels; the map and the weights."""
    x = network.prepare(PICTURE)
    maps = network.module.features(x)[0]
    baseline = network.module(torch.zeros_like(x))[0, class_]
    increase = {}
    for k, channel in enumerate(maps):
        if channel.max() == channel.min():
            continue
        mask = resized(channel, (26, 23))
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        increase[k] = float(network.module(x * mask)[0, class_] - baseline)
    powers = {k: np.exp(value) for k, value in increase.items()}
    weights = {k: power / sum(powers.values()) for k, power in powers.items()}
    summed = sum(weight * maps[k] for k, weight in weights.items())
    found = resized(torch.relu(summed), (26, 23))
    return found.numpy(), np.array([weights.get(k, 0.0) for k in range(len(maps))])


@pytest.mark.parametrize("class_", [0, 1, 2])
def test_the_map_is_that_of_the_paper(network: Network, class_: int) -> None:
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind="scorecam")
    expected, weights = by_the_paper(network, class_)
    assert weights[4] == 0, "the constant channel"
    assert len(set(weights.round(4))) > 3, "the channels differ"
    np.testing.assert_allclose(result.arrays["attribution"], expected, rtol=1e-4, atol=1e-6)
    assert result.arrays["attribution"].shape == (26, 23)
    assert [panel.title for panel in result.panels] == ["seen", "attribution", "attribution-over-photo"]


def test_a_hidden_unit_is_explained_by_maps_below_it() -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40))
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.Unit("relu", 1), kind="scorecam")
    assert result.facts["layer"] == "stem"
    chosen = vizapp.ask(
        "attribution", network, PICTURE, unit=vizapp.class_unit(network, 0), kind="scorecam", layer="stem"
    )
    assert chosen.facts["layer"] == "stem"


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_default_layer_carries_all_that_the_unit_sees(kind: type[Block]) -> None:
    result = vizapp.ask(
        "attribution", wrapped(kind), PICTURE, unit=vizapp.class_unit(wrapped(kind), 0), kind="scorecam"
    )
    assert result.facts["layer"] == kind.layer, "no branch, no tokens behind those that the class reads"


@pytest.mark.parametrize("follows", [True, False])
def test_networks_without_a_backward_pass_are_explained_by_their_last_map(follows: bool) -> None:
    class Overwriting(Convolutions):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.set_grad_enabled(follows):
                maps = torch.sigmoid(self.features(x))
                found = (maps * maps.detach()).mean((2, 3))
                maps *= 2
                return self.head(found)

    network = vizapp.wrap(seeded(Overwriting()), input_size=(3, 26, 23))
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 0), kind="scorecam")
    assert result.arrays["attribution"].any()
    assert result.facts["layer"] == network.last_feature_map().name


@pytest.mark.parametrize(
    ("module", "site"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.ReLU(), nn.Linear(4, 3)), ""),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)), "2"),
    ],
)
def test_a_network_or_a_layer_without_feature_maps_is_refused(module: nn.Module, site: str) -> None:
    network = vizapp.wrap(seeded(module), input_size=(3, 6, 6))
    with pytest.raises(VizError) as caught:
        vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 0), kind="scorecam", layer=site)
    assert caught.value.code == "no-feature-map"


@pytest.mark.parametrize("class_", [0, 3])
def test_patch_tokens_mask_the_picture_by_their_grid(class_: int) -> None:
    module = VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=4
    )
    network = vizapp.wrap(seeded(module), input_size=(3, 32, 32))
    layer = "encoder.layers.encoder_layer_0.ln_2"
    result = vizapp.ask(
        "attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind="scorecam", layer=layer
    )
    kept = {}
    handle = module.encoder.layers[0].ln_2.register_forward_hook(lambda *args: kept.setdefault("out", args[2]))
    x = network.prepare(PICTURE)
    with torch.no_grad():
        module(x)
        handle.remove()
        maps = kept["out"][0, 1:].T.reshape(16, 4, 4)
        scores = []
        for channel in maps:
            mask = resized(channel, (32, 32))
            scores.append(module(x * (mask - mask.min()) / (mask.max() - mask.min()))[0, class_])
        weights = torch.stack(scores).softmax(0)
        expected = resized((weights[:, None, None] * maps).sum(0).relu(), (32, 32))
    np.testing.assert_allclose(result.arrays["attribution"], expected, rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- Ablation-CAM


class Deep(nn.Module):
    """Two convolutions behind the stem, a skip connection past the second, and a head that is not linear in the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 6, 5, stride=3), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def above(self, maps: torch.Tensor) -> torch.Tensor:
        return self.head((maps + self.first(maps).relu()).tanh().amax((2, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.above(self.stem(x).relu())


@torch.no_grad()
def ablated(network: Network, class_: int) -> np.ndarray:
    """Desai & Ramaswamy 2020, equations 1 and 2: a loop over the channels, each in a whole pass."""
    x = network.prepare(PICTURE)
    maps = network.module.stem(x).relu()
    clean = network.module.above(maps)[0, class_]
    summed = torch.zeros_like(maps[0, 0])
    for k in range(6):
        without = maps.clone()
        without[:, k] = 0
        summed += (clean - network.module.above(without)[0, class_]) / abs(clean) * maps[0, k]
    return resized(summed.relu(), (26, 23)).numpy()


def test_ablation_cam_is_that_of_the_paper() -> None:
    network, signs = vizapp.wrap(seeded(Deep()), input_size=(3, 26, 23)), set()
    for class_ in range(3):
        unit = vizapp.class_unit(network, class_)
        result = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="ablationcam", layer="relu")
        expected = ablated(network, class_)
        np.testing.assert_allclose(result.arrays["attribution"], expected, rtol=1e-4, atol=1e-6)
        assert result.facts["evaluation"].startswith("Only what depends on relu is recomputed")
        signs.add(float(network.module(network.prepare(PICTURE))[0, class_]) > 0)
        assert expected.any() or class_
    assert signs == {True, False}, "a class below zero is not turned upside down"


def test_ablation_cam_explains_a_hidden_unit_at_its_strongest_cell() -> None:
    network = vizapp.wrap(seeded(Deep()), input_size=(3, 26, 23))
    x = network.prepare(PICTURE)
    with torch.no_grad():
        maps = network.module.stem(x).relu()
        values = network.module.first(maps).relu()[0, 2]
        row, column = divmod(int(values.argmax()), values.shape[1])
        summed = torch.zeros_like(maps[0, 0])
        for k in range(6):
            without = maps.clone()
            without[:, k] = 0
            lost = values[row, column] - network.module.first(without).relu()[0, 2, row, column]
            summed += lost / values[row, column] * maps[0, k]
    unit = vizapp.Unit("relu_1", 2)
    result = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="ablationcam", layer="relu")
    expected = resized(summed.relu(), (26, 23))
    assert expected.any()
    np.testing.assert_allclose(result.arrays["attribution"], expected, rtol=1e-4, atol=1e-6)
