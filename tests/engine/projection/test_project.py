"""Projections equal the explicit deconvnet on sequences, and a steered autograd pass on any network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import vizapp
import vizapp.media.samples
from tests.engine.test_tap import trail
from tests.errors import refuses
from tests.networks import Aliasing, Branching, seeded
from tests.oracles import explicit_projection, out_of_place, steered_projection, steered_projections
from tests.zoo.shared import shared
from vizapp.engine.projection.project import Certificate, project
from vizapp.engine.projection.rules import Deconvnet, Gradient, rule_named
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, Unit, survey
from vizapp.zoo.classic.zfnet import ZFNet

TRAINED = {
    "squeezenet1_0": "weights/squeezenet1_0-imagenet-decompressed.pth",
    "mobilenet_v2": "weights/mobilenet_v2-imagenet-dequantized.pth",
}
RULES = ["deconvnet", "guided", "gradient"]


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


@lru_cache(maxsize=1)  # tests of a network follow each other
def sequence(name: str, response_norm: bool) -> list[nn.Module]:
    """The layers; of torchvision's networks those up to the linear ones, which are large and not asked for."""
    torch.manual_seed(0)
    if name == "zfnet":
        net: nn.Module = ZFNet((12, 16, 24, 24, 16), 32, 10, 96, response_norm)
        layers = [*net.features, nn.Flatten(), *net.classifier]
    else:
        vgg = torchvision.models.vgg
        made = vgg.make_layers(vgg.cfgs["A"]) if name == "vgg11" else torchvision.models.alexnet(weights=None).features
        layers = [*made]
    return [*out_of_place(nn.Sequential(*layers)).eval().double().requires_grad_(False)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("name", "side", "depths"),
    [
        pytest.param("alexnet", 96, (3, 6, 12, 13), marks=pytest.mark.slow),
        pytest.param("vgg11", 64, (2, 8, 20), marks=pytest.mark.slow),
        ("zfnet", 96, (4, 9, 15, 23)),
    ],
)
def test_equal_to_the_explicit_deconvnet_on_sequences(name: str, side: int, depths: tuple[int, ...], rule: str) -> None:
    # The oracle takes response norm as the identity.
    layers = sequence(name, response_norm=name == "zfnet" and rule != "gradient")
    picture = torch.randn(1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for depth in [min(depth, len(layers)) for depth in depths]:
        net = nn.Sequential(*layers[:depth])
        sites = survey(net, picture)
        site = next(site for site in sites if site.name == str(depth - 1))
        units = [Unit(site.name, channel) for channel in (0, 3, site.channels - 1)]
        for seed in ("value", "one"):
            (down,) = project(net, picture, units, sites, rule_named(rule), seed=seed)
            for place, unit in enumerate(units):
                expected = explicit_projection(layers[:depth], picture, unit.channel, rule, seed)
                if expected.abs().max() == 0:  # a unit that is silent, or whose signal was rectified away
                    assert down.values[place].abs().max() == 0
                else:
                    assert relative(down.values[place], expected) < 1e-9, (depth, seed, unit)


ANY = {
    "googlenet": ["conv1.conv", "inception3a.cat", "inception4c.branch2.1.relu"],
    "densenet121": ["features.denseblock2.denselayer3.conv2", "relu"],
    "inception_v3": ["Mixed_5b.cat", "Mixed_6a.cat"],
    "resnet18": ["layer1.0.relu_1", "layer3.1.add", "fc"],
    "mobilenet_v2": ["features.3.conv.1.2", "features.7.conv.2", "classifier.1"],
    "mobilenet_v3_small": ["features.1.block.1.mul", "features.5.add", "classifier.3"],
    "shufflenet_v2_x0_5": ["stage2.1.cat", "fc"],
    "efficientnet_b0": ["features.2.0.block.2.mul", "features.3.1.add"],
    "regnet_y_400mf": ["trunk_output.block2.block2-0.activation"],
    "squeezenet1_1": ["features.4.cat", "flatten"],
    "convnext_tiny": ["features.1.1.add"],
    "mnasnet0_5": ["layers.8.1.layers.7", "classifier.1"],
}


WIDE = {
    "densenet121",
    "inception_v3",
    "mobilenet_v2",
    "mnasnet0_5",
}  # a smaller one of their kind stays among the fast tests


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in WIDE else []) for n in ANY])
def test_equal_to_a_steered_backward_pass_on_any_network(name: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval().double().requires_grad_(False)
    plain = out_of_place(module)
    side = 96 if name.startswith("incep") else 40
    picture = torch.randn(1, 3, side, side, dtype=torch.float64)
    sites = survey(module, picture)
    for wanted in ANY[name]:
        site = next(site for site in sites if site.name == wanted)
        cells = [None] if not site.is_map else [(0, 0), (site.shape[1] // 2, site.shape[2] - 1)]
        units = [Unit(wanted, channel, cell) for cell in cells for channel in (0, site.channels // 2)]
        indices = [(unit.channel, *(unit.cell or ())) for unit in units]
        if site.layout == "hwc":
            indices = [(*index[1:], index[0]) for index in indices]
        for rule in RULES:
            (down,) = project(module, picture, units, sites, rule_named(rule), seed="one")
            for place, expected in enumerate(steered_projections(plain, picture, wanted, indices, rule)):
                if expected.abs().max() == 0:
                    assert down.values[place].abs().max() == 0
                else:
                    assert relative(down.values[place], expected) < 1e-9, (wanted, rule, units[place])


def test_a_network_that_counts_on_in_place_writing() -> None:
    generator = torch.Generator().manual_seed(1)  # of some pictures nothing reaches the unit, and 0 / 0 is no number
    module, picture = seeded(Aliasing()).double(), torch.randn(1, 3, 8, 8, dtype=torch.float64, generator=generator)
    sites = survey(module, picture)
    (down,) = project(module, picture, [Unit("flatten", 5)], sites, Gradient(), seed="one")
    leaf = picture.clone().requires_grad_()
    (expected,) = torch.autograd.grad(module(leaf)[0, 5], leaf)
    assert relative(down.values[0], expected[0]) < 1e-12


def test_windows_over_the_border_and_whole_maps() -> None:
    module = seeded(Branching()).double()
    plain, picture = out_of_place(module), torch.randn(1, 3, 37, 50, dtype=torch.float64)
    sites = survey(module, picture)
    site = next(site for site in sites if site.name == "add")
    cells = [(r, c) for r in range(0, site.shape[1], 2) for c in (0, 3, site.shape[2] - 1)]
    units = [Unit("add", 2, cell) for cell in cells]
    for rule in RULES:
        (down,) = project(module, picture, units, sites, rule_named(rule), seed="one")
        for place, unit in enumerate(units):
            expected = steered_projection(plain, picture, "add", (2, *unit.cell), rule)  # type: ignore[misc]
            assert (down.values[place] - expected).abs().max() <= 1e-9 * max(1e-9, float(expected.abs().max()))
    # The gradient is linear: the map's projection is the sum of its cells', each times its activation.
    every = [Unit("add", 2, (r, c)) for r in range(site.shape[1]) for c in range(site.shape[2])]
    (cells_down,) = project(module, picture, every, sites, Gradient())
    (map_down,) = project(module, picture, [Unit("add", 2)], sites, Gradient(), extent="map")
    assert relative(map_down.values[0], cells_down.values.sum(0)) < 1e-9


def test_overlapping_pools_sum_or_overwrite() -> None:
    pool = nn.Sequential(nn.MaxPool2d(3, 1))
    picture = torch.zeros(1, 1, 3, 4)
    picture[0, 0, 1, 1] = 5.0  # the maximum of both regions
    sites = survey(pool, picture)
    (summed,) = project(pool, picture, [Unit("0", 0)], sites, Deconvnet(pools="sum"), extent="map")
    (last,) = project(pool, picture, [Unit("0", 0)], sites, Deconvnet(pools="overwrite"), extent="map")
    assert summed.values[0, 0, 1, 1] == 10
    assert last.values[0, 0, 1, 1] == 5
    assert summed.values.sum() == 10
    assert last.values.sum() == 5
    weighing = nn.Sequential(
        pool[0], nn.Conv2d(1, 1, (1, 2), bias=False)
    )  # sends 1 to the first region, 10 to the second
    weighing[1].weight.data = torch.tensor([[[[1.0, 10.0]]]])
    sites = survey(weighing, picture)
    (summed,) = project(weighing, picture, [Unit("1", 0)], sites, Deconvnet(pools="sum"), seed="one")
    (last,) = project(weighing, picture, [Unit("1", 0)], sites, Deconvnet(pools="overwrite"), seed="one")
    assert summed.values[0, 0, 1, 1] == 11
    assert last.values[0, 0, 1, 1] == 10
    adaptive = nn.Sequential(nn.AdaptiveMaxPool2d((1, 3)), weighing[1])  # of 4 columns: 0-1, 1-2, 2-3
    sites = survey(adaptive, picture)
    (summed,) = project(adaptive, picture, [Unit("1", 0, (0, 0))], sites, Deconvnet(pools="sum"), seed="one")
    (last,) = project(adaptive, picture, [Unit("1", 0, (0, 0))], sites, Deconvnet(pools="overwrite"), seed="one")
    assert summed.values[0, 0, 1, 1] == 11
    assert last.values[0, 0, 1, 1] == 10


def test_options_for_response_norm_gates_and_other_activations() -> None:
    picture = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    norm = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.LocalResponseNorm(5, alpha=0.5)).double().eval()
    sites = survey(norm, picture)
    unit = [Unit("2", 1)]
    (identity,) = project(norm, picture, unit, sites, Deconvnet(), seed="one")
    (derivative,) = project(norm, picture, unit, sites, Deconvnet(response_norm="derivative"), seed="one")
    assert identity.certificate == Certificate(paper=1)
    assert derivative.certificate == Certificate(paper=1, differentiated=1)
    assert relative(identity.values, derivative.values) > 0.01
    silu = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3)).double().eval()
    sites = survey(silu, picture)
    (extended,) = project(silu, picture, [Unit("2", 0)], sites, Deconvnet(), seed="one")
    (sloped,) = project(silu, picture, [Unit("2", 0)], sites, Deconvnet(extended=False), seed="one")
    leaf = picture.clone().requires_grad_()
    (expected,) = torch.autograd.grad(silu(leaf)[(0, 0, *sloped.cells[0])], leaf)  # type: ignore[arg-type]
    assert relative(sloped.values[0], expected[0]) < 1e-9
    assert extended.certificate == Certificate(extended=1)
    assert sloped.certificate == Certificate(differentiated=1)


class Crossed(nn.Module):
    """A number for each channel times a number for each cell (FocalNet): neither is the other's gate."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.cells, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.map(x))
        return self.head(x.mean((2, 3), keepdim=True) * self.cells(x))


@pytest.mark.parametrize("rule", RULES)
def test_a_product_of_channels_and_cells_takes_its_derivative(rule: str) -> None:
    module = seeded(Crossed()).double()
    picture = torch.randn(1, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (found,) = project(
        module, picture, [Unit("head", 2, (3, 4))], survey(module, picture), rule_named(rule), seed="one"
    )
    above = F.relu(module.map(picture)).detach().requires_grad_()
    crossed = above.mean((2, 3), keepdim=True) * module.cells(above)
    (signal,) = torch.autograd.grad(module.head(crossed)[0, 2, 3, 4], above)
    rectified = signal if rule == "gradient" else signal.clamp_min(0)
    rectified = rectified if rule == "deconvnet" else rectified * (above > 0)
    expected = F.conv_transpose2d(rectified, module.map.weight)
    assert expected.abs().max() > 0
    assert relative(found.values[0], expected) < 1e-9
    assert found.certificate.differentiated == (2 if rule == "gradient" else 1)


class Calls(nn.Module):
    """One function between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("function", [F.gelu, F.silu, F.relu, F.hardswish, torch.sigmoid])
def test_an_input_by_its_keyword_is_the_input(function: Callable[..., Tensor], rule: str) -> None:
    picture = torch.randn(1, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for called in (function, lambda x: function(input=x)):
        module = seeded(Calls(called)).double()
        (down,) = project(module, picture, [Unit("last", 1)], survey(module, picture), rule_named(rule))
        found.append(down)
    assert found[0].values.abs().max() > 0
    assert torch.equal(found[0].values, found[1].values)
    assert found[0].certificate == found[1].certificate


def test_the_certificate_counts_what_lies_between() -> None:
    module = torchvision.models.resnet50(weights=None).eval()
    picture = torch.randn(1, 3, 64, 64)
    sites = survey(module, picture)
    (down,) = project(module, picture, [Unit("fc", 7)], sites)
    assert down.certificate == Certificate(paper=49, switches=1)
    (down,) = project(module, picture, [Unit("layer1.0.conv3", 7)], sites)
    assert down.certificate == Certificate(paper=3, switches=1)
    module = torchvision.models.mobilenet_v2(weights=None).eval()
    sites = survey(module, picture)
    (down,) = project(module, picture, [Unit("classifier.1", 7)], sites)
    assert down.certificate == Certificate(extended=35)
    assert down.certificate.nonlinearities == 35


def test_a_unit_gets_the_same_projection_alone_and_in_company() -> None:
    module = seeded(Branching())
    picture = torch.randn(1, 3, 64, 64)
    sites = survey(module, picture)
    units = [Unit("body", channel, (channel, 3)) for channel in range(8)]
    (together,) = project(module, picture, units, sites)
    for place, unit in enumerate(units):
        (alone,) = project(module, picture, [unit], sites)
        assert relative(together.values[place], alone.values[0]) < 1e-6


@pytest.mark.slow
def test_eight_threads_with_three_rules_get_the_serial_answers_and_leave_nothing() -> None:
    torch.manual_seed(0)
    module = torchvision.models.googlenet(weights=None, init_weights=False).eval().requires_grad_(False)
    before = trail(module)
    pictures = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    sites = survey(module, pictures[0])
    units = [Unit("inception4a.cat", channel) for channel in (1, 200, 500)]

    def look(i: int) -> Tensor:
        return project(module, pictures[i], units, sites, rule_named(RULES[i % 3]))[0].values

    serial = [look(i) for i in range(8)]
    parallel: list[Tensor] = [torch.empty(0)] * 8

    def work(i: int) -> None:
        parallel[i] = look(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(serial, parallel, strict=True))
    assert trail(module) == before


def trained(name: str) -> tuple[list[nn.Module], nn.Module, Tensor]:
    """The layers, the whole network and a picture, in float64."""
    picture = vizapp.media.samples.open_sample("digit 5" if "lenet" in name else "chelsea")
    weights = shared(TRAINED[name]) if name in TRAINED else "default"
    network = vizapp.load(name, weights=weights, device="cpu")
    module = network.module.to(memory_format=torch.contiguous_format).double()
    plain = out_of_place(module)
    return [*plain.features, nn.Flatten(), *plain.classifier], module, network.prepare(picture).double()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("name", "depths"), [("vizapp/lenet5-digits", (3, 6, 11)), ("vizapp/zfnet-mini", (3, 8, 13, 22))]
)
def test_equal_to_the_explicit_deconvnet_on_the_embedded_networks(
    name: str, depths: tuple[int, ...], rule: str
) -> None:
    layers, _, picture = trained(name)
    for depth in depths:
        net = nn.Sequential(*layers[:depth])
        sites = survey(net, picture)
        (maps,) = [tensor[0] for tensor in observe(net, picture, [sites[-1]]).values()]
        units = [Unit(sites[-1].name, int(c)) for c in maps.flatten(1).amax(1).argsort()[-3:]] if maps.ndim == 3 else [
            Unit(sites[-1].name, int(maps.argmax()))
        ]  # fmt: skip
        (down,) = project(net, picture, units, sites, rule_named(rule))  # type: ignore[arg-type]
        for place, unit in enumerate(units):
            expected = explicit_projection(layers[:depth], picture, unit.channel, rule)
            assert expected.abs().max() > 0
            assert relative(down.values[place], expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("name", "wanted"), [("squeezenet1_0", ["features.5.cat", "features.10.cat", "flatten"]),
                         ("mobilenet_v2", ["features.4.conv.2", "features.10.add", "classifier.1"])]
)  # fmt: skip
def test_equal_to_a_steered_backward_pass_on_real_trained_networks(name: str, wanted: list[str], rule: str) -> None:
    _, module, picture = trained(name)
    sites = survey(module, picture)
    plain = out_of_place(module)
    for site in wanted:
        chosen = next(s for s in sites if s.name == site)
        maps = observe(module, picture, [chosen])[site][0]
        channel = int((maps.flatten(1).amax(1) if maps.ndim == 3 else maps).argmax())
        (down,) = project(module, picture, [Unit(site, channel)], sites, rule_named(rule), seed="one")  # type: ignore[arg-type]
        index = (channel, *(down.cells[0] or ()))
        expected = steered_projection(plain, picture, site, index, rule)
        if expected.abs().max() == 0:  # SqueezeNet's classes under the deconvnet rule: all of it is rectified away
            assert down.values[0].abs().max() == 0
        else:
            assert relative(down.values[0], expected) < 1e-5


def test_units_of_no_layer_or_of_several_are_answered_with_a_sentence() -> None:
    module, picture = seeded(Branching()), torch.randn(1, 3, 32, 32)
    sites = survey(module, picture)
    with refuses("no-such-layer", "boddy", "Did you mean body or"):
        project(module, picture, [Unit("boddy", 0)], sites)
    with refuses("several-layers", "'stem' and 'body'"):
        project(module, picture, [Unit("stem", 0), Unit("stem", 1), Unit("body", 0)], sites)


class BreakingLater(nn.Module):
    """Raises two operations after its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        F.relu(self.conv(x))
        raise ValueError("what lies above the unit was run")


def test_nothing_above_the_unit_is_run() -> None:
    module, picture = seeded(BreakingLater()), torch.randn(1, 3, 8, 8)
    site = Site("conv", "convolution", (4, 6, 6), "chw", "conv2d")
    (down,) = project(module, picture, [Unit("conv", 1, (2, 2))], [site], seed="one")
    assert torch.equal(down.values[0, :, 2:5, 2:5], module.conv.weight[1])
