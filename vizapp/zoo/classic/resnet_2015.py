"""ResNet as published: He et al., "Deep Residual Learning for Image Recognition", 2015, Table 1.

torchvision's ResNets of 50, 101 and 152 layers have the stride of a bottleneck on its 3x3 convolution (a later change, which
costs 7 % more operations and is more accurate); the paper has it on the first 1x1. torchvision's 18 and 34 are as published.
"""

from __future__ import annotations

from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet_2015(depth: int, classes: int = 1000) -> ResNet:
    """torchvision's network with the strides of the paper. Weights of either fit the other."""
    network = ResNet(Bottleneck, list(BLOCKS[depth]), num_classes=classes)
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
    return network
