"""The kernels of a layer are those of the convolution that computes it, in any network, or an error says why there are none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.errors import refuses
from tests.networks import Branching, Choosing, seeded
from vizapp.engine.layers.kernels import kernels_of

PICTURE = torch.zeros(1, 3, 32, 32)


def test_a_layer_behind_the_convolution_has_its_kernels() -> None:
    network = seeded(Branching())
    for site in ("stem", "relu", "pool"):  # the ReLU works in place
        found = kernels_of(network, PICTURE, site)
        assert found.name == "stem"
        assert torch.equal(found.weight, network.stem.weight)
        assert found.stride == (2, 2)
        assert found.sees_pixels
    right = kernels_of(network, PICTURE, "relu_2")
    assert right.name == "right"
    assert not right.sees_pixels
    assert kernels_of(network, PICTURE, "left").dilation == (2, 2)


@pytest.mark.parametrize("site", ["cat", "add", "relu_3", "head"])
def test_a_layer_of_several_convolutions_has_no_kernels_of_its_own(site: str) -> None:
    with refuses("no-kernels-of-its-own", "right"):
        kernels_of(seeded(Branching()), PICTURE, site)


def test_before_the_first_convolution_there_are_none() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 3))
    with refuses("no-convolution-before", "'0'"):
        kernels_of(network, PICTURE, "0")


def test_weights_are_seen_as_the_pass_used_them() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias, self.stride)

    layer = Standardised(3, 4, 5, stride=2)
    found = kernels_of(nn.Sequential(layer, nn.BatchNorm2d(4).eval()), PICTURE, "1")
    assert found.weight.mean((1, 2, 3)).abs().max() < 1e-6
    assert not torch.equal(found.weight, layer.weight)
    assert found.stride == (2, 2)


def test_grouped_and_depthwise_kernels() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 3, groups=2))
    deep, grouped = kernels_of(network, PICTURE, "1"), kernels_of(network, PICTURE, "2")
    assert deep.weight.shape == (6, 1, 3, 3)
    assert deep.depthwise
    assert grouped.weight.shape == (4, 3, 3, 3)
    assert not grouped.depthwise
    assert grouped.groups == 2


def test_kernels_of_a_transposed_convolution_are_what_an_impulse_leaves() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, (3, 2), stride=4, groups=2, bias=False)
    found = kernels_of(nn.Sequential(layer), torch.zeros(1, 4, 8, 8), "0")
    assert found.weight.shape == (6, 2, 3, 2)
    for channel in range(4):
        impulse = torch.zeros(1, 4, 8, 8)
        impulse[0, channel, 0, 0] = 1
        left = layer(impulse)[0, :, :3, :2]
        group, inside = divmod(channel, 2)
        torch.testing.assert_close(left[3 * group : 3 * group + 3], found.weight[3 * group : 3 * group + 3, inside])


def test_the_pass_ends_at_the_layer_and_leaves_nothing_behind() -> None:
    network = Choosing()
    hooks = [len(m._forward_hooks) for m in network.modules()]
    network.conv_1 = nn.Identity()
    network.conv_1.forward = lambda x: pytest.fail("ran on")  # type: ignore[method-assign]
    assert kernels_of(network, PICTURE, "conv").name == "conv"
    assert hooks == [len(m._forward_hooks) for m in network.modules()]


def test_pixels_that_are_only_rescaled_are_still_pixels() -> None:
    network = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=True).eval()
    found = kernels_of(network, torch.zeros(1, 3, 64, 64), "conv1.relu")
    assert found.name == "conv1.conv"
    assert found.sees_pixels
    assert found.weight.shape == (64, 3, 7, 7)
