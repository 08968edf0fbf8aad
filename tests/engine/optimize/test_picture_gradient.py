"""The gradient of a convolution by its picture, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.engine.optimize.picture_gradient import picture_convolution


def gradients(output: Tensor, pictures: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).cos().view(output.shape)
    return torch.autograd.grad((output * weights).sum(), pictures)[0]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((7, 7), 2, 3), ((7, 7), 2, 0), ((3, 3), 1, 1), ((3, 3), 1, 0), ((3, 3), 2, 1), ((11, 11), 4, 2), ((4, 4), 4, 0),
        ((2, 5), 3, (1, 4)), ((1, 1), 1, 0), ((1, 2), 2, 2), ((5, 3), 1, (3, 0)), ((2, 2), 4, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(16, 16), (17, 15), (23, 18)])
def test_the_gradient_is_that_of_torch(
    kernel: tuple[int, int], stride: int, padding: int | tuple[int, int], size: tuple[int, int]
) -> None:
    random = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, 3, *size, generator=random, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, 3, *kernel, generator=random, dtype=torch.float64)
    bias = torch.randn(5, generator=random, dtype=torch.float64)
    expected = F.conv2d(pictures, weight, bias, stride, padding)
    found = picture_convolution((pictures, weight), {"bias": bias, "stride": (stride, stride), "padding": padding})
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradients(found, pictures), gradients(expected, pictures))


def test_other_convolutions_are_left_to_torch() -> None:
    pictures, weight = torch.zeros(1, 3, 8, 8, requires_grad=True), torch.zeros(4, 3, 3, 3)
    assert picture_convolution((pictures, weight), {}) is not None
    for kwargs in ({"stride": (1, 2)}, {"stride": 5}, {"dilation": 2}, {"padding": "same"}, {"groups": 3}):
        assert picture_convolution((pictures, weight[:3, :1] if "groups" in kwargs else weight), kwargs) is None, kwargs
    assert picture_convolution((torch.zeros(1, 5, 8, 8, requires_grad=True), torch.zeros(4, 5, 3, 3)), {}) is None
    assert picture_convolution((pictures[0], weight), {}) is None
    assert picture_convolution((pictures.detach(), weight), {}) is None
    with torch.no_grad():
        assert picture_convolution((pictures, weight), {}) is None
