"""VGG: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, Table 1.

Columns A, B, D and E are torchvision's `vgg11`, `vgg13`, `vgg16` and `vgg19`; A-LRN and C are only here.
"""

from __future__ import annotations

from torch import nn
from torchvision.models import VGG

from vizapp.zoo.classic.alexnet import response_norm
from vizapp.zoo.classic.initial import draw_weights

# Five stages with a max pool after each. "3-64" is a 3x3 convolution with 64 maps, as in the table.
COLUMNS = {
    "A": "3-64, 3-128, 3-256 3-256, 3-512 3-512, 3-512 3-512",
    "A-LRN": "3-64 LRN, 3-128, 3-256 3-256, 3-512 3-512, 3-512 3-512",
    "B": "3-64 3-64, 3-128 3-128, 3-256 3-256, 3-512 3-512, 3-512 3-512",
    "C": "3-64 3-64, 3-128 3-128, 3-256 3-256 1-256, 3-512 3-512 1-512, 3-512 3-512 1-512",
    "D": "3-64 3-64, 3-128 3-128, 3-256 3-256 3-256, 3-512 3-512 3-512, 3-512 3-512 3-512",
    "E": "3-64 3-64, 3-128 3-128, 3-256 3-256 3-256 3-256, 3-512 3-512 3-512 3-512, 3-512 3-512 3-512 3-512",
}


def vgg(column: str, classes: int = 1000) -> VGG:
    """The network of a column of the table, with the classifier and the layer names of torchvision's VGG."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage in COLUMNS[column].split(", "):
        for entry in stage.split():
            if entry == "LRN":
                layers.append(response_norm())
                continue
            kernel, outputs = map(int, entry.split("-"))
            layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2, 2))
    network = VGG(nn.Sequential(*layers), num_classes=classes, init_weights=False)
    draw_weights(network)
    return network
