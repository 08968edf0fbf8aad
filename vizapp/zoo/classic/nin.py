"""Network in Network: Lin et al., 2013, section 4 (CIFAR-10)."""

from __future__ import annotations

from torch import Tensor, nn

from vizapp.zoo.classic.initial import draw_weights


class MlpConvolution(nn.Sequential):
    """A convolution followed by 1x1 convolutions: a multi-layer perceptron at every position."""

    def __init__(self, inputs: int, kernel: int, maps: tuple[int, int, int]) -> None:
        layers: list[nn.Module] = []
        for outputs, size in zip(maps, (kernel, 1, 1), strict=True):
            layers += [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.ReLU(inplace=True)]
            inputs = outputs
        super().__init__(*layers)


class NetworkInNetwork(nn.Module):
    """Three mlpconv layers with pools between them, and the mean of a map per class. No linear layers."""

    def __init__(self, classes: int = 10, width: int = 192) -> None:
        super().__init__()
        self.mlpconv1 = MlpConvolution(3, 5, (width, 160, 96))
        self.pool1, self.drop1 = nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout()
        self.mlpconv2 = MlpConvolution(96, 5, (width, width, width))
        self.pool2: nn.Module = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.drop2 = nn.Dropout()
        self.mlpconv3 = MlpConvolution(width, 3, (width, width, classes))
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 32 32]`."""
        x = self.drop1(self.pool1(self.mlpconv1(x)))  # [N 96 16 16]
        x = self.drop2(self.pool2(self.mlpconv2(x)))  # [N width 8 8]
        return self.mlpconv3(x).mean((2, 3))
