"""LRP against its formulas, written out with whole matrices for a small network, and its identities on real ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from vizapp.engine.projection.relevance import Relevances, lower_half, relevance
from vizapp.engine.projection.relevance_rule import Composite, Relevance
from vizapp.engine.trace.sites import Unit, survey

LOW, HIGH = (-2.0, -1.5, -1.0), (2.0, 2.5, 1.0)
COMPOSITES: tuple[Composite, ...] = ("composite", "depth", "plus", "epsilon", "zero")


def with_norms(module: nn.Module, seed: int = 0) -> nn.Module:
    """The network in float64, with random norms and biases, so that neither of them is the identity."""
    generator = torch.Generator().manual_seed(seed)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    module = module.eval().double().requires_grad_(False)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm1d)):
            part.running_mean.copy_(random(part.running_mean) * 0.1)  # type: ignore[union-attr, arg-type]
            part.running_var.copy_(random(part.running_var).abs() + 0.5)  # type: ignore[union-attr, arg-type]
            part.weight.copy_(random(part.weight) * 0.5 + 1)
            part.bias.copy_(random(part.bias) * 0.2)
        elif isinstance(part, (nn.Conv2d, nn.Linear)) and part.bias is not None:
            part.bias.copy_(random(part.bias) * 0.1)
    return module


def photo(side: int, seed: int = 5) -> Tensor:
    """Random pixels `[1 3 side side]` between black and white."""
    low, high = (torch.tensor(bound, dtype=torch.float64)[None, :, None, None] for bound in (LOW, HIGH))
    share = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + share * (high - low)


def sent_back(
    module: nn.Module, picture: Tensor, units: list[Unit], composite: Composite, epsilon: float = 1e-6
) -> Relevances:
    rule = Relevance(composite=composite, epsilon=epsilon, low=LOW, high=HIGH)
    return relevance(module, picture, units, survey(module, picture), rule)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


# ----------------------------------------------------------------------------------------------------- by the formulas


class Branching(nn.Module):
    """Convolutions with norms of both signs, a sum, a concatenation, both pools, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.left, self.left_norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.right = nn.Conv2d(4, 3, 1)
        self.last = nn.Conv2d(7, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu_()
        y = F.relu(self.left_norm(self.left(x)) + x)
        y = torch.cat([y, self.right(x)], 1)
        y = self.last(F.max_pool2d(y, 2)).relu()
        return self.head(y.mean((2, 3)))


def matrix(function: nn.Module, shape: torch.Size) -> Tensor:
    """The weights `[inputs outputs]` of an affine function of one picture's activation, a row per input that is 1 alone."""
    zero = function(torch.zeros(1, *shape[1:], dtype=torch.float64)).flatten()
    ones = torch.eye(shape[1:].numel(), dtype=torch.float64)
    return torch.stack([function(one.view(1, *shape[1:])).flatten() - zero for one in ones])


class ByFormula:
    """The rules of Montavon et al. 2019, table 10.1, for one layer after the other."""

    def __init__(self, epsilon: float, gamma: float) -> None:
        self.epsilon, self.gamma = epsilon, gamma

    def down(self, rule: str, a: Tensor, weights: Tensor, bias: Tensor, above: Tensor) -> Tensor:
        """The relevance below a layer, like `a`; `above` is that of its outputs."""
        shares = a.flatten()[:, None] * weights
        z = shares.sum(0) + bias
        sign = torch.where(z < 0, -1.0, 1.0).to(z)
        parts = shares, bias
        if rule == "gamma":
            parts = tuple(part + self.gamma * torch.where(part * sign > 0, part, 0) for part in parts)
        elif rule == "plus":
            parts, sign = tuple(part.clamp(min=0) for part in parts), torch.ones_like(z)
        elif rule == "box":
            low, high = (torch.tensor(bound, dtype=a.dtype)[:, None, None].expand(a.shape[1:]) for bound in (LOW, HIGH))
            extreme = low.flatten()[:, None] * weights.clamp(min=0) + high.flatten()[:, None] * weights.clamp(max=0)
            parts, sign = (shares - extreme, torch.zeros_like(z)), torch.ones_like(z)
        epsilon = 0.0 if rule == "zero" else self.epsilon * float(z.square().mean().sqrt())
        total = parts[0].sum(0) + parts[1] + epsilon * sign
        return (parts[0] * _over(above.flatten(), total)).sum(1).view_as(a)

    def summands(self, rule: str, terms: list[Tensor], above: Tensor) -> list[Tensor]:
        """The relevance of the terms of a sum."""
        total = sum(terms)
        assert isinstance(total, Tensor)
        epsilon = 0.0 if rule == "zero" else self.epsilon * float(total.square().mean().sqrt())
        return [term * _over(above, total + epsilon * torch.where(total < 0, -1.0, 1.0).to(total)) for term in terms]


def _over(relevance: Tensor, total: Tensor) -> Tensor:
    return torch.where(relevance == 0, 0, relevance / total)  # 0 / 0 of layers that are dead on this picture


def written_out(net: Branching, picture: Tensor, channel: int, rules: list[str], epsilon: float) -> Tensor:
    """The relevance of the pixels; `rules` of stem, left, right, last, head, and of the sum and the mean."""
    formula, norm = ByFormula(epsilon, 0.25), lambda x, bn: bn(x)
    stem_z = norm(net.stem(picture), net.stem_norm)
    x = stem_z.clamp(min=0)
    left_z = norm(net.left(x), net.left_norm)
    y = (left_z + x).clamp(min=0)
    right_z = net.right(x)
    joined = torch.cat([y, right_z], 1)
    pooled, switches = F.max_pool2d(joined, 2, return_indices=True)
    last_z = net.last(pooled)
    last = last_z.clamp(min=0)
    features = last.mean((2, 3))
    value = net.head(features)

    above = torch.zeros_like(value)
    above[0, channel] = value[0, channel]
    above = formula.down(rules[4], features, net.head.weight.T, net.head.bias, above)
    mean = matrix(lambda a: a.mean((2, 3)), last.shape)  # type: ignore[arg-type]
    above = formula.down(rules[5], last, mean, torch.zeros(5, dtype=torch.float64), above)
    zero = torch.zeros(1, *pooled.shape[1:], dtype=torch.float64)
    above = formula.down(rules[3], pooled, matrix(net.last, pooled.shape), net.last(zero).flatten(), above)
    spread = torch.zeros_like(joined).flatten(2)
    spread.scatter_(2, switches.flatten(2), above.flatten(2))
    to_y, to_right = spread.view_as(joined).split([4, 3], 1)
    to_left, to_x = formula.summands(rules[5], [left_z, x], to_y)
    for rule, layers, signal in (
        (rules[1], nn.Sequential(net.left, net.left_norm), to_left), (rules[2], net.right, to_right),
    ):  # fmt: skip
        zero = torch.zeros_like(x)
        to_x = to_x + formula.down(rule, x, matrix(layers, x.shape), layers(zero).flatten(), signal)
    stem = nn.Sequential(net.stem, net.stem_norm)
    return formula.down(rules[0], picture, matrix(stem, picture.shape), stem(0 * picture).flatten(), to_x)[0]


RULES = {
    "composite": ["box", "gamma", "gamma", "gamma", "epsilon", "epsilon"],
    "depth": ["box", "gamma", "epsilon", "epsilon", "zero", "epsilon"],
    "plus": ["plus", "plus", "plus", "plus", "epsilon", "epsilon"],
    "epsilon": ["epsilon"] * 6,
    "zero": ["zero"] * 6,
}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_as_the_formulas_say(composite: Composite, epsilon: float) -> None:
    net, picture = with_norms(Branching()), photo(8)
    found = sent_back(net, picture, [Unit("head", 0), Unit("head", 2)], composite, epsilon)
    for place, channel in enumerate((0, 2)):
        expected = written_out(net, picture, channel, RULES[composite], epsilon)
        assert difference(found.values[place], expected) < 1e-9


def test_lower_layers_are_the_first_half_of_the_convolutions_with_cells() -> None:
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])  # of VGG-16
    sites = survey(features.eval(), torch.zeros(1, 3, 64, 64))
    assert lower_half(sites, "30") == [str(i) for i in (0, 2, 5, 7, 10, 12, 14)]  # as in Montavon's own program
    assert lower_half(sites, "7") == ["0", "2"]


