"""AlexNet as published: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vizapp.zoo.classic.initial import draw_weights


def response_norm() -> nn.LocalResponseNorm:
    """Section 3.3: local response normalization, k = 2, n = 5, alpha = 1e-4 (torch divides it by n), beta = 0.75."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def hidden_layers(inputs: int, hidden: Sequence[int], classes: int, dropout: float = 0.5) -> nn.Sequential:
    """The classifier fc6 to fc8: two hidden layers of these widths with ReLU and dropout, then the class scores."""
    return nn.Sequential(
        OrderedDict(
            fc6=nn.Linear(inputs, hidden[0]), relu6=nn.ReLU(inplace=True), drop6=nn.Dropout(dropout),
            fc7=nn.Linear(hidden[0], hidden[1]), relu7=nn.ReLU(inplace=True), drop7=nn.Dropout(dropout),
            fc8=nn.Linear(hidden[1], classes),
        )
    )  # fmt: skip


class AlexNet2012(nn.Module):
    """Five convolutions, of which the second, fourth and fifth read only the maps of their own half (one GPU).

    Local response normalization after the first two, overlapping 3x3/2 max pools, two hidden layers of 4096. 61 million
    weights. At 224 px, the 55 x 55 maps of the first layer need two pixels of padding, which the paper does not mention.
    """

    def __init__(self, classes: int = 1000, halves: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, 96, 11, 4, 2), relu1=nn.ReLU(inplace=True), norm1=response_norm(),
                pool1=nn.MaxPool2d(3, 2),
                conv2=nn.Conv2d(96, 256, 5, 1, 2, groups=halves), relu2=nn.ReLU(inplace=True), norm2=response_norm(),
                pool2=nn.MaxPool2d(3, 2),
                conv3=nn.Conv2d(256, 384, 3, 1, 1), relu3=nn.ReLU(inplace=True),
                conv4=nn.Conv2d(384, 384, 3, 1, 1, groups=halves), relu4=nn.ReLU(inplace=True),
                conv5=nn.Conv2d(384, 256, 3, 1, 1, groups=halves), relu5=nn.ReLU(inplace=True),
                pool5=nn.MaxPool2d(3, 2),
            )
        )  # fmt: skip
        self.classifier = hidden_layers(9216, (4096, 4096), classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 224 224]`."""
        x = self.features(x)  # [N 256 6 6]
        return self.classifier(torch.flatten(x, 1))
