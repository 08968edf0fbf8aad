"""Against zennit and Captum: equal where they are right; elsewhere the formulas, written out with matrices, are the judge."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import LRP
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.canonizers import Canonizer
from zennit.composites import EpsilonGammaBox, EpsilonPlus
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

from tests.engine.projection.test_relevance import (
    HIGH,
    LOW,
    RULES,
    Branching,
    difference,
    last_layer,
    photo,
    sent_back,
    with_norms,
    written_out,
)  # fmt: skip
from vizapp.engine.projection.relevance_rule import Composite
from vizapp.engine.trace.sites import Unit

EPSILON = 1e-10  # ours is relative to the layer, theirs is not


def zennits(
    module: nn.Module, picture: Tensor, channel: int, composite: Composite, canonizers: list[Canonizer]
) -> Tensor:
    low, high = (torch.tensor(bound, dtype=picture.dtype)[None, :, None, None] for bound in (LOW, HIGH))
    options = {"epsilon": EPSILON, "stabilizer": EPSILON, "canonizers": canonizers}
    chosen = EpsilonPlus(**options) if composite == "plus" else EpsilonGammaBox(low=low, high=high, **options)

    def start(output: Tensor) -> Tensor:
        return torch.eye(output.shape[1], dtype=output.dtype)[[channel]] * output

    with Gradient(model=module, composite=chosen) as attributor:
        _, relevance = attributor(picture.clone().requires_grad_(), start)
    return relevance[0].detach()


def captums(module: nn.Module, picture: Tensor, channel: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Tensor = LRP(module).attribute(picture.clone().requires_grad_(), target=channel)
    return found[0].detach()


def vgg() -> nn.Module:
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"], batch_norm=True)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(2048, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.mark.parametrize(
    ("build", "canonizer", "composite"),
    [
        (torchvision.models.resnet18, ResNetCanonizer, "composite"),
        pytest.param(torchvision.models.resnet18, ResNetCanonizer, "plus", marks=pytest.mark.slow),
        pytest.param(vgg, VGGCanonizer, "composite", marks=pytest.mark.slow),
        pytest.param(vgg, VGGCanonizer, "plus", marks=pytest.mark.slow),
    ],
)
def test_equal_to_zennit_where_its_canonizers_fit(
    build: Callable[[], nn.Module], canonizer: type[Canonizer], composite: Composite
) -> None:
    torch.manual_seed(0)
    module, picture = with_norms(build()), photo(64)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0  # zennit's merged norms still divide by the root of 1 + eps
    channel = int(module(picture).argmax())
    found = sent_back(module, picture, [Unit(last_layer(module, picture), channel)], composite, EPSILON)
    assert difference(zennits(module, picture, channel, composite, [canonizer()]), found.values[0]) < 1e-6


def test_zennit_changes_the_function_where_it_merges_norms() -> None:
    """Each of its merged norms still divides by the root of 1 + eps."""
    module, picture = with_norms(torchvision.models.resnet18()), photo(64)
    before = module(picture).detach()
    handles = ResNetCanonizer().apply(module)
    after = module(picture).detach()
    for handle in handles:
        handle.remove()
    assert difference(after, before) > 1e-5
    assert difference(module(picture).detach(), before) == 0


@pytest.mark.parametrize("composite", ["composite", "plus"])
def test_zennit_is_wrong_where_a_sum_and_a_mean_are_no_modules(composite: Composite) -> None:
    net, picture = with_norms(Branching()), photo(8)
    for norm in (net.stem_norm, net.left_norm):
        norm.eps = 0  # type: ignore[assignment, union-attr]
    judge = written_out(net, picture, 0, RULES[composite], EPSILON)  # type: ignore[arg-type]
    found = sent_back(net, picture, [Unit("head", 0)], composite, EPSILON)
    assert difference(found.values[0], judge) < 1e-8
    assert difference(zennits(net, picture, 0, composite, [VGGCanonizer()]), judge) > 0.05


class Small(nn.Module):
    """A network of modules alone; others change how it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3)
        self.first, self.second, self.pool = nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2)
        self.head = nn.Linear(80, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.last(self.first(self.conv(x))))
        return self.head(self.pool(x).flatten(1))


class FunctionalLayer(Small):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(F.relu(self.conv(x)), self.last.weight, self.last.bias))
        return self.head(self.pool(x).flatten(1))


def test_zennit_and_captum_are_wrong_where_a_convolution_is_no_module() -> None:
    """The judge is Captum on the same function written with modules, where zennit and Captum agree with the formulas."""
    plain, picture = with_norms(Small()), photo(10)
    written = FunctionalLayer().eval().double().requires_grad_(False)
    written.load_state_dict(plain.state_dict())
    judge = captums(plain, picture, 1)
    for module in (plain, written):
        found = sent_back(module, picture, [Unit("head", 1)], "epsilon", 1e-9)
        assert difference(found.values[0], judge) < 1e-6
    with_modules = zennits(plain, picture, 1, "plus", [])
    ours = sent_back(written, picture, [Unit("head", 1)], "plus", EPSILON)
    assert difference(ours.values[0], with_modules) < 1e-6
    assert difference(zennits(written, picture, 1, "plus", []), with_modules) > 0.05
    assert difference(captums(written, picture, 1), judge) > 0.05
