"""Attribution maps against their definitions, written out for small networks of every layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import GuidedGradCam
from torch import Tensor, nn

import vizapp
from tests.networks import seeded
from vizapp.engine.trace.flow import gradients_at, sites_on_every_path
from vizapp.errors import VizError
from vizapp.media.samples import open_sample, sample_names
from vizapp.ui.inputs.images import _KNOWN
from vizapp.zoo.network import Network

PICTURE = np.random.default_rng(3).integers(0, 256, (60, 50, 3), dtype=np.uint8)
SIZE = (3, 24, 40)


class Block(nn.Module):
    """A map in some layout, made by `features`, and a head; both can be called alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 6, 8, 8), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.mix, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 4)
        self.special = nn.Parameter(torch.zeros(1, 3, 6))
        self.query = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


class Sum(Block):
    layer, layout = "add", "chw"

    def features(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        return self.left(x).relu() + self.right(x)

    def classify(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x.mean((2, 3))))


class Concatenation(Sum):
    layer = "cat"

    def features(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        return torch.cat([self.left(x)[:, :2], self.right(x)[:, :4]], 1)


class ChannelsLast(Block):
    layer, layout = "add", "hwc"

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        return x + self.mix(self.norm(x)).relu()

    def classify(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x.mean((1, 2))))


class ClassToken(Block):
    """Two special tokens before the patches and one behind; the head reads the first alone, by attention."""

    layer, layout = "add", "tokens"

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.special[:, :2].expand(len(x), -1, -1), x, self.special[:, 2:].expand(len(x), -1, -1)], 1)
        return x + self.mix(self.norm(x)).relu()

    def classify(self, x: Tensor) -> Tensor:
        x = x + F.scaled_dot_product_attention(self.query(x), self.norm(x), x)
        return self.head((x + self.mix(x))[:, 0])


class TokensLast(Block):
    layer, layout = "sin", "tokens-last"

    def features(self, x: Tensor) -> Tensor:
        return self.stem(x).flatten(2).sin()

    def classify(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x.sum(2)))


NETWORKS = [Sum, Concatenation, ChannelsLast, ClassToken, TokensLast]


def wrapped(kind: type[Block]) -> Network:
    return vizapp.wrap(seeded(kind()), input_size=SIZE, mean=0.45, std=0.25)


def grad_cam(network: Network, kind: type[Block], class_: int) -> np.ndarray:
    """Selvaraju et al. 2017, equations 1 and 2, one channel and one cell at a time; autograd on two copies."""
    module, picture = network.module, network.prepare(PICTURE)
    maps = module.features(torch.cat([picture, picture])).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(module.classify(maps)[0, class_], maps)
    height, width = 3, 5
    heat = torch.zeros(height, width)

    def cell(values: Tensor, channel: int, row: int, column: int) -> Tensor:
        if kind.layout == "chw":
            return values[0, channel, row, column]
        if kind.layout == "hwc":
            return values[0, row, column, channel]
        if kind.layout == "tokens-last":
            return values[0, channel, width * row + column]
        return values[0, 2 + width * row + column, channel]

    cells = [(row, column) for row in range(height) for column in range(width)]
    for channel in range(6):
        weight = sum(cell(gradient, channel, *at) for at in cells) / len(cells)
        for at in cells:
            heat[at] += (weight * cell(maps, channel, *at)).detach()
    return F.interpolate(heat.relu()[None, None], SIZE[1:], mode="bilinear", align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("kind", NETWORKS)
def test_grad_cam_is_its_definition_in_every_layout(kind: type[Block]) -> None:
    network, shown = wrapped(kind), 0
    for class_ in range(4):
        expected = grad_cam(network, kind, class_)
        unit = vizapp.class_unit(network, class_)
        by_default = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="gradcam")
        chosen = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="gradcam", layer=kind.layer)
        for result in (by_default, chosen):
            assert result.facts["note"].startswith(f"At layer {kind.layer}")
            np.testing.assert_allclose(result.arrays["attribution"], expected, rtol=1e-4, atol=1e-6)
            assert ("left out: 3" in result.facts["note"]) == (kind is ClassToken)
            assert ("The map is zero" in result.facts["note"]) == (not expected.any())
        shown += bool(expected.any())
    assert shown >= 2, "the oracle has something to show"


def test_a_token_map_is_read_by_its_grid_in_oblong_pictures_too() -> None:
    network = wrapped(ClassToken)
    site = network.site("add")
    assert (site.shape, site.prefix_tokens, site.suffix_tokens) == ((6, 3, 5), 2, 1)
    seen = vizapp.ask("activations", network, PICTURE, unit=vizapp.Unit("add", 0))
    with torch.no_grad():
        tokens = network.module.features(network.prepare(PICTURE))[0, 2:17]
    np.testing.assert_allclose(seen.arrays["activations"], tokens.T.reshape(6, 3, 5), rtol=1e-5, atol=1e-6)
    assert "special 1, special 2, special 3" in seen.facts["tokens"]


