"""The cost of each layer equals torch's own count of operations on any network, however its weights are used."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.networks import Branching, seeded
from vizapp.engine.layers.summary import (
    Layer,
    fold_pointwise_layers,
    group_by_module,
    layers,
    measure_times,
    pass_seconds,
)
from vizapp.engine.trace.sites import survey


def totals(rows: tuple[Layer, ...]) -> tuple[int, int, int]:
    return tuple(sum(getattr(row, name) for row in rows) for name in ("parameters", "multiply_adds", "arithmetic"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "side"),
    [("alexnet", 96), ("googlenet", 96), ("mobilenet_v3_small", 64), ("fcn_resnet50", 64), ("vit_b_32", 224)]
    + [
        pytest.param(name, 64, marks=pytest.mark.slow)
        for name in ("densenet121", "shufflenet_v2_x0_5", "convnext_tiny", "swin_t")
    ],
)  # fmt: skip
def test_multiply_adds_and_parameters_equal_torchs_own_counts(name: str, side: int) -> None:
    with torch.device("meta"):
        options = {"weights_backbone": None} if name.startswith("fcn") else {}
        network = torchvision.models.get_model(name, weights=None, **options).eval()
    if name == "googlenet":
        network.aux1 = network.aux2 = None
    batch = torch.zeros(1, 3, side, side, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(batch)
    unused = sum(p.numel() for key, p in network.named_parameters() if key.startswith("aux_classifier"))
    rows = layers(network, batch)
    assert sum(row.multiply_adds for row in rows) == _products(counter, network, side) // 2
    assert sum(row.parameters for row in rows) + unused == sum(p.numel() for p in network.parameters())
    assert (
        totals(rows)
        == totals(fold_pointwise_layers(rows))
        == totals(group_by_module(rows, 1))
        == totals(group_by_module(rows, 3))
    )


def _products(counter: FlopCounterMode, network: nn.Module, side: int) -> int:
    """torch's count, with the two products of attention that it does not see on the meta device."""
    tokens, found = (side // 32) ** 2 + 1, counter.get_total_flops()
    heads = [part for part in network.modules() if isinstance(part, nn.MultiheadAttention)]
    seen = sum("attention" in str(op) or "bmm" in str(op) for op in counter.get_flop_counts()["Global"])
    return found if seen else found + sum(2 * 2 * tokens * tokens * head.embed_dim for head in heads)


class Twice(nn.Module):
    """Uses one convolution twice, masks a weight, ties two layers, and has a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.kernel = nn.Parameter(torch.ones(4, 3, 1, 1))
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.never = nn.Linear(100, 100)
        self.register_buffer("mask", torch.ones(4, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.conv(x))
        masked = self.kernel * self.mask
        x = F.conv2d(x, masked.reshape(4, 3, 1, 1), stride=2).relu_()
        return self.second(self.first(x.mean((2, 3))))


def test_weights_that_are_shared_count_once_and_those_made_from_others_count() -> None:
    rows = {row.name: row for row in layers(Twice(), torch.zeros(1, 3, 8, 10))}
    assert [rows[name].parameters for name in ("conv", "conv_1", "conv2d", "first", "second")] == [84, 0, 12, 16, 0]
    assert rows["conv_1"].multiply_adds == rows["conv"].multiply_adds == 8 * 10 * 3 * 27
    assert rows["conv"].arithmetic == 8 * 10 * 3 * (2 * 27 + 1)
    assert (rows["conv2d"].kernel, rows["conv2d"].stride, rows["conv2d"].shape) == ((1, 1), (2, 2), (4, 4, 5))
    assert (rows["mean"].kernel, rows["mean"].arithmetic) == ((4, 5), 4 * 20)
    assert rows["relu_"].arithmetic == 4 * 4 * 5
    assert "never" not in rows
    assert (rows["conv2d"].field_size, rows["conv2d"].field_stride) == ((5, 5), (2, 2))
    assert rows["second"].field_stride is None


def test_rows_are_the_sites_in_running_order_with_their_shapes() -> None:
    module, batch = seeded(Branching()), torch.zeros(1, 3, 37, 50)
    sites = survey(module, batch)
    rows = layers(module, batch)
    assert [(row.name, row.shape, row.kind) for row in rows] == [(site.name, site.shape, site.kind) for site in sites]


def test_branches_lead_from_the_rows_that_they_come_from() -> None:
    rows = {row.name: row for row in layers(seeded(Branching()), torch.zeros(1, 3, 37, 50))}
    assert rows["stem"].inputs == ()
    assert rows["left"].inputs == rows["right"].inputs == ("pool",)
    assert rows["cat"].inputs == ("relu_1", "relu_2")
    assert rows["add"].inputs == ("body", "cat")
    short = {row.name: row for row in fold_pointwise_layers(tuple(rows.values()))}
    assert list(short) == ["stem", "pool", "left", "right", "cat", "body", "add", "mean", "head"]
    assert short["cat"].inputs == ("left", "right")
    assert short["add"].inputs == ("body", "cat")


def test_a_norm_is_folded_only_where_nothing_else_takes_the_value() -> None:
    class Preactivated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.bn, self.b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return (x + self.b(F.relu(self.bn(x)))).flatten(1)

    rows = fold_pointwise_layers(layers(Preactivated().eval(), torch.zeros(1, 3, 4, 4)))
    assert [row.name for row in rows] == ["a", "bn", "b", "add"]
    assert [row.parameters for row in rows] == [12, 6, 12, 0]
    assert rows[-1].shape == (3, 4, 4), "the reshape leaves the shape as it was"


def test_modules_are_summed_up_and_keep_their_branches() -> None:
    module = torchvision.models.resnet18(weights=None).eval()
    rows = group_by_module(layers(module, torch.zeros(1, 3, 64, 64)), 2)
    named = {row.name: row for row in rows}
    block = named["layer2.0"]
    assert block.parameters == sum(p.numel() for p in module.layer2[0].parameters())
    assert (block.inputs, block.shape, block.kind) == (("layer1.1",), (128, 8, 8), "convolution")
    assert block.kernel is None, "its windows are of several sizes"
    assert (named["conv1"].kernel, named["conv1"].stride) == ((7, 7), (2, 2))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.MaxPool2d])
def test_output_sizes_follow_the_formula(layer: type[nn.Module], dilation: int) -> None:
    """O = floor((2 P + I - K) / S) + 1, with K the extent of the dilated kernel."""
    checked = 0
    for size in (7, 8, 13, 32):
        for kernel in (1, 2, 3, 5):
            for stride in (1, 2, 3):
                for padding in range(kernel // 2 + 1):
                    maps = (1, 1) if layer is nn.Conv2d else ()
                    module = layer(*maps, kernel_size=kernel, stride=stride, padding=padding, dilation=dilation)
                    extent = (kernel - 1) * dilation + 1
                    if extent > size + 2 * padding:
                        continue
                    (row,) = layers(nn.Sequential(module), torch.zeros(1, 1, size, size))
                    assert row.shape[1] == math.floor((2 * padding + size - extent) / stride) + 1
                    assert (row.kernel, row.stride) == ((kernel, kernel), (stride, stride))
                    checked += 1
    assert checked > 80


def test_three_small_convolutions_see_what_one_large_one_sees() -> None:
    small = nn.Sequential(*(nn.Conv2d(4, 4, 3, bias=False) for _ in range(3)))
    large = nn.Sequential(nn.Conv2d(4, 4, 7, bias=False))
    batch = torch.zeros(1, 4, 9, 9)
    three, (one,) = layers(small, batch), layers(large, batch)
    assert three[-1].field_size == one.field_size == (7, 7)
    assert sum(row.parameters for row in three) == 27 * 16
    assert one.parameters == 49 * 16


def test_a_bottleneck_needs_70_thousand_weights_in_place_of_1_2_million() -> None:
    """As the lecture counts them, with biases on the 3x3 convolutions alone: 2 (3·3·256 + 1) 256 against 69,696."""
    wide = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 256, 3, padding=1))
    squeezed = (nn.Conv2d(256, 64, 1, bias=False), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 256, 1, bias=False))
    narrow = nn.Sequential(*squeezed)
    batch = torch.zeros(1, 256, 2, 2)
    assert sum(row.parameters for row in layers(wide, batch)) == 2 * (9 * 256 + 1) * 256 == 1_180_160
    assert sum(row.parameters for row in layers(narrow, batch)) == 256 * 64 + (9 * 64 + 1) * 64 + 64 * 256 == 69_696


def test_times_are_those_of_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by one with each look: an operation takes one second between its two looks."""
    now = iter(range(10**6))
    monkeypatch.setattr("vizapp.engine.layers.summary.time.perf_counter", lambda: float(next(now)))
    module, batch = seeded(Branching()), torch.zeros(1, 3, 37, 50)
    shares: list[float] = []
    rows = measure_times(module, batch, layers(module, batch), 2, shares.append)
    assert [row.seconds for row in rows] == [1.0] * len(rows)
    assert shares[-1] == 1
    assert sum(row.seconds or 0 for row in fold_pointwise_layers(rows)) == len(rows), (
        "what is folded in brings its time"
    )
    assert pass_seconds(module, batch) == 1


def test_the_pass_of_a_network_that_writes_into_its_input_leaves_the_batch_alone() -> None:
    class Writing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2).mean((2, 3))

    batch = torch.ones(1, 3, 4, 4)
    rows = measure_times(Writing(), batch, layers(Writing(), batch), 1, lambda share: None)
    pass_seconds(Writing(), batch)
    assert len(rows) == 2
    assert bool((batch == 1).all())
