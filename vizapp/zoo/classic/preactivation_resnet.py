"""Pre-activation ResNets for CIFAR: He et al., "Identity Mappings in Deep Residual Networks", 2016, appendix."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vizapp.zoo.classic.initial import block_count, draw_weights, quieten


class PreactivationBlock(nn.Module):
    """Batch norm and ReLU before each of three convolutions (1x1, 3x3, 1x1); only additions on the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, outputs, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        changes = inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """`[N 4·width h/stride w/stride]` of `[N inputs h w]`. A block that changes the width projects its first activation."""
        active = self.relu(self.bn1(x))
        y = self.conv2(self.relu(self.bn2(self.conv1(active))))
        y = self.conv3(self.relu(self.bn3(y)))
        return y + (x if self.shortcut is None else self.shortcut(active))


class PreactivatedStages(nn.Module):
    """A network for 32 x 32 pictures of blocks that begin with batch norm and ReLU: three stages of `blocks` blocks.

    `block(inputs, width, stride)` makes a block with `growth` times `width` output channels; the widths are 16, 32 and 64.
    """

    def __init__(self, block: Callable[[int, int, int], nn.Module], growth: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        inputs = 16
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            stage = nn.Sequential()
            for number in range(blocks):
                stage.append(block(inputs, width, stride if number == 0 else 1))
                inputs = growth * width
            self.stages.append(stage)
        self.bn, self.relu = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.linear = nn.Linear(inputs, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 32 32]`."""
        x = self.conv(x)
        for stage in self.stages:
            x = stage(x)
        return self.linear(self.relu(self.bn(x)).mean((2, 3)))


class PreactivationResNet(PreactivatedStages):
    """`depth` = 9n + 2 layers for 32 x 32 pictures: three stages of n bottleneck blocks, 64, 128 and 256 channels."""

    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__(PreactivationBlock, 4, block_count(depth, 9, 2), classes)
        quieten([part.conv3 for part in self.modules() if isinstance(part, PreactivationBlock)])