class Attending(ClassToken):
    """Has an attention matrix, and a norm of each head's keys `[1 heads T d]`."""

    def __init__(self) -> None:
        super().__init__()
        self.k_norm = nn.LayerNorm(3)

    def classify(self, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (2, 3)).transpose(1, 2)
        weights = torch.softmax(heads @ self.k_norm(heads).transpose(2, 3), -1)
        return self.head((weights @ heads).transpose(1, 2).flatten(2)[:, 0])


@pytest.mark.parametrize("kind", ["gradcam", "guided_gradcam", "scorecam", "ablationcam"])
@pytest.mark.parametrize(("layer", "code"), [("softmax", "no-feature-map"), ("k_norm", "no-such-layer")])
def test_what_is_no_map_is_refused(kind: str, layer: str, code: str) -> None:
    network = wrapped(Attending)
    unit = vizapp.class_unit(network, 0)
    with pytest.raises(VizError) as error:
        vizapp.ask("attribution", network, PICTURE, unit=unit, kind=kind, layer=layer)
    assert error.value.code == code
    assert vizapp.ask("attribution", network, PICTURE, unit=unit, kind=kind).facts["note"].startswith("At layer add,")


def test_guided_grad_cam_is_captums_on_modules() -> None:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)).eval()
    network = vizapp.wrap(module, input_size=(3, 24, 24))
    for class_ in range(4):
        unit = vizapp.class_unit(network, class_)
        result = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="guided_gradcam")
        picture = network.prepare(PICTURE).requires_grad_()
        expected = GuidedGradCam(module, module[4]).attribute(picture, class_, interpolate_mode="bilinear")
        np.testing.assert_allclose(result.arrays["attribution"], expected[0].sum(0).detach(), rtol=1e-4, atol=1e-7)


def test_the_layers_on_every_path_are_those_whose_removal_cuts_the_picture_off() -> None:
    """Oracle: replace a site's value by a constant; if the answer no longer depends on the picture, it was on every path."""

    class Paths(nn.Module):
        def forward(self, x: Tensor, cut: str = "") -> Tensor:
            def site(name: str, value: Tensor) -> Tensor:
                return torch.ones_like(value) if name == cut else value

            a = site("sin", x.sin())
            b = site("cos", a.cos())
            c = site("exp", a.exp())
            d = site("add", b + c)
            e = site("tanh", d.tanh())
            f = site("mul", d * e)
            g = site("cat", torch.cat([f, f], 1))
            return site("sigmoid", g.sigmoid()).mean((2, 3))

    names = ["sin", "cos", "exp", "add", "tanh", "mul", "cat", "sigmoid"]
    module, picture = Paths().eval(), torch.rand(1, 3, 8, 8)
    found = sites_on_every_path(module, picture, "mean", names)
    expected = [name for name in names if torch.equal(module(picture, name), module(picture * 0.5, name))]
    assert found == expected == ["sin", "add", "mul", "cat", "sigmoid"]


# ------------------------------------------------------------------------------------- one picture and torch's batch norm


class NormThenTokens(nn.Module):
    """A batch norm of one picture whose gradient comes from tokens: torch 2.14.1 gets it wrong on the CPU."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), norm(16)
        self.mix, self.head = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.mix(self.norm(torch.sin(self.stem(x))).flatten(2).transpose(1, 2)))
        return self.head(x.mean(1))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_one_picture_are_those_of_finite_differences(
    norm: type[nn.Module], layout: torch.memory_format
) -> None:
    module, generator = seeded(NormThenTokens(norm)).double(), torch.Generator().manual_seed(5)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.linspace(0.5, 2, 16))
    picture = torch.rand(1, 3, 14, 14, generator=generator, dtype=torch.float64).contiguous(memory_format=layout)
    kept, gradients = gradients_at(module, picture, lambda kept: kept["head"][0, 1], ["sin", "head"])

    def score(maps: Tensor) -> Tensor:
        return module.head(torch.tanh(module.mix(module.norm(maps).flatten(2).transpose(1, 2))).mean(1))[0, 1]

    for _ in range(5):
        direction = torch.randn(1, 16, 14, 14, generator=generator, dtype=torch.float64)
        slope = (score(kept["sin"] + 1e-5 * direction) - score(kept["sin"] - 1e-5 * direction)) / 2e-5
        assert float((gradients["sin"] * direction).sum()) == pytest.approx(float(slope), rel=1e-5)


@pytest.mark.parametrize("kind", ["gradcam", "integrated_gradients", "smoothgrad"])
def test_maps_of_one_picture_are_those_of_a_network_without_batch_norm(kind: str) -> None:
    """The same function with the norm written as a product and a sum, which torch differentiates rightly."""

    class Written(nn.Module):
        def __init__(self, norm: nn.BatchNorm2d) -> None:
            super().__init__()
            self.scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            self.shift = norm.bias - norm.running_mean * self.scale

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale[:, None, None] + self.shift[:, None, None]

    given, written = (seeded(NormThenTokens()) for _ in range(2))
    for module in (given, written):
        module.norm.running_mean.copy_(torch.linspace(-1, 1, 16))
        module.norm.running_var.copy_(torch.linspace(0.5, 2, 16))
    written.norm = Written(written.norm)
    found = [
        vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 2), kind=kind, layer="sin", steps=9)
        for network in (vizapp.wrap(given, input_size=(3, 14, 14)), vizapp.wrap(written, input_size=(3, 14, 14)))
    ]
    expected = found[1].arrays["attribution"]
    np.testing.assert_allclose(found[0].arrays["attribution"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# --------------------------------------------------------------------------------------------------------- completeness


class Written(nn.Module):
    """Linear, ReLU, linear, with the ReLU as a module or as a function."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.a, self.relu, self.b, self.functional = nn.Linear(3 * 4 * 4, 10), nn.ReLU(), nn.Linear(10, 3), functional

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x.flatten(1))
        return self.b(F.relu(x) if self.functional else self.relu(x))


