"""Gates, means, joins and distances of the classic networks are projected by the rules, and are counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import fields_by_backward, out_of_place, steered_projection, with_positive_weights
from vizapp.engine.projection.project import Certificate, project
from vizapp.engine.projection.rules import Deconvnet, rule_named
from vizapp.engine.receptive_field.field import receptive_fields
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Unit, survey
from vizapp.zoo.classic.alexnet import AlexNet2012
from vizapp.zoo.classic.densenet import CifarDenseNet
from vizapp.zoo.classic.dsn import DeeplySupervisedNet
from vizapp.zoo.classic.fractalnet import FractalNet
from vizapp.zoo.classic.googlenet import GoogLeNet
from vizapp.zoo.classic.highway import Highway, HighwayNet
from vizapp.zoo.classic.lenet_1998 import LeNet51998
from vizapp.zoo.classic.preactivation_resnet import PreactivationResNet
from vizapp.zoo.classic.stochastic_depth import StochasticDepthResNet

SMALL = {
    "lenet 1998": (lambda: LeNet51998(), (1, 32, 32), ["s2.add", "squash3.mul_1", "c5", "output.sub_1"]),
    "alexnet": (lambda: AlexNet2012(10), (3, 224, 224), ["features.norm1", "features.conv4"]),
    "highway": (lambda: HighwayNet(10, (4, 5, 6), (2, 1, 1), 7), (3, 16, 16), ["stages.0.4.add", "stages.1.3.add", "linear"]),
    "fractal": (lambda: FractalNet(10, (4, 6, 8), 3), (3, 16, 16), ["blocks.0.truediv_1", "blocks.1.truediv_1", "linear"]),
    "stochastic": (lambda: StochasticDepthResNet(20), (3, 16, 16), ["layer1.1.mul", "layer2.0.relu_1", "linear"]),
    "preactivation": (lambda: PreactivationResNet(20), (3, 16, 16), ["stages.1.0.add", "linear"]),
    "dense": (lambda: CifarDenseNet(16, 4, bc=True), (3, 16, 16), ["blocks.1.1.cat", "linear"]),
    "supervised": (lambda: DeeplySupervisedNet(10, companions=True), (3, 32, 32), ["mlpconv2.3", "mean", "companions.1"]),
    "googlenet": (lambda: GoogLeNet(10, auxiliary=True), (3, 224, 224), ["inception3a.cat"]),
}  # fmt: skip


LARGE = {"alexnet", "googlenet"}


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in SMALL])
def test_projections_equal_a_steered_backward_pass(name: str, rule: str) -> None:
    build, shape, wanted = SMALL[name]
    torch.manual_seed(0)
    module = build().eval().double().requires_grad_(False)
    picture = torch.randn(1, *shape, dtype=torch.float64)
    sites = survey(module, picture)
    for layer in wanted:
        site = next(site for site in sites if site.name == layer)
        cell = (site.shape[1] // 2, site.shape[2] - 1) if site.is_map else None
        values = observe(module, picture, [site])[layer][0]
        unit = Unit(layer, int((values if cell is None else values[:, cell[0], cell[1]]).argmax()), cell)
        (down,) = project(module, picture, [unit], sites, rule_named(rule), seed="one")  # type: ignore[arg-type]
        expected = steered_projection(out_of_place(module), picture, layer, (unit.channel, *(cell or ())), rule)
        assert expected.abs().max() > 0, "this unit says nothing"
        assert float((down.values[0] - expected).abs().max() / expected.abs().max()) < 1e-9, layer


@pytest.mark.parametrize("name", [name for name in SMALL if name not in LARGE])
def test_fields_equal_the_extent_of_a_backward_pass(name: str) -> None:
    build, shape, wanted = SMALL[name]
    torch.manual_seed(0)
    module, picture = build().eval().requires_grad_(False), torch.rand(1, *shape)
    found, positive = receptive_fields(module, picture), with_positive_weights(module)
    cells = {}
    for layer in wanted:
        if found[layer].rows.axis == 2:
            rows, columns = len(found[layer].rows.low), len(found[layer].columns.low)
            cells[layer] = {(0, 0), (rows // 2, columns // 2), (rows - 1, 0)}
    for layer, boxes in fields_by_backward(positive, picture, cells).items():
        assert boxes == {cell: found[layer].inside(cell) for cell in cells[layer]}, layer


def test_a_highways_gates_are_held() -> None:
    """Down through relu(plain(x)) T + x (1 - T): the signal times T goes through the layer, times 1 - T past it."""
    layer = Highway(1).double().requires_grad_(False)
    with torch.no_grad():
        for convolution, weight in ((layer.plain, 3.0), (layer.transform, 0.5)):
            nn.init.zeros_(convolution.weight)
            convolution.weight[0, 0, 1, 1] = weight
            nn.init.zeros_(convolution.bias)
    picture = torch.tensor([[[[2.0]]]], dtype=torch.float64)
    sites = survey(layer, picture)
    gate = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    (held,) = project(layer, picture, [Unit("add", 0, (0, 0))], sites, Deconvnet(), seed="one")
    assert float(held.values) == pytest.approx(float(3 * gate + (1 - gate)), rel=1e-12)
    assert held.certificate == Certificate(paper=1, gates=2)
    (free,) = project(layer, picture, [Unit("add", 0, (0, 0))], sites, Deconvnet(gates="derivative"), seed="one")
    # The gate's own path as well: the sigmoid's extended rule lets a positive signal pass, and stops a negative one.
    through_gates = 0.5 * max(0.0, float(6 - 2))
    assert float(free.values) == pytest.approx(float(3 * gate + (1 - gate)) + through_gates, rel=1e-12)
    assert free.certificate == Certificate(paper=1, extended=1, differentiated=2)


class Swish(nn.Module):
    """x sigmoid(x), written out."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Product(nn.Module):
    """Two gates multiplied: neither is what the other gates."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * (1 - torch.sigmoid(2 * x))


def test_what_is_multiplied_with_its_own_sigmoid_is_an_activation_and_two_gates_are_none() -> None:
    picture = torch.tensor([[[[1.5]]]], dtype=torch.float64)
    sites = survey(Swish(), picture)
    (down,) = project(Swish(), picture, [Unit("mul", 0, (0, 0))], sites, Deconvnet(), seed="one")
    assert float(down.values) == pytest.approx(1)  # as of `F.silu`
    assert down.certificate == Certificate(extended=1)
    sites = survey(Product(), picture)
    (down,) = project(Product(), picture, [Unit("mul_1", 0, (0, 0))], sites, Deconvnet(), seed="one")
    assert down.certificate.gates == 0
    assert down.certificate.differentiated == 1


def test_a_squashed_mean_keeps_its_window() -> None:
    """The trained coefficient of a subsampling layer is a factor per channel: the signal stays as small as the unit's field."""
    module = LeNet51998().eval().double().requires_grad_(False)
    with torch.no_grad():
        module.s2.coefficient.copy_(torch.arange(1.0, 7.0))
    picture = torch.randn(1, 1, 32, 32, dtype=torch.float64)
    sites = survey(module, picture)
    (down,) = project(module, picture, [Unit("s2.add", 4, (3, 5))], sites, Deconvnet(extended=False), seed="one")
    expected = torch.zeros(6, 28, 28, dtype=torch.float64)
    slope = 1.7159 * 2 / 3 * (1 - torch.tanh(module.c1(picture)[0, 4] * 2 / 3) ** 2)
    expected[4, 6:8, 10:12] = 5 / 4 * slope[6:8, 10:12]
    expected = torch.nn.functional.conv_transpose2d(expected[None], module.c1.weight)[0]
    assert torch.allclose(down.values[0], expected, rtol=1e-10, atol=0)
