"""Receptive fields equal the non-zero extent of a backward pass with positive weights and no gating."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.networks import Branching, seeded
from tests.oracles import fields_by_backward, with_positive_weights
from vizapp.engine.receptive_field.field import receptive_fields


class Odd(nn.Module):
    """Strides, dilation, ceil mode, an adaptive pool, upsampling, channel shuffle, an axis order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(0, 2))
        self.b = nn.Conv2d(8, 8, 3, padding="same", dilation=3, groups=2)
        self.pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.average = nn.AvgPool2d(2, 1)
        self.c = nn.Conv2d(16, 8, 3)
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.a(x)))
        n, c, h, w = x.shape
        shuffled = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = self.average(F.pad(self.b(shuffled), (1, 0, 0, 1)))
        x = torch.cat([y, shuffled], 1)
        x = self.c(x)[:, :, 1:, :-1]
        x = self.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + F.interpolate(F.adaptive_max_pool2d(x, (3, 4)), size=x.shape[-2:], mode="nearest")
        return F.adaptive_avg_pool2d(x, (3, 2))


def compare(module: nn.Module, batch: Tensor, names: list[str]) -> None:
    found, positive = receptive_fields(module, batch), with_positive_weights(module)
    cells = {}
    for name in names:
        rows, columns = len(found[name].rows.low), len(found[name].columns.low)
        cells[name] = {(0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1), (rows // 3, columns - 1)}
    for name, boxes in fields_by_backward(positive, batch, cells).items():
        for cell, true_box in boxes.items():
            top, left, bottom, right = found_box = found[name].inside(cell)
            if true_box is None:
                assert (bottom - top) * (right - left) == 0, (name, cell)
            else:
                assert found_box == true_box, (name, cell)


def test_every_map_of_small_networks() -> None:
    torch.manual_seed(0)
    for module, shape in ((Odd(), (45, 38)), (seeded(Branching()), (37, 50))):
        batch = torch.rand(1, 3, *shape)
        names = [name for name, field in receptive_fields(module, batch).items() if field.rows.axis == 2]
        assert len(names) >= 9
        compare(module.eval(), batch, names)


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        pytest.param("alexnet", ["features.0", "features.5", "features.12", "avgpool"], marks=pytest.mark.slow),
        ("resnet18", ["maxpool", "layer2.0.add", "layer4.1.relu_1", "avgpool"]),
        ("googlenet", ["maxpool1", "inception3b.cat", "inception5b.cat"]),
        ("densenet121", ["features.denseblock1.denselayer6.conv2", "features.transition2.pool"]),
        ("squeezenet1_0", ["features.2", "features.5.cat", "classifier.1", "classifier.3"]),
        ("shufflenet_v2_x0_5", ["stage2.1.cat", "stage3.2.cat"]),
        ("inception_v3", ["Mixed_5b.cat", "Mixed_6b.cat"]),
    ],
)
def test_sites_of_real_networks(name: str, sites: list[str]) -> None:
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    compare(torchvision.models.get_model(name, weights=None, **options).eval(), torch.rand(1, 3, 139, 125), sites)


@pytest.mark.parametrize(
    # AlexNet's and VGG-16's as in Araujo, Norris & Sim, Distill 2019. Theirs for ResNet-50 and -101 (483, 1027) are of
    # networks that put the stride at the end of a block; torchvision's has it in the first block's 3x3. By hand:
    # 7/2: 7; pool 3/2: 11; layer1 3x8: 35; layer2 8+3x16: 91; layer3 16+5x32 (or 22x32): 267 (811); layer4 32+2x64.
    ("name", "site", "size", "stride"),
    [
        ("alexnet", "features.12", 195, 32),
        pytest.param("vgg16", "features.30", 212, 32, marks=pytest.mark.slow),
        ("resnet50", "layer4.2.relu_2", 427, 32),
        pytest.param("resnet101", "layer4.2.relu_2", 971, 32, marks=pytest.mark.slow),
    ],
)
def test_known_sizes_and_strides(name: str, site: str, size: int, stride: int) -> None:
    module = torchvision.models.get_model(name, weights=None).eval()
    field = receptive_fields(module, torch.rand(1, 3, 224, 224))[site]
    assert field.size == (size, size)
    assert field.stride == (stride, stride)


def test_boxes_have_one_size_and_are_clipped_only_on_request() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))
    field = receptive_fields(module, torch.rand(1, 3, 8, 8))["1"]
    assert field.box((0, 0)) == (-1, -1, 3, 3)
    assert field.inside((0, 0)) == (0, 0, 3, 3)
    assert field.box((1, 3)) == (1, 5, 5, 9)
    assert field.centre((1, 3)) == (3.0, 7.0)


def test_sizes_and_strides_of_dilated_strided_and_averaged_layers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=3), nn.AvgPool2d(2, 2), nn.Conv2d(4, 4, 3, padding=1))
    found = receptive_fields(module, torch.rand(1, 3, 40, 40))
    assert [found[name].size for name in ("0", "1", "2")] == [(7, 7), (8, 8), (12, 12)]
    assert [found[name].stride for name in ("0", "1", "2")] == [(1, 1), (2, 2), (2, 2)]
    assert found["2"].box((0, 0)) == (-2, -2, 10, 10)


def test_what_mixes_all_cells_sees_the_whole_picture() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.mean((2, 3), keepdim=True).sigmoid()

    found = receptive_fields(Gate(), torch.rand(1, 3, 8, 6))
    assert found["sigmoid"].inside() == (0, 0, 8, 6)
    assert found["mul"].inside((3, 3)) == (0, 0, 8, 6)
