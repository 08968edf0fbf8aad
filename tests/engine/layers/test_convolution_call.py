"""The call of a convolution holds the numbers that its result is computed from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.networks import seeded
from vizapp.engine.layers.convolution_call import convolution_call
from vizapp.errors import VizError

X = torch.rand(1, 3, 11, 9, generator=torch.manual_seed(0))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, stride=2, padding=(2, 1)),
        nn.Conv2d(3, 4, (4, 2), padding="same", bias=False),
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_input_kernels_and_bias_give_the_output(layer: nn.Module) -> None:
    network = seeded(nn.Sequential(layer, nn.ReLU()))
    call = convolution_call(network, X, "0")
    assert call is not None
    given, weight, bias = (torch.from_numpy(array) for array in (call.given, call.weight, call.bias))
    again = F.conv2d(given[None], weight, bias, call.window.stride, 0, call.window.dilation)
    np.testing.assert_allclose(again[0].numpy(), call.output, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(call.output, network[0](X)[0].detach().numpy())
    assert call.nbytes == 4 * sum(array.size for array in (call.given, call.weight, call.bias, call.output))


def test_it_is_of_convolutions_without_groups_alone() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.ConvTranspose2d(6, 2, 2)))
    assert [convolution_call(network, X, name) for name in "012"] == [None] * 3
    with pytest.raises(VizError, match="nothing"):
        convolution_call(network, X, "nothing")
