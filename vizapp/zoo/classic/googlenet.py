"""GoogLeNet as published: Szegedy et al., "Going Deeper with Convolutions", 2014, Table 1 and section 5.

torchvision's `googlenet` is a later version with batch norm, and with 3x3 convolutions where the paper has 5x5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vizapp.zoo.classic.alexnet import response_norm
from vizapp.zoo.classic.initial import draw_weights

# Channels of each module: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU(inplace=True))


class Inception(nn.Module):
    """1x1, 3x3 and 5x5 convolutions and a 3x3 max pool in parallel, with 1x1 convolutions before the larger ones.

    Args:
        inputs: Channels of the input.
        one: Channels of the 1x1 convolution.
        reduce3: Channels of the 1x1 convolution before the 3x3 convolution.
        three: Channels of the 3x3 convolution.
        reduce5: Channels of the 1x1 convolution before the 5x5 convolution.
        five: Channels of the 5x5 convolution.
        project: Channels of the 1x1 convolution after the pool.
    """

    def __init__(self, inputs: int, one: int, reduce3: int, three: int, reduce5: int, five: int, project: int) -> None:
        super().__init__()
        self.one = _convolution(inputs, one, 1)
        self.three = nn.Sequential(_convolution(inputs, reduce3, 1), _convolution(reduce3, three, 3))
        self.five = nn.Sequential(_convolution(inputs, reduce5, 1), _convolution(reduce5, five, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), _convolution(inputs, project, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`[N one+three+five+project h w]` of `[N inputs h w]`."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class AuxiliaryHead(nn.Sequential):
    """The auxiliary classifier on 4a and 4d, which training needs: 5x5/3 mean, 128 1x1 convolutions, 1024 hidden units."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(
            nn.AvgPool2d(5, 3),
            _convolution(inputs, 128, 1),
            nn.Flatten(),
            nn.Linear(4 * 4 * 128, 1024),
            nn.ReLU(inplace=True),
            nn.Dropout(0.7),
            nn.Linear(1024, classes),
        )


class GoogLeNet(nn.Module):
    """Nine inception modules. With `auxiliary`, the output is a tuple of its own scores and those of two auxiliary heads."""

    def __init__(self, classes: int = 1000, auxiliary: bool = False) -> None:
        super().__init__()
        self.conv1, self.pool1 = _convolution(3, 64, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = response_norm()
        self.reduce2, self.conv2 = _convolution(64, 64, 1), _convolution(64, 192, 3)
        self.norm2, self.pool2 = response_norm(), nn.MaxPool2d(3, 2, ceil_mode=True)
        inputs = 192
        heads = {}
        for name, sizes in MODULES.items():
            self.add_module(f"inception{name}", Inception(inputs, *sizes))
            one, _, three, _, five, project = sizes
            inputs = one + three + five + project
            if auxiliary and name in {"4a", "4d"}:
                heads[name] = AuxiliaryHead(inputs, classes)
        self.pool3, self.pool4 = nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 2, ceil_mode=True)
        self.heads = nn.ModuleDict({f"after{name}": head for name, head in heads.items()})
        self.head_names = ("output", *(f"auxiliary after {name}" for name in heads))
        self.average, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.4)
        self.linear = nn.Linear(inputs, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Class scores `[N classes]` of pictures `[N 3 224 224]`; with heads, also their scores."""
        x = self.norm1(self.pool1(self.conv1(x)))  # [N 64 56 56]
        x = self.pool2(self.norm2(self.conv2(self.reduce2(x))))  # [N 192 28 28]
        aside = []
        for name in MODULES:
            if name in {"4a", "5a"}:
                x = self.pool3(x) if name == "4a" else self.pool4(x)
            x = self.get_submodule(f"inception{name}")(x)
            if f"after{name}" in self.heads:
                aside.append(self.heads[f"after{name}"](x))
        scores = self.linear(self.dropout(self.average(x).flatten(1)))
        return (scores, *aside) if aside else scores
