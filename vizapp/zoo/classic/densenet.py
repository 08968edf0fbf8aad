"""DenseNet for CIFAR: Huang et al., "Densely Connected Convolutional Networks", 2017, section 3; and DenseNet-264.

DenseNet-121, -169 and -201 are torchvision's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet

from vizapp.zoo.classic.initial import block_count, draw_weights


def densenet264(classes: int = 1000) -> DenseNet:
    """The deepest network of the paper's Table 1, built from torchvision's blocks."""
    return DenseNet(growth_rate=32, block_config=(6, 12, 64, 48), num_init_features=64, num_classes=classes)


class Layer(nn.Module):
    """BN, ReLU, 3x3 convolution with `growth` maps; with `bottleneck` first BN, ReLU, 1x1 convolution to 4·growth."""

    def __init__(self, inputs: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        self.squeeze = nn.Sequential()
        if bottleneck:
            self.squeeze = nn.Sequential(
                nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
            )
            inputs = 4 * growth
        self.grow = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The input followed by the new maps: `[N inputs+growth h w]`."""
        return torch.cat([x, self.grow(self.squeeze(x))], 1)


class Transition(nn.Sequential):
    """BN, ReLU, 1x1 convolution, 2x2 mean."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, outputs, 1, bias=False), nn.AvgPool2d(2)
        )


class CifarDenseNet(nn.Module):
    """Three dense blocks for 32 x 32 pictures; `depth` = 3n + 4. `bc` adds bottlenecks and halves transitions (BC)."""

    def __init__(self, depth: int, growth: int, bc: bool = False, classes: int = 10) -> None:
        super().__init__()
        count = block_count(depth, 6 if bc else 3, 4)  # layers of a block
        width = 2 * growth if bc else 16
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for number in range(3):
            block = nn.Sequential()
            for _ in range(count):
                block.append(Layer(width, growth, bc))
                width += growth
            self.blocks.append(block)
            if number < 2:
                outputs = width // 2 if bc else width
                self.transitions.append(Transition(width, outputs))
                width = outputs
        self.bn, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.linear = nn.Linear(width, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 32 32]`."""
        x = self.conv(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number < 2:
                x = self.transitions[number](x)
        return self.linear(self.relu(self.bn(x)).mean((2, 3)))
