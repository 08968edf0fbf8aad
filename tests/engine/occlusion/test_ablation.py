"""Scores with units of a layer scaled, against whole passes with a forward hook."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import vizapp
from tests.errors import refuses
from tests.networks import Aliasing, Branching, seeded
from vizapp.engine.occlusion import ablation as engine
from vizapp.engine.occlusion.ablation import Ablation
from vizapp.zoo.network import Network

# A layer in the middle of each, which later layers read beside others that bypass it.
LAYERS = {
    "alexnet": "features.4",
    "vgg11": "features.12",
    "resnet18": "layer3.0.conv1",
    "densenet121": "features.denseblock3.denselayer2.conv2",
    "googlenet": "inception4a.branch3.1.conv",
    "mobilenet_v2": "features.8.conv.1.0",
}


def built(name: str) -> nn.Module:
    """A network of the zoo with random weights and ten classes; hidden linear layers are narrow, to be cheap."""
    with torch.device("meta"):
        options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        module = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
        for number, part in enumerate(getattr(module, "classifier", ()) if name in {"alexnet", "vgg11"} else ()):
            if isinstance(part, nn.Linear):
                inputs = 32 if part.in_features == 4096 else part.in_features
                module.classifier[number] = nn.Linear(inputs, min(part.out_features, 32))
    module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name_, tensor in module.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(generator=generator).mul_((2 / tensor[0].numel()) ** 0.5)
            elif tensor.is_floating_point():
                tensor.uniform_(-0.2, 0.2, generator=generator).add_(0.0 if name_.endswith(("bias", "mean")) else 1.0)
    return module.eval().requires_grad_(False)


def picture(network: Network, seed: int = 1) -> Tensor:
    return torch.randn(1, *network.input_size, generator=torch.Generator().manual_seed(seed), dtype=network.dtype)


def ablation_of(network: Network, site: str) -> Ablation:
    found = network.site(site)
    return Ablation(network.module, network.scores, picture(network), found, network.footprint)


def by_hook(network: Network, layer: str, factors: Tensor, axis: int = 1) -> Tensor:
    """The scores `[N classes]`, a whole pass for each row of factors."""
    shape = [-1 if place == axis else 1 for place in range(network.site(layer).rank)]
    found = []
    for row in factors:
        change = lambda module, args, output, row=row: output * row.view(shape)  # noqa: E731
        handle = network.module.get_submodule(layer).register_forward_hook(change)
        found.append(network.module(picture(network))[0])
        handle.remove()
    return torch.stack(found)


def some_rows(ablation: Ablation) -> Tensor:
    """A unit silenced, a unit raised, several units changed together, nothing changed."""
    live = ablation.live
    rows = ablation.without([live[0], live[len(live) // 2], live[-1], live[0]])
    rows[1, live[len(live) // 2]] = 3
    rows[2, live[:4]] = 0.5
    rows[3] = 1
    return rows


def close(found: Tensor, expected: Tensor, clean: Tensor, tolerance: float = 1e-5) -> None:
    size = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= tolerance * size
    assert float((expected - clean).abs().max()) > 20 * tolerance * size, "changes without an effect prove nothing"


@pytest.mark.parametrize("name", LAYERS)
def test_scores_are_those_of_whole_passes_with_a_hook(name: str) -> None:
    network, layer = vizapp.wrap(built(name), input_size=(3, 64, 64)), LAYERS[name]
    ablation = ablation_of(network, layer)
    rows = some_rows(ablation)
    expected = by_hook(network, layer, rows)
    close(torch.cat([*ablation.scores(rows)]), expected, ablation.clean_scores)
    close(ablation.scores_by_whole_passes(rows), expected, ablation.clean_scores)
    assert "Only what depends on" in ablation.facts["evaluation"]
    assert ablation.bound > 1


def test_tokens_are_changed_at_all_places() -> None:
    module = VisionTransformer(32, 8, 2, 2, 16, 16, num_classes=4)
    network = vizapp.wrap(seeded(module), input_size=(3, 32, 32))
    layer = "encoder.layers.encoder_layer_0.ln_2"
    ablation = ablation_of(network, layer)
    rows = some_rows(ablation)
    expected = by_hook(network, layer, rows, axis=2)
    close(torch.cat([*ablation.scores(rows)]), expected, ablation.clean_scores)
    assert "Only what depends on" in ablation.facts["evaluation"]


def test_scores_do_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    network = vizapp.wrap(built("resnet18"), input_size=(3, 64, 64))
    ablation = ablation_of(network, "layer3.0.conv1")
    rows = ablation.without(range(40))
    expected = torch.cat([*ablation.scores(rows)])
    for together in (1, 3):
        monkeypatch.setattr(engine, "BATCH", together)
        monkeypatch.setattr(engine, "HEAD_BATCH", 2 * together)
        parts = [*ablation.scores(rows)]
        assert len(parts) == -(-40 // (2 * together))
        # Some processors sum the products of other batches in another order.
        assert float((torch.cat(parts) - expected).abs().max()) <= 5e-6 * float(expected.abs().max())


def test_the_module_stays_as_it_was() -> None:
    def digest(module: nn.Module) -> str:
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values())).hexdigest()

    network = vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40))
    hooks = [len(part._forward_hooks) for part in network.module.modules()]
    before = digest(network.module)
    ablation = ablation_of(network, "stem")
    rows = some_rows(ablation)
    list(ablation.scores(rows))
    ablation.scores_by_whole_passes(rows)
    assert digest(network.module) == before
    assert hooks == [len(part._forward_hooks) for part in network.module.modules()]


@pytest.mark.parametrize("site", ["conv", "relu"])
def test_all_names_of_a_value_that_is_written_in_place_see_the_change(site: str) -> None:
    network = vizapp.wrap(seeded(Aliasing()), input_size=(3, 8, 8))
    ablation = ablation_of(network, site)
    rows = ablation.without(range(4))
    value = network.module.conv(picture(network)) if site == "conv" else network.module.conv(picture(network)).relu()
    expected = torch.stack([2 * (value * row[:, None, None]).relu().flatten() for row in rows])
    close(torch.cat([*ablation.scores(rows)]), expected, ablation.clean_scores)
    close(ablation.scores_by_whole_passes(rows), expected, ablation.clean_scores)


def test_a_layer_that_runs_several_operations_is_changed_after_the_last() -> None:
    circular = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")  # pads with an operation of its own
    module = nn.Sequential(nn.Conv2d(3, 4, 3), circular, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    network = vizapp.wrap(seeded(module), input_size=(3, 9, 9))
    ablation = ablation_of(network, "1")
    rows = some_rows(ablation)
    expected = by_hook(network, "1", rows)
    close(torch.cat([*ablation.scores(rows)]), expected, ablation.clean_scores)
    close(ablation.scores_by_whole_passes(rows), expected, ablation.clean_scores)
    assert "Only what depends on" in ablation.facts["evaluation"]


class Deciding(nn.Module):
    """Goes one of two ways by what it computed: a recording of one way says nothing about the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.ways = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        return self.ways[int(x.sum() > 0)](x)