@pytest.mark.parametrize("class_", range(3))
def test_deeplift_is_the_rescale_rule(class_: int) -> None:
    module = seeded(Written(functional=False)).double()
    network = vizapp.wrap(module, input_size=(3, 4, 4), mean=0.5, std=1)
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind="deeplift")
    x = network.prepare(PICTURE).flatten()
    given, without = module.a(x), module.a(torch.zeros_like(x))
    slope = (given.relu() - without.relu()) / (given - without)  # Shrikumar et al. 2017, section 3.5.2
    expected = (x * ((module.b.weight[class_] * slope) @ module.a.weight)).view(3, 4, 4).sum(0)
    np.testing.assert_allclose(result.arrays["attribution"], expected, rtol=1e-4, atol=1e-6)
    assert "caution" not in result.facts
    assert "0.00 %" in result.facts["completeness"]
    assert result.facts["note"].startswith("Against mid-grey")


def test_deeplift_explains_units_of_the_layers_that_it_watches() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 5 * 9, 6))
    body = seeded(module).eval()
    network = vizapp.wrap(body, input_size=SIZE, mean=0.5, std=1)
    for depth in (1, 2):
        cells = body[: depth + 1](network.prepare(PICTURE))[0]
        channel, row, column = np.unravel_index(int(cells.argmax()), cells.shape)
        unit = vizapp.Unit(str(depth), int(channel), (int(row), int(column)))
        found = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="deeplift")
        reader = nn.Conv2d(
            4, 4, 1, groups=4, bias=False
        )  # the same number, read by a layer that DeepLIFT does not watch
        nn.init.ones_(reader.weight)
        other = vizapp.wrap(nn.Sequential(*body[: depth + 1], reader), input_size=SIZE, mean=0.5, std=1)
        read = vizapp.Unit(str(depth + 1), unit.channel, unit.cell)
        expected = vizapp.ask("attribution", other, PICTURE, unit=read, kind="deeplift").arrays["attribution"]
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found.arrays["attribution"], expected, rtol=1e-5, atol=1e-7)
        assert "0.00 %" in found.facts["completeness"]


@pytest.mark.parametrize("class_", range(3))
def test_deeplift_is_the_same_for_functional_rectifiers(class_: int) -> None:
    found = [
        vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind="deeplift")
        for network in (
            vizapp.wrap(seeded(Written(functional)), input_size=(3, 4, 4), mean=0.5, std=1)
            for functional in (False, True)
        )
    ]
    assert "caution" not in found[1].facts
    np.testing.assert_array_equal(found[0].arrays["attribution"], found[1].arrays["attribution"])


def test_deeplift_that_does_not_add_up_says_so() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3 * 4 * 4, 3), nn.Linear(3 * 4 * 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x.flatten(1)) * self.b(x.flatten(1)).exp()

    network = vizapp.wrap(seeded(Product()), input_size=(3, 4, 4), mean=0.0, std=1)
    unit = vizapp.class_unit(network, 0)
    result = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="deeplift")
    with torch.no_grad():
        scores = [network.module(x)[0, 0] for x in (network.prepare(PICTURE), torch.zeros(1, 3, 4, 4))]
    assert abs(result.arrays["attribution"].sum() - float(scores[0] - scores[1])) > 0.01 * float(
        abs(scores[0] - scores[1])
    )
    assert result.facts["caution"].startswith("Do not trust these numbers")
    assert f"{float(scores[0] - scores[1]):.4g}" in result.facts["caution"]
    assert result.facts["note"].startswith("Against black")
    whole = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="integrated_gradients", steps=400)
    assert "caution" not in whole.facts


