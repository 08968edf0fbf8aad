"""Equal to Captum wherever Captum is right; where it is wrong, equal to an explicit implementation of the rule."""

from __future__ import annotations

import warnings
from functools import lru_cache

import pytest
import torch
import torchvision
from captum.attr import NeuronDeconvolution, NeuronGuidedBackprop
from torch import Tensor, nn

from tests.oracles import out_of_place, steered_projection
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.trace.sites import Site, Unit, survey

PEERS = {"deconvnet": NeuronDeconvolution, "guided": NeuronGuidedBackprop}


class XceptionBlock(nn.Module):
    """The ReLU's input also feeds the skip, as in Xception and NASNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.conv(self.relu(x)))


@lru_cache(maxsize=1)  # tests of a network follow each other
def built(name: str) -> tuple[nn.Module, nn.Module, Tensor, list[Site]]:
    """The network, a copy that writes into nothing, a picture, and the network's sites."""
    torch.manual_seed(0)
    if name == "xception block":
        net: nn.Module = XceptionBlock()
    else:
        options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
        net = torchvision.models.get_model(name, weights=None, **options)
    net = net.eval().double().requires_grad_(False)
    side = 96 if name.startswith("inception") else 64
    picture = torch.randn(1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return net, out_of_place(net), picture, survey(net, picture)


def captums(module: nn.Module, layer: str, picture: Tensor, unit: Unit, rule: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tool = PEERS[rule](module, module.get_submodule(layer))
        found: Tensor = tool.attribute(picture.clone().requires_grad_(), (unit.channel, *(unit.cell or ())))
    return found[0].detach()


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def three(name: str, layer: str, unit: Unit, rule: str) -> tuple[Tensor, Tensor, Tensor]:
    """Ours, Captum's and the judge's."""
    module, plain, picture, sites = built(name)
    (down,) = project(module, picture, [unit], sites, rule_named(rule), seed="one")  # type: ignore[arg-type]
    index = (unit.channel, *(unit.cell or ()))
    return (
        down.values[0],
        captums(module, layer, picture, unit, rule),
        steered_projection(plain, picture, unit.site, index, rule),
    )


@pytest.mark.parametrize("rule", PEERS)
@pytest.mark.parametrize(
    ("name", "layer", "unit"),
    [
        ("alexnet", "features.10", Unit("features.10", 3, (1, 1))),
        ("alexnet", "classifier.6", Unit("classifier.6", 7)),
        pytest.param("vgg11", "features.16", Unit("features.16", 5, (2, 3)), marks=pytest.mark.slow),
        ("resnet18", "layer3.1.conv2", Unit("layer3.1.conv2", 5, (1, 2))),
        ("resnet18", "fc", Unit("fc", 7)),
    ],
)
def test_equal_where_every_rectifier_is_a_module_of_its_own(name: str, layer: str, unit: Unit, rule: str) -> None:
    ours, theirs, judge = three(name, layer, unit, rule)
    assert difference(ours, theirs) < 1e-9
    assert difference(ours, judge) < 1e-9


@pytest.mark.parametrize("rule", PEERS)
@pytest.mark.parametrize(
    ("name", "layer", "unit"),
    [
        ("googlenet", "fc", Unit("fc", 7)),  # functional
        pytest.param("inception_v3", "fc", Unit("fc", 7), marks=pytest.mark.slow),  # functional
        pytest.param(
            "densenet121", "classifier", Unit("classifier", 7), marks=pytest.mark.slow
        ),  # the last is functional
        ("mobilenet_v2", "classifier.1", Unit("classifier.1", 7)),  # ReLU6
        ("xception block", "head", Unit("head", 2, (30, 30))),  # the input is shared with a skip
    ],
)
def test_different_where_captum_misses_rectifiers(name: str, layer: str, unit: Unit, rule: str) -> None:
    ours, theirs, judge = three(name, layer, unit, rule)
    assert difference(ours, judge) < 1e-9
    assert difference(theirs, judge) > 0.05
