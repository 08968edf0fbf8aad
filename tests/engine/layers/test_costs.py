"""Multiply-adds equal counts by hand, in all spellings of a product."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vizapp.engine.layers.costs import ProductCounter, arithmetic

X = torch.zeros(1, 6, 9, 8)
A, B, C = torch.zeros(3, 4, 5), torch.zeros(3, 5, 7), torch.zeros(3, 4, 7)
Q, K, V = torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 7, 4), torch.zeros(2, 3, 7, 6)
SEQUENCE = torch.zeros(2, 5, 4)  # items, time, width
PRODUCTS: dict[str, tuple[Callable[[], object], int]] = {
    "conv2d": (lambda: F.conv2d(X, torch.zeros(9, 2, 3, 2), stride=2, groups=3), 9 * 4 * 4 * 2 * 6),
    "convolution": (
        lambda: torch.convolution(X, torch.zeros(9, 2, 3, 2), None, (2, 2), (0, 0), (1, 1), False, (0, 0), 3),
        9 * 4 * 4 * 2 * 6,
    ),
    "aten conv2d": (lambda: torch.ops.aten.conv2d.default(X, torch.zeros(9, 6, 3, 2)), 9 * 7 * 7 * 6 * 6),
    "conv_transpose2d": (
        lambda: F.conv_transpose2d(X, torch.zeros(6, 4, 3, 2), stride=2, groups=2), X.numel() * 4 * 6
    ),
    "conv1d": (lambda: F.conv1d(X[0], torch.zeros(5, 9, 3)), 6 * 6 * 5 * 27),
    "deform_conv2d": (
        lambda: torchvision.ops.deform_conv2d(X, torch.zeros(1, 8, 8, 7), torch.zeros(5, 6, 2, 2)), 5 * 8 * 7 * 24
    ),
    "linear": (lambda: F.linear(X, torch.zeros(5, 8)), 6 * 9 * 8 * 5),
    "linear of a vector": (lambda: F.linear(X[0, 0, 0], torch.zeros(5, 8)), 40),
    "matmul": (lambda: A @ B, 3 * 4 * 5 * 7),
    "matmul of a vector": (lambda: A @ B[0, :, 0], 3 * 4 * 5),
    "mv": (lambda: A[0].mv(B[0, :, 0]), 4 * 5),
    "dot": (lambda: A[0, 0].dot(A[0, 1]), 5),
    "bmm": (lambda: torch.bmm(A, B), 3 * 4 * 5 * 7),
    "addmm": (lambda: torch.addmm(C[0], A[0], B[0]), 4 * 5 * 7),
    "addmm_": (lambda: C[0].addmm_(A[0], B[0]), 4 * 5 * 7),
    "addmv": (lambda: torch.addmv(C[0, :, 0], A[0], B[0, :, 0]), 4 * 5),
    "baddbmm": (lambda: torch.baddbmm(C, A, B), 3 * 4 * 5 * 7),
    "addbmm": (lambda: torch.addbmm(C[0], A, B), 3 * 4 * 5 * 7),
    "einsum": (lambda: torch.einsum("bij,bjk->bik", A, B), 3 * 4 * 5 * 7),
    "einsum of a list": (lambda: torch.einsum("b i j, b j k -> b i k", [A, B]), 3 * 4 * 5 * 7),
    "einsum of sublists": (lambda: torch.einsum(A, [0, 1, 2], B, [0, 2, 3]), 3 * 4 * 5 * 7),
    "einsum with dots": (lambda: torch.einsum("...ij,...jk->...ik", A, B), 3 * 4 * 5 * 7),
    "einsum that only scales": (lambda: torch.einsum("bij,bi->bij", A, A[:, :, 0]), 0),
    "tensordot": (lambda: torch.tensordot(A, B, ([0, 2], [0, 1])), 4 * 15 * 7),
    "inner": (lambda: torch.inner(A, B.mT), 3 * 4 * 5 * 3 * 7),
    "multi_dot": (lambda: torch.linalg.multi_dot([A[0], B[0], torch.zeros(7, 2)]), 5 * 7 * 2 + 4 * 5 * 2),
    "bilinear": (lambda: F.bilinear(A[0], B[0].T[:4], torch.zeros(6, 5, 5)), 4 * 6 * 25),
    "attention": (lambda: F.scaled_dot_product_attention(Q, K, V), 2 * 3 * (5 * 7 * 4 + 5 * 7 * 6)),
    "lstm": (lambda: nn.LSTM(4, 6, batch_first=True)(SEQUENCE), 10 * 24 * (4 + 6)),
    "lstm, two layers in both directions": (
        lambda: nn.LSTM(4, 6, 2, bidirectional=True)(SEQUENCE), 10 * 2 * 24 * (4 + 6) + 10 * 2 * 24 * (12 + 6)
    ),
    "lstm with a projection": (lambda: nn.LSTM(4, 6, proj_size=3)(SEQUENCE), 10 * (24 * (4 + 3) + 6 * 3)),
    "gru": (lambda: nn.GRU(4, 6)(SEQUENCE), 10 * 18 * (4 + 6)),
    "rnn": (lambda: nn.RNN(4, 6, nonlinearity="relu")(SEQUENCE), 10 * 6 * (4 + 6)),
    "lstm cell": (lambda: nn.LSTMCell(4, 6)(SEQUENCE[0]), 5 * 24 * (4 + 6)),
    "relu": (lambda: F.relu(X), 0),
    "mul": (lambda: X * X, 0),
    "batch_norm": (lambda: F.batch_norm(X, torch.zeros(6), torch.ones(6)), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_multiply_adds_are_those_of_a_count_by_hand(name: str) -> None:
    function, by_hand = PRODUCTS[name]
    with torch.no_grad(), ProductCounter() as counter:
        function()
    assert counter.multiply_adds == by_hand
    assert not counter.uncounted


@pytest.mark.parametrize(
    "function", [lambda: torch.fft.rfft2(X), lambda: torch.cdist(A, A), lambda: torch.linalg.svd(A[0])]
)
def test_what_has_no_rule_is_marked(function: Callable[[], object]) -> None:
    with ProductCounter() as counter:
        function()
    assert counter.uncounted


def test_anything_else_has_little_arithmetic() -> None:
    assert arithmetic("relu_", (X,), {}, X, 0) == X.numel()
    assert arithmetic("batch_norm", (X,), {}, X, 0) == 2 * X.numel()
    assert arithmetic("flatten", (X,), {}, X, 0) == arithmetic("cat", ([X],), {}, X, 0) == 0
    biased = (X, torch.zeros(8, 6, 1, 1), torch.zeros(8))
    output = F.conv2d(*biased)
    assert arithmetic("conv2d", biased, {}, output, 72 * 8 * 6) == 2 * 72 * 8 * 6 + 72 * 8
    assert arithmetic("linear", (X, torch.zeros(5, 8)), {}, X, 7) == 14
    pooled = F.max_pool2d(X, (3, 2), 1)
    assert arithmetic("max_pool2d", (X, (3, 2), 1), {}, pooled, 0) == pooled.numel() * 6
