"""The cost of single operations equals torch's own count, and windows are those of the arguments."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vizapp.engine.layers.costs import arithmetic, multiply_adds, window

X = torch.zeros(1, 6, 9, 8)
A, B, C = torch.zeros(3, 4, 5), torch.zeros(3, 5, 7), torch.zeros(3, 4, 7)
PRODUCTS: dict[str, tuple[Callable[..., Tensor], tuple[object, ...], dict[str, object]]] = {
    "conv2d": (F.conv2d, (X, torch.zeros(9, 2, 3, 2)), {"stride": 2, "groups": 3}),
    "conv_transpose2d": (F.conv_transpose2d, (X, torch.zeros(6, 4, 3, 2)), {"stride": 2, "groups": 2}),
    "conv1d": (F.conv1d, (X[0], torch.zeros(5, 9, 3)), {}),
    "linear": (F.linear, (X, torch.zeros(5, 8)), {}),
    "matmul": (torch.matmul, (A, B), {}),
    "bmm": (torch.bmm, (A, B), {}),
    "mm": (torch.mm, (A[0], B[0]), {}),
    "addmm": (torch.addmm, (C[0], A[0], B[0]), {}),
    "baddbmm": (torch.baddbmm, (C, A, B), {}),
    "einsum": (torch.einsum, ("bij,bjk->bik", A, B), {}),
    "einsum of a list": (torch.einsum, ("b i j, b j k -> b i k", [A, B]), {}),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_count_as_torch_counts_them(name: str) -> None:
    function, args, kwargs = PRODUCTS[name]
    operation = name.split()[0]
    with FlopCounterMode(display=False) as counter:
        output = function(*args, **kwargs)
    found = multiply_adds(operation, args, kwargs, output)
    assert found == counter.get_total_flops() // 2 > 0
    assert arithmetic(operation, args, kwargs, output) == 2 * found


def test_attention_counts_its_two_products() -> None:
    query, key, value = torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 7, 4), torch.zeros(2, 3, 7, 6)
    output = F.scaled_dot_product_attention(query, key, value)
    by_hand = 2 * 3 * (5 * 7 * 4 + 5 * 7 * 6)
    assert multiply_adds("scaled_dot_product_attention", (query, key, value), {}, output) == by_hand


def test_anything_else_has_no_products_and_little_arithmetic() -> None:
    assert multiply_adds("relu", (X,), {}, X) == 0
    assert arithmetic("relu_", (X,), {}, X) == X.numel()
    assert arithmetic("batch_norm", (X,), {}, X) == 2 * X.numel()
    assert arithmetic("flatten", (X,), {}, X) == arithmetic("cat", ([X],), {}, X) == 0
    biased = (X, torch.zeros(8, 6, 1, 1), torch.zeros(8))
    output = F.conv2d(*biased)
    assert arithmetic("conv2d", biased, {}, output) == 2 * 72 * 8 * 6 + 72 * 8


def test_windows_are_those_of_the_arguments() -> None:
    pooled = F.max_pool2d(X, (3, 2), 1)
    assert window("max_pool2d", (X, (3, 2), 1), {}, pooled) == ((3, 2), (1, 1))
    assert window("avg_pool2d", (X,), {"kernel_size": 2}, F.avg_pool2d(X, 2)) == ((2, 2), (2, 2))
    even, odd = F.adaptive_avg_pool2d(X, (3, 4)), F.adaptive_avg_pool2d(X, (2, 4))
    assert window("adaptive_avg_pool2d", (X, (3, 4)), {}, even) == ((3, 2), (3, 2))
    assert window("adaptive_avg_pool2d", (X, (2, 4)), {}, odd) == (None, None), "windows of several sizes"
    assert window("mean", (X, (-2, -1)), {}, X.mean((-2, -1))) == ((9, 8), (1, 1))
    assert window("mean", (X, 1), {}, X.mean(1)) == (None, None)
    assert window("relu", (X,), {}, X) == (None, None)
    assert arithmetic("max_pool2d", (X, (3, 2), 1), {}, pooled) == pooled.numel() * 6
