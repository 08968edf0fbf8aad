"""The formula of an output's size, as numbers and as text, gives the size that torch computes."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import torchvision
from torch import nn

from vizapp.engine.layers.sliding_window import sliding_window
from vizapp.engine.layers.summary import Layer, fold_pointwise_layers, layers

X = torch.zeros(1, 6, 9, 8)


def value(text: str) -> tuple[int, int]:
    """An equation, worked out: its left side and the number on its right."""
    left, right = text.rsplit(" = ", 1)
    for sign, code in {"⌊": "floor(", "⌋": ")", "⌈": "ceil(", "⌉": ")", "·": "*", "−": "-"}.items():
        left = left.replace(sign, code)
    return eval(left, {"floor": math.floor, "ceil": math.ceil}), int(right)


def check(row: Layer) -> None:
    """The equations of a row lead to the size that torch gave it."""
    assert row.window is not None
    given = row.shape[1:] if len(row.shape) == 3 else (1, 1)  # a mean over rows and columns
    assert row.window.outputs == given, row.name
    down, _, across = row.window.equation.removeprefix("down ").partition("; across ")
    across = across or down
    assert [value(down), value(across)] == [(given[0], given[0]), (given[1], given[1])], row.window.equation


@pytest.mark.parametrize(
    ("name", "side", "least", "has"),
    [
        ("squeezenet1_0", 99, 29, "⌈"),
        ("googlenet", 99, 70, "⌈"),
        ("inception_v3", 107, 104, "down "),
        ("deeplabv3_mobilenet_v3_large", 99, 70, "(12·(3 − 1) + 1)"),
        ("mobilenet_v2", 99, 52, ""),
    ],
)
def test_the_formula_gives_the_recorded_size_of_every_convolution_and_pool(
    name: str, side: int, least: int, has: str
) -> None:
    with torch.device("meta"):
        options = {"weights_backbone": None} if name.startswith("deeplab") else {}
        network = torchvision.models.get_model(name, weights=None, **options).eval()
    rows = layers(network, torch.zeros(1, 3, side, side - 10, device="meta"))
    kinds = ("conv", "max_pool", "avg_pool")  # an adaptive pool may have windows of several sizes
    sliding = [row for row in rows if row.operation.startswith(kinds)]
    assert len(sliding) >= least
    for row in [*sliding, *(row for row in rows if row.window is not None)]:
        check(row)
    for row in fold_pointwise_layers(rows):
        if row.window is not None:
            check(row)
    assert has in " ".join(row.window.equation for row in sliding if row.window)


def test_padding_dilation_strides_and_rounding_of_every_kind() -> None:
    """Each layer by itself, over a range of its numbers; torch refuses those that make no sense."""
    made: list[nn.Module] = []
    for kernel, stride, padding, dilation in product((1, 2, (3, 1), 5), (1, 2, (3, 1)), (0, 1, (0, 2)), (1, 2)):
        made.append(nn.Conv2d(6, 4, kernel, stride, padding, dilation, groups=2))
        made += [nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil) for ceil in (False, True)]
        made += [nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil) for ceil in (False, True)]
        for added in (0, 1):
            made.append(nn.ConvTranspose2d(6, 4, kernel, stride, padding, added, dilation=dilation))
    made += [nn.Conv2d(6, 4, kernel, padding="same", dilation=2) for kernel in (2, 3, (4, 1))]
    made += [nn.Conv2d(6, 4, 3, padding="valid"), nn.LPPool2d(2, 3, 2, ceil_mode=True), nn.AdaptiveAvgPool2d((3, 2))]
    checked = 0
    for layer in made:
        try:
            (row,) = layers(nn.Sequential(layer), X)
        except RuntimeError:
            continue
        check(row)
        checked += 1
    assert checked > 300


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(6, 4, 3, 2, 1), "down ⌊(2·1 + 9 − 3)/2⌋ + 1 = 5; across ⌊(2·1 + 8 − 3)/2⌋ + 1 = 4"),
        (nn.Conv2d(6, 4, 3, dilation=2).train(False), "down ⌊(2·0 + 9 − (2·(3 − 1) + 1))/1⌋ + 1 = 5; across "
         "⌊(2·0 + 8 − (2·(3 − 1) + 1))/1⌋ + 1 = 4"),
        (nn.Conv2d(6, 4, (2, 4), padding="same"), "down ⌊((0 + 1) + 9 − 2)/1⌋ + 1 = 9; across "
         "⌊((1 + 2) + 8 − 4)/1⌋ + 1 = 8"),
        (nn.MaxPool2d(2, 2, 1, ceil_mode=True), "down ⌈(2·1 + 9 − 2)/2⌉ + 1 − 1 = 5; across ⌈(2·1 + 8 − 2)/2⌉ + 1 = 5"),
        (nn.ConvTranspose2d(6, 4, 2, 2, output_padding=1), "down (9 − 1)·2 − 2·0 + 2 + 1 = 19; across (8 − 1)·2 − 2·0 + 2 + 1 "
         "= 17"),
    ],
)  # fmt: skip
def test_equations_by_hand(layer: nn.Module, expected: str) -> None:
    (row,) = layers(nn.Sequential(layer), X)
    assert row.window is not None
    assert row.window.equation == expected


def test_one_equation_stands_for_both_directions_of_a_square() -> None:
    (row,) = layers(nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3)), torch.zeros(1, 3, 224, 224))
    assert row.window is not None
    assert row.window.equation == "⌊(2·3 + 224 − 7)/2⌋ + 1 = 112"


def test_windows_are_those_of_the_arguments() -> None:
    def sides(*call: object, **kwargs: object) -> object:
        found = sliding_window(*call, kwargs, X.mean(1))  # type: ignore[arg-type]
        return found and (found.kernel, found.stride)

    assert sides("max_pool2d", (X, (3, 2), 1)) == ((3, 2), (1, 1))
    assert sides("avg_pool2d", (X,), kernel_size=2) == ((2, 2), (2, 2))
    assert sides("mean", (X, (-2, -1))) == ((9, 8), (1, 1))
    assert sides("mean", (X, 1)) is None
    assert sides("relu", (X,)) is None
    assert sliding_window("adaptive_avg_pool2d", (X, (2, 4)), {}, X[..., :2, :4]) is None, "windows of several sizes"