# ---------------------------------------------------------------------------------------------------------- identities


def gradient_times_input(module: nn.Module, picture: Tensor, channel: int) -> Tensor:
    picture = picture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(picture.clone())[0, channel], picture)
    return (picture * gradient)[0].detach()


def last_layer(module: nn.Module, picture: Tensor) -> str:
    return [site.name for site in survey(module, picture) if site.layout == "vector"][-1]


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "squeezenet1_1"])
def test_zero_is_gradient_times_input_without_biases(name: str) -> None:
    module = with_norms(torchvision.models.get_model(name, weights=None))
    for part in module.modules():
        if getattr(part, "bias", None) is not None:
            part.bias.zero_()
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.zero_()  # type: ignore[union-attr]
    picture = photo(64)
    channel = int(module(picture).argmax())
    found = sent_back(module, picture, [Unit(last_layer(module, picture), channel)], "zero")
    assert difference(found.values[0], gradient_times_input(module, picture, channel)) < 1e-6
    assert float(found.values.sum()) == pytest.approx(float(found.activations[0]), rel=1e-6)
    assert float(found.biases.abs().max()) == float(found.stabilisers.abs().max()) == 0


SLOW = ["vgg11_bn", "googlenet", "densenet121", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_y_400mf",
        "mobilenet_v3_small", "inception_v3", "convnext_tiny"]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
@pytest.mark.parametrize("composite", ["epsilon", "composite"])
def test_nothing_is_lost(name: str, composite: Composite) -> None:
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    torch.manual_seed(0)
    module = with_norms(torchvision.models.get_model(name, weights=None, **options))
    picture = photo(96 if name == "inception_v3" else 64)
    layer = last_layer(module, picture)
    found = sent_back(module, picture, [Unit(layer, channel) for channel in (7, 8)], composite)
    assert float(found.gap.max()) < 1e-5
    assert float(found.biases.abs().max()) > 1e-3 * float(found.activations.abs().max())