def test_a_network_that_decides_by_its_activations_runs_whole_passes_one_by_one() -> None:
    network = vizapp.wrap(seeded(Deciding()), input_size=(3, 9, 9))
    ablation = ablation_of(network, "conv")
    rows = torch.cat([ablation.without(range(6)), ablation.without(range(6), 3.0)])
    expected = by_hook(network, "conv", rows)
    values = (network.module.conv(picture(network)).mean((2, 3)) * rows).sum(1) > 0
    assert 0 < int(values.sum()) < len(values), "both ways are taken"
    close(torch.cat([*ablation.scores(rows)]), expected, ablation.clean_scores)
    assert ablation.facts["evaluation"].startswith("A whole pass for each change:")


def test_wrong_scores_from_the_layer_on_are_noticed() -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40))
    right = engine._Tail.scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._Tail, "scores", lambda *given: right(*given) * 1.001)
        ablation = ablation_of(network, "stem")
    assert "off by" in ablation.facts["evaluation"]
    rows = some_rows(ablation)
    close(torch.cat([*ablation.scores(rows)]), by_hook(network, "stem", rows), ablation.clean_scores)


def test_an_operation_that_takes_no_batch_is_answered_by_whole_passes() -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40))

    def breaks(*_: object) -> object:
        raise RuntimeError("no batches here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "whole_rule", breaks)
        ablation = ablation_of(network, "stem")
    assert "no batches here" in ablation.facts["evaluation"]
    rows = some_rows(ablation)
    close(torch.cat([*ablation.scores(rows)]), by_hook(network, "stem", rows), ablation.clean_scores)


def test_infinite_activations_are_silenced_too() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        module[0].bias[2] = float("inf")
    network = vizapp.wrap(module.eval().requires_grad_(False), input_size=(3, 9, 9))
    ablation = ablation_of(network, "1")
    (found,) = torch.cat([*ablation.scores(ablation.without([2]))])
    features = module[:4](picture(network))[0]
    features[2] = 0
    torch.testing.assert_close(found, module[4](features))


def test_effects_add_up_only_where_nothing_bends_behind_the_layer() -> None:
    network = vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40))
    assert ablation_of(network, "relu_3").affine
    assert not ablation_of(network, "add").affine
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    assert not ablation_of(vizapp.wrap(seeded(pooled), input_size=(3, 9, 9)), "0").affine


def test_a_network_that_takes_one_picture_at_a_time_is_answered() -> None:
    network = vizapp.wrap(seeded(Squared()), input_size=(3, 9, 9))
    ablation = ablation_of(network, "conv")
    assert not ablation.affine
    rows = some_rows(ablation)
    expected = by_hook(network, "conv", rows)
    close(torch.cat([*ablation.scores(rows)]), expected, ablation.clean_scores)
    close(ablation.scores_by_whole_passes(rows), expected, ablation.clean_scores)


class Squared(nn.Module):
    """A linear layer whose weight is computed from the picture, too: linear in either, not in both. Takes no batches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(1)
        return nn.functional.linear(x, x.view(4, -1).repeat(1, 4))


class Beside(nn.Module):
    """A layer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unread = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.unread(x)
        return self.conv(x).mean((2, 3))


def test_a_layer_that_the_scores_do_not_depend_on_is_told() -> None:
    network = vizapp.wrap(seeded(Beside()), input_size=(3, 9, 9))
    with refuses("layer-without-effect", "unread"):
        ablation_of(network, "unread")