def test_integrated_gradients_are_their_closed_form() -> None:
    """Of a square: the path integral of 2 t x is x, so that each pixel gets its own square."""

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.square().sum((1, 2, 3)), x.pow(3).sum((1, 2, 3))], 1)

    network = vizapp.wrap(Square(), input_size=(3, 5, 6))
    x = network.prepare(PICTURE)[0]
    for class_, power in enumerate((2, 3)):
        result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), steps=4)
        np.testing.assert_allclose(result.arrays["attribution"], x.pow(power).sum(0), rtol=1e-4, atol=1e-5)
        assert "0.00 %" in result.facts["completeness"]
        assert result.facts["note"] == "4 steps from the mean colour."


def test_too_few_steps_are_told() -> None:
    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(50 * (x.mean((2, 3)) - 0.3))

    network = vizapp.wrap(Steep(), input_size=(3, 5, 6), mean=0.0, std=1)
    unit = vizapp.class_unit(network, 0)
    assert "caution" in vizapp.ask("attribution", network, PICTURE, unit=unit, steps=2).facts
    assert "caution" not in vizapp.ask("attribution", network, PICTURE, unit=unit, steps=300).facts


@pytest.mark.parametrize(("function", "parts"), [
    (lambda t: torch.tanh(20 * (t - 0.3)), 1), (lambda t: torch.tanh(200 * (t - 0.3)), None),
    (lambda t: torch.tanh(2000 * (t - 0.7)), None), (lambda t: (20 * t - 3).clip(0, 1) + (30 * t - 4).clip(0, 1), None),
    (lambda t: t + torch.sign(t - 0.4), 8),
])  # fmt: skip
def test_by_default_as_many_steps_are_taken_as_completeness_needs(function, parts) -> None:  # type: ignore[no-untyped-def]
    """The unit is a function of the share of the path, so that each pixel gets its share of the rise; a jump has no slope."""
    total = 1.0

    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x.sum((1, 2, 3)) / total)[:, None]

    network = vizapp.wrap(Steep(), input_size=(3, 5, 6), mean=0.0, std=1)
    x = network.prepare(PICTURE)[0]
    total, unit = x.sum(), vizapp.class_unit(network, 0)
    result = vizapp.ask("attribution", network, PICTURE, unit=unit)
    rise = float(function(torch.tensor([0.0, 1.0], dtype=torch.float64)).diff())
    assert ("caution" in result.facts) == (parts == 8)
    if parts != 8:
        np.testing.assert_allclose(result.arrays["attribution"], (x.sum(0) / total) * rise, rtol=0.011, atol=1e-7)
    chosen = vizapp.ask("attribution", network, PICTURE, unit=unit, steps=32)
    assert chosen.facts["note"] == "32 steps from black."
    assert np.array_equal(chosen.arrays["attribution"], result.arrays["attribution"]) == (parts == 1)
    assert ("caution" in chosen.facts) == (parts != 1)
    if parts is None:
        steps = int(result.facts["note"].split()[0])
        assert steps in range(64, 257, 32)
        assert result.facts["note"] == f"{steps} steps from black, in {steps // 32} parts of the path."
    elif parts == 8:
        assert result.facts["note"] == "256 steps from black, in 8 parts of the path."


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vizapp/zfnet-mini", "vizapp/lenet5-digits"])
def test_the_first_view_of_the_included_networks_has_no_caution(name: str) -> None:
    network = vizapp.load(name)
    samples = [one for one in sample_names() if one.startswith("digit") == (network.input_size[0] == 1)]
    picture = open_sample(_KNOWN.get(name, samples[0]))
    answer = int(vizapp.ask("predict", network, picture).arrays["probabilities"].argmax())
    facts = vizapp.ask("attribution", network, picture, unit=vizapp.class_unit(network, answer)).facts
    assert "caution" not in facts, facts


def test_in_place_activations_that_the_network_counts_on_are_left_in_place() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return (self.relu(x) + 2 * x).mean((2, 3))  # 3 relu(x)

    network = vizapp.wrap(seeded(Counts()), input_size=(3, 8, 8), mean=0.45, std=0.2)
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 1), steps=500)
    with torch.no_grad():
        rise = [
            F.relu(network.module.conv(x))[0, 1].mean() * 3 for x in (network.prepare(PICTURE), torch.zeros(1, 3, 8, 8))
        ]
    assert result.arrays["attribution"].sum() == pytest.approx(float(rise[0] - rise[1]), rel=0.01)
