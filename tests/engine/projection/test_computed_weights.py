"""Networks that compute weights from the picture (CondConv, dynamic filters) are not treated as linear in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.engine.occlusion.test_sweep import compare, grid
from tests.networks import seeded
from tests.oracles import steered_projections
from vizapp.engine.fully_convolutional.convert import plan_conversion
from vizapp.engine.layers.kernels import kernels_of
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.receptive_field.field import receptive_fields
from vizapp.engine.trace.sites import Unit, survey
from vizapp.errors import VizError

SIDE = 12
Operate = Callable[[Tensor, Tensor], Tensor]  # a map [4 h w] and 144 numbers computed from it -> [4 …]


class Routed(nn.Module):
    """Mixes two sets of 144 weights as a gate says, and hands them with its map to an operation, picture by picture."""

    def __init__(self, operate: Operate) -> None:
        super().__init__()
        self.stem, self.routing, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2), nn.Linear(4, 5)
        self.experts, self.operate = nn.Parameter(torch.randn(2, 144)), operate

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        weights = torch.sigmoid(self.routing(x.mean((2, 3)))) @ self.experts  # [N 144]
        made = [self.operate(x[i : i + 1], weights[i]) for i in range(len(x))]
        return self.head(F.relu(torch.cat(made)).flatten(2).mean(2))


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.float64)


# Each with how many operations of its network can only be differentiated: the products of two values.
OPERATIONS: dict[str, tuple[Operate, int]] = {
    "convolution": (lambda x, w: F.conv2d(x, w.view(4, 4, 3, 3), padding=1), 1),
    "by keyword": (lambda x, w: F.conv2d(input=x, weight=w.view(4, 4, 3, 3), padding=1), 1),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w.view(4, 4, 3, 3), padding=1), 1),
    "linear": (lambda x, w: F.linear(x.permute(0, 2, 3, 1), w[:16].view(4, 4)).permute(0, 3, 1, 2), 1),
    "of a constant": (lambda x, w: F.conv2d(ones(1, 4, 8, 8), w.view(4, 4, 3, 3)), 0),
    "of a constant, normed": (
        lambda x, w: F.batch_norm(F.conv2d(ones(1, 4, 8, 8), w.view(4, 4, 3, 3)), 0 * ones(4), ones(4)),
        0,
    ),
    "bias alone": (lambda x, w: F.conv2d(x, ones(4, 4, 3, 3), w[:4]), 0),
    "norm": (lambda x, w: F.batch_norm(x, torch.zeros_like(w[:4]), ones(4), w[:4], w[4:8]), 1),
    "norm over the picture": (lambda x, w: F.batch_norm(x, None, None, None, None, True), 1),
    "slopes": (lambda x, w: F.prelu(x - 0.3, w[:4]), 1),
    "bounds": (lambda x, w: torch.clamp(x - 0.3, w[:4, None, None]), 1),
    "divisor": (lambda x, w: torch.div(ones(4, 1, 1), x + 1), 1),
    "type": (lambda x, w: ones(4, 1, 1).float().type_as(x) * (x - 0.3).to(w), 1),
}
PICTURE = torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def routed(name: str) -> nn.Module:
    return seeded(Routed(OPERATIONS[name][0])).double()


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_signals_take_the_true_derivative_through_what_is_computed(name: str, rule: str) -> None:
    module = routed(name)
    sites = survey(module, PICTURE)
    last = sites[-1].name
    expectations = steered_projections(module, PICTURE, last, [(channel,) for channel in range(5)], rule)
    for channel, expected in enumerate(expectations):
        (down,) = project(module, PICTURE, [Unit(last, channel)], sites, rule_named(rule), seed="one")
        assert (down.values[0] - expected).abs().max() <= 1e-9 * expected.abs().max(), channel
    if rule == "gradient":
        assert expected.abs().max() > 0  # or the test would show nothing
    if rule == "deconvnet" and name != "type":
        assert down.certificate.differentiated == OPERATIONS[name][1]


@pytest.mark.parametrize("name", ["convolution", "transposed", "linear", "bias alone", "norm over the picture"])
def test_a_cell_sees_all_that_its_weights_saw(name: str) -> None:
    found = receptive_fields(routed(name), PICTURE)
    seen = next(found[site] for site in ("conv2d", "conv_transpose2d", "linear", "batch_norm") if site in found)
    assert seen.inside((2, 9)) == (0, 0, SIDE, SIDE)


@pytest.mark.parametrize("name", OPERATIONS)
def test_squares_over_the_picture_change_the_weights_too(name: str) -> None:
    sweep = compare(routed(name), grid((SIDE, SIDE), (3, 3), 4), PICTURE, torch.zeros_like(PICTURE), 1e-12)
    assert ("Only what an occluder touches" in sweep.facts["evaluation"]) == (name != "norm over the picture")


@pytest.mark.parametrize("name", ["convolution", "by keyword", "transposed", "linear", "of a constant"])
def test_such_networks_are_no_convolution_of_themselves(name: str) -> None:
    with pytest.raises(VizError, match="computes its weights from the whole input"):
        plan_conversion(routed(name), PICTURE)


def test_a_norm_over_the_picture_is_another_on_a_larger_photo() -> None:
    with pytest.raises(VizError, match="'batch_norm'"):
        plan_conversion(routed("norm over the picture"), PICTURE)


def test_kernels_that_are_computed_are_not_shown_as_the_networks_own() -> None:
    module = routed("convolution")
    assert kernels_of(module, PICTURE, "stem").weight.shape == (4, 3, 3, 3)
    with pytest.raises(VizError, match="the kernels of 'conv2d' anew for each input"):
        kernels_of(module, PICTURE, "conv2d")


@pytest.mark.parametrize("rule", ["deconvnet", "gradient"])
@pytest.mark.slow
def test_a_published_network_with_weights_of_the_picture(rule: str) -> None:
    timm = pytest.importorskip("timm")
    module = seeded(timm.create_model("tf_efficientnet_cc_b0_4e", pretrained=False, num_classes=6))
    network = vizapp.wrap(module.double(), input_size=(3, 64, 64))
    picture = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    (down,) = project(
        network.module, picture, [vizapp.class_unit(network, 2)], network.sites, rule_named(rule), seed="one"
    )
    computed = 8 * 3  # three convolutions in each of its last blocks
    if rule == "gradient":
        leaf = picture.clone().requires_grad_()
        (expected,) = torch.autograd.grad(network.module(leaf)[0, 2], leaf)
        assert (down.values[0] - expected[0]).abs().max() <= 1e-9 * expected.abs().max()
    else:
        assert down.certificate.differentiated == computed
