"""The small ResNets for CIFAR-10: He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vizapp.zoo.classic.initial import block_count, draw_weights, quieten


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without weights (option A: subsampling and zero channels)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.added = (outputs - inputs) // 2  # zero channels on each side

    def residual(self, x: Tensor) -> Tensor:
        """The output of the convolutions, `[N outputs h/stride w/stride]`, for `[N inputs h w]`."""
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))

    def shortcut(self, x: Tensor) -> Tensor:
        """The input in the shape of the residual."""
        if not self.added:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))

    def forward(self, x: Tensor) -> Tensor:
        """`[N outputs h/stride w/stride]` of `[N inputs h w]`."""
        y = self.residual(x)
        y += self.shortcut(x)
        return F.relu(y)


class CifarResNet(nn.Module):
    """A ResNet of `depth` = 6n + 2 layers for 32 x 32 pictures: three stages of n blocks, 16, 32 and 64 channels."""

    def __init__(self, depth: int, classes: int = 10, block: type[Block] = Block) -> None:
        super().__init__()
        blocks = block_count(depth, 6, 2)
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(block, 16, 16, blocks, 1)
        self.layer2 = _stage(block, 16, 32, blocks, 2)
        self.layer3 = _stage(block, 32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)
        draw_weights(self)
        quieten([part.bn2 for part in self.modules() if isinstance(part, Block)])

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 32 32]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))  # [N 64 8 8]
        return self.linear(x.mean((2, 3)))


def _stage(block: type[Block], inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(blocks - 1)))
