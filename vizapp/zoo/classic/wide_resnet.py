"""Wide ResNets for CIFAR: Zagoruyko & Komodakis, 2016, Table 1. Those for ImageNet are torchvision's `wide_resnet50_2`, …"""

from __future__ import annotations

from torch import Tensor, nn

from vizapp.zoo.classic.initial import block_count
from vizapp.zoo.classic.preactivation_resnet import PreactivatedStages


class WideBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU before each, and dropout between them."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(dropout)
        changes = inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """`[N outputs h/stride w/stride]` of `[N inputs h w]`."""
        active = self.relu(self.bn1(x))
        y = self.conv2(self.dropout(self.relu(self.bn2(self.conv1(active)))))
        return y + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(PreactivatedStages):
    """WRN-`depth`-`widening`: depth = 6n + 4; three stages of n blocks with 16, 32, 64 times `widening` channels."""

    def __init__(self, depth: int, widening: int, classes: int = 10, dropout: float = 0.3) -> None:
        def block(inputs: int, width: int, stride: int) -> WideBlock:
            return WideBlock(inputs, width * widening, stride, dropout)

        super().__init__(block, widening, block_count(depth, 6, 4), classes)
