"""The methods `projection`, `attribution` and `sanity`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import IntegratedGradients
from torch import nn

import vizapp
import vizapp.media.samples
from tests.errors import refuses
from tests.networks import Branching, seeded
from tests.oracles import out_of_place, steered_projection
from vizapp.engine.projection.project import Certificate
from vizapp.errors import VizError
from vizapp.methods.projection import certificate_text
from vizapp.methods.sanity import _parameters_used, randomised, rank_correlation
from vizapp.zoo.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40), categories=list("abcde"))


@pytest.fixture(scope="module")
def picture() -> vizapp.media.picture.Picture:  # type: ignore[name-defined]
    return vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8), "noise")


def test_arrays_are_as_promised(network, picture) -> None:
    result = vizapp.ask("projection", network, picture, unit=vizapp.Unit("add", 2, (3, 4)))
    projection, patch, field = (result.arrays[name] for name in ("projection", "patch", "field"))
    activation = vizapp.ask("activations", network, picture, unit=vizapp.Unit("add", 2)).arrays["activations"][2, 3, 4]
    assert projection.shape == (48, 40, 3)
    assert projection.dtype == np.float32
    assert result.arrays["activation"] == pytest.approx(activation, rel=1e-5)
    expected = steered_projection(out_of_place(network.module), network.prepare(picture), "add", (2, 3, 4), "deconvnet")
    if activation > 0:
        np.testing.assert_allclose(projection, (expected * activation).permute(1, 2, 0), rtol=1e-3, atol=1e-6)
    top, left, bottom, right = field
    assert patch.shape == (bottom - top, right - left, 3) or patch.shape == (48, 40, 3)
    outside = np.ones((48, 40), bool)
    outside[max(top, 0) : bottom, max(left, 0) : right] = False
    assert not projection[outside].any(), "a cell gets nothing from where it cannot see"


def test_the_patch_is_the_part_of_the_picture_that_the_cell_sees(network, picture) -> None:
    result = vizapp.ask("projection", network, picture, unit=vizapp.Unit("stem", 1, (10, 8)))
    top, left, bottom, right = result.arrays["field"]
    assert (bottom - top, right - left) == (5, 5)
    np.testing.assert_array_equal(result.arrays["patch"], network.seen(picture)[top:bottom, left:right])
    corner = vizapp.ask("projection", network, picture, unit=vizapp.Unit("stem", 1, (0, 0)))
    assert tuple(corner.arrays["field"]) == (-2, -2, 3, 3)
    np.testing.assert_array_equal(corner.arrays["patch"][2:, 2:], network.seen(picture)[:3, :3])
    assert (corner.arrays["patch"][:2] == 128).all()


class Counted(nn.Module):
    """A network that counts its forward passes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.body, self.passes = module, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return self.body(x)


@pytest.mark.parametrize(
    "unit", [vizapp.Unit("body.add", 2), vizapp.Unit("body.add", 2, (3, 4)), vizapp.Unit("body.head", 1)]
)
@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_a_projection_takes_one_pass(picture, rule: str, unit: vizapp.Unit) -> None:  # type: ignore[name-defined]
    module = Counted(seeded(Branching()))
    network = vizapp.wrap(module, input_size=(3, 48, 40))
    assert network.sites
    module.passes = 0
    vizapp.ask("projection", network, picture, unit=unit, rule=rule)
    assert module.passes == 1


def test_no_cell_means_the_strongest_one(network, picture) -> None:
    maps = vizapp.ask("activations", network, picture, unit=vizapp.Unit("add", 2)).arrays["activations"][2]
    row, column = np.unravel_index(maps.argmax(), maps.shape)
    free = vizapp.ask("projection", network, picture, unit=vizapp.Unit("add", 2))
    named = vizapp.ask("projection", network, picture, unit=vizapp.Unit("add", 2, (int(row), int(column))))
    np.testing.assert_array_equal(free.arrays["projection"], named.arrays["projection"])
    assert f"{row},{column}" in free.facts["unit"]


def test_the_facts_carry_certificate_and_caution(network, picture) -> None:
    result = vizapp.ask("projection", network, picture, unit=vizapp.class_unit(network, "c"), rule="guided")
    assert (
        "4 reversed by the paper's rule, 0 by an extended rule, 0 only differentiated; 1 max pool"
        in result.facts["certificate"]
    )
    assert "does not explain the class decision" in result.facts["caution"]
    gradient = vizapp.ask("projection", network, picture, unit=vizapp.class_unit(network, "c"), rule="gradient")
    assert "all differentiated" in gradient.facts["certificate"]


