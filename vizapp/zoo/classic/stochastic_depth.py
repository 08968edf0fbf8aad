"""Stochastic depth: Huang et al., "Deep Networks with Stochastic Depth", 2016: CIFAR ResNets that skip blocks in training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vizapp.zoo.classic.cifar_resnet import Block, CifarResNet


class StochasticBlock(Block):
    """A residual block that is skipped in training with probability 1 - `survival`, and scaled by it in evaluation."""

    survival: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """`[N outputs h/stride w/stride]` of `[N inputs h w]` (equations 2 and 5)."""
        shortcut = self.shortcut(x)
        if not self.training:
            return F.relu(self.residual(x) * self.survival + shortcut)
        return F.relu(self.residual(x) + shortcut) if torch.rand(()) < self.survival else F.relu(shortcut)


class StochasticDepthResNet(CifarResNet):
    """A CIFAR ResNet whose l-th of L blocks survives with probability 1 - l/L (1 - `last`) (equation 4)."""

    def __init__(self, depth: int, classes: int = 10, last: float = 0.5) -> None:
        super().__init__(depth, classes, StochasticBlock)
        blocks = [block for block in self.modules() if isinstance(block, StochasticBlock)]
        for number, block in enumerate(blocks, 1):
            block.survival = 1 - number / len(blocks) * (1 - last)
