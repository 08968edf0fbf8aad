"""EfficientNet-Lite0: Tan & Le 2019, Table 1, without squeeze-and-excitation and with ReLU6, as TensorFlow published it."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

# expansion, kernel, stride, channels, blocks
_STAGES = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)  # fmt: skip
_EPSILON = 1e-3
_STEM, _HEAD = 32, 1280


def rename(key: str) -> str:
    """The key here of a key in the published weights, whose parts begin with underscores: `_blocks.0._bn1.weight`."""
    return re.sub(r"(^|\.)_", r"\1", key)


class EfficientNetLite0(nn.Module):
    """Inverted residual blocks with depthwise convolutions; batch norm after each convolution, ReLU6 after most."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.pad = _padding(3)
        self.conv_stem = _convolution(3, _STEM, 3, 2)
        self.bn0 = nn.BatchNorm2d(_STEM, _EPSILON)
        self.relu0 = nn.ReLU6(inplace=True)
        blocks, inputs = [], _STEM
        for expansion, kernel, stride, channels, count in _STAGES:
            for number in range(count):
                blocks.append(_Block(inputs, channels, expansion, kernel, 1 if number else stride))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = _convolution(inputs, _HEAD, 1)
        self.bn1 = nn.BatchNorm2d(_HEAD, _EPSILON)
        self.relu1 = nn.ReLU6(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(_HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 224 224]`."""
        x = self.blocks(self.relu0(self.bn0(self.conv_stem(self.pad(x)))))
        x = self.pool(self.relu1(self.bn1(self.conv_head(x))))
        return self.fc(self.dropout(torch.flatten(x, 1)))


class _Block(nn.Module):
    """Expand to more channels, filter each, project to few; plus the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inside = inputs * expansion
        self.expand_conv = _convolution(inputs, inside, 1) if expansion > 1 else None
        if self.expand_conv is not None:
            self.bn0 = nn.BatchNorm2d(inside, _EPSILON)
            self.relu0 = nn.ReLU6(inplace=True)
        self.pad = _padding(kernel) if stride > 1 else None
        self.depthwise_conv = _convolution(inside, inside, kernel, stride, groups=inside)
        self.bn1 = nn.BatchNorm2d(inside, _EPSILON)
        self.relu1 = nn.ReLU6(inplace=True)
        self.project_conv = _convolution(inside, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs, _EPSILON)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inside = x if self.expand_conv is None else self.relu0(self.bn0(self.expand_conv(x)))
        inside = inside if self.pad is None else self.pad(inside)
        inside = self.relu1(self.bn1(self.depthwise_conv(inside)))
        projected = self.bn2(self.project_conv(inside))
        return x + projected if self.adds_input else projected


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Without padding if the stride is 2: see `_padding`."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)


def _padding(kernel: int) -> nn.Module:
    """TensorFlow's "same" padding before a stride of 2, for even sides: one cell less on top and left."""
    less, more = (kernel - 2) // 2, kernel // 2
    return nn.ZeroPad2d((less, more, less, more))