@pytest.mark.parametrize(
    ("rule", "certificate", "expected"),
    [
        ("deconvnet", Certificate(1, switches=1, gates=1), "1 non-linearity between unit and pixels: 1 reversed"),
        ("deconvnet", Certificate(1, switches=1, gates=1), "; 1 max pool with switches, 1 gate held constant."),
        ("guided", Certificate(2, 1, 1, gates=2), "4 non-linearities between unit and pixels: 2 reversed"),
        ("guided", Certificate(2, 1, 1, gates=2), "; 0 max pools with switches, 2 gates held constant."),
        ("gradient", Certificate(differentiated=1), "1 non-linearity between unit and pixels, all differentiated"),
        ("gradient", Certificate(), "0 non-linearities between unit and pixels, all differentiated"),
    ],
)
def test_the_certificate_is_a_sentence(rule: str, certificate: Certificate, expected: str) -> None:
    assert expected in certificate_text(certificate, rule)


def test_grey_networks_give_three_equal_channels() -> None:
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    result = vizapp.ask(
        "projection", network, vizapp.media.samples.open_sample("digit 3"), unit=vizapp.Unit("features.4", 3)
    )
    projection = result.arrays["projection"]
    assert projection.shape == (28, 28, 3)
    assert projection.any()
    np.testing.assert_array_equal(projection[..., 0], projection[..., 2])


@pytest.mark.parametrize("module", [torch.jit.script(Branching()), torch.compile(Branching())])
def test_modules_that_cannot_be_seen_into_are_refused(module: nn.Module) -> None:
    with pytest.raises(VizError):
        vizapp.wrap(module, input_size=(3, 48, 40))


def test_quantised_modules_are_refused() -> None:
    with pytest.raises(VizError, match=r"[Qq]uanti"):
        vizapp.load("torchvision/quantized_mobilenet_v2")


@pytest.mark.parametrize("kind", ["integrated_gradients", "smoothgrad", "gradcam", "deeplift", "guided_gradcam"])
def test_every_attribution_answers_for_classes_and_hidden_units(kind: str) -> None:
    torch.manual_seed(0)
    network = vizapp.wrap(torchvision.models.squeezenet1_1(weights=None), input_size=(3, 64, 64))
    picture = vizapp.media.samples.open_sample("chelsea")
    hooks = [len(part._forward_hooks) + len(part._backward_hooks) for part in network.module.modules()]
    top = vizapp.ask("predict", network, picture).table[0]["class"]  # others may be silent, with random weights
    strong = vizapp.ask("activations", network, picture, unit=vizapp.Unit("features.7.cat", 0)).table[0]["channel"]
    for unit in (vizapp.class_unit(network, top), vizapp.Unit("features.7.cat", strong)):
        result = vizapp.ask("attribution", network, picture, unit=unit, kind=kind, steps=3)
        assert result.arrays["attribution"].shape == (64, 64)
        assert np.isfinite(result.arrays["attribution"]).all()
        assert result.arrays["attribution"].any()
    assert hooks == [len(part._forward_hooks) + len(part._backward_hooks) for part in network.module.modules()]


def test_attribution_is_captums(network, picture) -> None:
    result = vizapp.ask("attribution", network, picture, unit=vizapp.class_unit(network, "b"), steps=16)
    expected = IntegratedGradients(out_of_place(network.module)).attribute(
        network.prepare(picture), target=1, n_steps=16
    )
    np.testing.assert_allclose(result.arrays["attribution"], expected[0].sum(0).detach(), rtol=1e-4, atol=1e-6)


def test_what_captum_cannot_do_is_told(network, picture) -> None:
    with refuses("no-such-layer", "nowhere"):
        vizapp.ask(
            "attribution", network, picture, unit=vizapp.class_unit(network, "b"), kind="gradcam", layer="nowhere"
        )


@pytest.mark.parametrize("kind", ["gradcam", "guided_gradcam"])
@pytest.mark.parametrize(
    ("unit", "layer", "code"),
    [
        (vizapp.Unit("head", 1), "mean", "no-feature-map"),
        (vizapp.Unit("head", 1), "head", "not-below-unit"),
        (vizapp.Unit("cat", 1), "body", "not-below-unit"),
    ],
)
def test_a_layer_that_grad_cam_cannot_look_at_is_told(network, picture, kind, unit, layer, code) -> None:
    with pytest.raises(VizError) as error:
        vizapp.ask("attribution", network, picture, unit=unit, kind=kind, layer=layer)
    assert error.value.code == code
    found = vizapp.ask("attribution", network, picture, unit=vizapp.Unit("head", 1), kind=kind, layer="body")
    assert "At layer body." in found.facts["note"]


def test_sanity_compares_with_randomised_networks(network, picture) -> None:
    state = {key: value.clone() for key, value in network.module.state_dict().items()}
    result = vizapp.ask("sanity", network, picture, unit=vizapp.Unit("relu", 2))
    above, _, every = result.arrays["similarity"]
    assert above == pytest.approx(1), "layers above a hidden unit have no part in its projection"
    np.testing.assert_array_equal(result.arrays["above"], result.arrays["projection"])
    assert every < 0.99
    assert all(torch.equal(value, state[key]) for key, value in network.module.state_dict().items())


