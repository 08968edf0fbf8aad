"""Inception v2: Ioffe & Szegedy, "Batch Normalization", 2015, section 4.2 and Figure 5 (the appendix's table)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vizapp.zoo.classic.initial import draw_weights

# Channels of each module: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection ("avg" or "max").
MODULES = {
    "3a": (64, 64, 64, 64, 96, "avg", 32),
    "3b": (64, 64, 96, 64, 96, "avg", 64),
    "3c": (0, 128, 160, 64, 96, "max", 0),
    "4a": (224, 64, 96, 96, 128, "avg", 128),
    "4b": (192, 96, 128, 96, 128, "avg", 128),
    "4c": (160, 128, 160, 128, 160, "avg", 96),
    "4d": (96, 128, 192, 160, 192, "avg", 96),
    "4e": (0, 128, 192, 192, 256, "max", 0),
    "5a": (352, 192, 320, 160, 224, "avg", 128),
    "5b": (352, 192, 320, 192, 224, "max", 128),
}


class NormedConvolution(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
            nn.ReLU(inplace=True),
        )


class Separable(nn.Sequential):
    """A depthwise 7x7 convolution (`multiplier` maps per channel), and a 1x1 convolution that mixes its channels."""

    def __init__(self, inputs: int, outputs: int, multiplier: int = 8) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs * multiplier, 7, 2, 3, groups=inputs, bias=False),
            NormedConvolution(inputs * multiplier, outputs, 1),
        )


class Inception(nn.Module):
    """The inception module with two 3x3 convolutions instead of the 5x5. Without a 1x1 branch it halves the map.

    Args:
        inputs: Channels of the input.
        one: Channels of the 1x1 convolution; 0 for none, and stride 2.
        reduce3: Channels of the 1x1 convolution before the 3x3 convolution.
        three: Channels of the 3x3 convolution.
        reduce5: Channels of the 1x1 convolution before the two 3x3 convolutions.
        double: Channels of each of these two.
        pool: "avg" or "max".
        project: Channels of the 1x1 convolution after the pool; 0 for none.
    """

    def __init__(
        self, inputs: int, one: int, reduce3: int, three: int, reduce5: int, double: int, pool: str, project: int
    ) -> None:
        super().__init__()
        stride = 1 if one else 2
        self.one = NormedConvolution(inputs, one, 1) if one else None
        self.three = nn.Sequential(NormedConvolution(inputs, reduce3, 1), NormedConvolution(reduce3, three, 3, stride))
        self.twice = nn.Sequential(
            NormedConvolution(inputs, reduce5, 1),
            NormedConvolution(reduce5, double, 3),
            NormedConvolution(double, double, 3, stride),
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride, 1) if pool == "max" else nn.AvgPool2d(3, stride, 1))
        if project:
            self.pool.append(NormedConvolution(inputs, project, 1))
        self.outputs = one + three + double + (project or inputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[N outputs h/stride w/stride]` of `[N inputs h w]`."""
        branches = [self.one(x)] if self.one is not None else []
        return torch.cat([*branches, self.three(x), self.twice(x), self.pool(x)], 1)


class InceptionV2(nn.Module):
    """GoogLeNet with batch norm, double 3x3 convolutions and a separable first layer; 11 million weights."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1, self.pool1 = Separable(3, 64), nn.MaxPool2d(3, 2, 1)
        self.reduce2, self.conv2 = NormedConvolution(64, 64, 1), NormedConvolution(64, 192, 3)
        self.pool2 = nn.MaxPool2d(3, 2, 1)
        self.inceptions = nn.ModuleDict()
        inputs = 192
        for name, sizes in MODULES.items():
            module = Inception(inputs, *sizes)
            self.inceptions[name] = module
            inputs = module.outputs
        self.linear = nn.Linear(inputs, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 224 224]`."""
        x = self.pool1(self.conv1(x))  # [N 64 56 56]
        x = self.pool2(self.conv2(self.reduce2(x)))  # [N 192 28 28]
        for module in self.inceptions.values():
            x = module(x)
        return self.linear(x.mean((2, 3)))  # of [N 1024 7 7]
