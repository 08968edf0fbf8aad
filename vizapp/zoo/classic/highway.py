"""Highway network: Srivastava et al., "Training Very Deep Networks", 2015, section 3.2 (19 layers for CIFAR-10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vizapp.zoo.classic.initial import draw_weights


class Highway(nn.Module):
    """H(x) T(x) + x (1 - T(x)), with a 3x3 layer H and a gate T of the size of the map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.plain = nn.Conv2d(maps, maps, 3, padding=1)
        self.transform = nn.Conv2d(maps, maps, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N maps h w]` of `[N maps h w]`."""
        gate = torch.sigmoid(self.transform(x))
        return torch.relu(self.plain(x)) * gate + x * (1 - gate)


class HighwayNet(nn.Module):
    """Three stages of a plain layer and four or five highway layers, with max pools between them; a 1x1 layer and a mean."""

    def __init__(
        self,
        classes: int = 10,
        maps: tuple[int, ...] = (32, 80, 128),
        layers: tuple[int, ...] = (4, 5, 5),
        last: int = 100,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        inputs = 3
        for outputs, count in zip(maps, layers, strict=True):
            plain = (nn.Dropout(0.2), nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))
            self.stages.append(nn.Sequential(*plain, *(Highway(outputs) for _ in range(count))))
            inputs = outputs
        self.pool = nn.MaxPool2d(2, 2)
        self.head = nn.Sequential(nn.Conv2d(inputs, last, 1), nn.ReLU(inplace=True))
        self.dropout, self.linear = nn.Dropout(0.2), nn.Linear(last, classes)
        draw_weights(self)
        for module in self.modules():
            if isinstance(module, Highway):
                assert module.transform.bias is not None
                nn.init.constant_(module.transform.bias, -2.0)  # initially the gates pass the input through

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 32 32]`."""
        for number, stage in enumerate(self.stages):
            x = stage(self.pool(x) if number else x)
        return self.linear(self.dropout(self.head(x).mean((2, 3))))