def test_all_weights_are_those_of_normalisations_as_well(picture) -> None:
    norm = nn.BatchNorm2d(4)
    module = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    norm.weight.data, norm.bias.data = torch.tensor([1.0, 5.0, 0.1, 2.0]), torch.tensor([0.3, -0.1, 0.2, 0.9])
    network = vizapp.wrap(module, input_size=(3, 24, 24), categories=list("abcd"))
    below, above = _parameters_used(network.module, network.prepare(picture), "2")
    assert (below, above) == (["0.bias", "0.weight", "1.bias", "1.weight"], [])
    other = randomised(network.module, below, seed=3)
    for name, parameter in other.named_parameters():
        learnt = network.module.get_parameter(name)
        assert not torch.equal(parameter, learnt), name
        assert torch.equal(parameter.flatten().sort().values, learnt.flatten().sort().values), "the same numbers"
    result = vizapp.ask("sanity", network, picture, unit=vizapp.Unit("2", 1))
    maps = vizapp.ask("activations", network, picture, unit=vizapp.Unit("2", 1)).arrays["activations"][1]
    row, column = divmod(int(maps.argmax()), maps.shape[1])
    every = vizapp.wrap(randomised(network.module, below, seed=0), (3, 24, 24))
    down = vizapp.ask("projection", every, picture, unit=vizapp.Unit("2", 1, (row, column)), seed="one")
    np.testing.assert_allclose(result.arrays["all"], down.arrays["projection"], rtol=1e-5, atol=1e-7)


class Detaching(nn.Module):
    """Adds a detached copy of its features to them; `how` says how it detaches."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.fc, self.how = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.how in {"no_grad", "inference_mode"}:
            with getattr(torch, self.how)():
                other = x * 1
        else:
            other = {
                "detach": x.detach,
                "data": lambda: x.data,
                "enable_grad": torch.enable_grad()(x.clone),
                "no": x.clone,
            }[self.how]()
        return self.fc((x + other).mean((2, 3)))


@pytest.mark.parametrize("how", ["detach", "data", "no_grad", "inference_mode", "enable_grad", "no"])
def test_a_signal_that_passes_where_autograd_stops_is_told(how: str, picture) -> None:
    module = seeded(Detaching(how)).double()
    network = vizapp.wrap(module, input_size=(3, 24, 24))
    unit = vizapp.class_unit(network, 1)
    result = vizapp.ask("projection", network, picture, unit=unit, rule="gradient", seed="one")
    pixels = network.prepare(picture).requires_grad_()
    (expected,) = torch.autograd.grad(module.fc(2 * module.conv(pixels).mean((2, 3)))[0, 1], pixels)
    np.testing.assert_allclose(result.arrays["projection"], expected[0].permute(1, 2, 0).numpy(), atol=1e-6)
    assert ("detached" in result.facts) == (how not in {"no", "enable_grad"})


class Flat(nn.Module):
    """A function of features, and its mean."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("function", "rule", "seed", "reason", "not_the_reason"),
    [
        (torch.round, "deconvnet", "one", "round", "rectifier"),
        (torch.floor, "guided", "value", "floor", "rectifier"),
        (lambda x: x.sign() + x.clamp(min=0).ceil(), "gradient", "one", "ceil and sign", "rectifier"),
        (lambda x: -F.relu(x), "deconvnet", "one", "rectifier", "derivative"),
        (lambda x: F.relu(-x.abs()), "guided", "one", "rectifier", "derivative"),
        (lambda x: x.round() - F.relu(x), "deconvnet", "one", "rectifiers removed all of the signal", "activation is zero"),
        (lambda x: x * 0, "deconvnet", "value", "activation is zero", "rectifier"),
        (lambda x: torch.where(x > 0, 1.0, 2.0) + x * 0, "gradient", "one", "mul", "rectifier"),
    ],
)  # fmt: skip
def test_a_silent_projection_says_why(
    function: Callable[..., torch.Tensor], rule: str, seed: str, reason: str, not_the_reason: str, picture
) -> None:
    network = vizapp.wrap(seeded(Flat(function)), input_size=(3, 24, 24))
    result = vizapp.ask("projection", network, picture, unit=vizapp.Unit("mean", 1), rule=rule, seed=seed)
    assert not result.arrays["projection"].any()
    assert reason in result.facts["silent"]
    assert not_the_reason not in result.facts["silent"]


def test_a_projection_that_is_not_silent_gives_no_reason(picture) -> None:
    network = vizapp.wrap(seeded(Flat(lambda x: x.round() + F.relu(x))), input_size=(3, 24, 24))
    result = vizapp.ask("projection", network, picture, unit=vizapp.Unit("mean", 1), seed="one")
    assert result.arrays["projection"].any()
    assert "silent" not in result.facts


def test_rank_correlation() -> None:
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.ones(4)) == 0
    # scipy.stats.spearmanr([1, 2, 2, 4], [1, 3, 2, 4]) is 0.9487
    assert rank_correlation(np.array([1.0, 2, 2, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.9487, abs=1e-4)
