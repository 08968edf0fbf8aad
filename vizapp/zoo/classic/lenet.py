"""LeNet-5 in its common modern form: 28x28 input, ReLU, max pooling (after LeCun et al., 1998)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LeNet5(nn.Module):
    """Two 5x5 convolutions of 6 and 16 maps, two 2x2 max pools, linear layers of 256, 120, 84 and `classes`."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, 2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(256, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
            nn.Linear(84, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 1 28 28]`."""
        x = self.features(x)  # [N 16 4 4]
        return self.classifier(torch.flatten(x, 1))
