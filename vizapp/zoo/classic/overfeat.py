"""OverFeat's two networks: Sermanet et al., "OverFeat: Integrated Recognition, Localization and Detection using
Convolutional Networks", 2013, section 3.2, tables 1 (fast) and 3 (accurate)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vizapp.zoo.classic.alexnet import hidden_layers


class OverFeat(nn.Module):
    """Convolutions, non-overlapping max pools, and a classifier whose first layer reads a whole map. No normalization.

    The first two layers do not pad, the 3x3 layers do. `fast`: 231 px, subsampling 32, maps of 56, 24 and 12 cells before
    the pools, 6x6 at the classifier. Accurate: 221 px, subsampling 36, maps of 108, 30 and 15 cells, 5x5 at the classifier.
    `shrink` divides the numbers of channels, for tests.
    """

    def __init__(self, fast: bool = False, classes: int = 1000, dropout: float = 0.5, shrink: int = 1) -> None:
        super().__init__()
        widths = [96, 256, 512, 1024, 1024] if fast else [96, 256, 512, 512, 1024, 1024]
        widths = [width // shrink for width in widths]
        hidden = ((3072 if fast else 4096) // shrink, 4096 // shrink)
        self.features = nn.Sequential(_features(fast, widths))
        self.classifier = hidden_layers(widths[-1] * (36 if fast else 25), hidden, classes, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 231 231]` (fast) or `[N 3 221 221]`."""
        return self.classifier(torch.flatten(self.features(x), 1))


def _features(fast: bool, widths: Sequence[int]) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    kernels = [(11, 4), (5, 1)] if fast else [(7, 2), (7, 1)]  # size, stride
    pools = {1: 2, 2: 2, len(widths): 2} if fast else {1: 3, 2: 2, len(widths): 3}
    inputs = 3
    for number, width in enumerate(widths, 1):
        kernel, stride = kernels[number - 1] if number <= 2 else (3, 1)
        layers[f"conv{number}"] = nn.Conv2d(inputs, width, kernel, stride, padding=0 if number <= 2 else 1)
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        if number in pools:
            layers[f"pool{number}"] = nn.MaxPool2d(pools[number], pools[number])
        inputs = width
    return layers
